//! Boxes of one image that are one object: suppression within a class, and detection in tiles.
//!
//! A DETR that was trained for long seldom needs suppression: queries are matched to objects one to one in training, so that a second box
//! of an object is learnt to score low (arXiv 2005.12872, section 3.1). It is for detectors that are trained
//! little, which find objects twice, and for what several tiles see of one object.

use std::collections::HashMap;

use image::{RgbImage, imageops};

use crate::{
    boxes::Xyxy, detections::Detection, detector::Detector, error::Result,
    models::scored_box::ScoredBox,
};

/// Share of the smaller of two boxes that lies in the other from which on tiles have seen one object: of an
/// object at the edge of a tile, the tile sees a part.
const SAME_OBJECT: f32 = 0.6;

/// Leaves out boxes that overlap a better one of their class by more than `iou`, greedily, best first. The rest
/// is sorted, the best first.
#[must_use]
pub fn suppress(found: Vec<ScoredBox>, iou: f32) -> Vec<ScoredBox> {
    greedy(found, |better, other| overlap(better, other).iou() > iou)
}

/// Overlap from which on two detections of a class are taken for one object found twice, and what is suggested for
/// [`suppress`].
pub const TWINS: f32 = 0.7;

/// Of the `most` best detections of all images together: how many overlap a better one of their image and class by more
/// than [`TWINS`], and of how many.
#[must_use]
pub fn twins(detections: &[Detection], most: usize) -> [usize; 2] {
    let mut best: Vec<&Detection> = detections.iter().collect();
    best.sort_by(|a, b| b.score.total_cmp(&a.score));
    best.truncate(most);
    let mut seen: HashMap<_, Vec<Xyxy>> = HashMap::new();
    let mut count = 0;
    for found in &best {
        let better = seen.entry((found.image_id, found.category_id)).or_default();
        let own = found.bbox.to_xyxy();
        count += usize::from(better.iter().any(|other| overlap(other, &own).iou() > TWINS));
        better.push(own);
    }
    [count, best.len()]
}

fn greedy(mut found: Vec<ScoredBox>, is_same: impl Fn(&Xyxy, &Xyxy) -> bool) -> Vec<ScoredBox> {
    // Stable: of equals the first stays.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<ScoredBox> = Vec::with_capacity(found.len());
    for candidate in found {
        let covered = kept.iter().any(|better| {
            better.class == candidate.class && is_same(&better.bbox, &candidate.bbox)
        });
        if !covered {
            kept.push(candidate);
        }
    }
    kept
}

/// Areas of two boxes and of what they share.
struct Overlap {
    shared: f32,
    areas: [f32; 2],
}

impl Overlap {
    fn iou(&self) -> f32 {
        let union = self.areas[0] + self.areas[1] - self.shared;
        if union > 0.0 { self.shared / union } else { 0.0 }
    }

    fn of_smaller(&self) -> f32 {
        let smaller = self.areas[0].min(self.areas[1]);
        if smaller > 0.0 { self.shared / smaller } else { 0.0 }
    }
}

fn overlap(Xyxy(a): &Xyxy, Xyxy(b): &Xyxy) -> Overlap {
    let area = |x: &[f32; 4]| (x[2] - x[0]).max(0.0) * (x[3] - x[1]).max(0.0);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    Overlap { shared: width * height, areas: [area(a), area(b)] }
}

/// How an image is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiling {
    /// The side of a tile, in pixels of the image; at least 1.
    pub side: u32,
    /// Share of a tile that its neighbour has, too: from 0 to below 1. Objects up to that size are whole in one
    /// of them.
    pub overlap: f32,
}

