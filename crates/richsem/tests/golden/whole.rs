//! The small detector as a whole, from pixels to logits and boxes of every layer.

use richsem::models::dino::{Input, LayerOutputs};
use tch::Kind;

use crate::support::*;

/// The same proposals; in f64 (what differs is the last digit of fixtures in f32) and in f32.
#[test]
fn outputs_of_every_layer() {
    for name in ["text", "linear"] {
        let (golden, facts) = (tensors(name), json::<Facts>(name));
        for (kind, tolerance) in [(Kind::Double, 1e-9), (Kind::Float, 5e-4)] {
            let model = Model::new(name, kind);
            let output = model.forward(&golden, &facts, "");
            let check = |what: &str, ours: &LayerOutputs, prefix: &str| {
                let official =
                    |part: &str| golden[&format!("{prefix}{part}")].view_as(&ours.logits);
                close(
                    &format!("{name} {what} logits"),
                    &ours.logits,
                    &official("logits"),
                    tolerance,
                );
                let boxes = golden[&format!("{prefix}boxes")].view_as(&ours.boxes);
                close(&format!("{name} {what} boxes"), &ours.boxes, &boxes, tolerance);
            };
            check("decoder", &output.decoder, "");
            check("proposals", &output.interm, "interm.");
            check("denoising", &output.denoising.as_ref().unwrap().1, "noised.");
            close("queries", &output.region_features, &golden["hidden"], tolerance);
            close("references", &output.input_references, &golden["references"], tolerance);
        }
    }
}

/// Inference at the official tokens gives the last layer of training: without denoising queries, which
/// the matching ones do not see.
#[test]
fn inference_is_the_last_layer() {
    let golden = tensors("text");
    let model = Model::new("text", Kind::Double);
    let images = golden["images"].to_kind(Kind::Double);
    let (mask, tokens) = (&golden["mask"], &golden["tokens"]);
    let input =
        Input { text: model.text.as_ref(), tokens: Some(tokens), ..Input::new(&images, mask) };
    let output = model.dino.infer(&input).unwrap();
    close("logits", &output.pred_logits, &golden["logits"].get(1), 1e-9);
    close("boxes", &output.pred_boxes, &golden["boxes"].get(1), 1e-9);
}
