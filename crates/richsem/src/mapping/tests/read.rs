use std::path::{Path, PathBuf};

use crate::{mapping::read::Names, testing::shared, vocabulary::Frequency};

fn written(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_kind_of_file_gives_its_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let coco = r#"{"images": [], "categories": [
        {"id": 9, "name": "b", "lvis_clip_row": 4},
        {"id": 2, "name": "a", "synset": "mouse.n.04", "synonyms": ["a", "c"], "image_count": 7,
         "frequency": "r", "supercategory": "x"}]}"#;
    let names = Names::read(&written(at, "a.json", coco)).unwrap();
    let classes = names.classes();
    assert_eq!((classes[0].id.as_str(), classes[0].name.as_str()), ("2", "a"));
    assert_eq!(classes[0].synonyms, ["c"]);
    assert_eq!((classes[0].images, classes[0].frequency), (Some(7), Some(Frequency::Rare)));
    assert_eq!(classes[1].id, "9");
    let list = r#"[{"id": "/m/1", "name": "Person"}, {"name": "no id"}]"#;
    let list = format!("\u{feff}{list}").replace("Person", &"é".repeat(40));
    let names = Names::read(&written(at, "list.json", list)).unwrap();
    assert_eq!(names.classes()[1].id, "no id");
    let csv = "LabelName,DisplayName\n/m/1,Person\n/m/2,\"Bread, white\"\r\n";
    let names = Names::read(&written(at, "names.csv", csv)).unwrap();
    assert_eq!(names.classes()[1].name, "Bread, white");
    let text = "\u{feff}stop sign,stopsign\n\ndog\nn02690373\nn02121808\tdomestic cat, house cat\n";
    let names = Names::read(&written(at, "names.txt", text)).unwrap();
    let classes = names.classes();
    assert_eq!(classes[0].synonyms, ["stopsign"]);
    assert_eq!(classes[2].name, "airliner");
    assert_eq!(
        (classes[3].wnid.as_deref(), classes[3].name.as_str()),
        (Some("n02121808"), "domestic cat")
    );
    assert!(names.notes[0].contains("4 lines") && names.notes[0].contains("1 blank"));
    // Whoever means a name with a comma is told; ImageNet's lines have their commas for synonyms.
    let told = "1 line has commas, and what follows one is a synonym: `stop sign,stopsign` is the class `stop sign`";
    assert_eq!(names.notes[1..], [told]);
    for name in ["n02690373", "zebra", ".hidden"] {
        std::fs::create_dir_all(at.join("set").join(name)).unwrap();
    }
    std::fs::write(at.join("set/readme"), "").unwrap();
    let names = Names::read(&at.join("set")).unwrap();
    let found: Vec<_> = names.classes().into_iter().map(|c| (c.id, c.name)).collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(found, [pair("n02690373", "airliner"), pair("zebra", "zebra")]);
    assert!(names.notes[0].contains("2 folders, one a class"), "{:?}", names.notes);
}

#[test]
fn broken_files_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("empty")).unwrap();
    for (name, text, says) in [
        ("a.json", "", "a.json"),
        ("a.json", "{\"categories\": [{\"id\": 1, \"name\": \"a\"}", "a.json"),
        ("a.json", "{\"images\": []}", "categories: missing"),
        ("a.json", "{\"categories\": []}", "expected at least one, got none"),
        ("a.json", "{\"categories\": [{\"id\": 1}]}", "name"),
        ("a.json", "{\"categories\": [{\"id\": [1], \"name\": \"a\"}]}", "categories[0].id"),
        ("a.json", "{\"categories\": [{\"id\": 1, \"name\": 3}]}", "a string"),
        (
            "a.json",
            "[{\"id\": 1, \"name\": \"a\"}, {\"id\": 1, \"name\": \"b\"}]",
            "classes 1 and 2",
        ),
        ("a.csv", "/m/1,Person\n/m/2\n", "line 2: expected MID,Name"),
        ("a.csv", "/m/1,\n", "line 1: expected MID,Name"),
        ("a.csv", "", "the file is empty"),
        ("a.txt", "\n \n", "expected at least one, got none"),
        ("a.txt", "dog\n,\n", "line 2: expected a name"),
        ("a.txt", "dog\ndog\n", "`dog` is the id of classes 1 and 2"),
    ] {
        let message = Names::read(&written(at, name, text)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(says), "{text:?}: {message}");
    }
    let message = Names::read(&written(at, "a.txt", b"caf\xe9")).unwrap_err().to_string();
    assert!(message.contains("expected UTF-8"), "{message}");
    assert!(Names::read(&at.join("empty")).unwrap_err().to_string().contains("a folder for each"));
    assert!(Names::read(&at.join("nothing.txt")).is_err());
}

#[test]
fn embeddings_belong_to_classes_in_order_or_by_row() {
    let (Some(categories), Some(table), Some(few)) = (
        shared("lvis/lvis_v1_train_cat_info.json"),
        shared("lvis/lvis_v1_clip_a+cname.npy"),
        shared("tinylvis/val.json"),
    ) else {
        return;
    };
    let mut all = Names::read(&categories).unwrap();
    all.read_text(&table).unwrap();
    let mut few = Names::read(&few).unwrap();
    few.read_text(&table).unwrap();
    let (all, few) = (all.classes(), few.classes());
    assert_eq!((all.len(), few.len()), (1203, 40));
    let same = few.iter().map(|class| {
        let whole = all.iter().find(|other| other.name == class.name).unwrap();
        assert!(class.text.is_some());
        class.text == whole.text
    });
    assert!(same.into_iter().all(|same| same));
    let list = tempfile::tempdir().unwrap();
    let mut three = Names::read(&written(list.path(), "a.txt", "a\nb\nc\n")).unwrap();
    let message = three.read_text(&table).unwrap_err().to_string();
    assert!(message.contains("expected 3 rows, one a class, got 1203"), "{message}");
}

#[test]
fn sets_and_archives_have_classes_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("yolo/images/train")).unwrap();
    std::fs::create_dir_all(at.join("yolo/labels/train")).unwrap();
    written(&at.join("yolo"), "data.yaml", "train: images/train\nnames: [cat, stop sign]\n");
    image::RgbImage::new(8, 8).save(at.join("yolo/images/train/a.png")).unwrap();
    written(&at.join("yolo/labels/train"), "a.txt", "1 .5 .5 .5 .5\n");
    let names = Names::read(&at.join("yolo")).unwrap();
    let classes = names.classes();
    assert_eq!((classes[1].id.as_str(), classes[1].name.as_str()), ("1", "stop sign"));
    assert_eq!((classes[0].images, classes[1].images), (Some(0), Some(1)));
    // As Ultralytics has classification: the parts are no classes.
    for name in ["train/n02690373", "train/zebra", "val/zebra"] {
        std::fs::create_dir_all(at.join("split").join(name)).unwrap();
    }
    let names = Names::read(&at.join("split")).unwrap();
    assert_eq!(names.classes().iter().map(|c| &*c.name).collect::<Vec<_>>(), ["airliner", "zebra"]);
    let mut tar = tar::Builder::new(std::fs::File::create(at.join("set.tar")).unwrap());
    tar.append_dir_all(".", at.join("split/train")).unwrap();
    for class in ["n02690373", "zebra"] {
        tar.append_path_with_name(at.join("yolo/images/train/a.png"), format!("{class}/a.png"))
            .unwrap();
    }
    tar.finish().unwrap();
    let names = Names::read(&at.join("set.tar")).unwrap();
    assert_eq!(names.classes().iter().map(|c| &*c.name).collect::<Vec<_>>(), ["airliner", "zebra"]);
}
