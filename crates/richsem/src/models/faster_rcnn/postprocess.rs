//! Scored boxes to detections: those above a threshold, without those that overlap a better one of their class.

use tch::{Kind, Tensor};

use super::{FasterRcnnConfig, has_inside};
use crate::{boxes::Xyxy, error::Result, models::scored_box::ScoredBox, vocabulary::ClassIndex};

/// Pairs of a place and a class that are looked at first; more if they do not suffice.
const FIRST: i64 = 4096;

/// Numbers of a detection on its way to the host: score, class and corners.
const NUMBERS: i64 = 6;

/// The best detections of each image, at most `most`, by falling score; equal scores in the order of boxes and
/// classes. `scores`, `boxes` and `sizes` are those of [`super::InferenceOutput`]; `originals` are `[height,
/// width]` of the original images.
///
/// The host waits once for all images; once more for an image in which the pairs looked at first do not suffice.
///
/// # Errors
/// What libtorch refuses.
pub fn postprocess(
    (scores, boxes, sizes): (&Tensor, &Tensor, &Tensor),
    config: &FasterRcnnConfig,
    originals: &[[u32; 2]],
    most: i64,
) -> Result<Vec<Vec<ScoredBox>>> {
    let (images, places, classes) = scores.size3()?;
    let boxes = boxes.view([images, places, -1, 4]);
    let usable = has_inside(&boxes, config.variant.least_detection())
        .logical_and(&boxes.isfinite().all_dim(-1, false));
    let scores = scores.masked_fill(&usable.logical_not(), -1.0);
    let look = Look { scores, boxes, sizes: sizes.shallow_clone(), config, most };
    let total = places * classes;
    let first = total.min(FIRST);
    let found = look.found(first)?;
    let mut all = Vec::with_capacity(originals.len());
    for (image, (mut found, &[height, width])) in (0i64..).zip(found.into_iter().zip(originals)) {
        let mut looked_at = first;
        while !found.enough(looked_at == total, most, look.threshold()) {
            looked_at = total.min(looked_at * 8);
            found = look.of(image).found(looked_at)?.remove(0);
        }
        let [own_height, own_width] = found.size;
        let scale = [f64::from(width) / own_width, f64::from(height) / own_height];
        all.push(found.scaled(scale));
    }
    Ok(all)
}

/// What is looked at.
struct Look<'a> {
    /// `[B, P, C]`; −1 where there is no box that can be a detection.
    scores: Tensor,
    /// `[B, P, 1 or C, 4]`.
    boxes: Tensor,
    /// `[B, 2]`.
    sizes: Tensor,
    config: &'a FasterRcnnConfig,
    most: i64,
}

impl Look<'_> {
    /// One of the images.
    fn of(&self, image: i64) -> Self {
        let one = |x: &Tensor| x.narrow(0, image, 1);
        Self {
            scores: one(&self.scores),
            boxes: one(&self.boxes),
            sizes: one(&self.sizes),
            ..*self
        }
    }

    /// Compared as the scores are, so that one that is just as high is not above it.
    fn threshold(&self) -> f64 {
        match self.scores.kind() {
            Kind::Double => self.config.roi.score_threshold,
            _ => f64::from(self.config.roi.score_threshold as f32),
        }
    }

    /// Looks at the best `count` pairs of a place and a class of each image, and waits for what is found.
    fn found(&self, count: i64) -> Result<Vec<Found>> {
        let (images, places, classes) = self.scores.size3()?;
        let each = self.boxes.size()[2];
        let (kind, device) = (self.scores.kind(), self.scores.device());
        let all = count == places * classes;
        let (values, flat) = self.scores.view([images, -1]).topk(count, 1, true, true);
        let last = values.narrow(1, count - 1, 1);
        // Equal ones by their number, which `topk` does not promise.
        let (flat, order) = flat.sort(1, false);
        let (values, order) = values.gather(1, &order, false).sort_stable(true, 1, true);
        let flat = flat.gather(1, &order, false);
        let mut candidates = values.gt(self.threshold());
        if !all {
            // Others that are not here may be as good as the last ones.
            candidates = candidates.logical_and(&values.gt_tensor(&last));
        }
        let class = flat.remainder(classes);
        let place = flat.divide_scalar_mode(classes, "floor");
        let row = if each == 1 { place } else { place * each + &class };
        let row = row.unsqueeze(-1).expand([images, count, 4], false);
        let boxes = self.boxes.view([images, -1, 4]).gather(1, &row, false);
        let first = Tensor::arange(images, (Kind::Int64, device)).unsqueeze(1) * classes;
        let groups = (first + &class).masked_fill(&candidates.logical_not(), -1);
        let stays = torch_ext::nms(
            &boxes.view([-1, 4]),
            &groups.view([-1]),
            self.config.roi.nms,
            places.min(count),
        )?;
        let goes = stays.view([images, count]).logical_not().to_kind(Kind::Int8);
        let (goes, order) = goes.sort_stable(true, 1, false);
        let taken = count.min(self.most);
        let (goes, order) = (goes.narrow(1, 0, taken), order.narrow(1, 0, taken));
        let scores = values.gather(1, &order, false).masked_fill(&goes.gt(0), -1.0);
        let class = class.gather(1, &order, false).to_kind(kind);
        let order = order.unsqueeze(-1).expand([images, taken, 4], false);
        let boxes = boxes.gather(1, &order, false);
        let pairs = Tensor::stack(&[scores, class], 2);
        let found = Tensor::cat(&[pairs, boxes], 2).view([images, taken * NUMBERS]);
        let packed = Tensor::cat(&[&self.sizes.to_kind(kind), &last, &found], 1);
        let packed = torch_ext::download(&packed)?.wait()?.to_kind(Kind::Double);
        let packed = Vec::<f64>::try_from(packed.view([-1]))?;
        let of_image = (3 + taken * NUMBERS) as usize;
        Ok(packed.chunks_exact(of_image).map(Found::new).collect())
    }
}

