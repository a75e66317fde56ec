//! The four stages after a stem, which all ResNets have: `layer1` to `layer4`, each of half
//! the resolution and twice the channels of the one before.

use tch::Tensor;

use super::ResnetConfig;
use crate::{
    error::Result,
    models::{padding::Extent, parameters::Scope},
};

/// Blocks in a row, by stage.
#[derive(Debug)]
pub(super) struct Stages<B>([Vec<B>; 4]);

impl<B> Stages<B> {
    /// `block` makes one from its scope, input channels, planes (output channels before expansion),
    /// stride, and the backbone's settings.
    pub(super) fn new(
        scope: &Scope,
        config: &ResnetConfig,
        block: impl Fn(&Scope, i64, i64, i64, &ResnetConfig) -> B,
    ) -> Self {
        let mut input = config.width;
        let blocks = config.blocks();
        Self(std::array::from_fn(|stage| {
            let planes = config.width << stage;
            let frozen = config.is_frozen(stage as i64 + 1);
            let scope =
                scope.sub(format!("layer{}", stage + 1)).frozen(frozen).layer(stage as u32 + 1);
            (0..blocks[stage])
                .map(|i| {
                    let made = block(&scope.sub(i), input, planes, stride(stage, i), config);
                    input = planes * config.expansion();
                    made
                })
                .collect()
        }))
    }

    /// The output of each stage: C2 to C5. `extent` is where the images lie in `stem`.
    ///
    /// # Errors
    /// What `run` returns.
    pub(super) fn forward(
        &self,
        stem: Tensor,
        extent: Extent,
        run: impl Fn(&B, &Tensor, Extent) -> Result<Tensor>,
    ) -> Result<[Tensor; 4]> {
        let (mut x, mut extent) = (stem, extent);
        let mut forward = |stage: usize| -> Result<Tensor> {
            for (i, block) in (0..).zip(&self.0[stage]) {
                x = run(block, &x, extent)?;
                extent = extent.strided(stride(stage, i));
            }
            Ok(x.shallow_clone())
        };
        Ok([forward(0)?, forward(1)?, forward(2)?, forward(3)?])
    }
}

/// Stride of a block of a stage. Every stage but the first starts with half the resolution.
fn stride(stage: usize, block: i64) -> i64 {
    if stage > 0 && block == 0 { 2 } else { 1 }
}
