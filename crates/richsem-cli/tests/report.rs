//! The real binary's `report` and `bench`.
#![allow(clippy::unwrap_used)]

mod util;

use std::process::Command;

use util::Dir;

#[test]
fn a_run_is_shown_in_one_file() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    dir.command(&train).ok().stderr_has("report: run/report.html");
    let page = dir.text("run/report.html");
    let truth = dir.json("set/val.json");
    let classes: Vec<String> = truth["categories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("<td>{}</td>", c["name"].as_str().unwrap()))
        .collect();
    assert!(classes.iter().all(|row| page.contains(row)), "{classes:?}");
    assert!(page.contains("LVIS protocol · 6 images"));
    // Three charts of thresholds, loss, AP, two of labels, two of classes; truth and prediction of six images;
    // settings.
    let charts = |page: &str| page.matches("<svg viewBox=").count();
    assert_eq!(charts(&page), 9);
    let all_images = |page: &str| page.matches("<img src=\"data:image/jpeg;base64,").count();
    let images = |page: &str| page.matches("alt=\"prediction of ").count();
    assert_eq!((images(&page), page.matches("alt=\"ground truth of ").count()), (6, 6));
    let mistakes = all_images(&page) - 12;
    assert!(mistakes > 0 && page.contains("<h3>Worst misses</h3>"), "{mistakes}");
    for text in ["last layer: GIoU", "<dt>trainable parameters</dt>", "num_queries = 20"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("class=\"notes\""), "nothing is missing");

    // The same run gives the same file.
    let report = ["report", "run", "--device", "cpu", "--output", "again.html"];
    assert_eq!(dir.command(&report).ok().stdout, "again.html\n");
    assert!(dir.text("again.html") == page);
    // A broken image is named, there as here; everything that was found is drawn.
    std::fs::remove_file(dir.path("set/images/val/000003.jpg")).unwrap();
    dir.command(&[&report[..], &["--conf", "0"]].concat()).ok().stderr_has("000003.jpg");
    let broken = dir.text("again.html");
    assert!(broken.contains("<li>Skipped: ") && broken.contains(": 3 objects, 80 predictions"));
    assert_eq!(broken.matches("<li>Skipped: ").count(), 1, "told once");
    assert_eq!(images(&broken), 5);
    dir.command(&[&report[..], &["--images", "2"]].concat()).ok();
    assert_eq!(images(&dir.text("again.html")), 2);
    // Another run beside it.
    let copy = Command::new("cp").args(["-r", "run", "other"]).current_dir(dir.path("")).status();
    assert!(copy.unwrap().success());
    dir.command(&[&report[..], &["--compare", "other", "--images", "0"]].concat()).ok();
    let beside = dir.text("again.html");
    for name in ["run, epoch 1, ", "other, epoch 1, "] {
        assert!(beside.contains(&format!("<th class=\"num\">{name}")), "{name}");
    }
    assert!(!beside.contains("other, epoch 2") && all_images(&beside) == 0);
    // One that went on, and was best later: as it was after as many epochs, too.
    let line = dir.text("other/metrics.jsonl").lines().last().unwrap().to_owned();
    let mut row: serde_json::Value = serde_json::from_str(&line).unwrap();
    (row["epoch"], row["step"], row["metrics"]["AP"]) = (2.into(), 1234.into(), 0.99.into());
    dir.write("other/metrics.jsonl", format!("{}{row}\n", dir.text("other/metrics.jsonl")));
    dir.write("other/eval/epoch-0002.json", dir.text("other/eval/epoch-0001.json"));
    dir.command(&[&report[..], &["--compare", "other", "--images", "0"]].concat()).ok();
    let beside = dir.text("again.html");
    let (first, later) =
        (beside.find("other, epoch 1, "), beside.find("other, epoch 2, 1,234 steps"));
    assert!(first.is_some() && first < later, "{first:?} {later:?}");
    // Without the annotations there are no images, but the rest.
    std::fs::remove_file(dir.path("set/val.json")).unwrap();
    dir.command(&report).ok().stderr_has("Images are left out").stderr_has("val.json");
    assert_eq!(charts(&dir.text("again.html")), 9);

    // Training succeeds even if its report cannot be written.
    std::fs::remove_file(dir.path("run/report.html")).unwrap();
    dir.write("run/report.html/in_the_way", "");
    std::fs::write(dir.path("set/val.json"), truth.to_string()).unwrap();
    dir.command(&["train", "--resume", "run", "--device", "cpu"])
        .ok()
        .stderr_has("finished in")
        .stderr_has("warning: the report could not be written")
        .stderr_has("report.html");
}

