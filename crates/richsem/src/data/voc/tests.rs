//! Against hotcoco's converter on real sets, and files that are wrong in one way each.
#![allow(clippy::unwrap_used)]

mod odd_input;

use std::path::Path;

use super::{AtomicBool, ConversionReport, Error, convert};
use crate::{data::dataset::Dataset, error::Result, testing::shared, vocabulary::CategoryId};

/// (file name, class name, box, crowd), sorted.
type Boxes = Vec<(String, String, [f64; 4], bool)>;

fn sorted(mut boxes: Boxes) -> Boxes {
    boxes.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)).then(a.2.partial_cmp(&b.2).unwrap()));
    boxes
}

fn ours(report: &ConversionReport, split: &str) -> Boxes {
    let path = &report.splits.iter().find(|s| s.name == split).unwrap().path;
    let dataset = Dataset::open(path).unwrap();
    let boxes = dataset.annotations().iter().map(|a| {
        let image = &dataset.images()[a.image as usize];
        let class = &dataset.vocabulary().category(a.class).name;
        (image.file_name.clone(), class.clone(), a.bbox.0, a.crowd)
    });
    sorted(boxes.collect())
}

/// hotcoco's reading of a folder, which must have sizes and right names in the XML.
fn theirs(folder: &Path) -> Boxes {
    let dataset = hotcoco::convert::voc_to_coco(folder).unwrap();
    let boxes = dataset.annotations.iter().map(|a| {
        let image = dataset.images.iter().find(|i| i.id == a.image_id).unwrap();
        let class = dataset.categories.iter().find(|c| c.id == a.category_id).unwrap();
        (image.file_name.clone(), class.name.clone(), a.bbox.unwrap(), a.iscrowd)
    });
    sorted(boxes.collect())
}

#[test]
fn bccd_is_converted_from_its_archive_as_hotcoco_does_from_a_folder() {
    let Some(archive) = shared("photos/bccd/BCCD.tar") else { return };
    let output = tempfile::tempdir().unwrap();
    let report = convert(&archive, output.path(), false, &GO).unwrap();
    let counts: Vec<_> =
        report.splits.iter().map(|s| (s.name.as_str(), s.images, s.boxes)).collect();
    assert_eq!(
        counts.iter().map(|c| (c.0, c.1)).collect::<Vec<_>>(),
        [("train", 205), ("val", 87), ("trainval", 292), ("test", 72)]
    );
    assert_eq!(counts[0].2 + counts[1].2, counts[2].2);
    assert_eq!(counts[2].2 + counts[3].2, 4888, "every box is in one of the two");
    assert_eq!(report.classes, ["Platelets", "RBC", "WBC"]);
    assert_eq!((report.difficult, report.degenerate.count, report.unlisted), (0, 0, 0));
    assert_eq!(report.listed_twice.count, 0);
    assert_eq!(report.image_root, output.path().join("images"));
    assert_eq!(std::fs::read_dir(&report.image_root).unwrap().count(), 364);

    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(std::fs::File::open(&archive).unwrap()).unpack(folder.path()).unwrap();
    let mut both = ours(&report, "trainval");
    both.extend(ours(&report, "test"));
    assert_eq!(sorted(both), theirs(&folder.path().join("BCCD")));

    // Extracted images are the archive's, and the sizes are theirs.
    let dataset = Dataset::open(&report.splits[3].path).unwrap();
    for image in dataset.images() {
        let bytes = std::fs::read(report.image_root.join(&image.file_name)).unwrap();
        let original = folder.path().join("BCCD/JPEGImages").join(&image.file_name);
        assert_eq!(bytes, std::fs::read(original).unwrap());
    }

    // From the folder: the same JSON, and nothing copied.
    let again = tempfile::tempdir().unwrap();
    let from_folder = convert(folder.path(), again.path(), false, &GO).unwrap();
    assert_eq!(from_folder.image_root, folder.path().join("BCCD/JPEGImages"));
    assert!(!again.path().join("images").exists());
    for (a, b) in report.splits.iter().zip(&from_folder.splits) {
        assert_eq!(std::fs::read(&a.path).unwrap(), std::fs::read(&b.path).unwrap());
    }
}

