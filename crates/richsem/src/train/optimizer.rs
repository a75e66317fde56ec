//! AdamW over flat buffers: the parameters, gradients and moments of a group are views of one
//! tensor each, so that a step, a norm and a running mean are one operation a group.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{
    config::{EmaConfig, ParamGroups, TrainConfig},
    error::{Error, Result},
    models::parameters::{Parameter, Role},
};

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;
/// Every parameter starts at a multiple of this many values (256 bytes), as vector loads want.
const ALIGNMENT: usize = 64;

/// Which rate and decay a parameter gets.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule {
    lr: f64,
    weight_decay: f64,
}

#[derive(Debug)]
struct Group {
    rule: Rule,
    params: Tensor,
    grads: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Option<Tensor>,
    /// Name, offset and shape of each parameter.
    layout: Vec<(String, usize, Vec<i64>)>,
}

/// The optimizer and the storage of everything it trains.
#[derive(Debug)]
pub struct Optimizer {
    groups: Vec<Group>,
    steps: i64,
    clip_max_norm: f64,
    ema: Option<EmaConfig>,
}

/// The rule of a parameter, by the reference's `param_dict_type`.
fn rule(name: &str, config: &TrainConfig) -> Rule {
    let backbone = name.contains("backbone");
    let lr = if backbone { config.lr_backbone } else { config.lr };
    let plain = Rule { lr, weight_decay: config.weight_decay };
    match config.param_groups {
        ParamGroups::Default => plain,
        ParamGroups::DdetrInMmdet => {
            let slow = ["reference_points", "sampling_offsets"].iter().any(|k| name.contains(k));
            if slow && !backbone {
                return Rule { lr: config.lr * config.lr_linear_proj_mult, ..plain };
            }
            plain
        }
        ParamGroups::LargeWd => {
            // "norm" also names the norms of the transformer; torchvision's are called bn.
            if name.contains("norm") || name.contains("bias") {
                return Rule { weight_decay: 0.0, ..plain };
            }
            plain
        }
    }
}

