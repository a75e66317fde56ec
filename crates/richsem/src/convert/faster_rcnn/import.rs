//! Checkpoints of torchvision and detectron2 as this program's detectors.

use std::{collections::BTreeMap, path::Path};

use tch::{Device, Kind, Tensor};

use super::{
    super::{Conversion, Fate, Form, MASKED, Options, Product, Report, Source, dino::rows_of},
    MSRA_MEAN, MSRA_STD, Rows, STEM, background_first, in_order,
    keys::{self, Origin, Place},
    own_rows, rows, sees_blue_first,
    sizes::{self, resnet},
};
use crate::{
    argument::Argument,
    checkpoint_io::{
        checked_text_table,
        fit::{Fit, Mismatch},
        read_text_table,
    },
    detector::{ClassSet, Detector},
    error::{Error, Result, guarded},
    models::{
        backbone::{Norm, ResnetName},
        class_head::TextTable,
        config::{ClassHeadConfig, FamilyConfig, ModelConfig},
        faster_rcnn::{Classifier, FasterRcnnConfig},
        padding::Padding,
        parameters::ParameterStore,
    },
    vocabulary::Vocabulary,
};

const ANNOTATIONS: &str = "give an annotation file of the set it was trained on, as instances_val2017.json; of it \
                           only the categories are used";
/// Variance of a norm that only scales and shifts: with its eps it is 1.
const NO_VARIANCE: f64 = 1.0 - 1e-5;

type Tensors = BTreeMap<String, Tensor>;

/// Values by our names, of a checkpoint of torchvision that a detector is to start from. Rows of classes are as
/// the checkpoint has them: it does not say of which classes they are.
///
/// # Errors
/// A checkpoint of detectron2, of which the settings must say how it sees pixels.
pub(in crate::convert) fn initial_values(source: Source, origin: Origin) -> Result<Tensors> {
    if origin != Origin::Torchvision {
        let problem = "detectron2's checkpoints do not say how they see pixels";
        return Err(Error::invalid(&source.path, "weights", problem)
            .with_hint("`richsem convert` makes a detector of it, which --init takes"));
    }
    let renamed =
        source.tensors.into_iter().filter_map(|(name, tensor)| match keys::place(origin, &name) {
            Place::Parameter(ours) => Some((ours, tensor)),
            Place::Left(_) | Place::Text => None,
            Place::Unknown => Some((name, tensor)),
        });
    Ok(renamed.collect())
}

