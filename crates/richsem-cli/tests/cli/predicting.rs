//! `predict` as people use it: which images, which results.

use std::{io::Write as _, process::Stdio};

use serde_json::json;

use super::util::Dir;

#[test]
fn folders_lists_and_stdin_give_the_same_images() {
    let dir = Dir::with_run();
    let with = ["--weights", "run", "--conf", "0", "--formats", "json", "--device", "cpu"];
    let found = |inputs: &[&str], output: &str| {
        let args = [&["predict"], inputs, &with[..], &["-o", output]].concat();
        let ran = dir.command(&args).ok();
        let of: Vec<String> = dir
            .json(&format!("{output}/detections.json"))
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["file_name"].as_str().unwrap().to_owned())
            .collect();
        let mut files = of;
        files.dedup();
        (files, ran)
    };
    // set/images has two folders of images, and nothing beside them.
    let (all, ran) = found(&["set/images"], "out");
    assert_eq!(all.len(), 18, "{ran:?}");
    assert!(ran.stderr.contains(" ms each; results in out"), "{ran:?}");
    assert_eq!(dir.files("out"), [".predicted", "detections.json"]);
    let list: Vec<String> =
        all.iter().map(|file| file.strip_prefix("set/images/").unwrap().to_owned()).collect();
    dir.write("set/images/some.txt", list[2..5].join("\n"));
    assert_eq!(found(&["set/images/some.txt"], "out2").0, all[2..5]);

    let mut command = dir.raw_command(&[&["predict", "-"], &with[..], &["-o", "out3"]].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}\n{}", all[0], all[7]).unwrap();
    assert!(child.wait().unwrap().success());
    let first = dir.json("out3/detections.json")[0]["file_name"].clone();
    assert_eq!(first, json!(all[0]));
    // As `find -print0` writes them.
    let mut command = dir.raw_command(&[&["predict", "-"], &with[..], &["-o", "out4"]].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    write!(child.stdin.take().unwrap(), "{}\0{}\0", all[0], all[7]).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(dir.read("out4/detections.json"), dir.read("out3/detections.json"));
    // Nothing on stdin.
    dir.command(&[&["predict", "-"], &with[..]].concat())
        .fails(1)
        .stderr_has("no paths came from stdin");
    // Nothing to write.
    dir.command(&[
        "predict",
        "set/images",
        "--weights",
        "run",
        "--formats",
        "images",
        "--no-images",
    ])
    .fails(1)
    .stderr_has("nothing would be written");
    // A name that a terminal would obey, and archives by their contents.
    dir.write("odd/a\n\u{1b}[31mb.jpg", dir.read(&all[0]));
    let ran = dir.command(&[&["predict", "odd"], &with[..], &["-o", "out5"]].concat()).ok();
    assert!(ran.stdout.contains("a\\n\\u{1b}[31mb.jpg"), "{ran:?}");
    dir.write("a set.7z", b"7z\xbc\xaf\x27\x1c");
    dir.command(&["predict", "a set.7z", "--weights", "run"])
        .fails(1)
        .stderr_has("unpack it: 7z x 'a set.7z'");
}

