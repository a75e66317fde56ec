//! Boxes are where they were on the pixels, whatever the EXIF orientation of their image.

use image::{Rgb, RgbImage};

use super::{super::PutImages, *};
use crate::data::{
    image_io::{Orientation, tests::jpeg_with_exif},
    image_store::ImageStore,
};

/// A white box on black, `[height, width]` and the box on the pixels as stored.
fn drawn(side: [u32; 2], [x, y, w, h]: [u32; 4]) -> RgbImage {
    RgbImage::from_fn(side[1], side[0], |at_x, at_y| {
        let inside = (x..x + w).contains(&at_x) && (y..y + h).contains(&at_y);
        Rgb([if inside { 255 } else { 0 }; 3])
    })
}

/// The box of what is white.
fn white(image: &RgbImage) -> [f64; 4] {
    let at: Vec<_> =
        image.enumerate_pixels().filter(|(.., p)| p[0] > 127).map(|(x, y, _)| (x, y)).collect();
    let (xs, ys) = (at.iter().map(|p| p.0), at.iter().map(|p| p.1));
    let (x, y) = (xs.clone().min().unwrap(), ys.clone().min().unwrap());
    [x, y, xs.max().unwrap() + 1 - x, ys.max().unwrap() + 1 - y].map(f64::from)
}

/// A COCO file of one image.
fn coco(folder: &Path, size: Option<[u32; 2]>, bbox: [f64; 4], jpeg: &[u8]) -> PathBuf {
    let size = size.map_or(String::new(), |[h, w]| format!(r#", "width": {w}, "height": {h}"#));
    write(folder, "images/a.jpg", jpeg);
    let text = format!(
        r#"{{"images": [{{"id": 1, "file_name": "a.jpg"{size}}}], "categories": [{{"id": 1, "name": "x"}}],
        "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "bbox": {bbox:?}}}]}}"#
    );
    write(folder, "train.json", text)
}

/// Reads what was written, as it is read by default, and gives the box and the white in the image.
fn read_back(output: &Path) -> ([f64; 4], [f64; 4]) {
    let opening = Opening { usual_split: Some("train"), ..Opening::default() };
    let set = Dataset::open_as(output, &opening).unwrap();
    let store = ImageStore::open(set.images_at().unwrap(), Orientation::Exif).unwrap();
    let image = store.image(&set.images()[0].file_name).unwrap();
    let size = [image.height(), image.width()];
    assert_eq!(set.images()[0].size, Some(size));
    (set.annotations()[0].bbox.0, white(&image))
}

fn assert_near(one: [f64; 4], other: [f64; 4], what: &str) {
    let near = one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(near, "{what}: {one:?} {other:?}");
}

#[test]
fn yolo_has_boxes_where_viewers_show_them() {
    let on_stored = [8, 16, 24, 8];
    for side in [[48, 64], [64, 64]] {
        let stored_image = drawn(side, on_stored);
        for exif in 1..=8 {
            let jpeg = jpeg_with_exif(&stored_image, exif);
            let shown =
                crate::data::image_io::decode_bytes(&jpeg, Path::new("a"), Orientation::Exif)
                    .unwrap()
                    .image;
            let shown_size = [shown.height(), shown.width()];
            for (is_stored, has_size) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                let what = format!("exif {exif} of {side:?}, stored {is_stored}, size {has_size}");
                let folder = tempfile::tempdir().unwrap();
                let (size, bbox, orientation) = match is_stored {
                    true => (side, on_stored.map(f64::from), Orientation::Stored),
                    false => (shown_size, white(&shown), Orientation::Exif),
                };
                let input = coco(folder.path(), has_size.then_some(size), bbox, &jpeg);
                // Where the size shows it, nothing need be said.
                let clear = has_size && side != shown_size;
                let said = if clear { Orientation::Exif } else { orientation };
                for said in [said, orientation] {
                    let output = tempfile::tempdir().unwrap();
                    let opening = Opening { orientation: said, ..Opening::default() };
                    let how = Conversion { opening, ..Conversion::to(Target::Yolo) };
                    let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
                    let (bbox, white) = read_back(output.path());
                    assert_near(bbox, white, &what);
                    let told = |text: &str| report.notes.iter().any(|note| note.contains(text));
                    assert_eq!(told("are turned"), is_stored && exif > 1, "{what} {report:?}");
                    let guessed = told("do not show which way up");
                    // In the image as shown this box ends below the pixels as stored.
                    let fits_alone = !is_stored && exif >= 7;
                    let open = side == shown_size || !has_size && !fits_alone;
                    assert_eq!(guessed, exif > 1 && open, "{what} {report:?}");
                }
            }
        }
    }
}

/// Of an image that is turned upside down, the size is that of both frames.
#[test]
fn coco_too_says_where_the_size_does_not_show_the_frame() {
    for (exif, size, open) in
        [(3, true, true), (3, false, true), (6, true, false), (1, false, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), exif);
        let input = coco(folder.path(), size.then_some([48, 64]), [8.0, 16.0, 24.0, 8.0], &jpeg);
        for target in [Target::Coco, Target::Yolo] {
            let output = tempfile::tempdir().unwrap();
            let report = to(target, &input, output.path()).unwrap();
            let guessed = report.notes.iter().any(|note| note.contains("do not show which way up"));
            assert_eq!(guessed, open, "{exif} {size} {target:?}: {:?}", report.notes);
        }
    }
}

