//! The model's parts, each fed with what the official one was fed with.

use richsem::models::{
    backbone::Backbone,
    class_head::{ClassHead, ClassSpace, LabelEncoder},
    dino::transformer::{DeformableTransformer, ExtraQueries, Proposals, attention::Levels},
    layers::Mlp,
    padding::Padding,
    parameters::ParameterStore,
    position_encoding::{box_positions, image_positions},
    projection::ProjectionKind,
};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// Phases go up to 2π: in f32 they are 3e-7 off when their sine is taken.
#[test]
fn position_encodings() {
    let golden = tensors("positions");
    for (kind, tolerance) in [(Kind::Double, 1e-14), (Kind::Float, 2e-6)] {
        let pixels = image_positions(&golden["mask"], 32, 20.0, kind).permute([0, 3, 1, 2]);
        close("pixels", &pixels, &golden["pixels"], tolerance);
        let boxes = box_positions(&golden["boxes"].to_kind(kind), 32);
        close("boxes", &boxes, &golden["encoded_boxes"], tolerance);
    }
}

/// C3 to C5 of a ResNet of bottlenecks whose frozen norms do something.
#[test]
fn backbone_with_frozen_norms() {
    let golden = tensors("text");
    let prefix = "backbone.0.";
    let weights = tensors("text_weights")
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value)))
        .collect();
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    let backbone = Backbone::new(&store.root(), &config().backbone, &[1, 2, 3]);
    store.load(&weights, &file("text_weights")).unwrap();
    for train in [false, true] {
        let maps = backbone.forward(&golden["images"], None, (train, None)).unwrap();
        for (map, level) in maps.iter().zip(1..) {
            close(&format!("C{}", level + 2), map, &golden[&format!("backbone.{level}")], 1e-5);
        }
    }
}

/// A transformer alone, with as many encoder layers as asked for.
struct Transformer {
    transformer: DeformableTransformer,
    bbox_embed: Mlp,
    kept: Model,
}

fn transformer(enc_layers: i64) -> Transformer {
    let kept = Model::new("text", Kind::Double);
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    let scope = store.root().sub("transformer");
    let mut sizes = config().transformer;
    sizes.enc_layers = enc_layers;
    let space = ClassSpace::Text(24);
    let head = ClassHead::new(&scope.sub("enc_out_class_embed"), 32, space, ProjectionKind::Linear);
    let transformer = DeformableTransformer::new(&scope, &sizes, head, Padding::Official);
    let bbox_embed = Mlp::box_head(&store.root().sub("bbox_embed").sub(0), 32);
    let mut weights = tensors("text_weights");
    let names: Vec<String> = store.parameters().into_iter().map(|p| p.name).collect();
    weights.retain(|name, _| names.contains(name));
    store.load(&weights, &file("text_weights")).unwrap();
    in_double(&store);
    Transformer { transformer, bbox_embed, kept }
}

fn levels(golden: &Tensors) -> Levels {
    let masks: Vec<&Tensor> = (0..4).map(|l| &golden[&format!("level.{l}.mask")]).collect();
    let shape = |mask: &&Tensor| (mask.size()[1], mask.size()[2]);
    Levels {
        spatial_shapes: masks.iter().map(shape).collect(),
        padding: Tensor::cat(&masks.iter().map(|m| m.flatten(1, 2)).collect::<Vec<_>>(), 1),
        valid_ratios: golden["valid_ratios"].shallow_clone(),
    }
}

#[test]
fn each_encoder_layer() {
    let golden = tensors("text");
    let maps = |name: &str| -> Vec<Tensor> {
        (0..4)
            .map(|l| golden[&format!("level.{l}.{name}")].permute([0, 2, 3, 1]))
            .map(|map| map.to_kind(Kind::Double))
            .collect()
    };
    for layers in [1, 2] {
        let Transformer { transformer, .. } = transformer(layers);
        let memory =
            transformer.encode(&maps("tokens"), &maps("positions"), &levels(&golden)).unwrap();
        // The fixture holds its input and output in f32.
        close("memory", &memory, &golden[&format!("encoder.{}", layers - 1)], 1e-6);
    }
}

