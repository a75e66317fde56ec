//! Non-maximum suppression against torchvision's.

#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::nms;

/// A sine pattern of 40 boxes of 20 to 60 pixels.
fn boxes(kind: Kind) -> Tensor {
    let i = Tensor::arange(40, (Kind::Double, Device::Cpu));
    let corner = |f: f64| (&i * f).sin() * 40.0 + 40.0;
    let side = |f: f64| (&i * f).cos() * 20.0 + 40.0;
    let (x, y) = (corner(0.9), corner(1.7));
    Tensor::stack(&[&x, &y, &(&x + side(2.3)), &(&y + side(0.4))], 1).to_kind(kind)
}

fn kept(boxes: &Tensor, groups: &[i64], threshold: f64) -> Vec<i64> {
    at_most(boxes, groups, threshold, groups.len() as i64)
}

fn at_most(boxes: &Tensor, groups: &[i64], threshold: f64, largest: i64) -> Vec<i64> {
    let stays = nms(boxes, &Tensor::from_slice(groups), threshold, largest).unwrap();
    Vec::<i64>::try_from(stays.nonzero().flatten(0, -1)).unwrap()
}

/// torchvision 0.26:
/// ```python
/// i = torch.arange(40, dtype=torch.float64)
/// corner, side = lambda f: (i * f).sin() * 40 + 40, lambda f: (i * f).cos() * 20 + 40
/// x, y = corner(0.9), corner(1.7)
/// boxes = torch.stack([x, y, x + side(2.3), y + side(0.4)], 1)
/// scores = torch.arange(40, 0, -1, dtype=torch.float64)
/// for t in (0.2, 0.5, 0.7): print(sorted(torchvision.ops.nms(boxes, scores, t).tolist()))
/// print(sorted(torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, i.long() % 3, 0.2).tolist()))
/// ```
#[test]
fn agrees_with_torchvision() {
    for kind in [Kind::Double, Kind::Float] {
        let boxes = boxes(kind);
        assert_eq!(kept(&boxes, &[0; 40], 0.2), [0, 1, 2, 3, 4, 6, 8, 12, 21, 26, 27, 33]);
        assert_eq!(
            kept(&boxes, &[0; 40], 0.5),
            [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 22, 23, 24,
                25, 26, 27, 28, 29, 31, 34, 36, 37, 38, 39
            ]
        );
        assert_eq!(
            kept(&boxes, &[0; 40], 0.7),
            [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39
            ]
        );
        let groups: Vec<i64> = (0..40).map(|i| i % 3).collect();
        assert_eq!(
            kept(&boxes, &groups, 0.2),
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 21, 22, 26, 27, 28, 29, 30, 31, 33, 34, 37]
        );
    }
}

/// The first of equal boxes stays; a box of a negative group never does, nor does it hold another back.
#[test]
fn order_and_groups_decide() {
    let same = Tensor::from_slice(&[0f32, 0.0, 10.0, 10.0].repeat(4)).view([4, 4]);
    assert_eq!(kept(&same, &[0; 4], 0.5), [0]);
    assert_eq!(kept(&same, &[0, 1, 0, 1], 0.5), [0, 1]);
    assert_eq!(kept(&same, &[-1, 5, 5, -1], 0.5), [1]);
    // An overlap of the threshold itself is not too much.
    let half = Tensor::from_slice(&[0f32, 0.0, 10.0, 10.0, 0.0, 0.0, 10.0, 5.0]).view([2, 4]);
    assert_eq!(kept(&half, &[0, 0], 0.5), [0, 1]);
    assert_eq!(kept(&half, &[0, 0], 0.49), [0]);
}

/// What lies behind the `largest` first boxes of a group goes, whatever it overlaps.
#[test]
fn a_group_has_an_end() {
    let apart: Vec<f32> =
        (0..5).flat_map(|i| [i as f32 * 9.0, 0.0, i as f32 * 9.0 + 5.0, 5.0]).collect();
    let apart = Tensor::from_slice(&apart).view([5, 4]);
    assert_eq!(at_most(&apart, &[7, 0, 7, 7, 0], 0.5, 2), [0, 1, 2, 4]);
    assert_eq!(at_most(&apart, &[7, 0, 7, 7, 0], 0.5, 9), [0, 1, 2, 3, 4]);
    assert!(at_most(&apart, &[7, 0, 7, 7, 0], 0.5, 0).is_empty());
}

#[test]
fn no_boxes_and_boxes_without_area() {
    let none = Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
    assert!(kept(&none, &[], 0.5).is_empty());
    let points = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu));
    assert_eq!(kept(&points, &[0, 0], 0.5), [0, 1]);
}

#[test]
fn wrong_arguments_are_named() {
    let message =
        |boxes: &Tensor, groups: &Tensor| nms(boxes, groups, 0.5, 40).unwrap_err().to_string();
    let (right, groups) = (boxes(Kind::Float), Tensor::zeros([40], (Kind::Int64, Device::Cpu)));
    assert!(message(&right.narrow(1, 0, 3), &groups).contains("boxes: expected [N, 4]"));
    assert!(message(&right.to_kind(Kind::Half), &groups).contains("Float or Double"));
    assert!(message(&right, &groups.narrow(0, 0, 3)).contains("groups: expected [40] Int64"));
    let error = nms(&right, &groups, 0.5, -1).unwrap_err().to_string();
    assert!(error.contains("largest: expected 0 or more, got -1"), "{error}");
}
