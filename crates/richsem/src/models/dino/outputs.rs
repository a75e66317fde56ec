//! What a pass of the detector gives: to post-processing, and to the losses.

use tch::Tensor;

use crate::models::denoising::DenoisingLayout;

/// What the detector finds, before post-processing.
#[derive(Debug)]
pub struct InferenceOutput {
    /// `[B, Q, C]`
    pub pred_logits: Tensor,
    /// `[B, Q, 4]`, cxcywh relative to the unpadded image, in [0, 1].
    pub pred_boxes: Tensor,
}

/// Logits and boxes of all decoder layers.
#[derive(Debug)]
pub struct LayerOutputs {
    /// `[N, B, Q, C]`
    pub logits: Tensor,
    /// `[N, B, Q, 4]`
    pub boxes: Tensor,
}

/// What a training pass computes, before it is told apart which query is what.
#[derive(Debug)]
pub struct TrainingTensors {
    /// `[N, B, P + Q, C]`: of N decoder layers, denoising queries first.
    pub logits: Tensor,
    /// `[N, B, P + Q, 4]`
    pub boxes: Tensor,
    /// `[B, Q, C]`: the encoder's proposals.
    pub interm_logits: Tensor,
    /// `[B, Q, 4]`
    pub interm_boxes: Tensor,
    /// `[N, B, P + Q, D]`, see [`TrainingOutput::region_features`].
    pub region_features: Tensor,
    /// `[N, B, P + Q, 4]`, see [`TrainingOutput::input_references`].
    pub input_references: Tensor,
    /// `[B, Q]`, see [`TrainingOutput::unused`].
    pub unused: Option<Tensor>,
}

impl TrainingTensors {
    /// The fields in their order. No gradient flows into a layer's input references: the semantic branch,
    /// which labels boxes there, takes them as they are.
    pub(crate) fn into_list(self) -> Vec<Tensor> {
        let references = self.input_references.detach();
        let fields =
            [self.logits, self.boxes, self.interm_logits, self.interm_boxes, self.region_features];
        fields.into_iter().chain([references]).chain(self.unused).collect()
    }

    /// Of what [`Self::into_list`] gave.
    pub(crate) fn from_list(list: &[Tensor]) -> Self {
        let tensor = |i: usize| list[i].shallow_clone();
        Self {
            logits: tensor(0),
            boxes: tensor(1),
            interm_logits: tensor(2),
            interm_boxes: tensor(3),
            region_features: tensor(4),
            input_references: tensor(5),
            unused: list.get(6).map(Tensor::shallow_clone),
        }
    }
}

/// What training needs; the last layer is what inference would give.
#[derive(Debug)]
pub struct TrainingOutput {
    /// Matching queries, N decoder layers.
    pub decoder: LayerOutputs,
    /// The encoder's proposals, as one layer.
    pub interm: LayerOutputs,
    /// Denoising queries, N decoder layers.
    pub denoising: Option<(DenoisingLayout, LayerOutputs)>,
    /// `[N, B, P + Q, D]`: the queries as the heads see them, denoising ones first.
    pub region_features: Tensor,
    /// `[N, B, P + Q, 4]`: the reference boxes that went into each layer, cxcywh in [0, 1].
    pub input_references: Tensor,
    /// `[B, Q]`, true for queries that no token was left for: they match nothing and learn nothing.
    /// None: there are no such queries.
    pub unused: Option<Tensor>,
}

/// The class logit of queries that no token was left for: its loss and gradient are zero.
const UNUSED_LOGIT: f64 = -1e4;

impl TrainingOutput {
    /// `layout` is that of the denoising queries, if there are any.
    #[must_use]
    pub fn new(tensors: TrainingTensors, layout: Option<DenoisingLayout>) -> Self {
        let part = |from: i64, count: i64| LayerOutputs {
            logits: tensors.logits.narrow(2, from, count),
            boxes: tensors.boxes.narrow(2, from, count),
        };
        let used = |outputs: LayerOutputs| match &tensors.unused {
            Some(unused) => LayerOutputs {
                logits: outputs.logits.masked_fill(&unused.unsqueeze(-1), UNUSED_LOGIT),
                boxes: outputs.boxes,
            },
            None => outputs,
        };
        let p = layout.map_or(0, |layout| layout.slots);
        Self {
            decoder: used(part(p, tensors.logits.size()[2] - p)),
            interm: used(LayerOutputs {
                logits: tensors.interm_logits.unsqueeze(0),
                boxes: tensors.interm_boxes.unsqueeze(0),
            }),
            denoising: layout
                .filter(|layout| !layout.is_empty())
                .map(|layout| (layout, part(0, layout.len()))),
            region_features: tensors.region_features,
            input_references: tensors.input_references,
            unused: tensors.unused,
        }
    }
}
