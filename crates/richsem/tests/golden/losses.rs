//! The matcher, and every loss term of every layer, from the official predictions: in f64.

use richsem::{
    families::{
        Step,
        dino::{
            Criterion,
            matcher::{Matching, PaddedTargets, hungarian},
        },
    },
    losses::{
        FederatedConfig, LossConfig, MatcherConfig,
        terms::{StepKey, WholeBatch},
    },
    targets::{Supervision, Target},
    testing::target,
};
use tch::{Device, Kind};

use crate::support::*;

pub(crate) fn step<'a>(targets: &'a [Target], supervision: &'a Supervision) -> Step<'a> {
    let key = StepKey { seed: 0, micro_step: 0 };
    Step { targets, supervision, whole: WholeBatch::of(key, targets) }
}

pub(crate) fn criterion(federated: bool) -> Criterion {
    let federated = federated.then_some(FederatedConfig { classes: 5, power: 0.5 });
    Criterion::new(LossConfig { federated, ..LossConfig::default() }, &IMAGE_COUNTS)
}

/// Four boxes, eleven boxes for nine queries, and none.
#[test]
fn matching_of_random_predictions() {
    let (golden, pairs) = (tensors("matching"), json::<Vec<(Vec<i64>, Vec<i64>)>>("matching"));
    let target = |i: usize| {
        let boxes = golden[&format!("{i}.boxes")].view([-1]);
        let labels = Vec::<i64>::try_from(&golden[&format!("{i}.labels")]).unwrap();
        let boxes = Vec::<f32>::try_from(boxes).unwrap();
        let boxes = boxes.chunks(4).map(|b| b.try_into().unwrap());
        target(&labels.into_iter().map(|l| l as u32).zip(boxes).collect::<Vec<_>>())
    };
    let targets: Vec<Target> = (0..3).map(target).collect();
    let padded = PaddedTargets::new(&targets, Device::Cpu);
    let (logits, boxes) = (golden["logits"].unsqueeze(0), golden["boxes"].unsqueeze(0));
    let found =
        hungarian((&logits, &boxes), None, &padded, &MatcherConfig::default(), 0.25).unwrap();
    let found = found.wait().unwrap().list().unwrap();
    for (image, (queries, own)) in (0..).zip(&pairs) {
        let mut expected: Vec<_> =
            queries.iter().zip(own).map(|(&q, &t)| [0, image, q, t]).collect();
        expected.sort_unstable_by_key(|pair| pair[3]);
        let found = found.iter().filter(|pair| pair[1] == image);
        assert_eq!(found.copied().collect::<Vec<_>>(), expected, "image {image}");
    }
    assert_eq!(found.len(), 4 + 9);
}

/// Our own matching of the official predictions is the official one, in every layer.
#[test]
fn matching_of_every_layer() {
    for name in ["text", "linear"] {
        let (golden, facts) = (tensors(name), json::<Facts>(name));
        let (output, targets) = (official_output(&golden, &facts), targets(&golden, ""));
        let supervision = Supervision::default();
        let (_, decisions) =
            criterion(true).forward(&output, step(&targets, &supervision)).unwrap();
        let list = |matching: &Matching| matching.list().unwrap();
        assert_eq!(list(&decisions.queries.matching), list(&facts.matching()), "{name}");
    }
}

/// With federated loss on the official classes, and without; and the classes that we would draw hold
/// those of the batch first, as the official ones do.
#[test]
fn every_term_of_every_layer() {
    let (golden, with) = (tensors("text"), json::<Facts>("text"));
    let without = &with.variants["all_classes"];
    let (linear, of_linear) = (tensors("linear"), json::<Facts>("linear"));
    for (name, golden, layout, facts) in [
        ("federated", &golden, &with, &with),
        ("all classes", &golden, &with, without),
        ("linear", &linear, &of_linear, &of_linear),
    ] {
        let (output, targets) = (official_output(golden, layout), targets(golden, ""));
        let criterion = criterion(facts.classes.is_some());
        let supervision = Supervision::default();
        let (_, mut decisions) = criterion.forward(&output, step(&targets, &supervision)).unwrap();
        if let (Some(ours), Some(theirs)) = (&decisions.queries.classes, &facts.classes) {
            assert_eq!(ours.size(), [3, 5]);
            let present = targets.iter().flat_map(|t| &t.labels).map(|c| i64::from(c.0));
            let present: std::collections::BTreeSet<i64> = present.collect();
            let first = Vec::<i64>::try_from(ours.get(0).narrow(0, 0, present.len() as i64));
            assert!(first.unwrap().iter().eq(&present));
            assert!(theirs.iter().all(|classes| classes.iter().take(present.len()).eq(&present)));
        }
        facts.decide(&mut decisions);
        let terms = criterion.terms_of(&output, &targets, &supervision, &decisions).unwrap();
        assert_eq!(terms.values.kind(), Kind::Double);
        let mut expected = facts.losses.clone();
        expected.retain(|term, _| !term.contains("distill"));
        close_terms(name, &terms.names, &terms.values, &expected, 1e-6);
    }
}
