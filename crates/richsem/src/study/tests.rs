//! Every rule of studies that needs no training.

use std::path::PathBuf;

use super::*;
use crate::{config::Config, models::padding::Padding, statistics::t_quantile};

/// A folder with `base.toml` and `study.toml`.
struct Files(tempfile::TempDir);

const BASE: &str = "version = 1\nseed = 9\n[data]\n\
    train = { annotations = \"data/t.json\", images = \"data\" }\n\
    val = { annotations = \"data/v.json\", images = \"data\" }\n";

const STUDY: &str = "version = 1\nconfig = \"base.toml\"\nseeds = [3, 1]\n\
    [[variant]]\nname = \"baseline\"\n[[variant]]\nname = \"b, hard\"\nset = [\"train.lr=0.5\"]\n";

impl Files {
    fn new(study: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("base.toml", BASE);
        files.write("study.toml", study);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn load(&self, set: &[&str]) -> Result<Study> {
        let set: Vec<String> = set.iter().map(|&text| text.to_owned()).collect();
        Study::load(&self.path("study.toml"), &set)
    }
}

fn study(text: &str) -> Study {
    Files::new(text).load(&[]).unwrap()
}

#[track_caller]
fn refused(text: &str, set: &[&str], parts: &[&str]) {
    let message = Files::new(text).load(set).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

fn line(study: &Study, run: usize, metrics: &[(&str, Option<f64>)]) -> ResultLine {
    let run = &study.runs[run];
    ResultLine {
        variant: study.variants[run.variant].name.clone(),
        seed: run.seed,
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        steps: 10,
        seconds: Some(1.5),
        device: Some("cpu".to_owned()),
        config_hash: run.config_hash.clone(),
    }
}

#[test]
fn the_t_quantiles_are_those_of_the_tables() {
    // R: qt(0.975, freedom).
    for (freedom, expected) in [
        (1, 12.706_204_736_174_7),
        (2, 4.302_652_729_749_46),
        (3, 3.182_446_305_283_71),
        (4, 2.776_445_105_197_79),
        (9, 2.262_157_162_798_2),
        (30, 2.042_272_456_301_24),
        (120, 1.979_930_405_082_44),
    ] {
        let t = t_quantile(freedom);
        assert!((t - expected).abs() < 1e-11, "{freedom}: {t}");
    }
    assert!((t_quantile(100_000) - 1.959_988).abs() < 1e-6, "near the normal distribution's");
}

#[test]
fn means_and_intervals_by_hand() {
    // Mean 4, squares 4 + 0 + 4, sd 2, half width 4.302653 · 2 / √3.
    let e = Estimate::of(&[2.0, 4.0, 6.0]).unwrap();
    assert_eq!((e.n, e.mean, e.sd), (3, 4.0, Some(2.0)));
    assert!((e.half_width().unwrap() - 4.968_275).abs() < 1e-5, "{e:?}");
    assert!((e.low.unwrap() + 0.968_275).abs() < 1e-5);
    let one = Estimate::of(&[0.25]).unwrap();
    assert_eq!((one.n, one.mean, one.sd, one.low, one.high), (1, 0.25, None, None, None));
    assert_eq!(Estimate::of(&[]), None);
    let equal = Estimate::of(&[0.5, 0.5]).unwrap();
    assert_eq!((equal.low, equal.high), (Some(0.5), Some(0.5)));
}

#[test]
fn runs_go_seed_by_seed_and_carry_all_settings() {
    let files = Files::new(&STUDY.replace(
        "[[variant]]\nname = \"b,",
        "set = [\"train.epochs=7\", \"data.val.images=own\"]\n[[variant]]\nname = \"b,",
    ));
    // The line above lands in the first variant.
    let study = files.load(&["train.log_every=5"]).unwrap();
    let runs: Vec<_> = study.runs.iter().map(|r| (r.name.as_str(), r.variant, r.seed)).collect();
    assert_eq!(
        runs,
        [("baseline-s3", 0, 3), ("b__hard-s3", 1, 3), ("baseline-s1", 0, 1), ("b__hard-s1", 1, 1)]
    );
    let [first, second] = [&study.runs[0].config, &study.runs[1].config];
    assert_eq!((first.train.epochs, first.train.log_every, first.seed), (7, 5, 3));
    assert_eq!((second.train.lr, second.train.epochs, second.train.log_every), (0.5, 24, 5));
    // Paths in the study file are relative to it.
    assert_eq!(first.data.val.as_ref().unwrap().images, Some(files.path("own")));
    assert_eq!(study.variants[0].against, [0; 0]);
    assert_eq!(study.variants[1].against, [0]);
    assert_eq!(study.metrics, ["AP", "APr", "APc", "APf"]);
    assert_eq!(study.same_settings(), None);
    assert_eq!(
        files
            .load(&["train.lr=0.5", "train.epochs=7", "data.val.images=/x"])
            .unwrap()
            .same_settings(),
        Some(("baseline", "b, hard"))
    );

    let chosen = |only: &[&str], seeds: &[u64]| {
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        let runs = study.select(&only, seeds)?;
        Ok::<_, Error>(runs.iter().map(|r| r.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(chosen(&[], &[]).unwrap().len(), 4);
    assert_eq!(chosen(&["b, hard"], &[1]).unwrap(), ["b__hard-s1"]);
    let message = chosen(&["basline"], &[]).unwrap_err().to_string();
    assert!(message.contains("`only`: no variant is called `basline`"), "{message}");
    assert!(message.contains("did you mean `baseline`?"), "{message}");
    assert!(chosen(&[], &[2]).unwrap_err().to_string().contains("[3, 1]"));
}

#[test]
fn a_fingerprint_is_of_the_settings_and_not_of_the_place() {
    let (here, there) = (Files::new(STUDY), Files::new(STUDY));
    let hashes = |study: &Study| -> Vec<String> {
        study.runs.iter().map(|run| run.config_hash.clone()).collect()
    };
    let of_here = hashes(&here.load(&[]).unwrap());
    assert_eq!(of_here, hashes(&there.load(&[]).unwrap()));
    let mut different = of_here.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 4, "variants and seeds differ");
    assert_ne!(of_here, hashes(&here.load(&["train.weight_decay=0"]).unwrap()));
    here.write("base.toml", &BASE.replace("data/v.json", "../v.json"));
    assert_ne!(of_here, hashes(&here.load(&[]).unwrap()));
}

#[test]
fn mistakes_are_named_with_file_and_key() {
    let with = |from: &str, to: &str| {
        assert!(STUDY.contains(from));
        STUDY.replace(from, to)
    };
    for (text, parts) in [
        (with("version = 1\n", ""), &["study.toml: version: missing"][..]),
        (with("version = 1", "version = 2"), &["version: expected 1, got 2"]),
        (with("seeds", "seedz"), &["study.toml: seedz: unknown key", "did you mean `seeds`?"]),
        (with("seeds = [3, 1]\n", ""), &["study.toml: seeds: expected at least one"]),
        (with("[3, 1]", "[3, 3]"), &["seeds: 3 is in the list twice"]),
        (with("[3, 1]", "[3, -1]"), &["seeds[1]"]),
        (with("[3, 1]", "[3, 1"), &["study.toml: line"]),
        (with("[3, 1]", "[3]\nmetrics = []"), &["metrics: expected at least one"]),
        (with("set = [", "sett = ["), &["variant[1].sett: unknown key", "did you mean `set`?"]),
        (with("train.lr=0.5", "train.lrr=0.5"), &["study.toml: train.lrr", "`lr`?"]),
        (with("train.lr=0.5", "train.lr=-1"), &["study.toml: train.lr: expected 0 to 1"]),
        (with("train.lr=0.5", "train.lr"), &["variant[1].set[0]: expected key=value"]),
        (with("train.lr=0.5", "seed = 4"), &["variant[1].set[0]: the seed"]),
        (with("name = \"baseline\"", ""), &["variant[0]", "`name`"]),
        (with("\"baseline\"", "\" \""), &["variant[0].name: expected a name"]),
        (with("\"baseline\"", "\"b, hard\""), &["variant[1].name: `b, hard` is the name of"]),
        (with("\"baseline\"", "\"b_ hard\""), &["would have the same files as `b_ hard`"]),
        (with("config = \"base.toml\"\n", ""), &["variant[0].config: missing"]),
        (with("base.toml", "bass.toml"), &["study.toml: config: there is no file", "bass.toml"]),
        (with("set = [\"train.lr=0.5\"]", "config = \"x\""), &["variant[1].config: there is no"]),
        (
            with("set = [\"train.lr=0.5\"]", "against = [\"Baselin\"]"),
            &["variant[1].against[0]: no variant is called `Baselin`", "did you mean `baseline`?"],
        ),
        (
            with("set = [\"train.lr=0.5\"]", "against = [\"b, hard\"]"),
            &["variant[1].against[0]: `b, hard` is this variant itself"],
        ),
    ] {
        refused(&text, &[], parts);
    }
    refused("version = 1\nseeds = [1]", &[], &["study.toml: variant: expected at least one"]);
    refused(STUDY, &["seed=4"], &["`set`: the seed of a run comes from `seeds`"]);
    refused(STUDY, &["train.epoch=4"], &["`set`: train.epoch", "did you mean `epochs`?"]);
    let files = Files::new(STUDY);
    files.write("base.toml", "version = 1");
    assert!(files.load(&[]).unwrap_err().to_string().contains("base.toml: data.val: missing"));
}

#[test]
fn results_are_added_and_read_back_whatever_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let study = study(STUDY);
    let file = folder.path().join("study.jsonl");
    let lines: Vec<ResultLine> = (0..3)
        .map(|i| line(&study, i, &[("AP", Some(0.1 + 0.2 * i as f64)), ("APr", None)]))
        .collect();
    let (mut results, message) = Results::open(folder.path()).unwrap();
    assert!(message.is_none() && results.lines().is_empty());
    for line in &lines[..2] {
        results.append(line.clone()).unwrap();
    }
    let whole = std::fs::read(&file).unwrap();
    let (read, message) = Results::open(folder.path()).unwrap();
    assert!(message.is_none());
    assert_eq!(read.lines(), &lines[..2]);
    assert_eq!(std::fs::read(&file).unwrap(), whole);

    // Cut off at every byte of the second line.
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for length in first..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        // Reading alone leaves the file as it is.
        let complete = length == whole.len() - 1;
        let left = if complete { 2 } else { 1 };
        assert_eq!(Results::read(folder.path()).unwrap().lines().len(), left);
        assert_eq!(std::fs::read(&file).unwrap().len(), length);
        let (mut results, message) = Results::open(folder.path()).unwrap();
        assert_eq!(message.is_some(), !complete && length > first, "{length}");
        results.append(lines[2].clone()).unwrap();
        let again = Results::read(folder.path()).unwrap();
        assert_eq!(again.lines().len(), left + 1, "{length}");
        assert_eq!(again.lines().last(), Some(&lines[2]));
    }
    std::fs::write(&file, [&b"{\"variant\": 3}\n"[..], &whole].concat()).unwrap();
    let message = Results::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("study.jsonl: line 1") && message.contains("remove that line"));
}

#[test]
fn a_line_counts_for_its_settings_only() {
    let folder = tempfile::tempdir().unwrap();
    let study = study(STUDY);
    let (mut results, _) = Results::open(folder.path()).unwrap();
    let other = ResultLine { config_hash: "0".repeat(16), ..line(&study, 0, &[("AP", Some(0.9))]) };
    results.append(line(&study, 0, &[("AP", Some(0.1))])).unwrap();
    results.append(line(&study, 0, &[("AP", Some(0.2))])).unwrap();
    results.append(other).unwrap();
    assert_eq!(results.of(&study, &study.runs[0]).unwrap().metrics["AP"], Some(0.2));
    assert_eq!(results.of(&study, &study.runs[1]), None);
    assert_eq!(results.unknown_lines(&study), 1);
}

#[test]
fn the_table_pairs_by_seed() {
    let text = STUDY.replace("[3, 1]", "[3, 1, 4]\nmetrics = [\"AP\", \"APr\", \"AP50\"]");
    let study = study(&text);
    let folder = tempfile::tempdir().unwrap();
    let (mut results, _) = Results::open(folder.path()).unwrap();
    // Baseline has seeds 3, 1, 4; the other 3 and 1. APr is missing once.
    for (run, ap, rare) in [
        (0, 0.10, Some(0.01)),
        (1, 0.13, Some(0.02)),
        (2, 0.20, None),
        (3, 0.25, Some(0.05)),
        (4, 0.90, Some(0.03)),
    ] {
        results.append(line(&study, run, &[("AP", Some(ap)), ("APr", rare)])).unwrap();
    }
    let table = StudyTable::new(&study, &results);
    assert_eq!((table.done, table.planned), (5, 6));
    // Baseline: mean 0.4, sd √0.19, half 4.302653 · 0.435890 / √3. The other: 0.19 ± 12.7062 · 0.06.
    assert_eq!(
        table.variant_cells(),
        [
            ["baseline", "3", "40.0 ± 108.3", "2.0 ± 12.7 (n = 2)", "–"],
            ["b, hard", "2", "19.0 ± 76.2", "3.5 ± 19.1", "–"]
        ]
    );
    // Differences 0.03 and 0.05: 0.04 ± 12.7062 · 0.01. The interval is of them, not of the means.
    assert_eq!(
        table.difference_cells(),
        [["b, hard − baseline", "2", "+4.0 [-8.7, +16.7]", "+1.0 [–] (n = 1)", "–"]]
    );
    let row = &table.differences[0];
    assert_eq!(row.seeds, [1, 3]);
    let ap = row.metrics["AP"].unwrap();
    assert!((ap.mean - 0.04).abs() < 1e-12 && (ap.high.unwrap() - 0.167_062).abs() < 1e-6);

    table.write(folder.path()).unwrap();
    let json = std::fs::read_to_string(folder.path().join("study.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["differences"][0]["metrics"]["AP"]["n"], 2);
    assert_eq!(json["variants"][0]["metrics"]["AP50"], serde_json::Value::Null);
    let markdown = std::fs::read_to_string(folder.path().join("study.md")).unwrap();
    let lines: Vec<&str> = markdown.lines().collect();
    assert!(lines[0].starts_with("study: 5 of 6 runs."), "{markdown}");
    assert_eq!(
        lines[1..5],
        [
            "",
            "| variant | seeds | AP | APr | AP50 |",
            "| --- | ---: | ---: | ---: | ---: |",
            "| baseline | 3 | 40.0 ± 108.3 | 2.0 ± 12.7 (n = 2) | – |"
        ]
    );
    assert_eq!(lines[6..8], ["", "| difference | seeds | AP | APr | AP50 |"]);
    assert_eq!(lines.len(), 10);
}

#[test]
fn one_seed_has_no_interval_and_nothing_is_below_zero_by_rounding() {
    let study = study(&STUDY.replace("[3, 1]", "[3]\nmetrics = [\"AP\"]"));
    let folder = tempfile::tempdir().unwrap();
    let (mut results, _) = Results::open(folder.path()).unwrap();
    let empty = StudyTable::new(&study, &results);
    assert_eq!(empty.variant_cells()[0], ["baseline", "0", "–"]);
    assert_eq!(empty.difference_cells()[0], ["b, hard − baseline", "0", "–"]);
    results.append(line(&study, 0, &[("AP", Some(0.1002))])).unwrap();
    results.append(line(&study, 1, &[("AP", Some(0.1))])).unwrap();
    let table = StudyTable::new(&study, &results);
    assert_eq!(table.variant_cells()[0], ["baseline", "1", "10.0 ± –"]);
    assert_eq!(table.difference_cells()[0], ["b, hard − baseline", "1", "+0.0 [–]"]);
}

#[test]
fn a_run_with_other_settings_is_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = &study(STUDY).runs[0].config;
    assert_eq!(run_state(&run, config).unwrap(), RunState::New);
    std::fs::create_dir(&run).unwrap();
    assert_eq!(run_state(&run, config).unwrap(), RunState::New);
    std::fs::write(run.join("notes.txt"), "mine").unwrap();
    let message = run_state(&run, config).unwrap_err().to_string();
    assert!(message.contains("not a run folder") && message.contains("move"), "{message}");

    let mut saved = config.clone();
    // What the study leaves open, the run has settled: as runs do now, or as those of an earlier release
    // did, whose settings say nothing of it.
    std::fs::write(run.join("config.toml"), saved.to_toml()).unwrap();
    let message = run_state(&run, config).unwrap_err().to_string();
    assert!(message.contains("model.dino.padding: the run has \"official\""), "{message}");
    assert!(message.contains("the study asks for \"masked\""), "{message}");
    saved.model.set_padding(Some(Padding::Masked));
    std::fs::write(run.join("config.toml"), saved.to_toml()).unwrap();
    assert_eq!(run_state(&run, config).unwrap(), RunState::Unfinished);
    saved.train.lr = 0.25;
    saved.train.ema = Some(crate::config::EmaConfig::default());
    std::fs::write(run.join("config.toml"), saved.to_toml()).unwrap();
    let message = run_state(&run, config).unwrap_err().to_string();
    assert!(message.contains("config.toml: train.ema.decay: the run has 0.9997"), "{message}");
    assert!(message.contains("the study asks for nothing (and 2 more)"), "{message}");
    assert_eq!(Config::parse_saved(&saved.to_toml(), &run).unwrap(), saved);
}

#[test]
fn the_last_row_is_the_last_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(last_row(folder.path()), None);
    let row =
        |step: u64| format!("{{\"kind\":\"eval\",\"step\":{step},\"epoch\":1,\"metrics\":{{}}}}\n");
    let mut text: String = (1..=3000).map(row).collect();
    text += &row(3001)[..20];
    std::fs::write(folder.path().join("metrics.jsonl"), text).unwrap();
    assert_eq!(last_row(folder.path()).unwrap().step(), 3000);
}

#[test]
fn one_study_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let held = lock(folder.path()).unwrap();
    assert!(lock(folder.path()).unwrap_err().to_string().contains("another `richsem study`"));
    drop(held);
    lock(folder.path()).unwrap();
}
