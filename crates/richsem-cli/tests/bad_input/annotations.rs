//! Annotation files.

use super::{all_refused, refused, util::Dir};

const GOOD: &str = r#"{
"images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
           {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48}],
"categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40], "area": 9},
                {"id": 2, "image_id": 2, "category_id": 7, "bbox": [5, 5, 20, 20]}]
}"#;

const SETTINGS: &str = r#"
version = 1
[data]
train = { annotations = "good.json", images = "images" }
val = { annotations = "good.json", images = "images" }
"#;

#[test]
fn an_annotation_file_that_is_wrong_is_refused_by_every_verb() {
    let with = |old: &str, new: &str| {
        assert!(GOOD.contains(old), "{old}");
        GOOD.replacen(old, new, 1)
    };
    let no_images = format!("{{\"images\": {}", &GOOD[GOOD.find("],\n\"cat").unwrap()..]).replacen(
        "\"images\": ]",
        "\"images\": []",
        1,
    );
    let no_categories = with(r#"{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}"#, "");
    // Name, content, field and problem, hint.
    let cases: &[(&str, String, &str, &str)] = &[
        ("empty", String::new(), "top level: the file is empty", "truncated"),
        (
            "cut off",
            GOOD[..300].into(),
            "annotations[0]: the file ends at byte 300",
            "download or copy it again",
        ),
        ("a list", "[]".into(), "top level: expected an object", "looks like a detections file"),
        ("zipped", "\u{1f}\u{8b}".into(), "top level: ", "the file is not JSON"),
        (
            "text",
            "images: 1".into(),
            "top level: expected an object with `images`",
            "the file is not JSON",
        ),
        (
            "no annotations",
            with("annotations", "boxes"),
            "annotations: missing",
            "neither trained on nor evaluated",
        ),
        (
            "no categories",
            with("categories", "classes"),
            "categories: missing",
            "lists its classes under",
        ),
        ("zero images", no_images, "images: the list is empty", "filter"),
        ("zero categories", no_categories, "categories: the list is empty", "filter"),
        (
            "unknown image",
            with("\"image_id\": 2", "\"image_id\": 9"),
            "annotations[1].image_id: no image has the id 9",
            "images 1..=2",
        ),
        (
            "unknown category",
            with("\"category_id\": 7", "\"category_id\": 4"),
            "annotations[1].category_id: no category has the id 4",
            "the closest: 3, 7",
        ),
        (
            "image twice",
            with("{\"id\": 2, \"file", "{\"id\": 1, \"file"),
            "images[1].id: 1 is already the id of images[0]",
            "an id of its own",
        ),
        (
            "annotation twice",
            with("{\"id\": 2, \"image_id", "{\"id\": 1, \"image_id"),
            "annotations[1].id: 1 is already the id of annotations[0]",
            "anew",
        ),
        (
            "category twice",
            with("\"id\": 7", "\"id\": 3"),
            "categories[1].id: 3 is already the id of categories[0]",
            "`cat` and `dog`",
        ),
        (
            "NaN in a box",
            with("[1, 2, 30", "[1, NaN, 30"),
            "annotations[0].bbox: expected 4 finite numbers",
            "allow_nan=False",
        ),
        (
            "too large a number",
            with("[1, 2, 30", "[1, 1e999, 30"),
            "annotations[0].bbox: expected 4 finite numbers",
            "",
        ),
        (
            "three numbers",
            with("[1, 2, 30, 40]", "[1, 2, 30]"),
            "annotations[0].bbox: expected 4 finite numbers",
            "",
        ),
        (
            "a box of text",
            with("[1, 2, 30, 40]", "\"1 2 3 4\""),
            "annotations[0].bbox: expected 4 finite numbers",
            "",
        ),
        (
            "negative width",
            with("[1, 2, 30, 40]", "[30, 2, -29, 40]"),
            "annotations[0].bbox: expected a width of 0 or more, got -29",
            "not two corners",
        ),
        (
            "an id of half a number",
            with("{\"id\": 1, \"image_id", "{\"id\": 1.5, \"image_id"),
            "annotations[0].id: expected an integer or a string, got 1.5",
            "",
        ),
        (
            "no box",
            with(", \"bbox\": [5, 5, 20, 20]", ""),
            "annotations[1].bbox: expected 4 finite numbers [x, y, width, height], missing",
            "a segmentation would do",
        ),
        (
            "no image id",
            with("\"image_id\": 2, ", ""),
            "annotations[1].image_id: missing",
            "the record has",
        ),
        (
            "no file name",
            with("\"file_name\": \"b.jpg\", ", ""),
            "images[1].file_name: missing",
            "coco_url",
        ),
        (
            "no width",
            with("\"width\": 64, ", ""),
            "images[0].width: missing; expected pixels",
            "write both sides",
        ),
        (
            "no pixels",
            with("\"height\": 48", "\"height\": 0"),
            "images[0].height: 0; expected pixels",
            "write both sides",
        ),
        (
            "a name that leads out",
            with("a.jpg", "../../a.jpg"),
            "images[0].file_name: the path leaves the image root",
            "relative to the folder",
        ),
        (
            "a class without a name",
            with("\"cat\"", "\"\""),
            "categories[0].name: expected a name, got an empty string",
            "prompts",
        ),
    ];
    let dir = Dir::new();
    dir.write("good.json", GOOD);
    dir.write("images/a.jpg", "");
    dir.write("settings.toml", SETTINGS);
    dir.write("found.json", "[]");
    dir.command(&["dataset", "stats", "good.json"]).ok().stdout_has("2 images");
    for (i, (name, content, says, hint)) in cases.iter().enumerate() {
        dir.write("bad.json", content);
        let says = format!("bad.json: {says}");
        let hint = if hint.is_empty() { "" } else { hint };
        let stats = ["dataset", "stats", "bad.json"];
        let ran = refused(&dir, name, dir.command(&stats), 1, &[&says, hint]);
        assert_eq!(ran.stderr.contains("\n  hint: "), !hint.is_empty(), "{name}: {ran:?}");
        // As a training set and as a validation set in turn.
        let key = ["data.train.annotations=bad.json", "data.val.annotations=bad.json"][i % 2];
        let train = ["train", "-c", "settings.toml", "--run", "run", "--device", "cpu", "--set"];
        let train = dir.command(&[&train[..], &[key]].concat());
        refused(&dir, name, train, 1, &[&says, hint]);
        let eval = ["eval", "--annotations", "bad.json", "--detections", "found.json"];
        refused(&dir, name, dir.command(&eval), 1, &[&says, hint]).no_stdout();
    }
}

#[test]
fn an_annotation_file_that_is_not_there_is_named_with_its_flag_or_setting() {
    let dir = Dir::new();
    dir.write("good.json", GOOD);
    dir.write("images/a.jpg", "");
    dir.write("settings.toml", SETTINGS);
    let train = |key| ["train", "-c", "settings.toml", "--run", "run", "--set", key];
    let eval = ["eval", "--annotations", "none.json", "--detections", "good.json"];
    all_refused(
        &dir,
        &[
            (
                "train",
                &train("data.train.annotations=none.json"),
                &[
                    "data.train.annotations: `",
                    "none.json` does not exist",
                    "hint: paths of a settings file are relative",
                ],
            ),
            (
                "val",
                &train("data.val.annotations=none.json"),
                &["data.val.annotations: `", "none.json` does not exist", "hint: "],
            ),
            (
                "eval",
                &eval,
                &[
                    "--annotations: no such file or folder as `none.json`",
                    "hint: names are relative",
                ],
            ),
            (
                "stats",
                &["dataset", "stats", "none.json"],
                &["no such file or folder as `none.json`", "hint: "],
            ),
            (
                "a folder",
                &["dataset", "stats", "images"],
                &[
                    "images: format: expected annotations, got a folder of no known format",
                    "hint: known formats",
                ],
            ),
        ],
    );
}

/// Nothing is trained for nothing.
#[test]
fn a_set_without_a_box_to_learn_from_is_refused_before_the_run() {
    let dir = Dir::new();
    dir.write("images/a.jpg", "");
    dir.write("settings.toml", SETTINGS);
    let crowds = GOOD.replace("\"bbox\"", "\"iscrowd\": 1, \"bbox\"");
    let start = GOOD.find("\"annotations\"").unwrap();
    let none = format!("{}\"annotations\": []}}", &GOOD[..start]);
    let outside = GOOD.replace("[1, 2, 30, 40]", "[900, 2, 3, 4]").replace("[5, 5, ", "[900, 5, ");
    for (name, content, says, hint) in [
        ("crowds", crowds, "all 2 annotations are crowds (iscrowd = 1)", "set iscrowd?"),
        ("no annotations", none, "the file has no annotations", "leave the boxes out"),
        ("outside", outside, "of 2 boxes that are no crowds none has an inside", "in pixels"),
    ] {
        dir.write("good.json", content);
        let train = ["train", "-c", "settings.toml", "--run", "run", "--device", "cpu"];
        let says = format!("good.json: annotations: there is no box to learn from: {says}");
        refused(&dir, name, dir.command(&train), 1, &[&says, hint]);
        assert!(!dir.exists("run"), "{name}");
    }
}

#[test]
fn training_and_validation_must_agree_about_classes() {
    let dir = Dir::new();
    dir.write("good.json", GOOD);
    dir.write("renamed.json", GOOD.replace("\"dog\"", "\"wolf\""));
    dir.write(
        "more.json",
        GOOD.replace("\"categories\": [", "\"categories\": [{\"id\": 1, \"name\": \"ant\"},")
            .replace("\"category_id\": 7", "\"category_id\": 1"),
    );
    dir.write("images/a.jpg", "");
    dir.write("settings.toml", SETTINGS);
    let train = |key| ["train", "-c", "settings.toml", "--run", "run", "--set", key];
    let hint = "hint: both sets must name the same classes alike";
    all_refused(
        &dir,
        &[
            (
                "another name",
                &train("data.val.annotations=renamed.json"),
                &[
                    "renamed.json: categories: `wolf` (7) is not among the training set's classes",
                    hint,
                ],
            ),
            (
                "another class",
                &train("data.val.annotations=more.json"),
                &["more.json: categories: `ant` (1) is not among the training set's classes", hint],
            ),
            (
                "settings for both",
                &["init", "good.json", "--val", "more.json", "-o", "new.toml"],
                &[
                    "`ant` (1) is not among the training set's classes",
                    "The training set has `",
                    hint,
                ],
            ),
        ],
    );
}
