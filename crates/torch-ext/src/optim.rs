//! AdamW and SGD over many tensors, in one pass over memory.

use tch::{Kind, Tensor};

use crate::{Error, Result, ffi};

const ADAMW: &str = "fused_adamw";
const SGD: &str = "fused_sgd";

/// The numbers of AdamW's rule (decoupled weight decay, arXiv 1711.05101, Algorithm 2).
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean of the gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of the squared gradients, in [0, 1).
    pub beta2: f64,
    /// Weight decay, which is multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the divisor, so that it is not zero.
    pub eps: f64,
}

/// What a step of AdamW works on: four lists of as many tensors, of the same shapes and contiguous.
/// Tensors may be flat buffers that parameters are views of.
#[derive(Debug)]
pub struct AdamWTensors<'a> {
    /// The parameters, which the step changes.
    pub params: &'a [Tensor],
    /// Their gradients, which the step reads.
    pub grads: &'a [Tensor],
    /// The mean of the gradients of all steps, which the step updates.
    pub exp_avgs: &'a mut [Tensor],
    /// The mean of their squares, which the step updates.
    pub exp_avg_sqs: &'a mut [Tensor],
}

/// The numbers of stochastic gradient descent with momentum, as PyTorch's `torch.optim.SGD` without dampening:
/// the decay is added to the gradient, the learning rate multiplies the sum of them all.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f64,
    /// Share of the sum of former gradients that stays, in [0, 1).
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// What a step of SGD works on: three lists, as those of [`AdamWTensors`].
#[derive(Debug)]
pub struct SgdTensors<'a> {
    /// The parameters, which the step changes.
    pub params: &'a [Tensor],
    /// Their gradients, which the step reads.
    pub grads: &'a [Tensor],
    /// The decaying sum of the gradients of all steps, zero at first, which the step updates.
    pub momentum_buffers: &'a mut [Tensor],
}

