//! One mistake each: the message must name the file, the field and what to do.

use super::{SMALL, file, open};
use crate::{data::dataset::Dataset, error::Error};

/// `content` is refused, with this field, and these words in the problem and in the hint.
#[track_caller]
fn refused(content: impl AsRef<[u8]>, at: &str, says: &str, advises: &str) {
    let broken = file(content.as_ref());
    for chunk in [super::WHOLE, 13] {
        let error = super::open_in_chunks(broken.path(), chunk).unwrap_err();
        let message = error.to_string();
        let Error::Invalid { file, field, problem, hint } = error else { panic!("{message}") };
        assert_eq!(file, broken.path());
        assert_eq!(field, at, "{message}");
        assert!(problem.contains(says), "{message}");
        assert!(hint.as_deref().unwrap_or_default().contains(advises), "{message}");
        assert!(!advises.is_empty() || hint.is_none(), "the hint is not tested: {message}");
    }
}

/// The small file with its first occurrence of `old` replaced.
#[track_caller]
fn with(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old), "{old}");
    SMALL.replacen(old, new, 1)
}

#[test]
fn nothing_in_the_file() {
    refused("", "top level", "the file is empty", "truncated");
    refused(" \n\t ", "top level", "only white space", "");
}

#[test]
fn not_json_at_all() {
    refused([0x1f, 0x8b, 8, 0, 0], "top level", "gzip archive is damaged", "truncated");
    refused(b"PK\x03\x04....", "top level", "zip archive", "unzip");
    refused([0xff, 0xfe, b'{', 0], "top level", "UTF-16", "UTF-8");
    refused(b"{\0\"\0i\0", "top level", "UTF-16", "UTF-8");
    refused(b"\0{\0\"\0i", "top level", "UTF-16", "UTF-8");
    refused([0xff, 0xfe, 0, 0, b'{', 0, 0, 0], "top level", "UTF-32", "UTF-8");
    refused(b"BZh91AY&SY", "top level", "bzip2", "bunzip2");
    refused(b"\xfd7zXZ\0\0", "top level", "xz archive", "unxz");
    refused("images:\n - 1", "top level", "got `i` at byte 0", "not JSON");
    for (value, got) in [("3", "a number"), ("null", "null"), ("\"x\"", "a string")] {
        refused(value, "top level", &format!("got {got}"), "the file holds a single value");
    }
}

#[test]
fn a_detections_file() {
    let content = r#"[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1], "score": 1}]"#;
    refused(content, "top level", "got a list", "detections file");
}

#[test]
fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let message = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("an empty folder") && message.contains("hint"), "{message}");
}

#[test]
fn no_such_file() {
    let folder = tempfile::tempdir().unwrap();
    let message = Dataset::open(&folder.path().join("none.json")).unwrap_err().to_string();
    assert!(message.contains("none.json"), "{message}");
}

#[test]
fn cut_off_in_a_record() {
    let end = SMALL.find("\"category_id\": 3").unwrap();
    let says = format!("ends at byte {end}, inside the record that begins at byte ");
    refused(&SMALL[..end], "annotations[1]", &says, "truncated");
}

#[test]
fn cut_off_between_records() {
    let end = SMALL.find("\n    {\"id\": 5").unwrap();
    refused(&SMALL[..end], "annotations", "after 1 records", "download or copy it again");
}

#[test]
fn cut_off_at_the_end() {
    let end = SMALL.rfind('}').unwrap();
    refused(&SMALL[..end], "top level", &format!("ends at byte {end}"), "truncated");
}

#[test]
fn two_files_joined() {
    refused(format!("{SMALL}{SMALL}"), "top level", "unexpected text at byte", "two files joined");
}

#[test]
fn a_list_is_missing() {
    refused(with("\"images\"", "\"photos\""), "images", "missing", "`images`");
    refused(
        with("\"annotations\"", "\"anns\""),
        "annotations",
        "missing",
        "give it as `annotations`",
    );
    refused(with("\"categories\"", "\"classes\""), "categories", "missing", "id and name");
}

