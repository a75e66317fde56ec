//! CLIP's ResNets as image encoders: the backbone's last map, and attention over it in place of an
//! average.

use tch::Tensor;

use crate::{
    error::Result,
    models::{
        backbone::{Resnet, ResnetConfig},
        layers::Linear,
        parameters::{Init, Scope},
    },
};

/// Pixels of the image from one cell of the map to the next.
pub const STRIDE: i64 = 32;

/// Multi-head attention whose one query is the mean of a map's cells.
#[derive(Debug)]
pub struct AttentionPool {
    /// `[S + 1, C]`: of the mean, then of each cell.
    positional_embedding: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    c_proj: Linear,
    heads: i64,
}

impl AttentionPool {
    /// For maps of `grid` × `grid` cells and `width` channels.
    #[must_use]
    pub fn new(scope: &Scope, grid: i64, width: i64, heads: i64, output: i64) -> Self {
        let bound = (width as f64).powf(-0.5);
        let linear = |name: &str, to: i64| {
            let bias = Some(Init::Uniform(bound));
            Linear::with_init(&scope.sub(name), width, to, Init::Normal(bound), bias)
        };
        Self {
            positional_embedding: scope.parameter(
                "positional_embedding",
                &[grid * grid + 1, width],
                Init::Normal(bound),
            ),
            k_proj: linear("k_proj", width),
            q_proj: linear("q_proj", width),
            v_proj: linear("v_proj", width),
            c_proj: linear("c_proj", output),
            heads,
        }
    }

    /// # Shapes
    /// `[N, C, grid, grid]` → `[N, D]`
    pub fn forward(&self, map: &Tensor) -> Tensor {
        let cells = map.flatten(2, 3).transpose(1, 2); // [N, S, C]
        let mean = cells.mean_dim([1i64].as_slice(), true, None);
        let x = Tensor::cat(&[mean, cells], 1) + &self.positional_embedding; // [N, S + 1, C]
        let split = |x: Tensor| {
            let size = x.size();
            x.view([size[0], size[1], self.heads, size[2] / self.heads]).transpose(1, 2)
        };
        let queries = split(self.q_proj.forward(&x.narrow(1, 0, 1))); // [N, heads, 1, C / heads]
        let (keys, values) = (split(self.k_proj.forward(&x)), split(self.v_proj.forward(&x)));
        // Not libtorch's fused attention: on CUDA cuDNN plans that for each N, a tenth of a second each time,
        // and a batch has any number of boxes.
        let scale = (queries.size()[3] as f64).powf(-0.5);
        let weights = (queries * scale).matmul(&keys.transpose(-2, -1)).softmax(-1, None);
        let attended = weights.to_kind(values.kind()).matmul(&values); // [N, heads, 1, C / heads]
        self.c_proj.forward(&attended.transpose(1, 2).flatten(1, 3))
    }
}

/// CLIP's ResNet: a backbone and the attention pool on its last map.
#[derive(Debug)]
pub struct VisualResnet {
    /// Stem and four stages, `layer1` to `layer4`.
    pub backbone: Resnet,
    /// Makes an embedding of a map of `grid` × `grid` cells.
    pub pool: AttentionPool,
    grid: i64,
}

impl VisualResnet {
    /// `scope` is `visual`; D is `output`.
    #[must_use]
    pub fn new(
        scope: &Scope,
        backbone: &ResnetConfig,
        resolution: i64,
        heads: i64,
        output: i64,
    ) -> Self {
        let grid = resolution / STRIDE;
        let width = backbone.levels()[3].channels;
        Self {
            backbone: Resnet::new(scope, backbone),
            pool: AttentionPool::new(&scope.sub("attnpool"), grid, width, heads, output),
            grid,
        }
    }

    /// The backbone's last map. `train` makes batch norms use the batch's statistics.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, normalised → `[B, C, H / 32, W / 32]`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn dense(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let [.., last] = self.backbone.forward(images, None, train)?;
        Ok(last)
    }

    /// Embeddings of boxes, not normalised: RoIAlign (aligned, as many samples as a bin has cells)
    /// on the dense map to the pool's own grid, then the pool.
    ///
    /// # Shapes
    /// `map` `[B, C, H / 32, W / 32]`, `boxes` `[N, 5]` (image, x0, y0, x1, y1 in image pixels)
    /// → `[N, D]`
    ///
    /// # Errors
    /// As [`torch_ext::roi_align()`].
    pub fn embed_boxes(&self, map: &Tensor, boxes: &Tensor) -> Result<Tensor> {
        let scale = 1.0 / STRIDE as f64;
        let bins = (self.grid, self.grid);
        let regions = torch_ext::roi_align(map, boxes, bins, scale, 0, true)?;
        Ok(self.pool.forward(&regions))
    }
}
