use super::*;
use image::imageops;

const CLASSES: [(i64, &str); 3] = [(1, "cup"), (2, "mug"), (4, "jar")];

/// A box of 30 by 20 pixels.
fn at(image: usize, class: i64, x: f64, y: f64) -> Boxed {
    (image, class, [x, y, 30.0, 20.0])
}

/// Six training and four validation images without a fault.
fn clean(folder: &Folder) -> (Vec<String>, Vec<String>) {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for key in 0..10u64 {
        let (list, name) = if key < 6 {
            (&mut train, format!("t{key}.jpg"))
        } else {
            (&mut val, format!("v{key}.jpg"))
        };
        std::fs::write(folder.path(&name), jpeg(&painted(key, 100, 80), 90)).unwrap();
        list.push(name);
    }
    (train, val)
}

fn boxes(images: usize) -> Vec<Boxed> {
    let all = (0..images).flat_map(|i| CLASSES.iter().map(move |&(class, _)| (i, class)));
    all.map(|(image, class)| at(image, class, 20.0 * class as f64, 40.0)).collect()
}

#[test]
fn a_clean_set_has_no_findings() {
    let folder = Folder::new();
    let (train, val) = clean(&folder);
    let train = folder.annotations("train.json", &train, &boxes(6), &CLASSES);
    let val = folder.annotations("val.json", &val, &boxes(4), &CLASSES);
    let store = folder.store();
    let parts = [
        Part::annotated(Role::Train, &train, Some(&store)),
        Part::annotated(Role::Val, &val, Some(&store)),
    ];
    let examination = examined(&parts);
    let loud = examination.findings.iter().filter(|f| f.level != Level::Note);
    assert_eq!(loud.map(|f| f.code).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(examination.parts[0].read, Some(6));
    assert_eq!(examination.classes[1].images, [6, 4]);
    let [rare, ..] = &examination.groups[..] else { panic!() };
    assert_eq!((rare.classes, &rare.seen, &rare.boxes), (3, &vec![3, 3], &vec![18, 12]));
}

#[test]
fn each_planted_fault_is_found() {
    let folder = Folder::new();
    let (mut train, mut val) = clean(&folder);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path(name), bytes).unwrap();
    // A validation image in train; another one encoded anew at half the size; a third one mirrored.
    write("leak.jpg", &std::fs::read(folder.path("v6.jpg")).unwrap());
    let half = imageops::resize(&painted(7, 100, 80), 50, 40, imageops::FilterType::Triangle);
    write("again.jpg", &jpeg(&half, 40));
    write("mirror.jpg", &jpeg(&imageops::flip_horizontal(&painted(8, 100, 80)), 80));
    // One repeated in train, one cut off, one missing, one empty of anything, two copies of one source.
    write("twice.jpg", &jpeg(&painted(0, 100, 80), 50));
    let whole = jpeg(&painted(20, 100, 80), 80);
    write("cut.jpg", &whole[..whole.len() / 2]);
    write("plain.jpg", &jpeg(&RgbImage::from_pixel(100, 80, Rgb([90; 3])), 80));
    write("a_jpg.rf.0123456789abcdef.jpg", &jpeg(&painted(21, 100, 80), 80));
    write("a_jpg.rf.fedcba9876543210.jpg", &jpeg(&painted(22, 100, 80), 80));
    write("unlisted.jpg", &jpeg(&painted(23, 100, 80), 80));
    for name in ["leak", "again", "mirror", "twice", "cut", "plain", "missing"] {
        train.push(format!("{name}.jpg"));
    }
    train.push("a_jpg.rf.0123456789abcdef.jpg".to_owned());
    val.push("a_jpg.rf.fedcba9876543210.jpg".to_owned());
    let mut of_train = boxes(6);
    // The same box with two classes, and nearly the same of one class.
    of_train.extend([
        at(0, 2, 5.0, 5.0),
        at(0, 4, 5.2, 5.0),
        at(1, 4, 5.0, 5.0),
        at(1, 4, 5.0, 5.2),
    ]);
    let train = folder.annotations("train.json", &train, &of_train, &CLASSES);
    // A class renamed, one of no training box, one that train does not have, one without boxes here.
    let classes = [(1, "cup"), (2, "beaker"), (4, "jar"), (7, "can")];
    let val_boxes = [at(0, 2, 9.0, 9.0), at(1, 7, 9.0, 9.0), at(2, 4, 9.0, 9.0)];
    let val = folder.annotations("val.json", &val, &val_boxes, &classes);
    let store = folder.store();
    let parts = [
        Part::annotated(Role::Train, &train, Some(&store)),
        Part::annotated(Role::Val, &val, Some(&store)),
    ];
    let examination = examined(&parts);
    for (code, count, says) in [
        ("copies_between_parts", 3, "1 as the same file, 2 that look the same"),
        ("copies_within", 1, "0 as the same file, 1 that look the same"),
        ("missing_files", 1, "1 image file is of 14 not there"),
        ("broken_images", 1, "cannot be read"),
        ("other_sizes", 1, "another size"),
        ("plain_images", 1, "too little in them"),
        ("roboflow_between_parts", 1, "before `.rf.`"),
        ("unlisted_images", 1, "no part that was looked at"),
        ("two_classes", 1, "mug / jar 1"),
        ("near_duplicates", 1, "nearly the same box and class"),
        ("names_differ", 1, "one id and two names"),
        ("classes_not_judged", 1, "no box in val"),
        ("classes_unknown", 1, "not in the file of train"),
    ] {
        let Some(finding) = found(&examination, code) else { panic!("{code} is not found") };
        assert_eq!(finding.count, count, "{code}: {}", finding.text);
        assert!(finding.text.contains(says), "{code}: {}", finding.text);
    }
    let leaks = found(&examination, "copies_between_parts").unwrap();
    let said: Vec<&str> = leaks.examples.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(said[0], "train/leak.jpg and val/v6.jpg: the same file");
    assert!(said.iter().any(|s| s.contains("train/again.jpg and val/v7.jpg: alike")), "{said:?}");
    assert!(said.iter().any(|s| s.contains("val/v8.jpg") && s.contains("mirrored")), "{said:?}");
    assert_eq!(examination.findings[0].level, Level::Problem, "problems first");

    let html = page("a <set>", &examination, &parts).unwrap();
    assert!(html.contains("a &lt;set&gt;: examined") && html.matches("<img src").count() >= 6);
    for outside in ["src=\"http", "href=", "<link", "url("] {
        assert!(!html.contains(outside), "the page stands alone: {outside}");
    }
    serde_json::to_string(&examination).unwrap();
}

