//! Other programs' weights as this one's files, and a detector as the official code's checkpoint.
//!
//! The names of a file's tensors say what it is ([`Kind`]). A [`Report`] says what becomes of each tensor.
//! If a tensor does not fit, and that was not allowed, nothing is written.

pub mod dino;
pub mod faster_rcnn;
mod parts;
mod report;
mod source;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Tensor};

pub use report::{Fate, Line, Report};
pub use source::{Kind, Source};

use crate::{
    checkpoint_io::{
        fit::Patterns,
        pth,
        safetensors::{self, Metadata},
    },
    detector::{Detector, DetectorConfig},
    error::{Error, Result},
    models::{config::FamilyConfig, padding::Padding},
    vocabulary::Vocabulary,
};

/// The file format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.safetensors`, as this program writes it.
    Safetensors,
    /// `.pth`, as the official code writes it with PyTorch.
    Pth,
}

impl Form {
    /// By a file's extension.
    ///
    /// # Errors
    /// Another one than `.safetensors`, `.pth`, `.pt`.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("pth" | "pt") => Ok(Self::Pth),
            _ => Err(Error::other(format!(
                "`{}`: expected a name that ends in .safetensors or .pth",
                path.display()
            ))
            .with_hint(
                ".safetensors is what this program reads, .pth what the official code does",
            )),
        }
    }
}

/// What a conversion needs to know and the files do not say.
#[derive(Debug)]
pub struct Options {
    /// Sizes that no shape tells (attention heads, temperature), and the settings that the detector
    /// keeps.
    pub config: DetectorConfig,
    /// Seed of the initial values of parameters that are missing, where that is allowed.
    pub seed: u64,
    /// The classes. An official checkpoint knows their ids, not their names.
    pub vocabulary: Option<Vocabulary>,
    /// Parameters that may be missing or of another shape (they start anew), and keys that may be
    /// unexpected (they are left out).
    pub allow: Patterns,
    /// CLIP's weights: for the text table of a checkpoint that has no copy of them, and for the
    /// copies in an official one.
    pub clip: Option<PathBuf>,
    /// What an earlier conversion left over, to be put back into an official checkpoint.
    pub rest: Option<PathBuf>,
    /// The device that encodes text.
    pub device: Device,
}

/// What is to be written.
#[derive(Debug)]
enum Product {
    Detector(Box<Detector>),
    Tensors {
        tensors: BTreeMap<String, Tensor>,
        /// The strings of a safetensors file; a `.pth` has none.
        metadata: Metadata,
        /// The key that they lie below in a `.pth`; a safetensors file has none.
        key: Option<&'static str>,
    },
}

/// A conversion that is worked out and not yet written.
#[derive(Debug)]
pub struct Conversion {
    /// What becomes of every tensor.
    pub report: Report,
    /// What the result does not hold, under the names of the input. With it, the way back is exact.
    pub rest: BTreeMap<String, Tensor>,
    form: Form,
    product: Product,
}

impl Conversion {
    /// Writes the result.
    ///
    /// # Errors
    /// Something that does not fit; an unwritable folder, a full disk.
    pub fn write(&self, output: &Path) -> Result<()> {
        if self.report.problems().next().is_some() {
            return Err(Error::other(format!(
                "{}: not written: some weights do not fit",
                output.display()
            )));
        }
        match (&self.product, self.form) {
            (Product::Detector(detector), _) => detector.save(output),
            (Product::Tensors { tensors, metadata, .. }, Form::Safetensors) => {
                write_tensors(tensors, metadata, output)
            }
            (Product::Tensors { tensors, key, .. }, Form::Pth) => pth::write(output, *key, tensors),
        }
    }

    /// Writes what is left over, as safetensors.
    ///
    /// # Errors
    /// An unwritable folder, a full disk.
    pub fn write_rest(&self, output: &Path) -> Result<()> {
        write_tensors(&self.rest, &Metadata::new(), output)
    }
}

fn write_tensors(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &Metadata,
    output: &Path,
) -> Result<()> {
    let mut metadata = metadata.clone();
    metadata.insert("format".to_owned(), "pt".to_owned());
    safetensors::write(output, tensors, &metadata)
}

