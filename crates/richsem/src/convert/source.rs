//! A file of weights, and what it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use tch::Tensor;

use super::{
    dino::keys::Layout,
    faster_rcnn::keys::{Origin, is_centernet},
};
use crate::{
    argument::Argument,
    checkpoint_io::{
        Format, backbones, format_of,
        prefix::{self, Found, Known},
        pth,
        safetensors::{self, Metadata},
    },
    detector,
    error::{Error, Result},
    models::backbone::{BackboneConfig, ResnetConfig, ResnetName},
};

/// What a file of weights is, by its tensors' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A detector of this program.
    Detector,
    /// A checkpoint of RichSem, DINO or Deformable DETR.
    Official(Layout),
    /// Faster R-CNN or Cascade R-CNN with a feature pyramid, of torchvision or detectron2.
    FasterRcnn(Origin),
    /// CLIP, with OpenAI's, open_clip's or Hugging Face's names.
    Clip,
    /// A ResNet alone, with torchvision's names (timm's and MIIL's are the same) or CLIP's.
    Resnet(ResnetName),
    /// Another backbone alone, with the names of whoever published it.
    Backbone(backbones::Layout),
}

/// A file of weights that has been read.
#[derive(Debug)]
pub struct Source {
    /// Path of the file, for messages.
    pub path: PathBuf,
    /// What the file is, by the names of its tensors.
    pub kind: Kind,
    /// Its tensors, without what wrappers add to their names, and without the prefix below which they
    /// were.
    pub tensors: BTreeMap<String, Tensor>,
    /// Strings of a safetensors file.
    pub metadata: Metadata,
    /// What the file has beside these tensors: first part of the names, and number of tensors.
    pub beside: Vec<(String, usize)>,
}

impl Source {
    /// The settings of the backbone that the file holds alone, as its tensors tell them; none if it holds
    /// something else, or the tensors contradict each other. Of a ResNet they tell the name alone.
    #[must_use]
    pub fn backbone(&self) -> Option<BackboneConfig> {
        match self.kind {
            Kind::Resnet(name) => resnet(name, &self.tensors).map(Into::into),
            Kind::Backbone(layout) => {
                let tensors =
                    self.tensors.iter().map(|(name, x)| (name.clone(), x.shallow_clone()));
                layout.config(&layout.sort(tensors.collect()).tensors)
            }
            _ => None,
        }
    }

    /// Reads a file. `key` says which state dict of a `.pth` (`ema_model`), see
    /// [`pth::Checkpoint::state_dict`], or below which prefix of the names the weights are (`student`).
    ///
    /// # Errors
    /// A file that cannot be read, or whose names are none of those that are known.
    pub fn read(path: &Path, key: Option<&str>) -> Result<Self> {
        let asked = key;
        let (found, metadata, mut left) = match format_of(path)? {
            Format::Safetensors => {
                let (tensors, metadata) = safetensors::read(path)?;
                (below_key(tensors, key, path)?, metadata, Vec::new())
            }
            Format::PyTorch => {
                let checkpoint = pth::Checkpoint::load(path)?;
                let (tensors, key) = match (checkpoint.state_dict(key), key) {
                    (Ok(tensors), _) => (tensors, None),
                    (Err(error), None) => return Err(error),
                    // No key of a dictionary; perhaps of the names in the state dict.
                    (Err(error), Some(key)) => match checkpoint.state_dict(None) {
                        Ok(tensors) => (tensors, Some((key, error))),
                        Err(_) => return Err(error),
                    },
                };
                let beside = beside(&checkpoint.tensor_names()?, &tensors, asked);
                let found = match key {
                    None => below_key(tensors, None, path)?,
                    Some((key, error)) => below_key(tensors, Some(key), path).map_err(|_| error)?,
                };
                (found, Metadata::new(), beside)
            }
        };
        left.extend(counts(&found.beside));
        let tensors = prefix::without_wrappers(found.tensors, path)?;
        if let Some(name) = tensors.keys().find(|name| is_centernet(name)) {
            let problem =
                "proposals of CenterNet2, as Detic's released models have them, are not supported";
            return Err(Error::invalid(path, name.clone(), problem).with_hint(
                "Detic's heads are, behind a region proposal network (proposal_generator.rpn_head)",
            ));
        }
        let wanted: &[Known] = if metadata.contains_key(detector::METADATA) {
            &[Known::Detector]
        } else {
            &[Known::Detector, Known::TwoStage, Known::Clip, Known::Backbone]
        };
        let found = prefix::find(tensors, wanted, path)?;
        left.extend(counts(&found.beside));
        let tensors = found.tensors;
        let kind = kind(&tensors, &metadata).ok_or_else(|| unknown(path, &tensors))?;
        Ok(Self { path: path.to_owned(), kind, tensors, metadata, beside: left })
    }

