use super::{
    super::{
        judged::{ScoredBox, VerifiedLabel},
        *,
    },
    Written,
};
use crate::testing::shared;

const BOXES: &str = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n\
                     a,/m/dog,0.1,0.7,0.2,0.8,1\n\
                     a,/m/cat,0,1,0.5,0.75,0\n\
                     b,/m/dog,0.25,0.5,0.125,1e-1,-1\n";

fn boxes(contents: impl AsRef<[u8]>) -> (Boxes, Names, Names) {
    let (mut images, mut classes) = (Names::new(), Names::new());
    let read = read_boxes(&Written::new(contents).path(), &mut images, &mut classes).unwrap();
    (read, images, classes)
}

fn list(names: &Names) -> Vec<&str> {
    names.iter().collect()
}

#[test]
fn x_max_precedes_y_min() {
    let (read, images, classes) = boxes(BOXES);
    assert_eq!((list(&images), list(&classes)), (vec!["a", "b"], vec!["/m/dog", "/m/cat"]));
    let corners: Vec<_> = read.boxes.iter().map(|b| b.bbox).collect();
    let expected = [[0.1, 0.2, 0.7, 0.8], [0.0, 0.5, 1.0, 0.75], [0.25, 0.125, 0.5, 0.1]];
    assert_eq!(corners, expected);
    let flags: Vec<_> = read.boxes.iter().map(|b| (b.image, b.class, b.group_of())).collect();
    assert_eq!(flags, [(0, 0, Flag::Yes), (0, 1, Flag::No), (1, 0, Flag::Unknown)]);
    assert!(read.boxes.iter().all(|b| b.inside() == Flag::Unknown && b.source == Source::Other));
    assert_eq!((read.without_area, read.beyond), (1, 0));
    assert_eq!(read.columns.missing.len(), 6);
    assert_eq!(std::mem::size_of::<OpenImagesBox>(), 48);
}

/// Whatever the columns' order, the lines' ends, a mark of the byte order, quotes, empty lines, spaces,
/// packing.
#[test]
fn the_same_file_in_another_dress_is_the_same() {
    let plain = boxes(BOXES);
    let reordered = "YMax,IsGroupOf,Note,YMin,XMax,XMin,labelname,ImageId\n\
                     0.8,1,\"one, \"\"two\"\"\nthree\",0.2,0.7,0.1,/m/dog,a\n\
                     0.75,0,,0.5,1,0,/m/cat,a\n\
                     1e-1,-1,x,0.125,0.5,0.25,/m/dog,b";
    let mut other = boxes(reordered);
    assert_eq!(other.0.columns.passed_over, ["Note"]);
    other.0.columns.passed_over.clear();
    assert_eq!(other, plain);
    let quoted: String =
        BOXES.lines().map(|line| format!("\"{}\"\r\n", line.replace(',', "\",\""))).collect();
    assert_eq!(boxes(&quoted), plain);
    assert_eq!(boxes(format!("\u{feff}{}", BOXES.replace('\n', "\r\n\r\n"))), plain);
    assert_eq!(boxes(format!("\n\n{}", BOXES.replace(',', " , "))), plain);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, BOXES.as_bytes()).unwrap();
    assert_eq!(boxes(packed.finish().unwrap()), plain);
}

/// More than fits into one block: numbers and order are those of the file.
#[test]
fn a_file_of_many_parts_is_read_in_order() {
    let mut text = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsTruncated,Text\n".to_owned();
    for i in 0..400_000 {
        let (image, class) = (i / 7, i % 600);
        let rest = if i % 1000 == 0 { "\"a\nb\"" } else { "some text of no use to anybody" };
        text += &format!("{image:016x},/m/{class},0.{i:06},0.9,0.1,0.{i:06},{},{rest}\n", i % 2);
    }
    assert!(text.len() > 20 << 20);
    let (read, images, classes) = boxes(&text);
    assert_eq!((read.boxes.len(), images.len(), classes.len()), (400_000, 57_143, 600));
    for (i, found) in (0..).zip(&read.boxes) {
        assert_eq!((found.image, found.class), (i / 7, i % 600));
        assert_eq!(found.bbox[0], f64::from(i) / 1e6);
        assert_eq!(found.truncated() == Flag::Yes, i % 2 == 1);
    }
    assert_eq!(images.get(57_142), Some("000000000000df36"));
}

