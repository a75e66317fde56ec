//! Files that are not as they should be: one message each, with line and column.

use super::{super::*, Written, message};

const HEADER: &str = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf";
const ROW: &str = "a,xclick,/m/dog,1,0.1,0.2,0.3,0.4,0";

fn boxes(contents: impl AsRef<[u8]>) -> String {
    let file = Written::new(contents);
    message(read_boxes(&file.path(), &mut Names::new(), &mut Names::new()), &file.path())
}

/// The message of a row after a good one.
fn row(row: &str) -> String {
    boxes(format!("{HEADER}\r\n{ROW}\r\n\r\n{row}\r\n{ROW}\r\n"))
}

#[test]
fn rows_of_boxes() {
    for (text, expected) in [
        ("a,xclick,/m/dog,1,0.1,x,0.3,0.4,0", "line 4, column XMax: expected a number, got `x`"),
        (
            "a,xclick,/m/dog,1,nan,0.2,0.3,0.4,0",
            "line 4, column XMin: expected a number, got `nan`",
        ),
        ("a,xclick,/m/dog,1,0.1,0.2,,0.4,0", "line 4, column YMin: the field is empty"),
        (",xclick,/m/dog,1,0.1,0.2,0.3,0.4,0", "line 4, column ImageID: the field is empty"),
        (
            "a,xclick,/m/dog,1,0.1,0.2,0.3,0.4,yes",
            "line 4, column IsGroupOf: expected 1 (yes), 0 (no) or -1 (unknown), got `yes`",
        ),
        (
            "a,xclick,/m/dog,1,0.1,0.2,33,0.4,0",
            "line 4, column YMin: expected a share of the image, between 0 and 1, got 33\n  \
             hint: are these pixels? Divide x by the image's width and y by its height",
        ),
        (
            "a,xclick,/m/dog,1,0.1",
            "line 4: expected 9 fields, as in the header, got 5\n  hint: is the file truncated? \
             Compare its size with the original's",
        ),
        (
            "a,xclick,/m/dog,1,0.1,0.2,0.3,0.4,0,0",
            "line 4: expected 9 fields, as in the header, got 10\n  hint: a text with a comma stands \
             in quotes (\")",
        ),
    ] {
        assert_eq!(row(text), format!("FILE: {expected}"));
    }
    let latin = [format!("{HEADER}\n").as_bytes(), b"caf\xe9,x,/m/dog,1,0,1,0,1,0\n"].concat();
    let expected = "FILE: line 2, column ImageID: expected UTF-8 text, got 0xe9";
    assert!(boxes(latin).starts_with(expected));
}

/// The first mistake is told, however the file is cut into parts.
#[test]
fn a_mistake_far_down() {
    let mut text = format!("{HEADER}\n");
    for i in 0..400_000 {
        text += if i == 350_000 { "a,x,/m/dog,1,0.1,0.2,0.3,?,0\n" } else { ROW };
        text += "\n";
        if i == 360_000 {
            text += "rubbish\n";
        }
    }
    assert_eq!(boxes(text), "FILE: line 350002, column YMax: expected a number, got `?`");
}

#[test]
fn headers() {
    for (header, expected) in [
        ("", "file: the file is empty"),
        ("\n\r\n\n", "file: the file holds only empty lines"),
        (
            "ImageID,LabelName,XMin,XMax,YMin\n",
            "line 1: expected the header of a file of boxes, with a column `YMax`, got \
             `ImageID,LabelName,XMin,XMax,YMin`\n  hint: these are the columns of a file of boxes",
        ),
        (
            "\nImageID,Source,LabelName,Confidence\na,b,c,1\n",
            "line 2: expected the header of a file of boxes, with a column `XMin`, got \
             `ImageID,Source,LabelName,Confidence`\n  hint: these are the columns of a file of \
             image-level labels: is it the right file?",
        ),
        (
            "ImageID;LabelName;XMin;XMax;YMin;YMax\n",
            "line 1: expected the header of a file of boxes, with a column `ImageID`, got \
             `ImageID;LabelName;XMin;XMax;YMin;YMax`\n  hint: columns are separated by commas",
        ),
        (
            "ImageID,LabelName,XMin,XMax,YMin,YMax,xmin\n",
            "line 1: columns 3 and 7 of the header are both `XMin`",
        ),
        ("{\"a\": 1}", "file: this looks like JSON, not like CSV"),
        ("<!DOCTYPE html>", "file: this is a page of the web, not CSV"),
        ("a\0b", "file: expected text, got a byte 0"),
        ("PK\u{3}\u{4}", "file: this is a zip archive, not CSV"),
    ] {
        let got = boxes(header);
        assert!(got.starts_with(&format!("FILE: {expected}")), "{got}");
    }
    assert!(boxes(b"\xff\xfeI\0m\0").contains("this is UTF-16 text, not UTF-8"));
    let folder = tempfile::tempdir().unwrap();
    let error =
        message(read_boxes(folder.path(), &mut Names::new(), &mut Names::new()), folder.path());
    assert!(error.starts_with("FILE: file: this is a folder"), "{error}");
    let nowhere = folder.path().join("nowhere.csv");
    assert!(Kind::of_file(&nowhere).is_err());
    // A header alone is a file without boxes.
    let file = Written::new(HEADER);
    let read = read_boxes(&file.path(), &mut Names::new(), &mut Names::new()).unwrap();
    assert!(read.boxes.is_empty());
}

