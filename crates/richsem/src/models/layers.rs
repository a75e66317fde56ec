//! The few layers a detector is made of. Each owns its tensors and is a plain function of input.

use tch::{Kind, Tensor};
use torch_ext::{Conv2dRelu, Epilogue};

use super::parameters::{Init, Scope};
use crate::error::Result;

/// The result of a kernel. Its errors (wrong shapes, a failing device) become panics, as those of libtorch's
/// own operations do. [`crate::error::guarded`] turns them into errors.
pub(super) fn or_panic(result: torch_ext::Result<Tensor>) -> Tensor {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    /// W: `[out, in]`.
    pub weight: Tensor,
    /// b: `[out]`. None in projections into the space of text.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Initialised as PyTorch's `nn.Linear`: U(±1/√in) for both.
    #[must_use]
    pub fn new(scope: &Scope, input: i64, output: i64) -> Self {
        let bound = 1.0 / (input as f64).sqrt();
        Self::with_init(scope, input, output, Init::Uniform(bound), Some(Init::Uniform(bound)))
    }

    /// Xavier weight, PyTorch's default bias: how the reference's transformer starts.
    #[must_use]
    pub fn xavier(scope: &Scope, input: i64, output: i64) -> Self {
        let bias = Init::Uniform(1.0 / (input as f64).sqrt());
        Self::with_init(scope, input, output, Init::XavierUniform, Some(bias))
    }

    /// A layer with these initial values. Without `bias` it has none.
    #[must_use]
    pub fn with_init(
        scope: &Scope,
        input: i64,
        output: i64,
        weight: Init,
        bias: Option<Init>,
    ) -> Self {
        Self {
            weight: scope.parameter("weight", &[output, input], weight),
            bias: bias.map(|b| scope.parameter_without_decay("bias", &[output], b)),
        }
    }

    /// # Shapes
    /// `[…, in]` → `[…, out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.then(x, Epilogue::None)
    }

    /// [`Self::forward`] with ReLU after it.
    ///
    /// # Shapes
    /// `[…, in]` → `[…, out]`
    pub fn forward_relu(&self, x: &Tensor) -> Tensor {
        self.then(x, Epilogue::Relu)
    }

    /// [`Self::forward`], with rows of zeros where `padding` is true.
    ///
    /// # Shapes
    /// `[…, in]`, `padding` `[…]` → `[…, out]`
    pub fn forward_zeroed(&self, x: &Tensor, padding: &Tensor) -> Tensor {
        self.then(x, Epilogue::ZeroRows(padding))
    }

    fn then(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Tensor {
        or_panic(torch_ext::linear(x, &self.weight, self.bias.as_ref(), epilogue))
    }

    /// The same parameters under another owner.
    #[must_use]
    pub fn share(&self) -> Self {
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        Self { weight: self.weight.shallow_clone(), bias }
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// A new norm: weight one, bias zero, eps 1e-5.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64) -> Self {
        Self::with_eps(scope, dim, 1e-5)
    }

    /// A new norm with that eps: weight one, bias zero.
    #[must_use]
    pub fn with_eps(scope: &Scope, dim: i64, eps: f64) -> Self {
        Self {
            weight: scope.parameter_without_decay("weight", &[dim], Init::Constant(1.0)),
            bias: scope.parameter_without_decay("bias", &[dim], Init::Constant(0.0)),
            eps,
        }
    }

    /// The norm of `x`, in the kind of `x`. Statistics are in f32.
    ///
    /// # Shapes
    /// `[…, D]` → `[…, D]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        or_panic(torch_ext::add_layer_norm(x, None, &self.weight, &self.bias, self.eps))
    }

    /// The norm of `x + residual`, in the kind of the sum: the end of each sublayer of the
    /// transformer.
    ///
    /// # Shapes
    /// both `[…, D]` → `[…, D]`
    pub fn forward_sum(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        or_panic(torch_ext::add_layer_norm(x, Some(residual), &self.weight, &self.bias, self.eps))
    }
}

