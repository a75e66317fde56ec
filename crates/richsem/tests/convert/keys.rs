//! The fate of every key of the official checkpoints, by their names alone.

use std::collections::BTreeSet;

use richsem::{
    convert::dino::keys::{Fate, Layout, Variant},
    convert::{Kind, Source},
    models::{
        class_head::ClassSpace,
        dino::{Dino, DinoConfig},
        parameters::ParameterStore,
    },
};
use tch::Device;

use crate::support::*;

/// Every key of the official full-size models leads to one of our parameters, of the same shape,
/// or to a stated fate; and every parameter of ours is reached.
#[test]
fn official_keys_and_ours_cover_each_other() {
    for (name, variant, space, left) in [
        ("richsem.json", Variant::RichSem, ClassSpace::Text(1024), 1583 - 979),
        ("dino.json", Variant::Dino, ClassSpace::Classes(91), 626 - 1),
    ] {
        let keys = fixture(name);
        let layout = Layout::of(keys.keys().map(String::as_str)).unwrap();
        assert_eq!(layout, Layout { variant, decoder_layers: 6 });
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        Dino::new(&store, &DinoConfig::default(), space).unwrap();
        let ours = store.named_tensors();
        let mut reached = BTreeSet::new();
        let mut taken = 0;
        for (key, shape) in &keys {
            match layout.fate(key) {
                Fate::Parameter(path) | Fate::Copy(path) => {
                    assert_eq!(&ours[&path].size(), shape, "{key}");
                    assert!(layout.keys_of(&path).contains(key), "{key}");
                    reached.insert(path);
                    taken += 1;
                }
                Fate::Unknown | Fate::NoPlace(_) => panic!("{name}: {key}"),
                _ => {}
            }
        }
        assert_eq!(reached.len(), ours.len(), "{name}");
        assert_eq!(taken, left, "{name}");
    }
}

/// Deformable DETR's heads, encoder, backbone and attention are the same; the rest has a reason.
#[test]
fn deformable_detrs_keys_are_all_known() {
    let keys = fixture("deformable_detr.json");
    let layout = Layout::of(keys.keys().map(String::as_str)).unwrap();
    assert_eq!(layout, Layout { variant: Variant::DeformableDetr, decoder_layers: 6 });
    let unknown = keys.keys().filter(|key| layout.fate(key) == Fate::Unknown);
    assert_eq!(unknown.count(), 0);
    let mut config = DinoConfig::default();
    config.transformer.dim_feedforward = 1024;
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    Dino::new(&store, &config, ClassSpace::Classes(91)).unwrap();
    let found: BTreeSet<String> = keys
        .keys()
        .filter_map(|key| match layout.fate(key) {
            Fate::Parameter(path) => Some(path),
            _ => None,
        })
        .collect();
    let ours: BTreeSet<String> = store.named_tensors().into_keys().collect();
    let missing: Vec<&String> = ours.difference(&found).collect();
    let parts = [
        "transformer.tgt_embed.",
        "transformer.decoder.norm.",
        "transformer.decoder.ref_point_head.",
    ];
    assert!(missing.iter().all(|m| parts.iter().any(|p| m.starts_with(p))), "{missing:?}");
    assert_eq!(found.difference(&ours).count(), 0);
}

#[test]
fn data_parallel_running_means_and_what_lies_beside_are_seen() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Classes(8));
    let wrapped: Tensors =
        checkpoint.iter().map(|(k, v)| (format!("module.{k}"), v.shallow_clone())).collect();
    let source = Source::read(&folder.pth(&wrapped), None).unwrap();
    assert_eq!(source.tensors.len(), checkpoint.len());
    assert!(matches!(source.kind, Kind::Official(layout) if layout.variant == Variant::Dino));
    let error = Source::read(&folder.pth(&wrapped), Some("ema_model")).unwrap_err().to_string();
    assert!(error.contains("ema_model") && error.contains("`model`"), "{error}");
}

/// Of two models in one file, of either form, `--key` says which; alone, each is found by itself.
#[test]
fn a_model_below_a_prefix_is_found_or_said() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Classes(8));
    let below = |prefix: &str| -> Tensors {
        checkpoint.iter().map(|(k, v)| (format!("{prefix}.{k}"), v.shallow_clone())).collect()
    };
    let mut both = below("student.module");
    both.extend(below("teacher"));
    let safetensors = folder.path("both.safetensors");
    richsem::checkpoint_io::safetensors::write(&safetensors, &both, &Default::default()).unwrap();
    for path in [folder.pth(&both), safetensors] {
        let error = Source::read(&path, None).unwrap_err().to_string();
        assert!(error.contains("more than one detector: below `student`"), "{error}");
        assert!(error.contains("`key` student"), "{error}");
        for key in ["student", "student.module", "teacher"] {
            let source = Source::read(&path, Some(key)).unwrap();
            assert_eq!(source.tensors.len(), checkpoint.len(), "{key}");
            assert!(
                matches!(source.kind, Kind::Official(l) if l.variant == Variant::Dino),
                "{key}"
            );
            // The other model is told.
            let left: usize = source.beside.iter().map(|(_, count)| count).sum();
            assert_eq!(left, checkpoint.len(), "{key}: {:?}", source.beside);
        }
        let error = Source::read(&path, Some("other")).unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    }
    // As MoCo has it: the wrapper before the prefix.
    let mut wrapped = below("module.encoder_q");
    wrapped.extend(below("module.encoder_k"));
    let wrapped = folder.pth(&wrapped);
    let error = Source::read(&wrapped, None).unwrap_err().to_string();
    assert!(error.contains("`key` encoder_k"), "{error}");
    assert_eq!(Source::read(&wrapped, Some("encoder_k")).unwrap().tensors.len(), checkpoint.len());
    let alone = folder.pth(&below("net._orig_mod"));
    assert_eq!(Source::read(&alone, None).unwrap().tensors.len(), checkpoint.len());
}
