//! Recorded passes give what passes that are not recorded give. Skipped, with a line that says so,
//! where there is no CUDA device.
#![allow(clippy::unwrap_used)]

use richsem::{
    bench::{Workload, random_batch, vocabulary},
    collective::Single,
    config::Config,
    losses::criterion::StepKey,
    train::{Learner, Trace},
};
use tch::{Device, Tensor};
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
lr = 1e-3
lr_backbone = 1e-3
"#;

/// Losses of some steps, and detections after them: pictures of two sizes and any number of boxes.
fn run(graphs: bool, device: Device) -> (Vec<f64>, Vec<Tensor>) {
    let text = format!("{CONFIG}cuda_graphs = {graphs}\n");
    let config = Config::parse(&text, "test.toml".as_ref()).unwrap();
    let mut learner = Learner::new(&config, vocabulary(7), device, Box::new(Single)).unwrap();
    let batch = |i: usize| {
        let (height, boxes) = if i % 2 == 0 { (96, 3 + i) } else { (128, 1 + i % 5) };
        let work = Workload { batch: 2, height, width: 128, boxes, classes: 7, warmup: 0, runs: 0 };
        random_batch(&work).unwrap()
    };
    let losses = (0..12)
        .map(|i| {
            let key = StepKey { seed: 5, step: i as u64 };
            let loss = learner.backward(&batch(i), key, &mut Trace::default()).unwrap().loss;
            learner.update(1.0).unwrap();
            loss
        })
        .collect();
    let detector = &learner.model.detector;
    let found = (0..4).map(|_| detector.infer(&batch(0)).unwrap().pred_logits).collect();
    (losses, found)
}

#[test]
fn recorded_steps_are_the_same_steps() {
    let Some(device) = device() else { return };
    let (plain, plain_found) = run(false, device);
    let (recorded, recorded_found) = run(true, device);
    for (step, (a, b)) in plain.iter().zip(&recorded).enumerate() {
        // Gradients are added up in no fixed order, and a step carries that on to the next.
        assert!((a - b).abs() < 2e-3 * a.abs(), "step {step}: {a} {b}");
    }
    assert!(plain[11] < plain[1], "{plain:?}");
    for found in &recorded_found {
        let apart = (found - &plain_found[0]).abs().max().double_value(&[]);
        assert!(apart < 0.05, "{apart}");
    }
    let apart = (&recorded_found[3] - &recorded_found[0]).abs().max().double_value(&[]);
    assert!(apart < 1e-4, "{apart}");
    println!("compared: {plain:?} {recorded:?}");
}
