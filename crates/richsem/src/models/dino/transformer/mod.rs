//! DINO's transformer (arXiv 2203.03605): deformable encoder, two-stage query selection,
//! deformable decoder.

pub mod attention;
mod decoder;
mod encoder;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    bounds::within,
    error::{Error, Result},
    models::{
        class_head::{ClassHead, TextTable},
        layers::{LayerNorm, Linear, Mlp, at_least_f32},
        padding::Padding,
        parameters::{Init, Scope},
    },
};
use attention::Levels;
pub use decoder::DecoderOutput;

/// Groups of the norm after each projection onto the transformer's width.
pub const GROUPS: i64 = 32;

/// Proposals start at 0.05 · 2^level of the image, which must stay below 0.99.
const MOST_LEVELS: i64 = 5;

/// Encoder, decoder and queries. Names are those of the reference's configs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// D: number of features of every token and query. Default: 256; at most 8192, a multiple of
    /// `nheads` and of 32. Reference: `hidden_dim`.
    pub hidden_dim: i64,
    /// Heads of every attention. Default: 8; 1 to 256, a divisor of `hidden_dim`. Reference:
    /// `nheads`.
    pub nheads: i64,
    /// Number of encoder layers. Default: 6; 1 to 100. Reference: `enc_layers`.
    pub enc_layers: i64,
    /// Number of decoder layers. Default: 6; 1 to 100. Reference: `dec_layers`.
    pub dec_layers: i64,
    /// Features between the two layers of each feed-forward part. Default: 2048; 1 to 65,536.
    /// Reference: `dim_feedforward`.
    pub dim_feedforward: i64,
    /// Q: number of queries, and so the most objects of an image. An image with fewer encoder
    /// tokens has as many queries as tokens. Default: 900; 1 to 10,000. Reference: `num_queries`.
    pub num_queries: i64,
    /// L: number of feature maps that the transformer sees. The first are the backbone's, each
    /// further one has half the size of the one before. Default: 4; 1 to 5. Reference:
    /// `num_feature_levels`.
    pub num_feature_levels: i64,
    /// Sampling points of each head and level in the encoder's attention. Default: 4; 1 to 64.
    /// Reference: `enc_n_points`.
    pub enc_n_points: i64,
    /// Sampling points of each head and level in the decoder's attention to the image. Default: 4;
    /// 1 to 64. Reference: `dec_n_points`.
    pub dec_n_points: i64,
    /// Temperature of the sine encoding of positions in the image. Default: 20; above 0. Reference:
    /// `pe_temperatureH`, `pe_temperatureW`.
    pub pe_temperature: f64,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            hidden_dim: 256,
            nheads: 8,
            enc_layers: 6,
            dec_layers: 6,
            dim_feedforward: 2048,
            num_queries: 900,
            num_feature_levels: 4,
            enc_n_points: 4,
            dec_n_points: 4,
            pe_temperature: 20.0,
        }
    }
}

impl TransformerConfig {
    /// # Errors
    /// A size that is not positive or does not divide, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        for (name, value, most) in [
            ("hidden_dim", self.hidden_dim, 8192),
            ("nheads", self.nheads, 256),
            ("enc_layers", self.enc_layers, 100),
            ("dec_layers", self.dec_layers, 100),
            ("dim_feedforward", self.dim_feedforward, 65_536),
            // Attention among them is quadratic.
            ("num_queries", self.num_queries, 10_000),
            ("enc_n_points", self.enc_n_points, 64),
            ("dec_n_points", self.dec_n_points, 64),
        ] {
            within(format!("{key}.{name}"), value, 1..=most)?;
        }
        within(format!("{key}.num_feature_levels"), self.num_feature_levels, 1..=MOST_LEVELS)
            .map_err(|e| {
                e.with_hint("proposals of a sixth level would be larger than the image")
            })?;
        if self.hidden_dim % self.nheads != 0 || self.hidden_dim % GROUPS != 0 {
            return Err(Error::config(
                format!("{key}.hidden_dim"),
                format!(
                    "expected a multiple of nheads ({}) and of {GROUPS} (the groups of the input \
                     projections' norm), got {}",
                    self.nheads, self.hidden_dim
                ),
            ));
        }
        if !(self.pe_temperature.is_finite() && self.pe_temperature > 0.0) {
            let problem = format!("expected a positive number, got {}", self.pe_temperature);
            return Err(Error::config(format!("{key}.pe_temperature"), problem));
        }
        Ok(())
    }
}

