//! The detector as a whole.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    boxes::Cxcywh,
    models::{
        backbone::{Norm, Trunk},
        denoising::DenoisingConfig,
        parameters::Role,
    },
    random::{Random, Stream},
    targets::{LabelKnowledge, Target},
    vocabulary::ClassIndex,
};

fn tiny(queries: i64) -> DinoConfig {
    DinoConfig {
        backbone: BackboneConfig {
            name: Trunk::Resnet18,
            width: 8,
            norm: Norm::FrozenBn,
            frozen_stages: -1,
            ..BackboneConfig::default()
        },
        return_interm_indices: vec![1, 2, 3],
        transformer: TransformerConfig {
            hidden_dim: 32,
            nheads: 4,
            enc_layers: 2,
            dec_layers: 3,
            dim_feedforward: 48,
            num_queries: queries,
            num_feature_levels: 4,
            ..TransformerConfig::default()
        },
    }
}

fn build(config: &DinoConfig, space: ClassSpace) -> (ParameterStore, Dino) {
    let store = ParameterStore::new(Device::Cpu, 11);
    let dino = Dino::new(&store, config, space).unwrap();
    // Offsets, attention weights and last box layers start at zero, which would hide what depends
    // on them: make every part matter.
    for (i, p) in store.parameters().iter().enumerate() {
        if p.role == Role::Trainable && p.tensor.abs().max().double_value(&[]) == 0.0 {
            let mut random = Random::new(1, Stream::Test, 0, i as u64);
            let values: Vec<f32> =
                (0..p.tensor.numel()).map(|_| (random.normal() * 0.1) as f32).collect();
            let values = Tensor::from_slice(&values).view_as(&p.tensor);
            tch::no_grad(|| p.tensor.shallow_clone().copy_(&values));
        }
    }
    (store, dino)
}

