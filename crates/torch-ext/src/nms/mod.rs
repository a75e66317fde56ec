//! Non-maximum suppression, as torchvision computes it: of boxes that overlap too much, the best stays.

mod cpu;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

const OP: &str = "nms";

/// Which boxes stay. From the first box to the last, a box goes if it overlaps one of its group that stays by
/// more than `threshold` (intersection over union). So equal scores are decided by the order that the caller
/// gives the boxes.
///
/// The host computes it. Where the boxes are on a GPU, it waits for them.
///
/// # Shapes
/// - `boxes`: `[N, 4]`, x0, y0, x1, y1, in f32 or f64; the best first
/// - `groups`: `[N]` i64: boxes of different groups do not compete; a box of a negative group goes
/// - returns `[N]` bool, on the device of `boxes`
///
/// # Errors
/// When shapes, kinds or devices disagree.
pub fn nms(boxes: &Tensor, groups: &Tensor, threshold: f64) -> Result<Tensor> {
    let got = |x: &Tensor| format!("{:?} {:?} on {:?}", x.size(), x.kind(), x.device());
    let (&[n, 4], Kind::Float | Kind::Double) = (boxes.size().as_slice(), boxes.kind()) else {
        return Err(Error::argument(OP, "boxes", "[N, 4] Float or Double", got(boxes)));
    };
    let device = boxes.device();
    if groups.size() != [n] || groups.kind() != Kind::Int64 || groups.device() != device {
        let expected = format!("[{n}] Int64 on {device:?}");
        return Err(Error::argument(OP, "groups", expected, got(groups)));
    }
    let host =
        |x: &Tensor| -> Result<Tensor> { Ok(x.detach().f_to_device(Device::Cpu)?.f_contiguous()?) };
    let (on_host, groups) = (host(boxes)?, Vec::<i64>::try_from(host(groups)?)?);
    let stays = match boxes.kind() {
        Kind::Double => cpu::stays::<f64>(&on_host, &groups, threshold)?,
        _ => cpu::stays::<f32>(&on_host, &groups, threshold)?,
    };
    Ok(crate::upload(&Tensor::from_slice(&stays), device))
}