/// Linear layers with ReLU between them (`layers.0`, `layers.1`, …).
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// An MLP of these layers, first to last.
    #[must_use]
    pub fn of(layers: Vec<Linear>) -> Self {
        Self { layers }
    }

    /// The same parameters under another owner.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { layers: self.layers.iter().map(Linear::share).collect() }
    }

    /// `[out, in]` of every layer.
    #[must_use]
    pub fn shapes(&self) -> Vec<Vec<i64>> {
        self.layers.iter().map(|l| l.weight.size()).collect()
    }

    /// Xavier weights, `hidden` wide between the layers.
    #[must_use]
    pub fn xavier(scope: &Scope, input: i64, hidden: i64, output: i64, count: i64) -> Self {
        let layer = |i| {
            let from = if i == 0 { input } else { hidden };
            let to = if i + 1 < count { hidden } else { output };
            Linear::xavier(&scope.sub("layers").sub(i), from, to)
        };
        Self { layers: (0..count).map(layer).collect() }
    }

    /// The box head: D → D → D → 4, its last layer zero, so that boxes start where their
    /// references are.
    #[must_use]
    pub fn box_head(scope: &Scope, dim: i64) -> Self {
        let scope = scope.sub("layers");
        let zero = Init::Constant(0.0);
        Self {
            layers: vec![
                Linear::new(&scope.sub(0), dim, dim),
                Linear::new(&scope.sub(1), dim, dim),
                Linear::with_init(&scope.sub(2), dim, 4, zero, Some(zero)),
            ],
        }
    }

    /// Takes the values of another one of the same shape.
    pub fn copy_from(&self, other: &Self) {
        let tensors = |mlp: &Self| -> Vec<Tensor> {
            let layers = mlp.layers.iter();
            layers
                .flat_map(|l| [Some(&l.weight), l.bias.as_ref()])
                .flatten()
                .map(Tensor::shallow_clone)
                .collect()
        };
        torch_ext::no_grad(|| {
            for (mut to, from) in tensors(self).into_iter().zip(tensors(other)) {
                to.copy_(&from);
            }
        });
    }

    /// # Shapes
    /// `[…, in]` → `[…, out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            x = if last { layer.forward(&x) } else { layer.forward_relu(&x) };
        }
        x
    }
}

/// Multi-head self-attention with the packed projections of PyTorch's `nn.MultiheadAttention`.
#[derive(Debug)]
pub struct MultiheadAttention {
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    out_proj: Linear,
    heads: i64,
}

impl MultiheadAttention {
    /// `dim` must divide by `heads`.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64, heads: i64) -> Self {
        Self {
            in_proj_weight: scope.parameter("in_proj_weight", &[3 * dim, dim], Init::XavierUniform),
            in_proj_bias: scope.parameter_without_decay(
                "in_proj_bias",
                &[3 * dim],
                Init::Constant(0.0),
            ),
            out_proj: Linear::with_init(
                &scope.sub("out_proj"),
                dim,
                dim,
                Init::XavierUniform,
                Some(Init::Constant(0.0)),
            ),
            heads,
        }
    }

    /// Queries and keys come from `query_key`, values from `value`. `may_attend` is true where a
    /// row may see a column.
    ///
    /// # Shapes
    /// `query_key`, `value` `[B, Q, D]`, `may_attend` `[Q, Q]` or `[B, 1, 1 | Q, Q]` → `[B, Q, D]`
    pub fn forward(
        &self,
        query_key: &Tensor,
        value: &Tensor,
        may_attend: Option<&Tensor>,
    ) -> Tensor {
        let (b, q, d) = value.size3().expect("value is [B, Q, D]: made by this crate");
        let split = |x: Tensor| x.view([b, q, self.heads, d / self.heads]).transpose(1, 2);
        let weight = |from: i64, n: i64| self.in_proj_weight.narrow(0, from, n);
        let bias = |from: i64, n: i64| self.in_proj_bias.narrow(0, from, n);
        let project = |x: &Tensor, from: i64, n: i64| {
            or_panic(torch_ext::linear(x, &weight(from, n), Some(&bias(from, n)), Epilogue::None))
        };
        let qk = project(query_key, 0, 2 * d); // [B, Q, 2D]
        let values = project(value, 2 * d, d);
        let queries = split(qk.narrow(-1, 0, d).contiguous());
        let keys = split(qk.narrow(-1, d, d).contiguous());
        let attended = Tensor::scaled_dot_product_attention(
            &queries,
            &keys,
            &split(values),
            may_attend,
            0.0,
            false,
            None,
            false,
        ); // [B, heads, Q, D / heads]
        self.out_proj.forward(&attended.transpose(1, 2).reshape([b, q, d]))
    }

    /// What comes out where every token attends to itself alone: its projected value.
    ///
    /// # Shapes
    /// `[…, D]` → `[…, D]`
    pub fn values_alone(&self, x: &Tensor) -> Tensor {
        let d = self.in_proj_bias.size()[0] / 3;
        let [weight, bias] =
            [&self.in_proj_weight, &self.in_proj_bias].map(|t| t.narrow(0, 2 * d, d));
        let value = or_panic(torch_ext::linear(x, &weight, Some(&bias), Epilogue::None));
        self.out_proj.forward(&value)
    }
}

