use super::*;

fn labeled(bbox: [f32; 4], score: Option<f32>) -> Labeled {
    Labeled { bbox: Xyxy(bbox), class_name: "zebra".to_owned(), color_key: 4, score, dashed: false }
}

fn grey(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, Rgb([128; 3]))
}

#[test]
fn colours_are_stable_and_neighbours_differ() {
    let colors: Vec<_> = (0..60).map(color).collect();
    assert_eq!(colors[0], Rgb([236, 19, 19]));
    let distance = |a: Rgb<u8>, b: Rgb<u8>| {
        a.0.iter().zip(b.0).map(|(a, b)| u32::from(a.abs_diff(b))).sum::<u32>()
    };
    for (i, a) in colors.iter().enumerate() {
        for (j, b) in colors.iter().enumerate().skip(i + 1) {
            let least = if j - i < 5 { 60 } else { 1 };
            assert!(distance(*a, *b) >= least, "{i} {a:?} and {j} {b:?}");
        }
    }
    assert_eq!(color(u64::MAX), color(u64::MAX));
}

#[test]
fn the_frame_has_the_classes_colour_and_leaves_the_inside_alone() {
    let mut image = grey(400, 300);
    draw(&mut image, &[labeled([100.0, 100.0, 300.0, 200.0], None)]);
    for at in [(100, 150), (299, 150), (200, 199), (290, 100)] {
        assert_eq!(image.get_pixel(at.0, at.1), &color(4), "{at:?}");
    }
    assert_eq!(image.get_pixel(200, 160), &Rgb([128; 3]));
    assert_eq!(image.get_pixel(50, 250), &Rgb([128; 3]));
}

#[test]
fn text_is_written_and_readable() {
    let mut image = grey(400, 300);
    draw(&mut image, &[labeled([100.0, 100.0, 300.0, 200.0], Some(0.5))]);
    // Above the box: letters in the contrasting colour, with anti-aliased edges between the two.
    let label: Vec<_> = (100..180).flat_map(|x| (84..98).map(move |y| (x, y))).collect();
    let ink = readable_on(color(4));
    let count = |test: &dyn Fn(&Rgb<u8>) -> bool| {
        label.iter().filter(|&&(x, y)| test(image.get_pixel(x, y))).count()
    };
    let solid = count(&|p| *p == ink);
    let kinds: std::collections::HashSet<_> =
        label.iter().map(|&(x, y)| image.get_pixel(x, y).0).collect();
    assert!(solid > 50, "{solid} pixels of text");
    assert!(kinds.len() > 10, "{} shades", kinds.len());
    assert_eq!(readable_on(Rgb([255, 255, 0])), BLACK);
    assert_eq!(readable_on(Rgb([0, 0, 160])), WHITE);
}

#[test]
fn labels_stay_inside_the_image() {
    let size = [200, 100];
    for bbox in [[0, 0, 200, 100], [-5, -5, 20, 20], [190, 90, 300, 300], [0, 0, 5, 100]] {
        let [x, y] = place(bbox, [80, 16], size, 2, &[]);
        assert!(x >= 0 && y >= 0 && x + 80 <= 200 && y + 16 <= 100, "{bbox:?}: {x} {y}");
    }
    // Above, then inside; the next label of the same box finds another place.
    assert_eq!(place([50, 40, 150, 90], [60, 16], size, 2, &[]), [49, 23]);
    assert_eq!(place([50, 10, 150, 90], [60, 16], size, 2, &[]), [49, 11]);
    let second = place([50, 40, 150, 90], [60, 16], size, 2, &[[49, 23, 109, 39]]);
    assert_eq!(second, [49, 41], "inside, beneath the line");
    // A label as wide as the image starts at its left edge.
    assert_eq!(place([50, 40, 150, 90], [260, 16], size, 2, &[])[0], 0);
}

#[test]
fn long_names_lose_their_end_and_keep_their_score() {
    assert_eq!(shortened("zebra", " 0.50", 10), "zebra 0.50");
    assert_eq!(shortened("zebra crossing", " 0.50", 12), "zebra.. 0.50");
    assert_eq!(shortened("zebra", " 0.50", 3), ".. ");
    assert_eq!(shortened("zebra", "", 0), "");
    assert_eq!(text_mask("zebra", "", 16, 1000).dimensions(), (5 * 7, 16));
    assert_eq!(text_mask("zebra", "", 64, 1000).height(), 64);
    assert!(text_mask("zebra crossing", " 0.50", 64, 200).width() <= 200);
    assert_eq!(text_mask("zebra", "", 16, 0).width(), 0);
    // Letters with accents are in the font, Chinese ones become question marks.
    assert_ne!(text_mask("é", "", 16, 100), text_mask("?", "", 16, 100));
    assert_eq!(text_mask("猫", "", 16, 100), text_mask("?", "", 16, 100));
}

#[test]
fn any_box_on_any_image_can_be_drawn() {
    let nan = f32::NAN;
    let infinite = f32::INFINITY;
    let boxes = [
        [nan, 0.0, 5.0, 5.0],
        [0.0, 0.0, infinite, infinite],
        [-infinite, -infinite, infinite, infinite],
        [-1e30, -1e30, 1e30, 1e30],
        [5.0, 5.0, 5.0, 5.0],
        [5.0, 5.0, 1.0, 1.0],
        [0.2, 0.2, 0.4, 0.4],
        [500.0, 500.0, 600.0, 600.0],
    ];
    let labels: Vec<_> = boxes.into_iter().map(|b| labeled(b, Some(nan))).collect();
    for (width, height) in [(0, 0), (1, 1), (3, 200), (200, 3), (64, 64)] {
        let mut image = grey(width, height);
        draw(&mut image, &labels);
        let judged: Vec<_> = labels.iter().cloned().zip(Verdict::ALL.into_iter().cycle()).collect();
        draw_judged(&mut image, &judged);
        let page = side_by_side(("ground truth", &image), ("prediction", &image), "a caption");
        assert!(page.width() >= 2 * width && page.height() > height);
    }
}

#[test]
fn images_are_saved_by_extension() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = grey(60, 40);
    draw(&mut image, &[labeled([10.0, 10.0, 50.0, 30.0], None)]);
    for name in ["a.png", "a.jpg", "a.JPEG"] {
        let path = folder.path().join(name);
        save(&image, &path).unwrap();
        let back = image::open(&path).unwrap().into_rgb8();
        assert_eq!(back.dimensions(), (60, 40));
        if name == "a.png" {
            assert_eq!(back, image);
        }
    }
    let error = |name: &str, image: &RgbImage| save(image, &folder.path().join(name)).unwrap_err();
    assert!(error("a.gif", &image).to_string().contains("expected the extension .jpg"));
    assert!(error("b.png", &RgbImage::new(0, 0)).to_string().contains("nothing to write"));
    assert!(error("b.jpg", &RgbImage::new(70_000, 1)).to_string().contains("70000×1"));
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 3);
}
