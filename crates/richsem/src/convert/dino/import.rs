//! Official checkpoints as this program's detectors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::{Device, Kind, Tensor};

use super::{
    super::{Conversion, Fate, Form, MASKED, Options, Product, Report, Source},
    keys::{self, ClipCopy, Layout, Sorted, Variant},
    sizes,
};
use crate::{
    argument::Argument,
    checkpoint_io::{
        fit::{Fit, Mismatch},
        read_text_table, read_weights,
    },
    detector::{ClassSet, Detector},
    error::{Error, Result, guarded},
    models::{
        class_head::TextTable,
        config::{ClassHeadConfig, FamilyConfig},
        dino::{DinoConfig, transformer::TransformerConfig},
        padding::Padding,
        parameters::ParameterStore,
    },
    plural::clause,
    teacher::{
        clip::{self, Hints, PromptSet},
        text_of_clip,
    },
    vocabulary::Vocabulary,
};

/// Parameters of linear class heads. They have a row for each class.
pub(super) const LINEAR: [&str; 4] = [
    "class_embed.0.weight",
    "class_embed.0.bias",
    "transformer.enc_out_class_embed.weight",
    "transformer.enc_out_class_embed.bias",
];

const ANNOTATIONS: &str = "give an annotation file of the set it was trained on, as lvis_v1_val.json; of it \
                           only the categories are used";

/// Values by our names, of an official checkpoint that a detector is to start from.
pub(in crate::convert) fn initial_values(
    source: Source,
    layout: Layout,
) -> Result<BTreeMap<String, Tensor>> {
    let path = source.path.clone();
    let sorted = layout.sort(source.tensors);
    if let Some((key, first)) = sorted.unequal.first() {
        let problem = format!(
            "{} more names of shared modules, this one with other values than {first}",
            sorted.unequal.len()
        );
        return Err(Error::invalid(&path, key.clone(), problem)
            .with_hint("this program has one head for all decoder layers"));
    }
    let mut values = sorted.parameters;
    for (key, (fate, tensor)) in sorted.keys {
        match fate {
            keys::Fate::SemanticBranch(path) => {
                values.insert(path, tensor);
            }
            keys::Fate::Unknown => {
                values.insert(key, tensor);
            }
            _ => {}
        }
    }
    Ok(values)
}

/// An official checkpoint as a detector.
pub(in crate::convert) fn from_official(
    source: Source,
    layout: Layout,
    options: &Options,
) -> Result<Conversion> {
    let path = source.path.clone();
    let mut report = Report::new(source.describe(), "a detector of this program");
    if layout.variant == Variant::RichSemBaseline {
        return Err(no_such_detector(&path));
    }
    let Some(vocabulary) = options.vocabulary.clone() else {
        let problem = "the checkpoint has no names of its classes";
        return Err(Error::argument(Argument::Annotations, problem).with_hint(ANNOTATIONS));
    };
    report.add_beside(&source.beside);
    let sorted = layout.sort(source.tensors);
    let mut values =
        sorted.parameters.iter().map(|(k, v)| (k.clone(), v.shallow_clone())).collect();
    let mut config = options.config.clone();
    let Some(given) = config.model.as_dino() else {
        let problem = "the settings are those of a Faster R-CNN, and the checkpoint is a DINO";
        return Err(Error::config("model.kind", problem).with_hint("set kind = \"dino\""));
    };
    let dino = settings_of(&values, given, layout.variant, &path)?;
    if dino.padding == Some(Padding::Masked) {
        report.notes.push(MASKED.into());
    }
    let heads = dino.transformer.nheads;
    config.model.family = FamilyConfig::Dino(dino);
    let mut parts = Parts { sorted: &sorted, path: &path, options, report };
    let text = match layout.variant {
        Variant::RichSem => Some(parts.text(&vocabulary)?),
        _ => None,
    };
    config.model.class_head = match &text {
        Some(_) => ClassHeadConfig::Text { table: None },
        None => ClassHeadConfig::Linear {},
    };
    let rows = match layout.variant {
        Variant::RichSem => BTreeMap::new(),
        _ => select_rows(&mut values, &vocabulary, &path)?,
    };
    // What is allowed to be missing starts as in a training from scratch.
    let detector = guarded(|| {
        let classes = ClassSet::new(vocabulary, text.as_ref(), Device::Cpu)?;
        Detector::of(&config, classes, ParameterStore::new(Device::Cpu, options.seed))
    })?;
    let fit = Fit::of(detector.store(), &values, &options.allow);
    fit.load(detector.store(), &values, &path)?;
    let rest = parts.account(&fit, &rows, &detector);
    let mut report = parts.report;
    describe_output(&mut report, &detector, &values, heads);
    Ok(Conversion {
        report,
        rest,
        form: Form::Safetensors,
        product: Product::Detector(Box::new(detector)),
    })
}

