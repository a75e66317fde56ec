//! What a pass of the detector gives: to post-processing, and to the losses.

use tch::Tensor;

use super::denoising::DenoisingLayout;

/// What the detector finds, before post-processing.
#[derive(Debug)]
pub struct InferenceOutput {
    /// `[B, Q, C]`: class logits of every query. −∞ for queries that no token was left for.
    pub pred_logits: Tensor,
    /// `[B, Q, 4]`, cxcywh relative to the unpadded image, in [0, 1].
    pub pred_boxes: Tensor,
}

/// Logits and boxes of all decoder layers.
#[derive(Debug)]
pub struct LayerOutputs {
    /// `[N, B, Q, C]`: class logits of N layers.
    pub logits: Tensor,
    /// `[N, B, Q, 4]`: boxes of N layers, cxcywh relative to the unpadded image, in [0, 1].
    pub boxes: Tensor,
}

/// What a training pass computes. Its shapes depend on those of its input alone.
#[derive(Debug)]
pub struct TrainingTensors {
    /// `[N + 1, B, Q, …]`: outputs of the matching queries from N decoder layers, then the
    /// encoder's proposals.
    pub matched: LayerOutputs,
    /// `[N, B, P + Q, D]`, see [`TrainingOutput::region_features`].
    pub region_features: Tensor,
    /// `[N, B, P + Q, 4]`, see [`TrainingOutput::input_references`].
    pub input_references: Tensor,
    /// `[N, B, P, …]`: outputs of the denoising queries. None without denoising.
    pub denoising: Option<LayerOutputs>,
    /// `[B, Q]`: queries that no token was left for, see [`TrainingOutput::unused`].
    pub unused: Option<Tensor>,
}

impl TrainingTensors {
    /// The fields in their order. No gradient flows into a layer's input references: the semantic branch,
    /// which labels boxes there, takes them as they are.
    pub(crate) fn into_list(self) -> Vec<Tensor> {
        let Self { matched, region_features, input_references, denoising, unused } = self;
        let mut list =
            vec![matched.logits, matched.boxes, region_features, input_references.detach()];
        list.extend(denoising.into_iter().flat_map(|outputs| [outputs.logits, outputs.boxes]));
        list.extend(unused);
        list
    }

    /// Undoes [`Self::into_list`].
    pub(crate) fn from_list(list: &[Tensor]) -> Self {
        let tensor = |i: usize| list[i].shallow_clone();
        let outputs = |i: usize| LayerOutputs { logits: tensor(i), boxes: tensor(i + 1) };
        let optional = &list[4..];
        Self {
            matched: outputs(0),
            region_features: tensor(2),
            input_references: tensor(3),
            denoising: (optional.len() >= 2).then(|| outputs(4)),
            // Behind a pair, or alone.
            unused: (optional.len() % 2 == 1).then(|| tensor(list.len() - 1)),
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
    /// What `decoder` and `interm` are parts of, where they are parts of one.
    pub matched: Option<LayerOutputs>,
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
        let TrainingTensors { matched, region_features, input_references, denoising, unused } =
            tensors;
        let matched = match &unused {
            Some(unused) => LayerOutputs {
                logits: matched.logits.masked_fill(&unused.unsqueeze(-1), UNUSED_LOGIT),
                boxes: matched.boxes,
            },
            None => matched,
        };
        let layers = matched.logits.size()[0] - 1;
        let part = |from: i64, count: i64| LayerOutputs {
            logits: matched.logits.narrow(0, from, count),
            boxes: matched.boxes.narrow(0, from, count),
        };
        let used = |outputs: LayerOutputs, layout: DenoisingLayout| LayerOutputs {
            logits: outputs.logits.narrow(2, 0, layout.len()),
            boxes: outputs.boxes.narrow(2, 0, layout.len()),
        };
        Self {
            decoder: part(0, layers),
            interm: part(layers, 1),
            denoising: denoising
                .zip(layout.filter(|layout| !layout.is_empty()))
                .map(|(outputs, layout)| (layout, used(outputs, layout))),
            matched: Some(matched),
            region_features,
            input_references,
            unused,
        }
    }

    /// The decoder layers, then the proposals, as one.
    #[must_use]
    pub fn matched(&self) -> LayerOutputs {
        match &self.matched {
            Some(LayerOutputs { logits, boxes }) => {
                LayerOutputs { logits: logits.shallow_clone(), boxes: boxes.shallow_clone() }
            }
            None => LayerOutputs {
                logits: Tensor::cat(&[&self.decoder.logits, &self.interm.logits], 0),
                boxes: Tensor::cat(&[&self.decoder.boxes, &self.interm.boxes], 0),
            },
        }
    }
}