/// Queries that come before the matching ones in training.
#[derive(Debug)]
pub struct ExtraQueries {
    /// `[B, P, D]`: their features.
    pub content: Tensor,
    /// `[B, P, 4]`, before the sigmoid.
    pub references: Tensor,
    /// `[P + Q, P + Q]`, true where a row may see a column.
    pub may_attend: Tensor,
}

/// The tokens chosen by the encoder's own heads.
#[derive(Debug)]
pub struct Proposals {
    /// `[B, Q]`: token of each.
    pub tokens: Tensor,
    /// `[B, Q, C]`: class logits of the encoder's own head.
    pub logits: Tensor,
    /// `[B, Q, 4]`, cxcywh in [0, 1], attached to the encoder.
    pub boxes: Tensor,
    /// `[B, Q, 4]`, before the sigmoid, detached: where the decoder starts.
    pub references: Tensor,
    /// `[B, Q]`, true for tokens that may not propose: chosen where there are no others left. Given,
    /// the decoder hides their queries from the others.
    pub unused: Option<Tensor>,
}

/// What is known of the tokens before one chooses among them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// `[B, Q]`: they are chosen already.
    pub tokens: Option<&'a Tensor>,
    /// Whether [`Proposals::unused`] is computed.
    pub some_unused: bool,
}

/// The transformer with its weights.
#[derive(Debug)]
pub struct DeformableTransformer {
    encoder: encoder::Encoder,
    decoder: decoder::Decoder,
    level_embed: Tensor,
    tgt_embed: Tensor,
    enc_output: Linear,
    enc_output_norm: LayerNorm,
    enc_out_bbox_embed: Mlp,
    enc_out_class_embed: ClassHead,
    num_queries: i64,
}

impl DeformableTransformer {
    /// `enc_out_class_embed` is the encoder's own class head, made by the detector.
    #[must_use]
    pub fn new(
        scope: &Scope,
        config: &TransformerConfig,
        enc_out_class_embed: ClassHead,
        padding: Padding,
    ) -> Self {
        let d = config.hidden_dim;
        Self {
            encoder: encoder::Encoder::new(&scope.sub("encoder"), config, padding),
            decoder: decoder::Decoder::new(&scope.sub("decoder"), config, padding),
            level_embed: scope.parameter(
                "level_embed",
                &[config.num_feature_levels, d],
                Init::Normal(1.0),
            ),
            tgt_embed: scope.sub("tgt_embed").parameter(
                "weight",
                &[config.num_queries, d],
                Init::XavierUniform,
            ),
            enc_output: Linear::xavier(&scope.sub("enc_output"), d, d),
            enc_output_norm: LayerNorm::new(&scope.sub("enc_output_norm"), d),
            enc_out_bbox_embed: Mlp::box_head(&scope.sub("enc_out_bbox_embed"), d),
            enc_out_class_embed,
            num_queries: config.num_queries,
        }
    }