/// Writes down what the detector is, and what a user should know about it.
fn describe_output(
    report: &mut Report,
    detector: &Detector,
    values: &BTreeMap<String, Tensor>,
    heads: i64,
) {
    let classes = match detector.classes().text() {
        Some(table) => format!("{} classes against text", table.rows.size()[0]),
        None => format!("{} classes", detector.vocabulary().len()),
    };
    report.output = format!("{}, {classes}", report.output);
    let others = values.values().filter(|v| v.kind() != Kind::Float).count();
    if others > 0 {
        report.notes.push(format!(
            "{} f32 and was of another kind",
            clause(others, "tensor", ["becomes", "become"])
        ));
    }
    report.notes.push(format!(
        "{} attention heads: no shape tells, so this is the settings' number",
        heads
    ));
}

/// The refusal of a checkpoint that this program has no detector for.
fn no_such_detector(path: &Path) -> Error {
    let problem = "the decoder's class head is linear and the encoder's compares with text, as \
                   in RichSem's baseline without language: this program has no such detector";
    Error::invalid(path, "weights", problem).with_hint(format!(
        "`richsem train` can start from it, with {} and {} 'transformer.enc_out_class_embed.*'",
        Argument::Init,
        Argument::AllowMissing
    ))
}

/// The settings of the detector that these values are of: what their shapes tell, and what the code that
/// trained them does where the given settings say nothing else.
fn settings_of(
    values: &BTreeMap<String, Tensor>,
    given: &DinoConfig,
    variant: Variant,
    path: &Path,
) -> Result<DinoConfig> {
    let mut dino = sizes::infer(values, given, path)?;
    dino.backbone.set_weights(None);
    dino.padding.get_or_insert(Padding::Official);
    let temperature = &mut dino.transformer.pe_temperature;
    if variant == Variant::DeformableDetr
        && *temperature == TransformerConfig::default().pe_temperature
    {
        // That of DETR's position encoding, which DINO's is not.
        *temperature = 10_000.0;
    }
    Ok(dino)
}

/// Takes the rows of our classes out of linear heads whose rows are category ids. Returns in words which
/// rows were taken, by the name of each head of which some were left.
fn select_rows(
    values: &mut BTreeMap<String, Tensor>,
    vocabulary: &Vocabulary,
    path: &Path,
) -> Result<BTreeMap<String, String>> {
    let mut chosen = BTreeMap::new();
    for name in LINEAR {
        let Some(tensor) = values.get(name) else { continue };
        let rows = tensor.size().first().copied().unwrap_or(0);
        let Some(ids) = rows_of(vocabulary, rows) else {
            let highest = vocabulary.categories().last().map_or(0, |c| c.id.0);
            let problem = format!(
                "{rows} rows, of {} classes with ids up to {highest}: expected one a class, or one \
                 an id from 0",
                vocabulary.len()
            );
            return Err(Error::invalid(path, name, problem).with_hint(ANNOTATIONS));
        };
        if ids.len() as i64 != rows {
            chosen.insert(
                name.to_owned(),
                format!("{} of {rows} rows, those of the categories' ids", ids.len()),
            );
        }
        let own = tensor.index_select(0, &Tensor::from_slice(&ids));
        values.insert(name.to_owned(), own);
    }
    Ok(chosen)
}

