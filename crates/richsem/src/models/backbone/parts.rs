//! What the backbones after the ResNets are made of.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Kind, Tensor};

use super::Level;
use crate::{
    bounds::within,
    error::{Error, Result},
    models::{
        layers::{Linear, or_panic},
        padding::PaddingPyramid,
        parameters::{Init, Scope},
    },
};

/// Standard deviation of the initial weights of these backbones' layers.
const STD: f64 = 0.02;

/// A linear layer as these backbones start it: normal, 0.02, and a bias of zero.
pub(super) fn linear(scope: &Scope, input: i64, output: i64) -> Linear {
    Linear::with_init(scope, input, output, Init::Normal(STD), Some(Init::Constant(0.0)))
}

/// As [`linear`], without bias.
pub(super) fn linear_without_bias(scope: &Scope, input: i64, output: i64) -> Linear {
    Linear::with_init(scope, input, output, Init::Normal(STD), None)
}

/// A convolution with a bias, of any stride, padding and groups.
#[derive(Debug)]
pub(super) struct Convolution {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Convolution {
    /// `[output, input / groups, kernel, kernel]`, stride 1, padded to keep the size.
    pub(super) fn new(
        scope: &Scope,
        (input, output): (i64, i64),
        kernel: i64,
        groups: i64,
    ) -> Self {
        let shape = [output, input / groups, kernel, kernel];
        let weight = scope.parameter("weight", &shape, Init::Normal(STD));
        let bias = Some(scope.parameter_without_decay("bias", &[output], Init::Constant(0.0)));
        Self { weight, bias, stride: 1, padding: kernel / 2, groups }
    }

    /// As [`Self::new`] of one group, with another stride and padding.
    pub(super) fn strided(
        scope: &Scope,
        channels: (i64, i64),
        (kernel, stride, padding): (i64, i64, i64),
    ) -> Self {
        Self { stride, padding, ..Self::new(scope, channels, kernel, 1) }
    }

    /// As [`Self::strided`], without bias.
    pub(super) fn without_bias(
        scope: &Scope,
        (input, output): (i64, i64),
        (kernel, stride, padding): (i64, i64, i64),
    ) -> Self {
        let shape = [output, input, kernel, kernel];
        let weight = scope.parameter("weight", &shape, Init::Normal(STD));
        Self { weight, bias: None, stride, padding, groups: 1 }
    }

    /// One kernel for each channel, without bias, which keeps the size.
    pub(super) fn depthwise(scope: &Scope, channels: i64, kernel: i64) -> Self {
        let weight = scope.parameter("weight", &[channels, 1, kernel, kernel], Init::Normal(STD));
        Self { weight, bias: None, stride: 1, padding: kernel / 2, groups: channels }
    }

    /// # Shapes
    /// `[B, in, H, W]` → `[B, out, H', W']`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let Self { stride, padding, groups, .. } = *self;
        if groups > 1 && groups == x.size()[1] && stride == 1 {
            return or_panic(torch_ext::depthwise_conv2d(x, &self.weight, self.bias.as_ref()));
        }
        x.conv2d(&self.weight, self.bias.as_ref(), [stride], [padding], [1], groups)
    }
}

/// Two linear layers with GELU (exact, by the error function) between them: `fc1`, `fc2`.
#[derive(Debug)]
pub(super) struct GeluMlp {
    fc1: Linear,
    fc2: Linear,
}

impl GeluMlp {
    pub(super) fn new(scope: &Scope, dim: i64, hidden: i64) -> Self {
        Self {
            fc1: linear(&scope.sub("fc1"), dim, hidden),
            fc2: linear(&scope.sub("fc2"), hidden, dim),
        }
    }

    /// # Shapes
    /// `[…, C]` → `[…, C]`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.fc2.forward(&self.fc1.forward(x).gelu("none"))
    }
}

/// Stochastic depth (arXiv 1603.09382): an image passes a branch by, as its draw says; where it does not,
/// the branch counts for more.
#[derive(Debug, Clone)]
pub(super) struct DropPath {
    /// One for each branch.
    rates: Vec<f64>,
}

