//! The whole model at full size against the official code, on images: `make parity`, which writes
//! the folder that `RICHSEM_PARITY` names (`reference/whole_model.py`), converts the official
//! checkpoints, and runs `richsem predict --tensor` on the official, normalised batch.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::PathBuf};

use richsem::{
    checkpoint_io::safetensors,
    data::{
        image_io::{self, Orientation},
        transforms::{EvalTransformConfig, size_after_resize},
    },
    detector::Detector,
    models::{
        class_head::TextTable,
        dino::{InferenceOutput, Input, postprocess::postprocess},
        network::Network,
        scored_box::ScoredBox,
    },
    normalization::Normalization,
};
use tch::{Device, Kind, Tensor};

/// Of logits and of boxes, relative to the image: largest difference of f32 on the CPU.
const TOLERANCE: f64 = 2e-3;

fn folder() -> PathBuf {
    std::env::var_os("RICHSEM_PARITY").expect("RICHSEM_PARITY: see `make parity`").into()
}

fn read(name: &str) -> BTreeMap<String, Tensor> {
    safetensors::read(&folder().join(format!("{name}.safetensors"))).unwrap().0
}

/// The official class 0, "none", is none of ours.
fn classes(tensors: &BTreeMap<String, Tensor>) -> InferenceOutput {
    let logits = &tensors["pred_logits"];
    InferenceOutput {
        pred_logits: logits.narrow(2, 1, logits.size()[2] - 1),
        pred_boxes: tensors["pred_boxes"].shallow_clone(),
    }
}

