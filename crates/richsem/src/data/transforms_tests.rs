use std::path::Path;

use super::*;
use crate::{boxes::Cxcywh, random::Stream};

fn random(item: u64) -> Random {
    Random::new(0, Stream::Test, 0, item)
}

/// Each pixel tells where it was: red = x, green = y (modulo 256).
fn sample(width: u32, height: u32, boxes: &[[f32; 4]]) -> Sample {
    let labels: Vec<_> = (0..boxes.len() as u32).map(ClassIndex).collect();
    Sample {
        image: RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7])),
        boxes: boxes.iter().map(|&b| Xyxy(b)).collect(),
        knowledge: LabelKnowledge { present: labels.clone(), ..Default::default() },
        labels,
        image_id: 5,
        original_size: [height, width],
        view: None,
        geometry: None,
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    fs_err::read(folder.join(name)).unwrap()
}

#[test]
fn resizing_is_pillows() {
    let source = RgbImage::from_raw(61, 47, fixture("resize_source.rgb")).unwrap();
    for (w, h) in [(30, 23), (71, 53), (7, 5), (61, 20), (40, 47), (1, 1)] {
        let got = resize(&source, w, h);
        let expected = fixture(&format!("resize_{w}x{h}.rgb"));
        assert_eq!(got.len(), expected.len());
        let differences = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let sum: f64 = differences.clone().map(f64::from).sum();
        let (mean, max) = (sum / expected.len() as f64, differences.max().unwrap());
        // Pillow goes along rows first, fast_image_resize along columns: the intermediate bytes are
        // rounded differently.
        assert!(mean <= 0.25 && max <= 1, "{w} x {h}: mean {mean}, max {max}");
    }
}

#[test]
fn sizes_are_the_references() {
    // Printed by the reference's `get_size_with_aspect_ratio` (datasets/transforms.py).
    for (w, h, size, max_size, expected) in [
        (640, 480, 800, 1333, (1066, 800)),
        (480, 640, 800, 1333, (800, 1066)),
        (640, 640, 800, 1333, (800, 800)),
        (500, 375, 480, 1333, (640, 480)),
        (1000, 640, 853, 1333, (1332, 853)),
        (1000, 640, 900, 1333, (1332, 853)),
        (427, 640, 800, 1333, (800, 1199)),
        (612, 612, 612, 1333, (612, 612)),
        (2000, 300, 800, 1333, (1333, 200)),
        (300, 2000, 800, 1333, (200, 1333)),
        (333, 500, 544, 1333, (544, 816)),
        (640, 427, 400, u32::MAX, (599, 400)),
        (799, 800, 799, 1333, (799, 800)),
        (1333, 3, 800, 1333, (1333, 3)),
        (101, 37, 672, 1333, (1332, 488)),
        (1000, 53, 800, 1333, (1339, 71)),
        (3, 8, 5, 20, (5, 13)),
    ] {
        assert_eq!(size_after_resize(w, h, size, max_size), expected, "{w} x {h} to {size}");
    }
    // Where the reference would ask for zero pixels.
    assert_eq!(size_after_resize(1, 10_000, 800, 1333), (1, 1333));
    assert_eq!(size_after_resize(10_000, 1, 800, 1333), (1333, 1));
}

#[test]
fn flipping_mirrors_pixels_and_boxes() {
    let mut s = sample(7, 3, &[[1.0, 0.0, 3.0, 2.0]]);
    let before = s.clone();
    flip(&mut s);
    assert_eq!(s.boxes, [Xyxy([4.0, 0.0, 6.0, 2.0])]);
    assert_eq!(s.image.get_pixel(0, 2).0, [6, 2, 7]);
    assert_eq!(s.image.get_pixel(3, 1).0, [3, 1, 7]);
    flip(&mut s);
    assert_eq!(s, before);
}

#[test]
fn a_crop_keeps_its_pixels_and_the_boxes_that_reach_in() {
    let mut s = sample(
        20,
        10,
        &[
            [0.0, 0.0, 6.0, 4.0],   // cut at left and top
            [7.0, 4.0, 9.0, 6.0],   // wholly inside
            [0.0, 0.0, 5.0, 10.0],  // touches the edge: nothing left
            [14.0, 0.0, 20.0, 9.0], // wholly outside
        ],
    );
    s.knowledge.not_exhaustive = vec![ClassIndex(3)];
    crop(&mut s, 5, 2, 8, 6);
    assert_eq!(s.image.dimensions(), (8, 6));
    assert_eq!(s.image.get_pixel(0, 0).0, [5, 2, 7]);
    assert_eq!(s.image.get_pixel(7, 5).0, [12, 7, 7]);
    assert_eq!(s.boxes, [Xyxy([0.0, 0.0, 1.0, 2.0]), Xyxy([2.0, 2.0, 4.0, 4.0])]);
    assert_eq!(s.labels, [ClassIndex(0), ClassIndex(1)]);
    // Class 2 was annotated everywhere, so this part is known not to show it; of class 3 nothing
    // is known any more.
    assert_eq!(s.knowledge.present, [ClassIndex(0), ClassIndex(1)]);
    assert_eq!(s.knowledge.absent, [ClassIndex(2)]);
    assert_eq!(s.knowledge.not_exhaustive, [ClassIndex(3)]);
}