    /// What it computes in outside autocast, f32 or f64.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.level_embed.kind()
    }

    /// The encoder's own class head.
    #[must_use]
    pub fn enc_out_class_embed(&self) -> &ClassHead {
        &self.enc_out_class_embed
    }

    /// The encoder's box head starts as a copy of the decoder's (method, part 1).
    pub fn start_box_head_as(&self, bbox_embed: &Mlp) {
        self.enc_out_bbox_embed.copy_from(bbox_embed);
    }

    /// Encodes the flattened levels.
    ///
    /// # Shapes
    /// `tokens[l]`, `positions[l]` `[B, H_l, W_l, D]` → memory `[B, S, D]`
    ///
    /// # Errors
    /// What the attention kernel refuses.
    pub fn encode(
        &self,
        tokens: &[Tensor],
        positions: &[Tensor],
        levels: &Levels,
    ) -> Result<Tensor> {
        let flat: Vec<Tensor> = tokens.iter().map(|t| t.flatten(1, 2)).collect();
        let pos: Vec<Tensor> = positions
            .iter()
            .enumerate()
            .map(|(level, p)| p.flatten(1, 2) + self.level_embed.get(level as i64))
            .collect();
        let (tokens, pos) = (Tensor::cat(&flat, 1), Tensor::cat(&pos, 1));
        // Tens of thousands of tokens: under autocast they stay in its kind between the layers too.
        match torch_ext::autocast_kind(tokens.device()) {
            Some(kind) => self.encoder.forward(&tokens.to_kind(kind), &pos.to_kind(kind), levels),
            None => self.encoder.forward(&tokens, &pos, levels),
        }
    }

    /// Two-stage selection: the tokens with the largest class logit propose boxes.
    ///
    /// Deviation: tokens that may not propose (padding, outside (0.01, 0.99)) rank after every
    /// other one. The reference zeroes their features but lets their constant logit compete, so
    /// that the amount of padding changes which proposals are chosen.
    ///
    /// # Shapes
    /// `memory` `[B, S, D]`, the positions of all levels one after the other → [`Proposals`] of Q tokens an
    /// image; Q is `num_queries`, or S where that is less
    #[must_use]
    pub fn propose(&self, memory: &Tensor, levels: &Levels, text: Option<&TextTable>) -> Proposals {
        self.propose_at(memory, levels, text, Choice::default())
    }

    /// As [`Self::propose`], with what is known already.
    pub(in crate::models) fn propose_at(
        &self,
        memory: &Tensor,
        levels: &Levels,
        text: Option<&TextTable>,
        choice: Choice,
    ) -> Proposals {
        torch_ext::no_autocast(memory.device(), || {
            let (boxes, allowed) = encoder::proposals(levels);
            let forbidden = allowed.logical_not();
            let memory = at_least_f32(memory).masked_fill(&forbidden.unsqueeze(-1), 0.0);
            let transform = |x: &Tensor| self.enc_output_norm.forward(&self.enc_output.forward(x));
            let best = || {
                let best = self.enc_out_class_embed.largest(&transform(&memory), text);
                let best = best.masked_fill(&forbidden, f64::NEG_INFINITY); // [B, S]
                let count = self.num_queries.min(best.size()[1]);
                best.topk(count, 1, true, true).1
            };
            let tokens = match choice.tokens {
                Some(tokens) => tokens.shallow_clone(),
                None => torch_ext::no_grad(best),
            };
            let pick = |x: &Tensor| {
                let width = x.size()[2];
                x.gather(1, &tokens.unsqueeze(-1).expand([-1, -1, width], false), false)
            };
            // Every step acts on single tokens, so only the chosen ones need gradients.
            let chosen = transform(&pick(&memory)); // [B, Q, D]
            let unsigmoid = self.enc_out_bbox_embed.forward(&chosen) + pick(&boxes);
            Proposals {
                logits: self.enc_out_class_embed.forward(&chosen, text),
                boxes: unsigmoid.sigmoid(),
                references: unsigmoid.detach(),
                unused: choice.some_unused.then(|| forbidden.gather(1, &tokens, false)),
                tokens,
            }
        })
    }

    /// Decodes the proposals, after the extra queries if there are any.
    ///
    /// # Shapes
    /// `memory` `[B, S, D]`, Q proposals and P extra queries an image → [`DecoderOutput`] of P + Q queries, the
    /// extra ones first
    ///
    /// # Errors
    /// What the attention kernel refuses.
    pub fn decode(
        &self,
        memory: &Tensor,
        levels: &Levels,
        proposals: &Proposals,
        extra: Option<&ExtraQueries>,
        bbox_embed: &Mlp,
    ) -> Result<DecoderOutput> {
        let Proposals { references, unused, .. } = proposals;
        let (b, q, _) = references.size3()?;
        let content = self.tgt_embed.narrow(0, 0, q).unsqueeze(0).expand([b, -1, -1], false);
        let (content, references) = match extra {
            None => (content, references.shallow_clone()),
            Some(e) => (
                Tensor::cat(&[&e.content, &content], 1),
                Tensor::cat(&[&e.references, references], 1),
            ),
        };
        let may_attend = extra.map(|e| e.may_attend.shallow_clone());
        let may_attend = match unused {
            None => may_attend,
            Some(unused) => {
                let before = content.size()[1] - q;
                let seen = unused.constant_pad_nd([before, 0]).logical_not();
                let seen = seen.unsqueeze(1).unsqueeze(1); // [B, 1, 1, P + Q]
                Some(match may_attend {
                    Some(may_attend) => may_attend.logical_and(&seen),
                    None => seen,
                })
            }
        };
        let may_attend = may_attend.as_ref();
        let input = decoder::DecoderInput { memory, levels, may_attend, bbox_embed };
        self.decoder.forward(&content, &references, input)
    }
}
