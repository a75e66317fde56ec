//! `train`, `eval` and `predict` in a row, and `predict` alone.

use richsem::{
    checkpoint_io::safetensors,
    detector::Detector,
    models::{dino::Input, network::Network},
    testing,
};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::util::Dir;

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

    // The run's own evaluation, again from its weights, and again from the written detections.
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

    // The same boxes in an image's own results. Scores of a network this young are low.
    let image = "set/images/val/000001.jpg";
    let predict = [
        "predict",
        image,
        "--weights",
        "run/checkpoints/last/model.safetensors",
        "--device",
        "cpu",
    ];
    let ran =
        dir.command(&[&predict[..], &["--conf", "0", "--raw", "raw.safetensors"]].concat()).ok();
    assert_eq!(dir.files("predictions"), [".predicted", "000001.jpg", "detections.json"]);
    assert_ne!(dir.read("predictions/000001.jpg"), dir.read(image));
    let found = dir.json("predictions/detections.json");
    let first_image = detections[0]["image_id"].clone();
    let of_first = detections.as_array().unwrap().iter().filter(|d| d["image_id"] == first_image);
    assert_eq!(found.as_array().unwrap().len(), of_first.count());
    assert_eq!((&found[0]["image_id"], &found[0]["file_name"]), (&json!(1), &json!(image)));
    assert_eq!(found[0]["category_id"], dir.json("one.json")[0]["category_id"]);
    assert!((best(&found) - best(&dir.json("one.json"))).abs() < 1e-6);
    let name = found[0]["category_name"].as_str().unwrap();
    assert_eq!(ran.row(image)[1], name);
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
    assert_eq!(dir.files("none"), [".predicted", "detections.json"]);
    assert_eq!(dir.json("none/detections.json"), json!([]));
}

/// A batch that was normalised elsewhere gives what the library computes from it.
fn of_a_stored_batch(dir: &Dir) {
    const WEIGHTS: &str = "run/checkpoints/last/model.safetensors";
    let mask = Tensor::zeros([2, 64, 96], (Kind::Bool, Device::Cpu));
    let _ = mask.get(1).narrow(1, 70, 26).fill_(1);
    let images = testing::normal(1, &[2, 3, 64, 96]).masked_fill(&mask.unsqueeze(1), 0.0);
    let tokens = Tensor::from_slice(&[3i64, 1, 4, 15, 9, 2]).view([2, 3]);
    let run = |tokens: &Tensor| {
        let tensors = [("images", &images), ("mask", &mask), ("tokens", tokens)];
        let tensors = tensors.map(|(name, x)| (name.to_owned(), x.shallow_clone())).into();
        safetensors::write(&dir.path("in.safetensors"), &tensors, &Default::default()).unwrap();
        let command = ["predict", "--tensor", "in.safetensors", "--weights", WEIGHTS];
        dir.command(&[&command[..], &["--raw", "out.safetensors", "--device", "cpu"]].concat())
    };
    run(&tokens).ok().stderr_has("3 queries in 2 images; results in out.safetensors");
    let got = safetensors::read(&dir.path("out.safetensors")).unwrap().0;
    let detector = Detector::load(&dir.path(WEIGHTS), Device::Cpu).unwrap();
    let text = detector.classes().text();
    let input = Input { text, tokens: Some(&tokens), ..Input::new(&images, &mask) };
    let Network::Dino(dino) = detector.network() else { unreachable!() };
    let expected = dino.infer(&input).unwrap();
    // Not to the last bit: the program may compute on another number of threads than this test.
    for (name, expected) in
        [("pred_logits", expected.pred_logits), ("pred_boxes", expected.pred_boxes)]
    {
        assert_eq!(got[name].size(), expected.size());
        let apart = (&got[name] - &expected).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{name} differs by {apart}");
    }
    run(&(tokens * 100_000)).fails(1).stderr_has("in.safetensors: tokens: expected numbers below");
    let command = ["predict", "--tensor", "in.safetensors", "--weights", WEIGHTS];
    dir.command(&command).fails(2).stderr_has("--raw");
    dir.command(&[&command[..], &["--raw", "x", "--conf", "0.5"]].concat()).fails(2);
}

