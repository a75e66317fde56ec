//! The CUDA kernels: f32, bf16 and f16 maps with channels last in memory, arithmetic in f32. The forward
//! pass adds up in a fixed order, the backward pass in none. Nothing waits for the device.

use tch::{Kind, Tensor};

use super::OP;
use crate::Result;
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, BLOCK, aligned, launch, widest_vector};
use crate::cuda::zeros::zeros;

/// Blocks that keep a large GPU busy.
const BLOCKS: i64 = 2048;
/// Pixels that a thread works on at least, where there are that many.
const PIXELS: i64 = 8;

/// The kernels for maps of a kind, of `c` channels in so many groups.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, c: i64, groups: i64) -> Result<Program> {
    // A thread's channels are of one group.
    let vector = widest_vector(kind, c / groups);
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("C", c),
            ("GROUPS", groups),
            ("VEC", vector),
            ("COLUMNS", columns(c, vector)),
        ],
    })
}

/// Vectors of a pixel that a block works on.
fn columns(c: i64, vector: i64) -> i64 {
    (c / vector).min(BLOCK as i64)
}

/// How the kernels share the work out.
struct Grid {
    program: Program,
    b: i64,
    c: i64,
    /// Pixels of a map, H · W.
    area: i64,
    /// Pixels that a block works on.
    of_block: i64,
    threads: usize,
}

impl Grid {
    /// For maps `[B, C, H, W]`.
    fn new(x: &Tensor, groups: i64) -> Result<Self> {
        let &[b, c, h, w] = x.size().as_slice() else {
            unreachable!("checked: x has four dimensions");
        };
        let area = h * w;
        let vector = widest_vector(x.kind(), c / groups);
        let columns = columns(c, vector);
        let rows = BLOCK as i64 / columns;
        let tiles = (c / vector + columns - 1) / columns;
        let all = b * tiles;
        let of_block = (area * all / BLOCKS).max(rows * PIXELS).min(area);
        let blocks = all * ((area + of_block - 1) / of_block);
        let program = program(x.kind(), c, groups)?;
        Ok(Self { program, b, c, area, of_block, threads: blocks as usize * BLOCK })
    }

    /// Starts one of the kernels, with `area` and `of_block` behind the other arguments.
    ///
    /// # Safety
    /// As `launch`.
    unsafe fn launch(&self, x: &Tensor, entry: &'static str, args: Args) -> Result<()> {
        let mut args = args.int(self.area)?.int(self.of_block)?;
        // SAFETY: the caller's.
        unsafe { launch(x.device(), &self.program, entry, self.threads, &mut args) }
    }
}

/// What the kernels know of each image.
pub(super) struct Image {
    /// `[B, G, 2]` f32: sums of `x - pivot` and of its square, see `kernels.cu`.
    pub(super) sums: Tensor,
    /// `[B, 2]` int32, with padding: pixels that are none, and the first of them.
    pub(super) pixels: Option<Tensor>,
}

/// What a forward pass leaves.
pub(super) struct Forward {
    pub(super) output: Tensor,
    pub(super) image: Image,
}

/// `[B, C, H, W]` with channels last in memory, at an address that vectors can be read from.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor> {
    let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    Ok(aligned(&x)?.f_permute([0, 3, 1, 2])?)
}

/// A map of this shape, kind and layout, of which nothing is written.
fn like(x: &Tensor) -> Result<Tensor> {
    let &[b, c, h, w] = x.size().as_slice() else {
        unreachable!("checked: x has four dimensions");
    };
    Ok(Tensor::f_empty([b, h, w, c], (x.kind(), x.device()))?.f_permute([0, 3, 1, 2])?)
}

/// What both passes are given besides the maps.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    pub(super) groups: i64,
    /// `[C]` f32, the factor of each channel.
    pub(super) weight: &'a Tensor,
    pub(super) eps: f64,
    /// `[B, H, W]` bool, contiguous.
    pub(super) padding: Option<&'a Tensor>,
}

