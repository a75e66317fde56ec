//! The four stages behind a stem, which all these trunks have: `layer1` to `layer4`, each of half
//! the resolution and twice the channels of the one before.

use tch::Tensor;

use super::BackboneConfig;
use crate::{error::Result, models::parameters::Scope};

/// Blocks in a row, by stage.
#[derive(Debug)]
pub(super) struct Stages<B>([Vec<B>; 4]);

impl<B> Stages<B> {
    /// `block` makes one from its scope, input channels, planes (output channels before expansion),
    /// stride, and the trunk's settings.
    pub(super) fn new(
        scope: &Scope,
        config: &BackboneConfig,
        block: impl Fn(&Scope, i64, i64, i64, &BackboneConfig) -> B,
    ) -> Self {
        let mut input = config.width;
        let blocks = config.blocks();
        Self(std::array::from_fn(|stage| {
            let planes = config.width << stage;
            let frozen = config.is_frozen(stage as i64 + 1);
            let scope = scope.sub(format!("layer{}", stage + 1)).frozen(frozen);
            (0..blocks[stage])
                .map(|i| {
                    let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                    let made = block(&scope.sub(i), input, planes, stride, config);
                    input = planes * config.expansion();
                    made
                })
                .collect()
        }))
    }

    /// The output of each stage: C2 to C5.
    ///
    /// # Errors
    /// What `run` returns.
    pub(super) fn forward(
        &self,
        stem: Tensor,
        run: impl Fn(&B, &Tensor) -> Result<Tensor>,
    ) -> Result<[Tensor; 4]> {
        let mut x = stem;
        let mut stage = |blocks: &[B]| -> Result<Tensor> {
            for block in blocks {
                x = run(block, &x)?;
            }
            Ok(x.shallow_clone())
        };
        let [c2, c3, c4, c5] = &self.0;
        Ok([stage(c2)?, stage(c3)?, stage(c4)?, stage(c5)?])
    }
}
