//! XML files beside their images: labelImg's and Roboflow's.

use std::path::Path;

use crate::data::{dataset::Dataset, formats::Opening, image_store::ImageStore};

pub(super) fn xml(name: &str, class: &str) -> String {
    format!(
        "<annotation><filename>{name}</filename><size><width>8</width><height>6</height><depth>3</depth></size>\
         <object><name>{class}</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>\
         <xmax>4</xmax><ymax>5</ymax></bndbox></object></annotation>"
    )
}

pub(super) fn put(folder: &Path, stem: &str, class: Option<&str>) {
    let image = folder.join(format!("{stem}.png"));
    fs_err::create_dir_all(image.parent().unwrap()).unwrap();
    image::RgbImage::new(8, 6).save(&image).unwrap();
    if let Some(class) = class {
        let name = image.file_name().unwrap().to_string_lossy().into_owned();
        fs_err::write(folder.join(format!("{stem}.xml")), xml(&name, class)).unwrap();
    }
}

pub(super) fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.images().iter().map(|image| image.file_name.as_str()).collect()
}

pub(super) fn packed(folder: &Path) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    let mut builder = tar::Builder::new(file.reopen().unwrap());
    builder.append_dir_all(".", folder).unwrap();
    builder.finish().unwrap();
    file
}

#[test]
fn a_folder_of_images_with_their_xml_is_a_set() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a", Some("cat"));
    put(folder.path(), "more/b", Some("dog"));
    put(folder.path(), "unlabelled", None);
    fs_err::write(folder.path().join("classes.txt"), "cat\ndog\n").unwrap();
    let archive = packed(folder.path());
    for place in [folder.path(), archive.path()] {
        let set = Dataset::open(place).unwrap();
        assert_eq!((set.format_name(), set.split()), ("voc", "all"));
        assert_eq!(names(&set), ["a.png", "more/b.png"]);
        let boxes: Vec<_> =
            set.annotations().iter().map(|a| (a.image, a.class.0, a.bbox.0)).collect();
        assert_eq!(boxes, [(0, 0, [0.0, 1.0, 4.0, 4.0]), (1, 1, [0.0, 1.0, 4.0, 4.0])]);
        assert_eq!(set.images_at(), Some(place));
        let store = ImageStore::open(place, Default::default()).unwrap();
        assert_eq!(store.size("more/b.png").unwrap(), [6, 8]);
    }
}

#[test]
fn folders_with_the_names_of_parts_are_parts() {
    let folder = tempfile::tempdir().unwrap();
    for (stem, class) in [("train/a", "cat"), ("train/b", "dog"), ("valid/c", "cat")] {
        put(folder.path(), stem, Some(class));
    }
    let archive = packed(folder.path());
    for place in [folder.path(), archive.path()] {
        assert_eq!(Dataset::parts(place, &Opening::default()).unwrap(), ["train", "valid"]);
        let opening = Opening { split: Some("val".to_owned()), ..Opening::default() };
        let set = Dataset::open_as(place, &opening).unwrap();
        assert_eq!(names(&set), ["valid/c.png"]);
        assert_eq!(set.vocabulary().len(), 2, "the classes of all parts");
    }
    // Images elsewhere: all of them are one set.
    put(folder.path(), "d", Some("cat"));
    assert_eq!(Dataset::parts(folder.path(), &Opening::default()).unwrap(), ["all"]);
}

#[test]
fn what_lies_beside_and_is_no_annotation_is_no_set() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a", None);
    fs_err::write(folder.path().join("a.xml"), "<project><image/></project>").unwrap();
    let error = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("no known format"), "{error}");
    // Without its image an annotation cannot be used.
    put(folder.path(), "b", Some("cat"));
    fs_err::remove_file(folder.path().join("a.xml")).unwrap();
    fs_err::remove_file(folder.path().join("b.png")).unwrap();
    let error = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.xml") && error.contains("its image is missing"), "{error}");
}

#[test]
fn xml_in_16_bits_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a", Some("cat"));
    let text = format!("\u{feff}{}", xml("a.png", "犬"));
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs_err::write(folder.path().join("a.xml"), bytes).unwrap();
    let archive = packed(folder.path());
    for place in [folder.path(), archive.path()] {
        let set = Dataset::open(place).unwrap();
        assert_eq!(&*set.vocabulary().categories()[0].name, "犬");
    }
}
