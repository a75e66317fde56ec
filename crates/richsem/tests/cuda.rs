//! What is done in a way of its own on CUDA gives what the plain way gives: recorded passes, and the
//! losses' kernels. Skipped, with a line that says so, where there is no CUDA device.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use std::ops::ControlFlow;

use richsem::{
    Error,
    bench::{Workload, random_batch, vocabulary},
    collective::Single,
    config::Config,
    families::{Step, dino::Criterion},
    losses::{
        FederatedConfig, LossConfig, UnknownClasses,
        terms::{StepKey, WholeBatch},
    },
    models::{
        class_head::ClassSpace,
        dino::{Dino, Input, LayerOutputs, TrainingOutput, denoising::DenoisingLayout},
        network::NetworkOutput,
        parameters::ParameterStore,
        scored_box::ScoredBox,
    },
    targets::{BoxMatching, Supervision, Target},
    testing::{normal, uniform},
    train::{Intermediates, Learner},
};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceChoice;

fn device() -> Option<Device> {
    match DeviceChoice::Cuda(None).resolve() {
        Ok(device) => Some(device),
        Err(problem) => {
            println!("skipped, there is no CUDA device: {problem}");
            None
        }
    }
}

const CONFIG: &str = r#"
version = 1
[model.dino.backbone]
width = 16
layers = [1, 1, 1, 1]
frozen_stages = -1
[model.dino.transformer]
hidden_dim = 64
enc_layers = 2
dec_layers = 2
dim_feedforward = 128
num_queries = 60
[train]
lr = 0.0
lr_backbone = 0.0
"#;

/// As [`CONFIG`], of the other family, with a cascade.
const RCNN: &str = r#"
version = 1
[model]
kind = "faster_rcnn"
[model.faster_rcnn]
fpn_dim = 32
backbone = { width = 16, layers = [1, 1, 1, 1], frozen_stages = -1 }
[model.faster_rcnn.rpn]
sizes = [8, 16, 32, 64, 128]
pre_nms_train = 300
post_nms_train = 100
pre_nms_test = 200
post_nms_test = 60
batch_per_image = 64
[model.faster_rcnn.roi]
iou = [0.5, 0.6]
class_agnostic = true
dim = 64
batch_per_image = 32
[train]
lr = 0.0
lr_backbone = 0.0
"#;

/// Loss and norm of the gradient of some steps, and logits: images of two sizes and any number of
/// boxes. Nothing is learned (gradients are added up in no fixed order, and AdamW makes much of little),
/// so that steps can be compared.
fn run(settings: &str, graphs: bool, device: Device) -> (Vec<[f64; 2]>, Vec<Tensor>) {
    let text = format!("{settings}cuda_graphs = {graphs}\n");
    let config = Config::parse(&text, "test.toml".as_ref()).unwrap();
    let mut learner = Learner::new(&config, vocabulary(7), device, Arc::new(Single)).unwrap();
    let batch = |i: usize| {
        let (height, boxes) = if i.is_multiple_of(2) { (96, 3 + i) } else { (128, 1 + i % 5) };
        let work = Workload { batch: 2, height, width: 128, boxes, classes: 7, warmup: 0, runs: 0 };
        random_batch(&work).unwrap()
    };
    let steps = (0..12)
        .map(|i| {
            let key = StepKey { seed: 5, micro_step: i as u64 };
            let loss = learner.backward(&batch(i), key).unwrap().loss;
            [loss, learner.update(1.0).unwrap()]
        })
        .collect();
    let detector = &learner.model.detector;
    let found = (0..4).map(|_| detector.infer(&batch(0)).unwrap().named.swap_remove(0).1).collect();
    // A pass that cannot be recorded is told, and runs all the same.
    assert_eq!((learner.take_news(), learner.model.detector.take_news()), (None, None));
    (steps, found)
}