/// Selection as a set: every token whose best score is above that of the last one chosen by more
/// than a margin is chosen, and none that is below by as much.
///
/// Where the official code is at fault: it lets tokens that may not propose (padding, too near the
/// edge) compete with a constant score. Ours rank last; the fixture's scores of the others decide.
#[test]
fn two_stage_selection() {
    let golden = tensors("text");
    let Transformer { transformer, kept, .. } = transformer(2);
    let memory = golden["memory"].to_kind(Kind::Double);
    let levels = levels(&golden);
    let found = transformer.propose(&memory, &levels, kept.text.as_ref());
    let (queries, margin) = (12usize, 1e-4);
    for image in 0..2 {
        let row = |x: &Tensor| Vec::<f64>::try_from(x.get(image).to_kind(Kind::Double)).unwrap();
        let scores = row(&golden["scores"]);
        let padding = row(&levels.padding.to_kind(Kind::Int64));
        // At this size every other token lies inside (0.01, 0.99).
        let may = |s: usize| padding[s] == 0.0;
        let mut ranked: Vec<f64> =
            (0..scores.len()).filter(|&s| may(s)).map(|s| scores[s]).collect();
        ranked.sort_by(|a, b| b.total_cmp(a));
        let last = ranked[queries - 1];
        let tokens = row(&found.tokens);
        assert_eq!(tokens.len(), queries);
        for (s, &score) in scores.iter().enumerate().filter(|&(s, _)| may(s)) {
            let chosen = tokens.contains(&(s as f64));
            assert!(chosen || score < last + margin, "image {image}: token {s} was left out");
            assert!(!chosen || score > last - margin, "image {image}: token {s} is too much");
        }
        assert!(tokens.iter().all(|&s| may(s as usize)), "image {image}: padding proposes");
    }
}

/// Content, boxes and logits of the proposals at the official tokens, and the decoder from there on:
/// what each layer leaves, and the references that went into it.
#[test]
fn proposals_and_each_decoder_layer() {
    let (golden, facts) = (tensors("text"), json::<Facts>("text"));
    let Transformer { transformer, bbox_embed, .. } = transformer(2);
    let memory = golden["memory"].to_kind(Kind::Double);
    let noised = facts.denoising(&golden, "", Kind::Double);
    let extra = ExtraQueries {
        content: golden["noised.content"].to_kind(Kind::Double),
        references: noised.references,
        may_attend: golden["noised.hidden"].logical_not(),
    };
    let references = golden["interm.boxes"].logit(None::<f64>);
    let proposals = Proposals {
        tokens: golden["tokens"].shallow_clone(),
        logits: golden["interm.logits"].shallow_clone(),
        boxes: golden["interm.boxes"].shallow_clone(),
        references,
        unused: None,
    };
    let decoded = transformer
        .decode(&memory, &levels(&golden), &proposals, Some(&extra), &bbox_embed)
        .unwrap();
    close("hidden", &decoded.hidden, &golden["hidden"], 2e-6);
    close("references", &decoded.references, &golden["references"], 2e-6);
}

/// Cosines against text, with the scale; and embeddings of labels, of un-normalised text rows.
#[test]
fn class_head_and_label_encoder_against_text() {
    let (golden, model) = (tensors("text"), Model::new("text", Kind::Double));
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    let (scope, space) = (store.root().sub("class_embed"), ClassSpace::Text(24));
    let head = ClassHead::new(&scope, 32, space, ProjectionKind::Linear);
    let labels = LabelEncoder::new(&scope, 32, space);
    let mut weights = tensors("text_weights");
    weights.retain(|name, _| name.starts_with("class_embed."));
    store.load(&weights, &file("text_weights")).unwrap();
    in_double(&store);
    let noised = golden["noised.labels"].size()[1];
    let logits = head.forward(&golden["hidden"], model.text.as_ref());
    let (first, last) = (logits.narrow(2, 0, noised), logits.narrow(2, noised, 12));
    close("logits", &last, &golden["logits"], 1e-12);
    close("denoising logits", &first, &golden["noised.logits"], 1e-12);
    let embedded = labels.forward(&golden["noised.labels"], &head, model.text.as_ref());
    let embedded = embedded * golden["noised.used"].unsqueeze(-1);
    close("labels", &embedded, &golden["noised.content"], 1e-7);
}

/// With a linear head, labels are embedded by its own rows.
#[test]
fn linear_class_head_and_its_tied_label_encoder() {
    let golden = tensors("linear");
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    let (scope, space) = (store.root().sub("class_embed").sub(0), ClassSpace::Classes(CLASSES));
    let head = ClassHead::new(&scope, 32, space, ProjectionKind::Linear);
    let labels = LabelEncoder::new(&scope, 32, space);
    let mut weights = tensors("linear_weights");
    weights.retain(|name, _| name.starts_with("class_embed."));
    store.load(&weights, &file("linear_weights")).unwrap();
    in_double(&store);
    let logits = head.forward(&golden["hidden"], None);
    let noised = golden["noised.labels"].size()[1];
    close("logits", &logits.narrow(2, noised, 12), &golden["logits"], 1e-12);
    let embedded = labels.forward(&golden["noised.labels"], &head, None);
    let embedded = embedded * golden["noised.used"].unsqueeze(-1);
    close("labels", &embedded, &golden["noised.content"], 1e-7);
}
