//! A trained backbone as settings.

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Choice;
use crate::{
    models::backbone::{BackboneConfig, ResnetName, VitFamily},
    teacher::clip,
};

/// `data.pad_multiple` where nothing is said.
const PAD_MULTIPLE: u32 = 32;

/// What a backbone's section says of its sizes: kind and name, and what is not as published. Of a ResNet name, width
/// and layers alone.
pub(super) fn settings(backbone: &BackboneConfig) -> Vec<(String, Value)> {
    let table = |config: &BackboneConfig| Table::try_from(config).unwrap_or_default();
    let mut own = table(backbone);
    let mut settings = Vec::new();
    for key in ["kind", "name"] {
        settings.extend(own.remove(key).map(|value| (key.to_owned(), value)));
    }
    if matches!(backbone, BackboneConfig::Resnet(_)) {
        settings.retain(|(key, _)| key == "name");
        own.retain(|key, _| key == "width" || key == "layers");
    }
    let published = BackboneConfig::deserialize(settings.iter().cloned().collect::<Table>());
    let published = published.map(|config| table(&config)).unwrap_or_default();
    settings.extend(own.into_iter().filter(|(key, value)| published.get(key) != Some(value)));
    settings
}

/// Settings outside of its section that a backbone needs.
pub(super) fn around(backbone: &BackboneConfig) -> Vec<Choice> {
    let choice = |key: &str, value: Value, why: &str| Choice {
        key: key.to_owned(),
        value,
        why: why.to_owned(),
    };
    let mut choices = Vec::new();
    let multiple = backbone.pad_multiple();
    if !PAD_MULTIPLE.is_multiple_of(multiple) {
        let why = "twice the side of a patch";
        choices.push(choice("data.pad_multiple", i64::from(multiple).into(), why));
    }
    if is_clip(backbone) {
        // As they are written in f32, without the digits that f64 would add.
        let number = |value: f32| value.to_string().parse().unwrap_or(f64::from(value));
        let list = |values: [f32; 3]| Value::Array(values.map(|v| number(v).into()).into());
        choices.push(choice("model.pixel_mean", list(clip::PIXELS.mean), "CLIP's own"));
        choices.push(choice("model.pixel_std", list(clip::PIXELS.std), ""));
    }
    choices
}

/// Whether it was trained on pixels as CLIP sees them.
fn is_clip(backbone: &BackboneConfig) -> bool {
    match backbone {
        BackboneConfig::Resnet(config) => config.name == ResnetName::ClipResnet,
        other => family(other) == Some(VitFamily::Clip),
    }
}

fn family(backbone: &BackboneConfig) -> Option<VitFamily> {
    match backbone {
        BackboneConfig::Vit(config) => Some(config.name.family()),
        _ => None,
    }
}

/// Whether the learning rate should fall towards its first layers: of plain vision transformers.
pub(super) fn decays(backbone: &BackboneConfig) -> bool {
    family(backbone).is_some()
}