#[test]
fn voc_2012_without_image_sets_is_one_set() {
    let Some(source) = shared("photos/voc2012_100") else { return };
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path();
    for (from, to) in [("pascalvoc_format", "Annotations"), ("images", "JPEGImages")] {
        std::fs::create_dir(set.join(to)).unwrap();
        for entry in std::fs::read_dir(source.join(from)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), set.join(to).join(entry.file_name())).unwrap();
        }
    }
    let output = tempfile::tempdir().unwrap();
    let report = convert(set, output.path(), false, &GO).unwrap();
    assert_eq!(report.splits.len(), 1);
    let all = &report.splits[0];
    assert_eq!((all.name.as_str(), all.images, all.boxes), ("all", 100, 273));
    assert_eq!((report.classes.len(), report.difficult), (20, 38));
    assert_eq!(ours(&report, "all"), theirs(set));
    let dataset = Dataset::open(&all.path).unwrap();
    assert_eq!((dataset.report().crowd, dataset.report().clipped.count), (38, 0));
}

const OBJECT: &str = "<object><name>dog</name><difficult>0</difficult><bndbox><xmin>2</xmin>\
                      <ymin>3</ymin><xmax>5</xmax><ymax>7</ymax></bndbox></object>";

/// A set of images `a`, `b`, `c` of 8×9 pixels, each with these objects; `b` is in no image set.
fn small_set(objects: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("VOC/deeper");
    for sub in ["Annotations", "JPEGImages", "ImageSets/Main"] {
        std::fs::create_dir_all(set.join(sub)).unwrap();
    }
    for name in ["a", "b", "c"] {
        image::RgbImage::new(8, 9).save(set.join(format!("JPEGImages/{name}.png"))).unwrap();
        let xml = format!(
            "<annotation><filename>{name}.png</filename><size><width>8</width>\
             <height>9</height></size>{objects}</annotation>"
        );
        std::fs::write(set.join(format!("Annotations/{name}.xml")), xml).unwrap();
    }
    std::fs::write(set.join("ImageSets/Main/train.txt"), "a  1\n\na\n").unwrap();
    std::fs::write(set.join("ImageSets/Main/val.txt"), "c\r\n").unwrap();
    std::fs::write(set.join("ImageSets/Main/test.txt"), "\n").unwrap();
    std::fs::write(set.join("ImageSets/Main/dog_train.txt"), "a -1\n").unwrap();
    folder
}

/// The `stop` of tests that do not stop.
static GO: AtomicBool = AtomicBool::new(false);

fn converted(folder: &tempfile::TempDir) -> Result<(ConversionReport, tempfile::TempDir)> {
    let output = tempfile::tempdir().unwrap();
    convert(folder.path(), output.path(), false, &GO).map(|report| (report, output))
}

fn annotation(folder: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    folder.path().join(format!("VOC/deeper/Annotations/{name}.xml"))
}

