//! Operations whose gradient is written in Rust.

use std::ffi::{CString, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{self, CppString};
use crate::{Error, Result};

/// What a backward pass is given.
pub struct BackwardArgs<'a> {
    /// Gradient of the output, of the output's shape.
    pub grad: &'a Tensor,
    /// The tensors saved by the forward pass. libtorch has checked that none was changed in place
    /// since.
    pub saved: &'a [Tensor],
    /// For each input, whether its gradient is wanted; work for the others can be left out.
    pub needs: &'a [bool],
}

/// Gradients of the inputs, in their order; `None` for an input without one.
pub type Gradients = Vec<Option<Tensor>>;

type BackwardFn = dyn Fn(&BackwardArgs<'_>) -> Result<Gradients> + Send + Sync;

/// Runs `forward` without recording it, and attaches `backward` to its result as the result's
/// gradient function with respect to `inputs`.
///
/// No gradient function is made when gradients are switched off or no input requires one. `saved`
/// are kept for the backward pass, and freed with the closure once it has run (unless the graph is
/// kept). `backward` runs without recording too: differentiating its results again fails with a
/// message. An `Err` or a panic in `backward` becomes the error of the `backward()` call.
///
/// # Errors
/// Whatever `forward` returns, and a `forward` that returns one of its inputs.
pub fn custom_function(
    op: &str,
    inputs: &[&Tensor],
    saved: &[&Tensor],
    forward: impl FnOnce() -> Result<Tensor>,
    backward: impl Fn(&BackwardArgs<'_>) -> Result<Gradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let output = {
        let _no_grad = tch::no_grad_guard();
        forward()?
    };
    let op = CString::new(op).map_err(|_| {
        Error::argument("custom_function", "op", "a name without nul bytes", format!("{op:?}"))
    })?;
    let inputs = ffi::pointers(inputs.iter().copied());
    let saved = ffi::pointers(saved.iter().copied());
    // A boxed closure is a fat pointer; the box around it makes it fit a C one.
    let backward: Box<Box<BackwardFn>> = Box::new(Box::new(backward));
    let context = Box::into_raw(backward).cast::<c_void>();
    // SAFETY: the pointers are live tensors; the shim takes over `context` whatever happens, calls
    // `run_backward` only before `release`, and holds a lock around each.
    ffi::check(unsafe {
        ffi::ext_attach(
            output.as_ptr().cast_mut(),
            inputs.as_ptr(),
            inputs.len(),
            saved.as_ptr(),
            saved.len(),
            op.as_ptr(),
            context,
            run_backward,
            release,
        )
    })?;
    Ok(output)
}

/// Called by the shim, from whichever thread runs the backward pass.
unsafe extern "C" fn run_backward(
    context: *mut c_void,
    grad: *mut C_tensor,
    saved: *const *mut C_tensor,
    saved_count: usize,
    needs: *const bool,
    grads_out: *const *mut C_tensor,
    input_count: usize,
    error: *mut CppString,
) -> c_int {
    let run = || -> Result<()> {
        // SAFETY: the shim passes arrays of the stated lengths and tensors that live through the
        // call; `context` is the box that `custom_function` made.
        let (backward, grad, saved, needs, grads_out) = unsafe {
            (
                &*context.cast::<Box<BackwardFn>>(),
                Tensor::clone_from_ptr(grad),
                slice(saved, saved_count)
                    .iter()
                    .map(|&tensor| Tensor::clone_from_ptr(tensor))
                    .collect::<Vec<_>>(),
                slice(needs, input_count),
                slice(grads_out, input_count),
            )
        };
        let gradients = backward(&BackwardArgs { grad: &grad, saved: &saved, needs })?;
        if gradients.len() != input_count {
            return Err(Error::argument(
                "custom_function",
                "backward",
                format!("{input_count} gradients"),
                gradients.len().to_string(),
            ));
        }
        for (&target, gradient) in grads_out.iter().zip(&gradients) {
            if let Some(gradient) = gradient {
                // SAFETY: `target` is one of the shim's result slots.
                ffi::check(unsafe { ffi::ext_assign(target, gradient.as_ptr()) })?;
            }
        }
        Ok(())
    };
    let message = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return 0,
        Ok(Err(problem)) => problem.to_string(),
        Err(panic) => format!("panic in a backward pass: {}", panic_text(&*panic)),
    };
    // SAFETY: `error` is the shim's string.
    unsafe { ffi::ext_string_set(error, message.as_ptr(), message.len()) };
    1
}

/// An array from C, which may be a null pointer when it is empty.
unsafe fn slice<'a, T>(data: *const T, length: usize) -> &'a [T] {
    // SAFETY: the caller vouches for non-empty arrays.
    if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, length) } }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Called by the shim once the backward pass can not be run any more.
unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: `context` is the box that `custom_function` made, and the shim calls this once.
    let backward = unsafe { Box::from_raw(context.cast::<Box<BackwardFn>>()) };
    // What a closure captured may panic when dropped; that must not cross into C++.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(backward)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tch::{Device, Kind};

    use super::*;

    fn ones(requires_grad: bool) -> Tensor {
        Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(requires_grad)
    }

    /// `x * y` with a gradient written here.
    fn product(x: &Tensor, y: &Tensor) -> Tensor {
        custom_function(
            "product",
            &[x, y],
            &[x, y],
            || Ok(x.f_mul(y)?),
            |args| {
                let [x, y] = args.saved else { panic!("two tensors were saved") };
                Ok(vec![args.needs[0].then(|| args.grad * y), args.needs[1].then(|| args.grad * x)])
            },
        )
        .unwrap()
    }

    #[test]
    fn the_gradient_is_the_closure_s() {
        let x = (ones(false) * 2.0).set_requires_grad(true);
        let y = (ones(false) * 5.0).set_requires_grad(true);
        // Used inside a larger graph, twice.
        (product(&x, &y) * 3.0 + product(&x, &x)).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [19.0; 3]);
        assert_eq!(Vec::<f32>::try_from(y.grad()).unwrap(), [6.0; 3]);
    }

    #[test]
    fn only_wanted_gradients_are_asked_for() {
        let (x, y) = (ones(true), ones(false));
        product(&x, &y).sum(Kind::Float).backward();
        assert!(x.grad().defined() && !y.grad().defined());
    }

    #[test]
    fn no_gradient_function_without_gradients() {
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let call = |x: &Tensor| {
            let count = Count(dropped.clone());
            custom_function(
                "identity",
                &[x],
                &[],
                || Ok(x + 0.0),
                move |args| {
                    let _held = &count;
                    Ok(vec![Some(args.grad.shallow_clone())])
                },
            )
            .unwrap()
        };
        let x = ones(true);
        assert!(!crate::no_grad(|| call(&x)).requires_grad());
        assert!(!call(&ones(false)).requires_grad());
        assert_eq!(dropped.load(Ordering::SeqCst), 2);

        // The closure is freed when the backward pass has run, or with the graph.
        let output = call(&x);
        output.sum(Kind::Float).backward();
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
        drop(output);
        drop(call(&x));
        assert_eq!(dropped.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn an_error_in_backward_is_an_error_of_backward() {
        let x = ones(true);
        let fail = custom_function(
            "failing",
            &[&x],
            &[],
            || Ok(&x + 0.0),
            |_| Err(Error::Cuda("no such kernel".to_owned())),
        )
        .unwrap();
        let error = fail.sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("no such kernel"), "{error}");

        let panics =
            custom_function("panicking", &[&x], &[], || Ok(&x + 0.0), |_| panic!("ouch")).unwrap();
        let error = panics.sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("ouch"), "{error}");

        let short = custom_function("short", &[&x], &[], || Ok(&x + 0.0), |_| Ok(vec![])).unwrap();
        let error = short.sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("expected 1 gradients, got 0"), "{error}");
    }

    #[test]
    fn an_error_in_forward_is_returned() {
        let x = ones(true);
        let result = custom_function(
            "failing",
            &[&x],
            &[],
            || Ok(x.f_matmul(&Tensor::zeros([7, 7], (Kind::Float, Device::Cpu)))?),
            |_| Ok(vec![None]),
        );
        assert!(matches!(result, Err(Error::Torch(_))));
        let itself =
            custom_function("itself", &[&x], &[], || Ok(x.shallow_clone()), |_| Ok(vec![None]));
        assert!(itself.unwrap_err().to_string().contains("input 0 itself"));
    }

    #[test]
    fn a_second_backward_pass_is_refused() {
        let (x, y) = (ones(true), ones(true));
        let output = product(&x, &y).sum(Kind::Float);
        output.backward();
        let error = output.f_backward().unwrap_err();
        assert!(error.to_string().contains("second time"), "{error}");
    }

    #[test]
    fn second_order_gradients_are_refused() {
        let (x, y) = (ones(true), ones(true));
        let output = product(&x, &y).sum(Kind::Float);
        let first = Tensor::run_backward(&[output], &[&x], true, true);
        assert_eq!(Vec::<f32>::try_from(first[0].detach()).unwrap(), [1.0; 3]);
        let error = first[0].sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("second-order"), "{error}");
    }

    #[test]
    fn a_saved_tensor_changed_in_place_is_noticed() {
        let (x, mut y) = (ones(true), ones(false));
        let output = product(&x, &y).sum(Kind::Float);
        let _ = y.fill_(7.0);
        let error = output.f_backward().unwrap_err();
        assert!(error.to_string().contains("modified by an inplace operation"), "{error}");
    }

    #[test]
    fn backward_passes_in_several_threads() {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                std::thread::spawn(move || {
                    let x = (ones(false) * f64::from(i)).set_requires_grad(true);
                    product(&x, &x).sum(Kind::Float).backward();
                    Vec::<f32>::try_from(x.grad()).unwrap()
                })
            })
            .collect();
        for (i, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), [2.0 * i as f32; 3]);
        }
    }
}
