//! A detector as a checkpoint of the code that it computes as.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use super::{
    super::{Conversion, Fate, Form, Options, Product, Report, Source},
    MSRA_STD, STEM,
    keys::{self, Origin},
    rows, to_theirs,
};
use crate::{
    argument::Argument,
    checkpoint_io::read_weights,
    detector::{Detector, TEXT_TABLE},
    error::{Error, Result},
    models::faster_rcnn::{FasterRcnnConfig, Variant},
};

/// A detector under the names of torchvision (a state dict) or detectron2 (`{"model": …}`), as its `variant`
/// says. What an earlier conversion left over takes its place again, where the detector has no part of it.
///
/// # Errors
/// Arguments that have no meaning here, a file of leftovers that cannot be read.
pub(in crate::convert) fn to_pth(
    source: Source,
    detector: &Detector,
    rcnn: &FasterRcnnConfig,
    options: &Options,
) -> Result<Conversion> {
    if options.clip.is_some() {
        let problem = "a Faster R-CNN's checkpoint holds no CLIP";
        return Err(Error::argument(Argument::Clip, problem).with_hint("leave it out"));
    }
    let (origin, key) = match rcnn.variant {
        Variant::Torchvision => (Origin::Torchvision, None),
        Variant::Detectron2 => (Origin::Detectron2, Some("model")),
    };
    let output = format!("a checkpoint of {}", origin.name());
    let mut report = Report::new(source.describe(), output);
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let blue_first = origin == Origin::Detectron2
        && detector
            .config()
            .model
            .pixel_std
            .iter()
            .zip(MSRA_STD)
            .all(|(a, b)| (a - b).abs() < 1e-6);
    for (name, tensor) in detector.weights() {
        let theirs = keys::theirs(origin, &name);
        if name.ends_with("logit_scale") {
            let why = "their code has it in its settings";
            report.add(name, tensor.numel(), Fate::Left(why.into()));
            continue;
        }
        let own = match rows(&name) {
            Some(what) if detector.classes().text().is_none() => {
                to_theirs((&tensor, what), origin, rcnn.classifier)
            }
            _ if name == STEM && blue_first => tensor.f_flip([1i64])?,
            _ => tensor.shallow_clone(),
        };
        let fate = match (own.size() == tensor.size(), theirs == name) {
            (true, true) => Fate::Taken,
            (true, false) => Fate::TakenAs(format!("as {theirs}")),
            (false, _) => Fate::TakenAs(format!("as {theirs}, with the background's rows")),
        };
        report.add(name, tensor.numel(), fate);
        tensors.insert(theirs, own.to_device(Device::Cpu).contiguous());
    }
    if let Some(table) = detector.classes().text() {
        let why = "their code reads it from a file";
        report.add(TEXT_TABLE, table.rows.numel(), Fate::Left(why.into()));
    }
    if let Some(file) = &options.rest {
        for (name, tensor) in read_weights(file)? {
            if !tensors.contains_key(&name) {
                let from = format!("from the file of {}", Argument::Rest);
                report.add(name.clone(), tensor.numel(), Fate::Made(from));
                tensors.insert(name, tensor);
            }
        }
    }
    let product = Product::Tensors { tensors, metadata: Default::default(), key };
    Ok(Conversion { report, rest: BTreeMap::new(), form: Form::Pth, product })
}
