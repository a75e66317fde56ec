//! AdamW or SGD over flat buffers, and the exponential moving average (EMA) of what it trains.

mod flat;
mod state;

use std::collections::BTreeMap;

use tch::Tensor;
use torch_ext::optim::{AdamW, AdamWTensors, Sgd, SgdTensors, fused_adamw, fused_sgd};

use self::flat::FlatParameters;
use crate::{
    config::{EmaConfig, OptimizerKind, ParamGroups, TrainConfig},
    error::{Error, Result},
    models::parameters::{Parameter, Role, Tags},
};

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// Which rate and decay a parameter gets.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule {
    lr: f64,
    weight_decay: f64,
}

/// What an optimizer remembers of former gradients: buffers like that of the values.
#[derive(Debug)]
enum Moments {
    /// Their mean, and the mean of their squares.
    AdamW([Tensor; 2]),
    /// Their decaying sum.
    Sgd { sum: [Tensor; 1], momentum: f64 },
}

impl Moments {
    fn new(values: &Tensor, config: &TrainConfig) -> Result<Self> {
        let zeros = || values.f_zeros_like();
        Ok(match config.optimizer {
            OptimizerKind::Adamw => Self::AdamW([zeros()?, zeros()?]),
            OptimizerKind::Sgd => Self::Sgd { sum: [zeros()?], momentum: config.momentum() },
        })
    }

    /// Their names in a checkpoint.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let (names, tensors): (&[&str], &[Tensor]) = match self {
            Self::AdamW(moments) => (&["exp_avg", "exp_avg_sq"], moments),
            Self::Sgd { sum, .. } => (&["momentum"], sum),
        };
        names.iter().copied().zip(tensors)
    }
}

#[derive(Debug)]
struct Group {
    rule: Rule,
    flat: FlatParameters,
    moments: Moments,
    /// A buffer of its own, of which a second network can be a view.
    ema: Option<Tensor>,
}

/// The optimizer and the storage of everything it trains.
#[derive(Debug)]
pub struct Optimizer {
    groups: Vec<Group>,
    steps: i64,
    clip_max_norm: f64,
    ema: Option<EmaConfig>,
}

/// The rule of a parameter, by the reference's `param_dict_type`. `deepest` is the largest layer that the
/// backbone has.
fn rule(tags: Tags, deepest: u32, config: &TrainConfig) -> Rule {
    let lr = match tags.backbone {
        true => {
            let above = deepest.saturating_sub(tags.layer);
            config.lr_backbone * config.lr_backbone_layer_decay.powi(above as i32)
        }
        false => config.lr,
    };
    let plain = Rule { lr, weight_decay: config.weight_decay };
    match config.param_groups {
        ParamGroups::DdetrInMmdet if tags.sampling => {
            Rule { lr: config.lr * config.lr_linear_proj_mult, ..plain }
        }
        ParamGroups::LargeWd if tags.no_decay => Rule { weight_decay: 0.0, ..plain },
        ParamGroups::Default | ParamGroups::DdetrInMmdet | ParamGroups::LargeWd => plain,
    }
}

impl Optimizer {
    /// Moves every trainable one of the parameters into flat buffers.
    ///
    /// # Errors
    /// What libtorch refuses; a model without trainable parameters.
    pub fn new(parameters: Vec<Parameter>, config: &TrainConfig) -> Result<Self> {
        let of_backbone = parameters.iter().filter(|p| p.tags.backbone).map(|p| p.tags.layer);
        let deepest = of_backbone.max().unwrap_or(0);
        let mut rules: Vec<Rule> = Vec::new();
        let mut members: Vec<Vec<Parameter>> = Vec::new();
        for parameter in parameters {
            if parameter.role != Role::Trainable {
                continue;
            }
            let own = rule(parameter.tags, deepest, config);
            let at = rules.iter().position(|r| *r == own).unwrap_or_else(|| {
                rules.push(own);
                members.push(Vec::new());
                rules.len() - 1
            });
            members[at].push(parameter);
        }
        if rules.is_empty() {
            return Err(Error::other("the model has no trainable parameters"));
        }
        let groups = rules
            .into_iter()
            .zip(members)
            .map(|(rule, members)| Group::new(rule, members, config))
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
        let others = self.groups.iter().filter(|group| !group.flat.backbone);
        others.map(|group| group.flat.values.shallow_clone()).collect()
    }

