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
    dir.command(&["doctor", "set/train.json", "--images", "."]).fails(1).stderr_has("--images");
}
