//! What a family of detectors learns from a batch: how targets become inputs of its pass, the pass
//! itself, its objective, and the regions that the semantic branch may look at. The learner knows no
//! family: it takes [`Objective`].
//!
//! One step, in order: [`Objective::prepare`], [`Objective::run`] (or the replay of its recording),
//! [`Objective::output`], [`Objective::start`], [`Pending::wait`], [`Matched::finish`].

pub mod dino;
pub mod faster_rcnn;

use tch::{Device, Tensor};

use crate::{
    error::Result,
    losses::{
        LossConfig,
        regions::{Regions, Wanted},
        terms::{LossTerms, WholeBatch},
    },
    models::{
        class_head::TextTable,
        config::{FamilyConfig, ModelConfig},
        network::{Images, Network, PassForm},
    },
    targets::{Supervision, Target},
};

/// A learner has an objective, a network and inputs of one family.
const OTHER_FAMILY: &str = "a network, an objective and an input of one family";

/// What a step supervises with.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// What is known of each image.
    pub targets: &'a [Target],
    /// What the boxes teach.
    pub supervision: &'a Supervision,
    /// What the images are part of.
    pub whole: WholeBatch,
}

/// Inputs of a training pass that are made of the targets, besides the images.
#[derive(Debug)]
pub enum TargetInput {
    /// DINO's denoising queries; none where there are none.
    Dino(Option<crate::models::dino::denoising::DenoisingQueries>),
    /// Of Faster R-CNN the objects, and what is drawn: what is made of them depends on its proposals.
    FasterRcnn(faster_rcnn::Input),
}

impl TargetInput {
    /// All tensors that the network takes. Of DINO's denoising queries these are labels `[B, P]`, used
    /// `[B, P, 1]`, references `[B, P, 4]`, groups `[P]`, in this order; without such queries there are none.
    /// Of Faster R-CNN they are boxes `[B, T, 4]`, which there are `[B, T]` and draws `[B, N]`.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Dino(denoising) => denoising
                .iter()
                .flat_map(|dn| [&dn.labels, &dn.used, &dn.references, &dn.groups])
                .collect(),
            Self::FasterRcnn(input) => input.tensors().into(),
        }
    }

    /// The same inputs in other tensors, as the places of a recording: as many as [`Self::tensors`] gives, in
    /// its order and of its shapes.
    #[must_use]
    pub fn with(&self, tensors: &[Tensor]) -> Self {
        match self {
            Self::Dino(denoising) => {
                Self::Dino(denoising.as_ref().map(|dn| dino::with_tensors(dn, tensors)))
            }
            Self::FasterRcnn(input) => Self::FasterRcnn(input.with(tensors)),
        }
    }

    /// All that decides the shapes of these tensors besides the number of images: passes that differ in it
    /// are recorded apart.
    #[must_use]
    pub fn shape(&self) -> i64 {
        match self {
            Self::Dino(denoising) => denoising.as_ref().map_or(0, |dn| dn.layout.slots),
            Self::FasterRcnn(input) => input.shape(),
        }
    }
}

/// What a training pass gives.
#[derive(Debug)]
pub enum TrainingOutput {
    /// Logits and boxes of DINO's proposals and decoder layers, with denoising queries or without.
    Dino(crate::models::dino::TrainingOutput),
    /// Logits and boxes of Faster R-CNN's anchors and of the boxes that learn.
    FasterRcnn(faster_rcnn::TrainingOutput),
}

impl TrainingOutput {
    /// Its tensors by name, in the order in which a pass computes them: where to look for the first number
    /// that is not finite.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Dino(output) => vec![
                ("proposal logits", &output.interm.logits),
                ("proposal boxes", &output.interm.boxes),
                ("decoder boxes", &output.decoder.boxes),
                ("decoder logits", &output.decoder.logits),
            ],
            Self::FasterRcnn(output) => output.named(),
        }
    }
}

/// The training objective of a family.
#[derive(Debug)]
pub enum Objective {
    /// Matched and denoising queries against the boxes of the images.
    Dino(Box<dino::Objective>),
    /// Anchors and proposals against the boxes of the images.
    FasterRcnn(Box<faster_rcnn::Objective>),
}

