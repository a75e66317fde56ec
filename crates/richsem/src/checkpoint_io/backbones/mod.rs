//! Published backbones as files have them: recognised by the names of their tensors, and brought under the
//! names that this program has. One architecture comes under the names of several programs.

mod convnext;
mod focalnet;
mod load;
mod swin;
mod vit;

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use crate::models::backbone::{BackboneConfig, VitFamily};

pub use load::{LoadedBackbone, load_backbone};

/// Whose names tensors have. (Hugging Face's are those of files.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Those of the code that the paper is published with, which are ours.
    Official,
    /// timm's, where they are others.
    Timm,
    /// torchvision's.
    Torchvision,
    /// mmdetection's.
    Mmdet,
    /// Hugging Face's.
    HuggingFace,
}

impl Names {
    fn whose(self) -> &'static str {
        match self {
            Self::Official => "the official code's",
            Self::Timm => "timm's",
            Self::Torchvision => "torchvision's",
            Self::Mmdet => "mmdetection's",
            Self::HuggingFace => "Hugging Face's",
        }
    }
}

/// A backbone, and whose names its tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A ResNet, torchvision's or CLIP's. Its names are read as they are.
    Resnet,
    /// A Swin Transformer.
    Swin(Names),
    /// A FocalNet.
    Focalnet(Names),
    /// A ConvNeXt of either version.
    Convnext(Names),
    /// A plain vision transformer of that family; of ViTDet's also those of MAE, from which it starts.
    Vit(VitFamily, Names),
}

/// Names of tensors that only such backbones have, and whose they are.
const SIGNS: [(&str, Layout); 12] = [
    ("layers.0.blocks.0.attn.relative_position_bias_table", Layout::Swin(Names::Official)),
    ("features.1.0.attn.relative_position_bias_table", Layout::Swin(Names::Torchvision)),
    ("stages.0.blocks.0.attn.w_msa.relative_position_bias_table", Layout::Swin(Names::Mmdet)),
    (
        "encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
        Layout::Swin(Names::HuggingFace),
    ),
    ("layers.0.blocks.0.modulation.f.weight", Layout::Focalnet(Names::Official)),
    (
        "encoder.stages.0.layers.0.modulation.projection_in.weight",
        Layout::Focalnet(Names::HuggingFace),
    ),
    ("stages.0.0.dwconv.weight", Layout::Convnext(Names::Official)),
    ("stages.0.blocks.0.conv_dw.weight", Layout::Convnext(Names::Timm)),
    ("features.1.0.layer_scale", Layout::Convnext(Names::Torchvision)),
    ("stages.0.0.depthwise_conv.weight", Layout::Convnext(Names::Mmdet)),
    ("encoder.stages.0.layers.0.dwconv.weight", Layout::Convnext(Names::HuggingFace)),
    ("layer4.0.conv1.weight", Layout::Resnet),
];

const CLASSIFIER: Place = Place::Left("the classifier of images");

/// What becomes of a tensor of a file.
enum Place {
    /// It is that parameter.
    Is(String),
    /// It is that part, of so many, of a parameter: parts follow each other along the first axis.
    Part(String, usize, usize),
    /// It is no part of the backbone.
    Left(&'static str),
}

/// The tensors of a file, sorted.
pub(crate) struct Sorted {
    /// By our names.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Our name of each tensor of the file that is taken, whole or as a part, and how many values it has.
    pub(crate) taken: BTreeMap<String, (String, usize)>,
    /// Tensors that are not for a backbone, with the reason.
    pub(crate) left: BTreeMap<String, (&'static str, Tensor)>,
}

/// All signs. A name is that of the first one which it ends in.
fn all_signs() -> impl Iterator<Item = &'static (&'static str, Layout)> {
    SIGNS.iter().chain(&vit::SIGNS)
}

/// Names that such a backbone's tensors end in, each of which only it has.
pub(crate) fn signs() -> impl Iterator<Item = &'static str> {
    all_signs().map(|(sign, _)| *sign)
}

impl Layout {
    /// Of the names of a file, without prefix.
    pub(crate) fn of(tensors: &BTreeMap<String, Tensor>) -> Option<Self> {
        let (_, layout) = all_signs().find(|(sign, _)| tensors.contains_key(*sign))?;
        Some(match layout {
            Self::Swin(Names::Official) if swin::is_timm(tensors) => Self::Swin(Names::Timm),
            Self::Focalnet(Names::Official) if focalnet::is_timm(tensors) => {
                Self::Focalnet(Names::Timm)
            }
            Self::Vit(VitFamily::Vitdet, names) => vit::refined(*names, tensors),
            other => *other,
        })
    }

