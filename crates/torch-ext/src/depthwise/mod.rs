//! Convolutions with one kernel for each channel, as FocalNets and ConvNeXts have them.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::autocast::autocast_kind;
use crate::function::{BackwardArgs, Gradients, custom_function};
use crate::{Error, Result};

const OP: &str = "depthwise_conv2d";

/// Largest side of a kernel that is computed by this program's own kernels.
const LARGEST: i64 = 11;

/// A convolution of each channel with its own square kernel, which keeps the size: as libtorch's `conv2d` with as
/// many groups as channels, stride 1 and a padding of half the kernel. Under autocast it computes in autocast's kind.
///
/// On CUDA there are kernels for f32, bf16 and f16 and sides up to 11: maps have channels last in memory (others are
/// copied first), weight and bias are read as f32, and their gradients are f32, with sums in a fixed order. Elsewhere it
/// is libtorch's.
///
/// # Shapes
/// - `x` `[B, C, H, W]`
/// - `weight` `[C, 1, k, k]`, k odd
/// - `bias` `[C]`
/// - returns `[B, C, H, W]`
///
/// # Errors
/// When shapes or devices disagree; what libtorch refuses.
pub fn depthwise_conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let side = check(x, weight, bias)?;
    let device = x.device();
    let kind = autocast_kind(device).unwrap_or(x.kind());
    let kernels = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    // The kernels count in 32 bits.
    let fits = (x.numel() as i64) < i64::from(i32::MAX);
    if !(device.is_cuda() && kernels && fits && side <= LARGEST) || x.numel() == 0 {
        let half = side / 2;
        return Ok(x.f_conv2d(weight, bias, [1], [half, half], [1], x.size()[1])?);
    }
    // The conversions are libtorch's to differentiate.
    let x = x.f_to_kind(kind)?.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    let channels = weight.size()[0];
    // `[side², C]`.
    let cells =
        weight.f_to_kind(Kind::Float)?.f_view([channels, -1])?.f_transpose(0, 1)?.f_contiguous()?;
    let bias = bias.map(|bias| bias.f_to_kind(Kind::Float)?.f_contiguous()).transpose()?;
    let detached = [x.detach(), cells.detach()];
    let mut inputs = vec![&x, &cells];
    inputs.extend(&bias);
    let output = custom_function(
        OP,
        &inputs,
        &detached.each_ref(),
        || cuda::forward(&x, &cells, bias.as_ref(), (side, false)),
        move |args: &BackwardArgs<'_>| -> Result<Gradients> {
            let [x, cells] = args.saved else { unreachable!("it saves two tensors") };
            let mut gradients: Gradients = args.needs.iter().map(|_| None).collect();
            if args.needs[0] {
                gradients[0] = Some(cuda::forward(args.grad, cells, None, (side, true))?);
            }
            if args.needs[1..].contains(&true) {
                let (weight, bias) = cuda::weight_gradient(x, args.grad, side)?;
                gradients[1] = Some(weight);
                if let Some(of_bias) = gradients.get_mut(2) {
                    *of_bias = Some(bias.f_view([-1])?);
                }
            }
            Ok(gradients)
        },
    )?;
    Ok(output.f_permute([0, 3, 1, 2])?)
}

/// The kernels' side.
fn check(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<i64> {
    let wrong = |argument, expected, got: String| Err(Error::argument(OP, argument, expected, got));
    let &[_, c, _, _] = x.size().as_slice() else {
        return wrong("x", "[B, C, H, W]".to_owned(), format!("{:?}", x.size()));
    };
    let side = match weight.size()[..] {
        [channels, 1, down, across] if channels == c && down == across && down % 2 == 1 => down,
        _ => {
            let expected = format!("[{c}, 1, k, k], k odd");
            return wrong("weight", expected, format!("{:?}", weight.size()));
        }
    };
    if let Some(bias) = bias
        && bias.size() != [c]
    {
        return wrong("bias", format!("[{c}]"), format!("{:?}", bias.size()));
    }
    for (name, tensor) in [("weight", Some(weight)), ("bias", bias)] {
        if let Some(tensor) = tensor
            && tensor.device() != x.device()
        {
            let expected = format!("on {:?}, as x", x.device());
            return wrong(name, expected, format!("{:?}", tensor.device()));
        }
    }
    Ok(side)
}
