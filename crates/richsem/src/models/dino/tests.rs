//! The detector as a whole.

use tch::{Device, Kind, Tensor};

use super::{denoising::DenoisingConfig, transformer::TransformerConfig, *};
use crate::{
    boxes::Cxcywh,
    models::{
        backbone::{Norm, ResnetConfig, ResnetName, VitConfig, VitName},
        parameters::Role,
    },
    random::{Random, Stream},
    targets::{LabelKnowledge, Target},
    testing::normal,
    vocabulary::ClassIndex,
};

pub(super) fn tiny(queries: i64) -> DinoConfig {
    DinoConfig {
        backbone: ResnetConfig {
            name: ResnetName::Resnet18,
            width: 8,
            norm: Norm::FrozenBn,
            frozen_stages: -1,
            ..ResnetConfig::default()
        }
        .into(),
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
        ..DinoConfig::default()
    }
}

pub(super) fn build(config: &DinoConfig, space: ClassSpace) -> (ParameterStore, Dino) {
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
            torch_ext::no_grad(|| p.tensor.shallow_clone().copy_(&values));
        }
    }
    (store, dino)
}

fn random_images(batch: i64, h: i64, w: i64) -> Tensor {
    normal(99, &[batch, 3, h, w])
}

fn no_padding(x: &Tensor) -> Tensor {
    let size = x.size();
    Tensor::zeros([size[0], size[2], size[3]], (Kind::Bool, Device::Cpu))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

pub(super) fn target(labels: &[u32]) -> Target {
    let boxes = labels.iter().map(|&l| Cxcywh([0.3 + 0.1 * l as f32, 0.5, 0.3, 0.4])).collect();
    Target {
        image_id: 0,
        boxes,
        labels: labels.iter().map(|&l| ClassIndex(l)).collect(),
        knowledge: LabelKnowledge::default(),
        size: [64, 64],
        original_size: [64, 64],
        view: None,
        geometry: None,
    }
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    let (_store, dino) = build(&tiny(12), ClassSpace::Classes(5));
    let images = random_images(3, 64, 96);
    let together = dino.infer(&Input::new(&images, &no_padding(&images))).unwrap();
    assert_eq!(together.pred_logits.size(), [3, 12, 5]);
    assert_eq!(together.pred_boxes.size(), [3, 12, 4]);
    for i in 0..3 {
        let one = images.narrow(0, i, 1);
        let alone = dino.infer(&Input::new(&one, &no_padding(&one))).unwrap();
        assert!(difference(&together.pred_logits.narrow(0, i, 1), &alone.pred_logits) < 1e-4);
        assert!(difference(&together.pred_boxes.narrow(0, i, 1), &alone.pred_boxes) < 1e-4);
    }
}

/// Strides 7, 14, 28 and 56, of 14 pixels a patch; and 16, 32, 64 and 128, of 32.
#[test]
fn levels_of_any_patch_are_those_of_its_strides() {
    for (name, [h, w], strides) in [
        (VitName::Dinov2S, [56, 84], [7.0, 14.0, 28.0, 56.0]),
        (VitName::ClipVitB32, [64, 192], [16.0, 32.0, 64.0, 128.0]),
    ] {
        let vit = VitConfig {
            name,
            width: Some(16),
            depth: Some(1),
            heads: Some(2),
            position_grid: Some(3),
            pyramid_width: 8,
            ..VitConfig::default()
        };
        let config = DinoConfig { backbone: vit.into(), ..tiny(12) };
        assert_eq!((&*config.strides(), config.padding()), (&strides[..], Padding::Official));
        let sizes: Vec<[i64; 2]> = config.level_sizes([h, w]).collect();
        let expected = strides
            .map(|stride| [h, w].map(|side| (f64::from(side as i32) / stride).ceil() as i64));
        assert_eq!(sizes, expected);
        let (_store, dino) = build(&config, ClassSpace::Classes(5));
        let images = random_images(2, h, w);
        let (_, levels) = dino.encode((&images, &no_padding(&images)), (false, None)).unwrap();
        let found: Vec<[i64; 2]> = levels.spatial_shapes.iter().map(|&(h, w)| [h, w]).collect();
        assert_eq!(found, expected);
        assert_eq!(difference(&levels.valid_ratios, &levels.valid_ratios.ones_like()), 0.0);
        // A batch is its images, at sizes of this patch too.
        let together = dino.infer(&Input::new(&images, &no_padding(&images))).unwrap();
        let one = images.narrow(0, 1, 1);
        let alone = dino.infer(&Input::new(&one, &no_padding(&one))).unwrap();
        assert!(difference(&together.pred_boxes.narrow(0, 1, 1), &alone.pred_boxes) < 1e-4);
        let most: i64 = sizes.iter().map(|[h, w]| h * w).sum();
        let tokens = |last: i64| Tensor::from_slice(&[last]).view([1, 1]);
        assert!(config.check_tokens(&tokens(most - 1), [h, w]).is_ok());
        assert!(config.check_tokens(&tokens(most), [h, w]).is_err());
    }
}

/// From the tokens on, as in the official code: nothing sees what stands in the padding, and the encoder
/// and the selection do not see how much of it there is. The decoder's sine embedding does, which is of
/// boxes scaled by the valid ratio of level 0.
#[test]
fn official_padding_does_not_reach_encoder_and_selection() {
    let config = DinoConfig {
        padding: Some(Padding::Official),
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
            let token = normal(level as u64, &[1, h, w, 32]);
            canvas.narrow(1, 0, h).narrow(2, 0, w).copy_(&token);
            let mask = Tensor::ones([1, ph, pw], (Kind::Bool, Device::Cpu));
            let _ = mask.narrow(1, 0, h).narrow(2, 0, w).fill_(0);
            positions.push(image_positions(&mask, 32, 20.0, Kind::Float));
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
        let decoded =
            dino.transformer.decode(&memory, &levels, &chosen, None, &dino.bbox_embed).unwrap();
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
fn an_image_with_fewer_tokens_than_queries_works() {
    let (_store, dino) = build(&tiny(900), ClassSpace::Classes(5));
    let images = random_images(2, 32, 32);
    let output = dino.infer(&Input::new(&images, &no_padding(&images))).unwrap();
    // 4 × 4 + 2 × 2 + 1 + 1 tokens.
    assert_eq!(output.pred_logits.size(), [2, 22, 5]);
    assert!(output.pred_boxes.isfinite().all().int64_value(&[]) != 0);
}

#[test]
fn every_trainable_parameter_gets_a_gradient() {
    let text = TextTable::new(&normal(1, &[5, 24]));
    for space in [ClassSpace::Classes(5), ClassSpace::Text(24)] {
        let (store, dino) = build(&tiny(12), space);
        // The last level has 2 × 2 cells: a norm over one alone gives its weight no gradient.
        let images = random_images(2, 128, 128);
        let targets = [target(&[0, 3]), target(&[1])];
        let random = |image: usize| Random::new(0, Stream::Test, 1, image as u64);
        let config = DenoisingConfig { number: 4, ..DenoisingConfig::default() };
        let dn = DenoisingQueries::new(&targets, (&config, 5), 2, random, Device::Cpu, |p| p);
        let text = matches!(space, ClassSpace::Text(_)).then_some(&text);
        let output = dino
            .forward_train(&Input {
                text,
                denoising: dn.as_ref(),
                ..Input::new(&images, &no_padding(&images))
            })
            .unwrap();
        let (layout, denoising) = output.denoising.as_ref().unwrap();
        assert_eq!(layout.len(), 8);
        assert_eq!(denoising.logits.size(), [3, 2, 8, 5]);
        assert_eq!(output.decoder.boxes.size(), [3, 2, 12, 4]);
        assert_eq!(output.interm.logits.size(), [1, 2, 12, 5]);
        assert_eq!(output.region_features.size(), [3, 2, 20, 32]);
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

/// What DINO detaches: proposals start the decoder without a gradient, and a refined box passes
/// none on to the next layer's queries, only to that layer's own reported box ("look forward
/// twice").
#[test]
fn references_are_detached_where_the_method_says() {
    let box_head_moves = |objective: &dyn Fn(&TrainingOutput) -> Tensor| {
        let (store, dino) = build(&tiny(12), ClassSpace::Classes(5));
        let images = random_images(1, 64, 64);
        let output = dino.forward_train(&Input::new(&images, &no_padding(&images))).unwrap();
        objective(&output).sum(Kind::Float).backward();
        let head = |name: &str| {
            let all = store.parameters();
            let own = all.iter().filter(|p| p.name.contains(name));
            own.map(|p| p.tensor.grad())
                .any(|g| g.defined() && g.abs().max().double_value(&[]) > 0.0)
        };
        (head("bbox_embed.0."), head("enc_out_bbox_embed"))
    };
    // The last layer's queries have seen two refined boxes, all of them detached.
    assert_eq!(box_head_moves(&|o| o.region_features.get(-1)), (false, false));
    // Its input reference is the box of the layer before it, attached to the head that moved it.
    assert_eq!(box_head_moves(&|o| o.input_references.get(-1)), (true, false));
    assert_eq!(box_head_moves(&|o| o.interm.boxes.shallow_clone()), (false, true));
}

/// Masks, ratios and shapes of a padded batch, by hand: 64 × 96 pixels, the second image 40 high
/// and 50 wide.
#[test]
fn levels_of_a_padded_batch_are_those_of_its_mask() {
    for padding in [Padding::Masked, Padding::Official] {
        let config = DinoConfig { padding: Some(padding), ..tiny(12) };
        let (_store, dino) = build(&config, ClassSpace::Classes(5));
        let images = random_images(2, 64, 96);
        let mask = no_padding(&images);
        let _ = mask.get(1).narrow(0, 40, 24).fill_(1);
        let _ = mask.get(1).narrow(1, 50, 46).fill_(1);
        let (memory, levels) = dino.encode((&images, &mask), (false, None)).unwrap();
        assert_eq!(levels.spatial_shapes, [(8, 12), (4, 6), (2, 3), (1, 2)]);
        assert_eq!(memory.size(), [2, 96 + 24 + 6 + 2, 32]);
        // Masked: ⌈side / stride⌉ cells. Official: cell i of n reads mask pixel floor(i · 64 / n); rows
        // 0 to 4 of 8 read 0, 8 … 32, columns 0 to 6 of 12 read 0, 8 … 48. They differ where the padded
        // side is no multiple of the stride: 50 of 96 pixels at stride 64.
        let last = if padding == Padding::Masked { 0.5 } else { 1.0 };
        let expected =
            [[7.0 / 12.0, 5.0 / 8.0], [4.0 / 6.0, 3.0 / 4.0], [2.0 / 3.0, 1.0], [last, 1.0]];
        for (level, expected) in expected.iter().enumerate() {
            for (k, expected) in expected.iter().enumerate() {
                let at = [level as i64, k as i64];
                assert_eq!(levels.valid_ratios.double_value(&[0, at[0], at[1]]), 1.0);
                let got = levels.valid_ratios.double_value(&[1, at[0], at[1]]);
                assert!((got - expected).abs() < 1e-6, "{padding} {level} {k}: {got} {expected}");
            }
        }
        let padding = levels.padding.get(1).to_kind(Kind::Int64);
        assert_eq!(padding.narrow(0, 0, 96).sum(Kind::Int64).int64_value(&[]), 96 - 7 * 5);
        assert_eq!(padding.int64_value(&[4 * 12 + 6]), 0);
        assert_eq!(padding.int64_value(&[4 * 12 + 7]), 1);
        assert_eq!(padding.int64_value(&[5 * 12]), 1);
    }
}

#[test]
fn under_bf16_outputs_stay_f32_and_near_those_of_f32() {
    let (store, dino) = build(&tiny(12), ClassSpace::Classes(5));
    let images = random_images(1, 64, 64);
    let mask = no_padding(&images);
    let run = || dino.forward_train(&Input::new(&images, &mask)).unwrap();
    let exact = run();
    let rounded = torch_ext::autocast(Device::Cpu, Some(Kind::BFloat16), run);
    for x in [
        &rounded.decoder.logits,
        &rounded.decoder.boxes,
        &rounded.interm.logits,
        &rounded.interm.boxes,
        &rounded.input_references,
    ] {
        assert_eq!(x.kind(), Kind::Float);
    }
    // The proposals' ranks can swap, so compare what does not depend on them.
    let mean = |x: &Tensor| x.mean(Kind::Float).double_value(&[]);
    let (a, b) = (mean(&exact.decoder.logits), mean(&rounded.decoder.logits));
    assert!((a - b).abs() < 0.1 * a.abs().max(1.0), "{a} {b}");
    (rounded.decoder.logits.square().mean(Kind::Float) + rounded.decoder.boxes.mean(Kind::Float))
        .backward();
    for p in store.parameters().iter().filter(|p| p.role == Role::Trainable) {
        let grad = p.tensor.grad();
        if grad.defined() {
            assert_eq!(grad.kind(), Kind::Float, "{}", p.name);
            assert!(grad.isfinite().all().int64_value(&[]) != 0, "{}", p.name);
        }
    }
}

/// How the reference starts (`_reset_parameters` and `CLIPAlign`): Xavier for every matrix of the
/// transformer, biases as PyTorch's, the encoder's box head a copy of the decoder's.
#[test]
fn parameters_start_as_the_references() {
    let store = ParameterStore::new(Device::Cpu, 11);
    let _dino = Dino::new(&store, &tiny(12), ClassSpace::Text(24)).unwrap();
    let all = store.named_tensors();
    let most = |name: &str| all[name].abs().max().double_value(&[]);
    let xavier = |a: f64, b: f64| (6.0 / (a + b)).sqrt();
    let layer = "transformer.encoder.layers.0";
    for (name, bound) in [
        (format!("{layer}.linear1.weight"), xavier(32.0, 48.0)),
        (format!("{layer}.linear1.bias"), 1.0 / 32f64.sqrt()),
        (format!("{layer}.linear2.bias"), 1.0 / 48f64.sqrt()),
        (format!("{layer}.self_attn.value_proj.weight"), xavier(32.0, 32.0)),
        ("transformer.tgt_embed.weight".to_owned(), xavier(12.0, 32.0)),
        ("transformer.decoder.layers.0.self_attn.in_proj_weight".to_owned(), xavier(96.0, 32.0)),
    ] {
        let most = most(&name);
        assert!(most <= bound && most > 0.8 * bound, "{name}: {most} {bound}");
    }
    let std = |name: &str| all[name].std(false).double_value(&[]);
    assert!((std("transformer.level_embed") - 1.0).abs() < 0.25);
    for name in ["class_embed.dino_visual_proj.weight", "class_embed.label_proj.weight"] {
        assert!((std(name) - 24f64.powf(-0.5)).abs() < 0.03, "{name}");
    }
    assert_eq!(most(&format!("{layer}.self_attn.attention_weights.weight")), 0.0);
    for part in ["layers.0.weight", "layers.1.bias", "layers.2.weight"] {
        let copy = &all[&format!("transformer.enc_out_bbox_embed.{part}")];
        assert_eq!(copy, &all[&format!("bbox_embed.0.{part}")]);
    }
}

#[test]
fn a_text_head_refuses_a_missing_or_misshapen_table() {
    let (_store, dino) = build(&tiny(12), ClassSpace::Text(24));
    let images = random_images(1, 64, 64);
    let missing = dino.infer(&Input::new(&images, &no_padding(&images))).unwrap_err().to_string();
    assert!(missing.contains("text table"), "{missing}");
    let table = TextTable::new(&normal(2, &[5, 8]));
    let wrong = dino
        .infer(&Input { text: Some(&table), ..Input::new(&images, &no_padding(&images)) })
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("expected embeddings of width 24, got 8"), "{wrong}");
}