impl Optimizer {
    /// Moves every trainable one of the parameters into flat buffers.
    ///
    /// # Errors
    /// What libtorch refuses; a model without trainable parameters.
    pub fn new(parameters: Vec<Parameter>, config: &TrainConfig) -> Result<Self> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut members: Vec<Vec<Parameter>> = Vec::new();
        for parameter in parameters {
            if parameter.role != Role::Trainable {
                continue;
            }
            let own = rule(&parameter.name, config);
            let at = rules.iter().position(|r| *r == own).unwrap_or_else(|| {
                rules.push(own);
                members.push(Vec::new());
                rules.len() - 1
            });
            members[at].push(parameter);
        }
        if rules.is_empty() {
            return Err(Error::Other("the model has no trainable parameters".into()));
        }
        let groups = rules
            .into_iter()
            .zip(members)
            .map(|(rule, members)| Group::new(rule, members, config.ema.is_some()))
            .collect::<Result<_>>()?;
        Ok(Self { groups, steps: 0, clip_max_norm: config.clip_max_norm, ema: config.ema.clone() })
    }

    /// Updates made so far.
    #[must_use]
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        for group in &mut self.groups {
            let _ = group.grads.zero_();
        }
    }

    /// Norm of the whole gradient; it is scaled to at most the configured norm, unless the norm is
    /// not finite: then the gradient stays as it is, for whoever asks where that came from.
    pub fn clip(&mut self) -> f64 {
        let norms: Vec<Tensor> = self.groups.iter().map(|g| g.grads.norm()).collect();
        let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
        let factor = self.clip_max_norm / (norm + 1e-6);
        if norm.is_finite() && self.clip_max_norm > 0.0 && factor < 1.0 {
            for group in &mut self.groups {
                let _ = group.grads.multiply_scalar_(factor);
            }
        }
        norm
    }

    /// One update, at the configured rates times `lr_factor`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn step(&mut self, lr_factor: f64) -> Result<()> {
        self.steps += 1;
        torch_ext::no_grad(|| {
            for g in &mut self.groups {
                torch_ext::optim::fused_adamw(
                    std::slice::from_ref(&g.params),
                    std::slice::from_ref(&g.grads),
                    std::slice::from_mut(&mut g.exp_avg),
                    std::slice::from_mut(&mut g.exp_avg_sq),
                    self.steps,
                    g.rule.lr * lr_factor,
                    BETAS.0,
                    BETAS.1,
                    g.rule.weight_decay,
                    EPS,
                )?;
                if let (Some(mean), Some(ema)) = (&mut g.ema, &self.ema) {
                    let _ = mean.f_lerp_(&g.params, 1.0 - ema.decay_at(self.steps))?;
                }
            }
            Ok(())
        })
    }

    /// Starts the running mean at the present weights.
    pub fn reset_ema(&mut self) {
        torch_ext::no_grad(|| {
            for group in &mut self.groups {
                if let Some(ema) = &mut group.ema {
                    ema.copy_(&group.params);
                }
            }
        });
    }

    /// Runs `f` with the running mean in place of the weights, if there is one.
    pub fn with_ema<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let swap = |groups: &mut [Group]| {
            torch_ext::no_grad(|| {
                for group in groups {
                    if let Some(ema) = &mut group.ema {
                        let mean = ema.copy();
                        ema.copy_(&group.params);
                        group.params.copy_(&mean);
                    }
                }
            });
        };
        swap(&mut self.groups);
        let result = f();
        swap(&mut self.groups);
        result
    }

    /// The name of the first parameter whose gradient is not finite.
    #[must_use]
    pub fn first_non_finite_gradient(&self) -> Option<String> {
        let finite = |x: &Tensor| x.isfinite().all().int64_value(&[]) != 0;
        for group in &self.groups {
            for (name, offset, shape) in &group.layout {
                let count: i64 = shape.iter().product();
                if !finite(&group.grads.narrow(0, *offset as i64, count)) {
                    return Some(name.clone());
                }
            }
        }
        None
    }

    /// Moments, and weights where they are not what inference uses, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (i, group) in self.groups.iter().enumerate() {
            state.insert(format!("params.{i}"), group.params.shallow_clone());
            state.insert(format!("exp_avg.{i}"), group.exp_avg.shallow_clone());
            state.insert(format!("exp_avg_sq.{i}"), group.exp_avg_sq.shallow_clone());
            if let Some(ema) = &group.ema {
                state.insert(format!("ema.{i}"), ema.shallow_clone());
            }
        }
        state
    }

    /// Which parameter lies where in the tensors of [`Self::state`].
    #[must_use]
    pub fn layout(&self) -> String {
        let place = |(name, offset, shape): &(String, usize, Vec<i64>)| {
            format!("{name} {offset} {shape:?}\n")
        };
        let group = |(i, g): (usize, &Group)| {
            format!("group {i}\n{}", g.layout.iter().map(place).collect::<String>())
        };
        self.groups.iter().enumerate().map(group).collect()
    }

    /// Restores what [`Self::state`] gave, by the names of the parameters: the groups may be others.
    /// Without a running mean in it, ours begins at the weights.
    ///
    /// # Errors
    /// A parameter that is missing, of another shape, or not of this model.
    pub fn load_state(
        &mut self,
        state: &BTreeMap<String, Tensor>,
        layout: &str,
        steps: i64,
        path: &Path,
    ) -> Result<()> {
        let refuse = |name: &str, problem: String| {
            Error::invalid(path, name, problem)
                .with_hint("resume with the release and the settings that the run was started with")
        };
        let mut saved = places(layout)
            .ok_or_else(|| refuse("layout", "the record of the parameters is damaged".into()))?;
        let mut copies = Vec::new();
        for group in &self.groups {
            for (name, offset, shape) in &group.layout {
                let Some(place) = saved.remove(name.as_str()) else {
                    return Err(refuse(name, "missing: this model has it".into()));
                };
                if place.shape != format!("{shape:?}") {
                    let problem = format!("expected shape {shape:?}, got {}", place.shape);
                    return Err(refuse(name, problem));
                }
                let count: i64 = shape.iter().product();
                let own = |flat: &Tensor| flat.narrow(0, *offset as i64, count);
                let of = |kind: &str| -> Result<Option<Tensor>> {
                    let key = format!("{kind}.{}", place.group);
                    let Some(flat) = state.get(&key) else { return Ok(None) };
                    Ok(Some(flat.f_narrow(0, place.offset, count)?))
                };
                let needed = |kind: &str| -> Result<Tensor> {
                    of(kind)?.ok_or_else(|| refuse(kind, format!("missing, for {name}")))
                };
                let params = needed("params")?;
                if let Some(ema) = &group.ema {
                    copies.push((own(ema), of("ema")?.unwrap_or_else(|| params.shallow_clone())));
                }
                copies.push((own(&group.exp_avg), needed("exp_avg")?));
                copies.push((own(&group.exp_avg_sq), needed("exp_avg_sq")?));
                copies.push((own(&group.params), params));
            }
        }
        if let Some(name) = saved.keys().next() {
            return Err(refuse(name, "unexpected: this model has no such parameter".into()));
        }
        torch_ext::no_grad(|| {
            for (mut own, saved) in copies {
                own.copy_(&saved);
            }
        });
        self.steps = steps;
        Ok(())
    }
}