#[test]
fn pixels_counted_from_one_become_corners_from_zero() {
    let (report, _output) = converted(&small_set(OBJECT)).unwrap();
    let names: Vec<_> = report.splits.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["train", "val"]);
    assert_eq!(report.empty_splits, ["test"]);
    assert_eq!(report.unlisted, 1, "b");
    let train = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!(train.annotations()[0].bbox.0, [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(train.annotations()[0].area, 20.0);
    // Listed twice, written once; the next image set goes on counting.
    let val = Dataset::open(&report.splits[1].path).unwrap();
    assert_eq!((train.images().len(), train.images()[0].id, val.images()[0].id), (1, 1, 2));
    assert_eq!((train.annotations()[0].id, val.annotations()[0].id), (1, 2));
    assert_eq!(
        (report.listed_twice.count, &report.listed_twice.names[..]),
        (1, &["train line 3".to_owned()][..])
    );
    assert!(report.to_string().contains("1 annotated images in no image set"));
    assert_eq!(report.passed_over.to_string(), "1 lists of a class (dog_train.txt)");
}

/// No list is read as another, and what is in none is in no file.
#[test]
fn every_image_set_has_a_file_of_its_own_name() {
    let set = small_set(OBJECT);
    let lists = set.path().join("VOC/deeper/ImageSets");
    std::fs::rename(lists.join("Main/train.txt"), lists.join("Main/minitrain.txt")).unwrap();
    std::fs::rename(lists.join("Main/val.txt"), lists.join("minival.txt")).unwrap();
    std::fs::write(lists.join("Main/valid.txt"), "a\nc\n").unwrap();
    std::fs::create_dir(lists.join("Layout")).unwrap();
    std::fs::write(lists.join("Layout/train.txt"), "a 1\n").unwrap();
    // Without a set `train` there is no `dog_train` of it.
    std::fs::remove_file(lists.join("Main/dog_train.txt")).unwrap();
    let (report, _output) = converted(&set).unwrap();
    let names = |split: &super::SplitReport| {
        let dataset = Dataset::open(&split.path).unwrap();
        let files = dataset.images().iter().map(|image| image.file_name.clone());
        (split.name.clone(), files.collect::<Vec<_>>().join(" "))
    };
    let expected = [("minitrain", "a.png"), ("minival", "c.png"), ("valid", "a.png c.png")];
    let expected = expected.map(|(name, files)| (name.to_owned(), files.to_owned()));
    assert_eq!(report.splits.iter().map(names).collect::<Vec<_>>(), expected);
    assert_eq!(report.unlisted, 1);
    assert!(report.passed_over.to_string().starts_with("1 .txt ("), "{}", report.passed_over);

    std::fs::write(lists.join("minitrain.txt"), "a\n").unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("there is another of this name"), "{text}");
}

/// Flags do not make a list one of a class: its images are then those of a set.
#[test]
fn a_list_with_flags_and_images_of_its_own_is_an_image_set() {
    let set = small_set(OBJECT);
    let lists = set.path().join("VOC/deeper/ImageSets/Main");
    std::fs::write(lists.join("mini_val.txt"), "b 1\n").unwrap();
    let (report, _output) = converted(&set).unwrap();
    let names: Vec<_> = report.splits.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["train", "val", "mini_val"]);
    assert_eq!(report.unlisted, 0);
}

#[test]
fn an_image_is_that_of_one_annotation() {
    let set = small_set(OBJECT);
    let root = set.path().join("VOC/deeper");
    for folder in ["Annotations/x", "Annotations/y", "JPEGImages/x"] {
        std::fs::create_dir(root.join(folder)).unwrap();
    }
    for folder in ["x", "y"] {
        let to = root.join(format!("Annotations/{folder}/a.xml"));
        std::fs::copy(root.join("Annotations/a.xml"), to).unwrap();
    }
    std::fs::remove_file(root.join("Annotations/a.xml")).unwrap();
    std::fs::write(root.join("ImageSets/Main/train.txt"), "x/a\ny/a\n").unwrap();
    std::fs::remove_file(root.join("ImageSets/Main/dog_train.txt")).unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("y/a.xml: JPEGImages/a.png is the image of `x/a`, too"), "{text}");
    std::fs::rename(root.join("JPEGImages/a.png"), root.join("JPEGImages/x/a.png")).unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("y/a.xml: its image is missing"), "{text}");
}

