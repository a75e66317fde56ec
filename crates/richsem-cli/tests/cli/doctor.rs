//! `doctor`.

use serde_json::{Value, json};

use super::util::{Dir, SMALL_SYNTH};

/// A drawn set, and its annotations of a part.
fn drawn() -> (Dir, Value, Value) {
    let dir = Dir::new();
    dir.command(&SMALL_SYNTH).ok();
    let (train, val) = (dir.json("set/train.json"), dir.json("set/val.json"));
    (dir, train, val)
}

const COMMAND: [&str; 6] =
    ["doctor", "set/train.json", "--val", "set/val.json", "--images", "set/images"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&COMMAND[..], more].concat()
}

#[test]
fn a_leak_is_a_problem_and_is_shown() {
    let (dir, mut train, val) = drawn();
    dir.command(&with(&["--scheme", "scheme.toml"])).exits(0).stdout_has("0 problems");
    // The settings are ones that training takes.
    let set = ["train", "-c", "scheme.toml", "--run", "run", "--set", "data.batch_size=0"];
    dir.command(&set).fails(1).stderr_has("data.batch_size");

    let mut leaked = val["images"][0].clone();
    let name = leaked["file_name"].as_str().unwrap().to_owned();
    dir.write("set/images/leak.png", dir.read(&format!("set/images/{name}")));
    leaked["id"] = json!(99_999);
    leaked["file_name"] = json!("leak.png");
    train["images"].as_array_mut().unwrap().push(leaked);
    dir.write("set/train.json", train.to_string());
    let ran = dir.command(&with(&["--html", "d.html", "--json", "d.json"])).exits(1);
    ran.stdout_has("1 image of val").stdout_has("train/leak.png and val/").stdout_has("1 problem");
    let found = dir.json("d.json");
    assert_eq!(found["findings"][0]["code"], "copies_between_parts");
    assert!(dir.text("d.html").contains("<img src=\"data:image/jpeg;base64,"));
    // Annotations alone show nothing of it.
    dir.command(&with(&["--no-images"])).exits(0).stdout_has("were not read");
}

/// In each layout that has parts: a test image that was trained on, and one that Roboflow made of a training image.
#[test]
fn a_leak_into_test_is_a_problem_too() {
    let dir = Dir::new();
    dir.command(&SMALL_SYNTH).ok();
    let train = dir.json("set/train.json");
    let drawn = |at: usize| {
        dir.read(&format!("set/images/{}", train["images"][at]["file_name"].as_str().unwrap()))
    };
    let yaml = "train: images/train\nval: images/val\ntest: images/test\nnames: [a]\n";
    dir.write("yolo/data.yaml", yaml);
    for (part, name, at) in [
        ("train", "a.rf.0123456789ab", 0),
        ("train", "b", 1),
        ("val", "c", 2),
        ("val", "d", 3),
        ("test", "a.rf.ba9876543210", 4),
        ("test", "e", 1),
    ] {
        dir.write(&format!("yolo/images/{part}/{name}.png"), drawn(at));
        dir.write(&format!("yolo/labels/{part}/{name}.txt"), "0 0.5 0.5 0.2 0.2\n");
        dir.write(&format!("voc/{part}/{name}.png"), drawn(at));
        let object = "<object><name>a</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>\
                      <ymax>9</ymax></bndbox></object>";
        let xml = format!("<annotation>{object}</annotation>");
        dir.write(&format!("voc/{part}/{name}.xml"), xml);
    }
    dir.command(&["dataset", "convert", "yolo", "coco", "--to", "coco", "--put-images", "copy"])
        .ok();
    for set in ["yolo", "coco", "voc"] {
        let ran = dir.command(&["doctor", set, "--json", "d.json"]).exits(1);
        ran.stdout_has("1 image of test (50.0 %) also in train");
        let found = dir.json("d.json");
        let parts = found["parts"].as_array().unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["train", "val", "test"], "{set}");
        let findings = found["findings"].as_array().unwrap();
        let parts_of = |code: &str| -> Vec<&str> {
            let of = findings.iter().filter(|finding| finding["code"] == code);
            of.map(|finding| finding["part"].as_str().unwrap()).collect()
        };
        assert_eq!(parts_of("copies_between_parts"), ["train, test"], "{set}");
        assert_eq!(parts_of("roboflow_between_parts"), ["train, test"], "{set}");
        assert_eq!(parts_of("unlisted_images"), [""; 0], "{set}");
        dir.command(&["doctor", set, "--split", "test", "--json", "d.json"]).exits(0);
        assert_eq!(dir.json("d.json")["parts"][0]["name"], "test", "{set}");
    }
    // Exports often name a part that they do not have.
    std::fs::remove_dir_all(dir.path("yolo/images/test")).unwrap();
    dir.command(&["doctor", "yolo"]).exits(0).stderr_has("the part `test` is not looked at");
}

#[test]
fn detections_show_a_box_that_is_missing() {
    let dir = Dir::new();
    // Six images with two boxes each; the last one has lost a box.
    let (mut boxes, mut found) = (Vec::new(), Vec::new());
    for image in 0..6 {
        for (x, class) in [(5, 1), (60, 2)] {
            let bbox = json!([x, 10, 20, 20]);
            let score = 0.99 - 0.001 * f64::from(image);
            found.push(
                json!({"image_id": image, "category_id": class, "bbox": bbox, "score": score}),
            );
            boxes.push(json!({
                "id": boxes.len() + 1, "image_id": image, "category_id": class, "bbox": bbox
            }));
        }
    }
    boxes.pop();
    let images: Vec<Value> = (0..6)
        .map(|id| json!({"id": id, "file_name": format!("{id}.jpg"), "width": 100, "height": 50}))
        .collect();
    let classes = json!([{"id": 1, "name": "cup"}, {"id": 2, "name": "mug"}]);
    let set = json!({"images": images, "annotations": boxes, "categories": classes});
    dir.write("set.json", set.to_string());
    dir.write("found.json", Value::from(found).to_string());
    let command = ["doctor", "set.json", "--no-images", "--detections", "found.json"];
    let ran = dir.command(&command).ok();
    ran.stdout_has("5.jpg: mug, without a box").stdout_has("is not known");
    let strict = [&command[..], &["--out-of-fold", "--strict"]].concat();
    dir.command(&strict).exits(1).stdout_has("was not trained on these images");
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let (dir, ..) = drawn();
    dir.command(&["doctor", "absent.json"])
        .fails(1)
        .stderr_has("error: no such file or folder as `absent.json`");
    dir.command(&with(&["--html", "no/d.html"])).fails(1).stderr_has("--html");
    dir.command(&with(&["--json", "set/val.json"])).fails(1).stderr_has("--json");
    dir.command(&with(&["--html", "d", "--json", "d"])).fails(1).stderr_has("--json");
    dir.write("others/x.jpg", "");
    dir.command(&["doctor", "set/train.json", "--images", "others"])
        .fails(1)
        .stderr_has("--images");
    // Images below the folder that is named.
    dir.command(&["doctor", "set/train.json", "--images", "."]).ok();
}