#[test]
fn a_class_with_another_box_in_the_crop_stays_present() {
    let mut s = sample(20, 10, &[[0.0, 0.0, 3.0, 3.0], [6.0, 3.0, 9.0, 6.0]]);
    s.labels = vec![ClassIndex(4); 2];
    s.knowledge.present = vec![ClassIndex(4)];
    crop(&mut s, 5, 2, 8, 6);
    assert_eq!((s.boxes.len(), &s.labels[..]), (1, &[ClassIndex(4)][..]));
    assert_eq!(s.knowledge.present, [ClassIndex(4)]);
    assert!(s.knowledge.absent.is_empty());
}

#[test]
fn resizing_scales_boxes_by_each_axis_own_ratio() {
    let mut s = sample(640, 427, &[[64.0, 42.7, 320.0, 427.0]]);
    resize_shorter_side(&mut s, 400, 1333);
    assert_eq!(s.image.dimensions(), (599, 400));
    let expected = [59.9, 40.0, 299.5, 400.0];
    for (got, expected) in s.boxes[0].0.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-3, "{:?}", s.boxes);
    }
    assert_eq!(s.original_size, [427, 640]);
}

#[test]
fn finish_gives_relative_boxes_and_drops_those_without_inside() {
    let mut s = sample(
        100,
        50,
        &[
            [10.0, 10.0, 30.0, 20.0],
            [-20.0, 0.0, 20.0, 60.0],     // sticks out
            [5.0, 5.0, 5.0, 9.0],         // no width
            [f32::NAN, 0.0, 1.0, 1.0],    // no box
            [200.0, 200.0, 300.0, 300.0], // not in the image
        ],
    );
    s.knowledge.exhaustive = (0..5).map(ClassIndex).collect();
    let (image, target) = finish(s);
    assert_eq!(image.dimensions(), (100, 50));
    assert_eq!(target.boxes, [Cxcywh([0.2, 0.3, 0.2, 0.2]), Cxcywh([0.1, 0.5, 0.2, 1.0])]);
    assert_eq!(target.labels, [ClassIndex(0), ClassIndex(1)]);
    assert_eq!(target.knowledge.present, [ClassIndex(0), ClassIndex(1)]);
    assert_eq!(target.knowledge.not_exhaustive, [2, 3, 4].map(ClassIndex));
    assert!(target.knowledge.absent.is_empty());
    assert_eq!((target.size, target.original_size, target.image_id), ([50, 100], [50, 100], 5));
}

#[test]
fn each_draw_lies_within_the_configuration_and_all_of_it_is_reached() {
    let config = TransformConfig {
        flip: 0.5,
        scales: vec![40, 48],
        max_size: 80,
        crop: CropConfig { probability: 0.5, resize: vec![20, 30], min: 10, max: 20 },
    };
    config.validate("data.train").unwrap();
    let whole = [[0.0, 0.0, 64.0, 48.0]];
    let (mut shorter, mut cropped) = (Vec::new(), 0);
    const N: u64 = 400;
    for item in 0..N {
        let mut s = sample(64, 48, &whole);
        config.apply(&mut s, &mut random(item));
        let (w, h) = s.image.dimensions();
        assert!(w.max(h) <= 80, "{w} x {h}");
        shorter.push(w.min(h));
        // 64 x 48 stays 4 : 3 only without a crop.
        cropped += u64::from(![(53, 40), (64, 48)].contains(&(w, h)));
        // The box of the whole image is still the whole image.
        let (_, target) = finish(s);
        for (got, expected) in target.boxes[0].0.iter().zip([0.5, 0.5, 1.0, 1.0]) {
            assert!((got - expected).abs() < 1e-4, "{:?}", target.boxes);
        }
    }
    assert!(shorter.contains(&40) && shorter.contains(&48));
    // Five standard deviations of a binomial(400, 1/2) is 50; a few crops happen to be 4 : 3.
    assert!((140..=250).contains(&cropped), "{cropped} of {N} cropped");
}

#[test]
fn crops_reach_both_ends_of_their_range() {
    let config = TransformConfig {
        flip: 0.0,
        scales: vec![3],
        max_size: 3,
        crop: CropConfig { probability: 1.0, resize: vec![4], min: 3, max: 4 },
    };
    // 4 x 4 cut to 3 or 4 a side: along each axis the cut keeps both corners, the first, or the
    // last, and each of the nine combinations keeps other corner boxes.
    let corners =
        [[0.0, 0.0, 1.0, 1.0], [3.0, 0.0, 4.0, 1.0], [0.0, 3.0, 1.0, 4.0], [3.0, 3.0, 4.0, 4.0]];
    let mut seen = std::collections::BTreeSet::new();
    for item in 0..200 {
        let mut s = sample(4, 4, &corners);
        config.apply(&mut s, &mut random(item));
        seen.insert(s.labels.iter().map(|l| l.0).collect::<Vec<_>>());
    }
    let expected: [&[u32]; 9] =
        [&[0], &[0, 1], &[0, 1, 2, 3], &[0, 2], &[1], &[1, 3], &[2], &[2, 3], &[3]];
    assert_eq!(seen.iter().map(Vec::as_slice).collect::<Vec<_>>(), expected);
}

