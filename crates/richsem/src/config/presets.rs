//! The settings of `configs/` that are part of the program.

use super::{Config, FORM};
use crate::{
    error::Result,
    settings::{Assignment, Preset},
};

macro_rules! preset {
    ($name:literal, $about:literal) => {
        Preset {
            name: $name,
            about: $about,
            text: include_str!(concat!("../../../../configs/", $name, ".toml")),
        }
    };
}

/// All presets, smallest detector first.
pub(super) const PRESETS: &[Preset] = &[
    preset!("demo", "the demo's detector, for images of 128 pixels"),
    preset!("tiny", "a detector small enough for two CPU cores, from scratch"),
    preset!("memorise", "learns a few images by heart: to see whether training works"),
    preset!("bccd", "a few hundred images, from scratch, on a GPU"),
    preset!(
        "finetune_r50",
        "a ResNet-50 detector that was trained on COCO, for images of your own"
    ),
    preset!("baseline_r50", "DINO with a ResNet-50, as RichSem starts from on LVIS"),
    preset!("richsem_r50", "RichSem with a ResNet-50 on LVIS and ImageNet-LVIS"),
    preset!("richsem_r50_openimages", "RichSem with a ResNet-50 on Open Images"),
    preset!("richsem_r50_visual_genome", "RichSem with a ResNet-50 on Visual Genome"),
    preset!("richsem_r50_21k", "RichSem with a ResNet-50 that ImageNet-21k trained, on LVIS"),
    preset!("dino_swin_t", "DINO with Swin-T on LVIS"),
    preset!("dino_swin_l", "DINO with Swin-L on LVIS"),
    preset!("dino_focalnet_l", "DINO with FocalNet-L on LVIS"),
    preset!("dino_convnext_l", "DINO with ConvNeXt-L on LVIS"),
    preset!("dino_vitdet_b", "DINO with ViTDet-B on LVIS"),
    preset!("dino_dinov2_b", "DINO with DINOv2-B on LVIS"),
    preset!("dino_dinov3_b", "DINO with DINOv3-B on LVIS"),
    preset!("dino_clip_vit_b16", "DINO with CLIP's ViT-B/16 on LVIS"),
    preset!("dino_eva02_l", "DINO with EVA-02-L on LVIS"),
    preset!("richsem_swin_l", "RichSem with Swin-L on LVIS and ImageNet-LVIS"),
    preset!("richsem_focalnet_h", "RichSem with FocalNet-H on LVIS and ImageNet-LVIS"),
    preset!("faster_rcnn_r50", "Faster R-CNN with a ResNet-50 on COCO, by detectron2's recipe"),
    preset!("faster_rcnn_tiny", "Faster R-CNN small enough for two CPU cores, from scratch"),
];

impl Config {
    /// The settings files that are part of the program.
    #[must_use]
    pub fn presets() -> &'static [Preset] {
        PRESETS
    }

    /// As [`Self::load`] of `preset:NAME`. Its paths are relative to the working folder.
    ///
    /// # Errors
    /// There is no preset of that name; as [`Self::load`].
    pub fn load_preset(name: &str, assignments: &[String]) -> Result<Self> {
        let assignments = Assignment::from_outside(assignments);
        FORM.read_preset(name, &assignments)?.settings(Self::validate)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each is the file of `configs/`, and reads the same from the program as from the folder, but for the
    /// place that its paths are relative to.
    #[test]
    fn every_preset_is_its_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        for preset in PRESETS {
            let file = folder.join(preset.name).with_extension("toml");
            let text = |config: Config| {
                let here = std::env::current_dir().unwrap();
                let places = [folder.to_str().unwrap(), here.to_str().unwrap()];
                places.iter().fold(config.to_toml(), |text, place| text.replace(place, "HERE"))
            };
            let given = Config::load_preset(preset.name, &[]).unwrap();
            assert_eq!(text(given), text(Config::load(&file, &[]).unwrap()), "{}", preset.name);
            let named = format!("preset:{}", preset.name);
            Config::load(Path::new(&named), &[]).unwrap();
        }
    }

    /// What lies in `configs/` is a preset, but for what needs this project's own data or another verb.
    #[test]
    fn no_settings_are_forgotten() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let other = ["tinylvis", "demo_richsem", "pretrain_teacher"];
            let is_other = other.iter().any(|start| name.starts_with(start));
            assert!(is_other || PRESETS.iter().any(|preset| preset.name == name), "{name}");
        }
    }

    #[test]
    fn a_file_extends_a_preset_and_its_paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let load = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Config::load(&file, &[])
        };
        let config =
            load("version = 1\nextends = \"preset:richsem_r50\"\n[train]\nepochs = 3").unwrap();
        assert_eq!(config.train.epochs, 3);
        assert_eq!(config.train.lr_drop, [20], "of baseline_r50, which the preset extends");
        assert_eq!(config.data.extra["imagenet"].images, folder.path().join("imagenet-lvis"));
        let refused = |text: &str, parts: &[&str]| {
            let message = load(text).unwrap_err().to_string();
            parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
        };
        refused(
            "version = 1\nextends = \"preset:tinny\"",
            &["mine.toml: extends: there is no preset `tinny`", "did you mean `tiny`?"],
        );
        refused("version = 1\nextends = \"configs/tiny.toml\"", &["extends = \"preset:tiny\""]);
        // A wrong value that a preset says would be named with it: here the file's is.
        refused(
            "version = 1\nextends = \"preset:tiny\"\n[train]\nlr_dorp = [2]",
            &["mine.toml: train.lr_dorp", "`lr_drop`"],
        );
        let error = Config::load_preset("yolo", &[]).unwrap_err().to_string();
        assert!(error.contains("presets are: demo, tiny"), "{error}");
    }
}
