//! AdamW over flat buffers: the parameters, gradients and moments of a group are views of one
//! tensor each, so that a step, a norm and the EMA are one operation a group.

mod state;

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

    /// The flat buffers of parameters, but for those of the backbone alone: its weights are folded with their
    /// norms first.
    #[must_use]
    pub fn buffers(&self) -> Vec<Tensor> {
        let other =
            |group: &&Group| group.layout.iter().any(|(name, ..)| !name.contains("backbone"));
        self.groups.iter().filter(other).map(|group| group.params.shallow_clone()).collect()
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        for group in &mut self.groups {
            let _ = group.grads.zero_();
        }
    }

    /// Norm of the whole gradient, `[]`, where the gradient is; the gradient is scaled to at most the
    /// configured norm, unless its own is not finite: then it stays as it is, for whoever asks where that
    /// came from.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn clip(&mut self) -> Result<Tensor> {
        torch_ext::no_grad(|| {
            let norms: Vec<Tensor> = self
                .groups
                .iter()
                .map(|g| g.grads.f_norm())
                .collect::<std::result::Result<_, _>>()?;
            let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
            if self.clip_max_norm > 0.0 {
                let factor = (&norm + 1e-6).reciprocal() * self.clip_max_norm;
                let factor = factor.clamp_max(1.0).where_self(&norm.isfinite(), &norm.ones_like());
                for group in &mut self.groups {
                    let _ = group.grads.f_mul_(&factor)?;
                }
            }
            Ok(norm)
        })
    }

    /// One update, at the configured rates times `lr_factor`. Where `skip` is a 1 (one f32 number in the
    /// device's memory) the weights stay as they are.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn step(&mut self, lr_factor: f64, skip: Option<&Tensor>) -> Result<()> {
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
                    skip,
                )?;
                if let (Some(mean), Some(ema)) = (&mut g.ema, &self.ema) {
                    let _ = mean.f_lerp_(&g.params, 1.0 - ema.decay_at(self.steps))?;
                }
            }
            Ok(())
        })
    }

    /// Starts the EMA at the present weights.
    pub fn reset_ema(&mut self) {
        torch_ext::no_grad(|| {
            for group in &mut self.groups {
                if let Some(ema) = &mut group.ema {
                    ema.copy_(&group.params);
                }
            }
        });
    }

    /// Runs `f` with the EMA in place of the weights, if there is one.
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
mod tests;