/// Files that say the size of their frame keep their numbers; a size that is read is that of the frame said.
#[test]
fn coco_and_lvis_keep_the_frame_that_they_name() {
    let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 6);
    for (target, size, orientation, expected) in [
        (Target::Coco, Some([48, 64]), Orientation::Exif, [48, 64]),
        (Target::Lvis, Some([64, 48]), Orientation::Exif, [64, 48]),
        (Target::Coco, None, Orientation::Exif, [64, 48]),
        (Target::Lvis, None, Orientation::Stored, [48, 64]),
    ] {
        let (folder, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let input = coco(folder.path(), size, [1.0, 2.0, 3.0, 4.0], &jpeg);
        let opening = Opening { orientation, ..Opening::default() };
        let how = Conversion { opening, ..Conversion::to(target) };
        let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
        let set = Dataset::open(&report.splits[0].path).unwrap();
        assert_eq!(set.images()[0].size, Some(expected));
        assert_eq!(set.annotations()[0].bbox.0, [1.0, 2.0, 3.0, 4.0]);
        let guessed = report.notes.iter().any(|note| note.contains("do not show which way up"));
        assert_eq!(guessed, size.is_none(), "{:?}", report.notes);
    }
}

/// Boxes that fit into one of the two frames alone show which one it is, where nothing else does.
#[test]
fn boxes_show_the_frame_where_no_size_does() {
    let on_stored = [8, 16, 54, 24];
    let jpeg = jpeg_with_exif(&drawn([48, 64], on_stored), 6);
    let folder = tempfile::tempdir().unwrap();
    let bbox = on_stored.map(f64::from);
    let inputs = [coco(folder.path(), None, bbox, &jpeg), voc(folder.path(), None, bbox, &jpeg)];
    for input in inputs {
        let output = tempfile::tempdir().unwrap();
        let report = to(Target::Yolo, &input, output.path()).unwrap();
        let (bbox, white) = read_back(output.path());
        assert_near(bbox, white, &input.display().to_string());
        let told = |text: &str| report.notes.iter().any(|note| note.contains(text));
        assert!(told("are turned") && !told("do not show which way up"), "{:?}", report.notes);
    }
}

/// What is written in the frame of the pixels as stored says how it must be read.
#[test]
fn files_in_the_stored_frame_say_so() {
    let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 6);
    for (size, said, expected) in [
        (Some([48, 64]), Orientation::Exif, Orientation::Stored),
        (Some([64, 48]), Orientation::Exif, Orientation::Exif),
        (Some([64, 48]), Orientation::Stored, Orientation::Exif),
        (None, Orientation::Stored, Orientation::Stored),
        (None, Orientation::Exif, Orientation::Exif),
    ] {
        let (folder, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let input = coco(folder.path(), size, [8.0, 16.0, 24.0, 8.0], &jpeg);
        let opening = Opening { orientation: said, ..Opening::default() };
        let how = Conversion { opening, ..Conversion::to(Target::Coco) };
        let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
        assert_eq!(report.orientation, expected, "{size:?} {said:?}");
        let told = report.notes.iter().any(|note| note.contains("read the new files so, too"));
        assert_eq!(told, expected == Orientation::Stored, "{:?}", report.notes);
    }
}

