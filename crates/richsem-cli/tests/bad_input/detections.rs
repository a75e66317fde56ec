//! Result files.

use super::{all_refused, refused, util::Dir};

const TRUTH: &str = r#"{
"images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
"categories": [{"id": 3, "name": "cat"}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40]}]
}"#;

const FOUND: &str = r#"[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40], "score": 0.5},
{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.25}]"#;

#[test]
fn a_result_file_that_is_wrong_is_refused_with_record_and_field() {
    let with = |old: &str, new: &str| {
        assert!(FOUND.contains(old), "{old}");
        FOUND.replacen(old, new, 1)
    };
    // Name, content, field and problem, hint.
    let cases: &[(&str, String, &str, &str)] = &[
        (
            "an annotation file",
            TRUTH.into(),
            "top level: expected a list of detections, got an object",
            "hint: this looks like an annotation file",
        ),
        (
            "empty",
            String::new(),
            "top level: the file is empty",
            "hint: the file is probably truncated",
        ),
        (
            "cut off",
            FOUND[..120].into(),
            "[1]: the file ends at byte 120",
            "hint: the file is probably",
        ),
        (
            "cut off between records",
            FOUND[..73].into(),
            "top level: the file ends at byte 73",
            "hint: the file is probably",
        ),
        ("NaN", with("0.5", "NaN"), "[0].score: expected a finite number", "hint: NaN is not JSON"),
        ("too large a score", with("0.25", "1e999"), "[1].score: expected a finite number", ""),
        (
            "a score of text",
            with("0.5", "\"0.5\""),
            "[0].score: expected a finite number, got the string \"0.5\"",
            "",
        ),
        (
            "three numbers",
            with("[1, 2, 30, 40]", "[1, 2, 30]"),
            "[0].bbox: expected 4 finite numbers [x, y, width, height], got a list of 3",
            "",
        ),
        ("no score", with(", \"score\": 0.25", ""), "[1].score: missing", "hint: the record has"),
        (
            "unknown image",
            with("\"image_id\": 1", "\"image_id\": 8"),
            "[0].image_id: `truth.json` has no image with the id 8",
            "hint: pass the annotation file",
        ),
        (
            "unknown category",
            with("\"category_id\": 3", "\"category_id\": 4"),
            "[0].category_id: `truth.json` has no category with the id 4",
            "hint: pass the annotation file",
        ),
        ("two lists", format!("{FOUND}{FOUND}"), "top level: unexpected text", "hint: are two"),
        ("no list of objects", "[1, 2]".into(), "[0]: ", ""),
    ];
    let dir = Dir::new();
    dir.write("truth.json", TRUTH);
    dir.write("found.json", FOUND);
    let eval = ["eval", "--annotations", "truth.json", "--json", "out.json", "--detections"];
    for (name, content, says, hint) in cases {
        dir.write("bad.json", content);
        let eval = dir.command(&[&eval[..], &["bad.json"]].concat());
        let ran = refused(&dir, name, eval, 1, &[&format!("bad.json: {says}"), hint]).no_stdout();
        assert_eq!(ran.stderr.contains("\n  hint: "), !hint.is_empty(), "{name}: {ran:?}");
    }
    let swapped = ["eval", "--annotations", "found.json", "--detections", "truth.json"];
    let lvis =
        ["eval", "--annotations", "truth.json", "--detections", "found.json", "--protocol", "lvis"];
    all_refused(
        &dir,
        &[
            (
                "absent",
                &[&eval[..], &["none.json"]].concat(),
                &["--detections: no such file as `none.json`", "hint: "],
            ),
            (
                "the two swapped",
                &swapped,
                &[
                    "found.json: top level: expected an object with `images`",
                    "hint: this looks like a detections file",
                ],
            ),
            (
                "rules that the file does not allow",
                &lvis,
                &[
                    "truth.json: images[].neg_category_ids: no image has it",
                    "hint: evaluate with the COCO protocol",
                ],
            ),
        ],
    );
}