#[test]
fn without_images_annotations_alone_are_examined_and_it_is_said() {
    let folder = Folder::new();
    let files: Vec<String> = (0..3).map(|i| format!("{i}.jpg")).collect();
    let train = folder.annotations("train.json", &files, &boxes(3), &CLASSES);
    let val = folder.annotations("val.json", &files[1..], &boxes(2), &CLASSES);
    let parts =
        [Part::annotated(Role::Train, &train, None), Part::annotated(Role::Val, &val, None)];
    let examination = examined(&parts);
    let unread = found(&examination, "images_not_read").unwrap();
    assert!(unread.part == "train, val" && unread.level == Level::Note);
    assert_eq!(examination.parts[0].read, None);
    // Extra classification images count by class.
    let parts =
        [parts[0].clone(), Part::classification(vec!["x/1.jpg".into()], None, vec![0, 1, 0])];
    let examination = examined(&parts);
    assert_eq!(examination.classes[1].images, [3, 1]);
}

#[test]
fn sizes_before_exif_are_told_apart_from_images_that_were_resized() {
    let folder = Folder::new();
    let image = jpeg(&painted(1, 80, 100), 90);
    // An EXIF segment that says: turned by a quarter.
    let tiff = [&b"II*\0\x08\0\0\0\x01\0"[..], &b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"[..]]
        .concat();
    let body = [&b"Exif\0\0"[..], &tiff].concat();
    let length = (body.len() as u16 + 2).to_be_bytes();
    let turned = [&image[..2], &[0xff, 0xe1], &length, &body, &image[2..]].concat();
    std::fs::write(folder.path("a.jpg"), turned).unwrap();
    std::fs::write(folder.path("b.jpg"), jpeg(&painted(2, 100, 80), 90)).unwrap();
    std::fs::write(folder.path("c.jpg"), jpeg(&painted(3, 60, 80), 90)).unwrap();
    let files = ["a.jpg", "b.jpg", "c.jpg"].map(str::to_owned);
    let set = folder.annotations("t.json", &files, &boxes(3), &CLASSES);
    for (orientation, by_exif) in [(Orientation::Exif, 0), (Orientation::Stored, 1)] {
        let store = ImageStore::open(folder.0.path(), orientation).unwrap();
        let examination = examined(&[Part::annotated(Role::Train, &set, Some(&store))]);
        let count = |code| found(&examination, code).map_or(0, |f| f.count);
        assert_eq!((count("sizes_before_exif"), count("other_sizes")), (by_exif, 1));
    }
}

/// Few things are said of sets that many use: these numbers are here so that a change of them is seen.
#[test]
fn false_alarms_on_clean_sets() {
    let loud = |parts: &[Part<'_>]| -> Vec<(&'static str, usize)> {
        let findings = examined(parts).findings.into_iter();
        findings.filter(|f| f.level != Level::Note).map(|f| (f.code, f.count)).collect()
    };
    if let Some((train, store)) = shared_set("tinylvis/train.json", "tinylvis/images.tar") {
        let (val, _) = shared_set("tinylvis/val.json", "tinylvis/images.tar").unwrap();
        let parts = [
            Part::annotated(Role::Train, &train, Some(&store)),
            Part::annotated(Role::Val, &val, Some(&store)),
        ];
        assert_eq!(loud(&parts), []);
    }
    if let Some((set, store)) =
        shared_set("photos/coco_mini/instances.json", "photos/coco_mini/images")
    {
        assert_eq!(loud(&[Part::annotated(Role::Train, &set, Some(&store))]), []);
    }
}