#[test]
fn folders_within_the_folders_are_gone_through() {
    let set = small_set(OBJECT);
    let root = set.path().join("VOC/deeper");
    let moved = |from: &str, to: &str| {
        std::fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        std::fs::rename(root.join(from), root.join(to)).unwrap();
    };
    // In folders of the same names, in one kind of folder alone, and in none.
    moved("Annotations/a.xml", "Annotations/x/a.xml");
    moved("JPEGImages/a.png", "JPEGImages/x/a.png");
    moved("Annotations/c.xml", "Annotations/y/z/c.xml");
    for (file, bytes) in [("Annotations/x/notes.md", ""), ("JPEGImages/._a.png", "")] {
        std::fs::write(root.join(file), bytes).unwrap();
    }
    std::fs::write(root.join("ImageSets/Main/train.txt"), "x/a\nb\n").unwrap();
    let archive = set.path().join("set.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    builder.append_dir_all("set", &root).unwrap();
    builder.finish().unwrap();
    for input in [root.clone(), archive] {
        let output = tempfile::tempdir().unwrap();
        let report = convert(&input, output.path(), false, &GO).unwrap();
        let train = Dataset::open(&report.splits[0].path).unwrap();
        let files: Vec<_> = train.images().iter().map(|i| i.file_name.as_str()).collect();
        assert_eq!(files, ["x/a.png", "b.png"], "{}", input.display());
        assert!(files.iter().all(|file| report.image_root.join(file).is_file()));
        assert_eq!(Dataset::open(&report.splits[1].path).unwrap().images()[0].file_name, "c.png");
        let passed_over = report.passed_over.to_string();
        assert!(
            passed_over.contains("1 .md (") && passed_over.contains("1 hidden ("),
            "{passed_over}"
        );
    }

    // One name in two folders is nobody's.
    std::fs::remove_file(root.join("ImageSets/Main/dog_train.txt")).unwrap();
    std::fs::copy(root.join("Annotations/x/a.xml"), root.join("Annotations/y/a.xml")).unwrap();
    std::fs::write(root.join("ImageSets/Main/train.txt"), "a\n").unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("image set train, line 1: `a` may be `x/a` or `y/a`"), "{text}");
    std::fs::write(root.join("ImageSets/Main/train.txt"), "y/a\n").unwrap();
    std::fs::create_dir(root.join("JPEGImages/w")).unwrap();
    std::fs::copy(root.join("JPEGImages/x/a.png"), root.join("JPEGImages/w/a.png")).unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("a.xml: its image may be JPEGImages/w/a or JPEGImages/x/a"), "{text}");
    std::fs::copy(root.join("JPEGImages/x/a.png"), root.join("JPEGImages/x/a.jpg")).unwrap();
    let text = converted(&set).unwrap_err().to_string();
    assert!(text.contains("image: there is another of this name"), "{text}");
}

