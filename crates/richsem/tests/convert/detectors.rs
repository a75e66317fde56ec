//! Checkpoints of RichSem, DINO and Deformable DETR as detectors, and back.

use std::path::PathBuf;

use richsem::{
    checkpoint_io::{fit::Patterns, pth, safetensors},
    convert::{Form, Options},
    detector::Detector,
    models::{
        backbone::{BackboneConfig, ConvnextConfig, FocalnetConfig, FocalnetName, SwinConfig},
        class_head::ClassSpace,
        dino::{Dino, DinoConfig},
        padding::Padding,
        parameters::ParameterStore,
    },
    teacher::{
        clip::{Hints, PromptSet, from_weights},
        encode_prompts,
    },
    testing::normal,
};
use tch::{Device, Tensor};

use crate::support::*;

/// Converts without a problem: the detector and what is left over, written.
fn written(folder: &Folder, checkpoint: &Tensors, ids: &[i64]) -> (PathBuf, PathBuf) {
    let path = folder.pth(checkpoint);
    let conversion = converted(&path, Form::Safetensors, &options(Some(ids))).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let (ours, rest) = (folder.path("ours.safetensors"), folder.path("rest.safetensors"));
    conversion.write(&ours).unwrap();
    conversion.write_rest(&rest).unwrap();
    (ours, rest)
}

/// DINO's and RichSem's detectors with other backbones: the sizes are those of the tensors.
#[test]
fn a_checkpoint_with_another_backbone_becomes_a_detector() {
    let folder = Folder::new();
    let (width, layers) = (Some(8), vec![1, 2, 1, 1]);
    let swin = SwinConfig {
        width,
        head_width: 4,
        window: Some(3),
        layers: layers.clone(),
        ..SwinConfig::default()
    };
    let focalnet = FocalnetConfig {
        name: FocalnetName::FocalnetL,
        width,
        layers: layers.clone(),
        ..FocalnetConfig::default()
    };
    let convnext = ConvnextConfig { width, layers, ..ConvnextConfig::default() };
    for backbone in [BackboneConfig::from(swin), focalnet.into(), convnext.into()] {
        let expected = DinoConfig {
            backbone: backbone.clone(),
            padding: Some(Padding::Official),
            ..settings().model.as_dino().unwrap().clone()
        };
        let mut checkpoint = official_of(&expected, ClassSpace::Classes(4));
        if let BackboneConfig::Swin(_) = backbone {
            let index = "backbone.0.layers.0.blocks.0.attn.relative_position_index";
            checkpoint.insert(index.into(), Tensor::from_slice(&[4i64, 3]));
        }
        let path = folder.pth(&checkpoint);
        let conversion =
            converted(&path, Form::Safetensors, &options(Some(&[0, 1, 2, 3]))).unwrap();
        assert_eq!(problems(&conversion), [""; 0], "{}", backbone.describe());
        let ours = folder.path("ours.safetensors");
        conversion.write(&ours).unwrap();
        let detector = Detector::load(&ours, Device::Cpu).unwrap();
        assert_eq!(detector.config().model.as_dino(), Some(&expected));
        for (path, tensor) in detector.weights() {
            assert_eq!(checkpoint[&path], tensor, "{path}");
        }
    }
}