fn normal(shape: &[i64], item: u64) -> Tensor {
    let mut random = Random::new(2, Stream::Test, 0, item);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

fn pictures(batch: i64, h: i64, w: i64) -> Tensor {
    normal(&[batch, 3, h, w], 99)
}

fn no_padding(x: &Tensor) -> Tensor {
    let size = x.size();
    Tensor::zeros([size[0], size[2], size[3]], (Kind::Bool, Device::Cpu))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn target(labels: &[u32]) -> Target {
    let boxes = labels.iter().map(|&l| Cxcywh([0.3 + 0.1 * l as f32, 0.5, 0.3, 0.4])).collect();
    Target {
        image_id: 0,
        boxes,
        labels: labels.iter().map(|&l| ClassIndex(l)).collect(),
        knowledge: LabelKnowledge::default(),
        size: [64, 64],
        original_size: [64, 64],
    }
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    let (_store, dino) = build(&tiny(12), ClassSpace::Classes(5));
    let images = pictures(3, 64, 96);
    let together = dino.infer(&images, &no_padding(&images), None).unwrap();
    assert_eq!(together.pred_logits.size(), [3, 12, 5]);
    assert_eq!(together.pred_boxes.size(), [3, 12, 4]);
    for i in 0..3 {
        let one = images.narrow(0, i, 1);
        let alone = dino.infer(&one, &no_padding(&one), None).unwrap();
        assert!(difference(&together.pred_logits.narrow(0, i, 1), &alone.pred_logits) < 1e-4);
        assert!(difference(&together.pred_boxes.narrow(0, i, 1), &alone.pred_boxes) < 1e-4);
    }
}

/// From the tokens on, nothing sees what stands in the padding, and the encoder and the selection
/// do not see how much of it there is. (Two things do see the amount, in the reference as here: the
/// group norms before the encoder average over the whole map, and the decoder's sine embedding is
/// of boxes scaled by the valid ratio of level 0.)
#[test]
fn padding_does_not_change_an_images_outputs() {
    let config = DinoConfig {
        return_interm_indices: vec![2, 3],
        transformer: TransformerConfig { num_feature_levels: 2, ..tiny(6).transformer },
        ..tiny(6)
    };
    let (_store, dino) = build(&config, ClassSpace::Classes(5));
    let sizes = [(8, 6), (4, 3)];
    // `grow` pixels of padding to the right and below level 0, half of it on level 1.
    let run = |grow: i64, garbage: f64| {
        let mut padded = Vec::new();
        let mut positions = Vec::new();
        let mut padding = Vec::new();
        let mut ratios = Vec::new();
        let mut shapes = Vec::new();
        for (level, &(h, w)) in sizes.iter().enumerate() {
            let grow = grow >> level;
            let (ph, pw) = (h + grow, w + grow);
            let canvas = Tensor::full([1, ph, pw, 32], garbage, (Kind::Float, Device::Cpu));
            let token = normal(&[1, h, w, 32], level as u64);
            canvas.narrow(1, 0, h).narrow(2, 0, w).copy_(&token);
            let mask = Tensor::ones([1, ph, pw], (Kind::Bool, Device::Cpu));
            let _ = mask.narrow(1, 0, h).narrow(2, 0, w).fill_(0);
            positions.push(image_positions(&mask, 32, 20.0));
            ratios.push(Tensor::from_slice(&[w as f32 / pw as f32, h as f32 / ph as f32]));
            padding.push(mask.flatten(1, 2));
            padded.push(canvas);
            shapes.push((ph, pw));
        }
        let levels = Levels {
            spatial_shapes: shapes,
            padding: Tensor::cat(&padding, 1),
            valid_ratios: Tensor::stack(&ratios, 0).unsqueeze(0),
        };
        let memory = dino.transformer.encode(&padded, &positions, &levels).unwrap();
        let chosen = dino.transformer.propose(&memory, &levels, None);
        let decoded = dino
            .transformer
            .decode(&memory, &levels, &chosen.references, None, &dino.bbox_embed)
            .unwrap();
        let output = dino.heads(&decoded.hidden, &decoded.references, None);
        (chosen.logits, chosen.boxes, output.logits, output.boxes)
    };
    let bare = run(0, 0.0);
    let padded = run(4, 0.0);
    for (grow, garbage) in [(4, 0.0), (4, 1e3), (8, -7.0)] {
        let other = run(grow, garbage);
        assert!(difference(&bare.0, &other.0) < 1e-4, "{grow} {garbage}");
        assert!(difference(&bare.1, &other.1) < 1e-4, "{grow} {garbage}");
        if grow == 4 {
            assert!(difference(&padded.2, &other.2) < 1e-4, "{garbage}");
            assert!(difference(&padded.3, &other.3) < 1e-4, "{garbage}");
        }
    }
}

#[test]
fn a_picture_with_fewer_tokens_than_queries_works() {
    let (_store, dino) = build(&tiny(900), ClassSpace::Classes(5));
    let images = pictures(2, 32, 32);
    let output = dino.infer(&images, &no_padding(&images), None).unwrap();
    // 4 × 4 + 2 × 2 + 1 + 1 tokens.
    assert_eq!(output.pred_logits.size(), [2, 22, 5]);
    assert!(output.pred_boxes.isfinite().all().int64_value(&[]) != 0);
}

#[test]
fn every_trainable_parameter_gets_a_gradient() {
    let text = TextTable::new(&Tensor::randn([5, 24], (Kind::Float, Device::Cpu)));
    for space in [ClassSpace::Classes(5), ClassSpace::Text(24)] {
        let (store, dino) = build(&tiny(12), space);
        let images = pictures(2, 64, 64);
        let targets = [target(&[0, 3]), target(&[1])];
        let mut random = Random::new(0, Stream::Test, 1, 0);
        let config = DenoisingConfig { number: 4, ..DenoisingConfig::default() };
        let dn = DenoisingQueries::new(&targets, &config, 5, &mut random, Device::Cpu);
        let text = matches!(space, ClassSpace::Text(_)).then_some(&text);
        let output = dino.forward_train(&images, &no_padding(&images), text, dn.as_ref()).unwrap();
        let (layout, denoising) = output.denoising.as_ref().unwrap();
        assert_eq!(layout.len(), 8);
        assert_eq!(denoising.logits.size(), [3, 2, 8, 5]);
        assert_eq!(output.decoder.boxes.size(), [3, 2, 12, 4]);
        assert_eq!(output.interm.logits.size(), [1, 2, 12, 5]);
        assert_eq!(output.region_features.size(), [2, 20, 32]);
        let objective = |o: &LayerOutputs| {
            o.logits.square().sum(Kind::Float) + (&o.boxes * 3.0).sin().sum(Kind::Float)
        };
        (objective(&output.decoder) + objective(denoising) + objective(&output.interm)).backward();
        for p in store.parameters().iter().filter(|p| p.role == Role::Trainable) {
            let grad = p.tensor.grad();
            assert!(grad.defined(), "{}", p.name);
            let total = grad.abs().sum(Kind::Float).double_value(&[]);
            assert!(total.is_finite() && total > 0.0, "{}: {total}", p.name);
        }
    }
}

/// What DINO detaches: proposals start the decoder without a gradient, and refinement passes none
/// to the layer before except through its own reported box ("look forward twice").
#[test]
fn references_are_detached_where_the_method_says() {
    let (_store, dino) = build(&tiny(12), ClassSpace::Classes(5));
    let images = pictures(1, 64, 64).set_requires_grad(true);
    let output = dino.forward_train(&images, &no_padding(&images), None, None).unwrap();
    assert!(output.denoising.is_none());
    // The last layer's input reference comes from the layer before, attached.
    assert!(output.input_references.requires_grad());
    let (memory, levels) = dino.encode(&images, &no_padding(&images), true).unwrap();
    let proposals = dino.transformer.propose(&memory, &levels, None);
    assert!(!proposals.references.requires_grad());
    assert!(proposals.boxes.requires_grad());
}

#[test]
fn a_text_head_refuses_a_missing_or_misshapen_table() {
    let (_store, dino) = build(&tiny(12), ClassSpace::Text(24));
    let images = pictures(1, 64, 64);
    let missing = dino.infer(&images, &no_padding(&images), None).unwrap_err().to_string();
    assert!(missing.contains("text table"), "{missing}");
    let table = TextTable::new(&Tensor::randn([5, 8], (Kind::Float, Device::Cpu)));
    let wrong = dino.infer(&images, &no_padding(&images), Some(&table)).unwrap_err().to_string();
    assert!(wrong.contains("expected embeddings of width 24, got 8"), "{wrong}");
}