#[test]
fn the_encoding_that_the_xml_says_is_obeyed() {
    let text = |encoding: &str| {
        format!(
            "<?xml version=\"1.0\"{encoding}?>\n<annotation><size><width>8</width><height>9\
             </height></size>{}</annotation>",
            OBJECT.replace("dog", "café 犬")
        )
    };
    let declaring = |label: &str| text(&format!(" encoding='{label}'"));
    let utf16: Vec<u8> = [0xFEFF]
        .into_iter()
        .chain(declaring("UTF-16").encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let shift_jis = declaring("Shift_JIS").replace("café", "cafe");
    let without_mark = declaring("utf-16").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let with_dtd = declaring("utf-8").replace("<annotation>", "<!DOCTYPE annotation><annotation>");
    let files: [(&str, Vec<u8>); 8] = [
        ("café 犬", without_mark),
        ("café 犬", declaring("utf-16").into_bytes()),
        ("café 犬", with_dtd.into_bytes()),
        ("café 犬", text("").into_bytes()),
        ("café 犬", declaring("utf-8").into_bytes()),
        ("café 犬", utf16),
        ("cafe 犬", encoding_rs::SHIFT_JIS.encode(&shift_jis).0.into_owned()),
        (
            "café",
            encoding_rs::WINDOWS_1252.encode(&declaring("ISO-8859-1").replace(" 犬", "")).0.into(),
        ),
    ];
    for (name, bytes) in files {
        let set = small_set(OBJECT);
        std::fs::write(annotation(&set, "c"), bytes).unwrap();
        let (report, _output) = converted(&set).unwrap();
        assert_eq!(report.classes, [name, "dog"]);
    }
    for (bytes, says) in [
        (declaring("klingon").into_bytes(), "says its encoding is `klingon`, which is unknown"),
        (
            encoding_rs::WINDOWS_1252.encode(&text("").replace('犬', "e")).0.into(),
            "not UTF-8 text, and it says",
        ),
        (
            b"<?xml encoding=\"utf-8\"?><annotation>\xff</annotation>".into(),
            "not UTF-8 text, which",
        ),
    ] {
        let set = small_set(OBJECT);
        std::fs::write(annotation(&set, "c"), bytes).unwrap();
        let message = converted(&set).unwrap_err().to_string();
        assert!(message.contains("c.xml: XML: ") && message.contains(says), "{message}");
    }
}

#[test]
fn difficult_objects_become_crowds_and_empty_boxes_are_dropped() {
    let difficult = OBJECT.replace("<difficult>0", "<difficult>1").replace("dog", "cat");
    let backwards = OBJECT.replace("<xmax>5", "<xmax>1").replace("dog", "bird");
    let one_pixel = OBJECT.replace("<xmax>5", "<xmax>2");
    let part = OBJECT.replace(
        "</object>",
        "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax>\
         </bndbox></part></object>",
    );
    let set = small_set(&[difficult, backwards, one_pixel, part].concat());
    let (report, _output) = converted(&set).unwrap();
    assert_eq!((report.difficult, report.degenerate.count), (2, 2), "in each of two images");
    assert_eq!(report.classes, ["bird", "cat", "dog"], "sorted; a part is no object");
    let train = Dataset::open(&report.splits[0].path).unwrap();
    let seen: Vec<_> =
        train.annotations().iter().map(|a| (a.class.0, a.bbox.0[2], a.crowd)).collect();
    assert_eq!(seen, [(1, 4.0, true), (2, 1.0, false), (2, 4.0, false)]);
    assert_eq!(train.vocabulary().class_of(CategoryId(1)).unwrap().0, 0);
}

#[test]
fn a_missing_size_is_read_from_the_image() {
    let set = small_set(OBJECT);
    let path = annotation(&set, "c");
    let text = std::fs::read_to_string(&path).unwrap();
    for size in [text.replace("<width>8", "<width>0"), text.replace("size>", "dimensions>")] {
        std::fs::write(&path, size).unwrap();
        let (report, _output) = converted(&set).unwrap();
        assert_eq!(report.sizes_from_images, 1);
        let val = Dataset::open(&report.splits[1].path).unwrap();
        assert_eq!(val.images()[0].size, Some([9, 8]));
    }
    std::fs::write(set.path().join("VOC/deeper/JPEGImages/c.png"), "no image").unwrap();
    let message = converted(&set).unwrap_err().to_string();
    assert!(message.contains("c.png: size: the XML gives none"), "{message}");
}

#[test]
fn a_stale_file_name_in_the_xml_does_not_matter() {
    let set = small_set(OBJECT);
    let path = annotation(&set, "c");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("c.png", "a.png")).unwrap();
    let (report, _output) = converted(&set).unwrap();
    assert_eq!(Dataset::open(&report.splits[1].path).unwrap().images()[0].file_name, "c.png");
}

#[test]
fn mistakes_are_named_with_file_and_field() {
    // (what is replaced in c.xml, by what, what the message says)
    let table = [
        ("</annotation>", "", "c.xml: XML: broken"),
        ("<annotation>", "<annotation", "c.xml: XML: broken"),
        ("annotation>", "labels>", "expected <annotation>, got <labels>"),
        ("<name>dog</name>", "<name> </name>", "c.xml: object[0].name: missing"),
        ("bndbox>", "polygon>", "c.xml: object[0].bndbox: missing"),
        ("<xmin>2</xmin>", "", "c.xml: object[0].bndbox.xmin: missing"),
        ("<xmin>2", "<xmin>two", "object[0].bndbox.xmin: expected a finite number, got `two`"),
        ("<xmin>2", "<xmin>NaN", "object[0].bndbox.xmin: expected a finite number, got `NaN`"),
        ("<width>8", "<width>-8", "c.xml: size.width: expected a number of pixels, got `-8`"),
        ("<difficult>0", "<difficult>7", "object[0].difficult: expected 0 or 1, got `7`"),
    ];
    for (old, new, says) in table {
        let set = small_set(OBJECT);
        let path = annotation(&set, "c");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old));
        std::fs::write(&path, text.replace(old, new)).unwrap();
        let message = converted(&set).unwrap_err().to_string();
        assert!(message.contains(says), "{old} -> {new}: {message}");
    }
    let set = small_set(OBJECT);
    std::fs::write(annotation(&set, "c"), b"<annotation>\xff</annotation>").unwrap();
    let message = converted(&set).unwrap_err().to_string();
    assert!(message.contains("c.xml: XML: not UTF-8 text"), "{message}");
}