/// Works out a conversion. Which one it is, the kind of the source and the wanted form decide.
///
/// # Errors
/// A pair of both that makes no sense, classes or a text table that are needed and missing, sizes
/// that contradict each other. Weights that do not fit are no error here: the report has them.
pub fn convert(source: Source, form: Form, options: &Options) -> Result<Conversion> {
    match (&source.kind, form) {
        (Kind::Official(layout), Form::Safetensors) => {
            let layout = *layout;
            dino::from_official(source, layout, options)
        }
        (Kind::FasterRcnn(origin), Form::Safetensors) => {
            let origin = *origin;
            faster_rcnn::from_checkpoint(source, origin, options)
        }
        (Kind::Detector, Form::Pth) => {
            let detector = Detector::load(&source.path, Device::Cpu)?;
            match &detector.config().model.family {
                FamilyConfig::Dino(dino) => dino::to_official(source, &detector, dino, options),
                FamilyConfig::FasterRcnn(rcnn) => {
                    faster_rcnn::to_pth(source, &detector, rcnn, options)
                }
            }
        }
        (Kind::Clip | Kind::Resnet(_) | Kind::Backbone(_), _) => parts::convert(source, form),
        (Kind::Official(_) | Kind::FasterRcnn(_) | Kind::Detector, _) => {
            let (is, other) = match form {
                Form::Pth => ("official code's checkpoint", ".safetensors"),
                Form::Safetensors => ("safetensors file of this program", ".pth"),
            };
            Err(Error::other(format!(
                "the input is a{} {is} already",
                match form {
                    Form::Pth => "n",
                    Form::Safetensors => "",
                }
            ))
            .with_hint(format!("give a name that ends in {other}")))
        }
    }
}

/// Values to start a detector from.
pub(crate) struct Initial {
    /// By our names; those of a semantic branch may be among them.
    pub(crate) values: BTreeMap<String, Tensor>,
    /// The classes of a linear head's rows; none if the file does not say.
    pub(crate) vocabulary: Option<Vocabulary>,
    /// How the detector that the values are from treats padding.
    pub(crate) padding: Padding,
    /// What the file is, in words.
    pub(crate) what: String,
}

/// What is told of a checkpoint whose padding the settings have masked.
const MASKED: &str = "padding masked, as the settings say: in batches of padded images the results are not those of \
                      the code that trained it";

/// Reads values to start from: of this program's detectors, and of official checkpoints.
///
/// # Errors
/// A file that cannot be read, or of another kind; names of one shared module that differ.
pub(crate) fn initial(path: &Path) -> Result<Initial> {
    let source = Source::read(path, None)?;
    let mut what = source.describe();
    if !source.beside.is_empty() {
        let beside =
            source.beside.iter().map(|(head, count)| format!("`{head}` ({count} tensors)"));
        what = format!("{what}; not of it: {}", beside.collect::<Vec<_>>().join(", "));
    }
    match source.kind {
        Kind::Detector => {
            let (config, vocabulary) = Detector::named_in(&source.metadata, path)?;
            let padding = config.model.padding();
            let mut values = source.tensors;
            values.remove(crate::detector::TEXT_TABLE);
            Ok(Initial { values, vocabulary: Some(vocabulary), padding, what })
        }
        Kind::Official(layout) => {
            let values = dino::initial_values(source, layout)?;
            Ok(Initial { values, vocabulary: None, padding: Padding::Official, what })
        }
        Kind::FasterRcnn(origin) => {
            let values = faster_rcnn::initial_values(source, origin)?;
            Ok(Initial { values, vocabulary: None, padding: Padding::Official, what })
        }
        Kind::Clip | Kind::Resnet(_) | Kind::Backbone(_) => {
            Err(Error::invalid(path, "weights", format!("{what}, expected a detector")).with_hint(
                "weights of a backbone alone are for the model's backbone.weights, CLIP's for \
                 teacher.weights",
            ))
        }
    }
}
