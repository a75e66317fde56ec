//! A detector's network, of whichever family: what evaluation, prediction and conversion see of it.
//! (What training needs besides is in [`crate::families`].)

use tch::Tensor;

pub use super::images::Images;
use super::{
    class_head::{ClassSpace, TextTable},
    config::{FamilyConfig, ModelConfig},
    dino::{Dino, InferenceOutput, Input, postprocess},
    faster_rcnn::{self, FasterRcnn},
    parameters::ParameterStore,
    projection::Projection,
    scored_box::ScoredBox,
};
use crate::error::{Error, Result};

/// A variant of a network's pass. Some image sizes need another variant than others, and each is recorded
/// separately. [`Network::form`] gives the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassForm(pub(crate) i64);

/// What a network gives for a batch, before it becomes boxes.
#[derive(Debug)]
pub struct NetworkOutput {
    /// Names and tensors of [`Network::output_names`], in their order; the first axis of each is the
    /// image.
    pub named: Vec<(&'static str, Tensor)>,
}

impl NetworkOutput {
    /// The tensor of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.named.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor)
    }
}

/// Why a two-stage detector takes no proposals from elsewhere.
const NO_TOKENS: &str = "expected none: a two-stage detector proposes boxes, not tokens";

/// The network of a detector.
#[derive(Debug)]
pub enum Network {
    /// DINO-4scale (arXiv 2203.03605).
    Dino(Box<Dino>),
    /// Faster R-CNN with a feature pyramid, and Cascade R-CNN.
    FasterRcnn(Box<FasterRcnn>),
}

impl Network {
    /// Builds the network in an empty store. `space` is the number of classes, or the width of the text
    /// tables it will be given.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn new(store: &ParameterStore, config: &ModelConfig, space: ClassSpace) -> Result<Self> {
        config.validate("model")?;
        Ok(match &config.family {
            FamilyConfig::Dino(config) => Self::Dino(Box::new(Dino::new(store, config, space)?)),
            FamilyConfig::FasterRcnn(config) => {
                Self::FasterRcnn(Box::new(FasterRcnn::new(store, config, space)?))
            }
        })
    }

    /// The class head's projection into the space of the text, if it compares with text.
    #[must_use]
    pub fn class_projection(&self) -> Option<&Projection> {
        match self {
            Self::Dino(dino) => dino.class_projection(),
            Self::FasterRcnn(rcnn) => rcnn.class_projection(),
        }
    }

    /// Takes the scale of the text's own model, for all class heads.
    pub fn set_logit_scale(&self, logit_scale: f64) {
        match self {
            Self::Dino(dino) => dino.set_logit_scale(logit_scale),
            Self::FasterRcnn(rcnn) => rcnn.set_logit_scale(logit_scale),
        }
    }

    /// Random numbers that a training pass takes for each image: see [`Images::draws`].
    #[must_use]
    pub fn draws(&self) -> usize {
        match self {
            Self::Dino(dino) => dino.config().backbone.draws(),
            Self::FasterRcnn(rcnn) => rcnn.config().backbone.draws(),
        }
    }

    /// The variant of the pass that images of these sizes need, `[height, width]` in pixels without padding.
    pub fn form(&self, sizes: impl IntoIterator<Item = [u32; 2]>) -> PassForm {
        match self {
            Self::Dino(dino) => PassForm(dino.config().few_tokens(sizes).into()),
            Self::FasterRcnn(_) => PassForm(0),
        }
    }

    /// The variant that is right for images of any size.
    #[must_use]
    pub fn form_of_any_size(&self) -> PassForm {
        match self {
            Self::Dino(_) => PassForm(1),
            Self::FasterRcnn(_) => PassForm(0),
        }
    }

    /// Names of the tensors that [`Self::infer`] gives.
    #[must_use]
    pub fn output_names(&self) -> &'static [&'static str] {
        match self {
            Self::Dino(_) => &["pred_logits", "pred_boxes"],
            Self::FasterRcnn(_) => &["scores", "boxes", "sizes"],
        }
    }

    /// Finds objects: tensors that [`Self::boxes`] turns into boxes. Without gradients, with running
    /// statistics. Their shapes depend on those of the input alone, and nothing waits for the device: a
    /// pass can be recorded. `text` holds the classes' embeddings, where class heads compare with text.
    ///
    /// # Errors
    /// A text table that is missing or of another width; what libtorch refuses.
    pub fn infer(
        &self,
        images: Images,
        form: PassForm,
        text: Option<&TextTable>,
    ) -> Result<Vec<Tensor>> {
        self.infer_at(images, form, text, None)
    }

    /// As [`Self::infer`], on proposals chosen elsewhere, as [`Self::check_proposals`] takes them: two
    /// programs can only be compared number by number on the same ones.
    ///
    /// # Errors
    /// As [`Self::infer`].
    pub fn infer_at(
        &self,
        images: Images,
        form: PassForm,
        text: Option<&TextTable>,
        proposals: Option<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        match self {
            Self::Dino(dino) => {
                let input = Input {
                    text,
                    tokens: proposals,
                    few_tokens: form.0 != 0,
                    ..Input::new(images.pixels, images.mask)
                };
                let InferenceOutput { pred_logits, pred_boxes } = dino.infer(&input)?;
                Ok(vec![pred_logits, pred_boxes])
            }
            Self::FasterRcnn(rcnn) => {
                if let Some(problem) = proposals.map(|_| NO_TOKENS) {
                    return Err(Error::other(format!("proposals: {problem}")));
                }
                let faster_rcnn::InferenceOutput { scores, boxes, sizes } =
                    rcnn.infer(images, text)?;
                Ok(vec![scores, boxes, sizes])
            }
        }
    }

    /// Whether `proposals` can be those of images padded to that `[height, width]`. For DINO: `[B, Q]`
    /// i64, the encoder's tokens that propose, in order.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_proposals(
        &self,
        proposals: &Tensor,
        size: [i64; 2],
    ) -> std::result::Result<(), String> {
        match self {
            Self::Dino(dino) => dino.config().check_tokens(proposals, size),
            Self::FasterRcnn(_) => Err(NO_TOKENS.into()),
        }
    }

    /// Boxes of what [`Self::infer`] gave, by image, best first, at most `most` of each. `sizes` are
    /// `[height, width]` of the original images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn boxes(
        &self,
        output: &NetworkOutput,
        sizes: &[[u32; 2]],
        most: i64,
    ) -> Result<Vec<Vec<ScoredBox>>> {
        match (self, &output.named[..]) {
            (Self::Dino(_), [(_, logits), (_, boxes)]) => {
                postprocess::postprocess(logits, boxes, sizes, most)
            }
            (Self::FasterRcnn(rcnn), [(_, scores), (_, boxes), (_, found_in)]) => {
                let output = (scores, boxes, found_in);
                faster_rcnn::postprocess::postprocess(output, rcnn.config(), sizes, most)
            }
            (_, other) => unreachable!("no family gives {} tensors", other.len()),
        }
    }
}
