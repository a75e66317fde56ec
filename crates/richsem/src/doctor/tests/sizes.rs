use super::{super::sizes::*, *};
use crate::vocabulary::Frequency;

#[test]
fn objects_are_measured_at_the_size_of_training() {
    let folder = Folder::new();
    let files = ["a.jpg", "b.jpg"].map(str::to_owned);
    // 100 by 80 pixels: resized to 40 all is half as large.
    let boxes: Vec<Boxed> = vec![
        (0, 1, [0.0, 0.0, 31.0, 31.0]),
        (0, 1, [0.0, 0.0, 33.0, 33.0]),
        (0, 1, [0.0, 0.0, 80.0, 70.0]),
        (0, 2, [90.0, 0.0, 40.0, 10.0]),
        (1, 2, [0.0, 0.0, 0.0, 10.0]),
    ];
    let set = folder.annotations("t.json", &files, &boxes, &[(1, "a"), (2, "b")]);
    let scale = Scale { size: 40, max_size: 1000, smallest: 20 };
    let groups = [Frequency::Rare, Frequency::Frequent];
    let measured = super::super::sizes::sizes(&set, &groups, &scale);
    // The fourth is cut to 10 by 10, the fifth has no inside.
    assert_eq!((measured.boxes, measured.by_side), (4, [2, 1, 1, 0]));
    assert_eq!(measured.by_group, [[1, 1, 1, 0], [0; 4], [1, 0, 0, 0]]);
    assert_eq!((measured.lost, measured.small_at_smallest, measured.median_side), (1, 3, 80));
    // At 64 the first is 24.8 pixels.
    assert_eq!(measured.needed, Some(64));
    let fine = super::super::sizes::sizes(&set, &groups, &Scale { size: 80, ..scale });
    assert_eq!((fine.lost, fine.needed), (0, None));
}

#[test]
fn the_fullest_image_is_named() {
    let folder = Folder::new();
    let files = ["a.jpg", "b.jpg", "c.jpg"].map(str::to_owned);
    let mut boxes: Vec<Boxed> = vec![(0, 1, [0.0, 0.0, 5.0, 5.0])];
    boxes.extend((0..7).map(|i| (2, 1, [f64::from(i), 0.0, 5.0, 5.0])));
    let set = folder.annotations("t.json", &files, &boxes, &[(1, "a")]);
    let found = density(&set, 6);
    assert_eq!((found.most, found.beyond, &*found.fullest, found.p99), (7, 1, "c.jpg", 7));
    assert!((found.mean - 8.0 / 3.0).abs() < 1e-12);
}
