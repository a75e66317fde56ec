//! The real binary, verb by verb.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use richsem::{checkpoint_io::safetensors, detector::Detector, testing};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use util::{Dir, SMALL_SYNTH};

#[test]
fn help_shows_every_verb_in_its_group_and_the_exit_codes() {
    let dir = Dir::new();
    let help = dir.command(&["--help"]).ok();
    let groups = [
        "Detectors:",
        "Teachers:",
        "Data:",
        "This machine:",
        "Examples:",
        "Options:",
        "Exit codes:",
    ];
    let places: Vec<usize> = groups.iter().map(|g| help.stdout.find(g).expect(g)).collect();
    assert!(places.is_sorted(), "{help:?}");
    for verb in [
        "train",
        "eval",
        "predict",
        "report",
        "pretrain-teacher",
        "prepare",
        "synth",
        "dataset",
        "checks",
        "bench",
    ] {
        assert!(help.row(verb).len() > 3, "{help:?}");
        dir.command(&[verb, "--help"]).ok().stdout_has("Example").stdout_has("Usage: richsem");
    }
    let version = dir.command(&["--version"]).ok();
    assert_eq!(version.stdout, format!("richsem {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let dir = Dir::new();
    dir.command(&["trian"]).fails(2).stderr_has("trian").stderr_has("train").no_stdout();
    dir.command(&["train"]).fails(2).stderr_has("--config");
    dir.command(&["train", "-c", "a.toml", "--device", "gpu"]).fails(2).stderr_has("cuda:N");
    dir.command(&["predict", "a.jpg", "--weights", "w", "--conf", "1.5"])
        .fails(2)
        .stderr_has("0 to 1");
    dir.command(&["eval", "--annotations", "a.json"]).fails(2).stderr_has("--detections");
    dir.command(&["eval", "--annotations", "a.json", "--weights", "w"])
        .fails(2)
        .stderr_has("--images");
    dir.command(&[
        "eval",
        "--annotations",
        "a",
        "--detections",
        "d",
        "--weights",
        "w",
        "--images",
        "i",
    ])
    .fails(2);
    dir.command(&["synth", "s", "--image-size", "160"]).fails(2).stderr_has("160,224");
}

#[test]
fn a_run_is_resumed_with_its_own_settings_alone() {
    let dir = Dir::new();
    for other in [["-c", "a.toml"], ["--set", "train.lr=1"], ["--run", "other"]] {
        let args = [&["train", "--resume", "run"], &other[..]].concat();
        dir.command(&args).fails(2).stderr_has("hint").stderr_has("run/config.toml");
    }
    dir.command(&["train", "--resume", "run"]).fails(1).stderr_has("not a run folder");
}

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

    dir.command(&SMALL_SYNTH).fails(1).stderr_has("OUT: ").stderr_has("--overwrite");
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
fn settings_that_are_wrong_are_named_before_a_folder_is_made() {
    let dir = Dir::new();
    dir.write("bad.toml", "version = 1\n[train]\nlr_drops = [3]\n");
    let run = ["train", "-c", "bad.toml", "--run", "run"];
    dir.command(&run)
        .fails(1)
        .stderr_has("bad.toml: train.lr_drops")
        .stderr_has("`lr_drop`")
        .no_stdout();
    dir.command(&["train", "-c", "none.toml", "--run", "run"]).fails(1).stderr_has("none.toml");
    dir.write("empty.toml", "version = 1\n");
    dir.command(&["train", "-c", "empty.toml", "--run", "run"]).fails(1).stderr_has("data.train");
    dir.command(&["train", "-c", "empty.toml", "--set", "train.lr=fast"])
        .fails(1)
        .stderr_has("train.lr");
    assert!(!dir.exists("run") && !dir.exists("runs"));
}

#[test]
fn places_that_cannot_be_written_are_refused_first() {
    let dir = Dir::new();
    dir.write("a_file", "");
    dir.write("full/config.toml", "");
    // None of the inputs exists: the place is what is looked at first.
    let eval = ["eval", "--annotations", "none.json", "--detections", "none.json", "--json"];
    dir.command(&[&eval[..], &["absent/out.json"]].concat())
        .fails(1)
        .stderr_has("--json: the folder `absent`");
    dir.command(&[&eval[..], &["full"]].concat()).fails(1).stderr_has("--json: `full` is a folder");
    // The one place that not even an administrator can write to.
    dir.command(&[&eval[..], &["/proc/out.json"]].concat())
        .fails(1)
        .stderr_has("--json: the folder `/proc` cannot be written to");
    dir.write("ok.toml", "version = 1\n");
    dir.command(&["train", "-c", "ok.toml", "--run", "full"])
        .fails(1)
        .stderr_has("not empty")
        .stderr_has("--resume full");
    dir.command(&["train", "-c", "ok.toml", "--run", "a_file/run"])
        .fails(1)
        .stderr_has("--run: ")
        .stderr_has("is a file");
}

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
fn detections_are_measured_without_a_detector() {
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
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = Dir::new();
    write_pair(&dir);
    let mut command = dir.raw_command(&["dataset", "stats", "truth.json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
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
    dir.command(&["dataset", "from-voc", "voc", "out"]).ok().stdout_has("1 images, 1 boxes");
    assert_eq!(dir.json("out/all.json")["annotations"][0]["bbox"], json!([0.0, 0.0, 9.0, 9.0]));
    dir.command(&["dataset", "from-voc", "absent", "out2"]).fails(1).stderr_has("absent");
    assert!(!dir.exists("out2"));
}

#[test]
fn checks_tell_versions_and_devices() {
    let dir = Dir::new();
    let ran =
        dir.command(&["checks", "--device", "cpu"]).ok().stdout_has("--device cpu computes on cpu");
    assert_eq!(ran.row("richsem"), ["richsem", env!("CARGO_PKG_VERSION")]);
    assert!(ran.row("libtorch")[1].starts_with("2.11."), "{ran:?}");
    assert!(!ran.stdout.contains("device: "), "{ran:?}");
    let half = ran.row("CUDA").join(" ");
    let known = ["CUDA half present", "CUDA half missing: "].iter().any(|s| half.starts_with(s));
    assert!(known && (half.contains("present") || half.contains("make libtorch-cuda")), "{half}");
    dir.command(&["checks", "--device", "cuda:512"]).fails(1).stderr_has("device");
}

#[test]
fn train_then_eval_then_predict() {
    let dir = Dir::with_data();
    // Long enough that what is compared below is not zero.
    let mut train = vec!["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let settings = [
        "seed=5",
        "train.epochs=20",
        "train.eval_every=0",
        "train.lr=0.003",
        "train.lr_backbone=0.003",
        "train.lr_drop=[]",
    ];
    train.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let ran = dir.command(&train).ok();
    let ran = ran
        .stderr_has("epoch 1/20  batch 2/6  step 2  loss")
        .stderr_has("finished in")
        .stdout_has("after epoch 20:");
    assert!(dir.text("run/config.toml").contains("seed = 5"));
    dir.command(&train).fails(1).stderr_has("not empty");
    // A finished run has nothing left to do, and keeps what it has.
    let before = dir.text("run/metrics.jsonl");
    dir.command(&["train", "--resume", "run", "--device", "cpu"]).ok().stderr_has("finished");
    assert_eq!(dir.text("run/metrics.jsonl"), before);

    // The run's own measurement, again from its weights, and again from the written detections.
    let eval = ["eval", "--annotations", "set/val.json"];
    let with = ["--weights", "run", "--images", "set/images", "--device", "cpu"];
    let out = ["--save-json", "dets.json", "--json", "metrics.json"];
    let again =
        dir.command(&[&eval[..], &with, &out].concat()).ok().stdout_has("LVIS protocol: 6 images");
    assert_eq!(again.values_below("AP"), ran.values_below("AP"));
    let own = dir.json("run/eval/epoch-0020.json");
    assert!(own["metrics"]["AP50"].as_f64().unwrap() > 0.005, "{own}");
    assert_eq!(dir.json("metrics.json")["metrics"], own["metrics"]);
    let detections = dir.json("dets.json");
    assert_eq!(own["detections"], detections.as_array().unwrap().len());
    let from_file = ["--detections", "dets.json", "--json", "from_file.json"];
    dir.command(&[&eval[..], &from_file].concat()).ok();
    assert_eq!(dir.json("from_file.json")["metrics"], own["metrics"]);
    // Another batch size gives the same up to rounding.
    let one = ["--batch", "1", "--save-json", "one.json"];
    dir.command(&[&eval[..], &with, &one].concat()).ok();
    let best = |value: &serde_json::Value| value[0]["score"].as_f64().unwrap();
    assert!((best(&dir.json("one.json")) - best(&detections)).abs() < 1e-4);

    // The same boxes in a picture's own results. Scores of a network this young are low.
    let picture = "set/images/val/000001.jpg";
    let predict = [
        "predict",
        picture,
        "--weights",
        "run/checkpoints/last/model.safetensors",
        "--device",
        "cpu",
    ];
    let ran =
        dir.command(&[&predict[..], &["--conf", "0", "--raw", "raw.safetensors"]].concat()).ok();
    assert_eq!(dir.files("predictions"), ["000001.jpg", "detections.json"]);
    assert_ne!(dir.read("predictions/000001.jpg"), dir.read(picture));
    let found = dir.json("predictions/detections.json");
    let first_image = detections[0]["image_id"].clone();
    let of_first = detections.as_array().unwrap().iter().filter(|d| d["image_id"] == first_image);
    assert_eq!(found.as_array().unwrap().len(), of_first.count());
    assert_eq!((&found[0]["image_id"], &found[0]["file_name"]), (&json!(1), &json!(picture)));
    assert_eq!(found[0]["category_id"], dir.json("one.json")[0]["category_id"]);
    assert!((best(&found) - best(&dir.json("one.json"))).abs() < 1e-6);
    let name = found[0]["category_name"].as_str().unwrap();
    assert_eq!(ran.row(picture)[1], name);
    let raw = dir.read("raw.safetensors");
    let header = &raw[8..8 + u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize];
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    assert_eq!(header["pred_logits"]["shape"], json!([1, 20, 4]));
    assert_eq!(header["pred_boxes"]["shape"], json!([1, 20, 4]));
    of_a_stored_batch(&dir);
    // Nothing reaches the highest score: results are empty, but there.
    dir.command(&[&predict[..], &["--conf", "1", "--no-pictures", "-o", "none"]].concat())
        .ok()
        .stderr_has("0 objects");
    assert_eq!(dir.files("none"), ["detections.json"]);
    assert_eq!(dir.json("none/detections.json"), json!([]));
}

/// A batch that was normalised elsewhere gives what the library computes from it.
fn of_a_stored_batch(dir: &Dir) {
    const WEIGHTS: &str = "run/checkpoints/last/model.safetensors";
    let images = testing::normal(1, &[2, 3, 64, 96]);
    let mask = Tensor::zeros([2, 64, 96], (Kind::Bool, Device::Cpu));
    let _ = mask.get(1).narrow(1, 70, 26).fill_(1);
    let tokens = Tensor::from_slice(&[3i64, 1, 4, 15, 9, 2]).view([2, 3]);
    let run = |tokens: &Tensor| {
        let tensors = [("images", &images), ("mask", &mask), ("tokens", tokens)];
        let tensors = tensors.map(|(name, x)| (name.to_owned(), x.shallow_clone())).into();
        safetensors::write(&dir.path("in.safetensors"), &tensors, &Default::default()).unwrap();
        let command = ["predict", "--tensor", "in.safetensors", "--weights", WEIGHTS];
        dir.command(&[&command[..], &["--raw", "out.safetensors", "--device", "cpu"]].concat())
    };
    run(&tokens).ok().stderr_has("3 queries in 2 pictures; results in out.safetensors");
    let got = safetensors::read(&dir.path("out.safetensors")).unwrap().0;
    let detector = Detector::load(&dir.path(WEIGHTS), Device::Cpu).unwrap();
    let text = detector.text.as_ref();
    let expected = detector.model.infer_at(&images, &mask, text, Some(&tokens)).unwrap();
    assert_eq!(got["pred_logits"], expected.pred_logits);
    assert_eq!(got["pred_boxes"], expected.pred_boxes);
    run(&(tokens * 100_000)).fails(1).stderr_has("in.safetensors: tokens: expected numbers below");
    let command = ["predict", "--tensor", "in.safetensors", "--weights", WEIGHTS];
    dir.command(&command).fails(2).stderr_has("--raw");
    dir.command(&[&command[..], &["--raw", "x", "--conf", "0.5"]].concat()).fails(2);
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
    // Every picture is broken.
    let from = ["eval", "--weights", "run", "--annotations", "set/val.json", "--images"];
    for file in dir.files("set/images/val") {
        dir.write(&format!("broken/val/{file}"), "");
    }
    let none = dir.command(&[&from[..], &["broken"]].concat()).fails(1).no_stdout();
    none.stderr_has("none of the 6 pictures could be read").stderr_has("broken/val/000001.jpg");
    dir.command(&[&from[..], &["absent"]].concat())
        .fails(1)
        .stderr_has("--images: no such folder or archive as `absent`");
}

#[test]
fn where_nothing_can_be_measured_no_ap_is_told() {
    let dir = Dir::with_data();
    let mut val = dir.json("set/val.json");
    let boxes = val["annotations"].take();
    val["annotations"] = json!([]);
    dir.write("set/val.json", val.to_string());
    let train = ["train", "-c", "tiny.toml", "--device", "cpu", "--set", "train.epochs=2", "--run"];
    let ran = dir.command(&[&train[..], &["none"]].concat()).ok();
    let ran = ran.stderr_has("; no AP: data.val has no boxes, so nothing could be measured");
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
        .stderr_has("boxes counts (crowds, or ignored), so nothing could be measured");
}

#[test]
fn a_loss_that_is_not_finite_ends_with_3() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let wild = ["--set", "train.lr=1e30", "--set", "train.lr_backbone=1e30"];
    dir.command(&[&train[..], &wild].concat()).fails(3).stderr_has("not finite").stderr_has("hint");
}

#[test]
fn colours_are_left_out_unless_there_is_a_terminal_or_they_are_forced() {
    let dir = Dir::new();
    let stats = ["dataset", "stats", "absent.json"];
    let escape = "\u{1b}[";
    assert!(!dir.command(&stats).fails(1).stderr.contains(escape));
    dir.command(&stats).env("CLICOLOR_FORCE", "1").exits(1).stderr_has(escape);
    let refused = dir.command(&stats).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").fails(1);
    assert!(!refused.stderr.contains(escape), "{refused:?}");
}

#[test]
fn a_broken_picture_is_named_and_the_others_are_done() {
    let dir = Dir::with_run();
    let whole = dir.read("set/images/val/000001.jpg");
    dir.write("in/a.jpg", &whole);
    dir.write("in/b.jpg", &whole[..whole.len() / 20]);
    dir.write("in/c.jpg", &whole);
    let predict =
        ["predict", "in", "--weights", "run", "--device", "cpu", "--conf", "0", "-o", "out"];
    let ran = dir.command(&[&predict[..], &["--raw", "raw.safetensors"]].concat()).fails(1);
    let ran = ran.stderr_has("skipped: in/b.jpg").stderr_has("1 of 3 pictures could not be read");
    assert_eq!(dir.files("out"), ["a.jpg", "c.jpg", "detections.json"]);
    let found = dir.json("out/detections.json");
    let ids: std::collections::BTreeSet<_> =
        found.as_array().unwrap().iter().map(|d| d["image_id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 3].into());
    assert!(ran.stdout.contains("in/c.jpg") && !ran.stdout.contains("in/b.jpg"), "{ran:?}");
    let raw = String::from_utf8_lossy(&dir.read("raw.safetensors")).into_owned();
    assert!(raw.contains("\"3.pred_boxes\"") && !raw.contains("\"2.pred"));
    // The first alone.
    dir.command(&[&predict[..], &["--limit", "1"]].concat()).ok();
    // A name that JSON cannot hold counts as a picture that cannot be read.
    use std::os::unix::ffi::OsStrExt as _;
    let odd = dir.path("in").join(std::ffi::OsStr::from_bytes(b"a\xe9.jpg"));
    if std::fs::write(&odd, &whole).is_ok() {
        for input in ["in", "in/*.jpg"] {
            let predict = [
                "predict",
                input,
                "--weights",
                "run",
                "--device",
                "cpu",
                "--conf",
                "0",
                "-o",
                "odd",
            ];
            dir.command(&predict)
                .fails(1)
                .stderr_has("skipped: in/a\u{fffd}.jpg: the name is not UTF-8")
                .stderr_has("2 of 4 pictures could not be read");
            let found = dir.json("odd/detections.json");
            let ids: std::collections::BTreeSet<_> =
                found.as_array().unwrap().iter().map(|d| d["image_id"].as_i64().unwrap()).collect();
            assert_eq!(ids, [1, 4].into());
        }
    }
    // Nothing is overwritten that was given.
    let over = ["predict", "in/a.jpg", "--weights", "run", "-o", "in"];
    dir.command(&over).fails(1).stderr_has("would be overwritten");
    assert_eq!(dir.read("in/a.jpg"), whole);
    dir.command(&["predict", "in/none.jpg", "--weights", "run"]).fails(1).stderr_has("in/none.jpg");
    // Weights that are none.
    dir.command(&["predict", "in", "--weights", "set"]).fails(1).stderr_has("--weights: `set`");
    dir.command(&["predict", "in", "--weights", "tiny.toml"]).fails(1).stderr_has("tiny.toml");
}

#[test]
fn a_signal_leaves_nothing_of_a_set_that_was_being_drawn() {
    let dir = Dir::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = dir.raw_command(&["synth", "set", "--train-images", "100000"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let drawing = || {
            let below = std::fs::read_dir(dir.path("")).unwrap().flatten();
            below.map(|e| e.path().join("set/images/train/000003.jpg")).any(|file| file.exists())
        };
        while !drawing() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("stopped: `set` is as it was"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path("")).unwrap().count(), 0);
    }
}

#[test]
fn a_signal_stops_a_run_that_can_be_resumed() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let endless = ["--set", "train.epochs=100000", "--set", "train.eval_every=0"];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let _ = std::fs::remove_dir_all(dir.path("run"));
        let mut command = dir.raw_command(&[&train[..], &endless].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("step 2 ")), "training never began");
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
        assert!(rest.iter().any(|l| l.contains("richsem train --resume run")), "{rest:?}");
    }
    let state = dir.json("run/checkpoints/last/state.json");
    let (updates, epoch) = (state["updates"].as_u64().unwrap(), state["epoch"].as_u64().unwrap());
    assert!(updates >= 2);
    // The settings of a run are those of its folder: there it is made shorter.
    let config =
        dir.text("run/config.toml").replace("epochs = 100000", &format!("epochs = {}", epoch + 1));
    dir.write("run/config.toml", config);
    let ran = dir.command(&["train", "--resume", "run", "--device", "cpu"]).ok();
    let ran = ran.stderr_has(&format!("resumed at step {updates}"));
    assert!(ran.stdout.contains(&format!("after epoch {}:", epoch + 1)), "{ran:?}");
    assert_eq!(dir.json("run/checkpoints/last/state.json")["updates"], (epoch + 1) * 6);
}