impl Tiling {
    /// The tiles of an image: x, y, width, height, by rows. They cover all of it, and none is beyond it. An image
    /// that is no larger than a tile has none: it is seen whole.
    #[must_use]
    pub fn tiles(&self, width: u32, height: u32) -> Vec<[u32; 4]> {
        let side = self.side.max(1);
        if width <= side && height <= side {
            return Vec::new();
        }
        let starts = |length: u32| {
            if length <= side {
                return vec![0];
            }
            let step = f64::from(side) * (1.0 - f64::from(self.overlap.clamp(0.0, 0.95)));
            let count = (f64::from(length - side) / step.max(1.0)).ceil() as u32 + 1;
            // Evenly: the last one ends with the image.
            let at = |i: u32| {
                (f64::from(length - side) * f64::from(i) / f64::from((count - 1).max(1))).round()
                    as u32
            };
            (0..count).map(at).collect::<Vec<_>>()
        };
        let columns = starts(width);
        starts(height)
            .into_iter()
            .flat_map(|y| {
                columns.iter().map(move |&x| [x, y, side.min(width - x), side.min(height - y)])
            })
            .collect()
    }
}

/// What becomes of an image's boxes before they count. Nothing, by default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Merging {
    /// Detects also in tiles ([`detect_in_tiles`]).
    pub tiling: Option<Tiling>,
    /// Leaves out boxes that overlap a better one of their class by more ([`suppress`]); 0 to 1.
    pub iou: Option<f32>,
}

impl Merging {
    /// The boxes of `image`, of which the network found `boxes`. Without the image there are no tiles. `batch` tiles
    /// go through the detector at once.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn boxes(
        &self,
        detector: &Detector,
        image: Option<&RgbImage>,
        boxes: Vec<ScoredBox>,
        batch: usize,
    ) -> Result<Vec<ScoredBox>> {
        let mut boxes = boxes;
        if let (Some(tiling), Some(image)) = (self.tiling, image) {
            boxes = detect_in_tiles(detector, image, boxes, tiling, batch)?;
        }
        Ok(match self.iou {
            Some(iou) => suppress(boxes, iou),
            None => boxes,
        })
    }

    /// In words, as of results that it changed; none where it changes nothing.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let tiles = self.tiling.map(|Tiling { side, overlap }| {
            format!("also in tiles of {side} pixels, of which neighbours share {overlap}")
        });
        let iou = self.iou.map(|iou| {
            format!("without boxes that overlap a better one of their class by more than {iou}")
        });
        let words: Vec<String> = [tiles, iou].into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// What a detector finds in the tiles of an image, joined with what it found in the whole: large objects are
