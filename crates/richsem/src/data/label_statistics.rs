//! What the labels of a set are like, counted: for the report of a run.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::detection_source::ImageEntry;
use crate::vocabulary::ClassIndex;

/// Bounds of the classes of [`LabelStatistics::boxes_per_image`]: the smallest number of boxes of each.
pub const BOXES_PER_IMAGE: [usize; 8] = [0, 1, 2, 3, 5, 9, 17, 33];

/// Bounds of the classes of [`LabelStatistics::sides`]: the shortest side of each, in pixels.
pub const SIDES: [f32; 8] = [0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Counts of a set's boxes: those that are trained on, in pixels of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelStatistics {
    /// Images, with boxes or without.
    pub images: usize,
    /// Boxes.
    pub boxes: usize,
    /// Classes with a box.
    pub classes: usize,
    /// Images by their number of boxes: 0, 1, 2, 3–4, 5–8, 9–16, 17–32, 33 and more ([`BOXES_PER_IMAGE`]).
    pub boxes_per_image: [usize; 8],
    /// Boxes by their side, the root of the area in pixels of the file: below 8, 16, 32, 64, 128, 256 and 512,
    /// and from 512 on ([`SIDES`]).
    pub sides: [usize; 8],
}

/// The last bound that is not above the value.
fn place<T: PartialOrd>(bounds: &[T; 8], value: &T) -> usize {
    bounds.iter().rposition(|bound| bound <= value).unwrap_or(0)
}

impl LabelStatistics {
    /// Counts.
    #[must_use]
    pub fn of(entries: &[ImageEntry]) -> Self {
        let mut counted = Self { images: entries.len(), ..Self::default() };
        let mut seen = HashSet::<ClassIndex>::new();
        for entry in entries {
            counted.boxes += entry.boxes.len();
            counted.boxes_per_image[place(&BOXES_PER_IMAGE, &entry.boxes.len())] += 1;
            for bbox in &entry.boxes {
                let [x0, y0, x1, y1] = bbox.0;
                counted.sides[place(&SIDES, &((x1 - x0) * (y1 - y0)).max(0.0).sqrt())] += 1;
            }
            seen.extend(&entry.labels);
        }
        Self { classes: seen.len(), ..counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{boxes::Xyxy, targets::LabelKnowledge, vocabulary::ClassIndex};

    #[test]
    fn images_and_boxes_are_in_the_class_whose_bound_they_reach() {
        let entry = |sides: &[f32], class: u32| ImageEntry {
            name: String::new(),
            id: 1,
            size: None,
            boxes: sides.iter().map(|side| Xyxy([1.0, 2.0, 1.0 + side, 2.0 + side])).collect(),
            labels: vec![ClassIndex(class); sides.len()],
            knowledge: LabelKnowledge::default(),
        };
        let entries =
            [entry(&[], 0), entry(&[7.0, 8.0, 33.0], 3), entry(&[600.0; 5], 3), entry(&[16.0], 0)];
        let counted = LabelStatistics::of(&entries);
        assert_eq!((counted.images, counted.boxes, counted.classes), (4, 9, 2));
        assert_eq!(counted.boxes_per_image, [1, 1, 0, 1, 1, 0, 0, 0]);
        assert_eq!(counted.sides, [1, 1, 1, 1, 0, 0, 0, 5]);
        assert_eq!(LabelStatistics::of(&[]), LabelStatistics::default());
    }
}
