//! A detector's sizes, read off its parameters' shapes. What no shape tells stays as the settings
//! have it: attention heads, temperature, frozen stages, the backbone's norm.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::Tensor;

use crate::{
    checkpoint_io::backbones::Layout,
    error::{Error, Result},
    models::{
        backbone::{BackboneConfig, ResnetConfig, ResnetName},
        dino::DinoConfig,
        projection::ProjectionKind,
    },
};

const BACKBONE: &str = "backbone.0.";
/// Of a ResNet.
const BODY: &str = "backbone.0.body.";
const HINT: &str = "the file is of another detector, or its backbone is none that this program has";

/// The shapes of tensors, by name.
struct Shapes<'a> {
    values: &'a BTreeMap<String, Tensor>,
    path: &'a Path,
}

impl Shapes<'_> {
    fn side(&self, name: &str, axis: usize) -> Result<i64> {
        let tensor = self.values.get(name).ok_or_else(|| {
            Error::invalid(self.path, name, "missing: it tells the detector's size").with_hint(HINT)
        })?;
        tensor.size().get(axis).copied().filter(|&side| side > 0).ok_or_else(|| {
            let problem = format!("expected a side {axis}, got shape {:?}", tensor.size());
            Error::invalid(self.path, name, problem).with_hint(HINT)
        })
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// How many different numbers follow the prefix.
    fn count(&self, prefix: &str) -> i64 {
        let numbers = self
            .values
            .keys()
            .filter_map(|k| k.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok());
        numbers.collect::<BTreeSet<_>>().len() as i64
    }

    /// Sampling points a head and level, from the width of an attention's offsets.
    fn points(&self, attention: &str, heads: i64, levels: i64) -> Result<i64> {
        let name = format!("{attention}.sampling_offsets.bias");
        let width = self.side(&name, 0)?;
        let each = heads * levels * 2;
        if width % each != 0 {
            let problem = format!(
                "{width} offsets, which {heads} heads and {levels} levels do not share out evenly"
            );
            return Err(Error::invalid(self.path, name, problem).with_hint(
                "no shape tells the attention heads: set model.dino.transformer.nheads",
            ));
        }
        Ok(width / each)
    }
}

/// The sizes of the detector that these parameters, under our names, are of.
pub(super) fn infer(
    values: &BTreeMap<String, Tensor>,
    given: &DinoConfig,
    path: &Path,
) -> Result<DinoConfig> {
    let shapes = Shapes { values, path };
    let mut config = given.clone();
    let transformer = &mut config.transformer;
    transformer.hidden_dim = shapes.side("input_proj.0.0.weight", 0)?;
    transformer.num_feature_levels = shapes.count("input_proj.");
    transformer.enc_layers = shapes.count("transformer.encoder.layers.");
    transformer.dec_layers = shapes.count("transformer.decoder.layers.");
    transformer.dim_feedforward = shapes.side("transformer.encoder.layers.0.linear1.weight", 0)?;
    if shapes.has("transformer.tgt_embed.weight") {
        transformer.num_queries = shapes.side("transformer.tgt_embed.weight", 0)?;
    }
    let (heads, levels) = (transformer.nheads, transformer.num_feature_levels);
    let attention = |part: &str| format!("transformer.{part}");
    transformer.enc_n_points =
        shapes.points(&attention("encoder.layers.0.self_attn"), heads, levels)?;
    transformer.dec_n_points =
        shapes.points(&attention("decoder.layers.0.cross_attn"), heads, levels)?;
    config.class_projection = if shapes.has("class_embed.dino_visual_proj.layers.0.weight") {
        ProjectionKind::Mlp
    } else {
        ProjectionKind::Linear
    };
    config.backbone = backbone(&shapes, &given.backbone)?;
    config.return_interm_indices = stages(&shapes, &config)?;
    Ok(config)
}

/// The backbone's kind and sizes; its other settings are the given ones, where they are of that kind.
fn backbone(shapes: &Shapes, given: &BackboneConfig) -> Result<BackboneConfig> {
    let body = |name: &String| name.starts_with(BODY);
    if !shapes.values.keys().any(body) {
        let below = |(name, t): (&String, &Tensor)| {
            Some((name.strip_prefix(BACKBONE)?.to_owned(), t.shallow_clone()))
        };
        let own: BTreeMap<String, Tensor> = shapes.values.iter().filter_map(below).collect();
        if let Some(sizes) = Layout::of(&own).and_then(|layout| layout.config(&own)) {
            return Ok(sizes.with_training_of(given));
        }
    }
    let given = match given {
        BackboneConfig::Resnet(config) => config.clone(),
        _ => ResnetConfig::default(),
    };
    resnet(shapes, &given).map(BackboneConfig::Resnet)
}

/// A ResNet's name, width and blocks; its other settings are the given ones.
fn resnet(shapes: &Shapes, given: &ResnetConfig) -> Result<ResnetConfig> {
    let has = |name: &str| shapes.has(&format!("{BODY}{name}"));
    let layers: Vec<i64> = (1..=4).map(|i| shapes.count(&format!("{BODY}layer{i}."))).collect();
    let width = shapes.side(&format!("{BODY}layer1.0.conv1.weight"), 0)?;
    let name = match (has("conv3.weight"), has("layer1.0.conv3.weight")) {
        (true, _) => ResnetName::ClipResnet,
        (false, true) if layers[2] > 6 => ResnetName::Resnet101,
        (false, true) => ResnetName::Resnet50,
        (false, false) if layers[0] > 2 => ResnetName::Resnet34,
        (false, false) => ResnetName::Resnet18,
    };
    // Blocks are spelled out only where they are not the backbone's own.
    let layers = if layers == name.blocks() { Vec::new() } else { layers };
    Ok(ResnetConfig { name, width, layers, ..given.clone() })
}

/// Which stages of the backbone the projections take. Their numbers of channels tell.
fn stages(shapes: &Shapes, config: &DinoConfig) -> Result<Vec<usize>> {
    let channels: Vec<i64> = config.backbone.levels().iter().map(|l| l.channels).collect();
    let mut stages = Vec::new();
    for level in 0..config.transformer.num_feature_levels {
        let name = format!("input_proj.{level}.0.weight");
        // Levels after the backbone's own are made with 3×3 convolutions.
        if shapes.side(&name, 2)? != 1 {
            break;
        }
        let input = shapes.side(&name, 1)?;
        let stage = channels.iter().position(|&c| c == input).ok_or_else(|| {
            let problem = format!("{input} channels, of a backbone that gives {channels:?}");
            Error::invalid(shapes.path, name.clone(), problem).with_hint(HINT)
        })?;
        stages.push(stage);
    }
    Ok(stages)
}
