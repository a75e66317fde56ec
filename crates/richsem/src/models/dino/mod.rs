//! The detector: DINO-4scale (arXiv 2203.03605) as RichSem trains it.

mod config;
pub mod denoising;
mod outputs;
pub mod postprocess;
pub mod transformer;

use tch::{Kind, Tensor};

use self::{
    denoising::{DenoisingQueries, may_attend},
    transformer::{
        Choice, DecoderOutput, DeformableTransformer, ExtraQueries, GROUPS, Proposals,
        attention::Levels,
    },
};
use super::{
    backbone::Backbone,
    class_head::{ClassHead, ClassSpace, LabelEncoder, TextTable},
    layers::{Conv2d, GroupNorm, Mlp, at_least_f32, inverse_sigmoid},
    padding::{Padding, PaddingPyramid},
    parameters::{ParameterStore, Scope},
    position_encoding::image_positions,
    projection::Projection,
};
use crate::error::{Error, Result};

pub use config::DinoConfig;
pub use outputs::{InferenceOutput, LayerOutputs, TrainingOutput, TrainingTensors};

/// The tensors that one pass takes.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// `[B, 3, H, W]`, normalised, zero in the padding.
    pub images: &'a Tensor,
    /// `[B, H, W]`, true = padding, at the right and below.
    pub mask: &'a Tensor,
    /// See [`super::network::Images::draws`].
    pub draws: Option<&'a Tensor>,
    /// See [`super::network::Images::learns`].
    pub learns: bool,
    /// The classes' embeddings, where class heads compare with text.
    pub text: Option<&'a TextTable>,
    /// The denoising queries, in training. None: no denoising.
    pub denoising: Option<&'a DenoisingQueries>,
    /// `[B, Q]`: the encoder's tokens that propose, in order. None: the detector chooses. A query
    /// belongs to a proposal's *rank*, and ranks swap at the last digits of a score, so that two
    /// programs can only be compared number by number on the same proposals.
    pub tokens: Option<&'a Tensor>,
    /// Whether an image may have fewer tokens that may propose than there are queries. With
    /// [`Padding::Masked`] the queries that are left over are then hidden from the others and find nothing.
    /// This costs time. `false` is right if no query is left over ([`DinoConfig::few_tokens`]).
    pub few_tokens: bool,
}

impl<'a> Input<'a> {
    /// The input of images alone: no text, no denoising queries, no chosen tokens.
    #[must_use]
    pub fn new(images: &'a Tensor, mask: &'a Tensor) -> Self {
        Self {
            images,
            mask,
            draws: None,
            learns: true,
            text: None,
            denoising: None,
            tokens: None,
            few_tokens: true,
        }
    }
}

/// The detector with its weights. It holds what inference needs, and nothing else.
#[derive(Debug)]
pub struct Dino {
    backbone: Backbone,
    input_proj: Vec<(Conv2d, GroupNorm)>,
    transformer: DeformableTransformer,
    bbox_embed: Mlp,
    class_embed: ClassHead,
    label_enc: LabelEncoder,
    space: ClassSpace,
    config: DinoConfig,
}

impl Dino {
    /// Builds the detector in an empty store. `space` is the number of classes, or the width of
    /// the text tables it will be given.
    ///
    /// # Errors
    /// As [`DinoConfig::validate`].
    pub fn new(store: &ParameterStore, config: &DinoConfig, space: ClassSpace) -> Result<Self> {
        config.validate("model.dino")?;
        let root = store.root();
        let d = config.transformer.hidden_dim;
        let transformer = root.sub("transformer");
        // The encoder's class head is its own, with its own parameters (method, part 1).
        let enc_out_class_embed = ClassHead::new(
            &transformer.sub("enc_out_class_embed"),
            d,
            space,
            config.class_projection,
        );
        // In the official linear checkpoints the head is a list of one shared module.
        let class_scope = match space {
            ClassSpace::Classes(_) => root.sub("class_embed").sub(0),
            ClassSpace::Text(_) => root.sub("class_embed"),
        };
        let detector = Self {
            backbone: Backbone::new(
                &root.sub("backbone").backbone().sub(0),
                &config.backbone,
                &config.return_interm_indices,
            ),
            input_proj: input_projections(&root.sub("input_proj"), config),
            transformer: DeformableTransformer::new(
                &transformer,
                &config.transformer,
                enc_out_class_embed,
                config.padding(),
            ),
            bbox_embed: Mlp::box_head(&root.sub("bbox_embed").sub(0), d),
            class_embed: ClassHead::new(&class_scope, d, space, config.class_projection),
            label_enc: LabelEncoder::new(&class_scope, d, space),
            space,
            config: config.clone(),
        };
        detector.transformer.start_box_head_as(&detector.bbox_embed);
        Ok(detector)
    }

