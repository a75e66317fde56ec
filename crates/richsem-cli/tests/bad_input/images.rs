//! Images, archives of images, and Pascal VOC sets.

use super::{all_refused, assert_same, contents, refused, util::Dir};

const TRAIN: [&str; 7] = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
const NONE_ALLOWED: [&str; 2] = ["--set", "data.max_broken_images=0"];

/// An image of the training set.
const IMAGE: &str = "set/images/train/000003.jpg";

/// What is wrong with [`IMAGE`], what it becomes (`None`: it goes), and what must be said.
type WrongImage = (&'static str, Option<Vec<u8>>, [&'static str; 2]);

fn wrong_images(dir: &Dir) -> Vec<WrongImage> {
    let whole = dir.read(IMAGE);
    let mut other = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(40, 30).write_to(&mut other, image::ImageFormat::Png).unwrap();
    let again = "hint: copy or download the file again";
    vec![
        (
            "missing",
            None,
            ["there is no such file", "hint: repair or remove these files, or raise the limit"],
        ),
        (
            "empty",
            Some(vec![]),
            ["image: expected JPEG, PNG, WebP, BMP, TIFF or GIF, got an empty file", again],
        ),
        (
            "cut off",
            Some(whole[..whole.len() / 2].to_vec()),
            ["JPEG: the file ends before the image does", again],
        ),
        (
            "a web page",
            Some(b"<html>".to_vec()),
            ["got a web page (HTML)", "download the file again"],
        ),
        (
            "another size",
            Some(other.into_inner()),
            ["image: expected ", "hint: the image was resized or replaced"],
        ),
    ]
}

#[test]
fn a_broken_image_beyond_the_allowed_number_stops_a_run_that_can_go_on_when_it_is_mended() {
    let dir = Dir::with_data();
    let whole = dir.read(IMAGE);
    for (name, content, says) in wrong_images(&dir) {
        match content {
            Some(bytes) => drop(dir.write(IMAGE, bytes)),
            None => std::fs::remove_file(dir.path(IMAGE)).unwrap(),
        }
        let ran = dir.command(&[&TRAIN[..], &NONE_ALLOWED].concat()).fails(1);
        let first = "data.max_broken_images: more than the allowed 0 images could not be read";
        for text in [first, "train/000003.jpg", says[0], says[1]] {
            assert!(ran.stderr.contains(text), "{name}: no `{text}`: {ran:?}");
        }
        assert!(!contents(&dir).keys().any(|file| file.contains(".tmp-")), "{name}");
        dir.write(IMAGE, &whole);
        if name == "missing" {
            dir.command(&["train", "--resume", "run", "--device", "cpu"])
                .ok()
                .stderr_has("finished");
        }
        std::fs::remove_dir_all(dir.path("run")).unwrap();
    }
}

#[test]
fn broken_images_within_the_allowed_number_are_named_and_reported_at_the_end() {
    let dir = Dir::with_data();
    dir.write(IMAGE, "");
    dir.write("set/images/val/000002.jpg", "");
    let ran = dir.command(&[&TRAIN[..], &["--set", "data.max_broken_images=2"]].concat()).ok();
    let (skipped, report) = (
        ran.stderr.find("skipped: ").unwrap(),
        ran.stderr.find("2 images could not be read:").unwrap(),
    );
    assert!(skipped < report && ran.stderr[report..].contains("train/000003.jpg"), "{ran:?}");
    assert!(ran.stderr[report..].contains("val/000002.jpg"), "{ran:?}");
    assert!(ran.stderr.rfind("  step ").unwrap() < report, "{ran:?}");
    ran.stderr_has("finished in");
}

