//! Rows of label files.

use crate::data::formats::yolo::labels::{Label, Problem, Rows};

const ROWS: Rows = Rows { classes: 3, keypoints: None };

fn read(bytes: impl AsRef<[u8]>) -> Result<Label, Problem> {
    ROWS.parse(bytes.as_ref())
}

fn boxes(bytes: impl AsRef<[u8]>) -> Vec<(u32, [f64; 4])> {
    read(bytes).unwrap().objects.iter().map(|object| (object.class, object.xywh)).collect()
}

#[test]
fn what_separates_rows_and_columns_does_not_matter() {
    let expected = vec![(0, [0.25, 0.25, 0.5, 0.5]), (2, [0.0, 0.0, 1.0, 1.0])];
    for text in [
        "0 0.5 0.5 0.5 0.5\n2 0.5 0.5 1 1",
        "\u{feff}0 .5 0.5 5e-1 0.5\r\n\r\n2.0\t0.5  0.5 1. 1.0\r\n\r\n",
        "  0 0.5 0.5 0.5 0.5  \r2 0.5 0.5 1 1\r",
    ] {
        assert_eq!(boxes(text), expected, "{text:?}");
    }
    assert_eq!(read("").unwrap(), Label::default());
    assert_eq!(read(" \r\n\n").unwrap(), Label::default());
}

#[test]
fn rounding_to_six_digits_leaves_no_edge_outside() {
    assert_eq!(boxes("0 0.133333 0.300000 0.266667 0.200000")[0].1[..1], [0.0]);
    // 1/3 from the right edge: 0.8333333 and 0.3333333.
    let [x, _, w, _] = boxes("0 0.833334 0.5 0.333333 0.5")[0].1;
    assert_eq!(x + w, 1.0);
    // Beyond rounding it stays as it is.
    let [x, _, w, _] = boxes("0 0.995 0.5 0.02 0.5")[0].1;
    assert!((x + w - 1.005).abs() < 1e-12);
    let one_in_a_hundred = boxes("0 -0.01 1.01 1.01 1.01")[0].1;
    assert_eq!(one_in_a_hundred[2..], [1.01, 1.01]);
}

#[test]
fn rows_of_more_than_six_columns_are_polygons() {
    let label = read("1 0.1 0.2 0.5 0.2 0.5 0.8 0.3 0.9\n1 0.1 0.2 0.5 0.9 0.3 0.4").unwrap();
    assert_eq!((label.polygons, label.repeated, label.objects.len()), (2, 1, 1));
    for (got, wanted) in label.objects[0].xywh.iter().zip([0.1, 0.2, 0.4, 0.7]) {
        assert!((got - wanted).abs() < 1e-12);
    }
}

#[test]
fn bad_rows_are_named_with_line_and_column() {
    for (bytes, line, field, problem, hint) in [
        (
            &b"0 0.5 0.5 0.5"[..],
            1,
            "columns",
            "expected 5 columns (class, centre x and y, width, height), got 4",
            "cut off",
        ),
        (b"0 0.5 0.5 0.5 0.5 0.9", 1, "columns", "got 6", "score"),
        (
            b"0 0.5 0.5 0.5 0.5\n\n0,0.5,0.5,0.5,0.5",
            3,
            "columns",
            "spaces between, got 1",
            "commas",
        ),
        (
            b"0 0.1 0.1 0.2 0.2 0.3 0.1\n0 0.5 0.5 0.5 0.5",
            2,
            "columns",
            "a box, among polygons",
            "Ultralytics",
        ),
        (b"0 0.1 0.1 0.2 0.2 0.3 0.1 2", 1, "columns", "pairs of x and y, got 8", "kpt_shape"),
        (
            b"0 0.5 0.5 0.5 0.5\r\n3 0.5 0.5 0.5 0.5",
            2,
            "class",
            "expected an index from 0 to 2, got 3",
            "names",
        ),
        (b"cat 0.5 0.5 0.5 0.5", 1, "class", "expected the index of a class, got `cat`", "from 0"),
        (b"-1 0.5 0.5 0.5 0.5", 1, "class", "got `-1`", "from 0"),
        (b"0.5 0.5 0.5 0.5 0.5", 1, "class", "got `0.5`", "from 0"),
        (b"nan 0.5 0.5 0.5 0.5", 1, "class", "got `nan`", "from 0"),
        (b"0 nan 0.5 0.5 0.5", 1, "centre x", "expected a number, got `nan`", "remove"),
        (b"0 0.5 inf 0.5 0.5", 1, "centre y", "expected a number, got `inf`", "remove"),
        (
            b"0 0.5 0.5 -0.1 0.5",
            1,
            "width",
            "expected a share of the image from 0 to 1, got -0.1",
            "remove",
        ),
        (b"0 0.5 0.5 0.5 -0.001", 1, "height", "got -0.001", "remove"),
        (b"0 312 118 60 44", 1, "centre x", "got 312", "are these pixels"),
        (b"0 0.5 1.011 0.5 0.5", 1, "centre y", "got 1.011", "are these pixels"),
        (b"0 -0.011 0.5 0.5 0.5", 1, "centre x", "got -0.011", "correct the row"),
        (b"0 0.1 0.1 x 0.1 0.2 0.2", 1, "x", "got `x`", "correct"),
        (
            b"0 0.5 0.5 0.5 0.5\n\xe9 0.5",
            2,
            "text",
            "expected UTF-8 text, got the byte 0xe9",
            "UTF-8",
        ),
        (b"\xff\xfe0\0 \0", 1, "text", "UTF-16", "UTF-8"),
        (b"0 0.5 0.5 0.5 0.5\0", 1, "height", "expected a number, got `0.5\\0`", "correct"),
    ] {
        let got = read(bytes).unwrap_err();
        assert_eq!((got.line, got.field), (line, field), "{got:?}");
        assert!(got.problem.contains(problem), "{problem}: {got:?}");
        assert!(got.hint.contains(hint), "{hint}: {got:?}");
        assert_eq!(got.no_class, problem.contains("an index from"), "{got:?}");
    }
    let keypoints = Rows { keypoints: Some(6), ..ROWS };
    let got = keypoints.parse(b"0 0.5 0.5 0.5 0.5").unwrap_err();
    assert!(
        got.problem.contains("expected 11 columns (5 and those of `kpt_shape`), got 5"),
        "{got:?}"
    );
}

#[test]
fn a_file_that_is_cut_off_or_damaged_gives_rows_or_a_problem() {
    let whole = b"0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.6 0.1 0.6\r\n";
    for end in 0..whole.len() {
        let _ = read(&whole[..end]);
    }
    for at in 0..whole.len() {
        for byte in [0, b'\n', b' ', b'-', b'e', 0x80, 0xff] {
            let mut damaged = whole.to_vec();
            damaged[at] = byte;
            let _ = read(&damaged);
        }
    }
}