    /// Sizes it was built with.
    #[must_use]
    pub fn config(&self) -> &DinoConfig {
        &self.config
    }

    /// The class head's projection into the space of the text, if it compares with text.
    #[must_use]
    pub fn class_projection(&self) -> Option<&Projection> {
        self.class_embed.projection()
    }

    /// Takes the scale of the text's own model, for both class heads.
    pub fn set_logit_scale(&self, logit_scale: f64) {
        self.class_embed.set_logit_scale(logit_scale);
        self.transformer.enc_out_class_embed().set_logit_scale(logit_scale);
    }

    /// Finds objects. Without gradients, with running statistics.
    ///
    /// # Errors
    /// A text table that is missing or of another width; what libtorch refuses.
    pub fn infer(&self, input: &Input) -> Result<InferenceOutput> {
        torch_ext::no_grad(|| {
            let (proposals, decoded) = self.decode(input, false)?;
            let hidden = decoded.hidden.get(-1).unsqueeze(0);
            let references = decoded.references.get(-1).unsqueeze(0);
            let output = self.heads(&hidden, &references, input.text);
            let mut pred_logits = output.logits.get(0);
            if let Some(unused) = &proposals.unused {
                let _ = pred_logits.masked_fill_(&unused.unsqueeze(-1), f64::NEG_INFINITY);
            }
            Ok(InferenceOutput { pred_logits, pred_boxes: output.boxes.get(0) })
        })
    }

    /// One training forward pass, with the denoising queries if there are any.
    ///
    /// # Errors
    /// As [`Self::infer`].
    pub fn forward_train(&self, input: &Input) -> Result<TrainingOutput> {
        let tensors = self.training_tensors(input)?;
        Ok(TrainingOutput::new(tensors, input.denoising.map(|dn| dn.layout)))
    }

    /// As [`Self::forward_train`]. What is computed depends on the shapes of the tensors alone, and
    /// nothing waits for the device: it can be recorded ([`torch_ext::GraphPool`]).
    ///
    /// # Errors
    /// As [`Self::infer`].
    pub fn training_tensors(&self, input: &Input) -> Result<TrainingTensors> {
        let (proposals, decoded) = self.decode(input, input.learns)?;
        let outputs = self.heads(&decoded.hidden, &decoded.references, input.text);
        // Joined and split here, in the part that is recorded.
        let slots = input.denoising.map_or(0, |dn| dn.layout.slots);
        let queries = outputs.logits.size()[2] - slots;
        let matching = |of: &Tensor, proposed: &Tensor| {
            Tensor::cat(&[of.narrow(2, slots, queries), proposed.unsqueeze(0)], 0)
        };
        let denoising = input.denoising.map(|_| LayerOutputs {
            logits: outputs.logits.narrow(2, 0, slots).contiguous(),
            boxes: outputs.boxes.narrow(2, 0, slots).contiguous(),
        });
        Ok(TrainingTensors {
            matched: LayerOutputs {
                logits: matching(&outputs.logits, &proposals.logits),
                boxes: matching(&outputs.boxes, &proposals.boxes),
            },
            region_features: decoded.hidden,
            input_references: decoded.references,
            denoising,
            unused: proposals.unused,
        })
    }

    fn check_text(&self, text: Option<&TextTable>) -> Result<()> {
        match (self.space, text) {
            (ClassSpace::Text(_), None) => Err(Error::config(
                "model.class_head",
                "this detector compares with text: it needs a text table",
            )),
            (ClassSpace::Text(width), Some(table)) if table.dim() != width => Err(Error::config(
                "model.class_head.table",
                format!("expected embeddings of width {width}, got {}", table.dim()),
            )),
            _ => Ok(()),
        }
    }

    /// Everything before the shared heads: the encoder's proposals, and the decoder's output for them and
    /// for the denoising queries.
    fn decode(&self, input: &Input, train: bool) -> Result<(Proposals, DecoderOutput)> {
        let Input { images, mask, draws, learns: _, text, denoising, tokens, few_tokens } = *input;
        self.check_text(text)?;
        let (memory, levels) = self.encode((images, mask), (train, draws))?;
        let some_unused = few_tokens && self.config.padding() == Padding::Masked;
        let choice = Choice { tokens, some_unused };
        let proposals = self.transformer.propose_at(&memory, &levels, text, choice);
        let queries = proposals.references.size()[1];
        let extra = denoising.map(|dn| ExtraQueries {
            content: self.label_enc.forward(&dn.labels, &self.class_embed, text) * &dn.used,
            references: dn.references.shallow_clone(),
            may_attend: may_attend(&dn.groups, queries),
        });
        let decoded = self.transformer.decode(
            &memory,
            &levels,
            &proposals,
            extra.as_ref(),
            &self.bbox_embed,
        )?;
        Ok((proposals, decoded))
    }

