//! The decoder: queries look at each other, then at the image around their reference boxes,
//! which each layer refines.

use tch::Tensor;

use super::{
    TransformerConfig,
    attention::{Levels, MsDeformAttn},
};
use crate::{
    error::Result,
    models::{
        layers::{LayerNorm, Linear, Mlp, MultiheadAttention, at_least_f32, inverse_sigmoid},
        padding::Padding,
        parameters::Scope,
        position_encoding::box_positions,
    },
};

#[derive(Debug)]
struct DecoderLayer {
    cross_attn: MsDeformAttn,
    norm1: LayerNorm,
    self_attn: MultiheadAttention,
    norm2: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm3: LayerNorm,
}

impl DecoderLayer {
    fn new(scope: &Scope, config: &TransformerConfig) -> Self {
        let d = config.hidden_dim;
        Self {
            cross_attn: MsDeformAttn::new(
                &scope.sub("cross_attn"),
                d,
                config.nheads,
                config.num_feature_levels,
                config.dec_n_points,
            ),
            norm1: LayerNorm::new(&scope.sub("norm1"), d),
            self_attn: MultiheadAttention::new(&scope.sub("self_attn"), d, config.nheads),
            norm2: LayerNorm::new(&scope.sub("norm2"), d),
            linear1: Linear::xavier(&scope.sub("linear1"), d, config.dim_feedforward),
            linear2: Linear::xavier(&scope.sub("linear2"), config.dim_feedforward, d),
            norm3: LayerNorm::new(&scope.sub("norm3"), d),
        }
    }
}

/// What surrounds the queries in every layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecoderInput<'a> {
    /// `[B, S, D]`: the encoder's output.
    pub memory: &'a Tensor,
    /// Sizes and padding of the levels in `memory`.
    pub levels: &'a Levels,
    /// `[Q, Q]` or `[B, 1, 1 | Q, Q]`, true where a row may see a column; `None`: everywhere.
    pub may_attend: Option<&'a Tensor>,
    /// Refines boxes: the detector's shared box head.
    pub bbox_embed: &'a Mlp,
}

/// What every decoder layer leaves.
#[derive(Debug)]
pub struct DecoderOutput {
    /// `[N, B, Q, D]`: each layer's output through the decoder's one LayerNorm.
    pub hidden: Tensor,
    /// `[N, B, Q, 4]`: each layer's *input* reference boxes, attached to the layer before
    /// ("look forward twice", DINO section 3.5), after the sigmoid.
    pub references: Tensor,
}

/// All decoder layers and their shared norm.
#[derive(Debug)]
pub(super) struct Decoder {
    layers: Vec<DecoderLayer>,
    norm: LayerNorm,
    ref_point_head: Mlp,
    hidden_dim: i64,
    padding: Padding,
}

impl Decoder {
    pub(super) fn new(scope: &Scope, config: &TransformerConfig, padding: Padding) -> Self {
        let d = config.hidden_dim;
        let layer = |i| DecoderLayer::new(&scope.sub("layers").sub(i), config);
        Self {
            layers: (0..config.dec_layers).map(layer).collect(),
            norm: LayerNorm::new(&scope.sub("norm"), d),
            ref_point_head: Mlp::xavier(&scope.sub("ref_point_head"), 2 * d, d, d, 2),
            hidden_dim: d,
            padding,
        }
    }

    /// # Shapes
    /// `content` `[B, Q, D]`, `references` `[B, Q, 4]` before the sigmoid
    pub(super) fn forward(
        &self,
        content: &Tensor,
        references: &Tensor,
        input: DecoderInput,
    ) -> Result<DecoderOutput> {
        let DecoderInput { memory, levels, may_attend, bbox_embed } = input;
        let device = memory.device();
        let ratios = Tensor::cat(&[&levels.valid_ratios, &levels.valid_ratios], -1).unsqueeze(1);
        let mut output = content.shallow_clone();
        let mut reference = references.sigmoid();
        let mut attached = reference.shallow_clone();
        let mut hidden = Vec::with_capacity(self.layers.len());
        let mut inputs = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            inputs.push(attached.shallow_clone());
            let scaled = reference.unsqueeze(2) * &ratios; // [B, Q, L, 4]
            let encoded = match self.padding {
                Padding::Masked => reference.shallow_clone(),
                // Relative to the padded level 0.
                Padding::Official => scaled.select(2, 0),
            };
            let sine = box_positions(&encoded, self.hidden_dim); // [B, Q, 2 D]
            let pos = self.ref_point_head.forward(&sine);

            let with_pos = &output + &pos;
            let seen = layer.self_attn.forward(&with_pos, &output, may_attend);
            output = layer.norm2.forward_sum(&output, &seen);

            let seen =
                layer.cross_attn.forward(&(&output + &pos), &scaled, memory, levels, None)?;
            output = layer.norm1.forward_sum(&output, &seen);

            let inner = layer.linear1.forward_relu(&output);
            output = layer.norm3.forward_sum(&output, &layer.linear2.forward(&inner));

            hidden.push(self.norm.forward(&output));
            if i + 1 == self.layers.len() {
                break;
            }
            // Boxes are refined from the output before the shared norm, in f32.
            attached = torch_ext::no_autocast(device, || {
                let delta = bbox_embed.forward(&at_least_f32(&output));
                (delta + inverse_sigmoid(&reference)).sigmoid()
            });
            reference = attached.detach();
        }
        Ok(DecoderOutput {
            hidden: Tensor::stack(&hidden, 0),
            references: Tensor::stack(&inputs, 0),
        })
    }
}