/// seen there, small ones in the tiles. Of boxes of one class that are one object (0.6 of the smaller lies in
/// the other) the best stays. `batch` tiles go through the detector at once.
///
/// # Errors
/// What libtorch refuses.
pub fn detect_in_tiles(
    detector: &Detector,
    image: &RgbImage,
    whole: Vec<ScoredBox>,
    tiling: Tiling,
    batch: usize,
) -> Result<Vec<ScoredBox>> {
    let tiles = tiling.tiles(image.width(), image.height());
    if tiles.is_empty() {
        return Ok(whole);
    }
    let mut found = whole;
    for tiles in tiles.chunks(batch.max(1)) {
        let cut = |&[x, y, width, height]: &[u32; 4]| {
            imageops::crop_imm(image, x, y, width, height).to_image()
        };
        let images: Vec<RgbImage> = tiles.iter().map(cut).collect();
        for (&[x, y, ..], boxes) in tiles.iter().zip(detector.detect_images(&images)?) {
            let (x, y) = (x as f32, y as f32);
            found.extend(boxes.into_iter().map(|mut found| {
                let Xyxy([x0, y0, x1, y1]) = found.bbox;
                found.bbox = Xyxy([x0 + x, y0 + y, x1 + x, y1 + y]);
                found
            }));
        }
    }
    Ok(greedy(found, |better, other| overlap(better, other).of_smaller() > SAME_OBJECT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boxes::Xywh,
        vocabulary::{CategoryId, ClassIndex},
    };

    fn scored(class: u32, score: f32, bbox: [f32; 4]) -> ScoredBox {
        ScoredBox { bbox: Xyxy(bbox), class: ClassIndex(class), score }
    }

    /// By hand: [0,0,10,10] and [0,0,10,8] share 80 of 100: IoU 0.8.
    #[test]
    fn a_better_box_of_the_class_suppresses() {
        let found = vec![
            scored(0, 0.5, [0.0, 0.0, 10.0, 8.0]),
            scored(0, 0.9, [0.0, 0.0, 10.0, 10.0]),
            scored(1, 0.4, [0.0, 0.0, 10.0, 10.0]),
            scored(0, 0.3, [20.0, 0.0, 30.0, 10.0]),
            scored(0, 0.2, [5.0, 5.0, 5.0, 5.0]),
        ];
        let scores = |iou| -> Vec<f32> {
            suppress(found.clone(), iou).iter().map(|found| found.score).collect()
        };
        assert_eq!(scores(0.7), [0.9, 0.4, 0.3, 0.2]);
        assert_eq!(scores(0.8), [0.9, 0.5, 0.4, 0.3, 0.2], "more than, not from");
        assert!(suppress(Vec::new(), 0.5).is_empty());
    }

    #[test]
    fn objects_that_are_found_twice_are_counted_among_the_best() {
        let found = |image_id, class, score, bbox| Detection {
            image_id,
            category_id: CategoryId(class),
            bbox: Xywh(bbox),
            score,
        };
        let all = [
            found(1, 1, 0.9, [0.0, 0.0, 10.0, 10.0]),
            found(1, 1, 0.8, [0.0, 0.0, 10.0, 8.0]),
            found(1, 1, 0.7, [0.0, 0.0, 10.0, 9.0]),
            // Another class, another image, another place.
            found(1, 2, 0.6, [0.0, 0.0, 10.0, 10.0]),
            found(2, 1, 0.5, [0.0, 0.0, 10.0, 10.0]),
            found(1, 1, 0.4, [0.0, 0.0, 10.0, 5.0]),
            found(1, 1, 0.3, [0.0, 0.0, 10.0, 10.0]),
        ];
        assert_eq!(twins(&all, 6), [2, 6]);
        assert_eq!(twins(&all, 100), [3, 7]);
        assert_eq!(twins(&[], 5), [0, 0]);
    }

    #[test]
    fn what_changes_results_says_so() {
        let tiling = Some(Tiling { side: 640, overlap: 0.2 });
        assert_eq!(Merging::default().in_words(), None);
        let words = Merging { tiling, iou: Some(0.7) }.in_words().unwrap_or_default();
        assert!(
            words.contains("640 pixels")
                && words.contains("share 0.2")
                && words.contains("more than 0.7")
        );
    }

    #[test]
    fn tiles_cover_an_image_and_stay_in_it() {
        let tiling = Tiling { side: 640, overlap: 0.2 };
        assert!(tiling.tiles(640, 480).is_empty());
        // 1000 - 640 = 360 is less than a step of 512: two tiles.
        assert_eq!(tiling.tiles(1000, 500), [[0, 0, 640, 500], [360, 0, 640, 500]]);
        for (width, height) in [(641, 641), (4000, 3000), (1281, 20), (700, 5000)] {
            let tiles = tiling.tiles(width, height);
            let mut columns: Vec<[u32; 2]> = tiles.iter().map(|t| [t[0], t[0] + t[2]]).collect();
            columns.sort_unstable();
            columns.dedup();
            assert_eq!((columns[0][0], columns.last().map(|c| c[1])), (0, Some(width)));
            for pair in columns.windows(2) {
                assert!(
                    pair[0][1] >= pair[1][0] + 128 || pair[1][1] - pair[1][0] < 640,
                    "{columns:?}"
                );
            }
            assert!(tiles.iter().all(|t| t[0] + t[2] <= width && t[1] + t[3] <= height));
        }
        assert_eq!(Tiling { side: 10, overlap: 0.0 }.tiles(20, 10).len(), 2);
    }

    #[test]
    fn a_part_that_a_tile_sees_goes_with_the_whole() {
        let whole = scored(0, 0.8, [0.0, 0.0, 100.0, 20.0]);
        let part = scored(0, 0.6, [60.0, 0.0, 100.0, 20.0]);
        let same = |a: &Xyxy, b: &Xyxy| overlap(a, b).of_smaller() > SAME_OBJECT;
        assert_eq!(greedy(vec![part, whole], same).len(), 1);
        let other = scored(0, 0.6, [90.0, 0.0, 130.0, 20.0]);
        assert_eq!(greedy(vec![other, whole], same).len(), 2);
    }
}
