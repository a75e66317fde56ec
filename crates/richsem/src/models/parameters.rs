//! Named parameters and buffers. Names mirror the official checkpoints' keys.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{Display, Write as _},
    hash::Hasher as _,
};

use tch::{Device, Kind, Tensor};

use crate::{
    error::{Error, Result},
    hash::Fnv,
    random::{Random, Stream},
};

/// How a tensor takes part in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A parameter that the optimizer updates.
    Trainable,
    /// A parameter that stays as it was loaded (frozen stages).
    Frozen,
    /// State that is not a parameter: frozen affine terms, statistics that stay as they were loaded.
    Buffer,
    /// A buffer that passes in training write to: the running statistics of a trained batch norm.
    Statistics,
}

impl Role {
    /// Whether it is state that is not a parameter, which a checkpoint of the training has beside the optimizer's.
    #[must_use]
    pub fn is_buffer(self) -> bool {
        matches!(self, Self::Buffer | Self::Statistics)
    }
}

/// What the rules of learning rates and weight decay need to know of a parameter. The module that
/// makes the parameter says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    /// Whether it is part of the backbone.
    pub backbone: bool,
    /// How deep it lies in the backbone; 0 is the layer that sees the image.
    pub layer: u32,
    /// Whether it is part of what says where deformable attention looks (offsets, reference
    /// points).
    pub sampling: bool,
    /// Whether it is a bias or the scale of a norm.
    pub no_decay: bool,
}

/// One named tensor. The tensor shares its storage with the module that uses it.
#[derive(Debug)]
pub struct Parameter {
    /// Dotted name, as `transformer.encoder.layers.0.linear1.weight`.
    pub name: String,
    /// The values. The module has the same tensor.
    pub tensor: Tensor,
    /// Whether the optimizer sees it.
    pub role: Role,
    /// What kind of parameter it is.
    pub tags: Tags,
}

/// How initial values are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// This value everywhere.
    Constant(f64),
    /// Normal, mean 0, with this standard deviation.
    Normal(f64),
    /// Uniform in [−bound, bound).
    Uniform(f64),
    /// Glorot, uniform; fan-in and fan-out from the shape.
    XavierUniform,
    /// He, normal, fan-out, for a ReLU (`torchvision`'s ResNets).
    KaimingFanOut,
}

/// How the store fills new parameters.
#[derive(Debug)]
enum Start {
    /// Initial values, which a seed decides.
    Drawn(u64),
    /// Zeros: values are loaded next, so drawing them would be useless.
    ToBeLoaded,
    /// Tensors that already exist, by name. They are shared.
    Given(RefCell<BTreeMap<String, Tensor>>),
}

/// All parameters of a model, in the order in which its modules made them.
#[derive(Debug)]
pub struct ParameterStore {
    device: Device,
    start: Start,
    parameters: RefCell<Vec<Parameter>>,
}

impl ParameterStore {
    /// An empty store. `seed` and the name of a parameter decide its initial values.
    #[must_use]
    pub fn new(device: Device, seed: u64) -> Self {
        Self { device, start: Start::Drawn(seed), parameters: RefCell::default() }
    }

    /// An empty store for a model whose values come from [`Self::load`]. Until then they are zero.
    #[must_use]
    pub fn to_be_loaded(device: Device) -> Self {
        Self { device, start: Start::ToBeLoaded, parameters: RefCell::default() }
    }

    /// A store for a model whose parameters and buffers are these tensors: a second network on the same
    /// memory. Building it panics if a tensor is missing or of another shape.
    #[must_use]
    pub fn over(device: Device, tensors: BTreeMap<String, Tensor>) -> Self {
        let start = Start::Given(RefCell::new(tensors));
        Self { device, start, parameters: RefCell::default() }
    }