fn ours(name: &str) -> InferenceOutput {
    let mut tensors = read(name);
    InferenceOutput {
        pred_logits: tensors.remove("pred_logits").unwrap(),
        pred_boxes: tensors.remove("pred_boxes").unwrap(),
    }
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// At the official proposals, every logit and every box of all 900 queries.
#[test]
#[ignore = "needs the official code: make parity"]
fn logits_and_boxes_at_the_official_proposals() {
    for name in ["richsem", "dino"] {
        let expected = classes(&read(&format!("{name}.out")));
        let got = ours(&format!("{name}.raw"));
        let logits = apart(&got.pred_logits, &expected.pred_logits);
        let boxes = apart(&got.pred_boxes, &expected.pred_boxes);
        let largest = expected.pred_logits.abs().max().double_value(&[]);
        println!(
            "{name}: {:?} logits (to {largest:.1}) differ by {logits:.1e}, boxes by {boxes:.1e}",
            got.pred_logits.size()
        );
        assert!(logits <= TOLERANCE && boxes <= TOLERANCE, "{name}");
    }
}

fn best(output: &InferenceOutput, count: i64) -> Vec<Vec<ScoredBox>> {
    let sizes = vec![[1, 1]; output.pred_logits.size()[0] as usize];
    let [pred_logits, pred_boxes] =
        [&output.pred_logits, &output.pred_boxes].map(|x| x.to_kind(Kind::Float));
    postprocess(&pred_logits, &pred_boxes, &sizes, count).unwrap()
}

fn logit(score: f32) -> f64 {
    let p = f64::from(score);
    (p / (1.0 - p)).ln()
}

/// With our own selection: the official best 100 of every image are found, class, logit and box
/// within the tolerance; those at the tail may be beyond our hundredth. Where two proposals' scores
/// are equal but for the last digits, they swap ranks, and with them their content queries: such
/// pairs are printed, and may not be many.
#[test]
#[ignore = "needs the official code: make parity"]
fn the_same_best_hundred_with_our_own_proposals() {
    for name in ["richsem", "dino"] {
        let (official, free) =
            (classes(&read(&format!("{name}.out"))), ours(&format!("{name}.free.raw")));
        let moved = (&official.pred_logits - &free.pred_logits).abs().amax([-1i64], false);
        let moved = moved.gt(TOLERANCE).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        let moved = Vec::<i64>::try_from(moved).unwrap();
        let (expected, got) = (best(&official, 100), best(&free, 120));
        for (image, (expected, got)) in expected.iter().zip(&got).enumerate() {
            let same = |a: &ScoredBox, b: &ScoredBox| {
                let moved = a.bbox.0.iter().zip(b.bbox.0).map(|(a, b)| f64::from((a - b).abs()));
                let moved = moved.fold(0.0, f64::max);
                a.class == b.class
                    && moved <= TOLERANCE
                    && (logit(a.score) - logit(b.score)).abs() <= TOLERANCE
            };
            let missing = expected.iter().filter(|a| !got.iter().any(|b| same(a, b))).count();
            println!(
                "{name}, image {image}: {} of 900 queries swapped ranks; {missing} of the official \
                 best 100 are not ours",
                moved[image]
            );
            assert!(moved[image] <= 10, "{name}, image {image}");
            assert!(missing <= moved[image] as usize, "{name}, image {image}");
        }
    }
}

/// In f64, where nothing swaps: with our own selection the same hundred detections of every image,
/// and the same proposals.
#[test]
#[ignore = "needs the official code: make parity"]
fn the_same_best_hundred_in_f64() {
    for name in ["richsem", "dino"] {
        let official = read(&format!("{name}.f64"));
        let detector =
            Detector::load(&folder().join(format!("{name}.safetensors")), Device::Cpu).unwrap();
        for parameter in detector.parameters() {
            let mut tensor = parameter.tensor;
            let double = tensor.to_kind(Kind::Double);
            tensor.set_data(&double);
        }
        // The file keeps its text table in f32.
        let text =
            official.get("text").map(|rows| TextTable::new(&rows.narrow(0, 1, rows.size()[0] - 1)));
        let input = read(&format!("{name}.free.in"));
        let images = input["images"].to_kind(Kind::Double);
        let run = |tokens: Option<&Tensor>| {
            let input =
                Input { text: text.as_ref(), tokens, ..Input::new(&images, &input["mask"]) };
            let Network::Dino(dino) = detector.network() else { unreachable!() };
            dino.infer(&input).unwrap()
        };
        let (expected, got) = (classes(&official), run(None));
        let logits = apart(&got.pred_logits, &expected.pred_logits);
        let boxes = apart(&got.pred_boxes, &expected.pred_boxes);
        println!(
            "{name}, f64, our own proposals: logits differ by {logits:.1e}, boxes by {boxes:.1e}"
        );
        assert!(logits <= TOLERANCE && boxes <= TOLERANCE, "{name}");
        for (image, (expected, got)) in best(&expected, 100).iter().zip(best(&got, 100)).enumerate()
        {
            for (rank, (a, b)) in expected.iter().zip(got).enumerate() {
                assert_eq!(a.class, b.class, "{name}, image {image}, detection {rank}");
            }
        }
    }
}

/// Decoding, resizing and normalising against Pillow's and torchvision's, in steps of a byte.
#[test]
#[ignore = "needs the official code: make parity"]
fn images_are_decoded_and_resized_alike() {
    let expected = read("resized");
    let EvalTransformConfig { size, max_size, .. } = EvalTransformConfig::default();
    let (mean, std) = Normalization::IMAGENET.tensors(Device::Cpu);
    for path in std::env::var("RICHSEM_PHOTOS").unwrap().split_whitespace() {
        let name = path.rsplit('/').next().unwrap();
        let image = image_io::decode(path.as_ref(), Orientation::Stored).unwrap().image;
        let (w, h) = size_after_resize(image.width(), image.height(), size, max_size);
        let resized = richsem::data::transforms::resize(&image, w, h);
        let ours = Tensor::from_slice(resized.as_raw())
            .view([i64::from(h), i64::from(w), 3])
            .permute([2, 0, 1]);
        let theirs = (&expected[name].unsqueeze(0) * &std + &mean).squeeze_dim(0) * 255.0;
        let steps = (theirs - ours.to_kind(Kind::Float)).abs();
        let (most, average) =
            (steps.max().double_value(&[]), steps.mean(Kind::Float).double_value(&[]));
        println!("{name}: {w} × {h}, at most {most:.2} steps apart, {average:.4} on average");
        assert!(most < 4.5 && average < 0.25, "{name}");
    }
}