/// Rows of a linear head that belong to the classes, in the order of the classes. If all category ids have a
/// row, they are the rows' numbers, as in the official code. Else the rows are in order. None if there are
/// more or fewer rows than classes.
pub(in crate::convert) fn rows_of(vocabulary: &Vocabulary, rows: i64) -> Option<Vec<i64>> {
    let ids: Vec<i64> = vocabulary.categories().iter().map(|c| c.id.0).collect();
    if ids.iter().all(|id| (0..rows).contains(id)) {
        return Some(ids);
    }
    (ids.len() as i64 == rows).then(|| (0..rows).collect())
}

/// What a detector is made of, and the report of it.
struct Parts<'a> {
    sorted: &'a Sorted,
    path: &'a Path,
    options: &'a Options,
    report: Report,
}

impl Parts<'_> {
    /// The text table: the one in the settings, or made by the checkpoint's own CLIP, or by a given CLIP.
    fn text(&mut self, vocabulary: &Vocabulary) -> Result<TextTable> {
        let classes = vocabulary.len();
        if let ClassHeadConfig::Text { table: Some(table) } = &self.options.config.model.class_head
        {
            let text = read_text_table(table, vocabulary)?;
            let from = format!("rows of {}", table.display());
            self.report.add("text_table", text.rows.numel(), Fate::Made(from));
            return Ok(text);
        }
        let own = self.sorted.clip(ClipCopy::Decoder);
        let own_clip = !own.is_empty();
        let (weights, path, from) = match (&self.options.clip, own.is_empty()) {
            (given, false) => {
                if given.is_some() {
                    let note = "is not used: the checkpoint has a CLIP of its own";
                    self.report.notes.push(format!("{} {note}", Argument::Clip));
                }
                (own, self.path, "the checkpoint's own CLIP".to_owned())
            }
            (Some(file), true) => (read_weights(file)?, file.as_path(), file.display().to_string()),
            (None, true) => {
                let problem = "no copy of CLIP is in the checkpoint, so there are no embeddings of \
                               its classes";
                return Err(Error::invalid(self.path, "class_embed.clip", problem).with_hint(
                    format!(
                        "give the CLIP it was trained with ({} RN50.pt), or a text table \
                     (model.class_head.kind = \"text\", model.class_head.table = a file)",
                        Argument::Clip
                    ),
                ));
            }
        };
        let weights = clip::to_openai(weights, path)?;
        // The official code's own CLIPs are OpenAI's.
        let hints = match (&self.options.clip, own_clip) {
            (Some(file), false) => Hints::of(file, None)?,
            _ => Hints::default(),
        };
        let (store, sizes, clip) = clip::from_weights(&weights, &hints, path, self.options.device)?;
        let templates = PromptSet::Reference.templates(&[]);
        let text = text_of_clip((&store, &sizes, &clip), &templates, vocabulary, path);
        let text = text.map_err(|error| match error {
            // There are no settings of a teacher here.
            Error::Config { key, problem, hint } if key == "teacher.text" => {
                Error::Invalid { file: path.to_owned(), field: "text".into(), problem, hint }
            }
            other => other,
        })?;
        let from = format!("{classes} classes × {} prompts by {from}", templates.len());
        self.report.add("text_table", text.rows.numel(), Fate::Made(from));
        Ok(TextTable::new(&text.rows.to_device(Device::Cpu)))
    }

    /// Writes down what became of each tensor. Returns those that the detector does not hold whole.
    fn account(
        &mut self,
        fit: &Fit,
        rows: &BTreeMap<String, String>,
        detector: &Detector,
    ) -> BTreeMap<String, Tensor> {
        let differs: Differences<'_> = (fit.mismatches.iter())
            .map(|m| (m.name(), (m, false)))
            .chain(fit.allowed.iter().map(|m| (m.name(), (m, true))))
            .collect();
        let unequal: BTreeSet<&str> =
            self.sorted.unequal.iter().map(|(key, _)| key.as_str()).collect();
        let clips_differ = self.clips_that_differ();
        let mut rest = BTreeMap::new();
        for (key, (fate, tensor)) in &self.sorted.keys {
            let allowed = self.options.allow.allow(key);
            // What to report, and whether the detector holds the whole tensor.
            let (reported, whole) = match fate {
                keys::Fate::Parameter(path) => match differs.get(path.as_str()) {
                    Some((mismatch, allowed)) => (judged(mismatch.to_string(), *allowed), false),
                    None => match rows.get(path) {
                        Some(how) => (Fate::TakenAs(how.clone()), false),
                        None if path == key => (Fate::Taken, true),
                        None => (Fate::TakenAs(format!("as {path}")), true),
                    },
                },
                keys::Fate::Copy(path) if unequal.contains(key.as_str()) => {
                    let why = format!("other values than {path}, which this program shares");
                    (judged(why, allowed), false)
                }
                keys::Fate::Copy(path) => (Fate::Again(path.clone()), true),
                keys::Fate::Clip(ClipCopy::Encoder, own) if clips_differ.contains(own) => {
                    let why = format!("other values than {}{own}", ClipCopy::Decoder.prefix());
                    (judged(why, allowed), false)
                }
                keys::Fate::Clip(..) => (Fate::Left("a copy of CLIP".into()), false),
                keys::Fate::SemanticBranch(_) => {
                    (Fate::Left("the semantic branch, used in training alone".into()), false)
                }
                keys::Fate::Training(why) => (Fate::Left((*why).into()), false),
                keys::Fate::Counter => (Fate::Left("counts batches".into()), false),
                keys::Fate::NoPlace(why) => (Fate::Left(format!("no such part: {why}")), false),
                keys::Fate::Unknown => (judged("unexpected".into(), allowed), false),
            };
            if !whole {
                rest.insert(key.clone(), tensor.shallow_clone());
            }
            self.report.add(key.clone(), tensor.numel(), reported);
        }
        self.account_missing(&differs, detector);
        rest
    }

    /// Writes down the parameters that the checkpoint does not have.
    fn account_missing(&mut self, differs: &Differences<'_>, detector: &Detector) {
        let missing = detector.parameters().into_iter().filter_map(|p| {
            let (mismatch, allowed) = differs.get(p.name.as_str())?;
            let missing = matches!(mismatch, Mismatch::Missing(_));
            missing.then(|| (p.name, p.tensor.numel(), *allowed))
        });
        for (name, values, allowed) in missing {
            let why = if allowed { "missing, starts anew" } else { "missing" };
            self.report.add(name, values, judged(why.into(), allowed));
        }
    }

    /// Weights of the encoder's CLIP that are not the decoder's: the text table is one for both.
    fn clips_that_differ(&self) -> BTreeSet<String> {
        let (one, other) =
            (self.sorted.clip(ClipCopy::Decoder), self.sorted.clip(ClipCopy::Encoder));
        let differ = |(name, tensor): (String, Tensor)| {
            let same = one.get(&name).is_none_or(|first| keys::same(first, &tensor));
            (!same && !name.starts_with("visual.")).then_some(name)
        };
        other.into_iter().filter_map(differ).collect()
    }
}

/// Parameters that differ from the checkpoint's, by name; true where that is allowed.
type Differences<'a> = BTreeMap<&'a str, (&'a Mismatch, bool)>;

/// The report of something that does not fit.
fn judged(what: String, allowed: bool) -> Fate {
    if allowed { Fate::Allowed(what) } else { Fate::Problem(what) }
}