    /// The flat buffers of gradients.
    #[must_use]
    pub fn gradients(&self) -> Vec<Tensor> {
        self.groups.iter().map(|group| group.flat.grads.shallow_clone()).collect()
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        for group in &mut self.groups {
            let _ = group.flat.grads.zero_();
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
                .map(|g| g.flat.grads.f_norm())
                .collect::<std::result::Result<_, _>>()?;
            let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
            if self.clip_max_norm > 0.0 {
                let factor = (&norm + 1e-6).reciprocal() * self.clip_max_norm;
                let factor = factor.clamp_max(1.0).where_self(&norm.isfinite(), &norm.ones_like());
                for group in &mut self.groups {
                    let _ = group.flat.grads.f_mul_(&factor)?;
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
                g.step(lr_factor, self.steps, skip)?;
                if let (Some(mean), Some(ema)) = (&mut g.ema, &self.ema) {
                    let _ = mean.f_lerp_(&g.flat.values, 1.0 - ema.decay_at(self.steps))?;
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
                    ema.copy_(&group.flat.values);
                }
            }
        });
    }

    /// The EMA of each parameter by name, as views of its own buffers: they follow every update. None where
    /// there is no EMA.
    #[must_use]
    pub fn ema(&self) -> Option<BTreeMap<String, Tensor>> {
        let mut views = BTreeMap::new();
        for group in &self.groups {
            views.extend(group.flat.views(group.ema.as_ref()?));
        }
        Some(views)
    }

    /// The name of the first parameter whose gradient is not finite.
    #[must_use]
    pub fn first_non_finite_gradient(&self) -> Option<String> {
        let finite = |x: &Tensor| x.isfinite().all().int64_value(&[]) != 0;
        for group in &self.groups {
            for slot in &group.flat.slots {
                if !finite(&slot.of(&group.flat.grads)) {
                    return Some(slot.name.clone());
                }
            }
        }
        None
    }
}

impl Group {
    fn new(rule: Rule, members: Vec<Parameter>, config: &TrainConfig) -> Result<Self> {
        let flat = FlatParameters::new(members)?;
        let moments = Moments::new(&flat.values, config)?;
        let ema = config.ema.is_some().then(|| flat.values.copy());
        Ok(Self { rule, moments, ema, flat })
    }

    /// Step number `count`, from 1.
    fn step(&mut self, lr_factor: f64, count: i64, skip: Option<&Tensor>) -> Result<()> {
        let Rule { lr, weight_decay } = self.rule;
        let lr = lr * lr_factor;
        let params = std::slice::from_ref(&self.flat.values);
        let grads = std::slice::from_ref(&self.flat.grads);
        match &mut self.moments {
            Moments::AdamW([mean, squares]) => {
                let rule = AdamW { lr, beta1: BETAS.0, beta2: BETAS.1, weight_decay, eps: EPS };
                let mut tensors = AdamWTensors {
                    params,
                    grads,
                    exp_avgs: std::slice::from_mut(mean),
                    exp_avg_sqs: std::slice::from_mut(squares),
                };
                fused_adamw(rule, &mut tensors, count, skip)?;
            }
            Moments::Sgd { sum, momentum } => {
                let rule = Sgd { lr, momentum: *momentum, weight_decay };
                let mut tensors = SgdTensors { params, grads, momentum_buffers: sum };
                fused_sgd(rule, &mut tensors, skip)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
