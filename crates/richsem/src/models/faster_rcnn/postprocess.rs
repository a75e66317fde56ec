//! Scored boxes to detections: those above a threshold, without those that overlap a better one of their class.

use tch::{Device, Kind, Tensor};

use super::{FasterRcnnConfig, has_inside};
use crate::{boxes::Xyxy, error::Result, models::scored_box::ScoredBox, vocabulary::ClassIndex};

/// Pairs of a place and a class that are looked at first; more if they do not suffice.
const FIRST: i64 = 4096;

/// The best detections of each image, at most `most`, by falling score; equal scores in the order of boxes and
/// classes. `scores`, `boxes` and `sizes` are those of [`super::InferenceOutput`]; `originals` are `[height,
/// width]` of the original images.
///
/// # Errors
/// What libtorch refuses.
pub fn postprocess(
    (scores, boxes, sizes): (&Tensor, &Tensor, &Tensor),
    config: &FasterRcnnConfig,
    originals: &[[u32; 2]],
    most: i64,
) -> Result<Vec<Vec<ScoredBox>>> {
    let sizes = Vec::<f64>::try_from(sizes.to_kind(Kind::Double).flatten(0, -1))?;
    let image = |(i, &[height, width]): (usize, &[u32; 2])| {
        let scale = [f64::from(width) / sizes[2 * i + 1], f64::from(height) / sizes[2 * i]];
        one((&scores.get(i as i64), &boxes.get(i as i64)), config, scale, most)
    };
    originals.iter().enumerate().map(image).collect()
}

/// `scores` `[P, C]`, `boxes` `[P, 4]` or `[P, 4 C]`; `scale` is pixels of the original for each of these, across
/// and down.
fn one(
    (scores, boxes): (&Tensor, &Tensor),
    config: &FasterRcnnConfig,
    scale: [f64; 2],
    most: i64,
) -> Result<Vec<ScoredBox>> {
    let (places, classes) = scores.size2()?;
    // Compared as the scores are, so that one that is just as high is not above it.
    let threshold = match scores.kind() {
        Kind::Double => config.roi.score_threshold,
        _ => f64::from(config.roi.score_threshold as f32),
    };
    let boxes = boxes.view([places, -1, 4]);
    let usable = has_inside(&boxes, config.variant.least_detection())
        .logical_and(&boxes.isfinite().all_dim(-1, false));
    let scores = scores.masked_fill(&usable.logical_not(), -1.0).reshape([-1]);
    let total = places * classes;
    let mut looked_at = total.min(FIRST);
    loop {
        let (values, flat) = scores.topk(looked_at, 0, true, true);
        let values = Vec::<f64>::try_from(values.to_kind(Kind::Double))?;
        let flat = Vec::<i64>::try_from(flat)?;
        let all = looked_at == total;
        let last = values.last().copied().unwrap_or(0.0);
        // Where more follow, others may be as good as the last ones here.
        let is_candidate = |&(value, _): &(f64, i64)| value > threshold && (all || value > last);
        let mut candidates: Vec<(f64, i64)> =
            values.into_iter().zip(flat).filter(is_candidate).collect();
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let found = distinct(&candidates, &boxes, classes, config.roi.nms, most)?;
        if all || found.len() as i64 >= most || last <= threshold {
            return scaled(&found, &boxes, classes, scale);
        }
        looked_at = total.min(looked_at * 8);
    }
}

/// The first `most` candidates that overlap no better one of their class.
fn distinct(
    candidates: &[(f64, i64)],
    boxes: &Tensor,
    classes: i64,
    threshold: f64,
    most: i64,
) -> Result<Vec<(f64, i64)>> {
    let flat: Vec<i64> = candidates.iter().map(|&(_, at)| at).collect();
    let own = boxes_of(&flat, boxes, classes);
    let groups: Vec<i64> = flat.iter().map(|at| at % classes).collect();
    let groups = torch_ext::upload(&Tensor::from_slice(&groups), boxes.device());
    let stays = Vec::<bool>::try_from(torch_ext::nms(&own, &groups, threshold)?)?;
    let kept = candidates.iter().zip(stays).filter(|&(_, stays)| stays).map(|(&one, _)| one);
    Ok(kept.take(most as usize).collect())
}

/// `[N, 4]`: the boxes of pairs of a place and a class.
fn boxes_of(flat: &[i64], boxes: &Tensor, classes: i64) -> Tensor {
    let each = boxes.size()[1];
    let row = |at: &i64| (at / classes) * each + if each == 1 { 0 } else { at % classes };
    let rows: Vec<i64> = flat.iter().map(row).collect();
    let rows = torch_ext::upload(&Tensor::from_slice(&rows), boxes.device());
    boxes.reshape([-1, 4]).index_select(0, &rows)
}

fn scaled(
    found: &[(f64, i64)],
    boxes: &Tensor,
    classes: i64,
    [across, down]: [f64; 2],
) -> Result<Vec<ScoredBox>> {
    let flat: Vec<i64> = found.iter().map(|&(_, at)| at).collect();
    let own = boxes_of(&flat, boxes, classes).to_device(Device::Cpu).to_kind(Kind::Double);
    let corners = Vec::<f64>::try_from(own.flatten(0, -1))?;
    let detection = |(&(score, at), corners): (&(f64, i64), &[f64])| ScoredBox {
        bbox: Xyxy([
            (corners[0] * across) as f32,
            (corners[1] * down) as f32,
            (corners[2] * across) as f32,
            (corners[3] * down) as f32,
        ]),
        class: ClassIndex((at % classes) as u32),
        score: score as f32,
    };
    Ok(found.iter().zip(corners.chunks_exact(4)).map(detection).collect())
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
