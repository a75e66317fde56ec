//! COCO's files in archives give what they give in folders.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::data::{dataset::Dataset, formats::Opening, image_store::ImageStore};

fn coco(image: &str) -> String {
    format!(
        r#"{{"images": [{{"id": 1, "file_name": "{image}", "width": 8, "height": 6}}],
        "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}}],
        "categories": [{{"id": 1, "name": "a"}}]}}"#
    )
}

/// An archive of these files; images are drawn, and `.gz` is packed.
fn archive(top: &str, files: &[(&str, &str)]) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    let mut builder = tar::Builder::new(file.reopen().unwrap());
    for (name, text) in files {
        let mut bytes = text.as_bytes().to_vec();
        if name.ends_with(".png") {
            bytes.clear();
            let image = image::RgbImage::new(8, 6);
            image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        } else if name.ends_with(".gz") {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            std::io::Write::write_all(&mut packer, &bytes).unwrap();
            bytes = packer.finish().unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{top}{name}"), &*bytes).unwrap();
    }
    builder.finish().unwrap();
    file
}

fn part(path: &Path, split: &str) -> crate::Result<Dataset> {
    Dataset::open_as(path, &Opening { split: Some(split.to_owned()), ..Opening::default() })
}

#[test]
fn each_layout_is_read_in_an_archive_as_in_a_folder() {
    let (a, b) = (coco("a.png"), coco("b.png"));
    let deep = coco("/elsewhere/b.png".trim_start_matches('/'));
    type Layout<'a> = (&'a [(&'a str, &'a str)], [&'a str; 2], &'a str);
    let layouts: [Layout<'_>; 5] = [
        (
            &[("train.json", &a), ("val.json", &b), ("images/a.png", ""), ("images/b.png", "")],
            ["train", "val"],
            "images/b.png",
        ),
        (
            &[
                ("train/_annotations.coco.json", &a),
                ("train/a.png", ""),
                ("valid/_annotations.coco.json", &b),
                ("valid/b.png", ""),
            ],
            ["train", "valid"],
            "valid/b.png",
        ),
        (
            &[
                ("annotations/instances_train2017.json", &a),
                ("annotations/instances_val2017.json", &b),
                ("annotations/captions_val2017.json", &b),
                ("other.json", &b),
                ("train2017/a.png", ""),
                ("val2017/b.png", ""),
            ],
            ["train2017", "val2017"],
            "val2017/b.png",
        ),
        (
            &[("train.json.gz", &a), ("val.json.gz", &b), ("a.png", ""), ("b.png", "")],
            ["train", "val"],
            "b.png",
        ),
        (
            &[("train.json", &a), ("val.json", &deep), ("images/a.png", ""), ("images/b.png", "")],
            ["train", "val"],
            "images/b.png",
        ),
    ];
    for (files, parts, image) in layouts {
        for top in ["", "./", "set/"] {
            let archive = archive(top, files);
            assert_eq!(Dataset::parts(archive.path(), &Opening::default()).unwrap(), parts);
            let val = part(archive.path(), "val").unwrap();
            let name = format!("{}{image}", top.trim_start_matches("./"));
            assert_eq!((val.format_name(), val.split()), ("coco", parts[1]));
            assert_eq!(val.images()[0].file_name, name);
            assert_eq!((val.annotations().len(), val.images_at()), (1, Some(archive.path())));
            let store = ImageStore::open(archive.path(), Default::default()).unwrap();
            assert_eq!(store.size(&name).unwrap(), [6, 8]);
        }
    }
}

#[test]
fn labels_of_single_images_are_no_set_and_mistakes_name_the_file() {
    let record = r#"{"images": 1, "annotations": []}"#;
    let samples = archive("", &[("0.json", record), ("0.png", "")]);
    let error = Dataset::open(samples.path()).unwrap_err().to_string();
    assert!(error.contains("an archive without any") && error.contains("data.extra"), "{error}");
    let broken = archive("set/", &[("train.json", &coco("a.png").replace("[0, 0, 4, 4]", "[0]"))]);
    let error = Dataset::open(broken.path()).unwrap_err().to_string();
    assert!(error.contains("set/train.json") && error.contains("bbox"), "{error}");
    // Cut anywhere: an error or what is whole, never a panic.
    let whole = archive("", &[("train.json", &coco("a.png")), ("a.png", "")]);
    let bytes = fs_err::read(whole.path()).unwrap();
    for end in (0..bytes.len()).step_by(131) {
        fs_err::write(whole.path(), &bytes[..end]).unwrap();
        let _ = Dataset::open(whole.path());
    }
}

/// A film each; and files of another kind that are sorted before the set's.
#[test]
fn an_archive_may_have_many_files() {
    let (image, other) = (coco("a.png"), r#"{"shapes": []}"#);
    let films: Vec<String> = (0..100).map(|i| format!("annotations/film_{i:03}.json")).collect();
    let mut files: Vec<(&str, &str)> = films.iter().map(|name| (name.as_str(), &*image)).collect();
    files.push(("images/a.png", ""));
    let packed = archive("", &files);
    assert_eq!(Dataset::parts(packed.path(), &Opening::default()).unwrap().len(), 100);
    assert_eq!(part(packed.path(), "film_099").unwrap().annotations().len(), 1);
    let mut files: Vec<(&str, &str)> = films.iter().map(|name| (name.as_str(), other)).collect();
    files.extend([("annotations/train.json", &*image), ("images/a.png", "")]);
    let packed = archive("", &files);
    assert_eq!(Dataset::open(packed.path()).unwrap().annotations().len(), 1);
}

/// Of an image that is listed twice, also by the end of its name.
#[test]
fn cut_names_tell_apart_what_whole_names_do() {
    let record = r#"{"id": 1, "file_name": "/elsewhere/set/a.png", "width": 8, "height": 6}"#;
    let text = coco("a.png").replace(
        r#"{"id": 1, "file_name": "a.png", "width": 8, "height": 6}"#,
        &[record, &record.replace("\"id\": 1", "\"id\": 2")].join(", "),
    );
    let packed = archive("", &[("train.json", &text), ("a.png", "")]);
    let set = Dataset::open(packed.path()).unwrap();
    assert_eq!(set.images_at(), Some(packed.path()));
    assert_eq!(set.images().len(), 2);
}
