//! Feature pyramid (arXiv 1612.03144): coarse maps pass what they know down to fine ones.

use tch::Tensor;

use crate::models::{
    layers::Conv2d,
    padding::Extent,
    parameters::{Init, Scope},
};

/// The pyramid's convolutions, finest level first.
#[derive(Debug)]
pub(super) struct Fpn {
    lateral: Vec<Conv2d>,
    output: Vec<Conv2d>,
}

/// Uniform, ±√(3 / fan-in): detectron2's `c2_xavier_fill`.
pub(super) fn uniform(fan_in: i64) -> Init {
    Init::Uniform((3.0 / fan_in as f64).sqrt())
}

impl Fpn {
    /// For maps of these `channels`, finest first.
    pub(super) fn new(scope: &Scope, channels: &[i64], dim: i64) -> Self {
        let conv = |list: &str, level: usize, input: i64, kernel: i64| {
            let init = (uniform(input * kernel * kernel), Some(Init::Constant(0.0)));
            let scope = scope.sub(list).sub(level).sub(0);
            Conv2d::with_init(&scope, (input, dim), (kernel, 1), init.0, init.1)
        };
        let levels = || channels.iter().enumerate();
        Self {
            lateral: levels().map(|(level, &c)| conv("inner_blocks", level, c, 1)).collect(),
            output: levels().map(|(level, _)| conv("layer_blocks", level, dim, 3)).collect(),
        }
    }

    /// `extents`: where the images lie in each of the maps. The pyramid is zero beyond them.
    ///
    /// # Shapes
    /// the backbone's maps `[B, C_l, H_l, W_l]` → as many `[B, D, H_l, W_l]`, and one more: every second pixel of
    /// the last
    pub(super) fn forward(&self, maps: &[Tensor], extents: &[Extent]) -> Vec<Tensor> {
        let mut pyramid: Vec<Tensor> = Vec::with_capacity(maps.len() + 1);
        let mut above: Option<Tensor> = None;
        let layers = self.lateral.iter().zip(&self.output);
        for ((map, extent), (lateral, output)) in maps.iter().zip(extents).zip(layers).rev() {
            let mut inner = lateral.forward(map);
            if let Some(above) = &above {
                let [.., h, w] = inner.size()[..] else { unreachable!("maps are [B, C, H, W]") };
                let [.., rows, columns] = above.size()[..] else {
                    unreachable!("maps are [B, C, H, W]")
                };
                let twice = above.upsample_nearest2d([rows * 2, columns * 2], None, None);
                // A map of an odd side has one cell less than twice those of the map above it.
                inner += twice.narrow(2, 0, h).narrow(3, 0, w);
            }
            inner = extent.hide(&inner);
            pyramid.push(extent.hide(&output.forward(&inner)));
            above = Some(inner);
        }
        pyramid.reverse();
        if let Some(last) = pyramid.last() {
            let sparse = last.slice(2, 0, None, 2).slice(3, 0, None, 2);
            pyramid.push(sparse);
        }
        pyramid
    }
}
