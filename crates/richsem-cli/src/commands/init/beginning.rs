//! What a run starts from, by the file of weights.

use std::path::Path;

use anyhow::{Result, anyhow};
use richsem::{
    config::Config,
    convert::{Kind, Source, dino::keys::Variant},
    detector::Detector,
    doctor::scheme::Value,
    recipe::Beginning,
    shell::quoted,
};
use tch::Device;

use super::{Args, text};
use crate::args::weights_file;

/// What the weights are, and what should be known of them.
pub(super) fn beginning(args: &Args, folder: Option<&Path>) -> Result<(Beginning, Vec<String>)> {
    let Some(path) = &args.weights else { return Ok((Beginning::Scratch, Vec::new())) };
    let file = weights_file(path, "--weights")?;
    let weights = text(&file, folder)?;
    let source = Source::read(&file, None)?;
    let mut what = format!("{}: {}", file.display(), source.describe());
    if let Some(backbone) = source.backbone() {
        if matches!(source.kind, Kind::Backbone(_)) {
            what += &format!(" ({})", backbone.describe());
        }
        return Ok((Beginning::Backbone { weights, backbone: Box::new(backbone) }, vec![what]));
    }
    let beginning = match source.kind {
        Kind::Detector => Beginning::Detector { weights, settings: settings_of(&file)? },
        Kind::Official(layout) if layout.variant == Variant::Dino => {
            Beginning::Official { weights }
        }
        Kind::Resnet(_) | Kind::Backbone(_) => {
            return Err(anyhow!(
                "--weights: {what}, whose tensors do not tell its sizes\n  hint: run `richsem init` without \
                 --weights, set model.dino.backbone.kind, name and sizes (docs/backbones.md), and these weights as \
                 model.dino.backbone.weights"
            ));
        }
        Kind::Official(_) | Kind::FasterRcnn(_) => {
            return Err(anyhow!(
                "--weights: {what}: its settings cannot be told from the file\n  hint: make it a detector of \
                 this program first (richsem convert {} detector.safetensors --annotations …)",
                quoted(&file)
            ));
        }
        Kind::Clip => {
            return Err(anyhow!(
                "--weights: {what}, which labels boxes as a teacher\n  hint: name it in [teacher] \
                 (docs/richsem.md). To start from its image encoder, set model.dino.backbone as \
                 configs/dino_clip_vit_b16.toml does"
            ));
        }
    };
    Ok((beginning, vec![what]))
}

/// What a detector has differently from the defaults: its network, and the sizes of its images.
fn settings_of(file: &Path) -> Result<Vec<(String, Value)>> {
    let detector = Detector::load(file, Device::Cpu)?;
    let defaults = Config::defaults(&[])?;
    let mut config = defaults.clone();
    config.model = detector.config().model.clone();
    config.data.resize = detector.config().resize.clone();
    config.data.pad_multiple = detector.config().pad_multiple;
    let mut settings = Vec::new();
    for difference in config.differences(&defaults) {
        let table: Option<toml::Table> = format!("v = {}", difference.first).parse().ok();
        if let Some(value) = table.and_then(|mut table| table.remove("v")) {
            settings.push((difference.key, value));
        }
    }
    let resize = &config.data.resize;
    if *resize != defaults.data.resize {
        // As the detector sees images, it learns from them.
        let scales: Vec<Value> = (0..5)
            .map(|step| (resize.size as f64 * (0.8 + 0.05 * f64::from(step))).round() as i64)
            .map(Value::Integer)
            .collect();
        settings.push(("data.augment.scales".to_owned(), Value::Array(scales)));
        settings.push(("data.augment.max_size".to_owned(), i64::from(resize.max_size).into()));
    }
    Ok(settings)
}