/// Convolution, with a bias where no norm follows that has one.
#[derive(Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`: the kernel.
    pub weight: Tensor,
    /// `[out]`. None where a norm with a bias follows.
    pub bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// A convolution without bias, He-initialised as torchvision's ResNets.
    #[must_use]
    pub fn new(scope: &Scope, input: i64, output: i64, kernel: i64, stride: i64) -> Self {
        Self {
            weight: scope.parameter(
                "weight",
                &[output, input, kernel, kernel],
                Init::KaimingFanOut,
            ),
            bias: None,
            stride,
            padding: kernel / 2,
        }
    }

    /// A convolution with these initial values. Without `bias` it has none.
    #[must_use]
    pub fn with_init(
        scope: &Scope,
        (input, output): (i64, i64),
        (kernel, stride): (i64, i64),
        weight: Init,
        bias: Option<Init>,
    ) -> Self {
        Self {
            weight: scope.parameter("weight", &[output, input, kernel, kernel], weight),
            bias: bias.map(|bias| scope.parameter_without_decay("bias", &[output], bias)),
            stride,
            padding: kernel / 2,
        }
    }

    /// Xavier-initialised with a zero bias: the projections onto the transformer's width.
    #[must_use]
    pub fn projection(scope: &Scope, input: i64, output: i64, kernel: i64, stride: i64) -> Self {
        Self {
            weight: scope.parameter(
                "weight",
                &[output, input, kernel, kernel],
                Init::XavierUniform,
            ),
            bias: Some(scope.parameter_without_decay("bias", &[output], Init::Constant(0.0))),
            stride,
            padding: kernel / 2,
        }
    }

    /// # Shapes
    /// `[B, in, H, W]` → `[B, out, ⌈H / stride⌉, ⌈W / stride⌉]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.of(x, &self.weight, self.bias.as_ref())
    }

    /// Pixels from one window to the next.
    #[must_use]
    pub fn stride(&self) -> i64 {
        self.stride
    }

    /// The same convolution with another weight of the same shape, and no bias.
    pub fn with(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        self.of(x, weight, None)
    }

    fn of(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let of_a_pixel = weight.size()[2] == 1 && self.stride == 1;
        if of_a_pixel && x.device().is_cuda() {
            // The product that it is: cuDNN would plan it for each size of images.
            let (x, weight) = (x.permute([0, 2, 3, 1]), weight.flatten(1, 3));
            let y = or_panic(torch_ext::linear(&x, &weight, bias, Epilogue::None));
            return y.permute([0, 3, 1, 2]);
        }
        x.conv2d(weight, bias, [self.stride], [self.padding], [1], 1)
    }

    /// The convolution with a scaled weight, a shift `[out]` of the channels instead of its bias, then the
    /// residual and ReLU. Pixels that are `outside` become zero.
    ///
    /// # Shapes
    /// As [`Self::forward`]; `residual` as the result, `outside` `[B, H', W']` bool.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn relu(
        &self,
        x: &Tensor,
        weight: Scaled<'_>,
        shift: &Tensor,
        residual: Option<&Tensor>,
        outside: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (weight, scale) = match weight {
            Scaled::Before(weight) => (weight, None),
            Scaled::By(scale) => (&self.weight, Some(scale)),
        };
        let Self { stride, padding, .. } = *self;
        let op = Conv2dRelu { weight, scale, shift, residual, outside, stride, padding };
        Ok(torch_ext::conv2d_relu(x, &op)?)
    }
}