#[test]
fn the_same_key_gives_the_same_sample() {
    let run = |item| {
        let mut s = sample(640, 480, &[[10.0, 10.0, 500.0, 400.0]]);
        TransformConfig::default().apply(&mut s, &mut random(item));
        s
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn tiny_and_thin_images_survive() {
    for (w, h) in [(1, 1), (1, 3000), (3000, 1), (2, 7)] {
        for item in 0..20 {
            let mut s = sample(w, h, &[[0.0, 0.0, w as f32, h as f32]]);
            TransformConfig::default().apply(&mut s, &mut random(item));
            let (width, height) = s.image.dimensions();
            // Rounding a few pixels' shorter side up takes the longer past its maximum.
            assert!(width >= 1 && height >= 1 && width.max(height) <= 2000, "{width} x {height}");
        }
        let mut s = sample(w, h, &[]);
        EvalTransformConfig::default().apply(&mut s);
        assert!(s.image.width().max(s.image.height()) <= 1333);
    }
}

#[test]
fn wrong_settings_are_named() {
    let default = TransformConfig::default;
    let crop = |crop| TransformConfig { crop, ..default() };
    let cases = [
        (TransformConfig { flip: 1.5, ..default() }, "t.flip: expected 0 to 1, got 1.5"),
        (TransformConfig { flip: f64::NAN, ..default() }, "t.flip"),
        (TransformConfig { scales: vec![], ..default() }, "t.scales: expected at least one"),
        (TransformConfig { scales: vec![0], ..default() }, "t.scales: expected pixels from 1"),
        (
            TransformConfig { max_size: 700, ..default() },
            "t.max_size: expected at least 800, the largest of t.scales, got 700",
        ),
        (crop(CropConfig { probability: -0.1, ..Default::default() }), "t.crop.probability"),
        (crop(CropConfig { resize: vec![], ..Default::default() }), "t.crop.resize"),
        (
            crop(CropConfig { min: 700, ..Default::default() }),
            "t.crop.min: expected at most 600, which is t.crop.max, got 700",
        ),
        (
            crop(CropConfig { min: 500, ..Default::default() }),
            "t.crop.min: expected at most 400, the smallest of t.crop.resize, got 500",
        ),
    ];
    for (config, expected) in cases {
        let text = config.validate("t").unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    default().validate("t").unwrap();
    EvalTransformConfig::default().validate("e").unwrap();
    let eval = EvalTransformConfig { size: 800, max_size: 640 };
    assert!(
        eval.validate("e").unwrap_err().to_string().contains("e.max_size: expected at least 800")
    );
    let unknown: std::result::Result<TransformConfig, _> = toml::from_str("flipp = 0.5");
    assert!(unknown.unwrap_err().to_string().contains("flipp"));
    let read: TransformConfig = toml::from_str("max_size = 1000\ncrop.min = 300").unwrap();
    assert_eq!((read.max_size, read.scales.len(), read.crop.max), (1000, 11, 600));
}

#[test]
fn without_crops_a_draw_is_one_of_the_views() {
    use crate::targets::View;
    let boxes = [[3.0, 4.0, 20.0, 30.0], [0.0, 0.0, 40.0, 30.0]];
    let fresh = || Sample { view: View::of(9), ..sample(40, 30, &boxes) };
    let mut config =
        TransformConfig { scales: vec![24, 15, 24], max_size: 50, ..Default::default() };
    config.crop.probability = 0.0;
    let views = config.views();
    assert_eq!(views, [(15, false), (15, true), (24, false), (24, true)]);
    let mut seen = std::collections::BTreeSet::new();
    for item in 0..40 {
        let mut drawn = fresh();
        config.apply(&mut drawn, &mut random(item));
        let View { image, scale, flip } = drawn.view.unwrap();
        assert!(image == 9 && views.contains(&(scale, flip)));
        seen.insert((scale, flip));
        let mut again = fresh();
        config.apply_view(&mut again, scale, flip);
        assert_eq!(again, drawn);
    }
    assert_eq!(seen.len(), views.len());
    config.crop.probability = 1.0;
    let mut cut = fresh();
    config.apply(&mut cut, &mut random(0));
    assert_eq!(cut.view, None);
    for (flip, flips) in [(0.0, [false]), (1.0, [true])] {
        let views = TransformConfig { flip, scales: vec![8], ..Default::default() }.views();
        assert_eq!(views, flips.map(|flip| (8, flip)));
    }
}
