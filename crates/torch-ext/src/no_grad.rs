//! Computing without recording for gradients, also if there is a panic.

/// Runs `f` with gradients switched off on this thread, and puts back what was before, also when `f`
/// panics: `tch::no_grad` does not, and leaves a thread whose every later loss has no gradient.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _guard = tch::no_grad_guard();
    f()
}

/// Runs `f` with gradients switched on on this thread, and puts back what was before, also when `f` panics.
pub(crate) fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    // Remembers what was, and puts that back.
    let _guard = tch::no_grad_guard();
    #[expect(clippy::disallowed_methods, reason = "the guard above puts back what was")]
    tch::with_grad(f)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn recorded() -> bool {
        let x = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        (x * 2.0).requires_grad()
    }

    #[test]
    fn nothing_is_recorded_inside_and_what_was_before_comes_back() {
        no_grad(|| {
            assert!(!recorded());
            no_grad(|| assert!(!recorded()));
            assert!(!recorded());
        });
        assert!(recorded());
    }

    #[test]
    fn inside_gradients_can_be_on_and_what_was_before_comes_back() {
        no_grad(|| {
            with_grad(|| assert!(recorded()));
            assert!(!recorded());
            assert!(std::panic::catch_unwind(|| with_grad(|| panic!("inside"))).is_err());
            assert!(!recorded());
        });
        assert!(recorded());
    }

    #[test]
    fn a_panic_inside_leaves_gradients_on() {
        assert!(std::panic::catch_unwind(|| no_grad(|| panic!("inside"))).is_err());
        assert!(recorded());
    }
}
