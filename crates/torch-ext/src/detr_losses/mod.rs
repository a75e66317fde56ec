//! The losses of a set-prediction detector (DETR, arXiv 2005.12872) on CUDA, each as one kernel:
//! composed of libtorch's operations they are some five hundred small ones a step, and the device
//! waits for the host to start them. Their plain versions are in `richsem::losses`.
//!
//! Labels, classes and rows lie in the device's memory, and the host does not wait to look at them: the
//! kernels do, and what is out of range becomes NaN. On the CPU libtorch refuses such an index.

use tch::{Device, Kind, Tensor};

use crate::cuda::compile::{Program, with_values};
use crate::cuda::launch::{Args, BLOCK, launch};
use crate::function::custom_function;
use crate::{Error, Result, device_name};

pub(crate) fn program() -> Program {
    Program { name: "detr_losses", source: with_values!("kernels.cu"), defines: vec![("KIND", 0)] }
}

/// Weights of the matching's costs, and the focal cost's alpha; its gamma is 2.
#[derive(Debug, Clone, Copy)]
pub struct CostWeights {
    /// Weight of the focal class cost.
    pub class: f64,
    /// Weight of the L1 distance of the boxes.
    pub l1: f64,
    /// Weight of the generalised IoU, which is subtracted.
    pub giou: f64,
    /// Weight of positives in the class cost, 0 to 1; negatives have the rest.
    pub alpha: f64,
}

/// What a matching costs: `class · (positive − negative focal cost) + l1 · L1 − giou · GIoU`.
///
/// # Shapes
/// `logits` `[S, B, Q, C]`, `boxes` `[S, B, Q, 4]` (cxcywh), `labels` `[B, T]` i64, `truth`
/// `[B, T, 4]` → `[S, B, T, Q]` f32, without a gradient. NaN where a label is not in `0..C`
///
/// # Errors
/// Tensors that are not on one CUDA device, or of other shapes and kinds.
pub fn matching_cost(
    logits: &Tensor,
    boxes: &Tensor,
    labels: &Tensor,
    truth: &Tensor,
    weights: CostWeights,
) -> Result<Tensor> {
    const OP: &str = "matching_cost";
    let &[s, b, q, c] = logits.size().as_slice() else {
        return wrong(OP, "logits", "[S, B, Q, C]", logits);
    };
    let t = labels.size().last().copied().unwrap_or(0);
    let device = logits.device();
    let logits = given(OP, "logits", logits, &[s, b, q, c], Kind::Float, device)?;
    let boxes = given(OP, "boxes", boxes, &[s, b, q, 4], Kind::Float, device)?;
    let labels = given(OP, "labels", labels, &[b, t], Kind::Int64, device)?;
    let truth = given(OP, "truth", truth, &[b, t, 4], Kind::Float, device)?;
    let cost = Tensor::f_empty([s, b, t, q], (Kind::Float, device))?;
    let pairs = s * b * q * t;
    let args = Args::default().tensor(&logits).tensor(&boxes).tensor(&labels).tensor(&truth);
    let args = args.tensor(&cost).int(pairs)?.int(b)?.int(q)?.int(c)?.int(t)?;
    let CostWeights { class, l1, giou, alpha } = weights;
    let mut args =
        [class, l1, giou, alpha].iter().fold(args, |args, &weight| args.float(weight as f32));
    // SAFETY: the kernel's parameters in order; shapes, kinds and devices are checked above, labels in
    // the kernel.
    unsafe { launch(device, &program(), OP, pairs as usize, &mut args)? };
    Ok(cost)
}

/// L1 distance and `1 − GIoU` of pairs of boxes.
///
/// # Shapes
/// `boxes` `[R, 4]` (cxcywh), `slots` `[N]` i64, a row of `boxes` for each pair, `truth` `[N, 4]` →
/// `[2, N]`. A slot that is no row gives NaN, and no gradient
///
/// # Errors
/// Tensors that are not on one CUDA device, or of other shapes and kinds.
pub fn box_losses(boxes: &Tensor, slots: &Tensor, truth: &Tensor) -> Result<Tensor> {
    const OP: &str = "box_losses";
    let (r, n) = (boxes.size().first().copied().unwrap_or(0), slots.numel() as i64);
    let device = boxes.device();
    let boxes = given(OP, "boxes", boxes, &[r, 4], Kind::Float, device)?;
    let slots = given(OP, "slots", slots, &[n], Kind::Int64, device)?;
    let truth = given(OP, "truth", truth, &[n, 4], Kind::Float, device)?;
    custom_function(
        OP,
        &[&boxes],
        &[&boxes, &slots, &truth],
        || {
            let losses = Tensor::f_empty([2, n], (Kind::Float, device))?;
            let args = Args::default().tensor(&boxes).tensor(&slots).tensor(&truth);
            let mut args = args.tensor(&losses).int(n)?.int(r)?;
            // SAFETY: as above; the kernel checks the slots.
            unsafe {
                launch(device, &program(), "box_losses_forward", n as usize, &mut args)?;
            }
            Ok(losses)
        },
        move |args| {
            let [boxes, slots, truth] = args.saved else {
                unreachable!("box_losses saves three tensors");
            };
            let (grad, grad_boxes) = (args.grad.f_contiguous()?, boxes.f_zeros_like()?);
            let args = Args::default().tensor(&grad).tensor(boxes).tensor(slots).tensor(truth);
            let mut args = args.tensor(&grad_boxes).int(n)?.int(r)?;
            // SAFETY: as above.
            unsafe {
                launch(device, &program(), "box_losses_backward", n as usize, &mut args)?;
            }
            Ok(vec![Some(grad_boxes)])
        },
    )
}