/// Whether each of these lists is like the parameters, and `skip` one number.
fn check(
    op: &'static str,
    params: &[Tensor],
    lists: &[(&'static str, &[Tensor])],
    skip: Option<&Tensor>,
) -> Result<()> {
    for &(argument, list) in lists {
        if list.len() != params.len() {
            return Err(Error::argument(
                op,
                argument,
                format!("{} tensors, as params", params.len()),
                list.len().to_string(),
            ));
        }
        for (param, other) in params.iter().zip(list) {
            if param.size() != other.size()
                || param.device() != other.device()
                || !other.is_contiguous()
            {
                return Err(Error::argument(
                    op,
                    argument,
                    format!("contiguous {:?} on {:?}, as params", param.size(), param.device()),
                    format!("{:?} on {:?}", other.size(), other.device()),
                ));
            }
        }
    }
    if let Some(param) = params.iter().find(|p| !p.is_contiguous()) {
        return Err(Error::argument(op, "params", "contiguous", format!("{:?}", param.stride())));
    }
    if let Some(skip) = skip
        && (skip.numel() != 1 || skip.kind() != Kind::Float)
    {
        let got = format!("{:?} {:?}", skip.size(), skip.kind());
        return Err(Error::argument(op, "skip", "one f32 number", got));
    }
    Ok(())
}

/// One step of SGD over every tensor of the three lists, in place and in one pass over memory
/// (`at::_fused_sgd_`). On the CPU and on CUDA. `skip` is as for [`fused_adamw`].
///
/// # Errors
/// When the lists differ in length, or shapes, kinds or devices disagree.
pub fn fused_sgd(rule: Sgd, tensors: &mut SgdTensors<'_>, skip: Option<&Tensor>) -> Result<()> {
    let SgdTensors { params, grads, momentum_buffers } = tensors;
    check(SGD, params, &[("grads", grads), ("momentum_buffers", momentum_buffers)], skip)?;
    // SAFETY: every list has `params.len()` live tensors.
    ffi::check(unsafe {
        ffi::ext_fused_sgd(
            ffi::pointers(*params).as_ptr(),
            ffi::pointers(*grads).as_ptr(),
            ffi::pointers(&**momentum_buffers).as_ptr(),
            params.len(),
            rule.lr,
            rule.momentum,
            rule.weight_decay,
            skip.map_or(std::ptr::null(), Tensor::as_ptr),
        )
    })
}

/// One AdamW step over every tensor of the four lists, in place and in one pass over memory
/// (`at::_fused_adamw_`). On the CPU and on CUDA.
///
/// `step_count` is the number of this step, from 1. If `skip`, a number in the device's memory, is 1,
/// nothing changes: the host need not know whether a gradient is finite to queue the step.
///
/// # Errors
/// When the lists differ in length, a step of 0 is given, or shapes, kinds or devices disagree.
pub fn fused_adamw(
    rule: AdamW,
    tensors: &mut AdamWTensors<'_>,
    step_count: i64,
    skip: Option<&Tensor>,
) -> Result<()> {
    if step_count < 1 {
        return Err(Error::argument(ADAMW, "step_count", "1 or more", step_count.to_string()));
    }
    let AdamWTensors { params, grads, exp_avgs, exp_avg_sqs } = tensors;
    let lists: [(_, &[Tensor]); 3] =
        [("grads", grads), ("exp_avgs", exp_avgs), ("exp_avg_sqs", exp_avg_sqs)];
    check(ADAMW, params, &lists, skip)?;
    let steps: Vec<Tensor> = params
        .iter()
        .map(|param| Tensor::f_full([] as [i64; 0], step_count, (Kind::Float, param.device())))
        .collect::<Result<_, _>>()?;
    // SAFETY: every list has `params.len()` live tensors.
    ffi::check(unsafe {
        ffi::ext_fused_adamw(
            ffi::pointers(*params).as_ptr(),
            ffi::pointers(*grads).as_ptr(),
            ffi::pointers(&**exp_avgs).as_ptr(),
            ffi::pointers(&**exp_avg_sqs).as_ptr(),
            ffi::pointers(&steps).as_ptr(),
            params.len(),
            rule.lr,
            rule.beta1,
            rule.beta2,
            rule.weight_decay,
            rule.eps,
            skip.map_or(std::ptr::null(), Tensor::as_ptr),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Device;

    use super::*;

    fn rule(lr: f64, weight_decay: f64) -> AdamW {
        AdamW { lr, beta1: 0.9, beta2: 0.999, weight_decay, eps: 1e-8 }
    }

    /// AdamW by hand in f64; returns the parameters after `steps` steps of gradient `g * step`.
    fn by_hand(mut p: Vec<f64>, g: &[f64], steps: i32, lr: f64, wd: f64) -> Vec<f64> {
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        for t in 1..=steps {
            for i in 0..p.len() {
                let g = g[i] * f64::from(t);
                p[i] -= lr * wd * p[i];
                m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                let m_hat = m[i] / (1.0 - f64::powi(beta1, t));
                let v_hat: f64 = v[i] / (1.0 - f64::powi(beta2, t));
                p[i] -= lr * m_hat / (v_hat.sqrt() + eps);
            }
        }
        p
    }

    #[test]
    fn ten_steps_agree_with_adamw_by_hand() {
        let p: Vec<f64> = (0..37).map(|i| (f64::from(i) * 0.37).sin()).collect();
        let g: Vec<f64> = (0..37).map(|i| (f64::from(i) * 0.91).cos() * 0.3).collect();
        let expected = by_hand(p.clone(), &g, 10, 1e-2, 0.05);
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-6)] {
            let param = Tensor::from_slice(&p).to_kind(kind);
            let grad = Tensor::from_slice(&g).to_kind(kind);
            let (mut m, mut v) = ([param.zeros_like()], [param.zeros_like()]);
            for step in 1..=10 {
                let grads = [&grad * step as f64];
                let mut tensors = AdamWTensors {
                    params: &[param.shallow_clone()],
                    grads: &grads,
                    exp_avgs: &mut m,
                    exp_avg_sqs: &mut v,
                };
                fused_adamw(rule(1e-2, 0.05), &mut tensors, step, None).unwrap();
            }
            let got = Vec::<f64>::try_from(param.to_kind(Kind::Double)).unwrap();
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < tolerance, "{kind:?}: {got} != {expected}");
            }
        }
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let t = || Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let step = |grads: &[Tensor], count| {
            let mut tensors = AdamWTensors {
                params: &[t()],
                grads,
                exp_avgs: &mut [t()],
                exp_avg_sqs: &mut [t()],
            };
            fused_adamw(rule(0.1, 0.0), &mut tensors, count, None)
        };
        assert!(step(&[], 1).unwrap_err().to_string().contains("grads"));
        assert!(step(&[t()], 0).unwrap_err().to_string().contains("step_count"));
        let wrong = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        assert!(step(&[wrong], 1).unwrap_err().to_string().contains("[4]"));
        step(&[t()], 1).unwrap();
    }

    /// By hand; what is told to be skipped changes nothing.
    #[test]
    fn sgd_adds_up_gradients_and_decay() {
        let of = |values: &[f64]| Tensor::from_slice(values);
        let (param, grad) = (of(&[1.0, -2.0]), of(&[0.5, 0.25]));
        let mut buffer = [param.zeros_like()];
        let rule = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let mut step = |skip: Option<&Tensor>| {
            let mut tensors = SgdTensors {
                params: &[param.shallow_clone()],
                grads: &[grad.shallow_clone()],
                momentum_buffers: &mut buffer,
            };
            fused_sgd(rule, &mut tensors, skip)
        };
        step(None).unwrap();
        step(Some(&Tensor::from(1.0f32))).unwrap();
        step(Some(&Tensor::from(0.0f32))).unwrap();
        assert!(step(Some(&Tensor::from_slice(&[0.0f32, 1.0]))).is_err());
        let by_hand = |mut p: f64, g: f64| {
            let mut sum = 0.0;
            for _ in 0..2 {
                sum = 0.9 * sum + g + 0.01 * p;
                p -= 0.1 * sum;
            }
            p
        };
        let got = Vec::<f64>::try_from(param).unwrap();
        for (got, expected) in got.iter().zip([by_hand(1.0, 0.5), by_hand(-2.0, 0.25)]) {
            assert!((got - expected).abs() < 1e-15, "{got} {expected}");
        }
    }
}
