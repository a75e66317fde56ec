//! What YAML files may hold.

use std::path::Path;

use crate::data::formats::yolo::{
    Files,
    settings::Settings,
    yaml::{Value, parse},
};

fn settings(text: impl AsRef<[u8]>) -> crate::Result<Settings> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.yaml");
    fs_err::write(&file, text).unwrap();
    Settings::read(&file, &Files::Folders)
}

#[test]
fn names_stay_as_they_are_written() {
    for names in [
        "[yes, 1.0, \"null\", 'a: b', naïve, 0x1F]",
        "{1: 1.0, 0: yes, 2: 'null', 4: naïve, 3: \"a: b\", \"5\": 0x1F}",
        "&all\n  - yes\n  - !!float 1.0\n  - !unknown/tag \"null\"\n  - >-\n    a:\n    b\n  - naïve # é\n  - 0x1F",
    ] {
        let text = format!("\u{feff}train: a\r\nnames: {names}\r\n");
        let names = settings(text).unwrap().names;
        assert_eq!(names, ["yes", "1.0", "null", "a: b", "naïve", "0x1F"]);
    }
    // Quotes keep spaces; a name of spaces is none.
    let text = "train: a\nnames: [lead, ' lead', \"trail \"]\n";
    assert_eq!(settings(text).unwrap().names, ["lead", " lead", "trail "]);
    let error = settings("train: a\nnames: [' ']\n").unwrap_err().to_string();
    assert!(error.contains("expected the name of a class"), "{error}");
}

#[test]
fn what_is_of_no_use_here_may_hold_anything() {
    let text = "# Ultralytics 🚀\npath: &p ../datasets/coco8 # root\ntrain: images/train\nval:\n  - a\n  - b\n\
                names:\n  0: person\n  1: bicycle\n\ndownload: |\n  from pathlib import Path\n  # labels\n  \
                urls = [f'{x}' for x in \"ab\"]\n  for k, v in {'a': 1}.items():\n      pass\n\
                roboflow: {workspace: x, url: https://example.org/a/1, project: *p}\n\
                augment: !!python/tuple [1, 2]\nodd: {1: [2, {3: 4}], ? [a] : b}\n<<: {x: y}\n";
    let settings = settings(text).unwrap();
    assert_eq!(settings.names, ["person", "bicycle"]);
    let splits: Vec<_> = settings
        .splits
        .iter()
        .map(|(k, v)| (*k, v.iter().map(|w| (w.line, &*w.path)).collect::<Vec<_>>()))
        .collect();
    assert_eq!(splits, [("train", vec![(3, "images/train")]), ("val", vec![(5, "a"), (6, "b")])]);
    assert!(settings.warnings.is_empty());
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, expected) in [
        ("", "line 1: expected keys and values, got an empty file"),
        ("# nothing\n", "got an empty file"),
        ("- a\n- b\n", "line 1: expected keys and values, got a list of 2"),
        ("train images\n", "line 1: expected keys and values, got `train images`"),
        ("train: a\nnames: [cat, dog\n", "line "),
        ("train: a\n\tnames: [cat]\n", "line "),
        ("train: 'a\nnames: [cat]\n", "line "),
        ("train: a\nnames: *missing\n", "line 2"),
        ("train: a\n---\nnames: [a]\n", "expected one document, got a second one"),
        ("train: a\n", "names: missing"),
        ("train: a\nnames:\n", "names: missing"),
        ("val:\nnames: [a]\n", "train: missing"),
        ("names: [a]\n", "train: missing"),
        ("train: a\nnames: []\n", "line 2: names: the list is empty"),
        ("train: a\nnames: {}\n", "line 2: names: the list is empty"),
        (
            "train: a\nnames: coco.names\n",
            "line 2: names: expected a list of classes, or a mapping from index to class, got `coco.names`",
        ),
        (
            "train: a\nnames:\n  - a\n  -\n",
            "line 4: names: expected the name of a class, got nothing",
        ),
        ("train: a\nnames: [[a, b]]\n", "expected the name of a class, got a list of 2"),
        ("train: a\nnames: {0: a, 0: b}\n", "names: the index 0 is there twice"),
        ("train: a\nnames: {1: a, 2: b}\n", "expected indices from 0 to 1 without holes, got 2"),
        ("train: a\nnames: {-1: a}\n", "names: expected a whole number, got `-1`"),
        ("train: a\nnc: 3\nnames: [a, b]\n", "line 2: nc: 3, but `names` has 2 classes"),
        ("train: a\nnc: two\n", "line 2: nc: expected a whole number, got `two`"),
        ("train: a\nnc: 0\n", "line 2: nc: expected 1 to 1000000 classes, got 0"),
        ("train: a\nnc: 99999999999\n", "classes, got 99999999999"),
        ("train: {x: y}\nnames: [a]\n", "line 1: train: expected a path, got a mapping of 1 keys"),
        ("train: [a, [b]]\nnames: [a]\n", "line 1: train: expected a path, got a list of 1"),
        ("path: [a]\ntrain: a\nnames: [a]\n", "line 1: path: expected a folder, got a list of 1"),
        (
            "train: a\nnames: [a]\nkpt_shape: [1000000, 3]\n",
            "line 3: kpt_shape: expected 100000 numbers a box at most, got 1000000 x 3",
        ),
        (
            "train: a\nnames: [a]\nkpt_shape: 17\n",
            "line 3: kpt_shape: expected two numbers, as [17, 3], got `17`",
        ),
    ] {
        let error = settings(text).unwrap_err().to_string();
        assert!(error.contains("data.yaml: "), "{error}");
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let utf16: Vec<u8> = "train: a".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = settings([b"\xff\xfe", &utf16[..]].concat()).unwrap_err().to_string();
    assert!(error.contains("UTF-16 text, not UTF-8"), "{error}");
    let error = settings(b"train: a\nnames: [caf\xe9]\n").unwrap_err().to_string();
    assert!(error.contains("expected UTF-8 text, got 0xe9 at byte 20"), "{error}");
}

#[test]
fn aliases_and_nesting_have_an_end() {
    let file = Path::new("data.yaml");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let one = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![one; 9].join(", "));
    }
    let error = parse(file, &bomb).unwrap_err().to_string();
    assert!(error.contains("more than 262144 values"), "{error}");
    for deep in ["[".repeat(200), "[".repeat(100_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
        assert!(parse(file, &deep).is_err());
    }
    let node = parse(file, "a: &x [1, 2]\nb: *x\n").unwrap();
    let Value::Map(entries) = &node.value else { panic!("{node:?}") };
    assert_eq!(entries[1].1.line, 2);
    assert!(matches!(&entries[1].1.value, Value::List(items) if items.len() == 2));
}

#[test]
fn a_file_that_is_cut_off_or_damaged_never_panics() {
    let text = "path: .\ntrain: [a, 'b']\nval: \"c\"\nnames:\n  0: &x cat\n  1: |\n    dog\n  2: *x\nnc: 3\n";
    for end in 0..text.len() {
        let _ = settings(&text[..end]);
        let mut damaged = text.as_bytes().to_vec();
        for byte in [0, b'\n', b':', b'[', b'\t', b'&', b'"', 0x80] {
            damaged[end] = byte;
            let _ = settings(&damaged);
        }
    }
}