/// A checkpoint as a detector.
///
/// # Errors
/// Classes that are needed and missing, sizes that contradict each other.
pub(in crate::convert) fn from_checkpoint(
    source: Source,
    origin: Origin,
    options: &Options,
) -> Result<Conversion> {
    let path = source.path.clone();
    let mut report = Report::new(source.describe(), "a detector of this program");
    let Some(vocabulary) = options.vocabulary.clone() else {
        let problem = "the checkpoint has no names of its classes";
        return Err(Error::argument(Argument::Annotations, problem).with_hint(ANNOTATIONS));
    };
    report.add_beside(&source.beside);
    let (mut values, places) = placed(&source.tensors, origin);
    let mut config = options.config.clone();
    let rcnn = settle(&mut config.model, &values, origin, (&path, &mut report))?;
    if origin != Origin::Torchvision
        && sees_blue_first(&config.model)
        && let Some(stem) = values.get_mut(STEM)
    {
        // Ours sees red, green, blue.
        *stem = stem.f_flip([1i64])?;
    }
    if resnet(&rcnn, &path)?.norm != Norm::GroupNorm {
        add_statistics(&mut values);
    }
    let text = match values.keys().any(|name| name.ends_with(".cls_score.linear.weight")) {
        true => Some(text(&source, options, &vocabulary)?),
        false => None,
    };
    config.model.class_head = match &text {
        Some(_) => ClassHeadConfig::Text { table: None },
        None => ClassHeadConfig::Linear {},
    };
    let classifier = rcnn.classifier;
    config.model.family = FamilyConfig::FasterRcnn(rcnn);
    let in_part = match &text {
        Some(_) => BTreeMap::new(),
        None => {
            let classes = rows_of_classes(&values, origin, &vocabulary, &path)?;
            take_rows(&mut values, origin, &classes, classifier)?
        }
    };
    let detector = guarded(|| {
        let classes = ClassSet::new(vocabulary, text.as_ref(), Device::Cpu)?;
        Detector::of(&config, classes, ParameterStore::new(Device::Cpu, options.seed))
    })?;
    if text.is_some() {
        // Detic's factor on the cosines.
        detector.network().set_logit_scale(50f64.ln());
        let scales = detector.weights().into_iter();
        values.extend(scales.filter(|(name, _)| name.ends_with("logit_scale")));
    }
    let fit = Fit::of(detector.store(), &values, &options.allow);
    fit.load(detector.store(), &values, &path)?;
    let mut account = Account { source: &source, options, fit: &fit, report, rest: Tensors::new() };
    account.add_tensors(&places, &in_part);
    account.add_missing(&detector);
    let Account { mut report, rest, .. } = account;
    report.output = format!("{}, {} classes", report.output, detector.vocabulary().len());
    let product = Product::Detector(Box::new(detector));
    Ok(Conversion { report, rest, form: Form::Safetensors, product })
}

/// The detector's settings: what the weights tell, and what nothing but the settings says. Without settings of a
/// Faster R-CNN it is what the origin's default models do.
fn settle(
    model: &mut ModelConfig,
    values: &Tensors,
    origin: Origin,
    (path, report): (&Path, &mut Report),
) -> Result<FasterRcnnConfig> {
    let given = model.as_faster_rcnn().cloned();
    let mut rcnn =
        sizes::infer(values, origin, given.as_ref().unwrap_or(&FasterRcnnConfig::default()), path)?;
    if *rcnn.padding.get_or_insert(Padding::Official) == Padding::Masked {
        report.notes.push(MASKED.into());
    }
    if given.is_some() {
        return Ok(rcnn);
    }
    rcnn.roi.score_threshold = 0.05;
    let note = "a score threshold of 0.05, as for COCO: model.faster_rcnn.roi.score_threshold";
    report.notes.push(note.into());
    if origin == Origin::Torchvision {
        rcnn.rpn.post_nms_train = 2000;
        return Ok(rcnn);
    }
    (model.pixel_mean, model.pixel_std) = (MSRA_MEAN, MSRA_STD);
    let mut backbone = resnet(&rcnn, path)?.clone();
    backbone.stride_in_1x1 = matches!(backbone.name, ResnetName::Resnet50 | ResnetName::Resnet101);
    rcnn.backbone = backbone.into();
    report.notes.push(
        "pixels as weights of MSRA see them, blue first and not divided, strides in the 1×1 convolutions: \
         detectron2's default, which no tensor tells. Settings with model.kind = \"faster_rcnn\" say something else"
            .into(),
    );
    Ok(rcnn)
}

/// Puts the rows of our classes in the place of all rows. Returns in words what was done, by the name of each
/// tensor that changed.
fn take_rows(
    values: &mut Tensors,
    origin: Origin,
    classes: &[i64],
    classifier: Classifier,
) -> Result<BTreeMap<String, String>> {
    let mut in_part = BTreeMap::new();
    for (name, tensor) in values {
        let Some(what) = rows(name) else { continue };
        let count = tensor.size().first().copied().unwrap_or(0);
        let Some(own) = own_rows(what, count, origin, classes, classifier) else { continue };
        let own = tensor.f_index_select(0, &Tensor::from_slice(&own))?;
        if own.size() != tensor.size() {
            let taken = own.size()[0];
            in_part.insert(name.clone(), format!("{taken} of {count} rows, in our order"));
        } else if what == Rows::Classes && background_first(origin) {
            in_part.insert(name.clone(), "the background's row goes last".into());
        }
        *tensor = own;
    }
    Ok(in_part)
}