#[test]
fn shares_are_never_taken_for_the_pixels_as_stored() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 6);
    let input = coco(folder.path(), Some([48, 64]), [8.0, 16.0, 24.0, 8.0], &jpeg);
    let yolo = folder.path().join("yolo");
    to(Target::Yolo, &input, &yolo).unwrap();
    for target in [Target::Coco, Target::Yolo] {
        let output = tempfile::tempdir().unwrap();
        let again = |orientation| {
            let opening = Opening { orientation, ..Opening::default() };
            let how = Conversion { opening, ..Conversion::to(target) };
            convert(&yolo, output.path(), &how, &GO, &mut go_on)
        };
        let error = again(Orientation::Stored).unwrap_err().to_string();
        assert!(error.contains("orientation") && error.contains("a.jpg"), "{error}");
        again(Orientation::Exif).unwrap();
        if target == Target::Yolo {
            let (bbox, white) = read_back(output.path());
            assert_near(bbox, white, "yolo again");
        }
    }
}

#[test]
fn images_that_cannot_be_asked_are_refused_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 6);
    let input = coco(folder.path(), Some([48, 64]), [8.0, 16.0, 24.0, 8.0], &jpeg);
    std::fs::remove_file(folder.path().join("images/a.jpg")).unwrap();
    let output = folder.path().join("yolo");
    let error = to(Target::Yolo, &input, &output).unwrap_err().to_string();
    assert!(error.contains("train.json") && error.contains("put_images"), "{error}");
    let how = Conversion { images: Some(PutImages::Keep), ..Conversion::to(Target::Yolo) };
    let report = convert(&input, &output, &how, &GO, &mut go_on).unwrap();
    let unknown = "train: images with boxes whose EXIF orientation is not known 1";
    assert!(lost(&report).contains(&unknown.to_owned()), "{:?}", lost(&report));
}

/// An image of VOC with this box, and a size if one is given.
fn voc(folder: &Path, size: Option<[u32; 2]>, [x, y, w, h]: [f64; 4], jpeg: &[u8]) -> PathBuf {
    let size = size.map_or(String::new(), |[height, width]| {
        format!("<size><width>{width}</width><height>{height}</height></size>")
    });
    write(folder, "voc/JPEGImages/a.jpg", jpeg);
    let xml = format!(
        "<annotation>{size}<object><name>x</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}\
         </ymax></bndbox></object></annotation>",
        x + 1.0,
        y + 1.0,
        x + w,
        y + h
    );
    write(folder, "voc/Annotations/a.xml", xml);
    folder.join("voc")
}

#[test]
fn vocs_boxes_are_in_the_frame_that_the_xml_or_the_user_says() {
    let (side, on_stored) = ([48, 64], [8, 16, 24, 8]);
    let stored_image = drawn(side, on_stored);
    for exif in 1..=8 {
        let jpeg = jpeg_with_exif(&stored_image, exif);
        let shown = crate::data::image_io::decode_bytes(&jpeg, Path::new("a"), Orientation::Exif);
        let shown = shown.unwrap().image;
        let shown_size = [shown.height(), shown.width()];
        for (is_stored, has_size) in [(true, true), (true, false), (false, true), (false, false)] {
            let what = format!("exif {exif}, stored {is_stored}, size {has_size}");
            let folder = tempfile::tempdir().unwrap();
            let (size, bbox, said) = match is_stored {
                true => (side, on_stored.map(f64::from), Orientation::Stored),
                false => (shown_size, white(&shown), Orientation::Exif),
            };
            let input = voc(folder.path(), has_size.then_some(size), bbox, &jpeg);
            let opening = Opening { orientation: said, ..Opening::default() };
            let set = Dataset::open_as(&input, &opening).unwrap();
            assert_eq!(
                (set.images()[0].size, set.annotations()[0].bbox.0),
                (Some(size), bbox),
                "{what}"
            );
            // Training cuts no box at the border of another frame.
            assert_eq!(set.report().clipped.count, 0, "{what}");
            let warnings = &set.report().warnings;
            let advised = warnings.iter().any(|line| line.contains("nothing shows which way up"));
            // In the image as shown this box ends below the pixels as stored.
            let fits_alone = !is_stored && exif >= 7;
            let open = !has_size && exif > 1 && !fits_alone;
            assert_eq!(advised, open, "{what}: {warnings:?}");
            for target in [Target::Yolo, Target::Coco] {
                let output = tempfile::tempdir().unwrap();
                let how = Conversion { opening: opening.clone(), ..Conversion::to(target) };
                let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
                if target == Target::Yolo {
                    let (bbox, white) = read_back(output.path());
                    assert_near(bbox, white, &what);
                } else {
                    let set = Dataset::open(&report.splits[0].path).unwrap();
                    let found = (set.images()[0].size, set.annotations()[0].bbox.0);
                    assert_eq!(found, (Some(size), bbox), "{what}");
                }
            }
        }
    }
}

