//! Odd input that is taken all the same, and that the report says so.

use super::{super::report::Named, *};
use crate::data::image_io::{Orientation, tests::jpeg_with_exif};

fn named(count: usize, names: &[&str]) -> Named {
    Named { count, names: names.iter().map(|&name| name.to_owned()).collect() }
}

/// The set's `c`, which is 8 wide and 9 high, with a part of its XML replaced.
fn changed(old: &str, new: &str) -> tempfile::TempDir {
    let set = small_set(OBJECT);
    let path = annotation(&set, "c");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(old));
    std::fs::write(&path, text.replace(old, new)).unwrap();
    set
}

#[track_caller]
fn assert_tells(dataset: &Dataset, part: &str) {
    let text = dataset.report().to_string();
    assert!(text.contains(part), "no `{part}` in {text}");
}

#[test]
fn a_size_that_is_exchanged_is_the_images_where_the_boxes_lie_in_it() {
    let exchanged =
        |xml: &str| changed("<width>8</width><height>9</height></size>", &format!("{xml}</size>"));
    let set = exchanged("<width>9</width><height>8</height>");
    // Boxes that would lie in both frames do not tell.
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!(report.unclear_sizes, named(1, &["c"]));
    assert_tells(
        &val,
        "warning: 1 size has width and height exchanged in the XML, and the boxes fit",
    );
    assert_eq!(val.images()[0].size, Some([9, 8]));
    // This one lies in the image's alone.
    let text = std::fs::read_to_string(annotation(&set, "c")).unwrap();
    std::fs::write(annotation(&set, "c"), text.replace("<ymax>7", "<ymax>9")).unwrap();
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!((&report.swapped_sizes, report.unclear_sizes.count), (&named(1, &["c"]), 0));
    assert_eq!((report.other_sizes.count, report.stored_frames.count), (0, 0));
    assert_tells(&val, "1 size with width and height exchanged in the XML, the images' taken (c)");
    assert_eq!(val.images()[0].size, Some([9, 8]));

    // A box that the image has no place for: it was turned, and not the XML's sides.
    let text = std::fs::read_to_string(annotation(&set, "c")).unwrap();
    std::fs::write(annotation(&set, "c"), text.replace("<xmax>5", "<xmax>9")).unwrap();
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!((report.swapped_sizes.count, report.other_sizes), (0, named(1, &["c"])));
    assert_eq!(val.images()[0].size, Some([8, 9]), "as the XML has it: training refuses the image");
}

#[test]
fn a_comment_does_not_end_a_name() {
    let (val, _) = read(changed("<name>dog", "<name>d<!-- a dog -->og").path(), "val").unwrap();
    assert_eq!(val.vocabulary().categories()[0].name, "dog");
}

#[test]
fn a_size_that_is_another_is_kept_and_told() {
    let (val, report) = read(changed("<width>8", "<width>16").path(), "val").unwrap();
    assert_eq!(report.other_sizes, named(1, &["c"]));
    assert_tells(&val, "warning: 1 size is not the image's");
    assert_eq!(val.images()[0].size, Some([9, 16]));

    // An image that is none has no size to compare with.
    let set = small_set(OBJECT);
    std::fs::write(set.path().join("VOC/deeper/JPEGImages/c.png"), "no image").unwrap();
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!(report.unread_images, named(1, &["c"]));
    assert_tells(&val, "1 image that cannot be read, the XML's size taken (c)");
}

/// The image is stored 9 wide and 8 high, and shown 8 wide and 9 high.
#[test]
fn of_a_turned_image_the_boxes_decide_whose_frame_it_is() {
    let turned = |width: u32, height: u32, ymax: u32| {
        let set = changed(
            "<width>8</width><height>9</height>",
            &format!("<width>{width}</width><height>{height}</height>"),
        );
        let text = std::fs::read_to_string(annotation(&set, "c")).unwrap();
        std::fs::write(annotation(&set, "c"), text.replace("<ymax>7", &format!("<ymax>{ymax}")))
            .unwrap();
        let image = jpeg_with_exif(&image::RgbImage::new(9, 8), 6);
        std::fs::write(set.path().join("VOC/deeper/JPEGImages/c.png"), image).unwrap();
        let (val, report) = read(set.path(), "val").unwrap();
        let size = val.images()[0].size;
        (val, report, size)
    };
    let (_, report, size) = turned(8, 9, 9);
    assert_eq!((report.stored_frames.count, report.swapped_sizes.count), (0, 0));
    assert_eq!(size, Some([9, 8]));
    // The pixels as stored, and boxes that may be in them.
    let (val, report, size) = turned(9, 8, 7);
    assert_eq!((&report.stored_frames, report.swapped_sizes.count), (&named(1, &["c"]), 0));
    assert_eq!(size, Some([8, 9]));
    assert_tells(&val, "set data.train.orientation and data.val.orientation to \"stored\"");
    // A box that ends a pixel beyond is no reason to think otherwise.
    let (_, report, size) = turned(9, 8, 9);
    assert_eq!((&report.stored_frames, report.swapped_sizes.count), (&named(1, &["c"]), 0));
    assert_eq!(size, Some([8, 9]));
    assert_eq!(Orientation::default(), Orientation::Exif, "which is what is compared with");
}