/// Losses and norms of steps on batches of many sizes. `ahead`: passes for some of them are recorded
/// before, and all are padded up to those.
fn run_padded(ahead: bool, device: Device) -> Vec<[f64; 2]> {
    let text = format!("{CONFIG}cuda_graphs = {ahead}\n");
    let config = Config::parse(&text, "test.toml".as_ref()).unwrap();
    let mut learner = Learner::new(&config, vocabulary(7), device, Arc::new(Single)).unwrap();
    let batch = |i: u32| {
        let (height, width) = (192 + 32 * (i % 3), 192 + 32 * (i * 5 % 4));
        let boxes = 1 + i as usize % 4;
        random_batch(&Workload { batch: 2, height, width, boxes, classes: 7, warmup: 0, runs: 0 })
            .unwrap()
    };
    let batches: Vec<_> = (0..12).map(batch).collect();
    let shapes: Vec<_> = batches.iter().map(|b| [2, b.size()[0], b.size()[1]]).collect();
    let said = learner.record_ahead(&shapes, |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(said.is_some(), ahead && device.is_cuda(), "{said:?}");
    let steps = batches.iter().enumerate().map(|(i, batch)| {
        let key = StepKey { seed: 5, micro_step: i as u64 };
        let loss = learner.backward(batch, key).unwrap().loss;
        [loss, learner.update(1.0).unwrap()]
    });
    let steps = steps.collect();
    assert_eq!(learner.take_news(), None);
    steps
}

/// See [`recorded_steps_are_the_same_steps`]: a swap of two queries makes a step another one.
fn same_steps(expected: &[[f64; 2]], got: &[[f64; 2]]) {
    let pairs = expected.iter().flatten().zip(got.iter().flatten());
    let apart: Vec<f64> = pairs.map(|(a, b)| (a - b).abs() / a.abs()).collect();
    let swapped = apart.iter().filter(|&&apart| apart > 1e-4).count();
    assert!(swapped <= 4 && apart.iter().all(|&apart| apart < 0.1), "{apart:?}");
}

#[test]
fn batches_that_are_padded_up_to_a_recording_learn_the_same() {
    let Some(device) = device() else { return };
    let expected = run_padded(false, device);
    same_steps(&expected, &run_padded(true, device));
    // Two learners at the same time give what each gives alone.
    std::thread::scope(|scope| {
        let runs = [0, 1].map(|_| scope.spawn(|| run_padded(true, device)));
        for run in runs {
            same_steps(&expected, &run.join().unwrap());
        }
    });
}

/// The host learns of a loss that is not finite only after the update was queued: the device skips it.
#[test]
fn an_update_after_a_loss_that_is_not_finite_changes_nothing() {
    let Some(device) = device() else { return };
    for graphs in [false, true] {
        let text = format!("{CONFIG}cuda_graphs = {graphs}\n").replace("lr = 0.0", "lr = 0.1");
        let config = Config::parse(&text, "test.toml".as_ref()).unwrap();
        let mut learner = Learner::new(&config, vocabulary(7), device, Arc::new(Single)).unwrap();
        let work =
            Workload { batch: 2, height: 96, width: 128, boxes: 3, classes: 7, warmup: 0, runs: 0 };
        let batch = random_batch(&work).unwrap();
        let key = |micro_step| StepKey { seed: 5, micro_step };
        // A recording is made meanwhile.
        for i in 0..4 {
            learner.backward(&batch, key(i)).unwrap();
            learner.update(0.0).unwrap();
        }
        let parameters = learner.model.parameters();
        let bias = parameters.iter().find(|p| p.name == "class_embed.0.bias").unwrap();
        torch_ext::no_grad(|| drop(bias.tensor.get(3).fill_(f64::NAN)));
        let before: Vec<Tensor> = parameters.iter().map(|p| p.tensor.detach().copy()).collect();

        let prepared = learner.prepare(&batch, key(4)).unwrap();
        let loss = learner.start(&batch, prepared, &mut Intermediates::default());
        let update = learner.start_update(1.0).unwrap();
        let error = loss.and_then(|loss| loss.wait()).unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
        let error = learner.finish_update(update).unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
        for (parameter, before) in parameters.iter().zip(&before) {
            let same = parameter.tensor.detach().nan_to_num(7.0, 7.0, 7.0);
            let same = same.equal(&before.nan_to_num(7.0, 7.0, 7.0));
            assert!(same, "{} changed, graphs {graphs}", parameter.name);
        }
    }
}

/// The device's matching costs what the host's does, and is the same where only one costs that.
#[test]
fn matchings_cost_what_those_of_the_host_do() {
    let Some(device) = device() else { return };
    let sizes = [(1, 1), (5, 60), (60, 60), (3, 900), (100, 900), (300, 1000), (40, 5000)];
    for (seed, (t, q)) in (0..).zip(sizes) {
        let counts = [t, 0, 1, t / 2];
        let of_images = Tensor::from_slice(&counts).to_device(device);
        // Costs that nearly all differ; then few, so that many matchings cost the same; and rows that all
        // want the same columns.
        let any = normal(seed, &[3, 4, t, q]);
        let few = (&any * 1.5).round();
        let alike = &any * 1e-3 + normal(seed + 100, &[1, 1, 1, q]);
        for (cost, unique) in [(any, true), (few, false), (alike, true)] {
            let (found, finite) =
                torch_ext::assign::assign(&cost.to_device(device), &of_images).unwrap();
            assert_eq!(finite.abs().sum(Kind::Float).double_value(&[]), 0.0);
            let found = Vec::<i64>::try_from(found.to_device(Device::Cpu).flatten(0, -1)).unwrap();
            let cost = Vec::<f32>::try_from(cost.flatten(0, -1)).unwrap();
            for (problem, own) in found.chunks(t as usize).enumerate() {
                let count = counts[problem % 4] as usize;
                let block = &cost[problem * (t * q) as usize..][..count * q as usize];
                let block: Vec<f64> = block.iter().map(|&c| f64::from(c)).collect();
                let (rows, columns) = lsap::solve(count, q as usize, &block, false).unwrap();
                let total = |columns: &[usize]| -> f64 {
                    rows.iter()
                        .zip(columns)
                        .map(|(row, column)| block[row * q as usize + column])
                        .sum()
                };
                let (own, rest) = own.split_at(count);
                assert!(rest.iter().all(|&column| column == -1), "{t} × {q}");
                let own: Vec<usize> = own.iter().map(|&column| column as usize).collect();
                let distinct: std::collections::HashSet<_> = own.iter().collect();
                assert_eq!(distinct.len(), count, "{t} × {q}");
                let (got, expected) = (total(&own), total(&columns));
                assert!(
                    (got - expected).abs() < 1e-9 * expected.abs().max(1.0),
                    "{got} {expected}"
                );
                assert!(!unique || own == columns, "{t} × {q}: {own:?} {columns:?}");
            }
        }
    }
    // What is not finite is said of its problem alone.
    let cost = normal(9, &[2, 2, 3, 8]).to_device(device);
    let _ = cost.get(1).get(0).get(2).narrow(0, 5, 1).fill_(f64::NAN);
    let of_images = Tensor::from_slice(&[3i64, 3]).to_device(device);
    let (_, finite) = torch_ext::assign::assign(&cost, &of_images).unwrap();
    let finite = Vec::<f32>::try_from(finite.to_device(Device::Cpu).flatten(0, -1)).unwrap();
    let wrong: Vec<bool> = finite.iter().map(|f| f.is_nan()).collect();
    assert_eq!(wrong, [false, false, true, false]);
}

/// Of a two-stage detector, which decides within the pass which boxes learn. Where two proposals are nearly as good,
/// the last digits decide: then that step's loss is another one's.
#[test]
fn recorded_steps_of_two_stages_are_the_same_steps() {
    let Some(device) = device() else { return };
    let (plain, plain_found) = run(RCNN, false, device);
    assert!(plain.iter().flatten().all(|x| x.is_finite() && *x > 0.0));
    for (recorded, recorded_found) in [run(RCNN, true, device), run(RCNN, true, device)] {
        same_steps(&plain, &recorded);
        // The same proposals, but for their order where scores are nearly the same.
        for (plain, recorded) in plain_found.iter().zip(&recorded_found) {
            let sorted = |x: &Tensor| x.flatten(0, -1).sort(0, true).0;
            let apart = (sorted(plain) - sorted(recorded)).abs();
            let apart = apart.mean(Kind::Float).double_value(&[]);
            assert!(apart < 1e-3, "{apart}");
        }
    }
}

/// Detections of the same proposals: what the device suppresses is what the host does.
#[test]
fn detections_of_two_stages_are_those_of_the_host() {
    let Some(device) = device() else { return };
    let config = Config::parse(RCNN, "test.toml".as_ref()).unwrap();
    let learner = Learner::new(&config, vocabulary(7), device, Arc::new(Single)).unwrap();
    let network = learner.model.detector.network();
    let sizes = [[300, 200], [150, 120]];
    for (key, places) in [(1, 50i64), (2, 900)] {
        let corner = uniform(key, &[2, places, 2]) * 60.0;
        let side = uniform(key + 10, &[2, places, 2]) * 40.0;
        let boxes = Tensor::cat(&[&corner, &(&corner + side)], 2);
        let scores = uniform(key + 20, &[2, places, 7]) - 0.2;
        let own = Tensor::from_slice(&[100f32, 100.0, 90.0, 80.0]).view([2, 2]);
        let found = |device: Device| {
            let named = [("scores", &scores), ("boxes", &boxes), ("sizes", &own)];
            let named = named.map(|(name, x)| (name, x.to_device(device))).into();
            network.boxes(&NetworkOutput { named }, &sizes, 300).unwrap()
        };
        let (host, there) = (found(Device::Cpu), found(device));
        let of = |found: &[Vec<ScoredBox>]| -> Vec<(u32, f32, [f32; 4])> {
            found.iter().flatten().map(|d| (d.class.0, d.score, d.bbox.0)).collect()
        };
        assert_eq!(of(&host), of(&there));
    }
}

#[test]
fn recorded_steps_are_the_same_steps() {
    let Some(device) = device() else { return };
    let (plain, plain_found) = run(CONFIG, false, device);
    // Twice: with the graphs their memory is gone, and others can be recorded.
    for (recorded, recorded_found) in [run(CONFIG, true, device), run(CONFIG, true, device)] {
        // In the last digits the passes differ (another algorithm for a convolution), and two queries
        // that are nearly the same may swap: then that step's loss is another one's.
        let pairs = plain.iter().flatten().zip(recorded.iter().flatten());
        let apart: Vec<f64> = pairs.map(|(a, b)| (a - b).abs() / a.abs()).collect();
        let swapped = |apart: &f64| *apart > 1e-4;
        let all = apart.iter().filter(|apart| swapped(apart)).count();
        assert!(all <= 4 && apart.iter().all(|&apart| apart < 0.1), "{apart:?}");
        // Not always the same recording: two take turns, from the fifth step on.
        for shape in 0..2 {
            let steps = apart.chunks(2).enumerate().skip(4).filter(|(i, _)| i % 2 == shape);
            let own = steps.filter(|(_, step)| step.iter().any(swapped)).count();
            assert!(own <= 2, "{apart:?}");
        }
        for found in &recorded_found {
            let apart = (found - &plain_found[0]).abs().max().double_value(&[]);
            assert!(apart < 1e-3, "{apart}");
        }
    }
}

/// All class logits of an image, the largest first: alone, then padded below and at the right. The same
/// weights wherever they lie.
fn logits(norm: &str, kind: Option<Kind>, device: Device) -> [Tensor; 2] {
    let text = CONFIG.replace("width =", &format!("norm = \"{norm}\"\ngroups = 4\nwidth ="));
    let config = Config::parse(&text, "test.toml".as_ref()).unwrap();
    let store = ParameterStore::new(Device::Cpu, 7);
    let space = ClassSpace::Classes(7);
    let model = Dino::new(&store, config.model.as_dino().unwrap(), space).unwrap();
    // Norms that do something.
    for (i, p) in store.parameters().iter().enumerate().filter(|(_, p)| p.tensor.dim() == 1) {
        let random = uniform(i as u64, &p.tensor.size()) * 0.5;
        torch_ext::no_grad(|| p.tensor.shallow_clone().copy_(&(&p.tensor + random)));
    }
    let values = store.named_tensors();
    let (store, model) = match device {
        Device::Cpu => (store, model),
        device => {
            let store = ParameterStore::new(device, 0);
            let model = Dino::new(&store, config.model.as_dino().unwrap(), space).unwrap();
            (store, model)
        }
    };
    store.load(&values, "test".as_ref()).unwrap();
    let image = normal(3, &[1, 3, 161, 203]);
    [(0, 0), (63, 117)].map(|(below, right)| {
        let padded = image.constant_pad_nd([0, right, 0, below]).to_device(device);
        let inside = Tensor::ones([1, 161, 203], (Kind::Float, device));
        let mask = inside.constant_pad_nd([0, right, 0, below]).eq(0.0);
        let found = torch_ext::autocast(device, kind, || model.infer(&Input::new(&padded, &mask)));
        let logits = found.unwrap().pred_logits.flatten(0, -1).to_device(Device::Cpu);
        logits.sort(0, true).0
    })
}

#[test]
fn padding_changes_nothing_on_the_gpu_either() {
    let apart = |a: &Tensor, b: &Tensor| (a - b).abs();
    let norms = ["frozen_bn", "batch_norm", "group_norm"];
    let on_the_cpu = norms.map(|norm| logits(norm, None, Device::Cpu));
    for (norm, [alone, padded]) in norms.iter().zip(&on_the_cpu) {
        let most = apart(alone, padded).max().double_value(&[]);
        assert!(most < 1e-3, "{norm} on the CPU: {most}");
    }
    let Some(device) = device() else { return };
    torch_ext::set_tf32(false).unwrap();
    for (norm, [expected, _]) in norms.iter().zip(on_the_cpu) {
        let [alone, padded] = logits(norm, None, device);
        for (what, other) in [("the CPU", &expected), ("padded", &padded)] {
            let most = apart(&alone, other).max().double_value(&[]);
            assert!(most < 5e-3, "{norm}, {what}: {most}");
        }
        // A wrong padding moves all by far more than bf16's rounding does on average.
        let [alone, padded] = logits(norm, Some(Kind::BFloat16), device);
        let mean = apart(&alone, &padded).mean(Kind::Float).double_value(&[]);
        assert!(mean < 0.02, "{norm} in bf16: {mean}");
    }
}

/// Terms, and the gradients of logits and boxes.
fn losses(
    config: &LossConfig,
    supervision: &Supervision,
    targets: &[Target],
    device: Device,
) -> Vec<Tensor> {
    let leaf = |x: Tensor| x.to_device(device).set_requires_grad(true);
    let layers = |n: i64, queries: i64, key: u64| LayerOutputs {
        logits: leaf(normal(key, &[n, 2, queries, 9]) * 2.0),
        boxes: leaf(uniform(key, &[n, 2, queries, 4]) * 0.5 + 0.2),
    };
    let layout = DenoisingLayout::new(2, 4);
    let none = || Tensor::zeros([0], (Kind::Float, device));
    let output = TrainingOutput {
        decoder: layers(3, 30, 1),
        interm: layers(1, 30, 2),
        denoising: Some((layout, layers(3, layout.len(), 3))),
        matched: None,
        region_features: none(),
        input_references: none(),
        unused: None,
    };
    let criterion = Criterion::new(config.clone(), &[5, 1, 9, 3, 2, 8, 0, 4, 1]);
    let key = StepKey { seed: 3, micro_step: 7 };
    let step = Step { targets, supervision, whole: WholeBatch::of(key, targets) };
    let (terms, _) = criterion.forward(&output, step).unwrap();
    terms.total.backward();
    let (_, denoising) = output.denoising.as_ref().unwrap();
    let grads = [&output.decoder, &output.interm, denoising];
    let grads = grads.into_iter().flat_map(|layers| [layers.logits.grad(), layers.boxes.grad()]);
    [terms.values, terms.total.detach()]
        .into_iter()
        .chain(grads)
        .map(|x| x.to_device(Device::Cpu))
        .collect()
}

#[test]
fn the_losses_are_those_of_the_host() {
    let Some(device) = device() else { return };
    let work =
        Workload { batch: 2, height: 32, width: 32, boxes: 4, classes: 9, warmup: 0, runs: 0 };
    let mut targets = random_batch(&work).unwrap().targets;
    targets[1].boxes.truncate(2);
    targets[1].labels.truncate(2);
    targets[0].knowledge.exhaustive = Default::default();
    for federated in [None, Some(FederatedConfig { classes: 6, power: 0.5 })] {
        for unknown_classes in [UnknownClasses::Negative, UnknownClasses::Ignore] {
            for assignment in [BoxMatching::Hungarian, BoxMatching::MaxSize] {
                let config = LossConfig {
                    federated: federated.clone(),
                    unknown_classes,
                    ..LossConfig::default()
                };
                let supervision = Supervision { assignment, ..Supervision::default() };
                let run = |device| losses(&config, &supervision, &targets, device);
                for (i, (got, expected)) in run(device).iter().zip(run(Device::Cpu)).enumerate() {
                    let apart = (got - &expected).abs().max().double_value(&[]);
                    let size = expected.abs().max().double_value(&[]);
                    assert!(size > 0.0 && apart < 2e-5 * size.max(1e-3), "{i}: {apart} of {size}");
                }
            }
        }
    }
}
