//! A detector as an official checkpoint, for the official code.

use std::{collections::BTreeMap, path::Path};

use tch::{Device, Kind, Tensor};

use super::{
    super::{Conversion, Fate, Form, Options, Product, Report, Source},
    import::{LINEAR, rows_of},
    keys::{self, ClipCopy, Layout, Variant},
};
use crate::{
    argument::Argument,
    checkpoint_io::read_weights,
    detector::{Detector, TEXT_TABLE},
    error::{Error, Result},
    models::{
        backbone::{BackboneConfig, Norm},
        class_head::TextTable,
        dino::DinoConfig,
        padding::Padding,
    },
    teacher::clip::{self, Hints},
    vocabulary::Vocabulary,
};

/// More rows than this are a mistake in the ids, not a class head.
const MOST_ROWS: i64 = 1_000_000;
/// DINO's label embedding: a row a class, and one for none.
const LABEL_ENC: &str = "label_enc.weight";

/// A detector under the official code's keys, as `{"model": …}`.
pub(in crate::convert) fn to_official(
    source: Source,
    detector: &Detector,
    dino: &DinoConfig,
    options: &Options,
) -> Result<Conversion> {
    let variant = match detector.classes().text() {
        Some(_) => Variant::RichSem,
        None => Variant::Dino,
    };
    let decoder_layers = dino.transformer.dec_layers as usize;
    let output = format!("a checkpoint of {}", variant.name());
    let report = Report::new(source.describe(), output);
    let rest = match &options.rest {
        Some(file) => read_weights(file)?,
        None => BTreeMap::new(),
    };
    let mut checkpoint = Checkpoint {
        detector,
        dino,
        layout: Layout { variant, decoder_layers },
        rows: official_rows(detector.vocabulary())?,
        tensors: BTreeMap::new(),
        report,
    };
    checkpoint.add_parameters(&rest)?;
    if let Some(table) = detector.classes().text() {
        let why = "the official code computes it from its CLIP";
        checkpoint.report.add(TEXT_TABLE, table.rows.numel(), Fate::Left(why.into()));
    }
    if let Some(file) = &options.clip {
        checkpoint.add_clip(file)?;
    }
    checkpoint.add_rest(rest);
    if variant == Variant::Dino && !checkpoint.tensors.contains_key(LABEL_ENC) {
        checkpoint.add_label_embedding()?;
    }
    checkpoint.add_notes();
    let Checkpoint { tensors, report, .. } = checkpoint;
    Ok(Conversion {
        report,
        rest: BTreeMap::new(),
        form: Form::Pth,
        product: Product::Tensors { tensors, metadata: Default::default(), key: Some("model") },
    })
}

/// An official checkpoint in the making.
struct Checkpoint<'a> {
    detector: &'a Detector,
    dino: &'a DinoConfig,
    layout: Layout,
    /// Rows of a linear class head: one an id, from 0.
    rows: i64,
    /// What is to be written, by the official keys.
    tensors: BTreeMap<String, Tensor>,
    report: Report,
}

