//! Which boxes are objects, which are background, and which do not count.

use tch::{Kind, Tensor};

use crate::models::faster_rcnn::RpnConfig;

/// Share of a box's area from which on it lies inside another box.
const INSIDE: f64 = 0.9;

/// How T objects' boxes and N others overlap, in one image or in each of several.
pub(super) struct Overlaps {
    /// `[…, T, N]`: intersection over union; −1 where there is no object.
    iou: Tensor,
    /// `[…, T, N]`: share of the other box that lies inside the object's.
    inside: Option<Tensor>,
}

/// What N boxes are.
pub(super) struct Labels {
    /// `[…, N]` bool: an object's.
    pub(super) positive: Tensor,
    /// `[…, N]` bool: background. What is neither does not count.
    pub(super) negative: Tensor,
    /// `[…, N]` i64: the object that each box overlaps most, the first of equal ones; 0 if there are no objects.
    pub(super) target: Tensor,
}

fn area(boxes: &Tensor) -> Tensor {
    let sides = boxes.narrow(-1, 2, 2) - boxes.narrow(-1, 0, 2);
    sides.select(-1, 0) * sides.select(-1, 1)
}

/// `[…, N]`: the largest overlap of each box, and whose it is; −1 and 0 without objects.
fn best(iou: &Tensor) -> (Tensor, Tensor) {
    let mut size = iou.size();
    if size.remove(size.len() - 2) == 0 {
        let device = iou.device();
        let none = Tensor::full(&size, -1.0, (iou.kind(), device));
        return (none, Tensor::zeros(&size, (Kind::Int64, device)));
    }
    iou.max_dim(-2, false)
}

impl Overlaps {
    /// Of `truth` `[…, T, 4]` and `boxes` `[…, N, 4]`, corners. `there` `[…, T]` bool says which of the objects
    /// there are; none: all. `inside`: whether boxes inside of an object's are asked for.
    pub(super) fn new(
        truth: &Tensor,
        boxes: &Tensor,
        there: Option<&Tensor>,
        inside: bool,
    ) -> Self {
        let (rows, columns) = (truth.unsqueeze(-2), boxes.unsqueeze(-3));
        let low = rows.narrow(-1, 0, 2).maximum(&columns.narrow(-1, 0, 2));
        let high = rows.narrow(-1, 2, 2).minimum(&columns.narrow(-1, 2, 2));
        let sides = (high - low).clamp_min(0.0);
        let shared = sides.select(-1, 0) * sides.select(-1, 1);
        let own = area(boxes).unsqueeze(-2);
        let iou = &shared / (area(truth).unsqueeze(-1) + &own - &shared);
        let iou = iou.nan_to_num(0.0, None, None);
        // A box without area has no share of it anywhere.
        let inside = inside.then(|| &shared / own.clamp_min(f64::from(f32::MIN_POSITIVE)));
        match there {
            None => Self { iou, inside },
            Some(there) => {
                let absent = there.logical_not().unsqueeze(-1);
                let fill = |of: Tensor| of.masked_fill(&absent, -1.0);
                Self { iou: fill(iou), inside: inside.map(fill) }
            }
        }
    }

    /// Those that lie inside an object's box, `[…, N]` bool; none if it was not asked for.
    fn is_inside(&self) -> Option<Tensor> {
        let inside = self.inside.as_ref()?;
        Some(inside.ge(INSIDE).any_dim(-2, false))
    }

    /// Background: what overlaps too little, but for what lies inside of an object's box if that does not count.
    fn negative(&self, below: Tensor) -> Tensor {
        match self.is_inside() {
            Some(inside) => below.logical_and(&inside.logical_not()),
            None => below,
        }
    }

    /// What anchors of one image are. Besides those that overlap an object enough, the anchors that overlap an object most
    /// are positive too, all of them where several do equally. They keep the object that they overlap most
    /// themselves. `there` `[N]` bool says which of them stand in the image, and the others do not count; none: all.
    ///
    /// Deviation: an object that no anchor overlaps has none; in both references all anchors are its own.
    pub(super) fn anchor_labels(&self, config: &RpnConfig, there: Option<&Tensor>) -> Labels {
        let of_each = match there {
            Some(there) => self.iou.masked_fill(&there.logical_not(), -1.0),
            None => self.iou.shallow_clone(),
        };
        let (iou, target) = best(&of_each);
        let mut positive = iou.ge(config.positive_iou);
        if of_each.size()[0] > 0 {
            let most = of_each.amax([1i64], true);
            let best = of_each.eq_tensor(&most).logical_and(&most.gt(0.0)).any_dim(0, false);
            positive = positive.logical_or(&best);
        }
        let mut below = iou.lt(config.negative_iou).logical_and(&positive.logical_not());
        if let Some(there) = there {
            below = below.logical_and(there);
        }
        Labels { negative: self.negative(below), positive, target }
    }

