//! The CUDA twin: f32, bf16 and f16 values, with locations and weights in f32. The gradient of the
//! values is summed by atomic additions, in no fixed order: in f32 for f32 values, in scaled f16 for
//! the others. All other sums are f32.

use tch::{Kind, Tensor};

use super::{Gradients, Shapes};
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, aligned, launch, widest_vector};
use crate::cuda::zeros::zeros;
use crate::{Error, Result};

/// Where the points lie and what they weigh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Points<'a> {
    /// `[B, Q, M, L, P, 2]` f32: locations, or offsets around references.
    pub(super) locations: &'a Tensor,
    /// `[B, Q, M, L, P]`: f32 weights; logits in the kind of the values where there are references.
    pub(super) weights: &'a Tensor,
    /// `[B, Q, L, 2 | 4]` f32, if locations are offsets.
    pub(super) references: Option<&'a Tensor>,
    /// `[B, Q]` bool: queries whose result nobody reads. It is zero, and has no gradient.
    pub(super) unread: Option<&'a Tensor>,
}

impl Points<'_> {
    /// 0, 2 or 4: the kernels' REF.
    fn reference(&self) -> i64 {
        self.references.and_then(|r| r.size().last().copied()).unwrap_or(0)
    }
}

/// How the threads share the features of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sharing {
    /// Neighbouring features of a thread.
    vector: i64,
    /// Threads of a (query, head): a power of two, at most a warp.
    group: i64,
}

impl Sharing {
    fn new(kind: Kind, d: i64) -> Self {
        let vector = widest_vector(kind, d);
        let group = (d / vector).cast_unsigned().next_power_of_two().min(32).cast_signed();
        Self { vector, group }
    }
}

/// The kernels for heads of `d` features, `l` levels and `p` points, given as locations or around
/// references of 2 or 4 numbers.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, [d, l, p]: [i64; 3], reference: i64) -> Result<Program> {
    let Sharing { vector, group } = Sharing::new(kind, d);
    Ok(Program {
        name: "ms_deform_attn",
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("D", d),
            ("L", l),
            ("P", p),
            ("VEC", vector),
            ("G", group),
            ("REF", reference),
        ],
    })
}

/// Summands of a place in 16 bits, on average: few enough for 11 bits of mantissa.
const SUMMANDS: i64 = 32;

/// Where the gradient of the values is added up, in any kind: how often each level is there, where its
/// first copy starts, and how many positions there are.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    copies: Vec<i64>,
    starts: Vec<i64>,
    positions: i64,
}

impl Sums {
    /// For `queries · points` points of a level, each of which touches four pixels.
    fn new(kind: Kind, shapes: Shapes, spatial_shapes: &[(i64, i64)]) -> Self {
        let Shapes { q, p, .. } = shapes;
        let (mut copies, mut starts, mut positions) = (vec![], vec![], 0);
        for &(h, w) in spatial_shapes {
            let summands = q * p * 4 / (h * w);
            let count = match kind {
                Kind::Float => 1,
                _ => (summands / SUMMANDS + 1).min(q.max(1)),
            };
            copies.push(count);
            starts.push(positions);
            positions += count * h * w;
        }
        Self { copies, starts, positions }
    }

    /// `struct Sums` of the kernels.
    fn laid_out(&self) -> Vec<i32> {
        let all = self.copies.iter().chain(&self.starts).chain([&self.positions]);
        all.map(|&number| number as i32).collect()
    }
}

/// `struct Levels` of the kernels.
fn levels(spatial_shapes: &[(i64, i64)]) -> Vec<i32> {
    let heights = spatial_shapes.iter().map(|&(h, _)| h as i32);
    let widths = spatial_shapes.iter().map(|&(_, w)| w as i32);
    let starts = spatial_shapes.iter().scan(0, |start, &(h, w)| {
        let this = *start;
        *start += (h * w) as i32;
        Some(this)
    });
    heights.chain(widths).chain(starts).collect()
}

