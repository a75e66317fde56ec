//! A detector as a checkpoint of the code that it computes as.

use std::collections::{BTreeMap, btree_map::Entry};

use tch::{Device, Tensor};

use super::{
    super::{Conversion, Fate, Form, Options, Product, Report, Source},
    Rows, STEM,
    import::numbers_of,
    in_order,
    keys::{self, Origin},
    own_rows, row_count, rows, sees_blue_first,
};
use crate::{
    argument::Argument,
    checkpoint_io::read_weights,
    detector::{Detector, TEXT_TABLE},
    error::{Error, Result},
    models::{
        faster_rcnn::{FasterRcnnConfig, Variant},
        padding::Padding,
    },
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
    let blue_first = origin == Origin::Detectron2 && sees_blue_first(&detector.config().model);
    if rcnn.padding() == Padding::Masked {
        report.notes.push(format!(
            "trained with padding masked: in batches of padded images, and images that are padded to a multiple, \
             {} finds slightly other boxes; to convert it back, set model.faster_rcnn.padding to \"masked\"",
            origin.name()
        ));
    }
    let mut rest = match &options.rest {
        Some(file) => read_weights(file)?,
        None => BTreeMap::new(),
    };
    for (name, tensor) in detector.weights() {
        let theirs = keys::theirs(origin, &name);
        if name.ends_with("logit_scale") {
            let why = "their code has it in its settings";
            report.add(name, tensor.numel(), Fate::Left(why.into()));
            continue;
        }
        let own = match rows(&name) {
            Some(what) if detector.classes().text().is_none() => {
                spread((&tensor, what), origin, rcnn, detector, rest.remove(&theirs))?
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
    for (name, tensor) in rest {
        if let Entry::Vacant(place) = tensors.entry(name) {
            let from = format!("from the file of {}", Argument::Rest);
            report.add(place.key().clone(), tensor.numel(), Fate::Made(from));
            place.insert(tensor);
        }
    }
    let product = Product::Tensors { tensors, metadata: Default::default(), key };
    Ok(Conversion { report, rest: BTreeMap::new(), form: Form::Pth, product })
}

/// Our rows among a checkpoint's. The others are those of `base`, which an earlier conversion left over, or zeros:
/// of a sigmoid the background's row, of torchvision the background's boxes. Nothing looks at them.
fn spread(
    (tensor, what): (&Tensor, Rows),
    origin: Origin,
    rcnn: &FasterRcnnConfig,
    detector: &Detector,
    base: Option<Tensor>,
) -> Result<Tensor> {
    if what == Rows::Boxes && rcnn.roi.class_agnostic {
        return Ok(tensor.shallow_clone());
    }
    let classes = detector.vocabulary().len() as i64;
    let (all, numbers) = match base {
        Some(base) => {
            let count = base.size().first().copied().unwrap_or(0);
            let per_class = if what == Rows::Boxes { count / 4 } else { count };
            // Of detectron2 the background has no boxes.
            let with_background =
                per_class + i64::from(what == Rows::Boxes && row_count(what, origin, 0) == 0);
            let numbers = numbers_of(detector.vocabulary(), with_background, origin);
            let numbers = numbers.filter(|_| base.size()[1..] == tensor.size()[1..]);
            let numbers = numbers.ok_or_else(|| {
                let problem = format!("shape {:?} in the file of {}", base.size(), Argument::Rest);
                Error::config("roi_heads.box_predictor", problem)
                    .with_hint("it is of another conversion")
            })?;
            (base.to_kind(tensor.kind()).copy(), numbers)
        }
        None => {
            let mut size = tensor.size();
            size[0] = row_count(what, origin, classes);
            (Tensor::zeros(&*size, (tensor.kind(), tensor.device())), in_order(origin, classes))
        }
    };
    let own = own_rows(what, all.size()[0], origin, &numbers, rcnn.classifier);
    let own = own.unwrap_or_else(|| (0..all.size()[0]).collect());
    Ok(all.f_index_copy(0, &Tensor::from_slice(&own), tensor)?)
}