/// What was found in an image.
struct Found {
    /// Height and width of the image, as the network saw it.
    size: [f64; 2],
    /// Score of the last pair that was looked at.
    last: f64,
    /// Score, class and corners of each detection, best first.
    detections: Vec<[f64; NUMBERS as usize]>,
}

impl Found {
    fn new(packed: &[f64]) -> Self {
        let (head, rest) = packed.split_at(3);
        let (rows, _) = rest.as_chunks();
        let detections = rows.iter().copied().take_while(|row| row[0] >= 0.0).collect();
        Self { size: [head[0], head[1]], last: head[2], detections }
    }

    /// Whether looking at more pairs would find nothing more.
    fn enough(&self, all: bool, most: i64, threshold: f64) -> bool {
        all || self.detections.len() as i64 >= most || self.last <= threshold
    }

    /// In pixels of the original; `scale` is how many of these a pixel has, across and down.
    fn scaled(&self, [across, down]: [f64; 2]) -> Vec<ScoredBox> {
        let detection = |&[score, class, x0, y0, x1, y1]: &[f64; 6]| ScoredBox {
            bbox: Xyxy([
                (x0 * across) as f32,
                (y0 * down) as f32,
                (x1 * across) as f32,
                (y1 * down) as f32,
            ]),
            class: ClassIndex(class as u32),
            score: score as f32,
        };
        self.detections.iter().map(detection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(threshold: f64) -> FasterRcnnConfig {
        let mut config = FasterRcnnConfig::default();
        config.roi.score_threshold = threshold;
        config
    }

    fn found(scores: &[f32], boxes: &[f32], classes: i64, most: i64) -> Vec<(u32, f32, [f32; 4])> {
        let scores = Tensor::from_slice(scores).view([1, -1, classes]);
        let boxes = Tensor::from_slice(boxes).view([1, scores.size()[1], -1]);
        let sizes = Tensor::from_slice(&[100f32, 50.0]).view([1, 2]);
        let found = postprocess((&scores, &boxes, &sizes), &config(0.1), &[[200, 50]], most);
        found.unwrap().remove(0).into_iter().map(|d| (d.class.0, d.score, d.bbox.0)).collect()
    }

    /// Twice as high originals; the second box overlaps the first by 0.8, of class 1 it is the better one.
    #[test]
    fn overlapping_boxes_of_a_class_give_one_detection() {
        let boxes = [0.0, 0.0, 10.0, 10.0, 0.0, 0.0, 10.0, 8.0f32];
        let got = found(&[0.9, 0.2, 0.5, 0.3], &boxes, 2, 300);
        let (first, second) = ([0.0, 0.0, 10.0, 20.0], [0.0, 0.0, 10.0, 16.0]);
        assert_eq!(got, [(0, 0.9, first), (1, 0.3, second)]);
        assert_eq!(found(&[0.9, 0.2, 0.5, 0.3], &boxes, 2, 1), [(0, 0.9, first)]);
    }

    /// Equal scores come in the order of the boxes. A box of no width, an empty place and what is not above the
    /// threshold are none.
    #[test]
    fn what_is_no_detection() {
        let boxes = [0.0, 0.0, 9.0, 9.0, 20.0, 0.0, 29.0, 9.0, 5.0, 5.0, 5.0, 9.0f32];
        let got = found(&[0.5, 0.5, 0.9], &boxes, 1, 300);
        assert_eq!(got.iter().map(|d| d.2[0]).collect::<Vec<_>>(), [0.0, 20.0]);
        assert!(found(&[0.1, -1.0, 0.9], &boxes, 1, 300).is_empty());
    }

    /// 1,203 classes of 40 boxes at one place: more pairs than are looked at first, and the worst class only
    /// comes after thousands that others hold back.
    #[test]
    fn more_pairs_than_are_looked_at_first() {
        let (places, classes) = (40, 1203);
        let scores: Vec<f32> = (0..places * classes)
            .map(|i| 0.2 + 0.7 * (1.0 - (i % classes) as f32 / classes as f32))
            .collect();
        let boxes = [0.0, 0.0, 10.0, 10.0f32].repeat(places as usize);
        let got = found(&scores, &boxes, classes, 2000);
        assert_eq!(got.len(), classes as usize);
        assert!(got.iter().enumerate().all(|(i, d)| d.0 == i as u32));
        assert_eq!(found(&scores, &boxes, classes, 300).len(), 300);
    }
}