/// As annotations of COCO and LVIS: the numbers stay, and what training makes of them is counted.
#[test]
fn boxes_beyond_their_image_are_kept_and_counted_as_the_reader_does() {
    let beyond = OBJECT.replace("<xmax>5", "<xmax>9");
    let outside = OBJECT.replace("<xmin>2", "<xmin>9").replace("<xmax>5", "<xmax>12");
    let from_zero = OBJECT.replace("<xmin>2", "<xmin>0");
    let difficult = outside.replace("<difficult>0", "<difficult>1");
    let set = small_set(&[beyond, outside, from_zero, difficult, OBJECT.to_owned()].concat());
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!(report.beyond, named(2, &["c"]), "one to the right, one to the left");
    assert_eq!((&report.outside, report.from_zero), (&named(1, &["c"]), 1));
    assert_tells(&val, "2 boxes partly beyond the image, clipped for training (c)");
    assert_tells(&val, "1 box wholly beyond the image, dropped from training (c)");
    assert_tells(&val, "warning: 1 box begins at pixel 0, where VOC counts from 1");
    assert_eq!((report.boxes, report.learnable), (5, 3));
    let boxes: Vec<_> = val.annotations().iter().map(|a| a.bbox.0).collect();
    let [first, second, third] = [[1., 2., 8., 5.], [8., 2., 4., 5.], [-1., 2., 6., 5.]];
    assert_eq!(boxes[..3], [first, second, third]);
    assert_eq!(val.training_boxes(0).len(), report.learnable);
    let counted = val.report();
    assert_eq!(counted.degenerate.count, report.outside.count);
    assert_eq!(counted.clipped.count, report.beyond.count + report.outside.count);
}

#[test]
fn a_set_without_objects_is_refused_and_a_part_without_any_is_told() {
    let message = read(small_set("").path(), "val").unwrap_err().to_string();
    for part in ["Annotations: no object in any of the 2 annotations that are listed", "hint: "] {
        assert!(message.contains(part), "{message}");
    }
    let (val, _) = read(changed(OBJECT, "").path(), "val").unwrap();
    assert_tells(&val, "warning: val has no boxes: it cannot be trained on");
    let difficult = OBJECT.replace("<difficult>0", "<difficult>1");
    let (val, _) = read(changed(OBJECT, &difficult).path(), "val").unwrap();
    assert_tells(&val, "warning: val has only boxes that are difficult or wholly beyond");
    // What is empty in every list has another message, as before.
    let set = small_set("");
    for list in ["train", "val", "dog_train"] {
        let path = format!("VOC/deeper/ImageSets/Main/{list}.txt");
        std::fs::write(set.path().join(path), "").unwrap();
    }
    let message = read(set.path(), "val").unwrap_err().to_string();
    assert!(message.contains("no list names an image"), "{message}");
}

#[test]
fn an_image_that_a_list_names_twice_is_read_once_and_told() {
    let set = small_set(OBJECT);
    std::fs::write(set.path().join("VOC/deeper/ImageSets/Main/val.txt"), "c\nb\nc 1\nc\n").unwrap();
    let (val, report) = read(set.path(), "val").unwrap();
    assert_eq!(files(&val), ["c.png", "b.png"]);
    assert_eq!(report.listed_twice, named(2, &["val line 3", "val line 4"]));
    assert_tells(
        &val,
        "2 images listed again in the image set, taken once (val line 3, val line 4)",
    );
    assert_eq!(val.report().same_file.count, 0);
}

#[test]
fn of_two_elements_of_one_name_none_is_chosen() {
    let twice = |element: &str| format!("{element}{element}");
    for (element, says) in [
        ("<name>dog</name>", "c.xml: object[0].name: expected one, got 2"),
        ("<xmin>2</xmin>", "c.xml: object[0].bndbox.xmin: expected one, got 2"),
        ("<difficult>0</difficult>", "c.xml: object[0].difficult: expected one, got 2"),
        ("<width>8</width>", "c.xml: size.width: expected one, got 2"),
        ("<size><width>8</width><height>9</height></size>", "c.xml: size: expected one, got 2"),
    ] {
        let message =
            read(changed(element, &twice(element)).path(), "val").unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("hint: "), "{message}");
    }
}

#[test]
fn of_many_names_the_first_are_told() {
    let mut many = Named::default();
    for name in ["a", "a", "b", "c", "d", "e"] {
        many.add(name);
    }
    let notes =
        |beyond: &Named| Report { beyond: beyond.clone(), ..Report::default() }.notes().join("\n");
    let told = notes(&many);
    assert!(told.contains("6 boxes partly beyond") && told.contains("(a, b, c, d, e)"), "{told}");
    many.add("f");
    many.add("g");
    assert!(notes(&many).contains("(a, b, c, d, e, …)"), "{}", notes(&many));
}