#[test]
fn quotes_that_are_never_closed() {
    let text = format!("{HEADER}\n{ROW}\n\"a,xclick,/m/dog,1,0.1,0.2,0.3,0.4,0\n{ROW}\n");
    let got = boxes(text);
    let expected = "FILE: line 3: a quote (\") in this line or after it is never closed";
    assert!(got.starts_with(expected), "{got}");
}

#[test]
fn packed_files_that_are_cut_off() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let text = format!("{HEADER}\n{}", format!("{ROW}\n").repeat(1000));
    std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let got = boxes(&packed[..packed.len() / 2]);
    assert!(got.starts_with("FILE: file: the gzip archive is damaged or cut off"), "{got}");
}

#[test]
fn labels_classes_and_predictions() {
    let (mut images, mut classes) = (Names::new(), Names::new());
    let file = Written::new("ImageID,LabelName,Confidence\na,/m/dog,2\n");
    let got = message(read_labels(&file.path(), &mut images, &mut classes), &file.path());
    assert_eq!(got, "FILE: line 2, column Confidence: expected a number between 0 and 1, got 2");
    let file = Written::new("ImageID,LabelName,Score,XMin,XMax,YMin,YMax\na,/m/dog,inf,0,1,0,1\n");
    let got = message(read_predictions(&file.path(), &mut images, &mut classes), &file.path());
    assert_eq!(got, "FILE: line 2, column Score: expected a number, got `inf`");
    for (text, expected) in [
        ("/m/a,A\n/m/b\n", "line 2: expected MID,Name, got `/m/b`"),
        ("/m/a,A\n/m/b,B\n/m/a,C\n", "line 3, column 1: `/m/a` is in line 1, too"),
        ("LabelName,DisplayName\n", "file: there is a header and no class"),
        ("Person,/m/01g317\n", "line 1, column 1: expected a MID, as /m/01g317, got `Person`"),
        (
            "ImageID,Source,LabelName,Confidence\n",
            "line 1, column 1: expected a MID, as /m/01g317, got `ImageID`\n  hint: this looks like a \
             file of image-level labels",
        ),
    ] {
        let file = Written::new(text);
        let got = message(read_classes(&file.path()), &file.path());
        assert!(got.starts_with(&format!("FILE: {expected}")), "{got}");
    }
    let file = Written::new(b"/m/a,Caf\xe9\n");
    let got = message(read_classes(&file.path()), &file.path());
    assert!(got.starts_with("FILE: line 1, column 2: expected UTF-8 text, got 0xe9"), "{got}");
}

#[test]
fn submissions() {
    for (string, expected) in [
        ("/m/a 0.5 0 0 1", "the string ends after 5 words, before ymax"),
        ("/m/a 0.5 0 0 1 1 /m/b", "the string ends after 7 words, before score"),
        ("/m/a 0.5 0 0 1 1 0.5 /m/b 0 0 1 1", "expected a number for score (word 8), got `/m/b`"),
        (
            "/m/a 0.5 0 0 100 1",
            "xmax (word 5): expected a share of the image, between 0 and 1, got 100",
        ),
        ("/m/a NaN 0 0 1 1", "expected a number for score (word 2), got `NaN`"),
    ] {
        let file = Written::new(format!("ImageId,PredictionString\nx,\ny,{string}\n"));
        let read = read_submission(&file.path(), &mut Names::new(), &mut Names::new());
        let got = message(read, &file.path());
        let expected = format!("FILE: line 3, column PredictionString: {expected}");
        assert!(got.starts_with(&expected), "{got}");
    }
}
