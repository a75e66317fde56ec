//! Whose weights a file holds, and below which prefix of its names. Wrappers of `torch.nn` add a prefix,
//! and so do whole models of which a backbone is a part, and training scripts that keep a model under a
//! name of their own. The names below the prefix are known; the prefix may be anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::Tensor;

use super::backbones;
use crate::{
    argument::Argument,
    error::{Error, Result},
};

/// Weights that are known by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// A detector of the DETR family, as the official code names it and we do.
    Detector,
    /// Faster R-CNN, as torchvision or detectron2 names it.
    TwoStage,
    /// CLIP, with OpenAI's, open_clip's or Hugging Face's names.
    Clip,
    /// A backbone, with the names of any [`Layout`](super::backbones::Layout).
    Backbone,
}

impl Known {
    /// Names that only such weights have, from where their own names begin.
    fn signs(self) -> Vec<&'static str> {
        match self {
            Self::Detector => vec!["transformer.encoder.layers.0.norm1.weight"],
            Self::TwoStage => vec![
                "rpn.head.cls_logits.weight",
                "proposal_generator.rpn_head.objectness_logits.weight",
            ],
            Self::Clip => vec![
                "visual.attnpool.c_proj.weight",
                "visual.class_embedding",
                "vision_model.embeddings.class_embedding",
            ],
            Self::Backbone => backbones::signs().collect(),
        }
    }

    /// What a message calls such weights.
    fn what(self) -> &'static str {
        match self {
            Self::Detector | Self::TwoStage => "detector",
            Self::Clip => "CLIP",
            Self::Backbone => "backbone",
        }
    }

    /// Where names of such weights begin, in front of each.
    fn prefixes<'a>(self, names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let signs = self.signs();
        let before = |name: &'a str| {
            let mut ends = signs.iter().filter_map(|sign| name.strip_suffix(sign));
            ends.find(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        };
        names.filter_map(before).collect()
    }
}

/// Parts of names that wrappers add, at any depth: `DataParallel`, `torch.compile`, FSDP, activation
/// checkpointing.
const WRAPPERS: [&str; 4] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

type Tensors = BTreeMap<String, Tensor>;

/// The tensors without what wrappers add to their names.
///
/// # Errors
/// Two names that are then one.
pub(crate) fn without_wrappers(tensors: Tensors, path: &Path) -> Result<Tensors> {
    let mut plain = Tensors::new();
    let mut wrapped: BTreeMap<String, String> = BTreeMap::new();
    for (name, tensor) in tensors {
        let own: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
        let own = own.join(".");
        if plain.insert(own.clone(), tensor).is_some() {
            let other = wrapped.get(&own).map_or(own.as_str(), String::as_str);
            let problem = format!("`{name}` and `{other}` are both `{own}` without their wrappers");
            return Err(Error::invalid(path, own.clone(), problem)
                .with_hint("the file holds two models: save the state dict of one of them alone"));
        }
        wrapped.insert(own, name);
    }
    Ok(plain)
}

/// The weights of a file that are known, and the others.
#[derive(Debug)]
pub(crate) struct Found {
    /// The known weights, by their names behind the prefix.
    pub(crate) tensors: Tensors,
    /// What was before each name; empty where nothing was.
    pub(crate) prefix: String,
    /// What else the file holds, by the names there.
    pub(crate) beside: Tensors,
}

/// The first of the wanted weights that is there, in names without wrappers. A file with none of them is
/// given back as it is.
///
/// # Errors
/// More than one set of such weights, with the prefix of each.
pub(crate) fn find(tensors: Tensors, wanted: &[Known], path: &Path) -> Result<Found> {
    let mut prefix = String::new();
    for &known in wanted {
        let prefixes = known.prefixes(tensors.keys().map(String::as_str));
        match choose(known, &prefixes) {
            None if prefixes.is_empty() => {}
            None => return Err(several(known, &prefixes, &tensors, path)),
            Some(chosen) => {
                chosen.clone_into(&mut prefix);
                break;
            }
        }
    }
    Ok(below(tensors, prefix))
}

/// The tensors below a prefix, and the others.
pub(crate) fn below(tensors: Tensors, prefix: String) -> Found {
    let (own, beside): (Tensors, Tensors) =
        tensors.into_iter().partition(|(name, _)| name.starts_with(&prefix));
    let cut = |(name, tensor): (String, Tensor)| (name[prefix.len()..].to_owned(), tensor);
    Found { tensors: own.into_iter().map(cut).collect(), prefix, beside }
}

/// The one that is meant: the only one, or the backbone that a detector has beside copies of others.
fn choose<'a>(known: Known, prefixes: &BTreeSet<&'a str>) -> Option<&'a str> {
    let only = |mut of: Vec<&'a str>| if of.len() == 1 { of.pop() } else { None };
    let all: Vec<&str> = prefixes.iter().copied().collect();
    only(all.clone()).or_else(|| match known {
        Known::Backbone => {
            let own = |prefix: &&str| {
                prefix.is_empty()
                    || ["backbone.", "backbone.0.body.", "backbone.0."]
                        .iter()
                        .any(|p| prefix.ends_with(p))
            };
            only(all.into_iter().filter(own).collect())
        }
        Known::Detector | Known::TwoStage | Known::Clip => None,
    })
}

