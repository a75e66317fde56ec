//! Verified classes on their way to LVIS.

use super::*;

const CLASSES: &str = "/m/animal,Animal\n/m/dog,Dog\n/m/cat,Cat\n/m/pig,Pig\n";
const BOXES: &str = "ImageID,LabelName,XMin,XMax,YMin,YMax\n\
                     a,/m/dog,0.1,0.5,0.1,0.5\na,/m/dog,0.5,0.9,0.1,0.5\nb,/m/cat,0.1,0.5,0.1,0.5\n";
/// Image a: what has a box, and its ancestor. Image b: also what has none, labels that repeat, and some that
/// contradict each other, with a box (cat) and without (pig).
const LABELS: &str = "ImageID,Source,LabelName,Confidence\n\
                      a,verification,/m/dog,1\na,crowdsource,/m/dog,1\na,verification,/m/pig,0\n\
                      a,crowdsource,/m/pig,0\nb,verification,/m/cat,1\nb,verification,/m/cat,0\n\
                      b,verification,/m/pig,1\nb,verification,/m/pig,0\nb,verification,/m/dog,0\n";
const HIERARCHY: &str = r#"{"LabelName": "/m/root", "Subcategory": [
    {"LabelName": "/m/animal", "Subcategory": [{"LabelName": "/m/dog"}, {"LabelName": "/m/cat"}]}]}"#;

fn open_images(folder: &Path) {
    for (name, text) in [
        ("train-annotations-bbox.csv", BOXES),
        ("train-annotations-human-imagelabels.csv", LABELS),
        ("class-descriptions.csv", CLASSES),
        ("hierarchy.json", HIERARCHY),
    ] {
        write(folder, name, text);
    }
    for name in ["a.jpg", "b.jpg"] {
        image::RgbImage::new(40, 20).save(folder.join(name)).unwrap();
    }
}

fn ids(set: &Dataset, classes: &[crate::vocabulary::ClassIndex]) -> Vec<i64> {
    classes.iter().map(|class| set.vocabulary().category(*class).id.0).collect()
}

#[test]
fn only_what_is_seen_without_a_box_is_not_exhaustive() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open_images(input.path());
    let before = Dataset::open(input.path()).unwrap();
    let told = before.report().to_string();
    for says in [
        "labels that repeat an earlier one: 2",
        "in their neg_category_ids, the boxes count: 1 (image id 2)",
        "taken as not exhaustively annotated: 1 (image id 2)",
    ] {
        assert!(told.contains(says), "{told}");
    }
    let report = to(Target::Lvis, input.path(), output.path()).unwrap();
    let after = Dataset::open(&report.splits[0].path).unwrap();
    let lists = |image: usize| {
        let image = &after.images()[image];
        (ids(&after, &image.neg_classes), ids(&after, &image.not_exhaustive_classes))
    };
    assert_eq!((lists(0), lists(1)), ((vec![4], vec![]), (vec![3, 2], vec![4])));
    assert_eq!(
        lost(&report),
        [
            "train: images with classes that are seen and have no box 1",
            "train: images with a class that labels call seen and absent, and that has no box 1",
            "train: classes that are kinds of other classes 2",
        ]
    );
    // COCO says the same of the same image.
    let folder = tempfile::tempdir().unwrap();
    let report = to(Target::Coco, input.path(), folder.path()).unwrap();
    let seen = "train: images with classes that are seen and have no box 1".to_owned();
    assert!(lost(&report).contains(&seen), "{:?}", lost(&report));
}

#[test]
fn a_set_that_verifies_nothing_is_told() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open_images(input.path());
    for name in ["train-annotations-human-imagelabels.csv", "hierarchy.json"] {
        std::fs::remove_file(input.path().join(name)).unwrap();
    }
    for (target, folder) in [(Target::Lvis, "lvis"), (Target::Coco, "coco")] {
        let report = to(target, input.path(), &output.path().join(folder)).unwrap();
        assert_eq!(lost(&report), ["train: images that say nothing of classes without a box 2"]);
    }
}

/// The boxes of a hierarchy's ancestors are not written, and so not counted.
#[test]
fn counts_are_those_of_the_boxes_that_are_written() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open_images(input.path());
    let report = to(Target::Lvis, input.path(), output.path()).unwrap();
    let after = Dataset::open(&report.splits[0].path).unwrap();
    let counts: Vec<_> =
        after.class_records().iter().map(|c| (c.image_count, c.instance_count)).collect();
    let both = |images, boxes| (Some(images), Some(boxes));
    assert_eq!(counts, [both(0, 0), both(1, 2), both(1, 1), both(0, 0)]);
}

/// A file of LVIS's form whose lists are all empty verifies nothing, and so it is once it is written.
#[test]
fn empty_lists_stay_empty() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = r#"{"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9,
        "neg_category_ids": [], "not_exhaustive_category_ids": []}],
      "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
      "categories": [{"id": 1, "name": "dog", "image_count": 3, "instance_count": 5, "frequency": "r"},
        {"id": 2, "name": "cat", "image_count": 0, "instance_count": 0, "frequency": "r"}]}"#;
    let input = write(input.path(), "empty.json", text);
    let report = to(Target::Lvis, &input, output.path()).unwrap();
    let after = Dataset::open(&report.splits[0].path).unwrap();
    assert_same(&Dataset::open(&input).unwrap(), &after);
    assert!(after.report().lists && after.images()[0].neg_classes.is_empty());
    assert_eq!(lost(&report), [""; 0]);
}