    /// What boxes are that overlap an object by `iou` or not.
    pub(super) fn box_labels(&self, iou: f64) -> Labels {
        let (best, target) = best(&self.iou);
        // Without objects nothing is one, whatever overlap is asked for.
        let positive = best.ge(iou);
        Labels { negative: self.negative(positive.logical_not()), positive, target }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn boxes(of: &[[f64; 4]]) -> Tensor {
        Tensor::from_slice(&of.concat()).view([-1, 4])
    }

    fn which(of: &Tensor) -> Vec<i64> {
        Vec::<i64>::try_from(of.nonzero().flatten(0, -1)).unwrap()
    }

    /// Two objects; the second is overlapped by none of the anchors by 0.7. Anchors 2 and 3 tie for it, and
    /// anchor 3 overlaps the *first* object more: it is positive, and answers for the first.
    #[test]
    fn every_anchor_that_ties_for_an_objects_best_is_positive_and_keeps_its_own_object() {
        let truth = boxes(&[[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]]);
        let anchors = boxes(&[
            [0.0, 0.0, 10.0, 10.0],  // the first object itself
            [0.0, 0.0, 10.0, 5.0],   // 0.5 of it: neither
            [15.0, 0.0, 25.0, 10.0], // 1/3 of the second
            [5.0, 0.0, 15.0, 10.0],  // 1/3 of both: the first comes first
            [50.0, 50.0, 60.0, 60.0],
        ]);
        let labels =
            Overlaps::new(&truth, &anchors, None, false).anchor_labels(&RpnConfig::default(), None);
        assert_eq!(which(&labels.positive), [0, 2, 3]);
        assert_eq!(which(&labels.negative), [4]);
        assert_eq!(Vec::<i64>::try_from(labels.target).unwrap(), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn an_object_that_nothing_overlaps_makes_nothing_positive() {
        let (truth, anchors) = (boxes(&[[0.0, 0.0, 1.0, 1.0]]), boxes(&[[5.0, 5.0, 6.0, 6.0]; 3]));
        let labels =
            Overlaps::new(&truth, &anchors, None, false).anchor_labels(&RpnConfig::default(), None);
        assert!(which(&labels.positive).is_empty());
        assert_eq!(which(&labels.negative), [0, 1, 2]);
    }

    #[test]
    fn without_objects_all_is_background() {
        let overlaps =
            Overlaps::new(&boxes(&[]).view([0, 4]), &boxes(&[[0.0, 0.0, 9.0, 9.0]; 2]), None, true);
        assert_eq!(which(&overlaps.anchor_labels(&RpnConfig::default(), None).negative), [0, 1]);
        let labels = overlaps.box_labels(0.0);
        assert_eq!((which(&labels.positive), which(&labels.negative)), (vec![], vec![0, 1]));
    }

    /// A coarse box of 100 × 100 pixels: a tight box inside of it has IoU 0.04, and may be the very object.
    #[test]
    fn a_proposal_inside_a_coarse_box_need_not_be_background() {
        let truth = boxes(&[[0.0, 0.0, 100.0, 100.0]]);
        let others =
            boxes(&[[40.0, 40.0, 60.0, 60.0], [90.0, 0.0, 110.0, 20.0], [0.0, 0.0, 99.0, 99.0]]);
        let labels = Overlaps::new(&truth, &others, None, false).box_labels(0.5);
        assert_eq!((which(&labels.positive), which(&labels.negative)), (vec![2], vec![0, 1]));
        let labels = Overlaps::new(&truth, &others, None, true).box_labels(0.5);
        assert_eq!((which(&labels.positive), which(&labels.negative)), (vec![2], vec![1]));
    }

    /// A place without a box overlaps nothing.
    #[test]
    fn an_empty_place_overlaps_nothing() {
        let (truth, none) = (boxes(&[[0.0, 0.0, 9.0, 9.0]]), boxes(&[[0.0; 4]]));
        let labels = Overlaps::new(&truth, &none, None, true).box_labels(0.5);
        assert_eq!(which(&labels.negative), [0]);
    }

    /// Several images at once, with places that hold no object: what each image gives alone.
    #[test]
    fn images_side_by_side_are_as_each_alone() {
        let (a, b) = ([0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]);
        let others = boxes(&[a, b, [0.0, 0.0, 10.0, 5.0], [2.0, 2.0, 4.0, 4.0], [0.0; 4]]);
        let none = [0.0; 4];
        let truth = boxes(&[b, a, none, none, none, none]).view([2, 3, 4]);
        let there = Tensor::from_slice(&[true, true, false, false, false, false]).view([2, 3]);
        let both = others.expand([2, 5, 4], false);
        let iou = 0.0;
        let got = Overlaps::new(&truth, &both, Some(&there), true).box_labels(iou);
        for (image, count) in [(0, 2), (1, 0)] {
            let own = truth.get(image).narrow(0, 0, count);
            let alone = Overlaps::new(&own, &others, None, true).box_labels(iou);
            assert_eq!(got.positive.get(image), alone.positive);
            assert_eq!(got.negative.get(image), alone.negative);
            assert_eq!(got.target.get(image), alone.target);
        }
    }
}
