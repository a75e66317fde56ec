//! `synth`, `dataset` and `map`.

use serde_json::json;

use super::util::{Dir, SMALL_SYNTH};

#[test]
fn a_drawn_set_is_counted_and_its_readme_makes_it_again() {
    let dir = Dir::new();
    let drawn = dir.command(&SMALL_SYNTH).ok().stderr_has("12 training, 6 validation");
    let stats = dir.command(&["dataset", "stats", "set/train.json"]).ok();
    let stats = stats.stdout_has("12 images").stdout_has("4 classes");
    // Four classes in twelve images: which groups they fall into follows from their images.
    let train = dir.json("set/train.json");
    let boxes = train["annotations"].as_array().unwrap().len().to_string();
    for category in train["categories"].as_array().unwrap() {
        let id = category["id"].to_string();
        let (name, group) =
            (category["name"].as_str().unwrap(), category["frequency"].as_str().unwrap());
        let (images, instances) =
            (category["image_count"].to_string(), category["instance_count"].to_string());
        assert_eq!(stats.row(&id), [&*id, name, group, &*images, &*instances], "{stats:?}");
        assert_eq!(drawn.row(&id)[..5], [&*id, name, group, &*images, &*instances], "{drawn:?}");
    }
    let all = train["categories"].as_array().unwrap();
    let rare = all.iter().filter(|c| c["frequency"] == "r").count().to_string();
    assert_eq!(stats.row("rare")[4], rare, "{stats:?}");
    let by_size: u64 = ["small", "medium", "large"]
        .iter()
        .map(|size| stats.row(size).iter().rev().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(by_size.to_string(), boxes, "{stats:?}");

    dir.command(&SMALL_SYNTH)
        .fails(1)
        .stderr_has("/set` exists and is not empty")
        .stderr_has("--overwrite");
    dir.command(&[&SMALL_SYNTH[..], &["--overwrite"]].concat()).ok();

    let readme = dir.text("set/README.md");
    let words: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("    richsem"))
        .take_while(|line| !line.is_empty())
        .flat_map(str::split_whitespace)
        .filter(|word| *word != "\\")
        .map(|word| if word == "FOLDER" { "again" } else { word })
        .skip(1)
        .collect();
    dir.command(&words).ok();
    assert_eq!(dir.files("set"), dir.files("again"));
    for file in dir.files("set") {
        assert!(dir.read(&format!("set/{file}")) == dir.read(&format!("again/{file}")), "{file}");
    }
    dir.command(&["synth", "x", "--classes", "0"]).fails(1).stderr_has("--classes: expected 1 to");
}

#[test]
fn voc_becomes_coco() {
    let dir = Dir::new();
    let object = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>";
    let xml = format!(
        "<annotation><size><width>20</width><height>20</height></size>{object}</annotation>"
    );
    dir.write("voc/Annotations/a.xml", xml);
    dir.write("voc/JPEGImages/a.jpg", "");
    dir.command(&["dataset", "convert", "voc", "out", "--to", "coco"])
        .ok()
        .stdout_has("out/all.json")
        .stdout_has("voc/JPEGImages")
        .stdout_has("all as read (Pascal VOC XML): 1 image, 1 annotation, 1 class")
        .stdout_has("Everything that was read is in the new files.");
    assert_eq!(dir.json("out/all.json")["annotations"][0]["bbox"], json!([0.0, 0.0, 9.0, 9.0]));
    // As it was called before.
    dir.command(&["dataset", "from-voc", "voc", "out1"])
        .ok()
        .stderr_has("is now `dataset convert IN OUT --to coco`");
    assert!(dir.read("out/all.json") == dir.read("out1/all.json"));
    dir.command(&["dataset", "convert", "out", "lvis", "--to", "lvis"])
        .ok()
        .stdout_has("image_count, instance_count and frequency of 1 class were counted");
    assert_eq!(dir.json("lvis/all.json")["categories"][0]["frequency"], json!("r"));
    dir.command(&["dataset", "stats", "voc"]).ok().stdout_has("1 image, 1 annotation");
    dir.command(&["dataset", "convert", "absent", "out2", "--to", "coco"])
        .fails(1)
        .stderr_has("absent");
    dir.command(&["dataset", "convert", "voc", "out2"]).fails(2).stderr_has("--to");
    assert!(!dir.exists("out2"));
}