    /// The device that holds all parameters.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The scope of the whole model.
    #[must_use]
    pub fn root(&self) -> Scope<'_> {
        Scope { store: self, prefix: String::new(), frozen: false, tags: Tags::default() }
    }

    /// Name, tensor and role of each, in order of creation. Tensors are shared, not copied.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let shared = |p: &Parameter| Parameter {
            name: p.name.clone(),
            tensor: p.tensor.shallow_clone(),
            role: p.role,
            tags: p.tags,
        };
        self.parameters.borrow().iter().map(shared).collect()
    }

    /// Number of values that the optimizer updates.
    #[must_use]
    pub fn trainable_count(&self) -> usize {
        let all = self.parameters.borrow();
        all.iter().filter(|p| p.role == Role::Trainable).map(|p| p.tensor.numel()).sum()
    }

    /// Copies values in by name.
    ///
    /// # Errors
    /// Every name that is missing, unexpected or of another shape, or a value that is not finite,
    /// in one message; nothing is copied then. `what` says where the values came from.
    pub fn load(&self, values: &BTreeMap<String, Tensor>, what: &std::path::Path) -> Result<()> {
        let all = self.parameters.borrow();
        let mut problems = Vec::new();
        for parameter in all.iter() {
            match values.get(&parameter.name) {
                None => problems.push(format!("missing {}", parameter.name)),
                Some(value) if value.size() != parameter.tensor.size() => problems.push(format!(
                    "{}: expected shape {:?}, got {:?}",
                    parameter.name,
                    parameter.tensor.size(),
                    value.size()
                )),
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<&str> = all.iter().map(|p| p.name.as_str()).collect();
        problems.extend(
            values
                .keys()
                .filter(|k| !known.contains(k.as_str()))
                .map(|k| format!("unexpected {k}")),
        );
        if !problems.is_empty() {
            let shown = problems.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
            let more = problems.len().saturating_sub(8);
            let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
            return Err(Error::invalid(what, "weights", format!("{shown}{rest}")).with_hint(
                "the weights belong to another model: use the config they were trained with \
                 (the resolved config.toml in their run folder)",
            ));
        }
        for parameter in all.iter() {
            if !torch_ext::all_finite(&values[&parameter.name])? {
                let problem = "holds NaN or infinite values";
                return Err(Error::invalid(what, parameter.name.clone(), problem).with_hint(
                    "the file is damaged, or its training had diverged: use another file",
                ));
            }
        }
        torch_ext::no_grad(|| -> Result<()> {
            for parameter in all.iter() {
                parameter.tensor.shallow_clone().f_copy_(&values[&parameter.name])?;
            }
            Ok(())
        })
    }

    /// Values by name, sharing storage with the model.
    #[must_use]
    pub fn named_tensors(&self) -> BTreeMap<String, Tensor> {
        let all = self.parameters.borrow();
        all.iter().map(|p| (p.name.clone(), p.tensor.detach())).collect()
    }
}

/// A prefix of names in a store, as `transformer.encoder.layers.0`.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    store: &'a ParameterStore,
    prefix: String,
    frozen: bool,
    tags: Tags,
}

impl Scope<'_> {
    /// The scope below this one.
    #[must_use]
    pub fn sub(&self, name: impl Display) -> Self {
        let mut prefix = self.prefix.clone();
        if !prefix.is_empty() {
            prefix.push('.');
        }
        // Writing to a String cannot fail.
        let _ = write!(prefix, "{name}");
        Self { prefix, ..*self }
    }

    /// This scope, its parameters frozen from here on.
    #[must_use]
    pub fn frozen(mut self, frozen: bool) -> Self {
        self.frozen |= frozen;
        self
    }

    /// This scope, as a part of the backbone from here on.
    #[must_use]
    pub fn backbone(mut self) -> Self {
        self.tags.backbone = true;
        self
    }

    /// This scope, as layer number `layer` of the backbone from here on.
    #[must_use]
    pub fn layer(mut self, layer: u32) -> Self {
        self.tags.layer = layer;
        self
    }

    /// This scope, as a part of what says where deformable attention looks from here on.
    #[must_use]
    pub fn sampling(mut self) -> Self {
        self.tags.sampling = true;
        self
    }

    /// True if parameters made here are frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The device that holds all parameters.
    #[must_use]
    pub fn device(&self) -> Device {
        self.store.device
    }

    /// What `make` makes, and the parameters that it made on the way. Tensors are shared, not copied.
    pub fn collect<T>(&self, make: impl FnOnce() -> T) -> (T, Vec<Tensor>) {
        let before = self.store.parameters.borrow().len();
        let made = make();
        let all = self.store.parameters.borrow();
        (made, all[before..].iter().map(|p| p.tensor.shallow_clone()).collect())
    }

    /// Adds a parameter, f32, and gives it to the module.
    pub fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add(name, shape, init, self.role(), self.tags)
    }

    /// Adds a parameter, f32, that is a bias or the scale of a norm. Some rules give those no
    /// weight decay.
    pub fn parameter_without_decay(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add(name, shape, init, self.role(), Tags { no_decay: true, ..self.tags })
    }

    fn role(&self) -> Role {
        if self.frozen { Role::Frozen } else { Role::Trainable }
    }

    /// Adds a buffer, f32: it is saved and loaded, never trained.
    pub fn buffer(&self, name: &str, shape: &[i64], value: f64) -> Tensor {
        self.add(name, shape, Init::Constant(value), Role::Buffer, self.tags)
    }

    /// Adds a buffer, f32, that passes in training write to, unless its part of the network is frozen.
    pub fn statistics(&self, name: &str, shape: &[i64], value: f64) -> Tensor {
        let role = if self.frozen { Role::Buffer } else { Role::Statistics };
        self.add(name, shape, Init::Constant(value), role, self.tags)
    }

    fn add(&self, name: &str, shape: &[i64], init: Init, role: Role, tags: Tags) -> Tensor {
        let name = self.sub(name).prefix;
        let device = self.store.device;
        let value = match &self.store.start {
            Start::Drawn(seed) => initial(*seed, &name, shape, init).to_device(device),
            Start::ToBeLoaded => Tensor::zeros(shape, (Kind::Float, device)),
            Start::Given(tensors) => match tensors.borrow_mut().remove(&name) {
                Some(tensor) if tensor.size() == shape => tensor.detach(),
                other => panic!("{name}: {shape:?}, given {:?}", other.map(|t| t.size())),
            },
        };
        let tensor = value.set_requires_grad(role == Role::Trainable);
        let shared = tensor.shallow_clone();
        self.store.parameters.borrow_mut().push(Parameter { name, tensor: shared, role, tags });
        tensor
    }
}

