//! CLIP's text encoder.

use tch::{Kind, Tensor};

use super::{
    config::TextConfig,
    transformer::{Transformer, TransformerSizes},
};
use crate::models::{
    layers::LayerNorm,
    parameters::{Init, Scope},
};

/// A causal transformer; the last token's state is the text's.
#[derive(Debug)]
pub struct TextEncoder {
    /// `[V, W]`: features of each token.
    token_embedding: Tensor,
    /// `[context, W]`: features of each position.
    positional_embedding: Tensor,
    transformer: Transformer,
    ln_final: LayerNorm,
    /// `[W, D]`: from the last token to the embedding.
    text_projection: Tensor,
}

impl TextEncoder {
    /// `scope` is the whole model's: the text encoder has no prefix. D is `output`.
    #[must_use]
    pub fn new(scope: &Scope, config: &TextConfig, output: i64) -> Self {
        let &TextConfig { context_length, vocabulary, width, layers, heads, hidden, activation } =
            config;
        Self {
            token_embedding: scope.sub("token_embedding").parameter(
                "weight",
                &[vocabulary, width],
                Init::Normal(0.02),
            ),
            positional_embedding: scope.parameter(
                "positional_embedding",
                &[context_length, width],
                Init::Normal(0.01),
            ),
            transformer: Transformer::new(
                &scope.sub("transformer"),
                TransformerSizes { width, layers, heads, hidden, activation },
            ),
            ln_final: LayerNorm::new(&scope.sub("ln_final"), width),
            text_projection: scope.parameter(
                "text_projection",
                &[width, output],
                Init::Normal((width as f64).powf(-0.5)),
            ),
        }
    }

    /// Most tokens of a text.
    #[must_use]
    pub fn context_length(&self) -> i64 {
        self.positional_embedding.size()[0]
    }

    /// V: number of different tokens.
    #[must_use]
    pub fn vocabulary(&self) -> i64 {
        self.token_embedding.size()[0]
    }

    /// Embeddings of texts, not normalised. A text ends at its largest id, which is the end
    /// token's; what follows is not read, so columns that are padding in every text may be left
    /// out.
    ///
    /// # Shapes
    /// `ids` `[N, L]` i64, L at most the context length → `[N, D]`
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let [n, l] = ids.size()[..] else { unreachable!("ids are [N, L]") };
        let x = Tensor::embedding(&self.token_embedding, ids, -1, false, false)
            + self.positional_embedding.narrow(0, 0, l); // [N, L, W]
        let causal = Tensor::ones([l, l], (Kind::Bool, ids.device())).tril(0);
        let x = self.ln_final.forward(&self.transformer.forward(&x, Some(&causal)));
        let end = ids.argmax(-1, false).view([n, 1, 1]).expand([n, 1, x.size()[2]], false);
        x.gather(1, &end, false).squeeze_dim(1).matmul(&self.text_projection)
    }
}