#[test]
fn a_list_is_something_else() {
    let content = r#"{"images": {"1": {}}, "annotations": [], "categories": []}"#;
    refused(content, "images", "expected a list of objects, got an object at byte 11", "");
    refused(r#"{"annotations": null}"#, "annotations", "got null", "");
    refused(r#"{"annotations": [[1, 2]]}"#, "annotations[0]", "expected an object, got a list", "");
    refused(r#"{"images": [7]}"#, "images[0]", "expected an object, got a number", "");
}

#[test]
fn a_list_is_empty() {
    let content = r#"{"images": [], "annotations": [], "categories": [{"id":1,"name":"a"}]}"#;
    refused(content, "images", "the list is empty", "filter");
    let content = r#"{"images": [{"id":1,"file_name":"a","width":1,"height":1}],
        "annotations": [], "categories": []}"#;
    refused(content, "categories", "the list is empty", "filter");
}

#[test]
fn a_list_occurs_twice() {
    refused(with("\"version\": 3", "\"annotations\": []"), "annotations", "occurs twice", "merge");
}

#[test]
fn commas_and_braces_amiss() {
    refused(with("100}\n  ],", "100},\n  ],"), "annotations[4]", "expected an object, got `]`", "");
    refused(with("[]},\n", "[]}\n"), "annotations[1]", "expected `,` or `]`", "");
    refused(
        with("\"version\": 3,", "\"version\": 3"),
        "top level",
        "expected `,` or `}`, got a string",
        "",
    );
    refused(
        with("\"version\":", "version:"),
        "top level",
        "expected a key in double quotes, got `v`",
        "",
    );
    refused(with("\"version\": 3", "\"version\" 3"), "version", "expected `:`", "");
    refused(with("\"version\": 3", "\"version\": "), "version", "expected a value, got `,`", "");
}

#[test]
fn syntax_inside_a_record() {
    let at = SMALL.find("600.5").unwrap();
    for (number, stops_at) in [("x00.5", at), ("6x0.5", at + 1)] {
        let says = format!("not valid JSON at byte {stops_at}: ");
        let content = with("600.5", number);
        refused(content, "annotations[0].area", &says, "the record is {\"id\": 7");
    }
}

#[test]
fn a_box_that_is_no_box() {
    let field = "annotations[0].bbox";
    let expected_box = "expected 4 finite numbers [x, y, width, height]";
    let expected = format!("{expected_box}, got ");
    let bbox = |new: &str| with("[10, 20, 30.25, 40]", new);
    let got = |what: &str| format!("{expected}{what}");
    refused(bbox("[10, 20, 30]"), field, &got("a list of 3: [10,20,30]"), "");
    refused(bbox("[1, 2, 3, 4, 5]"), field, &got("a list of 5"), "");
    refused(bbox("[1, 2, null, 4]"), field, &got("a list of 4: [1,2,null,4]"), "");
    refused(bbox("[1, \"2\", 3, 4]"), field, &got("a list of 4: [1,\"2\",3,4]"), "");
    refused(bbox("\"1 2 3 4\""), field, &got("the string \"1 2 3 4\""), "");
    refused(bbox("{\"x\": 1}"), field, &got("an object"), "");
    // The second has an empty segmentation.
    let field = "annotations[1].bbox";
    for (bbox, got) in [("[]", "got an empty list"), ("null", "missing")] {
        let without = with("[-5, 90, 10, 20]", bbox);
        refused(without, field, &format!("{expected_box}, {got}"), "a segmentation would do");
    }
    let without = with("\"bbox\": [-5, 90, 10, 20], ", "");
    refused(without, field, &format!("{expected_box}, missing"), "a segmentation would do");
}

#[test]
fn numbers_that_are_not_finite() {
    let field = "annotations[0].bbox";
    for word in ["NaN", "Infinity", "-Infinity", "nan", "None", "inf"] {
        let got = format!(
            "expected 4 finite numbers [x, y, width, height], got {}",
            word.trim_start_matches('-')
        );
        refused(with("30.25", word), field, &got, "allow_nan=False");
    }
    refused(with("30.25", "1e999"), field, "got a number too large", "");
    refused(
        with("600.5", "NaN"),
        "annotations[0].area",
        "expected a finite number, got NaN",
        "allow_nan",
    );
}

#[test]
fn negative_sizes() {
    let field = "annotations[0].bbox";
    refused(with("30.25", "-30.25"), field, "a width of 0 or more, got -30.25", "not two corners");
    refused(with("30.25, 40", "30.25, -1"), field, "a height of 0 or more, got -1", "in pixels");
    refused(with("600.5", "-600.5"), "annotations[0].area", "got -600.5", "");
}

#[test]
fn fields_of_the_wrong_type() {
    refused(
        with("\"id\": 41", "\"id\": \"jug\""),
        "categories[2].id",
        "expected an integer, got the string \"jug\"",
        "ids are numbers",
    );
    refused(
        with("\"id\": 7", "\"id\": 7.5"),
        "annotations[0].id",
        "expected an integer or a string, got 7.5",
        "",
    );
    // One more than fits, and many more.
    for large in ["9223372036854775808", "92233720368547758080000"] {
        refused(
            with("\"id\": 7", &format!("\"id\": {large}")),
            "annotations[0].id",
            "expected an integer or a string, got 9",
            "to 9223372036854775807; larger ones are written as strings",
        );
    }
    refused(
        with("\"image_id\": 20", "\"image_id\": null"),
        "annotations[0].image_id",
        "got null",
        "",
    );
    refused(
        with("\"iscrowd\": 0", "\"iscrowd\": 2"),
        "annotations[0].iscrowd",
        "expected 0 or 1, got 2",
        "",
    );
    refused(
        with("\"name\": \"mug\"", "\"name\": 5"),
        "categories[1].name",
        "expected a string, got 5",
        "",
    );
    refused(
        with("\"lvis_clip_row\": 5", "\"lvis_clip_row\": -5"),
        "categories[2].lvis_clip_row",
        "got -5",
        "",
    );
    let frequency = with("\"name\": \"mug\"", "\"name\": \"mug\", \"frequency\": \"often\"");
    refused(frequency, "categories[1].frequency", "expected `r`, `c` or `f`, got the string", "");
    refused(
        with("\"id\": 7", "\"id\": 7, \"id\": 8"),
        "annotations[0]",
        "duplicate field `id`",
        "",
    );
}

#[test]
fn fields_that_are_missing() {
    refused(with("\"id\": 7, ", ""), "annotations[0].id", "missing; expected an integer", "bbox");
    let field = "images[0].width";
    refused(with("\"width\": 100, ", ""), field, "missing; expected pixels", "leave out both");
    refused(with(", \"name\": \"mug\"", ""), "categories[1].name", "missing", "the record has id");
    refused(
        with(", \"name\": \"mug\"", ", \"name\": \" \""),
        "categories[1].name",
        "an empty string",
        "prompts",
    );
}

#[test]
fn sizes_of_images() {
    for (width, got) in [("0", "0; expected pixels"), ("null", "missing; expected pixels")] {
        let one = with("\"width\": 100", &format!("\"width\": {width}"));
        refused(one, "images[0].width", got, "leave out both");
    }
    refused(with("\"height\": 48", "\"height\": -48"), "images[1].height", "got -48", "");
    refused(
        with("\"height\": 48", "\"height\": \"tall\""),
        "images[1].height",
        "got the string \"tall\"",
        "",
    );
    refused(
        with("\"height\": 48", "\"height\": 1e12"),
        "images[1].height",
        "got 1000000000000",
        "",
    );
}

#[test]
fn ids_that_occur_twice() {
    refused(
        with("\"id\": 9,", "\"id\": 7,"),
        "annotations[2].id",
        "7 is already the id of annotations[0]",
        "anew",
    );
    refused(
        with("{\"id\": 10,", "{\"id\": 20,"),
        "images[1].id",
        "20 is already the id of images[0]",
        "its own",
    );
    refused(
        with("{\"id\": 41,", "{\"id\": 3,"),
        "categories[2].id",
        "3 is already the id of categories[1]",
        "`mug` and `jug`",
    );
}

#[test]
fn ids_that_do_not_exist() {
    refused(
        with("\"id\": 5, \"image_id\": 20", "\"id\": 5, \"image_id\": 21"),
        "annotations[1].image_id",
        "no image has the id 21",
        "2 images with ids from 10 to 20, not all used; the closest: 20",
    );
    let says = "no category has the id 42";
    let closest = "3 categories with ids from 3 to 90, not all used; the closest: 41, 90";
    refused(
        with("\"category_id\": 90", "\"category_id\": 42"),
        "annotations[0].category_id",
        says,
        closest,
    );
    let dense = SMALL.replace("90", "2").replace("41", "1");
    refused(
        dense.replacen("\"category_id\": 2", "\"category_id\": 0", 1),
        "annotations[0].category_id",
        "no category has the id 0",
        "the file has categories 1..=3",
    );
}

#[test]
fn negative_classes_that_are_no_list_of_ids() {
    let content = with("{\"id\": 10,", "{\"id\": 10, \"neg_category_ids\": [\"mug\"],");
    refused(
        content,
        "images[1].neg_category_ids",
        "expected a list of category ids, got a list of 1",
        "",
    );
}

#[test]
fn file_names_that_leave_the_image_root() {
    let name = |new: &str| with("a\\\\b.jpg", new);
    let field = "images[0].file_name";
    for outside in ["../../etc/passwd", "a/../../b.jpg", "..\\\\..\\\\b.jpg", ".."] {
        refused(name(outside), field, "leaves the image root", "relative to the folder");
    }
    for absolute in ["/etc/passwd", "\\\\\\\\server\\\\b.jpg", "C:\\\\b.jpg", "d:b.jpg"] {
        refused(name(absolute), field, "expected a relative path", "relative to the folder");
    }
    for none in [".", "a/", "a\\u0000.jpg"] {
        refused(name(none), field, "expected the path of an image", "relative");
    }
    let url = with("http://h.org/train2017/b.jpg?x=1", "http://h.org/../../b.jpg");
    refused(url, "images[1].coco_url", "leaves the image root", "relative");
    let url = with("http://h.org/train2017/b.jpg?x=1", "http://h.org");
    refused(url, "images[1].coco_url", "expected the path of an image", "relative");
    let neither = with("\"coco_url\": \"http://h.org/train2017/b.jpg?x=1\", ", "");
    refused(neither, "images[1].file_name", "missing", "LVIS v1 `coco_url`");
    let empty = with("http://h.org/train2017/b.jpg?x=1", "");
    refused(empty, "images[1].file_name", "missing", "one of them is needed");
}

#[test]
fn a_record_without_an_end_is_not_read_into_memory() {
    // A brace is missing, and 70 MiB follow.
    let mut content = br#"{"annotations": [{"id": 1, "note": ""#.to_vec();
    content.resize(70 << 20, b'x');
    let broken = file(&content);
    let message = Dataset::open(broken.path()).unwrap_err().to_string();
    assert!(message.contains("annotations[0]: begins at byte 17"), "{message}");
    assert!(message.contains("no end within 64 MiB") && message.contains("hint"), "{message}");
}

#[test]
fn deep_nesting_is_refused_not_recursed() {
    let deep = "[".repeat(100_000);
    assert!(open(&with("\"bbox\": [10, 20, 30.25, 40]", &format!("\"bbox\": {deep}"))).is_err());
    let balanced = format!("{deep}{}", "]".repeat(100_000));
    refused(with("[10, 20, 30.25, 40]", &balanced), "annotations[0].bbox", "", "the record is");
}

#[test]
fn text_that_is_not_utf_8() {
    let mut content = SMALL.as_bytes().to_vec();
    let at = SMALL.find("mug").unwrap();
    content[at] = 0xff;
    refused(content, "categories[1].name", "not valid JSON", "the record is");
}
