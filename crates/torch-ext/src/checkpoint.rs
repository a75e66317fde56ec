//! Activation checkpointing: a part of a network that keeps its input alone, and is run again in the
//! backward pass for what lies between. It saves memory, and costs one more forward pass of that part.

use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

use crate::autocast::{autocast, autocast_kind};
use crate::function::custom_function;
use crate::no_grad::with_grad;
use crate::{Result, settings};

/// `run(x)`, of which only `x` is kept. The backward pass runs it again, under the autocast of now.
///
/// `run` must give the same numbers each time: what is random in it is drawn before. `parameters` are the
/// tensors of its own that want gradients. Other tensors that it holds are constants.
///
/// Gradients are those of `run` itself, and so are its results, but for rounding where libtorch has another
/// kernel for what is not recorded. Without gradients it is `run(x)`.
///
/// # Errors
/// Whatever `run` returns; a `run` that returns `x` itself.
pub fn checkpoint(
    x: &Tensor,
    parameters: &[Tensor],
    run: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
) -> Result<Tensor> {
    let device = x.device();
    let kind = autocast_kind(device);
    // The engine may run the backward pass in another thread, after this call.
    let run = Arc::new(Mutex::new(run));
    let again = Arc::clone(&run);
    let call = move |x: &Tensor| run.lock().unwrap_or_else(PoisonError::into_inner)(x);
    let wanting: Vec<Tensor> =
        parameters.iter().filter(|p| p.requires_grad()).map(Tensor::shallow_clone).collect();
    let inputs: Vec<&Tensor> = std::iter::once(x).chain(&wanting).collect();
    let detached = x.detach();
    // Saved, so that libtorch notices a parameter that is changed before the backward pass.
    let saved: Vec<&Tensor> = std::iter::once(&detached).chain(&wanting).collect();
    custom_function(
        "checkpoint",
        &inputs,
        &saved,
        || call(&detached),
        move |args| {
            let x = args.saved[0].detach().set_requires_grad(args.needs[0]);
            let output = with_grad(|| {
                autocast(device, kind, || again.lock().unwrap_or_else(PoisonError::into_inner)(&x))
            })?;
            // The saved parameters are the leaves themselves, which `run` uses.
            let all = || std::iter::once(&x).chain(&args.saved[1..]).zip(args.needs);
            let wanted: Vec<Tensor> =
                all().filter(|(_, needed)| **needed).map(|(t, _)| t.shallow_clone()).collect();
            let mut grads =
                settings::gradients(&[output], &[args.grad.shallow_clone()], &wanted)?.into_iter();
            Ok(all()
                .map(|(_, needed)| if *needed { grads.next().flatten() } else { None })
                .collect())
        },
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tch::{Device, Kind};

    use super::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::rand(size, (Kind::Double, Device::Cpu))
    }

    /// A layer with a bend, so that its gradient depends on what is between.
    fn layer(x: &Tensor, w: &Tensor, scale: &Tensor) -> Tensor {
        (x.matmul(w).tanh() * scale).exp()
    }

    #[test]
    fn results_and_gradients_are_those_of_the_part_itself() {
        let scale = random(&[3, 1]);
        let (x, w) = (random(&[3, 4]), random(&[4, 4]));
        let run = |checkpointed: bool, calls: &Arc<AtomicUsize>| {
            let x = x.copy().set_requires_grad(true);
            let w = w.copy().set_requires_grad(true);
            let mut y = x.shallow_clone();
            for _ in 0..2 {
                y = if checkpointed {
                    let (own, scale, calls) =
                        (w.shallow_clone(), scale.shallow_clone(), Arc::clone(calls));
                    checkpoint(&y, &[w.shallow_clone()], move |x| {
                        calls.fetch_add(1, Ordering::SeqCst);
                        Ok(layer(x, &own, &scale))
                    })
                    .unwrap()
                } else {
                    layer(&y, &w, &scale)
                };
            }
            y.sin().sum(Kind::Double).backward();
            [y.detach(), x.grad(), w.grad()]
        };
        let calls = Arc::new(AtomicUsize::new(0));
        let (plain, again) = (run(false, &calls), run(true, &calls));
        assert_eq!(calls.load(Ordering::SeqCst), 4, "each part twice");
        assert_eq!(plain, again);
    }

    #[test]
    fn an_input_without_gradient_and_frozen_parameters_get_none() {
        let (x, w, frozen) =
            (random(&[2, 4]), random(&[4, 4]).set_requires_grad(true), random(&[2, 1]));
        let (own, still) = (w.shallow_clone(), frozen.shallow_clone());
        let parameters = [w.shallow_clone(), frozen.shallow_clone()];
        let y = checkpoint(&x, &parameters, move |x| Ok(layer(x, &own, &still))).unwrap();
        y.sum(Kind::Double).backward();
        assert!(w.grad().defined() && !x.grad().defined() && !frozen.grad().defined());
        let own = w.shallow_clone();
        let y = crate::no_grad(|| checkpoint(&x, &[], move |x| Ok(x.matmul(&own)))).unwrap();
        assert!(!y.requires_grad());
    }

    /// Under autocast the second run computes in the same kind as the first.
    #[test]
    fn the_second_run_is_under_the_same_autocast() {
        let single = |t: Tensor| t.to_kind(Kind::Float).set_requires_grad(true);
        let (x, w) = (single(random(&[3, 4])), single(random(&[4, 4])));
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let (own, seen) = (w.shallow_clone(), Arc::clone(&kinds));
        let y = autocast(Device::Cpu, Some(Kind::BFloat16), || {
            checkpoint(&x, &[w.shallow_clone()], move |x| {
                let y = x.matmul(&own);
                seen.lock().unwrap().push(y.kind());
                Ok(y)
            })
        })
        .unwrap();
        y.sum(Kind::Float).backward();
        assert_eq!(*kinds.lock().unwrap(), [Kind::BFloat16; 2]);
        assert_eq!(w.grad().kind(), Kind::Float);
    }
}