/// The XML's size is that of the pixels as stored, and nobody says so.
#[test]
fn vocs_boxes_on_stored_pixels_are_turned_too() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 8);
    let input = voc(folder.path(), Some([48, 64]), [8.0, 16.0, 24.0, 8.0], &jpeg);
    let output = folder.path().join("yolo");
    to(Target::Yolo, &input, &output).unwrap();
    let (bbox, white) = read_back(&output);
    assert_near(bbox, white, "voc");
}

#[test]
fn sizes_that_the_images_gave_show_no_frame_and_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let image = drawn([48, 64], [8, 16, 24, 8]);
    let xml = "<annotation><object><name>x</name><bndbox><xmin>9</xmin><ymin>17</ymin><xmax>32</xmax>\
               <ymax>24</ymax></bndbox></object></annotation>";
    for exif in 1..=8 {
        write(folder.path(), &format!("JPEGImages/{exif}.jpg"), jpeg_with_exif(&image, exif));
        write(folder.path(), &format!("Annotations/{exif}.xml"), xml);
    }
    let output = folder.path().join("out");
    for target in [Target::Coco, Target::Yolo] {
        let report = to(target, folder.path(), &output).unwrap();
        std::fs::remove_dir_all(&output).unwrap();
        let read = report.splits[0].read.to_string();
        assert!(
            read.contains("7 images have an EXIF orientation and no size in the XML"),
            "{read}"
        );
        let notes = report.notes.join("\n");
        assert!(notes.contains("7 images with an EXIF orientation (2.jpg"), "{notes}");
    }
}

/// Boxes that end a little beyond the image are usual, and turn none; images without boxes are not asked.
#[test]
fn a_box_that_ends_a_little_beyond_shows_no_frame() {
    for (bbox, turned, guessed) in [
        // Shown it is 48 wide and 64 high; stored 64 wide and 48 high.
        ([8.0, 16.0, 40.4, 8.0], false, true),
        ([8.0, 16.0, 50.0, 8.0], true, false),
        ([8.0, 16.0, 8.0, 46.0], false, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let jpeg = jpeg_with_exif(&drawn([48, 64], [8, 16, 24, 8]), 6);
        let input = coco(folder.path(), None, bbox, &jpeg);
        let output = tempfile::tempdir().unwrap();
        let report = to(Target::Yolo, &input, output.path()).unwrap();
        let told = |text: &str| report.notes.iter().any(|note| note.contains(text));
        assert_eq!(told("are turned"), turned, "{bbox:?}: {:?}", report.notes);
        assert_eq!(told("do not show which way up"), guessed, "{bbox:?}: {:?}", report.notes);
        let text = std::fs::read_to_string(&input).unwrap();
        let start = text.find("\"annotations\"").unwrap();
        std::fs::write(&input, format!("{}\"annotations\": []}}", &text[..start])).unwrap();
        let output = tempfile::tempdir().unwrap();
        let report = to(Target::Coco, &input, output.path()).unwrap();
        assert!(!report.notes.iter().any(|note| note.contains("which way up")), "{report:?}");
    }
}