/// However the images are numbered, detections are evaluated on the image that they name, and
/// `predict --annotations` numbers them as the file does, be it one without annotations.
#[test]
fn detections_find_their_image_by_name() {
    let dir = Dir::with_run();
    let weights = ["--weights", "run", "--device", "cpu"];
    let mut truth = dir.json("set/val.json");
    let highest = 1000 + truth["images"].as_array().unwrap().len() as i64;
    let renumber = |id: &mut serde_json::Value| *id = (highest - id.as_i64().unwrap()).into();
    truth["images"].as_array_mut().unwrap().iter_mut().for_each(|i| renumber(&mut i["id"]));
    let annotations = truth["annotations"].as_array_mut().unwrap();
    annotations.iter_mut().for_each(|a| renumber(&mut a["image_id"]));
    dir.write("turned.json", truth.to_string());
    truth.as_object_mut().unwrap().remove("annotations");
    dir.write("images.json", truth.to_string());

    let predict = ["predict", "set/images/val", "--conf", "0", "--no-images"];
    let predict = [&predict[..], &weights].concat();
    dir.command(&[&predict[..], &["-o", "plain"]].concat()).ok();
    let annotated = ["-o", "annotated", "--annotations", "images.json"];
    dir.command(&[&predict[..], &annotated].concat()).ok();
    let numbers = |file: &str| -> Vec<i64> {
        let all = dir.json(file);
        all.as_array().unwrap().iter().map(|d| d["image_id"].as_i64().unwrap()).collect()
    };
    assert!(numbers("plain/detections.json").iter().all(|&id| id < 100));
    assert!(numbers("annotated/detections.json").iter().all(|&id| id > 100));
    let evaluated = |truth: &str, from: &[&str]| {
        let eval = ["eval", "--annotations", truth, "--json", "out.json"];
        let ran = dir.command(&[&eval[..], from].concat()).ok();
        (dir.json("out.json")["metrics"].clone(), ran.stderr)
    };
    let images = [&["--images", "set/images"], &weights[..]].concat();
    let (expected, _) = evaluated("set/val.json", &images);
    for truth in ["set/val.json", "turned.json"] {
        let (plain, stderr) = evaluated(truth, &["--detections", "plain/detections.json"]);
        assert_eq!(plain, expected, "{truth}");
        assert!(stderr.contains("file_name is used"), "{stderr}");
    }
    let (annotated, stderr) =
        evaluated("turned.json", &["--detections", "annotated/detections.json"]);
    assert_eq!(annotated, expected);
    assert!(!stderr.contains("file_name is used"), "{stderr}");

    // Of images that the file does not have nothing is evaluated, and nothing predicted.
    let others = dir.text("turned.json").replace("val/", "other/");
    dir.write("others.json", others);
    let eval = ["eval", "--annotations", "others.json", "--detections", "plain/detections.json"];
    dir.command(&eval)
        .fails(1)
        .stderr_has("[0].file_name: no image of the annotation file is called");
    let others = ["-o", "no", "--annotations", "others.json"];
    dir.command(&[&predict[..], &others].concat())
        .fails(1)
        .stderr_has("--annotations: others.json");
    assert!(!dir.exists("no"));
}

/// Boxes are of the frame that the annotations are of, or the image is named.
#[test]
fn an_image_of_another_size_than_annotated_is_named() {
    let dir = Dir::with_run();
    let mut truth = dir.json("set/val.json");
    let images = truth["images"].as_array_mut().unwrap();
    let (width, height) = (images[0]["width"].clone(), images[0]["height"].clone());
    images[0]["width"] = json!(width.as_i64().unwrap() + 7);
    let name = images[0]["file_name"].as_str().unwrap().to_owned();
    dir.write("other.json", truth.to_string());
    let predict = ["predict", "set/images/val", "--weights", "run", "--device", "cpu"];
    let more = ["--annotations", "other.json", "--no-images", "-o", "out"];
    let ran = dir.command(&[&predict[..], &more].concat()).fails(1);
    ran.stderr_has(name.rsplit('/').next().unwrap())
        .stderr_has(&format!("got {width} x {height}"))
        .stderr_has("1 of 6 images could not be read");
    let eval = ["eval", "--weights", "run", "--device", "cpu", "--images", "set/images"];
    let more = ["--annotations", "other.json"];
    let ran = dir.command(&[&eval[..], &more].concat()).fails(1);
    ran.stderr_has("count as missed").stdout_has("LVIS protocol");
    let stored = ["--orientation", "stored", "--no-images", "-o", "stored"];
    dir.command(&[&predict[..], &stored].concat()).ok();
}

