//! A detector's backbone starts from a file.

use std::path::Path;

use super::{
    super::{
        prefix::{self, Found, Known},
        read_weights,
    },
    Layout, focalnet, is_new,
};
use crate::{
    error::{Error, Result},
    models::{backbone::BackboneConfig, parameters::ParameterStore},
};

/// What a backbone was started from.
#[derive(Debug)]
pub struct LoadedBackbone {
    /// What the file holds, as `a Swin Transformer with timm's names`.
    pub what: String,
    /// Below which prefix of the names it was, as `backbone.`; empty where there was none.
    pub prefix: String,
    /// Parameters that it does not have and that start anew: norms of the outputs, ViTDet's pyramid and
    /// relative positions, which only detectors have.
    pub anew: Vec<String>,
}

/// Where Faster R-CNN keeps its backbone.
const OF_TWO_STAGES: &str = "backbone.body.";

/// Where a detector keeps its backbone.
fn place(config: &BackboneConfig, store: &ParameterStore) -> &'static str {
    let two_stages = store.named_tensors().keys().any(|name| name.starts_with(OF_TWO_STAGES));
    match config {
        _ if two_stages => OF_TWO_STAGES,
        BackboneConfig::Resnet(_) => "backbone.0.body.",
        _ => "backbone.0.",
    }
}

/// Whether weights of that layout can be those of such a backbone.
fn is_kind(layout: Layout, config: &BackboneConfig) -> bool {
    match config {
        BackboneConfig::Resnet(_) => layout == Layout::Resnet,
        BackboneConfig::Swin(_) => matches!(layout, Layout::Swin(_)),
        BackboneConfig::Focalnet(_) => matches!(layout, Layout::Focalnet(_)),
        BackboneConfig::Convnext(_) => matches!(layout, Layout::Convnext(_)),
        BackboneConfig::Vit(_) => matches!(layout, Layout::Vit(..)),
    }
}

/// Starts the backbone of a detector, which has these settings, from a file of published weights, or from
/// that of a model that has such a backbone. What follows the backbone (classifier, CLIP's text tower) is not
/// for it.
///
/// # Errors
/// A file that [`read_weights`] does not read; weights of another architecture or size, with both; every
/// other difference at once.
pub fn load_backbone(
    store: &ParameterStore,
    config: &BackboneConfig,
    path: &Path,
) -> Result<LoadedBackbone> {
    let Found { tensors, prefix, .. } =
        prefix::find(read_weights(path)?, &[Known::Backbone], path)?;
    // A file that is no backbone at all has the names of none: the differences say so.
    let layout = Layout::of(&tensors);
    let what = layout.map_or_else(|| "weights of no known backbone".to_owned(), Layout::describe);
    if let Some(layout) = layout.filter(|layout| !is_kind(*layout, config)) {
        return Err(other(path, &layout.describe(), config));
    }
    let layout = layout.unwrap_or(Layout::Resnet);
    let mut sorted = layout.sort(tensors);
    if let BackboneConfig::Focalnet(config) = config {
        focalnet::widen(&mut sorted.tensors, config);
    }
    if let Some(of) = layout.config(&sorted.tensors) {
        let (of, own) = (of.with_training_of(config).describe(), config.describe());
        if of != own {
            return Err(other(path, &of, config));
        }
    }
    let place = place(config, store);
    // The rest of the detector stays as it is.
    let mut values = store.named_tensors();
    let mut anew = Vec::new();
    values.retain(|name, _| match name.strip_prefix(place) {
        None => true,
        Some(own) => {
            let kept = is_new(own) && !sorted.tensors.contains_key(own);
            if kept {
                anew.push(own.to_owned());
            }
            kept
        }
    });
    values.extend(sorted.tensors.into_iter().map(|(name, t)| (format!("{place}{name}"), t)));
    let loaded = store.load(&values, path);
    loaded.map(|()| LoadedBackbone { what, prefix, anew }).map_err(|e| match e {
        // Names and shapes; values that are not finite have a hint of their own.
        Error::Invalid { ref field, .. } if field == "weights" => e.with_hint(
            "the model's backbone (name, width, layers, norm) must be that of these weights",
        ),
        other => other,
    })
}

fn other(path: &Path, what: &str, config: &BackboneConfig) -> Error {
    let problem = format!("{what}, and the model's backbone is {}", config.describe());
    Error::invalid(path, "weights", problem)
        .with_hint("set the model's backbone as these weights are, or use other weights")
}