#[test]
fn classes_are_mapped_and_decisions_stay() {
    let dir = Dir::new();
    dir.write("from.csv", "LabelName,DisplayName\n/m/1,Bicycles\n/m/2,Salmon\n/m/3,Qwertz\n");
    let to = json!({"categories": [
        {"id": 7, "name": "bicycle", "synset": "bicycle.n.01"},
        {"id": 8, "name": "salmon_(fish)"},
        {"id": 9, "name": "salmon_(food)", "image_count": 3, "frequency": "r"},
    ]});
    dir.write("to.json", to.to_string());
    let args = ["map", "from.csv", "to.json", "--out", "map.json", "--review", "review.toml"];
    let ran = dir.command(&args).ok().stderr_has("0 decided, 1 open");
    ran.stdout_has("salmon_(food)").stdout_has("Salmon");
    assert_eq!(dir.json("map.json"), json!({"/m/1": [7], "/m/3": []}));
    let review = dir.text("review.toml");
    dir.write("review.toml", review.replace("decision = \"\"", "decision = \"salmon_(food)\""));
    dir.command(&args).ok().stderr_has("1 decided, 0 open");
    assert_eq!(dir.json("map.json"), json!({"/m/1": [7], "/m/2": [9], "/m/3": []}));
    dir.command(&args).ok().stderr_has("1 decided, 0 open");
    assert_eq!(dir.json("map.json")["/m/2"], json!([9]));

    // A mapping to be checked is read before the teacher, which is no file of weights here.
    dir.write("weights.pt", "");
    let check = |file: &str| {
        dir.command(&["map", "from.csv", "to.json", "--teacher", "weights.pt", "--check", file])
    };
    for (name, text, says) in [
        ("empty.json", "", "empty.json: JSON: "),
        ("cut.json", "{\"/m/1\": ", "cut.json: JSON: "),
        (
            "strange.json",
            "{\"/m/1\": [\"nobody\"]}",
            "strange.json: /m/1: \"nobody\" is no category",
        ),
        ("other.json", "{\"n1\": [\"bicycle\"]}", "no class of from.csv has an entry"),
    ] {
        dir.write(name, text);
        check(name).fails(1).stderr_has(says);
    }
    check("map.json").fails(1).stderr_has("expected a folder, or a .tar");

    dir.command(&["map", "from.csv", "none.json"])
        .fails(1)
        .stderr_has("error: no such file or folder as `none.json`");
    dir.command(&["map", "from.csv", "to.json", "--out", "to.json"]).fails(1).stderr_has("--out: ");
    dir.write("review.toml", "version = 1\n[[class]]\nfrom = \"/m/2\"\ndecision = \"salmon\"\n");
    dir.command(&args).fails(1).stderr_has("class[0].decision").stderr_has("did you mean");
}

#[test]
fn what_is_lost_is_named_and_what_is_kept_is_not() {
    let dir = Dir::new();
    let record = |id: u32| {
        json!({"id": id, "image_id": id, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12,
               "segmentation": [[1, 2, 4, 2, 4, 6]], "track_id": id})
    };
    let image =
        |id: u32| json!({"id": id, "file_name": format!("v_{id}.jpg"), "width": 9, "height": 9});
    let all: Vec<u32> = (1..=10).collect();
    let set = json!({
        "info": {"year": 2020},
        "images": all.iter().map(|id| image(*id)).collect::<Vec<_>>(),
        "annotations": all.iter().map(|id| record(*id)).collect::<Vec<_>>(),
        "categories": [{"id": 1, "name": "cat", "synonyms": ["cat"]}],
    });
    dir.write("all.json", set.to_string());
    let convert = |to: &str, more: &[&str]| {
        dir.command(&[&["dataset", "convert", "all.json", to, "--to", to][..], more].concat())
    };
    let ran = convert("coco", &[]).ok();
    let ran = ran.stdout_has("Everything in the set is in the new files.");
    assert!(!format!("{ran:?}").contains("Never read"), "{ran:?}");
    assert_eq!(dir.json("coco/all.json")["annotations"][3], {
        let mut kept = record(4);
        (kept["bbox"], kept["area"], kept["iscrowd"]) =
            (json!([1.0, 2.0, 3.0, 4.0]), json!(12.0), json!(0));
        kept
    });
    assert_eq!(dir.json("coco/all.json")["categories"], set["categories"]);
    // Nothing shows which way up the images are.
    convert("yolo", &[]).fails(1).stderr_has("--images").stderr_has("--put-images keep");
    convert("yolo", &["--put-images", "keep"])
        .ok()
        .stdout_has("annotations with `segmentation`")
        .stdout_has("`info` of the file")
        .stdout_has("EXIF orientation is not known");

    let split = |more: &[&str]| {
        dir.command(&[&["dataset", "split", "all.json", "parts"][..], more].concat())
    };
    split(&["--group", "^xyz"]).fails(1).stderr_has("--group: `^xyz` matches none of the 10 names");
    split(&["--parts", "a=0.7,b=0.7"])
        .fails(1)
        .stderr_has("--parts: expected shares")
        .stderr_has("1.4");
    split(&["--group", "^v_([1-3])[.]"])
        .ok()
        .stdout_has("--group matches 3 of 10 names")
        .stdout_has("no image was found")
        .stdout_has("Everything in the set is in the new files.");
}
