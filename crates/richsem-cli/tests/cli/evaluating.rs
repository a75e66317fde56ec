//! `eval`, and what is evaluated while training.

use std::process::Stdio;

use serde_json::json;

use super::util::Dir;

/// Two images, two classes; three boxes of which the detections find two exactly.
fn write_pair(dir: &Dir) {
    let annotation = |id: i64, image: i64, class: i64, bbox: [f64; 4]| {
        json!({"id": id, "image_id": image, "category_id": class, "bbox": bbox,
               "area": bbox[2] * bbox[3], "iscrowd": 0})
    };
    let image =
        |id: i64| json!({"id": id, "file_name": format!("{id}.jpg"), "width": 200, "height": 200});
    let truth = json!({
        "images": [image(1), image(2)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "emu"}],
        "annotations": [
            annotation(1, 1, 3, [10.0, 10.0, 50.0, 50.0]),
            annotation(2, 2, 7, [20.0, 20.0, 100.0, 100.0]),
            annotation(3, 2, 7, [150.0, 150.0, 20.0, 20.0]),
        ],
    });
    dir.write("truth.json", truth.to_string());
    let found = |image: i64, class: i64, bbox: [f64; 4]| json!({"image_id": image, "category_id": class, "bbox": bbox, "score": 0.9});
    let found =
        json!([found(1, 3, [10.0, 10.0, 50.0, 50.0]), found(2, 7, [20.0, 20.0, 100.0, 100.0])]);
    dir.write("found.json", found.to_string());
}

#[test]
fn detections_are_evaluated_without_a_detector() {
    let dir = Dir::new();
    write_pair(&dir);
    let eval = ["eval", "--annotations", "truth.json", "--detections", "found.json"];
    let ran = dir.command(&[&eval[..], &["--json", "out.json"]].concat()).ok();
    let ran = ran.stdout_has("COCO protocol: 2 images, 3 boxes of 3 classes, 2 detections");
    // By hand: cat 100; of dog's two boxes one is found, and precision 1 holds at the 51 of 101
    // recall points up to 0.5. The small one is missed.
    assert_eq!(ran.row("3"), ["3", "cat", "–", "1", "1", "100.0", "100.0"]);
    assert_eq!(ran.row("7"), ["7", "dog", "–", "1", "2", "50.5", "50.5"]);
    assert_eq!(ran.row("9"), ["9", "emu", "–", "0", "0", "–", "–"]);
    let mean = "75.2"; // (1 + 51/101) / 2
    assert_eq!(
        ran.values_below("AP"),
        [mean, mean, mean, "0.0", "100.0", "100.0", "│", "–", "–", "–", "–", "–", "–"]
    );
    assert_eq!(ran.values_below("AR1")[..3], ["75.0", "75.0", "75.0"]);
    let ap = dir.json("out.json")["metrics"]["AP"].as_f64().unwrap();
    assert!((ap - (1.0 + 51.0 / 101.0) / 2.0).abs() < 1e-9, "{ap}");
    assert_eq!(dir.command(&[&["val"], &eval[1..]].concat()).ok().stdout, ran.stdout);

    dir.command(&[&eval[..], &["--protocol", "lvis"]].concat())
        .fails(1)
        .stderr_has("neg_category_ids");
    dir.write(
        "found.json",
        r#"[{"image_id": 5, "category_id": 3, "bbox": [0,0,1,1], "score": 1}]"#,
    );
    dir.command(&eval).fails(1).stderr_has("found.json: [0].image_id").no_stdout();
}

