//! Both ways to the records give the same.

use super::*;
use crate::data::dataset::Dataset;

#[test]
fn the_engines_state_and_its_records_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, results) = (folder.path().join("truth.json"), folder.path().join("found.json"));
    let mut judged = 0;
    for (i, (at, of)) in super::super::tests_random::texts().enumerate() {
        fs_err::write(&truth, at).unwrap();
        fs_err::write(&results, of).unwrap();
        let evaluator = Evaluator::of(&Dataset::open(&truth).unwrap());
        let found = crate::detections::read(&results).unwrap();
        let (summary, matches) = evaluator.evaluate_and_match(&found).unwrap();
        let rebuilt = evaluator.matches_of(evaluator.all_of(&found), evaluator.per_class());
        assert_eq!(matches, rebuilt.unwrap(), "case {i}");
        assert_eq!(matches, evaluator.matches(&found).unwrap(), "case {i}");
        assert_eq!(summary, evaluator.evaluate(&found).unwrap(), "case {i}");
        judged += matches.judged();
    }
    assert!(judged > 5000, "{judged}");
}

/// So that a newer engine is met by the long way, and not by nonsense.
#[test]
fn a_state_of_another_layout_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.json");
    let text = r#"{"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]}"#;
    fs_err::write(&truth, text).unwrap();
    let evaluator = Evaluator::of(&Dataset::open(&truth).unwrap());
    let mut engine = evaluator.engine().unwrap();
    let all = evaluator.all_of(&[]);
    evaluator
        .each_batch(all, |batch| engine.update(batch.images, batch.truths, batch.found))
        .unwrap();
    let state = engine.to_bytes();
    assert_eq!(state::records(&state, 10).unwrap().len(), 1, "this engine's version is read");
    for length in 0..state.len() {
        assert!(state::records(&state[..length], 10).is_none(), "cut at {length}");
    }
    for changed in [0, 4] {
        let mut state = state.clone();
        state[changed] += 1;
        assert!(state::records(&state, 10).is_none(), "byte {changed}");
    }
}