fn several(known: Known, prefixes: &BTreeSet<&str>, tensors: &Tensors, path: &Path) -> Error {
    let each: Vec<String> = prefixes
        .iter()
        .map(|prefix| {
            let count = tensors.keys().filter(|name| name.starts_with(prefix)).count();
            match prefix.strip_suffix('.') {
                Some(key) => format!("`{key}` ({count} tensors)"),
                None => format!("the top ({count} tensors)"),
            }
        })
        .collect();
    let problem = format!("more than one {}: below {}", known.what(), each.join(" and "));
    let key = prefixes.iter().find_map(|prefix| prefix.strip_suffix('.')).unwrap_or_default();
    Error::invalid(path, "weights", problem)
        .with_hint(format!("take one of them out: `richsem convert` with {} {key}", Argument::Key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const ALL: [Known; 3] = [Known::Detector, Known::Clip, Known::Backbone];

    fn tensors(names: &[&str]) -> Tensors {
        let one = || Tensor::zeros([1], (Kind::Float, Device::Cpu));
        names.iter().map(|name| ((*name).to_owned(), one())).collect()
    }

    fn found(names: &[&str], wanted: &[Known]) -> Result<Vec<String>> {
        let path = "w.pth".as_ref();
        let found = find(without_wrappers(tensors(names), path)?, wanted, path)?;
        // Nothing is lost on the way.
        assert_eq!(found.tensors.len() + found.beside.len(), names.len());
        Ok(found.tensors.into_keys().collect())
    }

    #[test]
    fn what_is_before_the_known_names_is_taken_off() {
        let backbone = ["conv1.weight", "layer4.0.conv1.weight"];
        for prefix in [
            "",
            "module.",
            "_orig_mod.",
            "model.",
            "backbone.",
            "encoder.",
            "backbone.0.body.",
            "module.model._orig_mod.backbone.",
            "student.net.encoder_q.",
        ] {
            let names: Vec<String> =
                backbone.iter().map(|name| format!("{prefix}{name}")).collect();
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(found(&names, &ALL).unwrap(), backbone, "{prefix}");
            // What is beside it is no part of it; without a prefix only the layout can tell.
            if !["", "module.", "_orig_mod."].contains(&prefix) {
                names.push("neck.weight");
                assert_eq!(found(&names, &ALL).unwrap(), backbone, "{prefix}");
            }
        }
        let inside = found(&["layer4._orig_mod.0.conv1.module.weight"], &ALL).unwrap();
        assert_eq!(inside, ["layer4.0.conv1.weight"]);
        // A name that only ends alike is none.
        let other = ["my_layer4.0.conv1.weight"];
        assert_eq!(found(&other, &ALL).unwrap(), other);
    }

    #[test]
    fn a_detector_is_a_detector_or_the_backbone_it_has() {
        let names = [
            "net.backbone.0.body.layer4.0.conv1.weight",
            "net.transformer.encoder.layers.0.norm1.weight",
        ];
        assert_eq!(found(&names, &ALL).unwrap(), names.map(|name| &name[4..]));
        assert_eq!(found(&names, &[Known::Backbone]).unwrap(), ["layer4.0.conv1.weight"]);
        // RichSem's has copies of CLIP, with a backbone each.
        let names = [
            "backbone.0.body.layer4.0.conv1.weight",
            "class_embed.clip.visual.layer4.0.conv1.weight",
            "transformer.enc_out_class_embed.clip.visual.layer4.0.conv1.weight",
        ];
        assert_eq!(found(&names, &[Known::Backbone]).unwrap(), ["layer4.0.conv1.weight"]);
        let nested = names.map(|name| format!("model.{name}"));
        let nested: Vec<&str> = nested.iter().map(String::as_str).collect();
        assert_eq!(found(&nested, &[Known::Backbone]).unwrap(), ["layer4.0.conv1.weight"]);
    }

    #[test]
    fn of_several_the_user_says_which() {
        let names = ["student.layer4.0.conv1.weight", "teacher.layer4.0.conv1.weight", "teacher.a"];
        let error = found(&names, &ALL).unwrap_err().to_string();
        for part in [
            "w.pth: weights: more than one backbone: below `student` (1 tensors) and `teacher` (2",
            "take one of them out: `richsem convert` with `key` student",
        ] {
            assert!(error.contains(part), "no `{part}` in {error}");
        }
        let error = found(&["a.w", "module.a.w"], &ALL).unwrap_err().to_string();
        assert!(error.contains("`module.a.w` and `a.w` are both `a.w`"), "{error}");
        let error = found(&["_orig_mod.a", "module.a"], &ALL).unwrap_err().to_string();
        assert!(error.contains("`module.a` and `_orig_mod.a` are both `a`"), "{error}");
    }
}