/// Which logits a focal loss looks at.
#[derive(Debug, Clone, Copy)]
pub struct FocalTargets<'a> {
    /// `[S, B, Q]` i64: the class of each query, −1 for none.
    pub labels: &'a Tensor,
    /// `[S, W]` i64, each class once a set: those that a set's terms look at; none: all C.
    pub classes: Option<&'a Tensor>,
    /// `[B, C]` f32: weights of the terms of queries that are not of the class; none: 1.
    pub known: Option<&'a Tensor>,
}

/// Sums of sigmoid focal losses (RetinaNet, arXiv 1708.02002, equation 5), by set.
///
/// # Shapes
/// `logits` `[S, B, Q, C]` → `[S]`. NaN for a set with a label that is not in `-1..C` or a class that is
/// not in `0..C`
///
/// # Errors
/// Tensors that are not on one CUDA device, or of other shapes and kinds.
pub fn focal_sums(
    logits: &Tensor,
    targets: FocalTargets<'_>,
    alpha: f64,
    gamma: f64,
) -> Result<Tensor> {
    const OP: &str = "focal_sums";
    let &[s, b, q, c] = logits.size().as_slice() else {
        return wrong(OP, "logits", "[S, B, Q, C]", logits);
    };
    let device = logits.device();
    let logits = given(OP, "logits", logits, &[s, b, q, c], Kind::Float, device)?;
    let labels = given(OP, "labels", targets.labels, &[s, b, q], Kind::Int64, device)?;
    let width = targets.classes.map_or(c, |classes| classes.size().last().copied().unwrap_or(0));
    let classes = targets
        .classes
        .map(|classes| given(OP, "classes", classes, &[s, width], Kind::Int64, device))
        .transpose()?;
    let known =
        targets.known.map(|k| given(OP, "known", k, &[b, c], Kind::Float, device)).transpose()?;
    let blocks = (b * q * width + BLOCK as i64 - 1) / BLOCK as i64;
    let threads = (s * blocks) as usize * BLOCK;
    let sizes = move |args: Args| -> Result<Args> {
        let args = args.int(blocks)?.int(b)?.int(q)?.int(c)?.int(width)?;
        Ok(args.float(alpha as f32).float(gamma as f32))
    };
    let saved: Vec<&Tensor> = [Some(&logits), Some(&labels), classes.as_ref(), known.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    let (with_classes, with_known) = (classes.is_some(), known.is_some());
    custom_function(
        OP,
        &[&logits],
        &saved,
        || {
            let sums = Tensor::f_empty([s, blocks], (Kind::Float, device))?;
            let args = Args::default().tensor(&logits).tensor(&labels).tensor(classes.as_ref());
            let mut args = sizes(args.tensor(known.as_ref()).tensor(&sums))?;
            // SAFETY: as above; the kernel checks labels and classes.
            unsafe { launch(device, &program(), "focal_forward", threads, &mut args)? };
            Ok(sums.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
        },
        move |args| {
            let mut saved = args.saved.iter();
            let mut next = |there: bool| if there { saved.next() } else { None };
            let (logits, labels) = (next(true), next(true));
            let (classes, known) = (next(with_classes), next(with_known));
            let logits = logits.ok_or_else(|| Error::Cuda("focal_sums saves its logits".into()))?;
            let grad = args.grad.f_contiguous()?;
            // Classes that are not looked at keep a zero.
            let grad_logits =
                if with_classes { logits.f_zeros_like()? } else { logits.f_empty_like()? };
            let args = Args::default().tensor(&grad).tensor(logits).tensor(labels);
            let args = args.tensor(classes).tensor(known).tensor(&grad_logits);
            let mut args = sizes(args)?;
            // SAFETY: as above.
            unsafe { launch(device, &program(), "focal_backward", threads, &mut args)? };
            Ok(vec![Some(grad_logits)])
        },
    )
}

fn wrong<T>(op: &'static str, argument: &'static str, expected: &str, got: &Tensor) -> Result<T> {
    let got = format!("{:?} {:?} on {:?}", got.size(), got.kind(), got.device());
    Err(Error::argument(op, argument, expected, got))
}

/// The tensor, contiguous, if it is what the kernel reads, on a CUDA device.
fn given(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    shape: &[i64],
    kind: Kind,
    device: Device,
) -> Result<Tensor> {
    if tensor.size() != shape
        || tensor.kind() != kind
        || tensor.device() != device
        || !device.is_cuda()
    {
        let place = if device.is_cuda() { device_name(device) } else { "CUDA".to_owned() };
        return wrong(op, argument, &format!("{shape:?} {kind:?} on {place}"), tensor);
    }
    // Boxes are read as vectors of four: every allocation and every row of four starts at 16 bytes,
    // a view may not.
    crate::cuda::launch::aligned(tensor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn the_kernels_compile() {
        all_compile([program()]);
    }

    #[test]
    fn the_host_is_refused() {
        let boxes = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        let slots = Tensor::zeros([2], (Kind::Int64, Device::Cpu));
        let error = box_losses(&boxes, &slots, &boxes.narrow(0, 0, 2)).unwrap_err().to_string();
        assert!(error.contains("boxes: expected [3, 4] Float on CUDA"), "{error}");
    }
}