    /// What it is, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Detector => "a detector of this program".into(),
            Kind::Official(layout) => format!("a checkpoint of {}", layout.variant.name()),
            Kind::FasterRcnn(origin) => format!("a Faster R-CNN of {}", origin.name()),
            Kind::Clip => "CLIP".into(),
            Kind::Resnet(ResnetName::ClipResnet) => "a ResNet of CLIP's form".into(),
            Kind::Resnet(_) => "a ResNet".into(),
            Kind::Backbone(layout) => layout.describe(),
        }
    }
}

/// The tensors whose names begin with a key; without a key, all. If no name in the file begins with it,
/// names without wrappers are looked at, which are those that messages show.
fn below_key(tensors: BTreeMap<String, Tensor>, key: Option<&str>, path: &Path) -> Result<Found> {
    let Some(key) = key else { return Ok(prefix::below(tensors, String::new())) };
    let start = format!("{key}.");
    let tensors = if tensors.keys().any(|name| name.starts_with(&start)) {
        tensors
    } else {
        prefix::without_wrappers(tensors, path)?
    };
    let found = prefix::below(tensors, start);
    if found.tensors.is_empty() {
        let heads: Vec<String> = counts(&found.beside).into_iter().map(|(head, _)| head).collect();
        let problem =
            format!("no tensor's name begins with `{key}.`; they begin with {}", heads.join(", "));
        return Err(Error::invalid(path, Argument::Key.to_string(), problem)
            .with_hint("leave it out, or give one of these"));
    }
    Ok(found)
}

/// How many tensors there are by the first part of their names.
fn counts(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, usize)> {
    count_heads(tensors.keys().map(String::as_str))
}

fn count_heads<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name.split('.').next().unwrap_or(name)).or_default() += 1;
    }
    counts.into_iter().map(|(head, count)| (head.to_owned(), count)).collect()
}

/// What else a checkpoint holds: its other tensors, counted by the key they lie below.
fn beside(
    names: &[String],
    tensors: &BTreeMap<String, Tensor>,
    key: Option<&str>,
) -> Vec<(String, usize)> {
    let prefix =
        key.map(str::to_owned).into_iter().chain(pth::usual_keys().map(str::to_owned)).find(
            |key| {
                let below = names.iter().filter(|name| {
                    name.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'))
                });
                below.count() == tensors.len()
            },
        );
    let Some(prefix) = prefix else { return Vec::new() };
    let others = names.iter().map(String::as_str).filter(|name| {
        !name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('.'))
    });
    count_heads(others)
}