#[test]
fn a_richsem_checkpoint_becomes_a_slim_detector_and_comes_back_whole() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Text(DIM));
    let ids = [1, 2, 3, 5, 7];
    let (ours, rest) = written(&folder, &checkpoint, &ids);

    // All sizes but the attention heads came from shapes; padding stays what it was for its weights.
    let detector = Detector::load(&ours, Device::Cpu).unwrap();
    let expected = DinoConfig {
        padding: Some(Padding::Official),
        ..settings().model.as_dino().unwrap().clone()
    };
    assert_eq!(detector.config().model.as_dino(), Some(&expected));
    assert_eq!(*detector.vocabulary(), vocabulary(&ids));
    for (path, tensor) in detector.weights() {
        assert_eq!(checkpoint[&path], tensor, "{path}");
    }
    // Another program may write it with a prefix before every name.
    let (tensors, metadata) = safetensors::read(&ours).unwrap();
    for prefix in ["model.", "_orig_mod.module.", "a.b.module.", "module.model."] {
        let named = tensors.iter().map(|(name, x)| (format!("{prefix}{name}"), x.shallow_clone()));
        let path = folder.path("prefixed.safetensors");
        safetensors::write(&path, &named.collect(), &metadata).unwrap();
        let found = Detector::load(&path, Device::Cpu).unwrap();
        assert!(found.weights() == detector.weights(), "{prefix}");
        assert_eq!(found.classes().text().unwrap().rows, detector.classes().text().unwrap().rows);
    }
    // The table is that of the checkpoint's own CLIP: 81 prompts a class.
    let store = small_clip();
    let weights = store.named_tensors();
    let (_, _, clip) =
        from_weights(&weights, &Hints::default(), "clip".as_ref(), Device::Cpu).unwrap();
    let names: Vec<String> = ids.iter().map(|id| format!("thing {id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let templates = PromptSet::Reference.templates(&[]);
    let table =
        encode_prompts(clip.text.as_ref().unwrap(), Device::Cpu, &templates, &names).unwrap();
    // Computed twice, from weights that lie elsewhere in memory: not to the last bit on every processor.
    let same = |rows: &Tensor| {
        let apart = (rows - &table).abs().max().double_value(&[]);
        assert!(apart < 1e-6, "{apart}");
    };
    same(&detector.classes().text().unwrap().rows);
    // Slim: nothing of CLIP or the branch is in it.
    let (slim, _) = safetensors::read(&ours).unwrap();
    assert!(slim.keys().all(|key| !key.contains("clip")), "{:?}", slim.keys());
    assert_eq!(slim.len(), detector.weights().len() + 1);

    // Back, with what was left over: every key and every value.
    let mut back = options(None);
    back.rest = Some(rest);
    let conversion = converted(&ours, Form::Pth, &back).unwrap();
    conversion.write(&folder.path("back.pth")).unwrap();
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &checkpoint);

    // Back with a CLIP from elsewhere: only the semantic branch and the counter are missing.
    let clip = folder.path("clip.safetensors");
    safetensors::write(&clip, &weights, &safetensors::Metadata::new()).unwrap();
    let with_clip = Options { clip: Some(clip.clone()), ..options(None) };
    let conversion = converted(&ours, Form::Pth, &with_clip).unwrap();
    conversion.write(&folder.path("back.pth")).unwrap();
    let mut expected = checkpoint;
    expected.retain(|key, _| !key.contains("clip_visual_proj") && !key.ends_with("_tracked"));
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &expected);

    // The slim checkpoint has no CLIP of its own: one must be given, or a table.
    expected.retain(|key, _| !key.contains(".clip."));
    let path = folder.pth(&expected);
    let error = converted(&path, Form::Safetensors, &options(Some(&ids))).unwrap_err();
    assert!(error.to_string().contains("`clip`"), "{error}");
    let with_clip = Options { clip: Some(clip), ..options(Some(&ids)) };
    let conversion = converted(&path, Form::Safetensors, &with_clip).unwrap();
    conversion.write(&ours).unwrap();
    same(&Detector::load(&ours, Device::Cpu).unwrap().classes().text().unwrap().rows);
}