/// However many images go through at once, each has its own results, in the order read.
#[test]
fn batches_give_what_single_images_give() {
    let dir = Dir::with_run();
    let whole = image::load_from_memory(&dir.read("set/images/val/000001.jpg")).unwrap().to_rgb8();
    for (i, (width, height)) in
        [(96, 64), (48, 80), (64, 64), (90, 50), (50, 90)].iter().enumerate()
    {
        let name = dir.path(&format!("in/{i}.png"));
        std::fs::create_dir_all(name.parent().unwrap()).unwrap();
        image::imageops::thumbnail(&whole, *width, *height).save(name).unwrap();
    }
    dir.write("in/2b.jpg", "no image");
    let predict = ["predict", "in", "--weights", "run", "--device", "cpu", "--conf", "0"];
    let run = |batch: &str| {
        let more = ["--batch", batch, "--no-images", "-o", batch, "--raw"];
        let raw = format!("{batch}.safetensors");
        let ran = dir.command(&[&predict[..], &more, &[raw.as_str()]].concat()).fails(1);
        ran.stderr_has("skipped").stderr_has("2b.jpg").stderr_has("1 of 6 images");
        let raw = safetensors::read(&dir.path(&raw)).unwrap().0;
        (dir.json(&format!("{batch}/detections.json")), raw)
    };
    let (expected, expected_raw) = run("1");
    let ids = |found: &serde_json::Value| -> Vec<i64> {
        found.as_array().unwrap().iter().map(|d| d["image_id"].as_i64().unwrap()).collect()
    };
    assert!(ids(&expected).is_sorted() && ids(&expected).contains(&6));
    for batch in ["2", "4"] {
        let (found, raw) = run(batch);
        assert_eq!(ids(&found), ids(&expected), "{batch}");
        assert!(raw.keys().eq(expected_raw.keys()));
        for (name, tensor) in &raw {
            let apart = (tensor - &expected_raw[name]).abs().max().double_value(&[]);
            assert!(apart < 1e-3, "{batch}: {name} differs by {apart}");
        }
    }
}

#[test]
fn a_broken_image_is_named_and_the_others_are_done() {
    let dir = Dir::with_run();
    let whole = dir.read("set/images/val/000001.jpg");
    dir.write("in/a.jpg", &whole);
    dir.write("in/b.jpg", &whole[..whole.len() / 20]);
    dir.write("in/c.jpg", &whole);
    let predict =
        ["predict", "in", "--weights", "run", "--device", "cpu", "--conf", "0", "-o", "out"];
    let ran = dir.command(&[&predict[..], &["--raw", "raw.safetensors"]].concat()).fails(1);
    let ran = ran.stderr_has("skipped: in/b.jpg").stderr_has("1 of 3 images could not be read");
    assert_eq!(dir.files("out"), [".predicted", "a.jpg", "c.jpg", "detections.json"]);
    let found = dir.json("out/detections.json");
    let ids: std::collections::BTreeSet<_> =
        found.as_array().unwrap().iter().map(|d| d["image_id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 3].into());
    assert!(ran.stdout.contains("in/c.jpg") && !ran.stdout.contains("in/b.jpg"), "{ran:?}");
    let raw = String::from_utf8_lossy(&dir.read("raw.safetensors")).into_owned();
    assert!(raw.contains("\"3.pred_boxes\"") && !raw.contains("\"2.pred"));
    // The first alone.
    dir.command(&[&predict[..], &["--limit", "1"]].concat()).ok();
    // A name that JSON cannot hold counts as an image that cannot be read.
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
                .stderr_has("2 of 4 images could not be read");
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
    dir.command(&["predict", "in", "--weights", "set"])
        .fails(1)
        .stderr_has("--weights: set: weights: ");
    dir.command(&["predict", "in", "--weights", "tiny.toml"]).fails(1).stderr_has("tiny.toml");
}