/// A step whose matching may not be done yet. Where the host matches, it has to wait for numbers of the
/// device. So queue what does not need the matching before you call [`Self::wait`]: the device works on that
/// while the host matches.
pub enum Pending<'a> {
    /// Decoder layers and proposals of DINO wait for their matching.
    Dino(dino::PendingTerms<'a>),
    /// What a semantic branch needs of Faster R-CNN's boxes is on its way to the host.
    FasterRcnn(faster_rcnn::PendingTerms<'a>),
}

/// A step whose regions are matched to boxes, and not yet scored.
pub enum Matched<'a> {
    /// Decoder layers and proposals of DINO are matched.
    Dino(dino::MatchedTerms<'a>),
    /// The terms of Faster R-CNN, which are scored already.
    FasterRcnn(faster_rcnn::MatchedTerms<'a>),
}

impl Objective {
    /// Of a detector of these settings. `image_counts` of the vocabulary's classes drive the federated loss.
    /// `regions`: whether a semantic branch will ask for regions.
    #[must_use]
    pub fn new(
        model: &ModelConfig,
        loss: &LossConfig,
        image_counts: &[u32],
        regions: bool,
    ) -> Self {
        match &model.family {
            FamilyConfig::Dino(config) => {
                Self::Dino(Box::new(dino::Objective::new(config, loss, image_counts)))
            }
            FamilyConfig::FasterRcnn(config) => {
                let objective = faster_rcnn::Objective::new(config, loss, image_counts, regions);
                Self::FasterRcnn(Box::new(objective))
            }
        }
    }

    /// The inputs that are made of a batch's targets. With `common`, of shapes that nearly all batches have
    /// in common, for passes that are recorded.
    #[must_use]
    pub fn prepare(&self, step: Step<'_>, device: Device, common: bool) -> TargetInput {
        match self {
            Self::Dino(dino) => {
                let Step { targets, whole, .. } = step;
                TargetInput::Dino(dino.denoising(targets, &whole, device, common))
            }
            Self::FasterRcnn(rcnn) => TargetInput::FasterRcnn(rcnn.input(&step, device, common)),
        }
    }

    /// The pass, as a list of tensors. Their shapes depend on those of the input alone, and nothing waits for the
    /// device: it can be recorded ([`torch_ext::GraphPool`]).
    ///
    /// # Errors
    /// A text table that is missing or of another width; what libtorch refuses.
    ///
    /// # Panics
    /// A network or an input of another family.
    pub fn run(
        &self,
        network: &Network,
        images: Images,
        form: PassForm,
        text: Option<&TextTable>,
        input: &TargetInput,
    ) -> Result<Vec<Tensor>> {
        match (self, network, input) {
            (Self::Dino(_), Network::Dino(network), TargetInput::Dino(denoising)) => {
                dino::run(network, images, form, text, denoising.as_ref())
            }
            (
                Self::FasterRcnn(rcnn),
                Network::FasterRcnn(network),
                TargetInput::FasterRcnn(input),
            ) => rcnn.run(network, images, text, input),
            _ => panic!("{OTHER_FAMILY}"),
        }
    }

    /// What [`Self::run`] gave, for this family to read.
    ///
    /// # Panics
    /// An input of another family.
    #[must_use]
    pub fn output(&self, tensors: &[Tensor], input: &TargetInput) -> TrainingOutput {
        match (self, input) {
            (Self::Dino(_), TargetInput::Dino(denoising)) => {
                TrainingOutput::Dino(dino::output(tensors, denoising.as_ref()))
            }
            (Self::FasterRcnn(_), TargetInput::FasterRcnn(_)) => {
                TrainingOutput::FasterRcnn(faster_rcnn::TrainingOutput::from_list(tensors))
            }
            _ => panic!("{OTHER_FAMILY}"),
        }
    }

    /// The first half of the objective: all that does not wait for the device.
    ///
    /// # Errors
    /// What libtorch refuses.
    ///
    /// # Panics
    /// An output of another family.
    pub fn start<'a>(&'a self, output: &'a TrainingOutput, step: Step<'a>) -> Result<Pending<'a>> {
        match (self, output) {
            (Self::Dino(dino), TrainingOutput::Dino(output)) => {
                dino.criterion.start(output, step).map(Pending::Dino)
            }
            (Self::FasterRcnn(rcnn), TrainingOutput::FasterRcnn(output)) => {
                rcnn.criterion.start(output, step).map(Pending::FasterRcnn)
            }
            _ => panic!("{OTHER_FAMILY}"),
        }
    }

    /// What takes memory in a step on batches with at most so many boxes in an image, in words.
    #[must_use]
    pub fn describe(&self, boxes: usize) -> String {
        match self {
            Self::Dino(dino) => dino.describe(boxes),
            Self::FasterRcnn(rcnn) => rcnn.describe(),
        }
    }
}

impl<'a> Pending<'a> {
    /// Waits for the matching, where the host has to decide it.
    ///
    /// # Errors
    /// Predictions that are not finite, where the host decides (elsewhere a term is then not finite); what
    /// libtorch refuses.
    pub fn wait(self) -> Result<Matched<'a>> {
        match self {
            Self::Dino(pending) => pending.wait().map(Matched::Dino),
            Self::FasterRcnn(pending) => pending.wait().map(Matched::FasterRcnn),
        }
    }
}

impl Matched<'_> {
    /// Boxes that regions answer for. Of Faster R-CNN 0 where no semantic branch asks: its own terms are
    /// divided by other numbers.
    #[must_use]
    pub fn num_boxes(&self) -> f64 {
        match self {
            Self::Dino(matched) => matched.num_boxes(),
            Self::FasterRcnn(matched) => matched.num_boxes(),
        }
    }

    /// The terms, divided by `num_boxes`, which is the mean over the processes of a run and at least 1; and
    /// the regions, where they are wanted.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn finish(
        self,
        num_boxes: f64,
        wanted: Option<Wanted>,
    ) -> Result<(LossTerms, Option<Regions>)> {
        match self {
            Self::Dino(matched) => {
                let (output, targets) = matched.of();
                let (terms, decisions) = matched.finish(num_boxes)?;
                let regions = wanted
                    .map(|wanted| dino::regions(output, targets, &decisions, wanted))
                    .transpose()?;
                Ok((terms, regions))
            }
            Self::FasterRcnn(matched) => Ok(matched.finish(num_boxes, wanted)),
        }
    }
}