/// What becomes of each tensor.
struct Account<'a> {
    source: &'a Source,
    options: &'a Options,
    fit: &'a Fit,
    report: Report,
    /// What the detector does not hold whole.
    rest: Tensors,
}

/// The report of something that does not fit.
fn judged(what: String, allowed: bool) -> Fate {
    if allowed { Fate::Allowed(what) } else { Fate::Problem(what) }
}

impl Account<'_> {
    /// How a parameter of ours differs from the checkpoint's, and whether that is allowed; none if it does not.
    fn difference(&self, ours: &str) -> Option<(&Mismatch, bool)> {
        let of = |all: &'_ [Mismatch]| all.iter().position(|mismatch| mismatch.name() == ours);
        let Fit { mismatches, allowed } = self.fit;
        of(mismatches)
            .map(|at| (&mismatches[at], false))
            .or_else(|| of(allowed).map(|at| (&allowed[at], true)))
    }

    fn add_tensors(
        &mut self,
        places: &BTreeMap<String, Place>,
        in_part: &BTreeMap<String, String>,
    ) {
        for (name, place) in places {
            let tensor = &self.source.tensors[name];
            let (fate, whole) = match place {
                Place::Left(why) => (Fate::Left((*why).into()), false),
                Place::Text => (text_fate(self.options), false),
                Place::Unknown => {
                    (judged("unexpected".into(), self.options.allow.allow(name)), false)
                }
                Place::Parameter(ours) => match (self.difference(ours), in_part.get(ours)) {
                    (Some((mismatch, allowed)), _) => {
                        (judged(mismatch.to_string(), allowed), false)
                    }
                    (None, Some(how)) => (Fate::TakenAs(how.clone()), false),
                    (None, None) if ours == name => (Fate::Taken, true),
                    (None, None) => (Fate::TakenAs(format!("as {ours}")), true),
                },
            };
            if !whole {
                self.rest.insert(name.clone(), tensor.shallow_clone());
            }
            self.report.add(name.clone(), tensor.numel(), fate);
        }
    }

    /// The parameters that the checkpoint does not have.
    fn add_missing(&mut self, detector: &Detector) {
        for parameter in detector.parameters() {
            if let Some((Mismatch::Missing(name), allowed)) = self.difference(&parameter.name) {
                let why = if allowed { "missing, starts anew" } else { "missing" };
                let (name, fate) = (name.clone(), judged(why.into(), allowed));
                self.report.add(name, parameter.tensor.numel(), fate);
            }
        }
    }
}

/// The values by our names, and what each name of the checkpoint is.
fn placed(tensors: &Tensors, origin: Origin) -> (Tensors, BTreeMap<String, Place>) {
    let (mut values, mut places) = (Tensors::new(), BTreeMap::new());
    for (name, tensor) in tensors {
        let place = keys::place(origin, name);
        if let Place::Parameter(ours) = &place {
            values.insert(ours.clone(), tensor.to_kind(Kind::Float));
        }
        places.insert(name.clone(), place);
    }
    (values, places)
}

/// Norms that only scale and shift have no statistics.
fn add_statistics(values: &mut Tensors) {
    let norm = |name: &str| {
        let part = name.strip_suffix(".weight")?;
        let last = part.rsplit('.').next()?;
        let is_norm = last.starts_with("bn") || part.ends_with("downsample.1");
        (part.starts_with("backbone.body.") && is_norm).then(|| part.to_owned())
    };
    let missing: Vec<(String, Tensor)> = values
        .iter()
        .filter_map(|(name, weight)| Some((norm(name)?, weight)))
        .filter(|(part, _)| !values.contains_key(&format!("{part}.running_mean")))
        .flat_map(|(part, weight)| {
            [
                (format!("{part}.running_mean"), weight.zeros_like()),
                (format!("{part}.running_var"), weight.full_like(NO_VARIANCE)),
            ]
        })
        .collect();
    values.extend(missing);
}