    /// Images to encoder memory `[B, S, D]`.
    fn encode(
        &self,
        (images, mask): (&Tensor, &Tensor),
        random: (bool, Option<&Tensor>),
    ) -> Result<(Tensor, Levels)> {
        // Strides are powers of two where padding can be masked.
        let halvings: Vec<usize> =
            self.config.strides().iter().map(|stride| stride.log2() as usize).collect();
        let pyramid = match self.config.padding() {
            Padding::Masked => {
                // The backbone hides padding in all of its maps, used here or not.
                let levels = self.config.backbone.levels().into_iter();
                let strides = levels.map(|level| level.stride.log2() as usize);
                let deepest = strides.chain(halvings.iter().copied()).max().unwrap_or_default();
                Some(PaddingPyramid::new(mask, deepest))
            }
            Padding::Official => None,
        };
        let mut maps = self.backbone.forward(images, pyramid.as_ref(), random)?;
        let from_backbone = maps.len();
        let mut tokens = Vec::new();
        for (level, (conv, norm)) in self.input_proj.iter().enumerate() {
            // The first extra level is made from the backbone's last map, the next from it.
            let source = &maps[level.min(maps.len() - 1)];
            let padding = pyramid.as_ref().map(|pyramid| pyramid.at(halvings[level]));
            let projected = norm.forward(&conv.forward(source), padding);
            if level >= from_backbone {
                maps.push(projected.shallow_clone());
            }
            tokens.push(projected);
        }
        let float_mask = mask.unsqueeze(1).to_kind(Kind::Float);
        let mut positions = Vec::new();
        let mut padding = Vec::new();
        let mut ratios = Vec::new();
        let mut spatial_shapes = Vec::new();
        let (d, temperature) =
            (self.config.transformer.hidden_dim, self.config.transformer.pe_temperature);
        let kind = self.transformer.kind();
        for (level, map) in tokens.iter().enumerate() {
            let (_, _, h, w) = map.size4()?;
            let mask = match &pyramid {
                Some(pyramid) => pyramid.at(halvings[level]).shallow_clone(),
                None => float_mask.upsample_nearest2d([h, w], None, None).squeeze_dim(1).gt(0.5),
            };
            positions.push(image_positions(&mask, d, temperature, kind));
            let valid = mask.logical_not().to_kind(kind);
            let across = valid.select(1, 0).mean_dim([1i64].as_slice(), false, kind);
            let down = valid.select(2, 0).mean_dim([1i64].as_slice(), false, kind);
            ratios.push(Tensor::stack(&[across, down], -1)); // [B, 2]
            padding.push(mask.flatten(1, 2));
            spatial_shapes.push((h, w));
        }
        let levels = Levels {
            spatial_shapes,
            padding: Tensor::cat(&padding, 1),
            valid_ratios: Tensor::stack(&ratios, 1),
        };
        let tokens: Vec<Tensor> = tokens.iter().map(|t| t.permute([0, 2, 3, 1])).collect();
        Ok((self.transformer.encode(&tokens, &positions, &levels)?, levels))
    }

    /// The shared heads on any number of layers at once.
    fn heads(
        &self,
        hidden: &Tensor,
        references: &Tensor,
        text: Option<&TextTable>,
    ) -> LayerOutputs {
        torch_ext::no_autocast(hidden.device(), || {
            let hidden = at_least_f32(hidden);
            let delta = self.bbox_embed.forward(&hidden);
            LayerOutputs {
                boxes: (delta + inverse_sigmoid(references)).sigmoid(),
                logits: self.class_embed.forward(&hidden, text),
            }
        })
    }
}

/// 1×1 convolutions for the backbone's maps, 3×3 ones of stride 2 for the levels after them.
fn input_projections(scope: &Scope, config: &DinoConfig) -> Vec<(Conv2d, GroupNorm)> {
    let d = config.transformer.hidden_dim;
    let channels: Vec<i64> = config.backbone.levels().iter().map(|l| l.channels).collect();
    let indices = &config.return_interm_indices;
    let mut input = channels[indices[indices.len() - 1]];
    (0..config.transformer.num_feature_levels as usize)
        .map(|level| {
            let scope = scope.sub(level);
            let conv = match indices.get(level) {
                Some(&i) => Conv2d::projection(&scope.sub(0), channels[i], d, 1, 1),
                None => {
                    let conv = Conv2d::projection(&scope.sub(0), input, d, 3, 2);
                    input = d;
                    conv
                }
            };
            (conv, GroupNorm::new(&scope.sub(1), GROUPS, d))
        })
        .collect()
}

#[cfg(test)]
mod padding_tests;
#[cfg(test)]
mod tests;