/// Values depend on the seed and the parameter's own name, so that adding a module leaves the
/// others' initial values as they were.
fn initial(seed: u64, name: &str, shape: &[i64], init: Init) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let receptive: i64 = shape.iter().skip(2).product();
    let fan_in = shape.get(1).copied().unwrap_or(1) * receptive;
    let fan_out = shape.first().copied().unwrap_or(1) * receptive;
    let mut hasher = Fnv::default();
    hasher.write(name.as_bytes());
    let mut random = Random::new(seed, Stream::Init, 0, hasher.finish());
    // If the model is too large, this ends as libtorch's own errors do, and does not end the process.
    let mut values: Vec<f32> = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        panic!("{name}: can't allocate memory: you tried to allocate {} bytes", 4 * count);
    }
    let mut fill = |draw: &mut dyn FnMut(&mut Random) -> f64| {
        values.extend((0..count).map(|_| draw(&mut random) as f32));
    };
    match init {
        Init::Constant(value) => {
            return Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        }
        Init::Uniform(bound) => fill(&mut |random| random.range(-bound, bound)),
        Init::XavierUniform => {
            let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
            fill(&mut |random| random.range(-bound, bound));
        }
        Init::Normal(std) => fill(&mut |random| std * random.normal()),
        Init::KaimingFanOut => {
            let std = (2.0 / fan_out as f64).sqrt();
            fill(&mut |random| std * random.normal());
        }
    }
    Tensor::from_slice(&values).reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_depend_on_seed_and_name_alone() {
        let store = ParameterStore::new(Device::Cpu, 3);
        let a = store.root().sub("a").parameter("weight", &[4, 3], Init::XavierUniform);
        let other = ParameterStore::new(Device::Cpu, 3);
        let _ = other.root().sub("z").parameter("weight", &[4, 3], Init::XavierUniform);
        let b = other.root().sub("a").parameter("weight", &[4, 3], Init::XavierUniform);
        assert_eq!(a, b);
        let c = ParameterStore::new(Device::Cpu, 4).root().sub("a").parameter(
            "weight",
            &[4, 3],
            Init::XavierUniform,
        );
        assert_ne!(a, c);
        let bound = (6.0f64 / 7.0).sqrt();
        assert!(a.abs().max().double_value(&[]) <= bound);
    }

    #[test]
    fn load_lists_every_mismatch_and_copies_nothing() {
        let store = ParameterStore::new(Device::Cpu, 0);
        let weight = store.root().parameter("weight", &[2], Init::Constant(1.0));
        let _ = store.root().parameter("bias", &[2], Init::Constant(0.0));
        let values = BTreeMap::from([
            ("weight".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu))),
            ("extra".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu))),
        ]);
        let message = store.load(&values, "w.safetensors".as_ref()).unwrap_err().to_string();
        for part in [
            "w.safetensors",
            "missing bias",
            "expected shape [2], got [3]",
            "unexpected extra",
            "hint",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(weight.double_value(&[0]), 1.0);
    }
}