#[test]
fn real_files_of_all_versions_read() {
    let Some(folder) = shared("samples/openimages") else { return };
    for (name, kind, count, missing, passed_over) in [
        ("oidv6-train-annotations-bbox.head.csv", Kind::Boxes, 2, 0, 8),
        ("test-annotations-bbox.v4.head.csv", Kind::Boxes, 6, 0, 0),
        ("challenge2019_validation_bbox.head.csv", Kind::Boxes, 4, 6, 0),
        ("mmdet/oidv6-train-annotations-bbox.csv", Kind::Boxes, 1, 0, 0),
        ("datumaro_v6/test-annotations-bbox.csv", Kind::Boxes, 1, 0, 0),
        ("datumaro_v6/oidv6-train-annotations-human-imagelabels.csv", Kind::Labels, 2, 0, 0),
        ("mmdet/annotations-human-imagelabels-boxable.csv", Kind::Labels, 1, 0, 0),
        ("mmdet/cls-label-description.csv", Kind::Classes, 1, 0, 0),
        ("datumaro_v6/oidv6-class-descriptions.csv", Kind::Classes, 4, 0, 0),
        ("datumaro_v5/class-descriptions.csv", Kind::Classes, 2, 0, 0),
    ] {
        let path = folder.join(name);
        assert_eq!(Kind::of_file(&path).unwrap(), Some(kind), "{name}");
        let (mut images, mut classes) = (Names::new(), Names::new());
        let (read, columns) = match kind {
            Kind::Boxes => {
                let read = read_boxes(&path, &mut images, &mut classes).unwrap();
                (read.boxes.len(), read.columns)
            }
            Kind::Labels => {
                let read = read_labels(&path, &mut images, &mut classes).unwrap();
                (read.labels.len(), read.columns)
            }
            _ => (read_classes(&path).unwrap().names.len(), Columns::default()),
        };
        assert_eq!(
            (read, columns.missing.len(), columns.passed_over.len()),
            (count, missing, passed_over),
            "{name}"
        );
    }
    let images = folder.join("datumaro_v6/image_ids_and_rotation.csv");
    assert_eq!(Kind::of_file(&images).unwrap(), None);
    let (mut images, mut classes) = (Names::new(), Names::new());
    let path = folder.join("test-annotations-bbox.v4.head.csv");
    let first = read_boxes(&path, &mut images, &mut classes).unwrap().boxes[0];
    assert_eq!(first.bbox, [0.071905, 0.206591, 0.145346, 0.391306]);
    assert_eq!(first.source, Source::Drawn);
    let flags = [first.occluded(), first.truncated(), first.group_of(), first.depiction()];
    assert_eq!(flags, [Flag::No, Flag::Yes, Flag::Yes, Flag::No]);
}

#[test]
fn only_people_verify() {
    let text = "ImageID,Source,LabelName,Confidence\n\
                a,verification,/m/dog,1\n\
                a,crowdsource-verification,/m/cat,0\n\
                b,machine,/m/dog,0.9\n\
                b,machine,/m/cat,1.0\n\
                c,verification,/m/cat,0.0\n";
    let (mut images, mut classes) = (Names::new(), Names::new());
    let read = read_labels(&Written::new(text).path(), &mut images, &mut classes).unwrap();
    let label = |image, class, present| VerifiedLabel { image, class, present };
    assert_eq!(read.labels, [label(0, 0, true), label(0, 1, false), label(1, 1, false)]);
    assert_eq!((read.unverified, list(&images)), (2, vec!["a", "c"]));
    // Numbers go on where another file stopped.
    let more = Written::new("Confidence,LabelName,ImageID\n1,/m/cow,c\n1,/m/dog,d\n");
    let read = read_labels(&more.path(), &mut images, &mut classes).unwrap();
    assert_eq!(read.labels, [label(1, 2, true), label(2, 0, true)]);
    assert_eq!(read.columns.missing, ["Source"]);
}