/// A convolution's weight, each of its output channels scaled.
#[derive(Debug, Clone, Copy)]
pub enum Scaled<'a> {
    /// Multiply each output channel by these factors, `[out]`.
    By(&'a Tensor),
    /// This weight, which was scaled before and does not change.
    Before(&'a Tensor),
}

/// Group normalisation, eps 1e-5, with a weight and a bias for each channel.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
}

impl GroupNorm {
    /// `channels` must divide by `groups`.
    #[must_use]
    pub fn new(scope: &Scope, groups: i64, channels: i64) -> Self {
        Self {
            // With weight decay, as by the reference's rule, which goes by names that these norms do not have.
            weight: scope.parameter("weight", &[channels], Init::Constant(1.0)),
            bias: scope.parameter_without_decay("bias", &[channels], Init::Constant(0.0)),
            groups,
        }
    }

    /// Over all pixels; or over those that are not `padding`, where the result is zero then.
    ///
    /// # Shapes
    /// `[B, C, H, W]`, `padding` `[B, H, W]` (true = padding) → `[B, C, H, W]`
    pub fn forward(&self, x: &Tensor, padding: Option<&Tensor>) -> Tensor {
        let (weight, bias) = (&self.weight, &self.bias);
        or_panic(torch_ext::group_norm(x, self.groups, weight, bias, 1e-5, padding))
    }
}

/// Centre and size to corners, `[…, 4]`.
pub fn to_xyxy(boxes: &Tensor) -> Tensor {
    let centre = boxes.narrow(-1, 0, 2);
    let half = boxes.narrow(-1, 2, 2) * 0.5;
    Tensor::cat(&[&centre - &half, centre + half], -1)
}

/// Inverse of the sigmoid with both ends clamped at 1e-3 (`util/misc.py` of the reference), of each number: the
/// shape of `x` stays.
pub fn inverse_sigmoid(x: &Tensor) -> Tensor {
    let eps = 1e-3;
    let x = x.clamp(0.0, 1.0);
    (x.clamp_min(eps) / (1.0f64 - &x).clamp_min(eps)).log()
}

/// The tensor in f32, for what autocast must not round. Tensors in f64 stay f64: tests against the
/// official code use them.
pub(crate) fn at_least_f32(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}

/// `x / ‖x‖` along the last dimension, `[…, D]` → `[…, D]`, in f32 at least; zeros stay zeros, with the
/// gradient of `x` itself.
///
/// Deviation: the reference divides zero by zero there. `F.normalize`'s way, a least norm of 1e-12,
/// would give such a row a gradient of 10¹² times its usual size, and clipping the rest away.
pub fn l2_normalize(x: &Tensor) -> Tensor {
    let x = at_least_f32(x);
    &x / divisor(&x, true)
}

/// `‖x‖` along the last dimension, 1 where it is 0.
pub(super) fn divisor(x: &Tensor, keepdim: bool) -> Tensor {
    let norm = x.norm_scalaropt_dim(2.0, [-1i64], keepdim);
    norm.masked_fill(&norm.eq(0.0), 1.0)
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
