//! Logits and boxes to detections: the largest `max_detections` of query × class.

use tch::Tensor;

use crate::{
    boxes::Xyxy,
    error::Result,
    models::{layers::to_xyxy, scored_box::ScoredBox},
    vocabulary::ClassIndex,
};

/// The best (query, class) pairs of each image, by falling score; a query can give several. Logits of
/// −∞ are of queries that were left over, and give none.
///
/// `sizes` are `[height, width]` of the original images.
///
/// # Shapes
/// `[B, Q, C]`, and `[B, Q, 4]` cxcywh relative to the unpadded image
///
/// # Errors
/// What libtorch refuses.
pub fn postprocess(
    logits: &Tensor,
    boxes: &Tensor,
    sizes: &[[u32; 2]],
    max_detections: i64,
) -> Result<Vec<Vec<ScoredBox>>> {
    let (b, q, c) = logits.size3()?;
    let count = max_detections.min(q * c);
    // By probability, as the reference: equal ones are as good.
    // Logits may be a part of a wider tensor, which no view can flatten.
    let logits = logits.reshape([b, q * c]);
    let (scores, flat) = logits.sigmoid().topk(count, 1, true, true);
    let logits = logits.gather(1, &flat, false);
    let logits = Vec::<f32>::try_from(logits.flatten(0, -1))?;
    let queries = flat.divide_scalar_mode(c, "floor").to_kind(tch::Kind::Int64);
    let classes = flat.remainder(c);
    let boxes = boxes.gather(1, &queries.unsqueeze(-1).expand([-1, -1, 4], false), false);
    let scores = Vec::<f32>::try_from(scores.flatten(0, -1))?;
    let classes = Vec::<i64>::try_from(classes.flatten(0, -1))?;
    let boxes = Vec::<f32>::try_from(to_xyxy(&boxes).flatten(0, -1))?;
    let count = count as usize;
    let image = |(i, &[height, width]): (usize, &[u32; 2])| {
        (i * count..(i + 1) * count)
            .filter(|&at| logits[at] > f32::NEG_INFINITY)
            .map(|at| {
                let (w, h) = (width as f32, height as f32);
                let [x0, y0, x1, y1] = std::array::from_fn(|k| boxes[at * 4 + k]);
                ScoredBox {
                    bbox: Xyxy([x0 * w, y0 * h, x1 * w, y1 * h]),
                    class: ClassIndex(classes[at] as u32),
                    score: scores[at],
                }
            })
            .collect()
    };
    Ok(sizes.iter().enumerate().map(image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_pairs_come_first_in_original_pixels() {
        let logits = Tensor::from_slice(&[0f32, 2.0, -1.0, 3.0, -9.0, -9.0]).view([1, 2, 3]);
        let boxes =
            Tensor::from_slice(&[0.5f32, 0.5, 0.5, 1.0, 0.25, 0.25, 0.5, 0.5]).view([1, 2, 4]);
        let found = postprocess(&logits, &boxes, &[[100, 200]], 3).unwrap().remove(0);
        let pairs: Vec<_> = found.iter().map(|d| (d.class.0, d.bbox.0)).collect();
        assert_eq!(
            pairs,
            [
                (0, [0.0, 0.0, 100.0, 50.0]),
                (1, [50.0, 0.0, 150.0, 100.0]),
                (0, [50.0, 0.0, 150.0, 100.0])
            ]
        );
        assert!((f64::from(found[0].score) - 1.0 / (1.0 + (-3f64).exp())).abs() < 1e-6);
        // A part of a wider tensor.
        let part = Tensor::cat(&[&logits, &logits], 2).narrow(2, 0, 3);
        assert_eq!(postprocess(&part, &boxes, &[[100, 200]], 3).unwrap(), [found]);
        // Fewer pairs than asked for.
        assert_eq!(postprocess(&logits, &boxes, &[[100, 200]], 300).unwrap()[0].len(), 6);
    }
}