/// Threads of a launch, after checking that the kernels' 32-bit numbers can count them and reach
/// every value of an image.
fn threads(shapes: Shapes, kind: Kind) -> Result<usize> {
    let Shapes { b, s, m, d, q, .. } = shapes;
    let threads = b * q * m * Sharing::new(kind, d).group;
    for size in [threads, s * m * d] {
        if i32::try_from(size).is_err() {
            return Err(Error::argument(
                super::OP,
                "value",
                "fewer than 2³¹ values of an image, and threads",
                size.to_string(),
            ));
        }
    }
    Ok(threads as usize)
}

/// Forward pass. `value` `[B, S, M, D]`; all contiguous. Returns `[B, Q, M·D]`.
pub(super) fn forward(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    value: &Tensor,
    points: Points<'_>,
) -> Result<Tensor> {
    let Shapes { b, s, m, d, q, l, p } = shapes;
    let kind = value.kind();
    let (value, locations) = (aligned(value)?, aligned(points.locations)?);
    let output = Tensor::f_empty([b, q, m * d], (kind, value.device()))?;
    let args = Args::default().tensor(&value).tensor(&locations).tensor(points.weights);
    let args = args.tensor(points.references).tensor(points.unread).tensor(&output);
    let args = args.ints(&levels(spatial_shapes));
    let mut args = args.int(b * q * m)?.int(q)?.int(m)?.int(s)?;
    // SAFETY: the kernel's parameters in order; `Shapes` has checked the tensors' sizes.
    unsafe {
        launch(
            value.device(),
            &program(kind, [d, l, p], points.reference())?,
            "ms_deform_attn_forward",
            threads(shapes, kind)?,
            &mut args,
        )?;
    }
    Ok(output)
}

/// Backward pass: gradients of value, locations and weights. `grad` `[B, Q, M·D]`; the others as in
/// [`forward`].
pub(super) fn backward(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    grad: &Tensor,
    value: &Tensor,
    points: Points<'_>,
    needs: &[bool],
) -> Result<Gradients> {
    let Shapes { b, s, m, d, q, l, p } = shapes;
    let kind = value.kind();
    let device = value.device();
    let (grad, value, locations) =
        (aligned(&grad.f_to_kind(kind)?)?, aligned(value)?, aligned(points.locations)?);
    let weights = points.weights;
    let layout = Sums::new(kind, shapes, spatial_shapes);
    if i32::try_from(layout.positions).is_err() {
        let got = layout.positions.to_string();
        return Err(Error::argument(super::OP, "value", "fewer than 2³¹ sums of an image", got));
    }
    let sums = if needs[0] {
        // In 16 bits these are f16 whatever the kind is called.
        Some(Tensor::f_zeros([b, layout.positions, m, d], (kind, device))?)
    } else {
        None
    };
    let (grad_locations, grad_weights) = (locations.f_empty_like()?, weights.f_empty_like()?);
    let kernels = Kernels {
        program: program(kind, [d, l, p], points.reference())?,
        shapes,
        kind,
        pyramid: levels(spatial_shapes),
        sums: layout.laid_out(),
    };
    let bound = if kind != Kind::Float && sums.is_some() {
        Some(kernels.bound(&grad, weights, points.unread)?)
    } else {
        None
    };
    let args = Args::default()
        .tensor(&grad)
        .tensor(&value)
        .tensor(&locations)
        .tensor(weights)
        .tensor(points.references)
        .tensor(points.unread)
        .tensor(sums.as_ref())
        .tensor(&grad_locations)
        .tensor(&grad_weights)
        .tensor(bound.as_ref());
    let args = args.ints(&kernels.pyramid).ints(&kernels.sums);
    let mut args = args.int(b * q * m)?.int(q)?.int(m)?.int(s)?;
    let (program, threads) = (&kernels.program, threads(shapes, kind)?);
    // SAFETY: the kernel's parameters in order; `Shapes` has checked the tensors' sizes.
    unsafe { launch(device, program, "ms_deform_attn_backward", threads, &mut args)? };
    let grad_value = match (&bound, sums) {
        (Some(bound), Some(sums)) => Some(kernels.collect(&sums, bound)?),
        (_, sums) => sums,
    };
    Ok(vec![grad_value, needs[1].then_some(grad_locations), needs[2].then_some(grad_weights)])
}

