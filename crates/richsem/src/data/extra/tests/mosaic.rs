use super::*;
use crate::random::Stream;

fn sample(width: u32, height: u32, colour: u8, boxes: &[[f32; 4]], labels: &[u32]) -> Sample {
    let labels: Vec<_> = labels.iter().map(|&c| ClassIndex(c)).collect();
    Sample {
        image: RgbImage::from_pixel(width, height, Rgb([colour; 3])),
        boxes: boxes.iter().map(|&b| Xyxy(b)).collect(),
        knowledge: LabelKnowledge { present: labels.clone(), ..Default::default() },
        labels,
        image_id: i64::from(colour),
        original_size: [height, width],
        view: None,
        geometry: None,
    }
}

/// A generator whose first two draws put the centre of a mosaic of that tile at (x, y).
fn centred(tile: u32, x: u32, y: u32) -> Random {
    let draw = |r: &mut Random| ((0.5 + r.uniform()) * f64::from(tile)) as u32;
    (0..)
        .map(|item| Random::new(0, Stream::Test, 20, item))
        .find(|random| {
            let mut random = random.clone();
            (draw(&mut random), draw(&mut random)) == (x, y)
        })
        .unwrap()
}

/// Whole-image boxes: 4 x 8, 16 x 8, 8 x 8 and 2 x 4 pixels.
fn four() -> [Sample; 4] {
    [
        sample(4, 8, 10, &[[0.0, 0.0, 4.0, 8.0]], &[0]),
        sample(16, 8, 20, &[[0.0, 0.0, 16.0, 8.0], [8.0, 0.0, 16.0, 8.0]], &[1, 5]),
        sample(8, 8, 30, &[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 2.0, 8.0]], &[2, 6]),
        sample(2, 4, 40, &[[0.0, 0.0, 2.0, 4.0]], &[0]),
    ]
}

#[test]
fn tiles_meet_at_the_centre_and_keep_their_visible_boxes() {
    let got = mosaic(four(), 8, &mut centred(8, 6, 10));
    assert_eq!(got.image.dimensions(), (16, 16));
    assert_eq!((got.original_size, got.image_id), ([16, 16], 10));
    // By hand, with the centre (6, 10) on the 16 x 16 canvas:
    let expected = [
        ([2.0, 2.0, 6.0, 10.0], 0),   // 4 x 8 as it is, ends at the centre
        ([6.0, 6.0, 14.0, 10.0], 1),  // 16 x 8 to 8 x 4, begins right of it and ends above
        ([10.0, 6.0, 14.0, 10.0], 5), // its right half
        ([0.0, 10.0, 6.0, 16.0], 2),  // 8 x 8 from (-2, 10), cut off at the left and below
        ([6.0, 10.0, 10.0, 16.0], 0), // 2 x 4 to 4 x 8, cut off below
    ];
    assert_eq!(got.boxes, expected.map(|(b, _)| Xyxy(b)));
    assert_eq!(got.labels, expected.map(|(_, c)| ClassIndex(c)));
    // Class 6 lies in the two columns that were cut off: nothing is claimed of it.
    let classes = |list: &[u32]| -> Vec<_> { list.iter().map(|&c| ClassIndex(c)).collect() };
    assert_eq!(got.knowledge.present, classes(&[0, 1, 2, 5]));
    assert_eq!(got.knowledge.not_exhaustive, classes(&[6]));
    assert!(got.knowledge.absent.is_empty() && got.knowledge.exhaustive.is_empty());
    // Every pixel: the tile that covers it, or the background.
    for (px, py, pixel) in got.image.enumerate_pixels() {
        let within = |[x0, y0, x1, y1]: [f32; 4]| {
            let (x, y) = (px as f32 + 0.5, py as f32 + 0.5);
            x0 < x && x < x1 && y0 < y && y < y1
        };
        let tiles = [(0, 10), (1, 20), (3, 30), (4, 40)];
        let covering = tiles.iter().find(|(i, _)| within(expected[*i].0));
        assert_eq!(pixel.0, [covering.map_or(114, |t| t.1); 3], "({px}, {py})");
    }
}