#[test]
fn a_run_without_evaluation_has_a_report_and_another_folder_has_none() {
    let dir = Dir::with_data();
    let config = dir.text("tiny.toml");
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("val = ")).collect();
    dir.write("tiny.toml", config.join("\n"));
    let ran = dir.command(&["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"]).ok();
    assert!(!ran.stderr.contains("report"), "{ran:?}");
    assert!(!dir.exists("run/report.html"));
    let report = ["report", "run", "--device", "cpu"];
    dir.command(&report).ok().stderr_has("no validation set");
    let page = dir.text("run/report.html");
    // The loss, and two of labels.
    assert_eq!(page.matches("<svg viewBox=").count(), 3);
    assert!(page.contains("not evaluated") && page.contains("no validation set"), "{page}");

    // A run that was stopped before its first checkpoint.
    dir.write("new/config.toml", dir.text("run/config.toml"));
    dir.command(&["report", "new", "--device", "cpu"])
        .ok()
        .stderr_has("0 of 1 epochs are done")
        .stderr_has("no checkpoint yet");
    assert!(dir.text("new/report.html").contains("num_queries = 20"));

    dir.command(&["report", "set"]).fails(1).stderr_has("config.toml").no_stdout();
    dir.command(&["report", "absent"]).fails(1).stderr_has("absent");
    dir.command(&[&report[..], &["--compare", "new"]].concat()).fails(1).stderr_has("new: metrics");
    dir.command(&[&report[..], &["-o", "absent/r.html"]].concat()).fails(1).stderr_has("--output");
    dir.write("new/metrics.jsonl", "{}\n{}\n");
    dir.command(&["report", "new", "-o", "new.html"]).fails(1).stderr_has("metrics.jsonl: line 1");
    assert!(!dir.exists("new.html"));
}

/// The validation loss is in the rows, the table, TensorBoard and the report.
#[test]
fn a_run_tells_its_validation_loss_and_has_its_metrics_as_a_table() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "one/run", "--device", "cpu"];
    dir.command(&[&train[..], &["--set", "train.eval_loss=true"]].concat()).ok();
    let line = dir.text("one/run/metrics.jsonl").lines().last().unwrap().to_owned();
    let row: serde_json::Value = serde_json::from_str(&line).unwrap();
    let loss = row["loss"].as_f64().unwrap();
    assert!(loss > 0.0 && row["terms"]["loss_giou"].as_f64().unwrap() > 0.0, "{row}");
    let report = ["report", "one/run", "--device", "cpu", "--csv", "metrics.csv", "--images", "0"];
    dir.command(&report).ok().stderr_has("metrics: metrics.csv");
    let page = dir.text("one/run/report.html");
    assert!(page.contains("<h1>one</h1>"), "the folder is called run");
    assert!(page.contains("validation set <b>"));
    let table = dir.text("metrics.csv");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|cell| *cell == name).unwrap();
    let last = rows.last().unwrap();
    assert_eq!((last[0], last[column("loss")]), ("eval", &*loss.to_string()));
    assert_eq!(rows.len(), dir.text("one/run/metrics.jsonl").lines().count() + 1);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    let events = dir.files("one/run/tensorboard");
    let events = dir.read(&format!("one/run/tensorboard/{}", events[0]));
    let has = |tag: &str| events.windows(tag.len()).any(|at| at == tag.as_bytes());
    assert!(has("eval/loss") && has("eval/APr") && has("eval/AP50r") && has("eval_images/3"));

    dir.command(&[&report[..4], &["--name", "mine & <yours>"]].concat()).ok();
    assert!(dir.text("one/run/report.html").contains("<h1>mine &amp; &lt;yours&gt;</h1>"));
    let nowhere = ["report", "one/run", "--csv", "absent/m.csv"];
    dir.command(&nowhere).fails(1).stderr_has("--csv");
}

#[test]
fn steps_and_inference_are_timed() {
    let dir = Dir::new();
    dir.write("tiny.toml", util::TINY_CONFIG);
    let bench = ["bench", "-c", "tiny.toml", "--device", "cpu", "--classes", "5", "--batch", "1"];
    let more = ["--size", "40x64", "--boxes", "0", "--steps", "3", "--warmup", "0"];
    let ran = dir.command(&[&bench[..], &more].concat()).ok();
    let ran = ran.stdout_has("cpu").stdout_has(", f32").stdout_has("batch 1 of 40×64, 0 boxes");
    for (name, skipped) in [("training", 2), ("inference", 1)] {
        let row = ran.row(name);
        let numbers: Vec<f64> =
            row[skipped..row.len() - 1].iter().map(|n| n.parse().unwrap()).collect();
        let [median, low, high, rate] = numbers[..] else { panic!("{ran:?}") };
        assert!(0.0 < low && low <= median && median <= high, "{ran:?}");
        // Both are rounded to a tenth.
        let rounding = 0.06 * (1.0 + 1e3 / (median * median));
        assert!((rate - 1e3 / median).abs() < rounding, "{ran:?}");
        assert_eq!(row.last(), Some(&"–"), "no GPU, no memory: {ran:?}");
    }
    for size in ["40", "40x", "0x64", "40x99999"] {
        dir.command(&[&bench[..], &["--size", size]].concat()).fails(2).stderr_has("800x1216");
    }
    dir.command(&[&bench[..], &["--set", "train.lrr=1"]].concat()).fails(1).stderr_has("train.lr");
}