#[test]
fn names_of_classes() {
    let text = "/m/a,Mouse\n/m/b,\"Plate, still\"\n/m/c,Mouse\n/m/d,Airplane,86\n/m/e,One, two\n";
    let classes = read_classes(&Written::new(text).path()).unwrap();
    assert_eq!(list(&classes.mids), ["/m/a", "/m/b", "/m/c", "/m/d", "/m/e"]);
    assert_eq!(classes.names, ["Mouse", "Plate, still", "Mouse", "Airplane", "One, two"]);
    assert_eq!((classes.with_numbers, classes.unquoted), (1, 1));
    let headed = read_classes(&Written::new(format!("LabelName,DisplayName\n{text}")).path());
    assert_eq!(headed.unwrap(), classes);
}

fn found(image: u32, class: u32, score: f64, bbox: [f64; 4]) -> ScoredBox {
    ScoredBox { image, class, score, bbox }
}

#[test]
fn predictions_come_back_from_both_forms() {
    let images: Names = ["z,1", "b", "c"].into_iter().collect();
    let classes: Names = ["/m/dog", "/m/cat"].into_iter().collect();
    let predictions = [
        found(2, 1, 0.1 + 0.2, [0.1, 0.2, 0.30000000000000004, 1.0]),
        found(0, 0, 1e-9, [0.0, -0.01, 1.001, 0.5]),
        found(2, 0, 0.9, [0.5, 0.5, 0.5, 0.75]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.csv");
    write_predictions(&path, &predictions, &images, &classes).unwrap();
    assert_eq!(Kind::of_file(&path).unwrap(), Some(Kind::Predictions));
    let (mut again, mut mids) = (images.clone(), classes.clone());
    let read = read_predictions(&path, &mut again, &mut mids).unwrap();
    assert_eq!((&read.boxes[..], read.without_area), (&predictions[..], 1));
    write_submission(&path, &predictions, &images, &classes).unwrap();
    assert_eq!(Kind::of_file(&path).unwrap(), Some(Kind::Submission));
    let text = fs_err::read_to_string(&path).unwrap();
    let expected = "ImageId,PredictionString\n\
                    \"z,1\",/m/dog 0.000000001 0 -0.01 1.001 0.5\n\
                    b,\n\
                    c,/m/cat 0.30000000000000004 0.1 0.2 0.30000000000000004 1 \
                    /m/dog 0.9 0.5 0.5 0.5 0.75\n";
    assert_eq!(text, expected);
    let read = read_submission(&path, &mut again, &mut mids).unwrap();
    assert_eq!(read.boxes, [predictions[1], predictions[0], predictions[2]]);
    assert_eq!((read.empty_images, read.without_area), (1, 1));
    assert_eq!((again, mids), (images.clone(), classes.clone()));
    let strange = [found(3, 0, 0.5, [0.0; 4])];
    let error = write_submission(&path, &strange, &images, &classes).unwrap_err();
    assert_eq!(error.to_string(), "number 3 has no name among 3");
    assert!(write_predictions(&path, &strange, &images, &classes).is_err());
    let spaced: Names = ["/m/a b"].into_iter().collect();
    assert!(write_submission(&path, &[], &images, &spaced).is_err());
    // What was there before is there still.
    assert_eq!(fs_err::read_to_string(&path).unwrap(), expected);
}

#[test]
fn both_forms_of_the_samples_are_the_same() {
    let Some(folder) = shared("samples/openimages_eval") else { return };
    for case in ["group_of", "hierarchy", "labels"] {
        let (mut images, mut classes) = (Names::new(), Names::new());
        let rows = folder.join(case).join("predictions.csv");
        let mut rows = read_predictions(&rows, &mut images, &mut classes).unwrap().boxes;
        let string = folder.join(case).join("submission.csv");
        let mut string = read_submission(&string, &mut images, &mut classes).unwrap().boxes;
        for list in [&mut rows, &mut string] {
            list.sort_by(|a, b| a.score.total_cmp(&b.score));
        }
        assert!(rows.len() > 10);
        assert_eq!(rows, string);
    }
}

#[test]
fn ranks_do_not_depend_on_the_order_of_files() {
    let names: Names = ["b", "c", "a"].into_iter().collect();
    assert_eq!(names.ranks(), [1, 2, 0]);
    assert!(Names::new().is_empty());
}
