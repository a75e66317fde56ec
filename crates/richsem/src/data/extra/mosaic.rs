//! Four images on one canvas (YOLOv4's mosaic, arXiv 2004.10934, section 3.3, in the form of
//! YOLOX and the RichSem reference, `datasets/transforms.py`).

use std::sync::Arc;

use image::{Rgb, RgbImage, imageops};

use crate::{
    boxes::Xyxy,
    data::transforms::{Sample, resize},
    random::Random,
    targets::LabelKnowledge,
    vocabulary::ClassIndex,
};

/// Colour of the canvas where no image lies.
const BACKGROUND: Rgb<u8> = Rgb([114; 3]);

/// Puts four images (top left, top right, bottom left, bottom right) onto a canvas of
/// (2 · `tile`)² pixels. Each is resized, aspect kept, so that its longer side is `tile`, and
/// placed with its inner corner at a centre whose coordinates are drawn from 0.5 to 1.5 tiles; what
/// reaches beyond the canvas is cut off.
///
/// Boxes follow their image and are clipped to the canvas. The centre is at least half a tile
/// from every border, so a whole-image box always keeps an inside: of its shorter side and half a
/// tile the smaller, at least. There is no least size beyond that, as in the reference (its size
/// filter is off, and the filter of outside boxes returns nothing). Other boxes, which lie wholly
/// beyond the canvas, go with their labels.
///
/// A class is present if any tile shows a box of it, and absent only if it is known to be absent
/// from all four. The id is the first image's; size and original size are the canvas's.
///
/// Deviation: sides are rounded down exactly, where the reference truncates a product of floats
/// that can lie just below the whole number; and boxes are scaled with the pixels, so that a
/// whole-image box is what can be seen of its image, not up to a pixel more.
#[must_use]
pub fn mosaic(tiles: [Sample; 4], tile: u32, random: &mut Random) -> Sample {
    let mut centre = || (random.range(0.5, 1.5) * f64::from(tile)) as u32;
    let at = (centre(), centre());
    mosaic_at(tiles, tile, at)
}

/// As [`mosaic`], around a given centre (x, y).
#[must_use]
pub fn mosaic_at(tiles: [Sample; 4], tile: u32, (x, y): (u32, u32)) -> Sample {
    let side = 2 * tile;
    let mut image = RgbImage::from_pixel(side, side, BACKGROUND);
    let (mut boxes, mut labels) = (Vec::new(), Vec::new());
    let mut hidden = Vec::new();
    for (i, sample) in tiles.iter().enumerate() {
        let (old_width, old_height) = sample.image.dimensions();
        let (width, height) = fit(old_width, old_height, tile);
        let left = i64::from(x) - if i % 2 == 0 { i64::from(width) } else { 0 };
        let top = i64::from(y) - if i < 2 { i64::from(height) } else { 0 };
        if (width, height) == (old_width, old_height) {
            imageops::replace(&mut image, &sample.image, left, top);
        } else {
            imageops::replace(&mut image, &resize(&sample.image, width, height), left, top);
        }
        let (rx, ry) = (ratio(width, old_width), ratio(height, old_height));
        let (left, top) = (left as f32, top as f32);
        for (Xyxy([x0, y0, x1, y1]), &label) in std::iter::zip(&sample.boxes, &sample.labels) {
            let moved = Xyxy([x0 * rx + left, y0 * ry + top, x1 * rx + left, y1 * ry + top])
                .clipped(side, side);
            if moved.is_degenerate() {
                hidden.push(label);
            } else {
                boxes.push(moved);
                labels.push(label);
            }
        }
    }
    Sample {
        image,
        knowledge: known(tiles.each_ref().map(|t| &t.knowledge), &labels, &hidden),
        boxes,
        labels,
        image_id: tiles[0].image_id,
        original_size: [side, side],
        view: None,
        geometry: None,
    }
}

/// `(width, height)` with the longer side `tile`, the shorter rounded down; at least 1.
fn fit(width: u32, height: u32, tile: u32) -> (u32, u32) {
    let longer = u64::from(width.max(height).max(1));
    let scaled = |side: u32| ((u64::from(side) * u64::from(tile) / longer) as u32).max(1);
    (scaled(width), scaled(height))
}

fn ratio(new: u32, old: u32) -> f32 {
    (f64::from(new) / f64::from(old)) as f32
}

/// What is known of the canvas. `shown` are the labels of its boxes. `hidden` are those of boxes that
/// were cut off: nothing is claimed of them.
fn known(
    tiles: [&LabelKnowledge; 4],
    shown: &[ClassIndex],
    hidden: &[ClassIndex],
) -> LabelKnowledge {
    let sorted = |mut classes: Vec<ClassIndex>| {
        classes.sort_unstable();
        classes.dedup();
        classes
    };
    let [first, others @ ..] = tiles;
    let exhaustive = if others.iter().all(|t| t.exhaustive == first.exhaustive) {
        Arc::clone(&first.exhaustive)
    } else {
        let everywhere = |c: &&ClassIndex| others.iter().all(|t| t.is_exhaustive(**c));
        first.exhaustive.iter().filter(everywhere).copied().collect()
    };
    let present = sorted(shown.to_vec());
    let not_exhaustive =
        sorted(tiles.iter().flat_map(|t| &t.not_exhaustive).chain(hidden).copied().collect());
    let mentioned = |t: &LabelKnowledge, c| t.present.contains(&c) || t.not_exhaustive.contains(&c);
    let absent_from =
        |t: &LabelKnowledge, c| t.absent.contains(&c) || (t.is_exhaustive(c) && !mentioned(t, c));
    let candidates = sorted(tiles.iter().flat_map(|t| &t.absent).copied().collect());
    let absent = candidates
        .into_iter()
        .filter(|&c| present.binary_search(&c).is_err() && tiles.iter().all(|t| absent_from(t, c)))
        .collect();
    LabelKnowledge { present, absent, not_exhaustive, exhaustive }
}

#[cfg(test)]
#[path = "tests/mosaic.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
