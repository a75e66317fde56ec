//! The same classes in all parts.

use super::*;

/// A file of one image, and a box of each of these classes.
fn of_classes(folder: &Path, part: &str, classes: &[(i64, &str)]) {
    let categories =
        classes.iter().map(|(id, name)| format!(r#"{{"id": {id}, "name": "{name}"}}"#));
    let boxes = classes.iter().enumerate().map(|(at, (id, _))| {
        format!(r#"{{"id": {at}, "image_id": 1, "category_id": {id}, "bbox": [{at}, 0, 1, 1]}}"#)
    });
    let text = format!(
        r#"{{"images": [{{"id": 1, "file_name": "{part}.png", "width": 9, "height": 9}}],
        "annotations": [{}], "categories": [{}]}}"#,
        boxes.collect::<Vec<_>>().join(", "),
        categories.collect::<Vec<_>>().join(", ")
    );
    write(folder, &format!("{part}.json"), text);
}

type Numbered<T> = Vec<(T, String)>;

/// Id and name of the classes, and the class of each box by its x.
fn written(report: &ConversionReport, part: usize) -> (Numbered<i64>, Numbered<f64>) {
    let set = Dataset::open(&report.splits[part].path).unwrap();
    let name = |class| set.vocabulary().category(class).name.clone();
    let classes = set.vocabulary().categories().iter().map(|c| (c.id.0, c.name.clone())).collect();
    (classes, set.annotations().iter().map(|a| (a.bbox.0[0], name(a.class))).collect())
}

fn owned<T: Copy>(pairs: &[(T, &str)]) -> Numbered<T> {
    pairs.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
}

#[test]
fn ids_that_agree_stay_and_each_part_gets_those_of_the_others() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    of_classes(input.path(), "train", &[(7, "dog"), (3, "cat")]);
    of_classes(input.path(), "val", &[(5, "cow"), (7, "dog")]);
    let report = to(Target::Coco, input.path(), output.path()).unwrap();
    let all = owned(&[(3, "cat"), (5, "cow"), (7, "dog")]);
    assert_eq!(written(&report, 0), (all.clone(), owned(&[(0.0, "dog"), (1.0, "cat")])));
    assert_eq!(written(&report, 1), (all, owned(&[(0.0, "cow"), (1.0, "dog")])));
    assert_eq!(
        report.notes,
        [
            "`train` gets 1 class that only other parts list: cow",
            "`val` gets 1 class that only other parts list: cat"
        ]
    );
    // What a part does not list, it does not verify as absent.
    let output = tempfile::tempdir().unwrap();
    let report = to(Target::Lvis, input.path(), output.path()).unwrap();
    let train = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!(train.images()[0].neg_classes, []);
}

#[test]
fn ids_that_differ_are_given_anew_by_name() {
    for (train, val, why) in [
        (
            [(0, "dog"), (1, "cat")],
            [(0, "cat"), (1, "dog")],
            "category 0 is `dog` in one part and `cat` in another",
        ),
        (
            [(0, "dog"), (1, "cat")],
            [(3, "dog"), (1, "cat")],
            "`dog` is category 0 in one part and 3 in another",
        ),
    ] {
        let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        of_classes(input.path(), "train", &train);
        of_classes(input.path(), "val", &val);
        let report = to(Target::Coco, input.path(), output.path()).unwrap();
        let all = owned(&[(1, "cat"), (2, "dog")]);
        assert_eq!(report.notes, [format!("classes are numbered anew, by name, because {why}")]);
        assert_eq!(written(&report, 0), (all.clone(), owned(&[(0.0, "dog"), (1.0, "cat")])));
        let boxes: Vec<_> = (0..2).map(|at| (at as f64, val[at].1)).collect();
        assert_eq!(written(&report, 1), (all, owned(&boxes)));
    }
}

#[test]
fn two_classes_of_one_name_stay_two() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    of_classes(input.path(), "train", &[(1, "bat"), (2, "bat")]);
    of_classes(input.path(), "val", &[(1, "bat"), (2, "bat")]);
    let report = to(Target::Coco, input.path(), output.path()).unwrap();
    assert_eq!(written(&report, 1).0, owned(&[(1, "bat"), (2, "bat")]));
    // By name they would become one.
    of_classes(input.path(), "val", &[(2, "cat"), (1, "bat")]);
    let how = Conversion { overwrite: true, ..Conversion::to(Target::Coco) };
    let message =
        convert(input.path(), output.path(), &how, &GO, &mut go_on).unwrap_err().to_string();
    assert!(message.contains("`train` has two that are called `bat`"), "{message}");
}