#[test]
fn the_extreme_centres_keep_every_tile_visible() {
    for (x, y) in [(4, 4), (11, 11), (4, 11), (11, 4)] {
        let got = mosaic(four(), 8, &mut centred(8, x, y));
        assert_eq!(got.labels.len(), 6 - usize::from(x == 4 || x == 6), "({x}, {y})");
    }
    // By hand at (4, 4): 4 x 8 from (0, -4); 8 x 4 from (4, 0); 8 x 8 from (-4, 4).
    let got = mosaic(four(), 8, &mut centred(8, 4, 4));
    let boxes = [
        [0.0, 0.0, 4.0, 4.0],
        [4.0, 0.0, 12.0, 4.0],
        [8.0, 0.0, 12.0, 4.0],
        [0.0, 4.0, 4.0, 12.0],
        [4.0, 4.0, 8.0, 12.0],
    ];
    assert_eq!(got.boxes, boxes.map(Xyxy));
}

#[test]
fn whole_image_boxes_of_any_shape_stay_inside_and_have_an_inside() {
    let mut shapes = Random::new(0, Stream::Test, 21, 0);
    for item in 0..300 {
        let tiles = std::array::from_fn(|i| {
            // Up to 1 x 200: a tile of one pixel's height.
            let (w, h) = (shapes.between(1, 200) as u32, shapes.between(1, 30) as u32);
            let (w, h) = if shapes.chance(0.5) { (w, h) } else { (h, w) };
            sample(w, h, 1, &[[0.0, 0.0, w as f32, h as f32]], &[i as u32])
        });
        let got = mosaic(tiles, 32, &mut Random::new(0, Stream::Test, 22, item));
        assert_eq!(got.boxes.len(), 4);
        for Xyxy([x0, y0, x1, y1]) in got.boxes {
            assert!(x0 >= 0.0 && y0 >= 0.0 && x1 <= 64.0 && y1 <= 64.0);
            assert!(x1 - x0 >= 1.0 && y1 - y0 >= 1.0, "{x0} {y0} {x1} {y1}");
            assert!((x1 - x0).max(y1 - y0) >= 16.0, "half a tile of the longer side at least");
        }
    }
}

#[test]
fn sizes_keep_the_aspect_and_fill_the_tile() {
    // The reference computes 640 / 49 * 49 = 639.9999999999999 and truncates.
    assert_eq!(fit(49, 49, 640), (640, 640));
    assert_eq!(fit(500, 375, 640), (640, 480));
    assert_eq!(fit(333, 500, 640), (426, 640));
    assert_eq!(fit(1280, 640, 640), (640, 320));
    assert_eq!(fit(1, 10_000, 640), (1, 640));
}

#[test]
fn a_class_is_absent_only_if_every_tile_says_so() {
    let of = |present: &[u32], absent: &[u32], exhaustive: &[u32]| {
        let classes = |list: &[u32]| list.iter().map(|&c| ClassIndex(c)).collect();
        LabelKnowledge {
            present: classes(present),
            absent: classes(absent),
            not_exhaustive: vec![],
            exhaustive: exhaustive.iter().map(|&c| ClassIndex(c)).collect(),
        }
    };
    let lists = of(&[1], &[7, 8, 2], &[]);
    let every: Vec<u32> = (0..10).collect();
    let all = of(&[2], &[], &every);
    let got = known([&lists, &all, &lists, &all], &[ClassIndex(1), ClassIndex(2)], &[]);
    assert_eq!(got, of(&[1, 2], &[7, 8], &[]));
    let got = known([&all, &all, &all, &all], &[ClassIndex(2)], &[]);
    assert_eq!(got, of(&[2], &[], &every));
    // Of another set, which shows all boxes of other classes.
    let other = of(&[], &[], &[2, 5, 11]);
    let got = known([&all, &other, &all, &all], &[ClassIndex(2)], &[]);
    assert_eq!(got, of(&[2], &[], &[2, 5]));
    // An image that says nothing of class 7.
    let silent = of(&[3], &[], &[]);
    let got = known([&lists, &lists, &lists, &silent], &[ClassIndex(3)], &[]);
    assert_eq!(got, of(&[3], &[], &[]));
}