/// Where a parameter lies in a saved state.
struct Place<'a> {
    group: usize,
    offset: i64,
    /// As [`Optimizer::layout`] writes it.
    shape: &'a str,
}

/// Reads what [`Optimizer::layout`] wrote.
fn places(layout: &str) -> Option<BTreeMap<&str, Place<'_>>> {
    let mut places = BTreeMap::new();
    let mut group = None;
    for line in layout.lines() {
        let mut parts = line.splitn(3, ' ');
        let (name, number) = (parts.next()?, parts.next()?);
        match parts.next() {
            None if name == "group" => group = Some(number.parse().ok()?),
            None => return None,
            Some(shape) => {
                let place = Place { group: group?, offset: number.parse().ok()?, shape };
                places.insert(name, place);
            }
        }
    }
    (!places.is_empty()).then_some(places)
}

impl Group {
    fn new(rule: Rule, members: Vec<Parameter>, ema: bool) -> Result<Self> {
        let mut layout = Vec::with_capacity(members.len());
        let mut total = 0usize;
        for member in &members {
            layout.push((member.name.clone(), total, member.tensor.size()));
            total += member.tensor.numel().next_multiple_of(ALIGNMENT);
        }
        // f32 always, but in the tests against the official code.
        let options = (members[0].tensor.kind(), members[0].tensor.device());
        let zeros = || Tensor::f_zeros([total as i64], options);
        let (params, grads) = (zeros()?, zeros()?);
        torch_ext::no_grad(|| -> Result<()> {
            for (mut member, (_, offset, shape)) in members.into_iter().zip(&layout) {
                let view = |flat: &Tensor| {
                    flat.narrow(0, *offset as i64, member.tensor.numel() as i64)
                        .view(shape.as_slice())
                };
                let (value, grad) = (view(&params), view(&grads));
                value.shallow_clone().copy_(&member.tensor);
                // The module's own tensor now reads and writes the flat buffer.
                member.tensor.set_data(&value);
                torch_ext::set_grad(&member.tensor, &grad)?;
            }
            Ok(())
        })?;
        let ema = ema.then(|| params.copy());
        Ok(Self { rule, exp_avg: zeros()?, exp_avg_sq: zeros()?, ema, params, grads, layout })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::models::parameters::{Init, ParameterStore};
    use tch::{Device, Kind};

    fn setup(config: &TrainConfig) -> (ParameterStore, Tensor, Tensor, Optimizer) {
        let store = ParameterStore::new(Device::Cpu, 0);
        let a = store.root().sub("backbone").parameter("weight", &[3], Init::Uniform(1.0));
        let b = store.root().sub("head").parameter("bias", &[2, 2], Init::Uniform(1.0));
        let optimizer = Optimizer::new(store.parameters(), config).unwrap();
        (store, a, b, optimizer)
    }

    fn loss(a: &Tensor, b: &Tensor) -> Tensor {
        (a * a).sum(Kind::Float) * 2.0 + (b - 1.0).pow_tensor_scalar(4).sum(Kind::Float)
    }

    /// The update of one value, as the paper writes it.
    fn adamw(value: &mut f64, grads: &[f64], lr: f64, decay: f64) {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in grads.iter().enumerate() {
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            if t + 1 == grads.len() {
                let t = grads.len() as i32;
                let (mh, vh) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
                *value -= lr * decay * *value;
                *value -= lr * mh / (vh.sqrt() + 1e-8);
            }
        }
    }

    #[test]
    fn parameters_share_the_flat_buffer_and_follow_adamw() {
        let config = TrainConfig {
            lr: 0.1,
            lr_backbone: 0.01,
            weight_decay: 0.05,
            clip_max_norm: 0.0,
            ..TrainConfig::default()
        };
        let (_store, a, b, mut optimizer) = setup(&config);
        let (mut ea, mut eb) = (a.double_value(&[1]), b.double_value(&[1, 0]));
        let (mut ga, mut gb) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            optimizer.zero_grad();
            loss(&a, &b).backward();
            ga.push(a.grad().double_value(&[1]));
            gb.push(b.grad().double_value(&[1, 0]));
            let _ = optimizer.clip();
            optimizer.step(1.0).unwrap();
            adamw(&mut ea, &ga, 0.01, 0.05);
            adamw(&mut eb, &gb, 0.1, 0.05);
        }
        assert!((a.double_value(&[1]) - ea).abs() < 1e-6);
        assert!((b.double_value(&[1, 0]) - eb).abs() < 1e-6);
    }

