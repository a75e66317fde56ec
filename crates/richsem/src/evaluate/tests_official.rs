//! Against the numbers of the official evaluators, to ten digits.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::{detections, vocabulary::CategoryId};

/// A folder of the shared data, or `None` with a message where this machine doesn't have it.
fn shared(folder: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|a| a.join("shared/data").join(folder)).find(|p| p.is_dir());
    if found.is_none() {
        eprintln!("skipped: shared/data/{folder} is not on this machine");
    }
    found
}

type Metrics = BTreeMap<String, f64>;

#[derive(Deserialize)]
struct LvisExpected {
    gt: String,
    sets: BTreeMap<String, LvisSet>,
    refreq: Refreq,
}

#[derive(Deserialize)]
struct LvisSet {
    dets_file: String,
    n_dets: usize,
    runs: BTreeMap<String, LvisRun>,
}

#[derive(Deserialize)]
struct LvisRun {
    results: Metrics,
    #[serde(rename = "per_category_AP_AP50_freqgroup(r0c1f2)")]
    per_class: BTreeMap<i64, (f64, f64, usize)>,
    n_freq_groups: [usize; 3],
}

#[derive(Deserialize)]
struct Refreq {
    gt: String,
    runs: BTreeMap<String, Metrics>,
}

#[derive(Deserialize)]
struct CocoExpected {
    sets: BTreeMap<String, CocoSet>,
}

#[derive(Deserialize)]
struct CocoSet {
    n_img: usize,
    n_gt: usize,
    n_dt: usize,
    stats: Metrics,
    #[serde(rename = "per_category_AP")]
    per_class: BTreeMap<i64, f64>,
}

fn expected<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// To ten digits; the officials' −1 is our absence.
#[track_caller]
pub(super) fn assert_same(what: &str, got: Option<f64>, expected: f64) {
    match got {
        None => assert_eq!(expected, -1.0, "{what} is absent"),
        Some(got) => assert!((got - expected).abs() < 1e-10, "{what}: {got} is not {expected}"),
    }
}

fn assert_metrics(run: &str, summary: &Summary, expected: &Metrics) {
    assert_eq!(summary.metrics.len(), expected.len(), "{run}");
    for (name, value) in expected {
        assert!(summary.metrics.iter().any(|(n, _)| n == name), "{run}: no {name}");
        assert_same(&format!("{run}: {name}"), summary.get(name), *value);
    }
}

#[test]
fn lvis_numbers_are_lvis_apis() {
    let Some(folder) = shared("evaluation/lvis") else { return };
    let expected: LvisExpected = expected(&folder.join("lvis_expected.json"));
    let mut evaluator = Evaluator::of(&Dataset::open(&folder.join(&expected.gt)).unwrap());
    assert_eq!(evaluator.protocol(), Protocol::Lvis);
    assert_eq!(expected.sets.len(), 3);
    for (name, set) in &expected.sets {
        let found = detections::read(&folder.join(&set.dets_file)).unwrap();
        assert_eq!(found.len(), set.n_dets);
        assert_eq!(set.runs.len(), 2);
        for (run, expected) in &set.runs {
            let max: usize = run.strip_prefix("max_dets_").unwrap().parse().unwrap();
            evaluator = evaluator.with_max_detections(max);
            let summary = evaluator.evaluate(&found).unwrap();
            let run = format!("{name}, {run}");
            assert_metrics(&run, &summary, &expected.results);

            let groups = ['r', 'c', 'f'];
            for (class, group) in groups.iter().zip(expected.n_freq_groups) {
                let of_group = |c: &&ClassResult| c.frequency.unwrap().letter() == *class;
                assert_eq!(summary.per_class.iter().filter(of_group).count(), group);
            }
            let evaluated = summary.per_class.iter().filter(|c| c.ap.is_some());
            assert_eq!(evaluated.clone().count(), expected.per_class.len(), "{run}");
            for class in evaluated {
                let (ap, ap50, group) = expected.per_class[&class.category_id.0];
                assert_same(&format!("{run}: AP of {}", class.name), class.ap, ap);
                assert_same(&format!("{run}: AP50 of {}", class.name), class.ap50, ap50);
                assert_eq!(class.frequency.unwrap().letter(), groups[group]);
            }
        }
    }
}

#[test]
fn lvis_frequency_groups_are_lvis_apis() {
    let Some(folder) = shared("evaluation/lvis") else { return };
    let expected: LvisExpected = expected(&folder.join("lvis_expected.json"));
    let evaluator = Evaluator::of(&Dataset::open(&folder.join(&expected.refreq.gt)).unwrap());
    assert_eq!(expected.refreq.runs.len(), 3);
    for (name, metrics) in &expected.refreq.runs {
        let found = detections::read(&folder.join(&expected.sets[name].dets_file)).unwrap();
        assert_metrics(name, &evaluator.evaluate(&found).unwrap(), metrics);
    }
}

#[test]
fn coco_numbers_are_pycocotools() {
    let Some(folder) = shared("evaluation/coco") else { return };
    let expected: CocoExpected = expected(&folder.join("coco_expected.json"));
    assert_eq!(expected.sets.len(), 5);
    for (name, set) in &expected.sets {
        let found = detections::read(&folder.join(format!("{name}_dt.json"))).unwrap();
        let truth = folder.join(format!("{name}_gt.json"));
        let summary = evaluate(&truth, &found, None).unwrap();
        assert_eq!(summary.protocol, Protocol::Coco);
        assert_eq!(
            (summary.images, summary.boxes, summary.detections),
            (set.n_img, set.n_gt, set.n_dt),
            "{name}"
        );
        assert_metrics(name, &summary, &set.stats);
        let evaluated = summary.per_class.iter().filter(|c| c.ap.is_some());
        assert_eq!(evaluated.clone().count(), set.per_class.len(), "{name}");
        for class in evaluated {
            let CategoryId(id) = class.category_id;
            assert_same(&format!("{name}: AP of {}", class.name), class.ap, set.per_class[&id]);
        }
    }
}