impl DropPath {
    /// Rates from 0 at the first block to `rate` at the last, each for all `branches` of a block.
    pub(super) fn rising(rate: f64, blocks: i64, branches: usize) -> Self {
        let last = (blocks - 1).max(1) as f64;
        let of_block = |block: i64| rate * block as f64 / last;
        let rates = (0..blocks).flat_map(|block| vec![of_block(block); branches]).collect();
        Self { rates }
    }

    /// The same `rate` for all `branches` of all blocks.
    pub(super) fn uniform(rate: f64, blocks: i64, branches: usize) -> Self {
        Self { rates: vec![rate; blocks as usize * branches] }
    }

    /// What each branch of each image counts in a training pass, `[branches, B, 1, 1, 1]` of 0 and 1 / (1 −
    /// rate); none where nothing is dropped. A draw below the rate drops.
    pub(super) fn factors(&self, draws: Option<&Tensor>) -> Option<Tensor> {
        let draws = draws.filter(|_| self.rates.iter().any(|&rate| rate > 0.0))?;
        let column = |values: &[f64]| {
            let shape = [values.len() as i64, 1];
            torch_ext::constant(values, &shape, (Kind::Float, draws.device()))
        };
        let kept: Vec<f64> = self.rates.iter().map(|rate| 1.0 / (1.0 - rate)).collect();
        let factors = draws.ge_tensor(&column(&self.rates)).to_kind(Kind::Float) * column(&kept);
        Some(factors.unsqueeze(-1).unsqueeze(-1).unsqueeze(-1))
    }
}

/// The factor of one branch: see [`DropPath::factors`].
pub(super) fn factor(factors: Option<&Tensor>, branch: usize) -> Option<Tensor> {
    factors.map(|factors| factors.get(branch as i64))
}

/// `x + branch`, the branch with its factor `[B, 1, 1, 1]`.
pub(super) fn add_branch(x: &Tensor, branch: &Tensor, factor: Option<&Tensor>) -> Tensor {
    match factor {
        Some(factor) => x + branch * factor.to_kind(branch.kind()),
        None => x + branch,
    }
}

/// A block of a backbone. If it is to be `again`, a training pass keeps its input alone, and the backward
/// pass runs it again for what lies between.
#[derive(Debug)]
pub(super) struct Part<B> {
    block: Arc<Mutex<B>>,
    parameters: Vec<Tensor>,
    again: bool,
}

impl<B: Send + 'static> Part<B> {
    pub(super) fn new(scope: &Scope, again: bool, make: impl FnOnce() -> B) -> Self {
        let (block, parameters) = scope.collect(make);
        Self { block: Arc::new(Mutex::new(block)), parameters, again }
    }

    /// `run(block, x)`. Tensors that `run` holds are constants: they get no gradients.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        run: impl Fn(&B, &Tensor) -> Tensor + Send + 'static,
    ) -> Result<Tensor> {
        let block = Arc::clone(&self.block);
        let call = move |x: &Tensor| run(&block.lock().unwrap_or_else(PoisonError::into_inner), x);
        if !self.again {
            return Ok(call(x));
        }
        Ok(torch_ext::checkpoint(x, &self.parameters, move |x| Ok(call(x)))?)
    }
}

/// Makes what lies outside of the images zero, in maps with the channels last.
///
/// # Shapes
/// `[B, H, W, C]`, `padding` `[B, H, W]` (true = padding) → `[B, H, W, C]`
pub(super) fn hide(x: &Tensor, padding: Option<&Tensor>) -> Tensor {
    match padding {
        Some(padding) => x.masked_fill(&padding.unsqueeze(-1), 0.0),
        None => x.shallow_clone(),
    }
}

/// The padding of maps of that stride, a power of two.
pub(super) fn padding_at(pyramid: Option<&PaddingPyramid>, stride: i64) -> Option<Tensor> {
    pyramid.map(|pyramid| pyramid.at(stride.trailing_zeros() as usize).shallow_clone())
}

/// How many cells are missing to a multiple.
fn missing(side: i64, multiple: i64) -> i64 {
    (multiple - side % multiple) % multiple
}

/// Zeros at the right and below, up to sides that are multiples, in maps with the channels last.
///
/// # Shapes
/// `[B, H, W, C]` → `[B, H', W', C]`
pub(super) fn pad_to_multiple(x: &Tensor, multiple: i64) -> Tensor {
    match (missing(x.size()[1], multiple), missing(x.size()[2], multiple)) {
        (0, 0) => x.shallow_clone(),
        (below, right) => x.constant_pad_nd([0, 0, 0, right, 0, below]),
    }
}

