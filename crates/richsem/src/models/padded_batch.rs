//! What tests of padding share: a batch of images of several sizes, and detections that are the same but for rounding.

#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};

use super::parameters::ParameterStore;
use crate::testing::normal;

/// Weights, biases and running statistics of norms far from their initial ones.
pub(crate) fn shake(store: &ParameterStore) {
    for (i, p) in store.parameters().iter().enumerate().filter(|(_, p)| p.tensor.dim() == 1) {
        let random = normal(1000 + i as u64, &p.tensor.size()) * 0.3;
        let value = match p.name.rsplit('.').next() {
            Some("weight") => random + 1.0,
            Some("running_var") => random.abs() + 0.5,
            _ => &p.tensor + random,
        };
        torch_ext::no_grad(|| p.tensor.shallow_clone().copy_(&value));
    }
}

/// In f64, where two ways of adding up do not differ enough to be seen: what differs then differs.
pub(crate) fn in_double(store: &ParameterStore) {
    for mut parameter in store.parameters() {
        let double = parameter.tensor.detach().to_kind(Kind::Double);
        parameter.tensor.set_data(&double);
    }
}

/// Images one above the other in a batch: the pixels, the mask, `[height, width]` of each.
///
/// They are padded to the size of the largest and `extra` pixels more.
pub(crate) fn batch(images: &[&Tensor], extra: (i64, i64)) -> (Tensor, Tensor, Vec<[u32; 2]>) {
    let side = |axis: usize| images.iter().map(|p| p.size()[axis]).max().unwrap();
    let (h, w) = (side(2) + extra.0, side(3) + extra.1);
    let size = [images.len() as i64, 3, h, w];
    let pixels = Tensor::zeros(size, (images[0].kind(), Device::Cpu));
    let mask = Tensor::ones([size[0], h, w], (Kind::Bool, Device::Cpu));
    let mut sizes = Vec::new();
    for (i, image) in (0..).zip(images) {
        let (own_h, own_w) = (image.size()[2], image.size()[3]);
        pixels.get(i).narrow(1, 0, own_h).narrow(2, 0, own_w).copy_(&image.get(0));
        let _ = mask.get(i).narrow(0, 0, own_h).narrow(1, 0, own_w).fill_(0);
        sizes.push([own_h as u32, own_w as u32]);
    }
    (pixels, mask, sizes)
}

/// Equal but for rounding; detections of nearly equal score may come in another order.
pub(crate) fn same_detections(what: &str, got: &[[f64; 6]], expected: &[[f64; 6]]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let mut left: Vec<&[f64; 6]> = got.iter().collect();
    for wanted in expected {
        let close = |d: &&[f64; 6]| {
            d[1] == wanted[1]
                && (d[0] - wanted[0]).abs() < 1e-3
                && (2..6).all(|k| (d[k] - wanted[k]).abs() < 0.02)
        };
        let Some(at) = left.iter().position(close) else {
            panic!("{what}: {wanted:?} is not among {:?}", &got[..got.len().min(5)]);
        };
        left.swap_remove(at);
    }
}