#[test]
fn an_archive_that_is_wrong_is_refused_before_a_folder_is_made() {
    let dir = Dir::with_data();
    let mut builder = tar::Builder::new(Vec::new());
    for file in dir.files("set/images/train") {
        let path = dir.path(&format!("set/images/train/{file}"));
        builder.append_path_with_name(path, format!("train/{file}")).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    dir.write("cut.tar", &archive[..archive.len() / 2]);
    dir.write("gzip.tar", b"\x1f\x8b\x08rest");
    dir.write("empty.tar", "");
    let with = |images| [&TRAIN[..], &["--set", images]].concat();
    all_refused(
        &dir,
        &[
            (
                "cut off",
                &with("data.train.images=cut.tar"),
                &["cut.tar: tar archive: ", "truncated", "hint: "],
            ),
            (
                "compressed",
                &with("data.train.images=gzip.tar"),
                &["gzip.tar: tar archive: compressed with gzip", "hint: unpack it: mkdir"],
            ),
            (
                "empty",
                &with("data.train.images=empty.tar"),
                &["empty.tar: tar archive: the file is empty"],
            ),
            (
                "another file",
                &with("data.train.images=tiny.toml"),
                &[
                    "tiny.toml: tar archive: this is neither a folder nor a tar archive\n",
                    "hint: expected a folder of images or",
                ],
            ),
        ],
    );
    // Images under other names than the annotations have.
    dir.write("good.tar", &archive);
    let names = dir.text("set/train.json").replace("train/0000", "elsewhere/0000");
    dir.write("renamed.json", names);
    let renamed =
        ["--set", "data.train.images=good.tar", "--set", "data.train.annotations=renamed.json"];
    let says = [
        "data.train.images: the archive `",
        "good.tar` holds none of the annotated images, as `elsewhere/0000",
        "; its images are called as `train/0000",
        "hint: give what the file names in the annotations are relative to",
    ];
    all_refused(&dir, &[("renamed", &[&TRAIN[..], &renamed].concat(), &says)]);
    // One alone is a broken image like others.
    let names = dir.text("set/train.json").replace("train/000003", "elsewhere/000003");
    dir.write("renamed.json", names);
    dir.command(&[&TRAIN[..], &NONE_ALLOWED, &renamed].concat())
        .fails(1)
        .stderr_has("data.max_broken_images: ")
        .stderr_has("good.tar: elsewhere/000003.jpg: not among the archive's 12 files")
        .stderr_has("hint: its names look like `train/0000");
}

#[test]
fn a_folder_without_the_images_is_told_as_the_setting_that_is_wrong() {
    let dir = Dir::with_run();
    dir.write("others/x.jpg", "");
    let train = ["train", "-c", "tiny.toml", "--run", "other", "--device", "cpu", "--set"];
    let eval = ["eval", "--annotations", "set/val.json", "--weights", "run", "--device", "cpu"];
    let hint = "annotations are relative to";
    all_refused(
        &dir,
        &[
            (
                "train",
                &[&train[..], &["data.train.images=others"]].concat(),
                &["data.train.images: the folder `", "holds none of", "as `train/0000", hint],
            ),
            (
                "val",
                &[&train[..], &["data.val.images=others"]].concat(),
                &["data.val.images: the folder `", "holds none of", "as `val/0000", hint],
            ),
            (
                "eval",
                &[&eval[..], &["--images", "others"]].concat(),
                &["--images: the folder `others` holds none of", "as `val/0000", hint],
            ),
        ],
    );
}

#[test]
fn what_is_no_image_is_not_predicted_on() {
    let dir = Dir::with_run();
    dir.write("notes.txt", "no image");
    dir.write("folder/notes.txt", "no image");
    let predict = |input| ["predict", input, "--weights", "run", "--device", "cpu", "-o", "out"];
    all_refused(
        &dir,
        &[
            (
                "a pattern without a match",
                &predict("none/*.jpg"),
                &[
                    "none/*.jpg: no image (.jpg, .jpeg, .jpe, .jfif, .png, .webp, .bmp, .tif, .tiff, .gif) has such a name",
                    "hint: ",
                ],
            ),
            ("a broken pattern", &predict("***"), &["***: "]),
            (
                "a folder without images",
                &predict("folder"),
                &["folder: no images in this folder", "hint: the folders in it were searched"],
            ),
            ("absent", &predict("none.jpg"), &["none.jpg: no such file or folder", "hint: "]),
        ],
    );
    // A text file is a list of images.
    dir.command(&predict("notes.txt"))
        .fails(1)
        .stderr_has("notes.txt: line 1: there is no file `no image`");
    assert!(!dir.exists("out"));
    // Another file that is named is tried, said to be no image, and counted.
    dir.write("notes.md", "no image");
    let ran = dir.command(&predict("notes.md")).fails(1);
    ran.stderr_has("skipped: notes.md: image: expected JPEG, PNG, WebP, BMP, TIFF or GIF, got bytes that begin with")
        .stderr_has("hint: this is no image")
        .stderr_has("1 of 1 image could not be read");
    assert_eq!(dir.files("out"), [".predicted", "detections.json"]);
}

#[test]
fn a_voc_set_that_is_wrong_leaves_no_folder() {
    const GOOD: &str = "<annotation><size><width>20</width><height>20</height></size><object>\
                        <name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>\
                        <ymax>9</ymax></bndbox></object></annotation>";
    let dir = Dir::new();
    dir.write("voc/JPEGImages/a.jpg", "");
    let convert = ["dataset", "from-voc", "voc", "out/coco"];
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "cut off",
            &GOOD[..80],
            &["Annotations/a.xml: XML: broken", "hint: is the file truncated?"],
        ),
        (
            "empty",
            "",
            &["Annotations/a.xml: XML: expected <annotation>, got an empty file", "hint: "],
        ),
        (
            "another format",
            "<svg></svg>",
            &[
                "Annotations/a.xml: XML: expected <annotation>, got <svg>",
                "hint: expected Pascal VOC's format",
            ],
        ),
        (
            "a web page",
            "<html></html>",
            &["Annotations/a.xml: contents: expected annotations, got a web page", "hint: "],
        ),
        (
            "a number that is none",
            &GOOD.replace("<xmin>1", "<xmin>one"),
            &["Annotations/a.xml: object[0].bndbox.xmin: expected a finite number, got `one`"],
        ),
        (
            "NaN",
            &GOOD.replace("<xmin>1", "<xmin>NaN"),
            &["Annotations/a.xml: object[0].bndbox.xmin: expected a finite number, got `NaN`"],
        ),
    ];
    for (name, xml, says) in cases {
        dir.write("voc/Annotations/a.xml", xml);
        refused(&dir, name, dir.command(&convert), 1, says);
    }
    dir.write("voc/Annotations/a.xml", GOOD);
    dir.write("voc/ImageSets/Main/train.txt", "a\nb\n");
    refused(
        &dir,
        "a list",
        dir.command(&convert),
        1,
        &["voc: image set train, line 2: no Annotations/b.xml", "hint: "],
    );
    std::fs::remove_dir_all(dir.path("voc/ImageSets")).unwrap();
    // An archive that turns out to be cut off.
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("voc", dir.path("voc")).unwrap();
    let archive = builder.into_inner().unwrap();
    dir.write("good.tar", &archive);
    let end = archive.windows(9).position(|w| w == b"</object>").unwrap();
    dir.write("cut.tar", &archive[..end]);
    dir.write("earlier/all.json", "mine");
    let archived = |input, output| ["dataset", "from-voc", input, output];
    all_refused(
        &dir,
        &[
            (
                "cut.tar",
                &archived("cut.tar", "out"),
                &["cut.tar: archive: not a readable .tar", "hint: it may be truncated"],
            ),
            (
                "over an earlier one",
                &archived("good.tar", "earlier"),
                &[
                    "error: `earlier` exists and is not empty",
                    "hint: choose another folder, or pass",
                ],
            ),
            (
                "into an earlier one",
                &[&archived("cut.tar", "earlier")[..], &["--overwrite"]].concat(),
                &["cut.tar: archive: "],
            ),
            (
                "no set",
                &archived("earlier", "out"),
                &["earlier: Annotations: no Annotations/*.xml", "hint: a Pascal VOC set has"],
            ),
            (
                "absent",
                &archived("none", "out"),
                &["error: no such folder or archive as `none`", "hint: "],
            ),
        ],
    );
    dir.command(&archived("good.tar", "out")).ok();
    assert_eq!(dir.files("out"), ["all.json", "images/a.jpg"]);
    let before = contents(&dir);
    dir.command(&[&archived("good.tar", "out")[..], &["--overwrite"]].concat()).ok();
    assert_same("once more", &before, &contents(&dir));
}

