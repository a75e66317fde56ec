//! Random cases of deformable attention, and comparing what came out.

#![allow(dead_code, clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::DeviceChoice;

/// `ms_deform_attn`, or the composition that it is compared with.
pub(crate) type Op = fn(&Tensor, &[(i64, i64)], &Tensor, &Tensor) -> torch_ext::Result<Tensor>;

/// (H, W) of each level in most tests.
pub(crate) const LEVELS: &[(i64, i64)] = &[(12, 10), (6, 5), (3, 3), (2, 1)];

/// Arguments, and the gradient of the output.
pub(crate) struct Case {
    pub(crate) value: Tensor,
    pub(crate) levels: Vec<(i64, i64)>,
    pub(crate) locations: Tensor,
    pub(crate) weights: Tensor,
    pub(crate) grad: Tensor,
}

/// The case on another device, its values and the gradient of another kind.
pub(crate) fn to(case: &Case, device: Device, kind: Kind) -> Case {
    Case {
        value: case.value.to_device(device).to_kind(kind),
        levels: case.levels.clone(),
        locations: case.locations.to_device(device),
        weights: case.weights.to_device(device),
        grad: case.grad.to_device(device).to_kind(kind),
    }
}

/// Tests run in parallel and share libtorch's generator: each seeds it and, while it holds this, draws
/// undisturbed.
pub(crate) fn seeded(seed: i64) -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let held = GENERATOR.lock().unwrap();
    tch::manual_seed(seed);
    held
}

/// Random arguments with locations in `[-margin, 1 + margin]`.
pub(crate) fn random_case(
    seed: i64,
    kind: Kind,
    (b, m, d, q, p): (i64, i64, i64, i64, i64),
    levels: &[(i64, i64)],
    margin: f64,
) -> Case {
    let _held = seeded(seed);
    let l = levels.len() as i64;
    let s = levels.iter().map(|(h, w)| h * w).sum::<i64>();
    let options = (kind, Device::Cpu);
    Case {
        value: Tensor::randn([b, s, m, d], options),
        levels: levels.to_vec(),
        locations: Tensor::rand([b, q, m, l, p, 2], options) * (1.0 + 2.0 * margin) - margin,
        weights: Tensor::randn([b, q, m, l * p], options).softmax(-1, None).view([b, q, m, l, p]),
        grad: Tensor::randn([b, q, m * d], options),
    }
}

/// Output, and the gradients of value, locations and weights.
pub(crate) fn gradients(case: &Case, f: Op) -> (Tensor, Vec<Tensor>) {
    let inputs =
        [&case.value, &case.locations, &case.weights].map(|t| t.detach().set_requires_grad(true));
    let output = f(&inputs[0], &case.levels, &inputs[1], &inputs[2]).unwrap();
    output.backward_with(&case.grad);
    (output.detach(), inputs.iter().map(Tensor::grad).collect())
}

/// `backward` from a given gradient of the output.
pub(crate) trait BackwardWith {
    fn backward_with(&self, grad: &Tensor);
}

impl BackwardWith for Tensor {
    fn backward_with(&self, grad: &Tensor) {
        (self * grad).sum(self.kind()).backward();
    }
}

/// The numbers of a tensor.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(
        tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1),
    )
    .unwrap()
}

/// Largest difference within `tolerance` of the largest number expected (at least 1).
pub(crate) fn close(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len(), "{name}");
    let scale = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * scale,
            "{name}[{i}]: {got} instead of {expected}"
        );
    }
}

/// The first CUDA device; none, with a line that says why, where there is none.
pub(crate) fn cuda() -> Option<Device> {
    match DeviceChoice::Cuda(None).resolve() {
        Ok(device) => Some(device),
        Err(problem) => {
            println!("skipped, there is no CUDA device: {problem}");
            None
        }
    }
}
