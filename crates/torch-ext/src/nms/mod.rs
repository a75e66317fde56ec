//! Non-maximum suppression, as torchvision computes it: of boxes that overlap too much, the best stays.

mod cpu;
pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::{Error, Result};

const OP: &str = "nms";

/// Which boxes stay. From the first box to the last, a box goes if it overlaps one of its group that stays by
/// more than `threshold` (intersection over union). So equal scores are decided by the order that the caller
/// gives the boxes. Neither device waits for the host nor the host for the device.
///
/// `largest` is how many boxes a group has at most; if one has more, those behind them go. On a GPU it decides how
/// much memory is needed: `largest` / 8 bytes for each box.
///
/// # Shapes
/// - `boxes`: `[N, 4]`, x0, y0, x1, y1, in f32 or f64; the best first
/// - `groups`: `[N]` i64: boxes of different groups do not compete; a box of a negative group goes
/// - returns `[N]` bool, on the device of `boxes`
///
/// # Errors
/// When shapes, kinds or devices disagree; on a GPU N · `largest` / 64 from 2³¹ on.
pub fn nms(boxes: &Tensor, groups: &Tensor, threshold: f64, largest: i64) -> Result<Tensor> {
    let got = |x: &Tensor| format!("{:?} {:?} on {:?}", x.size(), x.kind(), x.device());
    let (&[n, 4], Kind::Float | Kind::Double) = (boxes.size().as_slice(), boxes.kind()) else {
        return Err(Error::argument(OP, "boxes", "[N, 4] Float or Double", got(boxes)));
    };
    let device = boxes.device();
    if groups.size() != [n] || groups.kind() != Kind::Int64 || groups.device() != device {
        let expected = format!("[{n}] Int64 on {device:?}");
        return Err(Error::argument(OP, "groups", expected, got(groups)));
    }
    if largest < 0 {
        return Err(Error::argument(OP, "largest", "0 or more", largest.to_string()));
    }
    let largest = largest.min(n);
    let boxes = boxes.detach().f_contiguous()?;
    if device.is_cuda() {
        return cuda::stays(&boxes, groups, threshold, largest);
    }
    let groups = Vec::<i64>::try_from(groups.f_contiguous()?)?;
    let stays = match boxes.kind() {
        Kind::Double => cpu::stays::<f64>(&boxes, &groups, threshold, largest as usize)?,
        _ => cpu::stays::<f32>(&boxes, &groups, threshold, largest as usize)?,
    };
    Ok(Tensor::from_slice(&stays))
}