    /// In words, as `a Swin Transformer with timm's names`.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Resnet => "a ResNet".into(),
            Self::Swin(names) => format!("a Swin Transformer with {} names", names.whose()),
            Self::Focalnet(names) => format!("a FocalNet with {} names", names.whose()),
            Self::Convnext(names) => format!("a ConvNeXt with {} names", names.whose()),
            Self::Vit(family, names) => vit::describe(family, names),
        }
    }

    /// The file's tensors under our names. A tensor that is of no use to it keeps its name, and will be
    /// unexpected. Parts of a parameter whose other parts are missing keep theirs, too.
    pub(crate) fn sort(self, tensors: BTreeMap<String, Tensor>) -> Sorted {
        let mut sorted =
            Sorted { tensors: BTreeMap::new(), taken: BTreeMap::new(), left: BTreeMap::new() };
        let mut parts: BTreeMap<String, BTreeMap<usize, (String, Tensor, usize)>> = BTreeMap::new();
        let gated = matches!(self, Self::Vit(..)) && vit::is_gated(&tensors);
        for (name, tensor) in tensors {
            match self.place(&name, gated) {
                Place::Left(why) => drop(sorted.left.insert(name, (why, tensor))),
                Place::Part(own, i, of) => {
                    drop(parts.entry(own).or_default().insert(i, (name, tensor, of)));
                }
                Place::Is(own) => {
                    let tensor = self.turned(&own, tensor);
                    // Of two tensors for one parameter the second stays unexpected.
                    let own = if sorted.tensors.contains_key(&own) { name.clone() } else { own };
                    sorted.taken.insert(name, (own.clone(), tensor.numel()));
                    sorted.tensors.insert(own, tensor);
                }
            }
        }
        for (own, parts) in parts {
            let mut whole: Vec<Tensor> =
                parts.values().map(|(_, tensor, _)| tensor.shallow_clone()).collect();
            let of = parts.values().map(|(_, _, of)| *of).max().unwrap_or_default();
            for i in 0..of {
                if !parts.contains_key(&i) && i < whole.len() && self.is_zero(&own, i) {
                    whole.insert(i, whole[0].zeros_like());
                }
            }
            let complete = whole.len() == of;
            match Tensor::f_cat(&whole, 0) {
                Ok(joined) if complete && !sorted.tensors.contains_key(&own) => {
                    sorted.tensors.insert(own.clone(), joined);
                    let part = |(name, t, _): (String, Tensor, _)| (name, (own.clone(), t.numel()));
                    sorted.taken.extend(parts.into_values().map(part));
                }
                _ => {
                    for (name, tensor, _) in parts.into_values() {
                        sorted.taken.insert(name.clone(), (name.clone(), tensor.numel()));
                        sorted.tensors.insert(name, tensor);
                    }
                }
            }
        }
        sorted
    }

    /// Whether that part of a parameter of ours may be missing in files, and is zero then.
    fn is_zero(self, own: &str, part: usize) -> bool {
        matches!(self, Self::Vit(family, _) if vit::is_zero(family, own, part))
    }

    /// `gated`: what a name alone does not tell of a vision transformer's.
    fn place(self, name: &str, gated: bool) -> Place {
        let parts: Vec<&str> = name.split('.').collect();
        match self {
            Self::Resnet => resnet_place(name),
            Self::Swin(names) => swin::place(names, &parts),
            Self::Focalnet(names) => focalnet::place(names, &parts),
            Self::Convnext(names) => convnext::place(names, &parts),
            Self::Vit(family, names) => vit::place((family, names), &parts, gated),
        }
        .unwrap_or_else(|| Place::Is(name.to_owned()))
    }

    /// A tensor as our parameter of that name has it, where its values have another order.
    fn turned(self, own: &str, tensor: Tensor) -> Tensor {
        match self {
            Self::Swin(names) => swin::turned(names, own, tensor),
            Self::Convnext(_) => convnext::turned(own, tensor),
            Self::Focalnet(_) => focalnet::turned(own, tensor),
            Self::Vit(family, _) => vit::turned(family, own, tensor),
            Self::Resnet => tensor,
        }
    }

    /// The settings of the backbone that these tensors, under our names, are of; none if they contradict
    /// each other. Of a ResNet nothing is said.
    pub(crate) fn config(self, tensors: &BTreeMap<String, Tensor>) -> Option<BackboneConfig> {
        match self {
            Self::Resnet => None,
            Self::Swin(_) => swin::config(tensors).map(BackboneConfig::Swin),
            Self::Focalnet(_) => focalnet::config(tensors).map(BackboneConfig::Focalnet),
            Self::Convnext(_) => convnext::config(tensors).map(BackboneConfig::Convnext),
            Self::Vit(family, _) => vit::config(family, tensors).map(BackboneConfig::Vit),
        }
    }
}

fn resnet_place(name: &str) -> Option<Place> {
    if name.ends_with("num_batches_tracked") {
        return Some(Place::Left("counts batches"));
    }
    let classifier = ["fc.", "head.", "attnpool."].iter().any(|prefix| name.starts_with(prefix));
    classifier.then_some(CLASSIFIER)
}

/// How many numbers follow the prefix in names.
fn count(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> i64 {
    let numbers = tensors
        .keys()
        .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok());
    numbers.collect::<BTreeSet<_>>().len() as i64
}

/// A side of a tensor; none if it is not there.
fn side(tensors: &BTreeMap<String, Tensor>, name: &str, axis: usize) -> Option<i64> {
    tensors.get(name)?.size().get(axis).copied().filter(|&side| side > 0)
}

/// Whether a missing parameter of that name, as ours, is one that only detectors have: a norm of an output, the
/// pyramid and the relative positions of ViTDet.
pub(crate) fn is_new(name: &str) -> bool {
    if vit::is_new(name) {
        return true;
    }
    let number = name.strip_prefix("norm").and_then(|rest| rest.split('.').next());
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