    #[test]
    fn clipping_scales_the_whole_gradient() {
        let config = TrainConfig { clip_max_norm: 0.1, ..TrainConfig::default() };
        let (_store, a, b, mut optimizer) = setup(&config);
        loss(&a, &b).backward();
        let squares = |x: &Tensor| x.grad().square().sum(Kind::Double).double_value(&[]);
        let before = (squares(&a) + squares(&b)).sqrt();
        let norm = optimizer.clip();
        assert!((norm - before).abs() < 1e-5);
        assert!(((squares(&a) + squares(&b)).sqrt() - 0.1).abs() < 1e-5);
        // A gradient below the limit stays as it is.
        optimizer.zero_grad();
        let _ = a.grad().fill_(0.01);
        let norm = optimizer.clip();
        assert!((norm - 0.01 * 3f64.sqrt()).abs() < 1e-6);
        assert!((a.grad().double_value(&[0]) - 0.01).abs() < 1e-9);
    }

    #[test]
    fn the_first_gradient_that_is_not_finite_is_named_also_with_clipping() {
        let config = TrainConfig { clip_max_norm: 0.1, ..TrainConfig::default() };
        let (_store, a, b, mut optimizer) = setup(&config);
        loss(&a, &b).backward();
        let _ = b.grad().get(1).fill_(f64::NAN);
        assert!(optimizer.clip().is_nan());
        assert_eq!(optimizer.first_non_finite_gradient().as_deref(), Some("head.bias"));
    }

    #[test]
    fn the_mean_lags_behind_and_is_swapped_in_and_out() {
        let ema = Some(EmaConfig { decay: 0.5, warmup: false });
        let config = TrainConfig { ema, lr: 0.1, ..TrainConfig::default() };
        let (_store, _a, b, mut optimizer) = setup(&config);
        let start = b.double_value(&[0, 0]);
        let _ = b.grad().fill_(1.0);
        optimizer.step(1.0).unwrap();
        let now = b.double_value(&[0, 0]);
        let mean = optimizer.with_ema(|| b.double_value(&[0, 0]));
        assert!((mean - (start + now) / 2.0).abs() < 1e-6);
        assert_eq!(b.double_value(&[0, 0]), now);
    }

    /// By hand in f64, over an interruption: the number of the update is what counts.
    #[test]
    fn a_warm_mean_forgets_the_first_weights() {
        let ema = EmaConfig { decay: 0.3, warmup: true };
        let config = TrainConfig { ema: Some(ema), lr: 0.1, ..TrainConfig::default() };
        let (_s1, _a, b, mut optimizer) = setup(&config);
        let mut expected = b.double_value(&[0, 0]);
        // 2/11 and 3/12 are below 0.3, 4/13 is not.
        for decay in [2.0 / 11.0, 3.0 / 12.0] {
            let _ = b.grad().fill_(1.0);
            optimizer.step(1.0).unwrap();
            expected = decay * expected + (1.0 - decay) * b.double_value(&[0, 0]);
        }
        let saved = optimizer.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
        let (_s2, _a, b, mut resumed) = setup(&config);
        resumed.load_state(&saved, &optimizer.layout(), optimizer.steps(), "s".as_ref()).unwrap();
        for decay in [0.3, 0.3] {
            let _ = b.grad().fill_(1.0);
            resumed.step(1.0).unwrap();
            expected = decay * expected + (1.0 - decay) * b.double_value(&[0, 0]);
        }
        let mean = resumed.with_ema(|| b.double_value(&[0, 0]));
        assert!((mean - expected).abs() < 1e-6, "{mean} {expected}");
    }