/// `x` with numbers in it and with channels last in memory.
pub(super) fn forward(x: &Tensor, norm: Norm<'_>, bias: &Tensor) -> Result<Forward> {
    let Norm { groups, weight, eps, padding } = norm;
    let grid = Grid::new(x, groups)?;
    let device = x.device();
    let (weight, bias) = (weight.f_contiguous()?, bias.f_contiguous()?);
    let floats = (Kind::Float, device);
    let partial = Tensor::f_empty([(grid.threads / BLOCK) as i64, groups, 2], floats)?;
    let sums = Tensor::f_empty([grid.b, groups, 2], floats)?;
    let pixels = match padding {
        Some(padding) => {
            let pixels = Tensor::f_empty([grid.b, 2], (Kind::Int, device))?;
            let mut args = Args::default().tensor(padding).tensor(&pixels).int(grid.area)?;
            let threads = grid.b as usize * BLOCK;
            // SAFETY: the kernel's parameters in order; a block an image.
            unsafe { launch(device, &grid.program, "group_norm_pixels", threads, &mut args)? };
            Some(pixels)
        }
        None => None,
    };
    let output = like(x)?;
    // SAFETY: the kernels' parameters in order; `group_norm` has checked the tensors.
    unsafe {
        let args =
            Args::default().tensor(x).tensor(padding).tensor(pixels.as_ref()).tensor(&partial);
        grid.launch(x, "group_norm_sums", args)?;
        let mut args = Args::default().tensor(&partial).tensor(&sums);
        args = args.int(grid.area)?.int(grid.of_block)?;
        let threads = (grid.b * groups) as usize * BLOCK;
        launch(device, &grid.program, "group_norm_totals", threads, &mut args)?;
        let args = Args::default().tensor(x).tensor(padding).tensor(pixels.as_ref()).tensor(&sums);
        let args = args.tensor(&weight).tensor(&bias).tensor(&output).float(eps as f32);
        grid.launch(x, "group_norm_forward", args)?;
    }
    Ok(Forward { output, image: Image { sums, pixels } })
}

/// What a backward pass returns.
pub(super) struct Backward {
    /// The gradient of `x`, if it is wanted.
    pub(super) x: Option<Tensor>,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// `grad` is of the shape of `x`; the others are what [`forward`] was given and left. `of_x`: whether the
/// gradient of `x` is wanted.
pub(super) fn backward(
    grad: &Tensor,
    x: &Tensor,
    norm: Norm<'_>,
    image: &Image,
    of_x: bool,
) -> Result<Backward> {
    let Norm { groups, weight, eps, padding } = norm;
    let grad = channels_last(grad)?;
    let grid = Grid::new(x, groups)?;
    let weight = weight.f_contiguous()?;
    let Image { sums, pixels } = image;
    // Of the products with the normalised numbers, then of the gradient itself.
    let columns = zeros(&[2, grid.b, grid.c], Kind::Float, x.device())?;
    let args = || {
        let args = Args::default().tensor(&grad).tensor(x).tensor(padding);
        args.tensor(pixels.as_ref()).tensor(sums)
    };
    let images = grid.b;
    // SAFETY: the kernels' parameters in order; `grad` is of the shape of `x`, as the result is.
    let grad_x = unsafe {
        let first = args().tensor(&columns).float(eps as f32).int(images)?;
        grid.launch(x, "group_norm_columns", first)?;
        if of_x {
            let grad_x = like(x)?;
            let second = args().tensor(&columns).tensor(&weight).tensor(&grad_x);
            let second = second.float(eps as f32).int(images)?;
            grid.launch(x, "group_norm_backward", second)?;
            Some(grad_x)
        } else {
            None
        }
    };
    let columns = columns.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
    let (weight, bias) = (columns.f_select(0, 0)?, columns.f_select(0, 1)?);
    Ok(Backward { x: grad_x, weight, bias })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let sizes = [(1, 1), (6, 3), (32, 32), (64, 8), (256, 32), (2048, 32), (2056, 1)];
            all_compile(sizes.map(|(c, groups)| program(kind, c, groups).unwrap()));
        }
    }
}
