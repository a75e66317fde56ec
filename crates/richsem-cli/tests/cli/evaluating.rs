//! `eval`, and what is evaluated while training.

use std::process::Stdio;

use serde_json::{Value, json};

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
    other.stderr_has("other.json: categories: `another` (3) is not among").no_stdout();
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

/// Writes the validation set as `name`.json with these ids, in the order of its own, and `more` classes.
fn write_numbered(dir: &Dir, name: &str, ids: &[i64], more: &[Value]) {
    let mut set = dir.json("set/val.json");
    let own: Vec<i64> = set["categories"].as_array().unwrap().iter().map(id_of).collect();
    assert_eq!(own.len(), ids.len());
    let new = |id: &Value| json!(ids[own.iter().position(|own| id == own).unwrap()]);
    for class in set["categories"].as_array_mut().unwrap() {
        class["id"] = new(&class["id"]);
    }
    for annotation in set["annotations"].as_array_mut().unwrap() {
        annotation["category_id"] = new(&annotation["category_id"]);
    }
    set["categories"].as_array_mut().unwrap().extend_from_slice(more);
    dir.write(&format!("{name}.json"), set.to_string());
}

fn id_of(class: &Value) -> i64 {
    class["id"].as_i64().unwrap()
}

#[test]
fn detections_have_the_ids_of_the_annotations_that_they_are_for() {
    let dir = Dir::with_run();
    let set = dir.json("set/val.json");
    let own: Vec<i64> = set["categories"].as_array().unwrap().iter().map(id_of).collect();
    let mut turned = own.clone();
    turned.rotate_left(1);
    let far: Vec<i64> = (0..own.len() as i64).rev().map(|at| 13 * at).collect();
    let with = ["--weights", "run", "--device", "cpu"];
    let images = ["--images", "set/images"];
    let mut of_own: Vec<Value> = Vec::new();
    for (name, ids) in [("same", &own), ("turned", &turned), ("far", &far)] {
        write_numbered(&dir, name, ids, &[]);
        let (file, found) = (format!("{name}.json"), format!("found_{name}.json"));
        let eval = ["eval", "--annotations", &file];
        let saved = ["--save-json", &found, "--json", "direct.json"];
        let ran = dir.command(&[&eval[..], &with, &images, &saved].concat()).ok();
        let told = "detections get the ids of this file";
        assert_eq!(ran.stderr.contains(told), name != "same", "{ran:?}");
        let read = ["--detections", &found, "--json", "read.json"];
        let limited = dir.command(&[&eval[..], &read].concat()).ok();
        assert_eq!(
            dir.json("read.json")["metrics"],
            dir.json("direct.json")["metrics"],
            "{limited:?}"
        );
        // Each record has the class that it has for the detector.
        let mut records = dir.json(&found).as_array().unwrap().clone();
        for record in &mut records {
            let at = ids.iter().position(|id| record["category_id"] == *id).unwrap();
            record["category_id"] = json!(own[at]);
        }
        if name == "same" {
            of_own = records;
            assert!(!of_own.is_empty());
        } else {
            assert!(records == of_own, "{name}");
        }
        // Files that are compared, too, and those that `predict` writes.
        let compared = ["--compare", &found, "--json", "compared.json"];
        dir.command(&[&eval[..], &with, &images, &compared].concat()).ok();
        let differences = dir.json("compared.json")["comparison"].to_string();
        assert!(differences.contains("\"difference\":0.0"), "{differences}");
        let predict =
            ["predict", "set/images/val", "--annotations", &file, "--conf", "0", "-o", name];
        let formats = ["--formats", "json"];
        dir.command(&[&predict[..], &with, &formats].concat()).ok();
        let classes = dir.json(&file)["categories"].clone();
        for record in dir.json(&format!("{name}/detections.json")).as_array().unwrap() {
            let class =
                classes.as_array().unwrap().iter().find(|c| c["id"] == record["category_id"]);
            assert_eq!(class.unwrap()["name"], record["category_name"]);
        }
    }
    // A class without boxes need not be one of the detector's, whatever its id is.
    write_numbered(&dir, "more", &far, &[json!({"id": own[0] + 1000, "name": "basophil"})]);
    let more = ["eval", "--annotations", "more.json", "--json", "direct.json"];
    let ran = dir.command(&[&more[..], &with, &images].concat()).ok();
    ran.stderr_has("without a box here: `basophil`");
    let rest = ["--set", "data.val.annotations=more.json", "--set", "train.eval_loss=true"];
    let train = ["train", "-c", "tiny.toml", "--run", "other", "--device", "cpu"];
    dir.command(&[&train[..], &rest].concat()).ok().stderr_has("without a box here: `basophil`");
}