/// As [`pad_to_multiple`], of images.
///
/// # Shapes
/// `[B, 3, H, W]` → `[B, 3, H', W']`
pub(super) fn pad_images(images: &Tensor, multiple: i64) -> Tensor {
    match (missing(images.size()[2], multiple), missing(images.size()[3], multiple)) {
        (0, 0) => images.shallow_clone(),
        (below, right) => images.constant_pad_nd([0, right, 0, below]),
    }
}

/// The maps of four stages after a stem of stride 4: twice the channels and the stride from each to the next.
pub(super) fn four_levels(width: i64) -> Vec<Level> {
    (0..4).map(|stage| Level { channels: width << stage, stride: f64::from(4 << stage) }).collect()
}

/// Settings that backbones of four stages share.
pub(super) struct Common<'a> {
    pub(super) width: Option<i64>,
    pub(super) layers: &'a [i64],
    pub(super) drop_path: f64,
    pub(super) frozen_stages: i64,
}

impl Common<'_> {
    /// # Errors
    /// A setting outside its range, named below `key`. The width must be a multiple of `of`.
    pub(super) fn validate(&self, key: &str, of: i64) -> Result<()> {
        let layers = self.layers;
        if !layers.is_empty()
            && (layers.len() != 4 || layers.iter().any(|n| !(1..=1000).contains(n)))
        {
            let problem = format!("expected four block counts from 1 to 1000, got {layers:?}");
            return Err(Error::config(format!("{key}.layers"), problem));
        }
        if let Some(width) =
            self.width.filter(|width| !(1..=4096).contains(width) || width % of != 0)
        {
            let problem = format!("expected a multiple of {of} up to 4096, got {width}");
            return Err(Error::config(format!("{key}.width"), problem));
        }
        within(format!("{key}.drop_path"), self.drop_path, 0.0..=0.95)?;
        within(format!("{key}.frozen_stages"), self.frozen_stages, -1..=4)
    }
}

/// `softmax(q kᵀ · scale) v`, fused; without `scale` it is 1 / √d.
///
/// # Shapes
/// `[B, heads, N, d]` each → `[B, heads, N, d of v]`
pub(super) fn attend([q, k, v]: [&Tensor; 3], scale: Option<f64>) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, scale, false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    /// Three branches, two images. Rates 0, 0.25 and 0.5: a draw of exactly the rate stays.
    #[test]
    fn a_draw_below_the_rate_drops_the_branch_and_the_others_count_for_more() {
        let drop = DropPath::rising(0.5, 3, 1);
        let draws = Tensor::from_slice2(&[[0f32, 0.9], [0.25, 0.2], [0.49, 0.5]]);
        let factors = drop.factors(Some(&draws)).unwrap();
        assert_eq!(factors.size(), [3, 2, 1, 1, 1]);
        let expected = Tensor::from_slice2(&[[1f32, 1.0], [4.0 / 3.0, 0.0], [0.0, 2.0]]);
        assert!((factors.view([3, 2]) - expected).abs().max().double_value(&[]) < 1e-7);
        assert!(drop.factors(None).is_none());
        assert!(DropPath::rising(0.0, 3, 1).factors(Some(&draws)).is_none());
    }

    #[test]
    fn each_branch_of_a_block_has_the_rate_of_the_block() {
        assert_eq!(DropPath::rising(0.2, 3, 2).rates, [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]);
        assert_eq!(DropPath::rising(0.2, 1, 2).rates, [0.0, 0.0]);
        assert_eq!(DropPath::uniform(0.2, 2, 2).rates, [0.2; 4]);
    }

    #[test]
    fn maps_are_padded_to_whole_windows() {
        let x = Tensor::ones([1, 5, 8, 2], (Kind::Float, Device::Cpu));
        let padded = pad_to_multiple(&x, 4);
        assert_eq!(padded.size(), [1, 8, 8, 2]);
        assert_eq!(padded.sum(Kind::Float).double_value(&[]), 80.0);
        assert_eq!(pad_to_multiple(&padded, 4), padded);
    }
}