#[test]
fn one_part_alone_is_timed_and_written_for_programs() {
    let dir = Dir::new();
    dir.write("tiny.toml", util::TINY_CONFIG);
    let bench = ["bench", "-c", "tiny.toml", "--device", "cpu", "--classes", "5", "--batch", "1"];
    let more = ["--size", "40x64", "--steps", "2", "--warmup", "0", "--json", "numbers.json"];
    for (only, other) in [("train", "inference"), ("inference", "train")] {
        let ran = dir.command(&[&bench[..], &more, &["--only", only]].concat()).ok();
        assert_eq!(ran.stdout.contains("training step"), only == "train", "{ran:?}");
        let numbers = dir.json("numbers.json");
        let times =
            ["low_ms", "median_ms", "high_ms"].map(|key| numbers[only][key].as_f64().unwrap());
        assert!(0.0 < times[0] && times[0] <= times[1] && times[1] <= times[2], "{numbers}");
        assert!(numbers[only]["memory_mib"].is_null() && numbers[other].is_null(), "{numbers}");
        assert_eq!((&numbers["precision"], &numbers["threads"]), (&"f32".into(), &1.into()));
        assert_eq!((&numbers["height"], &numbers["width"]), (&40.into(), &64.into()));
    }
    let nowhere = [&bench[..], &["--json", "no/such/folder.json"]].concat();
    dir.command(&nowhere).fails(1).stderr_has("--json: the folder `no/such` does not exist");
}

#[test]
fn training_on_many_sizes_is_timed() {
    let dir = Dir::new();
    dir.write("tiny.toml", util::TINY_CONFIG);
    dir.write("sizes.txt", "# height, width, images\n48 64 2\n64 48 1\n");
    let bench = ["bench", "-c", "tiny.toml", "--device", "cpu", "--classes", "5", "--batch", "2"];
    let small = ["--set", "data.augment.scales=[48]", "--set", "data.augment.max_size=64"];
    let more = ["--set", "data.augment.crop.probability=0", "--size", "64x64", "--warmup", "0"];
    let bench = [&bench[..], &small, &more].concat();
    let real = ["--sizes", "sizes.txt", "--mosaic", "96", "--steps", "6", "--json", "real.json"];
    let ran = dir.command(&[&bench[..], &real].concat()).ok();
    ran.stdout_has("steps 0 to 6").stdout_has("one size, 64×64").stdout_has("to the first step");
    let real = &dir.json("real.json")["real"];
    let steps = real["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    for (i, step) in steps.iter().enumerate() {
        let sides = [1, 2].map(|at| step[at].as_i64().unwrap());
        assert_eq!(sides == [96, 96], i % 2 == 1, "{step}");
        assert!(sides.iter().all(|side| side % 32 == 0) && step[0] == 2, "{step}");
    }
    assert_eq!(real["windows"][0]["images"], 12);

    dir.write("wrong.txt", "48 64\n");
    let wrong = [&bench[..], &["--sizes", "wrong.txt"]].concat();
    dir.command(&wrong).fails(1).stderr_has("wrong.txt: line 1").stderr_has("got `48 64`");
    dir.command(&[&bench[..], &["--mosaic", "96"]].concat()).fails(2).stderr_has("--sizes");
}

#[test]
fn the_loader_is_timed_without_a_model() {
    let dir = Dir::with_data();
    let bench = ["bench", "-c", "tiny.toml", "--loader"];
    let more =
        ["--steps", "3", "--warmup", "0", "--set", "data.workers=2", "--json", "numbers.json"];
    let ran = dir.command(&[&bench[..], &more].concat()).ok().stdout_has("2 threads on");
    let shown: f64 = ran.row("images/s")[1].parse().unwrap();
    let speed = &dir.json("numbers.json")["loader"];
    let [low, median, high] = ["low", "median", "high"].map(|key| speed[key].as_f64().unwrap());
    assert!(0.0 < low && low <= median && median <= high, "{speed}");
    assert!((shown - median).abs() < 0.06, "{shown}, {speed}");
    // Whole batches, as in training.
    let images = dir.json("set/train.json")["images"].as_array().unwrap().len() as u64;
    let (read, batch) =
        (speed["images"].as_u64().unwrap(), dir.json("numbers.json")["batch"].as_u64());
    assert!(read > 0 && read <= images && read % batch.unwrap() == 0, "{read} of {images}");

    dir.write("bare.toml", "version = 1\n");
    let bare = dir.command(&["bench", "-c", "bare.toml", "--loader"]).fails(1);
    bare.stderr_has("data.train").stderr_has("set data.train to a file");
    let both = [&bench[..], &["--only", "train"]].concat();
    dir.command(&both).fails(2).stderr_has("--only");
}
