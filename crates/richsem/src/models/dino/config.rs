//! DINO's settings, and what follows from them alone.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{denoising::DenoisingConfig, transformer::TransformerConfig};
use crate::{
    error::{Error, Result},
    models::{backbone::BackboneConfig, padding::Padding, projection::ProjectionKind},
};

/// DINO's settings. Defaults are those of the reference's `DINO_4scale.py`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DinoConfig {
    /// The network that makes feature maps of images.
    pub backbone: BackboneConfig,
    /// Which of the backbone's feature maps are used, ascending. They are numbered from 0; a
    /// ResNet's 0 is C2 (stride 4), its 3 is C5 (stride 32). Default: 1, 2, 3. Reference:
    /// `return_interm_indices`.
    pub return_interm_indices: Vec<usize>,
    /// Encoder, decoder and queries.
    pub transformer: TransformerConfig,
    /// Queries made of noisy ground truth, in training only.
    pub denoising: DenoisingConfig,
    /// How features are projected into the space of text embeddings: `linear` (the default) or
    /// `mlp`. Only for class heads against text.
    pub class_projection: ProjectionKind,
    /// What the padding of an image may change of its result: `masked` (nothing) or `official`
    /// (what it changes in the official code). Default: as the weights that a run starts from were
    /// trained; from scratch `masked`, and `official` with a backbone that cannot mask (`vit`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
}

impl Default for DinoConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::default(),
            return_interm_indices: vec![1, 2, 3],
            transformer: TransformerConfig::default(),
            denoising: DenoisingConfig::default(),
            class_projection: ProjectionKind::default(),
            padding: None,
        }
    }
}

impl DinoConfig {
    /// # Errors
    /// The first setting that is out of range or contradicts another, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        self.backbone.validate(&format!("{key}.backbone"))?;
        self.transformer.validate(&format!("{key}.transformer"))?;
        self.denoising.validate(&format!("{key}.denoising"))?;
        self.backbone.validate_padding(self.padding, key)?;
        let indices = &self.return_interm_indices;
        let levels = self.backbone.levels().len();
        if indices.is_empty()
            || indices.windows(2).any(|w| w[1] <= w[0])
            || indices.iter().any(|&i| i >= levels)
        {
            return Err(Error::config(
                format!("{key}.return_interm_indices"),
                format!("expected rising level numbers from 0 to {}, got {indices:?}", levels - 1),
            ));
        }
        if (self.transformer.num_feature_levels as usize) < indices.len() {
            return Err(Error::config(
                format!("{key}.transformer.num_feature_levels"),
                format!(
                    "expected at least the {} levels of return_interm_indices, got {}",
                    indices.len(),
                    self.transformer.num_feature_levels
                ),
            ));
        }
        Ok(())
    }

    /// Names and values of its sizes, in the order to be read.
    pub(in crate::models) fn facts(&self) -> Vec<(&'static str, String)> {
        let TransformerConfig {
            num_queries,
            hidden_dim,
            num_feature_levels,
            enc_layers,
            dec_layers,
            ..
        } = self.transformer;
        vec![
            ("detector", format!("DINO, {num_queries} queries")),
            (
                "transformer",
                format!(
                    "{hidden_dim} features, {num_feature_levels} levels, {enc_layers} encoder and \
                     {dec_layers} decoder layers"
                ),
            ),
        ]
    }

    /// Whether `tokens`, `[B, Q]` i64, can be the encoder's tokens that propose in images padded to that
    /// `[height, width]`.
    ///
    /// # Errors
    /// More tokens than queries, or numbers that no token of these images has.
    pub fn check_tokens(&self, tokens: &Tensor, size: [i64; 2]) -> std::result::Result<(), String> {
        let (count, queries) = (tokens.size()[1], self.transformer.num_queries);
        if count > queries {
            return Err(format!(
                "expected at most {queries}, the detector's queries, got {count} for each image"
            ));
        }
        let most: i64 = self.level_sizes(size).map(|[h, w]| h * w).sum();
        let last = tokens.max().int64_value(&[]);
        if last >= most {
            return Err(format!(
                "expected numbers below {most}, the encoder's tokens of these images, got {last}"
            ));
        }
        Ok(())
    }

    /// As [`BackboneConfig::padding`].
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.backbone.padding(self.padding)
    }

    /// Pixels from one cell to the next, of each level's map. The first levels are the backbone's; each further one
    /// has twice those of the one before.
    pub(crate) fn strides(&self) -> Vec<f64> {
        let levels = self.backbone.levels();
        let mut strides: Vec<f64> =
            self.return_interm_indices.iter().map(|&i| levels[i].stride).collect();
        while strides.len() < self.transformer.num_feature_levels as usize {
            strides.push(2.0 * strides[strides.len() - 1]);
        }
        strides
    }

    /// Height and width of each level's map of an image of `[height, width]`.
    pub(crate) fn level_sizes(&self, size: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
        let cells = |side: i64, stride: f64| (side as f64 / stride).ceil() as i64;
        self.strides().into_iter().map(move |stride| size.map(|side| cells(side, stride)))
    }

    /// Whether one of these images, `[height, width]` in pixels without padding, may have fewer tokens
    /// that may propose than there are queries.
    pub fn few_tokens(&self, sizes: impl IntoIterator<Item = [u32; 2]>) -> bool {
        // Cells of a side whose centre lies inside (0.01, 0.99), rounding left out of account.
        let inside = |cells: i64| cells - 2 * (0.0101 * cells as f64 + 0.5) as i64;
        sizes.into_iter().any(|size| {
            let levels = self.level_sizes(size.map(i64::from));
            let tokens: i64 = levels.map(|[h, w]| inside(h) * inside(w)).sum();
            tokens < self.transformer.num_queries
        })
    }
}
