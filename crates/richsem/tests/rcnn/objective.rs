//! What the class losses look at, and which boxes the semantic branch sees, by hand.

use richsem::{
    families::{
        Step,
        faster_rcnn::{Criterion, StageTensors, TrainingOutput},
    },
    losses::{
        FederatedConfig, LossConfig, UnknownClasses,
        regions::Wanted,
        terms::{StepKey, WholeBatch},
    },
    models::faster_rcnn::{Classifier, FasterRcnnConfig},
    targets::{Supervision, Target},
    testing::target,
    vocabulary::ClassIndex,
};
use tch::{Device, Kind, Tensor};

const KEY: StepKey = StepKey { seed: 0, micro_step: 0 };
const CLASSES: usize = 4;

/// Two images of two places. The first shows a box of class 0 and one of class 2; the boxes of the places are
/// the second object, background; none, the third object. Logits are 0.1, 0.2 … 1.6.
fn output() -> (TrainingOutput, Vec<Target>) {
    let targets = vec![
        target(&[(0, [0.5, 0.5, 0.4, 0.4]), (2, [0.3, 0.3, 0.4, 0.4])]),
        target(&[(1, [0.5, 0.5, 0.5, 0.5])]),
    ];
    let boxes = [1.0f32, 1.0, 5.0, 5.0].repeat(4);
    let logits: Vec<f32> = (1..=16).map(|i| i as f32 / 10.0).collect();
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let stage = StageTensors {
        boxes: Tensor::from_slice(&boxes).view([2, 2, 4]),
        valid: Tensor::from_slice(&[true, true, false, true]).view([2, 2]),
        target: Tensor::from_slice(&[1i64, -1, -1, 2]).view([2, 2]),
        logits: Tensor::from_slice(&logits).view([4, 4]),
        deltas: zeros(&[4, 16]),
    };
    let output = TrainingOutput {
        rpn_logits: zeros(&[2, 1]),
        rpn_deltas: zeros(&[2, 1, 4]),
        anchors: Tensor::from_slice(&[0f32, 0.0, 4.0, 4.0]).view([1, 4]),
        features: Tensor::arange(8, (Kind::Float, Device::Cpu)).view([4, 2]),
        stages: vec![stage],
    };
    (output, targets)
}

fn criterion(loss: &LossConfig, counts: &[u32; CLASSES]) -> Criterion {
    let config =
        FasterRcnnConfig { classifier: Classifier::Sigmoid, ..FasterRcnnConfig::default() };
    Criterion::new(&config, loss, counts, true)
}

/// The class term of these settings.
fn class_term(loss: &LossConfig, counts: &[u32; CLASSES], targets: &[Target]) -> f64 {
    let (output, _) = output();
    let supervision = Supervision::default();
    let step = Step { targets, supervision: &supervision, whole: WholeBatch::of(KEY, targets) };
    let criterion = criterion(loss, counts);
    let (terms, _) =
        criterion.start(&output, step.clone()).unwrap().wait().unwrap().finish(1.0, None);
    let at = terms.names.iter().position(|name| name == "loss_cls").unwrap();
    terms.values.double_value(&[at as i64])
}

/// Mean over the three boxes of the sum over these (box, class) of −log of the probability of being right.
fn by_hand(counted: impl Fn(usize, usize) -> bool) -> f64 {
    // The class of the boxes that are there, by row.
    let rows = [(0, Some(2)), (1, None), (3, Some(1))];
    let mut sum = 0.0;
    for (row, class) in rows {
        for column in (0..CLASSES).filter(|&column| counted(row, column)) {
            let logit = (row * CLASSES + column + 1) as f64 / 10.0;
            let right = if class == Some(column) { logit } else { -logit };
            sum += (-right).exp().ln_1p();
        }
    }
    sum / 3.0
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-5, "{got} {expected}");
}

#[test]
fn all_classes_count_unless_settings_say_otherwise() {
    let (_, targets) = output();
    close(class_term(&LossConfig::default(), &[1; 4], &targets), by_hand(|_, _| true));
}

/// Present are 0, 1 and 2, whether or not a box of theirs learns. The background is one of the classes that are
/// wanted, and is never drawn: of 5 that are wanted, one more class is drawn, the only one with images.
#[test]
fn a_federated_loss_counts_the_background_and_never_draws_it() {
    let (_, targets) = output();
    let loss = |classes| LossConfig {
        federated: Some(FederatedConfig { classes, power: 0.5 }),
        ..LossConfig::default()
    };
    close(class_term(&loss(4), &[1; 4], &targets), by_hand(|_, column| column != 3));
    close(class_term(&loss(5), &[1; 4], &targets), by_hand(|_, _| true));
    // A class that no image shows is never drawn.
    close(class_term(&loss(5), &[1, 1, 1, 0], &targets), by_hand(|_, column| column != 3));
    // More are present than wanted: all are kept.
    close(class_term(&loss(1), &[1; 4], &targets), by_hand(|_, column| column != 3));
}

/// In the first image class 1 is verified absent; of class 3 nothing is known, nor in the second of 0, 2 and 3. A
/// box's own class counts in any case.
#[test]
fn unknown_classes_do_not_count() {
    let (_, mut targets) = output();
    targets[0].knowledge.absent = vec![ClassIndex(1)];
    targets[1].knowledge.not_exhaustive = vec![ClassIndex(1)];
    let loss = LossConfig { unknown_classes: UnknownClasses::Ignore, ..LossConfig::default() };
    let counted = |row: usize, column: usize| match row {
        0 | 1 => column != 3,
        _ => column == 1,
    };
    close(class_term(&loss, &[1; 4], &targets), by_hand(counted));
}

/// Objects of the batch are counted image by image; an empty place is none of the regions.
#[test]
fn the_branch_sees_the_boxes_that_are_objects() {
    let (output, targets) = output();
    let supervision = Supervision::default();
    let step =
        Step { targets: &targets, supervision: &supervision, whole: WholeBatch::of(KEY, &targets) };
    let criterion = criterion(&LossConfig::default(), &[1; 4]);
    let matched = || criterion.start(&output, step.clone()).unwrap().wait().unwrap();
    assert_eq!(matched().num_boxes(), 2.0);
    let regions = |wanted| matched().finish(7.0, Some(wanted)).1.unwrap();
    let of_objects = regions(Wanted::default());
    assert_eq!(Vec::<i64>::try_from(&of_objects.rows).unwrap(), [0, 3]);
    assert_eq!((of_objects.images, of_objects.targets), (vec![0, 1], vec![1, 2]));
    let [set] = &of_objects.sets[..] else { panic!("one set") };
    assert_eq!((set.count, set.matched, set.normalizer, &*set.suffix), (2, true, 7.0, ""));
    // 10 × 10 pixels: from (1, 1) to (5, 5) is half-way, and four tenths wide.
    let near = |i: i64, expected: f64| close(of_objects.boxes.double_value(&[0, i]), expected);
    near(0, 0.3);
    near(3, 0.4);
    let of_all = regions(Wanted { unmatched: true, ..Wanted::default() });
    assert_eq!(Vec::<i64>::try_from(&of_all.rows).unwrap(), [0, 1, 3]);
    assert_eq!((of_all.images, of_all.targets), (vec![0, 0, 1], vec![]));
    assert_eq!((of_all.sets[0].matched, of_all.sets[0].normalizer), (false, 3.0));
}
