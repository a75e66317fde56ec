//! Against hotcoco's converter on real sets, and files that are wrong in one way each.
#![allow(clippy::unwrap_used)]

mod apart;
mod beside;
mod odd_input;
mod wrong_input;

use std::path::{Path, PathBuf};

use super::{Report, Request};
use crate::{
    data::{dataset::Dataset, formats::Opening, image_store::ImageStore},
    error::Result,
    testing::shared,
    vocabulary::CategoryId,
};

/// (file name, class name, box, crowd), sorted.
type Boxes = Vec<(String, String, [f64; 4], bool)>;

fn sorted(mut boxes: Boxes) -> Boxes {
    boxes.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)).then(a.2.partial_cmp(&b.2).unwrap()));
    boxes
}

/// With the names of files below `prefix`.
fn ours(dataset: &Dataset, prefix: &str) -> Boxes {
    let boxes = dataset.annotations().iter().map(|a| {
        let image = &dataset.images()[a.image as usize];
        let class = &dataset.vocabulary().category(a.class).name;
        let name = image.file_name.strip_prefix(prefix).unwrap().to_owned();
        (name, class.clone(), a.bbox.0, a.crowd)
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

/// Opens an image set, and gives what was met, too.
fn read(set: &Path, split: &str) -> Result<(Dataset, Report)> {
    let opening =
        Opening { format: Some("voc".into()), split: Some(split.to_owned()), ..Opening::default() };
    let dataset = Dataset::open_as(set, &opening)?;
    let request = Request {
        path: set,
        split,
        images: None,
        vocabulary: None,
        boxes: None,
        orientation: Default::default(),
        annotated: true,
        watch: crate::data::reading::UNWATCHED,
    };
    let (_, report) = super::read(&request)?;
    Ok((dataset, report))
}

fn names(set: &Path) -> Vec<String> {
    super::splits(&super::Place::new(set).unwrap()).unwrap()
}

fn files(dataset: &Dataset) -> Vec<&str> {
    dataset.images().iter().map(|image| image.file_name.as_str()).collect()
}

#[test]
fn bccd_is_read_in_its_archive_as_hotcoco_does_from_a_folder() {
    let Some(archive) = shared("photos/bccd/BCCD.tar") else { return };
    assert_eq!(names(&archive), ["train", "val", "trainval", "test"]);
    let parts: Vec<(Dataset, Report)> =
        names(&archive).iter().map(|split| read(&archive, split).unwrap()).collect();
    let counts: Vec<_> =
        parts.iter().map(|(set, _)| (set.images().len(), set.annotations().len())).collect();
    assert_eq!(counts.iter().map(|c| c.0).collect::<Vec<_>>(), [205, 87, 292, 72]);
    assert_eq!(counts[0].1 + counts[1].1, counts[2].1);
    assert_eq!(counts[2].1 + counts[3].1, 4888, "every box is in one of the two");
    for (set, report) in &parts {
        let classes: Vec<_> =
            set.vocabulary().categories().iter().map(|c| (c.id.0, c.name.as_str())).collect();
        assert_eq!(classes, [(1, "Platelets"), (2, "RBC"), (3, "WBC")]);
        assert_eq!((report.difficult, report.degenerate.count, report.unlisted), (0, 0, 0));
        assert_eq!(report.listed_twice.count, 0);
        assert_eq!(set.images_at(), Some(&*archive));
        assert_eq!(set.report().format, "Pascal VOC XML");
    }

    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(std::fs::File::open(&archive).unwrap()).unpack(folder.path()).unwrap();
    let mut both = ours(&parts[2].0, "BCCD/JPEGImages/");
    both.extend(ours(&parts[3].0, "BCCD/JPEGImages/"));
    assert_eq!(sorted(both), theirs(&folder.path().join("BCCD")));

    // A store of the archive has the images under these names.
    let store = ImageStore::open(&archive, Default::default()).unwrap();
    for image in parts[3].0.images() {
        let original = std::fs::read(folder.path().join(&image.file_name)).unwrap();
        assert_eq!(store.read(&image.file_name).unwrap(), original);
        assert_eq!(store.size(&image.file_name).unwrap(), image.size.unwrap());
    }

    // From the folder: the same, and other names.
    for (split, (in_archive, report)) in names(folder.path()).iter().zip(&parts) {
        let (set, again) = read(folder.path(), split).unwrap();
        assert_eq!(set.images_at(), Some(&*folder.path().join("BCCD/JPEGImages")));
        assert_eq!(set.annotations(), in_archive.annotations());
        for (image, other) in set.images().iter().zip(in_archive.images()) {
            assert_eq!(format!("BCCD/JPEGImages/{}", image.file_name), other.file_name);
            assert_eq!((image.id, image.size), (other.id, other.size));
        }
        assert_eq!(Report { passed_over: report.passed_over.clone(), ..again }, *report);
    }
}

#[test]
fn sets_are_recognised_in_folders_and_archives() {
    let set = small_set(OBJECT);
    let archive = archive_of(&set.path().join("VOC/deeper"), "./x");
    for (path, evidence) in [
        (set.path().to_owned(), "there is VOC/deeper/Annotations/a.xml"),
        (set.path().join("VOC/deeper"), "there is Annotations/a.xml"),
    ] {
        let found = super::FORMAT.recognise;
        assert_eq!(found(&super::Place::new(&path).unwrap()).unwrap(), evidence);
    }
    let found = (super::FORMAT.recognise)(&super::Place::new(archive.path()).unwrap()).unwrap();
    assert!(found.starts_with("there is x/Annotations/"), "{found}");
    let opening = Opening { usual_split: Some("val"), ..Opening::default() };
    assert_eq!(Dataset::open_as(set.path(), &opening).unwrap().split(), "val");
    assert_eq!(files(&Dataset::open_as(archive.path(), &opening).unwrap()), ["x/JPEGImages/c.png"]);
    // Other XML, and a folder of that name with something else.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(other.path().join("Annotations")).unwrap();
    std::fs::write(other.path().join("Annotations/train.json"), "{}").unwrap();
    std::fs::write(other.path().join("annotations.xml"), "<annotations/>").unwrap();
    assert_eq!((super::FORMAT.recognise)(&super::Place::new(other.path()).unwrap()), None);
}

/// Other formats have XML files, archives and folders, too.
#[test]
fn samples_of_other_formats_are_not_taken_for_it() {
    let Some(samples) = shared("samples") else { return };
    let (mut folders, mut looked_at) = (vec![samples], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = (super::FORMAT.recognise)(&super::Place::new(&path).unwrap());
            assert_eq!(found, None, "{}", path.display());
            looked_at += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(looked_at > 100, "{looked_at}");
}

/// Somebody keeps the images of a set elsewhere.
#[test]
fn images_may_be_elsewhere() {
    let set = small_set(OBJECT);
    let elsewhere = tempfile::tempdir().unwrap();
    let images = set.path().join("VOC/deeper/JPEGImages");
    std::fs::rename(&images, elsewhere.path().join("photos")).unwrap();
    let message = read(set.path(), "train").unwrap_err().to_string();
    assert!(message.contains("JPEGImages"), "{message}");
    let opening = Opening {
        split: Some("train".into()),
        images: Some(elsewhere.path().to_owned()),
        ..Opening::default()
    };
    let train = Dataset::open_as(set.path(), &opening).unwrap();
    assert_eq!((files(&train), train.images_at()), (vec!["photos/a.png"], Some(elsewhere.path())));
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
    assert_eq!(names(set), ["all"]);
    let (all, report) = read(set, "all").unwrap();
    assert_eq!((all.images().len(), all.annotations().len()), (100, 273));
    assert_eq!((all.vocabulary().len(), report.difficult), (20, 38));
    assert_eq!(ours(&all, ""), theirs(set));
    assert_eq!((all.report().crowd, all.report().clipped.count), (38, 0));
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

/// An archive of a set, below a folder of that name.
fn archive_of(root: &Path, name: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(file.path()).unwrap());
    builder.append_dir_all(name, root).unwrap();
    builder.finish().unwrap();
    file
}

fn annotation(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(format!("VOC/deeper/Annotations/{name}.xml"))
}

#[test]
fn pixels_counted_from_one_become_corners_from_zero() {
    let set = small_set(OBJECT);
    assert_eq!(names(set.path()), ["train", "val"]);
    let (train, report) = read(set.path(), "train").unwrap();
    assert_eq!(report.empty_sets, ["test"]);
    assert_eq!(report.unlisted, 1, "b");
    assert_eq!(train.annotations()[0].bbox.0, [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(train.annotations()[0].area, 20.0);
    // Listed twice, read once; the next image set goes on counting.
    let (val, _) = read(set.path(), "val").unwrap();
    assert_eq!((train.images().len(), train.images()[0].id, val.images()[0].id), (1, 1, 2));
    assert_eq!((train.annotations()[0].id, val.annotations()[0].id), (1, 2));
    assert_eq!(
        (report.listed_twice.count, &report.listed_twice.names[..]),
        (1, &["train line 3".to_owned()][..])
    );
    let notes = report.notes();
    for note in ["1 annotated image in no image set, left out", "test: lists nothing, left out"] {
        assert!(notes.iter().any(|other| other == note), "{notes:?}");
    }
    assert_eq!(report.passed_over.to_string(), "1 list of a class (dog_train.txt)");
    let printed = train.report().to_string();
    assert!(notes.iter().all(|note| printed.contains(note)), "{printed}");
    let message = read(set.path(), "test").unwrap_err().to_string();
    assert!(message.contains("no part `test`; it has `train`, `val`"), "{message}");
}

/// No list is read as another, and what is in none is in no file.
#[test]
fn every_image_set_is_a_part_of_its_own_name() {
    let set = small_set(OBJECT);
    let lists = set.path().join("VOC/deeper/ImageSets");
    std::fs::rename(lists.join("Main/train.txt"), lists.join("Main/minitrain.txt")).unwrap();
    std::fs::rename(lists.join("Main/val.txt"), lists.join("minival.txt")).unwrap();
    std::fs::write(lists.join("Main/valid.txt"), "a\nc\n").unwrap();
    std::fs::create_dir(lists.join("Layout")).unwrap();
    std::fs::write(lists.join("Layout/train.txt"), "a 1\n").unwrap();
    // Without a set `train` there is no `dog_train` of it.
    std::fs::remove_file(lists.join("Main/dog_train.txt")).unwrap();
    assert_eq!(names(set.path()), ["minitrain", "minival", "valid"]);
    for (name, expected) in
        [("minitrain", &["a.png"][..]), ("minival", &["c.png"]), ("valid", &["a.png", "c.png"])]
    {
        let (dataset, report) = read(set.path(), name).unwrap();
        assert_eq!((dataset.split(), files(&dataset)), (name, expected.to_vec()));
        assert_eq!(report.unlisted, 1);
        let passed_over = report.passed_over.to_string();
        assert!(passed_over.starts_with("1 .txt ("), "{passed_over}");
    }

    std::fs::write(lists.join("minitrain.txt"), "a\n").unwrap();
    let text = read(set.path(), "valid").unwrap_err().to_string();
    assert!(text.contains("there is another of this name"), "{text}");
}

/// Flags do not make a list one of a class: its images are then those of a set.
#[test]
fn a_list_with_flags_and_images_of_its_own_is_an_image_set() {
    let set = small_set(OBJECT);
    let lists = set.path().join("VOC/deeper/ImageSets/Main");
    std::fs::write(lists.join("mini_val.txt"), "b 1\n").unwrap();
    assert_eq!(names(set.path()), ["train", "val", "mini_val"]);
    let (mini, report) = read(set.path(), "mini_val").unwrap();
    assert_eq!((files(&mini), report.unlisted), (vec!["b.png"], 0));
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
    let text = read(set.path(), "train").unwrap_err().to_string();
    assert!(text.contains("y/a.xml: JPEGImages/a.png is the image of `x/a`, too"), "{text}");
    std::fs::rename(root.join("JPEGImages/a.png"), root.join("JPEGImages/x/a.png")).unwrap();
    let text = read(set.path(), "train").unwrap_err().to_string();
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
    let archive = archive_of(&root, "set");
    for (input, prefix) in [(root.as_path(), ""), (archive.path(), "set/JPEGImages/")] {
        let (train, report) = read(input, "train").unwrap();
        let expected = ["x/a.png", "b.png"].map(|name| format!("{prefix}{name}"));
        assert_eq!(files(&train), expected, "{}", input.display());
        let store = ImageStore::open(train.images_at().unwrap(), Default::default()).unwrap();
        assert!(expected.iter().all(|file| store.contains(file)));
        assert_eq!(files(&read(input, "val").unwrap().0), [format!("{prefix}c.png")]);
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
    let text = read(set.path(), "train").unwrap_err().to_string();
    assert!(text.contains("image set train, line 1: `a` may be `x/a` or `y/a`"), "{text}");
    std::fs::write(root.join("ImageSets/Main/train.txt"), "y/a\n").unwrap();
    std::fs::create_dir(root.join("JPEGImages/w")).unwrap();
    std::fs::copy(root.join("JPEGImages/x/a.png"), root.join("JPEGImages/w/a.png")).unwrap();
    let text = read(set.path(), "train").unwrap_err().to_string();
    assert!(text.contains("a.xml: its image may be JPEGImages/w/a or JPEGImages/x/a"), "{text}");
    std::fs::copy(root.join("JPEGImages/x/a.png"), root.join("JPEGImages/x/a.jpg")).unwrap();
    let text = read(set.path(), "train").unwrap_err().to_string();
    assert!(text.contains("image: there is another of this name"), "{text}");
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
    let (train, report) = read(set.path(), "train").unwrap();
    assert_eq!((report.difficult, report.degenerate.count), (1, 1));
    let classes: Vec<_> = train.vocabulary().categories().iter().map(|c| &c.name).collect();
    assert_eq!(classes, ["bird", "cat", "dog"], "sorted; a part is no object");
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
        let (val, report) = read(set.path(), "val").unwrap();
        assert_eq!(report.sizes_from_images, 1);
        assert_eq!(val.images()[0].size, Some([9, 8]));
    }
    std::fs::write(set.path().join("VOC/deeper/JPEGImages/c.png"), "no image").unwrap();
    let message = read(set.path(), "val").unwrap_err().to_string();
    assert!(message.contains("c.png: size: the XML gives none"), "{message}");
}

#[test]
fn a_stale_file_name_in_the_xml_does_not_matter() {
    let set = small_set(OBJECT);
    let path = annotation(&set, "c");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("c.png", "a.png")).unwrap();
    assert_eq!(files(&read(set.path(), "val").unwrap().0), ["c.png"]);
}

/// With `../../Annotations/a.xml` and `../../JPEGImages/a.png`.
pub(in crate::data) fn archive_that_leads_out() -> tempfile::NamedTempFile {
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
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    std::fs::write(file.path(), builder.into_inner().unwrap()).unwrap();
    file
}