/// The kernels of a backward pass, and what they know of its sizes.
struct Kernels {
    program: Program,
    shapes: Shapes,
    /// Of the values and their gradient.
    kind: Kind,
    /// `struct Levels` of the kernels.
    pyramid: Vec<i32>,
    /// `struct Sums` of the kernels.
    sums: Vec<i32>,
}

impl Kernels {
    /// The most that a query adds to any place, as the bits of an f32: sums in 16 bits are scaled by it.
    fn bound(&self, grad: &Tensor, weights: &Tensor, unread: Option<&Tensor>) -> Result<Tensor> {
        let Shapes { b, m, q, .. } = self.shapes;
        let device = grad.device();
        let threads = threads(self.shapes, self.kind)?;
        let bound = zeros(&[1], Kind::Int, device)?;
        let args = Args::default().tensor(grad).tensor(weights).tensor(unread).tensor(&bound);
        let mut args = args.int(b * q * m)?.int(m)?;
        // SAFETY: the kernel's parameters in order; `Shapes` has checked the tensors' sizes.
        unsafe { launch(device, &self.program, "ms_deform_attn_bound", threads, &mut args)? };
        Ok(bound)
    }

    /// The gradient of the values, `[B, S, M, D]`, from its scaled sums in 16 bits.
    fn collect(&self, sums: &Tensor, bound: &Tensor) -> Result<Tensor> {
        let Shapes { b, s, m, d, q, .. } = self.shapes;
        let device = sums.device();
        let grad_value = Tensor::f_empty([b, s, m, d], (self.kind, device))?;
        let width = m * d / Sharing::new(self.kind, d).vector;
        let args = Args::default().tensor(sums).tensor(bound).tensor(&grad_value);
        let args = args.ints(&self.pyramid).ints(&self.sums).int(q)?.int(s)?;
        let chunks = b * s * width;
        let mut args = args.int(width)?.int(chunks)?;
        let entry = "ms_deform_attn_collect";
        // SAFETY: as above.
        unsafe { launch(device, &self.program, entry, chunks as usize, &mut args)? };
        Ok(grad_value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn threads_share_a_head() {
        let share = |kind, d| {
            let Sharing { vector, group } = Sharing::new(kind, d);
            (vector, group)
        };
        assert_eq!(share(Kind::Float, 32), (4, 8));
        assert_eq!(share(Kind::BFloat16, 32), (8, 4));
        assert_eq!(share(Kind::Half, 7), (1, 8));
        assert_eq!(share(Kind::Float, 1), (1, 1));
        assert_eq!(share(Kind::Float, 512), (4, 32));
        assert_eq!(share(Kind::Float, 6), (2, 4));
    }

    #[test]
    fn coarse_levels_are_summed_in_copies() {
        let shapes = Shapes { b: 2, s: 22, m: 8, d: 32, q: 100, l: 2, p: 4 };
        let layout = |kind| Sums::new(kind, shapes, &[(4, 5), (1, 2)]);
        // 1600 summands over 20 pixels, and over 2.
        let in_16_bits = Sums { copies: vec![3, 26], starts: vec![0, 60], positions: 112 };
        assert_eq!(layout(Kind::BFloat16), in_16_bits);
        assert_eq!(in_16_bits.laid_out(), [3, 26, 0, 60, 112]);
        let in_f32 = Sums { copies: vec![1, 1], starts: vec![0, 20], positions: 22 };
        assert_eq!(layout(Kind::Float), in_f32);
    }

    #[test]
    fn levels_are_laid_out_as_the_structure() {
        assert_eq!(levels(&[(4, 5), (2, 3)]), [4, 2, 5, 3, 0, 20]);
    }

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for reference in [0, 2, 4] {
                let program = |d| program(kind, [d, 4, 4], reference).unwrap();
                all_compile([1, 7, 32, 36, 512].map(program));
            }
        }
    }
}
