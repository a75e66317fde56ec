//! The pre-norm transformer of CLIP's text encoder and vision transformers.

use tch::Tensor;

use super::hints::Activation;
use crate::models::{
    layers::{LayerNorm, Linear, MultiheadAttention},
    parameters::{Init, Scope},
};

/// Sizes of a transformer.
#[derive(Debug, Clone, Copy)]
pub struct TransformerSizes {
    /// Channels; a multiple of `heads`.
    pub width: i64,
    /// Number of blocks.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Channels between the two layers of a block's MLP.
    pub hidden: i64,
    /// Activation between the two layers of a block's MLP.
    pub activation: Activation,
}

/// Attention and an MLP, each behind a norm and with a residual.
#[derive(Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: MultiheadAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    activation: Activation,
    c_proj: Linear,
}

impl Block {
    fn new(scope: &Scope, sizes: TransformerSizes) -> Self {
        let TransformerSizes { width, layers, heads, hidden, activation } = sizes;
        let std = (width as f64).powf(-0.5);
        let mlp = scope.sub("mlp");
        let linear = |name: &str, from: i64, to: i64, std: f64| {
            let bias = Some(Init::Constant(0.0));
            Linear::with_init(&mlp.sub(name), from, to, Init::Normal(std), bias)
        };
        Self {
            ln_1: LayerNorm::new(&scope.sub("ln_1"), width),
            attn: MultiheadAttention::new(&scope.sub("attn"), width, heads),
            ln_2: LayerNorm::new(&scope.sub("ln_2"), width),
            c_fc: linear("c_fc", width, hidden, std / 2f64.sqrt()),
            activation,
            c_proj: linear("c_proj", hidden, width, std / (2.0 * layers as f64).sqrt()),
        }
    }

    fn forward(&self, x: &Tensor, may_attend: Option<&Tensor>) -> Tensor {
        let y = self.ln_1.forward(x);
        self.mlp(&(x + self.attn.forward(&y, &y, may_attend)))
    }

    fn without_attention(&self, x: &Tensor) -> Tensor {
        self.mlp(&(x + self.attn.values_alone(&self.ln_1.forward(x))))
    }

    fn mlp(&self, x: &Tensor) -> Tensor {
        let y = self.c_fc.forward(&self.ln_2.forward(x));
        x + self.c_proj.forward(&self.activation.forward(&y))
    }
}

/// Blocks one after the other (`resblocks.0`, `resblocks.1`, …).
#[derive(Debug)]
pub struct Transformer {
    blocks: Vec<Block>,
}

impl Transformer {
    /// Initialised as CLIP initialises its own, attention with
    /// Xavier's bound.
    #[must_use]
    pub fn new(scope: &Scope, sizes: TransformerSizes) -> Self {
        let scope = scope.sub("resblocks");
        let block = |i| Block::new(&scope.sub(i), sizes);
        Self { blocks: (0..sizes.layers).map(block).collect() }
    }

    /// `may_attend` is true where a row may see a column.
    ///
    /// # Shapes
    /// `x` `[B, S, W]`, `may_attend` `[S, S]` → `[B, S, W]`
    pub fn forward(&self, x: &Tensor, may_attend: Option<&Tensor>) -> Tensor {
        self.blocks.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, may_attend))
    }

    /// The last block without looking at other tokens: each token passes its own value on, and so
    /// stays about its own place (MaskCLIP, arXiv 2112.01071, section 3.1; with the residuals and
    /// the MLP kept, as its code and CLIPSelf, arXiv 2310.01403, have it).
    ///
    /// # Shapes
    /// `[B, S, W]` → `[B, S, W]`
    pub fn forward_local(&self, x: &Tensor) -> Tensor {
        let Some((last, others)) = self.blocks.split_last() else { return x.shallow_clone() };
        let x = others.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, None));
        last.without_attention(&x)
    }
}