/// As [`numbers_of`].
///
/// # Errors
/// Rows that are not our classes'.
fn rows_of_classes(
    values: &Tensors,
    origin: Origin,
    vocabulary: &Vocabulary,
    path: &Path,
) -> Result<Vec<i64>> {
    let name = values.keys().find(|name| rows(name) == Some(Rows::Classes));
    let Some((name, tensor)) = name.and_then(|name| values.get_key_value(name)) else {
        return Ok(Vec::new());
    };
    let count = tensor.size().first().copied().unwrap_or(0);
    numbers_of(vocabulary, count, origin).ok_or_else(|| {
        let classes = vocabulary.len();
        let problem = format!(
            "{count} rows, of {classes} classes: expected {}, one a class and one for the background",
            classes + 1
        );
        Error::invalid(path, name.clone(), problem).with_hint(ANNOTATIONS)
    })
}

/// The numbers of our classes in a checkpoint of `count` rows: by category id if all ids have a row, as in
/// torchvision's models for COCO; else in order, and then there must be one for each class and one for the
/// background. None if it is neither.
pub(super) fn numbers_of(vocabulary: &Vocabulary, count: i64, origin: Origin) -> Option<Vec<i64>> {
    let classes = vocabulary.len() as i64;
    let by_id = match origin {
        Origin::Torchvision if count != classes + 1 => rows_of(vocabulary, count),
        _ => None,
    };
    match by_id {
        Some(ids) if !ids.contains(&0) => Some(ids),
        _ => (count == classes + 1).then(|| in_order(origin, classes)),
    }
}

/// What becomes of the text that a checkpoint holds.
fn text_fate(options: &Options) -> Fate {
    match options.config.model.class_head {
        ClassHeadConfig::Text { table: Some(_) } => {
            Fate::Left("the text table, which the settings name".into())
        }
        _ => Fate::TakenAs("as the text table".into()),
    }
}

/// The text table of a class head against text: that of the settings, or else the checkpoint's own.
///
/// # Errors
/// A table that cannot be read or is of other classes; none at all.
fn text(source: &Source, options: &Options, vocabulary: &Vocabulary) -> Result<TextTable> {
    if let ClassHeadConfig::Text { table: Some(table) } = &options.config.model.class_head {
        return read_text_table(table, vocabulary);
    }
    let path = &source.path;
    let is_text = |name: &str| keys::place(Origin::Detectron2, name) == Place::Text;
    let own = source.tensors.iter().find(|(name, _)| is_text(name));
    let Some((name, columns)) = own else {
        let problem =
            "the class head compares with text, and neither file nor settings have a table";
        return Err(Error::invalid(path, "roi_heads.box_predictor.cls_score", problem).with_hint(
            "set model.class_head.kind = \"text\" and model.class_head.table to embeddings of the classes, as \
             Detic's lvis_v1_clip_a+cname.npy, and model.kind = \"faster_rcnn\" with \
             model.faster_rcnn.classifier = \"sigmoid\" and roi.class_agnostic = true",
        ));
    };
    let classes = vocabulary.len() as i64;
    if columns.dim() != 2 || columns.size()[1] != classes + 1 {
        let problem = format!(
            "expected [width, {}], a column for each of {classes} classes and one for the background, got {:?}",
            classes + 1,
            columns.size()
        );
        return Err(Error::invalid(path, name.clone(), problem).with_hint(ANNOTATIONS));
    }
    let rows = columns.f_narrow(1, 0, classes)?.f_transpose(0, 1)?.f_contiguous()?;
    checked_text_table(&rows, vocabulary, path)
}