#[test]
fn an_address_is_no_file_and_the_hint_says_how_to_get_it() {
    let dir = Dir::new();
    dir.write("a.jpg", "");
    dir.write("list.txt", "a.jpg\nhttps://example.org/b.jpg\n");
    let predict = |input| ["predict", input, "--weights", "none.safetensors"];
    let curl = "addresses are not fetched: get the file first (curl -LO ADDRESS)";
    all_refused(
        &dir,
        &[
            ("http", &predict("http://example.org/a.jpg?size=2"), &["http://example.org", curl]),
            ("https", &predict("HTTPS://example.org/a"), &["HTTPS://example.org/a", curl]),
            ("s3", &predict("s3://bucket/a.jpg"), &["s3://bucket/a.jpg", "aws s3 cp"]),
            ("a path", &predict("file:///tmp/a.jpg"), &["give the path alone: /tmp/a.jpg"]),
            ("in a list", &predict("list.txt"), &["list.txt: line 2: `https://example.org", curl]),
            (
                "a set",
                &["dataset", "stats", "https://example.org/a.json"],
                &["is an address", curl],
            ),
            (
                "weights",
                &["predict", "a.jpg", "--weights", "https://example.org/a.pth"],
                &["--weights: `https://example.org/a.pth` is an address", curl],
            ),
        ],
    );
}
