//! The metric by way of a data set: its folder is opened, its results are read, and the evaluator takes the
//! protocol from the format.

use std::path::Path;

use serde_json::Value;

use super::{read_results, write_results};
use crate::{
    data::{dataset::Dataset, formats::Opening},
    evaluate::{Evaluator, Protocol},
    testing,
};

fn close(got: Option<f64>, expected: &Value, what: &str) {
    match (got, expected.as_f64()) {
        (Some(got), Some(expected)) => {
            assert!((got - expected).abs() < 1e-9, "{what}: {got} {expected}")
        }
        (got, expected) => assert_eq!(got, expected, "{what}"),
    }
}

fn shares(folder: &Path) -> Dataset {
    Dataset::open_as(folder, &Opening { pixels: false, ..Opening::default() }).unwrap()
}

#[test]
fn the_cases_have_their_numbers() {
    let Some(cases) = testing::shared("samples/openimages_eval") else { return };
    for case in ["group_of", "hierarchy", "labels"] {
        let folder = cases.join(case);
        let dataset = shares(&folder);
        let text = fs_err::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        for file in ["predictions.csv", "submission.csv"] {
            let results = read_results(&folder.join(file), &dataset).unwrap();
            let evaluator = Evaluator::of(&dataset);
            assert_eq!(evaluator.protocol(), Protocol::OpenImages);
            let summary = evaluator.evaluate(&results.detections).unwrap();
            let map = |mode: &str| expected[mode]["mAP50"].clone();
            close(summary.get("AP50"), &map("official"), case);
            let expanded = map("official_predictions_expanded_too");
            close(summary.get("AP50_expanded"), &expanded, case);
            assert_eq!(summary.main(), summary.get("AP50"));
            let certain = evaluator.evaluate_with_intervals(&results.detections).unwrap();
            let intervals = certain.intervals.as_ref().unwrap();
            assert_eq!(
                (&certain.metrics, &certain.per_class),
                (&summary.metrics, &summary.per_class)
            );
            for (name, value) in &summary.metrics {
                let of_interval = intervals.get(name).unwrap().value;
                assert!(
                    of_interval == *value || (of_interval.unwrap() - value.unwrap()).abs() < 1e-12,
                    "{case}: {name}"
                );
            }
        }
        // Written and read again, the same detections come back.
        let results = read_results(&folder.join("predictions.csv"), &dataset).unwrap();
        let written = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        write_results(written.path(), &results.detections, &dataset).unwrap();
        let again = read_results(written.path(), &dataset).unwrap();
        let evaluator = Evaluator::of(&dataset);
        assert_eq!(
            evaluator.evaluate(&again.detections).unwrap().get("AP50"),
            evaluator.evaluate(&results.detections).unwrap().get("AP50")
        );
    }
}

#[test]
fn what_comes_from_matches_is_refused() {
    let Some(cases) = testing::shared("samples/openimages_eval") else { return };
    let evaluator = Evaluator::of(&shares(&cases.join("labels")));
    let message = evaluator.evaluate_and_match(&[]).unwrap_err().to_string();
    assert!(message.contains("OpenImages protocol"), "{message}");
}