    #[test]
    fn groups_are_the_references() {
        let rules = |param_groups| {
            let config = TrainConfig { param_groups, ..TrainConfig::default() };
            [
                "backbone.0.body.conv1.weight",
                "transformer.decoder.norm.weight",
                "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
            ]
            .map(|name| rule(name, &config))
            .map(|r| (r.lr, r.weight_decay))
        };
        assert_eq!(rules(ParamGroups::Default), [(1e-5, 1e-4), (1e-4, 1e-4), (1e-4, 1e-4)]);
        assert_eq!(rules(ParamGroups::DdetrInMmdet), [(1e-5, 1e-4), (1e-4, 1e-4), (1e-5, 1e-4)]);
        assert_eq!(rules(ParamGroups::LargeWd), [(1e-5, 1e-4), (1e-4, 0.0), (1e-4, 1e-4)]);
    }

    #[test]
    fn state_survives_a_round_trip() {
        let config = TrainConfig { ema: Some(EmaConfig::default()), ..TrainConfig::default() };
        let (_s1, a1, b1, mut first) = setup(&config);
        let (_s2, a2, b2, mut second) = setup(&config);
        let run = |a: &Tensor, b: &Tensor, o: &mut Optimizer| {
            o.zero_grad();
            loss(a, b).backward();
            let _ = o.clip();
            o.step(1.0).unwrap();
        };
        run(&a1, &b1, &mut first);
        let saved = first.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
        second.load_state(&saved, &first.layout(), first.steps(), "s".as_ref()).unwrap();
        run(&a1, &b1, &mut first);
        run(&a2, &b2, &mut second);
        assert_eq!(a1, a2);
        assert_eq!(b1, b2);
    }

    /// A run that goes on with other rates has other groups, or one where there were two.
    #[test]
    fn state_is_known_by_names_whatever_the_groups() {
        let two = TrainConfig { lr: 0.1, lr_backbone: 0.01, ..TrainConfig::default() };
        let one = TrainConfig { lr_backbone: 0.1, ema: Some(EmaConfig::default()), ..two.clone() };
        let (_s1, a1, b1, mut first) = setup(&two);
        loss(&a1, &b1).backward();
        first.step(1.0).unwrap();
        let saved: BTreeMap<_, _> = first.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
        let (_s2, a2, b2, mut second) = setup(&one);
        assert_ne!(first.layout(), second.layout());
        second.load_state(&saved, &first.layout(), 1, "s".as_ref()).unwrap();
        assert_eq!((&a1, &b1), (&a2, &b2));
        // The mean begins at the weights, and the moments are those that were saved.
        second.with_ema(|| assert_eq!((&a1, &b1), (&a2, &b2)));
        for optimizer in [&mut first, &mut second] {
            optimizer.zero_grad();
        }
        loss(&a1, &b1).backward();
        loss(&a2, &b2).backward();
        first.step(0.0).unwrap();
        second.step(0.0).unwrap();
        let moment = |o: &Optimizer, name: &str| {
            let place = o.groups.iter().find_map(|g| {
                let (_, offset, shape) = g.layout.iter().find(|(n, ..)| n == name)?;
                Some(g.exp_avg.narrow(0, *offset as i64, shape.iter().product()))
            });
            place.unwrap()
        };
        for name in ["backbone.weight", "head.bias"] {
            assert_eq!(moment(&first, name), moment(&second, name), "{name}");
        }

        let refused = |layout: &str| {
            let (_s, _a, _b, mut other) = setup(&one);
            other.load_state(&saved, layout, 1, "s".as_ref()).unwrap_err().to_string()
        };
        let layout = first.layout();
        let renamed = layout.replace("head.bias", "head.b");
        assert!(refused(&renamed).contains("s: head.bias: missing"), "{}", refused(&renamed));
        let reshaped = layout.replace("[2, 2]", "[4]");
        assert!(refused(&reshaped).contains("expected shape [2, 2], got [4]"));
        let more = format!("{layout}tail.weight 0 [3]\n");
        assert!(refused(&more).contains("tail.weight: unexpected"), "{}", refused(&more));
        for damaged in ["", "group\n", "head.bias 0 [2, 2]\n"] {
            assert!(refused(damaged).contains("layout: the record"), "{damaged}");
        }
    }
}