#[test]
fn differences_errors_and_thresholds_are_written() {
    let dir = Dir::new();
    write_pair(&dir);
    let other = r#"[{"image_id": 1, "category_id": 3, "bbox": [10, 10, 50, 50], "score": 0.9}]"#;
    dir.write("other.json", other);
    let eval = ["eval", "--annotations", "truth.json", "--detections", "found.json"];
    let more = ["--compare", "other.json", "--errors", "--json", "out.json"];
    let files = ["--save-thresholds", "least.toml", "--report", "page.html"];
    let ran = dir.command(&[&eval[..], &more, &files].concat()).ok();
    let ran = ran.stdout_has("less other.json").stdout_has("errors at IoU 0.50");
    // Training images, boxes here, AP, AP50, training boxes, no interval (one image has all boxes), AP-Fixed,
    // ECE: all of a score of 0.9 are right.
    assert_eq!(ran.row("7"), ["7", "dog", "–", "1", "2", "50.5", "50.5", "2", "–", "50.5", "10.0"]);
    let out = dir.json("out.json");
    assert_eq!(out["errors"]["tide"]["errors"][5]["count"], 1, "{out}");
    assert_eq!(out["comparison"]["with"], "other.json");
    assert_eq!(out["intervals"]["groups"], 2);
    assert!(dir.text("least.toml").contains("global = 0.9"), "{}", dir.text("least.toml"));
    assert!(dir.text("page.html").contains("id=\"errors\""));
    dir.command(&[&eval[..], &["--compare", "nowhere.json"]].concat())
        .fails(1)
        .stderr_has("--compare: no such file");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = Dir::new();
    write_pair(&dir);
    for args in [&["dataset", "stats", "truth.json"][..], &["train", "--help"]] {
        let mut command = dir.raw_command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]), "{args:?}");
    }
}

#[test]
fn a_split_need_not_have_every_class_that_was_trained() {
    let dir = Dir::with_data();
    let mut val = dir.json("set/val.json");
    let gone = val["categories"][0]["id"].clone();
    val["categories"].as_array_mut().unwrap().retain(|c| c["id"] != gone);
    val["annotations"].as_array_mut().unwrap().retain(|a| a["category_id"] != gone);
    for image in val["images"].as_array_mut().unwrap() {
        image["neg_category_ids"].as_array_mut().unwrap().retain(|c| *c != gone);
    }
    dir.write("set/val.json", val.to_string());
    dir.command(&["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"]).ok();
    let eval = ["eval", "--weights", "run", "--images", "set/images", "--device", "cpu"];
    let ran = dir.command(&[&eval[..], &["--annotations", "set/val.json"]].concat()).ok();
    assert!(ran.stdout_has("boxes of 3 classes").row("2").len() == 7);
    // But one that it has must be known, under its name.
    val["categories"][1]["name"] = json!("another");
    dir.write("other.json", val.to_string());
    let other = dir.command(&[&eval[..], &["--annotations", "other.json"]].concat()).fails(1);
    other.stderr_has("other.json: categories[1]").stderr_has("another").no_stdout();
    // Every image is broken.
    let from = ["eval", "--weights", "run", "--annotations", "set/val.json", "--images"];
    for file in dir.files("set/images/val") {
        dir.write(&format!("broken/val/{file}"), "");
    }
    let none = dir.command(&[&from[..], &["broken"]].concat()).fails(1).no_stdout();
    none.stderr_has("none of the 6 images could be read").stderr_has("broken/val/000001.jpg");
    dir.command(&[&from[..], &["absent"]].concat())
        .fails(1)
        .stderr_has("--images: no such folder or archive as `absent`");
}

#[test]
fn where_nothing_can_be_evaluated_no_ap_is_told() {
    let dir = Dir::with_data();
    let mut val = dir.json("set/val.json");
    let boxes = val["annotations"].take();
    val["annotations"] = json!([]);
    dir.write("set/val.json", val.to_string());
    let train = ["train", "-c", "tiny.toml", "--device", "cpu", "--set", "train.epochs=2", "--run"];
    let ran = dir.command(&[&train[..], &["none"]].concat()).ok();
    let ran = ran.stderr_has("; no AP: data.val has no boxes, so nothing could be evaluated");
    assert!(!ran.stderr.contains("best AP"), "{ran:?}");
    // `best` is then the last.
    let target = |link: &str| std::fs::read_link(dir.path(&format!("none/checkpoints/{link}")));
    assert_eq!(target("best").unwrap(), target("last").unwrap());
    assert!(dir.text("none/report.html").contains("There is no AP"));
    // By COCO's rules (LVIS has no crowds).
    val["annotations"] = boxes;
    for annotation in val["annotations"].as_array_mut().unwrap() {
        annotation["iscrowd"] = json!(1);
    }
    for image in val["images"].as_array_mut().unwrap() {
        let image = image.as_object_mut().unwrap();
        image.retain(|field, _| !field.ends_with("category_ids"));
    }
    dir.write("set/val.json", val.to_string());
    dir.command(&[&train[..], &["crowds", "--set", "train.epochs=1"]].concat())
        .ok()
        .stderr_has("boxes counts (crowds, or ignored), so nothing could be evaluated");
}
