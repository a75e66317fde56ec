//! CLIP's vision transformers.

use tch::Tensor;

use super::{
    config::VisualConfig,
    transformer::{Transformer, TransformerSizes},
};
use crate::models::{
    layers::{LayerNorm, l2_normalize},
    parameters::{Init, Scope},
};

/// Patches, a class token, a transformer.
#[derive(Debug)]
pub struct VisualTransformer {
    /// `[W, 3, patch, patch]`: from the pixels of a patch to its features.
    conv1: Tensor,
    /// `[W]`: features of the class token.
    class_embedding: Tensor,
    /// `[S + 1, W]`: of the class token, then of each patch of a square image.
    positional_embedding: Tensor,
    ln_pre: LayerNorm,
    transformer: Transformer,
    ln_post: LayerNorm,
    /// `[W, D]`: from the class token to the embedding.
    proj: Tensor,
    patch: i64,
    grid: i64,
}

impl VisualTransformer {
    /// `scope` is `visual`; D is `output`.
    ///
    /// # Panics
    /// If the sizes are a ResNet's.
    #[must_use]
    pub fn new(scope: &Scope, config: &VisualConfig, output: i64) -> Self {
        let &VisualConfig::Vit { width, layers, patch, resolution, heads, hidden, activation } =
            config
        else {
            panic!("sizes of a vision transformer, not of a ResNet");
        };
        let grid = resolution / patch;
        let std = Init::Normal((width as f64).powf(-0.5));
        let fan_in = (3 * patch * patch) as f64;
        Self {
            conv1: scope.sub("conv1").parameter(
                "weight",
                &[width, 3, patch, patch],
                Init::Uniform(fan_in.powf(-0.5)),
            ),
            class_embedding: scope.parameter("class_embedding", &[width], std),
            positional_embedding: scope.parameter(
                "positional_embedding",
                &[grid * grid + 1, width],
                std,
            ),
            ln_pre: LayerNorm::new(&scope.sub("ln_pre"), width),
            transformer: Transformer::new(
                &scope.sub("transformer"),
                TransformerSizes { width, layers, heads, hidden, activation },
            ),
            ln_post: LayerNorm::new(&scope.sub("ln_post"), width),
            proj: scope.parameter("proj", &[width, output], std),
            patch,
            grid,
        }
    }

    /// Side of a patch, in pixels.
    #[must_use]
    pub fn patch(&self) -> i64 {
        self.patch
    }

    /// Embeddings of whole images, not normalised.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, normalised → `[B, D]`
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let (x, _) = self.tokens(images);
        let x = self.transformer.forward(&x, None);
        self.ln_post.forward(&x.select(1, 0)).matmul(&self.proj)
    }

    /// An embedding of each patch, of length one: see [`Transformer::forward_local`].
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, normalised → `[B, D, ⌈H / patch⌉, ⌈W / patch⌉]`
    pub fn patch_map(&self, images: &Tensor) -> Tensor {
        let missing = |side: i64| side.cast_unsigned().next_multiple_of(self.patch.cast_unsigned());
        let [.., h, w] = images.size()[..] else { unreachable!("images are [B, 3, H, W]") };
        let (bottom, right) = (missing(h).cast_signed() - h, missing(w).cast_signed() - w);
        let (x, (h, w)) = self.tokens(&images.constant_pad_nd([0, right, 0, bottom]));
        let x = self.transformer.forward_local(&x);
        let x = self.ln_post.forward(&x.narrow(1, 1, h * w)).matmul(&self.proj); // [B, S, D]
        l2_normalize(&x).transpose(1, 2).unflatten(2, [h, w])
    }

    /// `[B, 1 + h·w, W]` class token and patches with their positions, and `(h, w)`.
    fn tokens(&self, images: &Tensor) -> (Tensor, (i64, i64)) {
        let patches = images.conv2d(
            &self.conv1,
            None::<&Tensor>,
            [self.patch, self.patch],
            [0, 0],
            [1, 1],
            1,
        ); // [B, W, h, w]
        let [b, width, h, w] = patches.size()[..] else {
            unreachable!("conv2d gives [B, W, h, w]")
        };
        let patches = patches.flatten(2, 3).transpose(1, 2);
        let class = self.class_embedding.to_kind(patches.kind()).expand([b, 1, width], false);
        let x = Tensor::cat(&[class, patches], 1) + self.positions(h, w);
        (self.ln_pre.forward(&x), (h, w))
    }

    /// Positions for a grid of another size than the model's own are interpolated (bicubic).
    fn positions(&self, h: i64, w: i64) -> Tensor {
        if (h, w) == (self.grid, self.grid) {
            return self.positional_embedding.shallow_clone();
        }
        let (class, patches) = (
            self.positional_embedding.narrow(0, 0, 1),
            self.positional_embedding.narrow(0, 1, self.grid * self.grid),
        );
        let square = patches.transpose(0, 1).unflatten(1, [self.grid, self.grid]).unsqueeze(0);
        let resized = square.upsample_bicubic2d([h, w], false, None, None); // [1, W, h, w]
        Tensor::cat(&[class, resized.squeeze_dim(0).flatten(1, 2).transpose(0, 1)], 0)
    }
}
