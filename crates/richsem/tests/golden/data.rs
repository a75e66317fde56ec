//! Mosaic, repeat factors and post-processing.

use std::collections::BTreeMap;

use image::RgbImage;
use richsem::{
    boxes::Xyxy,
    data::{extra::mosaic_at, sampler::repeat_factors, transforms::Sample},
    models::dino::postprocess::postprocess,
    targets::LabelKnowledge,
    vocabulary::ClassIndex,
};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::support::*;

fn image(bytes: &Tensor) -> RgbImage {
    let (h, w, _) = bytes.size3().unwrap();
    let pixels = Vec::<u8>::try_from(bytes.contiguous().view([-1])).unwrap();
    RgbImage::from_raw(w as u32, h as u32, pixels).unwrap()
}

#[derive(Deserialize)]
struct Mosaic {
    centre: (u32, u32),
}

/// Four images of other sizes than a tile's, around three centres.
///
/// Where we depart: a box is scaled with its pixels, so that a whole image's box ends where its
/// pixels end; the official one goes by the unrounded scale, up to a pixel further. Official boxes
/// that are cut to nothing stay (its filter of outside boxes returns None); ours go.
#[test]
fn mosaic_geometry() {
    let (golden, cases) = (tensors("mosaic"), json::<Vec<Mosaic>>("mosaic"));
    for (case, Mosaic { centre }) in cases.into_iter().enumerate() {
        let tile = |i: usize| {
            let image = image(&golden[&format!("picture.{i}")]);
            let (w, h) = (image.width() as f32, image.height() as f32);
            Sample {
                image,
                boxes: vec![Xyxy([0.0, 0.0, w, h]), Xyxy([0.1 * w, 0.2 * h, 0.6 * w, 0.9 * h])],
                labels: vec![ClassIndex(i as u32), ClassIndex(i as u32 + 4)],
                knowledge: LabelKnowledge::default(),
                image_id: 0,
                original_size: [h as u32, w as u32],
                view: None,
                geometry: None,
            }
        };
        let ours = mosaic_at(std::array::from_fn(tile), 32, centre);
        let canvas = &golden[&format!("{case}.canvas")];
        let pixels = Tensor::from_slice(ours.image.as_raw()).view_as(canvas);
        let apart = (pixels.to_kind(Kind::Int) - canvas.to_kind(Kind::Int)).abs();
        assert!(apart.max().int64_value(&[]) <= 1, "case {case}: pixels");
        let labels = Vec::<i64>::try_from(&golden[&format!("{case}.labels")]).unwrap();
        let boxes = Vec::<Vec<f32>>::try_from(&golden[&format!("{case}.boxes")]).unwrap();
        let mut ours = ours.labels.iter().zip(&ours.boxes);
        for (label, official) in labels.into_iter().zip(boxes) {
            if official[2] - official[0] < 1.0 || official[3] - official[1] < 1.0 {
                continue;
            }
            let (own, Xyxy(found)) = ours.next().unwrap();
            assert_eq!(i64::from(own.0), label, "case {case}");
            for (found, official) in found.iter().zip(&official) {
                assert!((found - official).abs() <= 1.0, "case {case}, label {label}");
            }
        }
        assert!(ours.next().is_none(), "case {case}");
    }
}

#[derive(Deserialize)]
struct RepeatFactors {
    images: Vec<Vec<u32>>,
    factors: BTreeMap<String, Vec<f64>>,
}

/// Official factors are f32.
#[test]
fn repeat_factors_of_images() {
    let RepeatFactors { images, factors } = json("repeat_factors");
    let images: Vec<Vec<ClassIndex>> =
        images.iter().map(|labels| labels.iter().map(|&l| ClassIndex(l)).collect()).collect();
    assert_eq!(factors.len(), 3);
    for (threshold, expected) in factors {
        let ours = repeat_factors(&images, threshold.parse().unwrap());
        assert_eq!(ours.len(), expected.len());
        for (ours, expected) in ours.into_iter().zip(expected) {
            close_number(&format!("t = {threshold}"), ours, expected, 1e-6);
        }
    }
}

#[test]
fn best_pairs_of_query_and_class() {
    let golden = tensors("postprocessing");
    let sizes = Vec::<Vec<i64>>::try_from(&golden["sizes"]).unwrap();
    let sizes: Vec<[u32; 2]> = sizes.iter().map(|s| [s[0] as u32, s[1] as u32]).collect();
    for (i, found) in postprocess(&golden["logits"], &golden["boxes"], &sizes, 20)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let at = |name: &str| &golden[&format!("{i}.{name}")];
        let labels: Vec<i64> = found.iter().map(|d| i64::from(d.class.0)).collect();
        assert_eq!(labels, Vec::<i64>::try_from(at("labels")).unwrap());
        let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
        close("scores", &Tensor::from_slice(&scores), at("scores"), 1e-6);
        let boxes: Vec<f32> = found.iter().flat_map(|d| d.bbox.0).collect();
        close("boxes", &Tensor::from_slice(&boxes).view([-1, 4]), at("boxes"), 1e-6);
    }
}
