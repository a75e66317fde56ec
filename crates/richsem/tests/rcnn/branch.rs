//! Switches of a set, and the semantic branch on boxes of the second stage.

use richsem::targets::Supervision;

use super::setup::{ROI, TEXT_ROI, data, key, learner, parse, richsem, term, usual_batch};

/// Each switch takes its terms' gradients away and no others'.
#[test]
fn switches_of_a_set_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let mut learner = learner(&parse(&richsem(&data, ROI, "", "")), &data);
    let mut moved = |change: fn(&mut Supervision)| {
        let mut batch = usual_batch();
        change(&mut batch.supervision);
        learner.optimizer.zero_grad();
        let loss = learner.backward(&batch, key(0)).unwrap();
        let parts = [
            "rpn.head.cls_logits",
            "rpn.head.bbox_pred",
            "cls_score",
            "box_predictor.bbox_pred",
            "semantic_branch",
        ];
        let moved = parts.map(|part| {
            let of_part = |p: &richsem::models::parameters::Parameter| {
                p.name.contains(part) && p.tensor.grad().abs().max().double_value(&[]) > 0.0
            };
            learner.model.parameters().iter().any(of_part)
        });
        (moved, loss.terms.len())
    };
    assert_eq!(moved(|_| {}), ([true; 5], 5));
    assert_eq!(moved(|on| on.rpn = false), ([false, false, true, true, true], 5));
    assert_eq!(moved(|on| on.class = false), ([true, true, false, true, true], 5));
    assert_eq!(moved(|on| on.l1 = false), ([true, true, true, false, true], 5));
    assert_eq!(moved(|on| on.semantic = false), ([true, true, true, true, false], 4));
}

/// The branch moves the features that it looks at, with each kind of target, and its term falls.
#[test]
fn the_branch_teaches_the_box_head() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let gradient = |semantic: &str, model: &str, text_head: bool| {
        let mut text = richsem(&data, model, "", semantic);
        if text_head {
            text = text.replace("[model]", "[model]\nclass_head = { kind = \"text\" }");
        }
        let learner = learner(&parse(&text), &data);
        let mut batch = usual_batch();
        // Only the branch teaches.
        let on = &mut batch.supervision;
        (on.class, on.l1, on.rpn) = (false, false, false);
        let loss = learner.backward(&batch, key(0)).unwrap();
        let fc = learner
            .model
            .parameters()
            .into_iter()
            .find(|p| p.name.ends_with("box_head.fc6.weight"));
        assert!(fc.unwrap().tensor.grad().norm().double_value(&[]) > 0.0, "{semantic}");
        assert!(term(&loss, "loss_semantic") > 0.0, "{semantic}");
        term(&loss, "loss_semantic")
    };
    let plain = gradient("", ROI, false);
    for other in [
        "objective = \"l1\"",
        "entropy_weight = true",
        "target_boxes = \"all\"",
        "projection = \"mlp\"",
    ] {
        assert_ne!(gradient(other, ROI, false), plain, "{other}");
    }
    // The same where no proposal of the untrained network but only the objects' own boxes learn, which the last
    // digits decide.
    gradient("target_boxes = \"matched\"", ROI, false);
    gradient("projection = \"shared\"", TEXT_ROI, true);
    gradient("federated = true\n[loss.federated]\nclasses = 3", TEXT_ROI, true);
}