#[test]
fn every_form_of_results_has_the_same_boxes() {
    let dir = Dir::with_run();
    let image = "set/images/val/000001.jpg";
    let forms = ["--formats", "images,json,yolo,csv,crops", "--conf", "0", "--device", "cpu"];
    dir.command(&[&["predict", image, "--weights", "run", "-o", "all"], &forms[..]].concat()).ok();
    let records = dir.json("all/detections.json");
    let records = records.as_array().unwrap();
    let yolo = dir.text("all/labels/000001.txt");
    let csv = dir.text("all/detections.csv");
    let rounded = ["--detections", "all/detections.csv"];
    dir.command(&[&["eval", "--annotations", "set/val.json"][..], &rounded].concat())
        .fails(1)
        .stderr_has("hint: this is the detections.csv of `predict`");
    assert_eq!(yolo.lines().count(), records.len());
    assert_eq!(csv.lines().count(), records.len() + 1);
    let size = image::image_dimensions(dir.path(image)).unwrap();
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let names = dir.text("all/classes.txt");
    let names: Vec<&str> = names.lines().collect();
    for ((record, line), row) in records.iter().zip(yolo.lines()).zip(csv.lines().skip(1)) {
        let bbox: Vec<f64> =
            record["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(bbox[0] >= 0.0 && bbox[0] + bbox[2] <= width + 1e-3, "cut off: {bbox:?}");
        assert!(bbox[1] >= 0.0 && bbox[1] + bbox[3] <= height + 1e-3, "cut off: {bbox:?}");
        let numbers: Vec<f64> = line.split(' ').map(|v| v.parse().unwrap()).collect();
        assert!((numbers[1] * width - (bbox[0] + bbox[2] / 2.0)).abs() < 1e-2, "{line}");
        assert!((numbers[4] * height - bbox[3]).abs() < 1e-2, "{line}");
        assert_eq!(record["category_name"], names[numbers[0] as usize]);
        let values: Vec<&str> = row.split(',').collect();
        assert_eq!((values[0], values[1]), (image, names[numbers[0] as usize]));
        assert!((values[5].parse::<f64>().unwrap() - bbox[2]).abs() < 1e-2, "{row}");
    }
    let crops = dir.files("all/crops");
    assert!(!crops.is_empty() && crops.len() <= records.len(), "{crops:?}");
    assert!(dir.exists("all/000001.jpg"));
}

#[test]
fn images_of_one_name_do_not_overwrite_each_other() {
    let dir = Dir::with_run();
    for (to, from) in [("x/1.jpg", 1), ("y/1.jpg", 2), ("y/2.jpg", 3)] {
        dir.write(&format!("in/{to}"), dir.read(&format!("set/images/val/00000{from}.jpg")));
    }
    let other = image::open(dir.path("in/x/1.jpg")).unwrap();
    other.save(dir.path("in/y/1.png")).unwrap();
    other.save(dir.path("in/y/2.bmp")).unwrap();
    dir.write("list.txt", "in/x/1.jpg\nin/y/1.jpg\nin/y/1.png\nin/y/2.bmp\nin/y/2.jpg\n");
    let forms = ["--formats", "images,json,yolo,crops", "--conf", "0", "--device", "cpu"];
    for (inputs, out) in
        [(&["in"][..], "out"), (&["list.txt"], "out2"), (&["in/x", "in/y"], "out3")]
    {
        let args = [&["predict"], inputs, &["--weights", "run", "-o", out], &forms[..]].concat();
        dir.command(&args).ok().stderr_has("several images are called `1.jpg`");
        let files = dir.files(out);
        let of = |folder: &str| -> Vec<&str> {
            let files = files.iter().filter_map(|file| file.strip_prefix(folder));
            files.filter(|file| !file.contains('/')).collect()
        };
        assert_eq!(of("x/"), ["1.jpg"]);
        assert_eq!(of("y/"), ["1.jpg", "1.png", "2.bmp.jpg", "2.jpg"]);
        assert_eq!(of("labels/x/"), ["1.txt"]);
        assert_eq!(of("labels/y/"), ["1.png.txt", "1.txt", "2.bmp.txt", "2.txt"]);
        // Each box with an inside of a pixel is cut out of its own image.
        let records = dir.json(&format!("{out}/detections.json"));
        let crops = files.iter().filter(|file| file.starts_with("crops/")).count();
        let is_cut = |record: &&serde_json::Value| {
            let bbox = record["bbox"].as_array().unwrap();
            bbox[2].as_f64().unwrap() > 0.0 && bbox[3].as_f64().unwrap() > 0.0
        };
        assert_eq!(crops, records.as_array().unwrap().iter().filter(is_cut).count());
    }
}

#[test]
fn suppression_and_tiles_change_boxes_and_never_names() {
    let dir = Dir::with_run();
    let image = "set/images/val/000001.jpg";
    let count = |more: &[&str], output: &str| {
        let base = ["predict", image, "--weights", "run", "--conf", "0", "--formats", "json"];
        let args = [&base[..], &["--device", "cpu", "-o", output], more].concat();
        dir.command(&args).ok();
        dir.json(&format!("{output}/detections.json")).as_array().unwrap().len()
    };
    let plain = count(&[], "plain");
    // Of boxes of one class no two overlap: at most as many as before.
    let few = count(&["--iou", "0"], "few");
    assert!(few <= plain && few > 0, "{few} of {plain}");
    assert_eq!(count(&["--iou", "1"], "same"), plain);
    let tiled = count(&["--tiles", "64", "--overlap", "0.25"], "tiled");
    assert!(tiled > 0);
    // `eval` finds the same there, and says that these are not the plain detector's numbers.
    let eval =
        ["eval", "--weights", "run", "--annotations", "set/val.json", "--images", "set/images"];
    let tiles = ["--tiles", "64", "--overlap", "0.25", "--batch", "1", "--save-json", "eval.json"];
    dir.command(&[&eval[..], &tiles, &["--device", "cpu"]].concat())
        .ok()
        .stdout_has("Boxes: also in tiles of 64 pixels, of which neighbours share 0.25");
    let val = dir.json("set/val.json");
    let is_it = |image: &&serde_json::Value| {
        image["file_name"].as_str().unwrap().ends_with("val/000001.jpg")
    };
    let id = val["images"].as_array().unwrap().iter().find(is_it).unwrap()["id"].clone();
    let scores = |file: &str, id: &serde_json::Value| -> Vec<u64> {
        let records = dir.json(file);
        let of_image = records.as_array().unwrap().iter().filter(|r| r["image_id"] == *id);
        let mut all: Vec<u64> =
            of_image.map(|r| (r["score"].as_f64().unwrap() * 1e9) as u64).collect();
        all.sort_unstable();
        assert!(!all.is_empty(), "{file}");
        all
    };
    assert_eq!(scores("eval.json", &id), scores("tiled/detections.json", &1.into()));
    dir.command(
        &[
            &["eval", "--annotations", "set/val.json"][..],
            &["--detections", "eval.json", "--iou", "0.5"],
        ]
        .concat(),
    )
    .fails(2)
    .stderr_has("--iou");
    // An image that is no larger than a tile is seen whole.
    assert_eq!(count(&["--tiles", "4096"], "large"), plain);
    dir.command(&["predict", image, "--weights", "run", "--overlap", "0.5"])
        .fails(2)
        .stderr_has("--tiles");
    dir.command(&[
        "predict",
        image,
        "--weights",
        "run",
        "--conf",
        "0.99",
        "-o",
        "none",
        "--device",
        "cpu",
    ])
    .ok()
    .stderr_has("0 objects with a score of at least 0.99 (highest: 0.");
}

/// Words of other programs, and what this one says of itself.
#[test]
fn words_that_people_type() {
    let dir = Dir::new();
    let commit = dir.command(&["--version"]).ok();
    let told = commit.stdout.trim();
    let start = format!("richsem {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(told.starts_with(&start) && told.contains(", libtorch 2.11."), "{told}");
    assert_eq!(dir.command(&["version"]).ok().stdout, commit.stdout);
    assert_eq!(dir.command(&["help"]).ok().stdout, dir.command(&["--help"]).ok().stdout);
    dir.command(&["help", "predict"]).ok().stdout_has("--tiles");
    dir.command(&["detect", "a.jpg"]).fails(2).stderr_has("it is `predict` here");
    dir.command(&["yolo", "train"]).fails(2).stderr_has("this program is `richsem`");
    dir.command(&["predict", "--source", "a.jpg", "--weights", "w"])
        .fails(1)
        .stderr_has("a.jpg: no such file");
    for (shell, word) in
        [("bash", "complete"), ("zsh", "#compdef richsem"), ("fish", "complete -c richsem")]
    {
        dir.command(&["completions", shell]).ok().stdout_has(word).stdout_has("dataset");
    }
    dir.command(&["settings", "train.lr"]).ok().stdout_has("default: 0.0001").stdout_has("`lr`");
    dir.command(&["settings", "data.augment"]).ok().stdout_has("data.augment.crop.probability");
    dir.command(&["settings", "lr_drops"]).fails(1).stderr_has("did you mean train.lr_drop");
    let schema = dir.command(&["settings", "--schema"]).ok();
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["properties"]["train"]["properties"]["epochs"]["type"], "integer");
}

/// Files of the user's own are never replaced by results; those of an earlier `predict` are, and what is left of it is
/// told.
#[test]
fn only_what_an_earlier_predict_wrote_is_replaced() {
    let dir = Dir::with_run();
    let image = dir.read("set/images/val/000001.jpg");
    dir.write("in/1.jpg", &image);
    let predict = |forms: &str, conf: &str| {
        let how = ["--weights", "run", "--device", "cpu", "-o", "out"];
        let how = [&how[..], &["--formats", forms, "--conf", conf]].concat();
        dir.command(&[&["predict", "in"], &how[..]].concat())
    };
    for (forms, own) in [
        ("yolo", "labels/1.txt"),
        ("yolo", "classes.txt"),
        ("json", "detections.json"),
        ("csv", "detections.csv"),
        ("images", "1.jpg"),
        ("crops", "crops/mine/1-1.jpg"),
    ] {
        dir.write(&format!("out/{own}"), "mine");
        let named = own.split("/mine").next().unwrap();
        predict(forms, "0")
            .fails(1)
            .stderr_has(&format!("`out/{named}` was not written by predict"))
            .stderr_has("hint: choose another folder");
        assert_eq!(dir.files("out"), [own]);
        assert_eq!(dir.text(&format!("out/{own}")), "mine");
        std::fs::remove_dir_all(dir.path("out")).unwrap();
    }
    // A folder that holds other files is as good as any.
    dir.write("out/notes.txt", "mine");
    let all = "images,json,yolo,csv,crops";
    let first = predict(all, "0").ok();
    assert!(!first.stderr.contains("warning"), "{first:?}");
    let crops = dir.files("out/crops").len();
    assert!(crops > 0);
    let again = predict(all, "0").ok();
    assert!(!again.stderr.contains("warning"), "{again:?}");
    predict("crops,json", "1").ok().stderr_has(&format!(
        "warning: out: {} files are there that an earlier predict wrote, and that these results do not have, as",
        crops + 4
    ));
    assert_eq!(dir.text("out/notes.txt"), "mine");
    // What was left is still known for a result.
    predict(all, "0").ok();
    dir.write("out/.predicted", "labels");
    predict(all, "0").fails(1).stderr_has("this is not predict's list");
}

#[test]
fn one_form_of_results_that_cannot_be_written_takes_no_other_along() {
    let dir = Dir::with_data();
    // A class whose name no folder can have.
    let long = "\u{e4}b".repeat(150);
    for part in ["set/train.json", "set/val.json"] {
        let mut set = dir.json(part);
        for (number, class) in set["categories"].as_array_mut().unwrap().iter_mut().enumerate() {
            class["name"] = json!(format!("{long}{number}"));
        }
        dir.write(part, set.to_string());
    }
    dir.command(&["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"]).ok();
    let forms = ["--formats", "images,json,yolo,csv,crops", "--conf", "0", "--device", "cpu"];
    let image = "set/images/val/000001.jpg";
    let predict = || {
        dir.command(&[&["predict", image, "--weights", "run", "-o", "out"], &forms[..]].concat())
    };
    predict().ok();
    let whole =
        ["000001.jpg", "classes.txt", "detections.csv", "detections.json", "labels/000001.txt"];
    let files = dir.files("out");
    assert!(whole.iter().all(|file| files.iter().any(|other| other == file)), "{files:?}");
    let crops = dir.files("out/crops");
    let folders: Vec<&str> = crops.iter().map(|file| file.split('/').next().unwrap()).collect();
    assert!(
        folders.iter().all(|name| name.len() < 255 && name.starts_with("\u{e4}b")),
        "{folders:?}"
    );
    for blocked in ["000001.jpg", "detections.csv", "classes.txt", "crops"] {
        let place = dir.path("out").join(blocked);
        match blocked {
            "crops" => std::fs::remove_dir_all(&place).unwrap(),
            _ => std::fs::remove_file(&place).unwrap(),
        }
        // A folder in the place of a file, and the other way round.
        match blocked {
            "crops" => drop(dir.write("out/crops", "")),
            _ => drop(dir.write(&format!("out/{blocked}/x"), "")),
        }
        let others: Vec<&str> = whole.into_iter().filter(|file| *file != blocked).collect();
        for file in &others {
            std::fs::remove_file(dir.path("out").join(file)).unwrap();
        }
        predict().fails(1).stderr_has("not all results could be written: ").stderr_has(blocked);
        assert!(others.iter().all(|file| dir.path("out").join(file).is_file()), "{blocked}");
        match blocked {
            "crops" => std::fs::remove_file(&place).unwrap(),
            _ => std::fs::remove_dir_all(&place).unwrap(),
        }
        predict().ok();
    }
}