fn kind(tensors: &BTreeMap<String, Tensor>, metadata: &Metadata) -> Option<Kind> {
    if metadata.contains_key(detector::METADATA) {
        return Some(Kind::Detector);
    }
    if let Some(layout) = Layout::of(tensors.keys().map(String::as_str)) {
        return Some(Kind::Official(layout));
    }
    if let Some(origin) = Origin::of(tensors.keys().map(String::as_str)) {
        return Some(Kind::FasterRcnn(origin));
    }
    let has = |name: &str| tensors.contains_key(name);
    let any = |prefix: &str| tensors.keys().any(|k| k.starts_with(prefix));
    if any("vision_model.") || has("visual.class_embedding") || any("visual.attnpool.") {
        return Some(Kind::Clip);
    }
    if has("visual.conv3.weight") && any("visual.layer4.0.") {
        return Some(Kind::Resnet(ResnetName::ClipResnet));
    }
    match backbones::Layout::of(tensors) {
        None | Some(backbones::Layout::Resnet) => {}
        Some(layout) => return Some(Kind::Backbone(layout)),
    }
    // A deep stem (ResNet-50-D) is no backbone of ours: the report will say so, key by key.
    if !(has("conv1.weight") || has("conv1.0.weight")) || !any("layer4.0.") {
        return None;
    }
    let blocks = |stage: u32| blocks(tensors, stage);
    // The stem of CLIP's has three convolutions.
    Some(Kind::Resnet(match (has("conv3.weight"), has("layer1.0.conv3.weight")) {
        (true, _) => ResnetName::ClipResnet,
        (false, true) if blocks(3) > 6 => ResnetName::Resnet101,
        (false, true) => ResnetName::Resnet50,
        (false, false) if blocks(1) > 2 => ResnetName::Resnet34,
        (false, false) => ResnetName::Resnet18,
    }))
}

/// Before the names of CLIP's image encoder.
const CLIP: &str = "visual.";

/// How many blocks a stage of a ResNet has, of CLIP's too.
fn blocks(tensors: &BTreeMap<String, Tensor>, stage: u32) -> usize {
    let prefix = format!("layer{stage}.");
    let plain = |name: &String| {
        name.strip_prefix(CLIP)
            .unwrap_or(name)
            .strip_prefix(&prefix)?
            .split('.')
            .next()
            .map(str::to_owned)
    };
    tensors.keys().filter_map(plain).collect::<BTreeSet<_>>().len()
}

/// A ResNet of the sizes that its tensors have; none with group norms, which do not tell their groups.
fn resnet(name: ResnetName, tensors: &BTreeMap<String, Tensor>) -> Option<ResnetConfig> {
    if !tensors.keys().any(|name| name.ends_with("running_var")) {
        return None;
    }
    let default = ResnetConfig { name, ..ResnetConfig::default() };
    let channels = |name: &str| {
        let tensor = tensors.get(name).or_else(|| tensors.get(&format!("{CLIP}{name}")))?;
        tensor.size().first().copied()
    };
    let width = channels("layer1.0.conv1.weight").unwrap_or(default.width);
    // Wide ResNets and ResNeXts have blocks of another width than the stem, and are not ours.
    let stem = if name == ResnetName::ClipResnet { "conv3.weight" } else { "conv1.weight" };
    if channels(stem).is_some_and(|stem| stem != width) {
        return None;
    }
    let layers = [1, 2, 3, 4].map(|stage| blocks(tensors, stage) as i64);
    let layers = if layers == name.blocks() { Vec::new() } else { layers.to_vec() };
    Some(ResnetConfig { width, layers, ..default })
}

fn unknown(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Error {
    let some: Vec<&str> = tensors.keys().take(4).map(String::as_str).collect();
    let problem = format!(
        "none of the known kinds of weights: {} tensors, the first ones {}",
        tensors.len(),
        some.join(", ")
    );
    Error::invalid(path, "weights", problem).with_hint(
        "known are this program's detectors, checkpoints of RichSem, DINO and Deformable DETR, \
         Faster R-CNN of torchvision and detectron2, torchvision's and timm's ResNets, Swin \
         Transformers, FocalNets, ConvNeXts, vision transformers (ViTDet, MAE, DINOv2, DINOv3, EVA-02), and CLIP",
    )
}