#[test]
fn sets_that_do_not_hold_together_are_refused() {
    let says = |set: &tempfile::TempDir, words: &str| {
        let message = converted(set).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("hint: "), "{message}");
    };
    let set = small_set(OBJECT);
    std::fs::write(set.path().join("VOC/deeper/ImageSets/Main/val.txt"), "c\nd\n").unwrap();
    says(&set, "image set val, line 2: no Annotations/d.xml");

    let set = small_set(OBJECT);
    std::fs::remove_file(set.path().join("VOC/deeper/JPEGImages/c.png")).unwrap();
    says(&set, "Annotations/c.xml: its image is missing");

    let set = small_set(OBJECT);
    for list in ["train", "val", "dog_train"] {
        std::fs::write(set.path().join(format!("VOC/deeper/ImageSets/Main/{list}.txt")), "")
            .unwrap();
    }
    says(&set, "ImageSets: no list names an image: train, val, test, dog_train");

    let set = small_set(OBJECT);
    std::fs::create_dir_all(set.path().join("other/Annotations")).unwrap();
    says(&set, "two sets in one");

    says(&tempfile::tempdir().unwrap(), "no Annotations/*.xml");
}

#[test]
fn archives_that_cannot_be_read_are_refused() {
    let set = small_set(OBJECT);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("./set", set.path().join("VOC/deeper")).unwrap();
    let bytes = builder.into_inner().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("set.tar");
    let output = tempfile::tempdir().unwrap();
    let outcome = |content: &[u8]| {
        std::fs::write(&archive, content).unwrap();
        convert(&archive, output.path(), true, &GO).map_err(|e| e.to_string())
    };
    assert_eq!(outcome(&bytes).unwrap().splits.len(), 2);
    for (content, says) in [
        (b"\x1f\x8b\x08\x00".as_slice(), "compressed with gzip"),
        (b"PK\x03\x04".as_slice(), "a zip archive"),
        (b"".as_slice(), "no Annotations/*.xml"),
        (&[b'x'; 2000], "not a readable .tar"),
    ] {
        let message = outcome(content).unwrap_err();
        assert!(message.contains(says) && message.contains("hint: "), "{message}");
    }
    // Cut anywhere: an error, or a set that is whole without the rest; never a panic.
    let mut refused = 0;
    for end in (0..bytes.len()).step_by(97) {
        refused += usize::from(outcome(&bytes[..end]).is_err());
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_stopped_conversion_leaves_nothing() {
    let set = small_set(OBJECT);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("set.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    builder.append_dir_all("set", set.path().join("VOC/deeper")).unwrap();
    builder.finish().unwrap();
    for input in [&archive, set.path()] {
        let stop = AtomicBool::new(true);
        let error = convert(input, &folder.path().join("out"), false, &stop).unwrap_err();
        assert!(matches!(error, Error::Stopped), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn nothing_is_written_outside_the_output() {
    let mut builder = tar::Builder::new(Vec::new());
    for path in ["Annotations/a.xml", "JPEGImages/a.png"] {
        let mut header = tar::Header::new_gnu();
        // `set_path` itself refuses `..`, so the name goes in directly.
        let name = format!("../../{path}");
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        let size = "<size><width>8</width><height>9</height></size>";
        let content = format!("<annotation>{size}{OBJECT}</annotation>");
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("in/set.tar");
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(&archive, builder.into_inner().unwrap()).unwrap();
    let output = folder.path().join("in/deep/er");
    let report = convert(&archive, &output, false, &GO).unwrap();
    assert!(output.join("images/a.png").exists());
    assert_eq!(report.splits[0].images, 1);
    assert!(
        !folder.path().join("JPEGImages").exists() && !folder.path().join("in/JPEGImages").exists()
    );
}
