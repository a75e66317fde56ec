//! CLIP (arXiv 2103.00020): an image and a text encoder with one space for both. Built from the
//! checkpoint's own shapes, with OpenAI's key names; the forward functions are differentiable, so
//! that a small CLIP can be trained with the same code that a frozen one runs.
//!
//! Facts from <https://github.com/openai/CLIP/blob/d05afc436d78f1c48dc0dbf8e5980a9d471f35f6/clip/model.py>
//! (MIT).

mod config;
mod hints;
mod keys;
mod prompts;
mod resnet;
mod text;
mod tokenizer;
mod transformer;
mod vit;

use std::{collections::BTreeMap, path::Path};

use tch::{Device, Tensor};

pub(crate) use config::HEAD_WIDTH;
pub use config::{ClipConfig, TextConfig, VisualConfig};
pub use hints::{Activation, Attention, Hints};
pub(crate) use keys::is_beside;
pub use keys::to_openai;
pub use prompts::PromptSet;
pub use resnet::{AttentionPool, STRIDE as RESNET_STRIDE, VisualResnet};
pub use text::TextEncoder;
pub use tokenizer::Tokenizer;
pub use transformer::{Transformer, TransformerSizes};
pub use vit::VisualTransformer;

use crate::{
    checkpoint_io::read_weights,
    error::{Error, Result, guarded},
    models::parameters::{Init, ParameterStore, Scope},
    normalization::Normalization,
};

/// Mean and standard deviation of pixels that CLIP's images are normalised with.
pub const PIXELS: Normalization = Normalization {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    std: [0.268_629_55, 0.261_302_6, 0.275_777_1],
};

/// An image encoder with its weights.
#[derive(Debug)]
pub enum Visual {
    /// One of CLIP's ResNets.
    Resnet(Box<VisualResnet>),
    /// One of CLIP's vision transformers.
    Vit(VisualTransformer),
}

/// A CLIP with its weights.
#[derive(Debug)]
pub struct Clip {
    /// Gives embeddings of images and boxes.
    pub visual: Visual,
    /// Gives embeddings of texts. None where the weights have no text encoder.
    pub text: Option<TextEncoder>,
    /// Scalar: the logarithm of the factor between cosines and logits.
    pub logit_scale: Tensor,
}

impl Clip {
    /// Key names are OpenAI's below `scope`: `visual.…`, `transformer.…`, `logit_scale`.
    #[must_use]
    pub fn new(scope: &Scope, config: &ClipConfig) -> Self {
        let visual = scope.sub("visual");
        let dim = config.embed_dim;
        let visual = match &config.visual {
            VisualConfig::Resnet { backbone, resolution, heads } => {
                let resnet = VisualResnet::new(&visual, backbone, *resolution, *heads, dim);
                Visual::Resnet(Box::new(resnet))
            }
            VisualConfig::Vit { .. } => {
                Visual::Vit(VisualTransformer::new(&visual, &config.visual, dim))
            }
        };
        let text = config.text.as_ref().map(|t| TextEncoder::new(scope, t, dim));
        let logit_scale = scope.parameter("logit_scale", &[], Init::Constant(-(0.07f64.ln())));
        Self { visual, text, logit_scale }
    }

    /// Embeddings of whole images of the model's own resolution, not normalised. `train` makes a
    /// ResNet's batch norms use the batch's statistics.
    ///
    /// # Shapes
    /// `images` `[B, 3, R, R]`, normalised with [`PIXELS`] → `[B, D]`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn encode_image(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        Ok(match &self.visual {
            Visual::Resnet(visual) => visual.pool.forward(&visual.dense(images, train)?),
            Visual::Vit(visual) => visual.forward(images),
        })
    }
}

/// CLIP with a checkpoint's weights in f32, every parameter frozen; what no tensor tells is as
/// `hints` say ([`Hints::of`] that file).
///
/// # Errors
/// A file that cannot be read or is not CLIP: every missing, unexpected or misshapen tensor.
pub fn load(
    path: &Path,
    hints: &Hints,
    device: Device,
) -> Result<(ParameterStore, ClipConfig, Clip)> {
    from_weights(&to_openai(read_weights(path)?, path)?, hints, path, device)
}

/// As [`load`], from tensors under OpenAI's names; `path` says where they came from.
///
/// # Errors
/// As [`load`].
pub fn from_weights(
    weights: &BTreeMap<String, Tensor>,
    hints: &Hints,
    path: &Path,
    device: Device,
) -> Result<(ParameterStore, ClipConfig, Clip)> {
    let config = ClipConfig::from_weights(weights, hints, path)?;
    // Shapes that contradict each other may ask for more memory than there is.
    let (store, clip) = guarded(|| {
        let store = ParameterStore::to_be_loaded(device);
        let clip = Clip::new(&store.root().frozen(true), &config);
        Ok((store, clip))
    })?;
    store.load(weights, path).map_err(|error| match &error {
        Error::Invalid { field, .. } if field == "weights" => error.with_hint(
            "the tensors are not those of one whole CLIP: take the checkpoint's own file",
        ),
        _ => error,
    })?;
    Ok((store, config, clip))
}