impl Checkpoint<'_> {
    /// Adds the detector's parameters. Rows of a linear class head that it does not have come from `rest`.
    fn add_parameters(&mut self, rest: &BTreeMap<String, Tensor>) -> Result<()> {
        for (path, tensor) in self.detector.weights() {
            let linear = self.layout.variant == Variant::Dino && LINEAR.contains(&path.as_str());
            let (tensor, fate) = if linear {
                self.spread(&path, &tensor, rest.get(&path))?
            } else {
                (tensor, Fate::Taken)
            };
            self.report.add(path.clone(), tensor.numel(), fate);
            for (i, key) in self.layout.keys_of(&path).into_iter().enumerate() {
                if i > 0 {
                    self.report.add(key.clone(), tensor.numel(), Fate::Again(path.clone()));
                }
                self.tensors.insert(key, tensor.shallow_clone());
            }
        }
        Ok(())
    }

    /// Our rows at their category ids, among those of `base` or of a class that is never found.
    fn spread(&self, path: &str, tensor: &Tensor, base: Option<&Tensor>) -> Result<(Tensor, Fate)> {
        let mut size = tensor.size();
        size[0] = base.map_or(self.rows, |base| base.size().first().copied().unwrap_or(0));
        if let Some(base) = base
            && base.size() != size
        {
            let problem = format!(
                "shape {:?} in the file of {}, expected {size:?}",
                base.size(),
                Argument::Rest
            );
            return Err(Error::config(path, problem).with_hint("it is of another conversion"));
        }
        let ids = rows_of(self.detector.vocabulary(), size[0]).ok_or_else(|| {
            let problem = format!(
                "{} rows in the file of {}, of ids up to {}",
                size[0],
                Argument::Rest,
                self.rows - 1
            );
            Error::config(path, problem).with_hint("it is of another conversion")
        })?;
        let all_rows = match base {
            Some(base) => base.to_kind(Kind::Float).copy(),
            // A weight of 0 and the prior's bias: never among the best.
            None if path.ends_with("bias") => {
                Tensor::full(&*size, -(99f64.ln()), (Kind::Float, Device::Cpu))
            }
            None => Tensor::zeros(&*size, (Kind::Float, Device::Cpu)),
        };
        let _ = all_rows.shallow_clone().f_index_copy_(0, &Tensor::from_slice(&ids), tensor)?;
        let fate = if ids.len() as i64 == size[0] {
            Fate::Taken
        } else {
            Fate::TakenAs(format!("{} of {} rows, by category id", ids.len(), size[0]))
        };
        Ok((all_rows, fate))
    }

    /// Adds a CLIP to both class heads.
    fn add_clip(&mut self, file: &Path) -> Result<()> {
        if self.layout.variant != Variant::RichSem {
            let problem = "this detector's class head is linear: there is no CLIP in it";
            return Err(Error::argument(Argument::Clip, problem).with_hint("leave it out"));
        }
        let weights = clip::to_openai(read_weights(file)?, file)?;
        let (_, sizes, _) =
            clip::from_weights(&weights, &Hints::of(file, None)?, file, Device::Cpu)?;
        let width = self.detector.classes().text().map_or(0, TextTable::dim);
        if sizes.embed_dim != width {
            let problem = format!(
                "embeddings of {} numbers, and the detector compares with text of {width}",
                sizes.embed_dim
            );
            return Err(Error::invalid(file, "weights", problem)
                .with_hint("give the CLIP that its text table was made with"));
        }
        for (name, tensor) in weights {
            let tensor = tensor.to_kind(Kind::Float);
            for copy in [ClipCopy::Decoder, ClipCopy::Encoder] {
                let key = format!("{}{name}", copy.prefix());
                let from = format!("from {}", file.display());
                self.report.add(key.clone(), tensor.numel(), Fate::Made(from));
                self.tensors.insert(key, tensor.shallow_clone());
            }
        }
        Ok(())
    }

    /// Adds what an earlier conversion left over.
    fn add_rest(&mut self, rest: BTreeMap<String, Tensor>) {
        for (key, tensor) in rest {
            // What the detector holds of it is in place already, in its newer state.
            if self.tensors.contains_key(&key) {
                continue;
            }
            let fate = match self.layout.fate(&key) {
                keys::Fate::Unknown => {
                    Fate::Problem(format!("unexpected, in the file of {}", Argument::Rest))
                }
                _ => Fate::Made(format!("from the file of {}", Argument::Rest)),
            };
            self.report.add(key.clone(), tensor.numel(), fate);
            self.tensors.insert(key, tensor);
        }
    }

    /// Makes DINO's label embedding of the class head's rows, which are this program's.
    fn add_label_embedding(&mut self) -> Result<()> {
        let weight = &self.tensors["class_embed.0.weight"];
        let none = Tensor::zeros([1, weight.size()[1]], (Kind::Float, Device::Cpu));
        let embedding = Tensor::f_cat(&[weight, &none], 0)?;
        let from = "the class head's rows, which are this program's label embedding";
        self.report.add(LABEL_ENC, embedding.numel(), Fate::Made(from.into()));
        self.tensors.insert(LABEL_ENC.into(), embedding);
        Ok(())
    }

    /// Notes what the official code's settings must say, and what is missing for it.
    fn add_notes(&mut self) {
        let Self { detector, dino, rows, tensors, report, .. } = self;
        let sizes = &dino.transformer;
        report.notes.push(format!(
            "the official config for it: num_classes = {rows}, dn_labelbook_size = {rows}, \
             hidden_dim = {}, nheads = {}, enc_layers = {}, dec_layers = {}, dim_feedforward = {}, \
             num_queries = {}, num_feature_levels = {}",
            sizes.hidden_dim,
            sizes.nheads,
            sizes.enc_layers,
            sizes.dec_layers,
            sizes.dim_feedforward,
            sizes.num_queries,
            sizes.num_feature_levels
        ));
        let has = |prefix: &str| tensors.keys().any(|key| key.starts_with(prefix));
        if detector.classes().text().is_some() && !has(ClipCopy::Decoder.prefix()) {
            report.notes.push(format!(
                "without CLIP's copies the official code loads it with its --pretrain_model_path, \
                 not with its --resume; {} FILE or {} FILE puts them in",
                Argument::Clip,
                Argument::Rest
            ));
        }
        if detector.classes().text().is_some() && !has("class_embed.clip_visual_proj.") {
            report.notes.push(
                "without the semantic branch (class_embed.clip_visual_proj), which a detector does not \
                 have: the official code starts it anew"
                    .into(),
            );
        }
        if dino.padding() == Padding::Masked {
            report.notes.push(
                "trained with padding masked: in batches of padded images the official code's results differ \
                 from this program's; to convert it back, set model.dino.padding to \"masked\""
                    .into(),
            );
        }
        if let BackboneConfig::Resnet(backbone) = &dino.backbone
            && backbone.norm != Norm::FrozenBn
        {
            report.notes.push(format!(
                "the backbone's norm is {:?}, where the official code has frozen batch norm",
                backbone.norm
            ));
        }
    }
}

/// Rows of the official heads: one an id, from 0.
fn official_rows(vocabulary: &Vocabulary) -> Result<i64> {
    let ids = || vocabulary.categories().iter().map(|c| c.id.0);
    match (ids().min(), ids().max()) {
        (Some(0..), Some(highest)) if highest < MOST_ROWS => Ok(highest + 1),
        (lowest, highest) => {
            let problem = format!(
                "category ids from {} to {}: the official code numbers its classes by them, from 0",
                lowest.unwrap_or(0),
                highest.unwrap_or(0)
            );
            Err(Error::other(problem))
        }
    }
}
