//! A Faster R-CNN's sizes, read off its parameters' shapes. What no shape tells stays as the settings have it:
//! the classifier, overlaps, thresholds, the backbone's norm and frozen stages.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::Tensor;

use super::keys::Origin;
use crate::{
    error::{Error, Result},
    models::{
        backbone::{BackboneConfig, ResnetConfig, ResnetName},
        faster_rcnn::{BoxHeadKind, BoxPredictor, Classifier, FasterRcnnConfig, Variant},
        projection::ProjectionKind,
    },
};

const BODY: &str = "backbone.body.";
const HINT: &str = "the file is of another detector, or its backbone is no ResNet";

fn side(values: &BTreeMap<String, Tensor>, name: &str, axis: usize, path: &Path) -> Result<i64> {
    let tensor = values.get(name).ok_or_else(|| {
        Error::invalid(path, name, "missing: it tells the detector's size").with_hint(HINT)
    })?;
    tensor.size().get(axis).copied().filter(|&side| side > 0).ok_or_else(|| {
        let problem = format!("expected a side {axis}, got shape {:?}", tensor.size());
        Error::invalid(path, name, problem).with_hint(HINT)
    })
}

/// How many different numbers follow the prefix.
fn count(values: &BTreeMap<String, Tensor>, prefix: &str) -> i64 {
    let numbers = values
        .keys()
        .filter_map(|k| k.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok());
    numbers.collect::<BTreeSet<_>>().len() as i64
}

/// The sizes of the detector that these values, under our names, are of.
pub(super) fn infer(
    values: &BTreeMap<String, Tensor>,
    origin: Origin,
    given: &FasterRcnnConfig,
    path: &Path,
) -> Result<FasterRcnnConfig> {
    let mut config = given.clone();
    let side = |name: &str, axis: usize| side(values, name, axis, path);
    config.variant = match origin {
        Origin::Torchvision => Variant::Torchvision,
        Origin::Detectron2 | Origin::Caffe2 => Variant::Detectron2,
    };
    config.backbone = backbone(values, resnet(given, path)?, path)?.into();
    config.fpn_dim = side("backbone.fpn.inner_blocks.0.0.weight", 0)?;
    let anchors = side("rpn.head.cls_logits.weight", 0)?;
    if anchors != config.rpn.aspect_ratios.len() as i64 {
        let problem = format!(
            "{anchors} anchors a cell, and the settings have {} ratios",
            config.rpn.aspect_ratios.len()
        );
        return Err(Error::invalid(path, "rpn.head.cls_logits.weight", problem)
            .with_hint("set model.faster_rcnn.rpn.aspect_ratios as the detector was trained"));
    }
    let stages = count(values, "roi_heads.box_head.");
    let of = |part: &str| match stages {
        0 => format!("roi_heads.{part}."),
        _ => format!("roi_heads.{part}.0."),
    };
    if stages > 1 && config.roi.iou.len() as i64 != stages {
        if given.roi.iou != FasterRcnnConfig::default().roi.iou || stages != 3 {
            let problem = format!("{stages} stages, and the settings have {:?}", given.roi.iou);
            return Err(Error::invalid(path, "roi_heads.box_head", problem)
                .with_hint("set model.faster_rcnn.roi.iou: an overlap for each stage"));
        }
        // Cascade R-CNN's; detection does not look at them.
        config.roi.iou = vec![0.5, 0.6, 0.7];
    }
    let (head, predictor) = (of("box_head"), of("box_predictor"));
    config.roi.head = match values.contains_key(&format!("{head}conv1.weight")) {
        true => BoxHeadKind::FourConvOneFc,
        false => BoxHeadKind::TwoFc,
    };
    let first = format!("{head}fc6.weight");
    config.roi.dim = side(&first, 0)?;
    let bins = side(&first, 1)? / config.fpn_dim;
    config.roi.pool = (bins as f64).sqrt().round() as i64;
    if config.roi.pool * config.roi.pool * config.fpn_dim != side(&first, 1)? {
        let problem = format!("{bins} bins of a box, which are no square");
        return Err(Error::invalid(path, first, problem).with_hint(HINT));
    }
    let mlp = format!("{predictor}bbox_pred.2.weight");
    let boxes = match values.contains_key(&mlp) {
        true => {
            config.roi.box_predictor = BoxPredictor::Mlp;
            mlp
        }
        false => format!("{predictor}bbox_pred.weight"),
    };
    config.roi.class_agnostic = side(&boxes, 0)? == 4;
    if values.contains_key(&format!("{predictor}cls_score.linear.weight")) {
        config.classifier = Classifier::Sigmoid;
        config.class_projection = ProjectionKind::Affine;
    }
    Ok(config)
}

/// The backbone's name, width and blocks; its other settings are the given ones.
fn backbone(
    values: &BTreeMap<String, Tensor>,
    given: &ResnetConfig,
    path: &Path,
) -> Result<ResnetConfig> {
    let has = |name: &str| values.contains_key(&format!("{BODY}{name}"));
    let layers: Vec<i64> = (1..=4).map(|i| count(values, &format!("{BODY}layer{i}."))).collect();
    let width = side(values, &format!("{BODY}layer1.0.conv1.weight"), 0, path)?;
    let name = match has("layer1.0.conv3.weight") {
        true if layers[2] > 6 => ResnetName::Resnet101,
        true => ResnetName::Resnet50,
        false if layers[0] > 2 => ResnetName::Resnet34,
        false => ResnetName::Resnet18,
    };
    let layers = if layers == name.blocks() { Vec::new() } else { layers };
    Ok(ResnetConfig { name, width, layers, weights: None, ..given.clone() })
}

/// The settings of the backbone, which is a ResNet in all files that are read.
pub(super) fn resnet<'a>(config: &'a FasterRcnnConfig, path: &Path) -> Result<&'a ResnetConfig> {
    match &config.backbone {
        BackboneConfig::Resnet(resnet) => Ok(resnet),
        other => {
            let problem = format!("a ResNet in the file, and {} in the settings", other.describe());
            Err(Error::invalid(path, "backbone", problem)
                .with_hint("convert it with the settings of its own backbone"))
        }
    }
}