#[test]
fn rows_of_linear_heads_are_category_ids() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Classes(8));
    let ids = [1, 2, 4, 7];
    let (ours, rest) = written(&folder, &checkpoint, &ids);
    let detector = Detector::load(&ours, Device::Cpu).unwrap();
    let values = detector.weights();
    for (row, &id) in ids.iter().enumerate() {
        for name in ["class_embed.0.weight", "transformer.enc_out_class_embed.bias"] {
            assert_eq!(values[name].get(row as i64), checkpoint[name].get(id), "{name} {id}");
        }
    }

    let with_rest = Options { rest: Some(rest), ..options(None) };
    converted(&ours, Form::Pth, &with_rest).unwrap().write(&folder.path("back.pth")).unwrap();
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &checkpoint);

    // Without it, ids that are no class are never found, and labels are embedded as we do it.
    let alone = converted(&ours, Form::Pth, &options(None)).unwrap();
    alone.write(&folder.path("back.pth")).unwrap();
    let back = pth::read(&folder.path("back.pth")).unwrap();
    assert_eq!(back.keys().collect::<Vec<_>>(), checkpoint.keys().collect::<Vec<_>>());
    let (weight, bias) = (&back["class_embed.2.weight"], &back["class_embed.2.bias"]);
    assert_eq!(weight.get(4), checkpoint["class_embed.0.weight"].get(4));
    for id in [0, 3, 5, 6] {
        assert_eq!(weight.get(id).abs().max().double_value(&[]), 0.0);
        assert!((bias.get(id).sigmoid().double_value(&[]) - 0.01).abs() < 1e-6);
    }
    assert_eq!(back["label_enc.weight"].size(), [9, 32]);
    assert_eq!(back["label_enc.weight"].narrow(0, 0, 8), *weight);

    // One row a class is in order; anything else is told.
    let path = folder.path("official.pth");
    let in_order =
        converted(&path, Form::Safetensors, &options(Some(&[11, 12, 13, 14, 15, 16, 17, 18])));
    assert_eq!(problems(&in_order.unwrap()), [""; 0]);
    let error = converted(&path, Form::Safetensors, &options(Some(&[1, 9]))).unwrap_err();
    assert!(error.to_string().contains("8 rows, of 2 classes with ids up to 9"), "{error}");
    let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
    assert!(error.contains("`annotations`") && error.contains("no names"), "{error}");
}

/// What it lacks starts anew, and what has no place here is named.
#[test]
fn deformable_detr_gives_what_it_has() {
    let folder = Folder::new();
    let store = ParameterStore::new(Device::Cpu, 8);
    Dino::new(&store, settings().model.as_dino().unwrap(), ClassSpace::Classes(8)).unwrap();
    let mut checkpoint = Tensors::new();
    for (path, tensor) in store.named_tensors() {
        // Three layers' heads, the encoder's after them.
        let name = match path.split_once("_embed.") {
            Some(("bbox" | "class", rest)) => path.replace(rest, &rest.replacen('0', "2", 1)),
            Some(("transformer.enc_out_bbox" | "transformer.enc_out_class", rest)) => {
                let head = path["transformer.enc_out_".len()..].split('.').next().unwrap();
                format!("{head}.3.{rest}")
            }
            _ => path,
        };
        checkpoint.insert(name, tensor);
    }
    let new = [
        "transformer.tgt_embed.",
        "transformer.decoder.norm.",
        "transformer.decoder.ref_point_head.",
    ];
    checkpoint.retain(|key, _| !new.iter().any(|prefix| key.starts_with(prefix)));
    for key in
        ["bbox_embed.0.layers.0.weight", "bbox_embed.1.layers.0.weight", "class_embed.0.bias"]
    {
        checkpoint.insert(key.into(), normal(2, &[3]));
    }
    checkpoint.insert("transformer.pos_trans.weight".into(), normal(3, &[4]));
    let path = folder.pth(&checkpoint);
    let strict = converted(&path, Form::Safetensors, &options(Some(&[1, 2]))).unwrap();
    let told = problems(&strict);
    assert!(
        !told.is_empty() && told.iter().all(|t| t.ends_with(": does not fit: missing")),
        "{told:?}"
    );
    let patterns: Vec<String> = new.iter().map(|prefix| format!("{prefix}*")).collect();
    let allow = Patterns::new(&patterns, "init.allow_missing").unwrap();
    let allowing = Options { allow, ..options(Some(&[1, 2])) };
    let conversion = converted(&path, Form::Safetensors, &allowing).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let output = folder.path("ours.safetensors");
    conversion.write(&output).unwrap();
    let detector = Detector::load(&output, Device::Cpu).unwrap();
    assert_eq!(detector.config().model.as_dino().unwrap().transformer.pe_temperature, 10_000.0);
    let (ours, theirs) = (detector.weights(), store.named_tensors());
    for name in ["bbox_embed.0.layers.2.weight", "transformer.enc_out_bbox_embed.layers.0.bias"] {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
    let left = |part: &str| {
        let lines = conversion.report.lines.iter();
        lines.filter(|line| line.fate.title().contains(part)).count()
    };
    assert_eq!((left("each decoder layer's own head"), left("queries from proposals")), (3, 1));
}
