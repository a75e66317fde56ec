//! Settings of a detector: what it is, and how images are prepared for it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::{
    bounds::{BATCH, LARGEST_STEP, within},
    data::{detection_source::BrokenImages, transforms::EvalTransformConfig},
    error::Result,
    models::{
        config::{ClassHeadConfig, ModelConfig},
        padding::Padding,
    },
    precision::Precision,
    recordings::Recordings,
    settings::{self, Form, Merged},
};

/// Detections of an image; COCO's evaluation looks at 100, LVIS's at 300.
const MOST_DETECTIONS: i64 = 100_000;

/// Keys of the model's settings that have moved, with where they are read.
pub(crate) const MOVED: &[(&str, &str)] = &[("model.denoising", "model.dino.denoising")];

/// What of a run's settings is a detector's. Records of former releases hold all of them.
const KEYS: [&str; 9] = [
    "version",
    "model",
    "data.resize",
    "data.pad_multiple",
    "data.max_broken_images",
    "eval",
    "train.precision",
    "train.cuda_graphs",
    "train.cuda_graphs_mib",
];

/// Evaluation, and detection in general.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Images at once. Larger batches are faster, and results are the same but for rounding, unless
    /// the model's `padding` is `official`. Default: 1.
    pub batch_size: usize,
    /// Detections kept of an image. Default: 300, as LVIS has it; COCO looks at 100.
    pub max_detections: i64,
    /// Numbers that detection computes in: `f32` or `bf16`. Absent: as training did (`train.precision`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { batch_size: 1, max_detections: 300, precision: None }
    }
}

impl EvalConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        within(format!("{key}.batch_size"), self.batch_size, BATCH)?;
        within(format!("{key}.max_detections"), self.max_detections, 1..=MOST_DETECTIONS)
    }
}

/// Settings of a detector. They are saved with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorConfig {
    /// The network.
    pub model: ModelConfig,
    /// What is done to images before it sees them.
    pub resize: EvalTransformConfig,
    /// Height and width of a batch are rounded up to a multiple of this, in pixels.
    pub pad_multiple: u32,
    /// Images that may be unreadable before an evaluation stops.
    pub max_broken_images: usize,
    /// Images at once, detections of an image, precision.
    pub eval: EvalConfig,
    /// Records passes as CUDA graphs; on the CPU it changes nothing.
    pub cuda_graphs: bool,
    /// Most memory that recordings may take beyond the first of them, in MiB of the GPU's.
    pub cuda_graphs_mib: u64,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        let Saved { data, model, eval, train, .. } = Saved::default();
        let SavedData { resize, pad_multiple, max_broken_images } = data;
        let SavedTrain { cuda_graphs, cuda_graphs_mib, .. } = train;
        Self { model, resize, pad_multiple, max_broken_images, eval, cuda_graphs, cuda_graphs_mib }
    }
}

/// As a record has it: sections and names are those of a run's settings.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    version: u32,
    data: SavedData,
    model: ModelConfig,
    eval: EvalConfig,
    train: SavedTrain,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct SavedData {
    pad_multiple: u32,
    max_broken_images: usize,
    resize: EvalTransformConfig,
}

impl Default for SavedData {
    fn default() -> Self {
        Self {
            pad_multiple: 32,
            max_broken_images: BrokenImages::DEFAULT_ALLOWED,
            resize: EvalTransformConfig::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct SavedTrain {
    precision: Precision,
    cuda_graphs: bool,
    cuda_graphs_mib: u64,
}

impl Default for SavedTrain {
    fn default() -> Self {
        Self { precision: Precision::F32, cuda_graphs: true, cuda_graphs_mib: 4096 }
    }
}

impl DetectorConfig {
    /// Numbers that detection computes in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.eval.precision.unwrap_or(Precision::F32)
    }

    /// The recordings of a network with these settings; none at first.
    pub(crate) fn recordings(&self, device: Device) -> Recordings {
        let padded = self.model.padding() == Padding::Masked;
        Recordings::new(device, self.cuda_graphs, padded, self.cuda_graphs_mib << 20)
    }

    /// What saved settings without them mean: what the program did before there was a choice.
    pub(crate) fn add_former_defaults(merged: &mut Merged) {
        for family in ["model.dino", "model.faster_rcnn"] {
            merged.add(family, "padding", "official");
        }
    }

    /// From the record of a weights file, of this release or a former one, whose record is all of its run's
    /// settings. `path` is what errors call it.
    ///
    /// # Errors
    /// As settings files: with the key, expected and got.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        const FORM: Form = Form { moved: MOVED, ..Form::PLAIN };
        let mut merged = FORM.parse(text, path)?;
        merged.keep(&KEYS);
        Self::add_former_defaults(&mut merged);
        let Saved { data, model, eval, train, .. } = merged.settings(|saved: &Saved| {
            settings::check_version(saved.version)?;
            saved.model.validate("model")?;
            saved.data.resize.validate("data.resize")?;
            within("data.pad_multiple", saved.data.pad_multiple, 1..=LARGEST_STEP)?;
            saved.eval.validate("eval")
        })?;
        let SavedData { resize, pad_multiple, max_broken_images } = data;
        let SavedTrain { precision, cuda_graphs, cuda_graphs_mib } = train;
        let eval = EvalConfig { precision: eval.precision.or(Some(precision)), ..eval };
        Ok(Self {
            model,
            resize,
            pad_multiple,
            max_broken_images,
            eval,
            cuda_graphs,
            cuda_graphs_mib,
        })
    }

    /// As the record of a weights file: without the names of files, which are those of one machine.
    pub(crate) fn to_record(&self) -> String {
        let Self { resize, pad_multiple, max_broken_images, cuda_graphs, cuda_graphs_mib, .. } =
            self.clone();
        let mut model = self.model.clone();
        model.backbone_mut().set_weights(None);
        if let ClassHeadConfig::Text { table } = &mut model.class_head {
            *table = None;
        }
        settings::to_toml(&Saved {
            version: settings::VERSION,
            data: SavedData { pad_multiple, max_broken_images, resize },
            model,
            eval: self.eval.clone(),
            train: SavedTrain { precision: self.precision(), cuda_graphs, cuda_graphs_mib },
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::models::padding::Padding;

    fn parse(text: &str) -> Result<DetectorConfig> {
        DetectorConfig::parse(text, Path::new("model.safetensors"))
    }

    #[test]
    fn a_record_reads_back_the_same() {
        let mut config = DetectorConfig { max_broken_images: 3, ..DetectorConfig::default() };
        config.model.set_padding(Some(Padding::Masked));
        config.eval.precision = Some(Precision::Bf16);
        assert_eq!(parse(&config.to_record()).unwrap(), config);
    }

    /// All of a run's settings, with the denoising queries where they were, and a precision of training alone.
    #[test]
    fn records_of_former_releases_are_read() {
        let config = parse(
            "version = 1\nseed = 7\n[train]\nlr = 1e-3\nprecision = \"bf16\"\n[data]\nbatch_size = 4\n\
             pad_multiple = 64\n[model.denoising]\nnumber = 50\n[model.dino]\nreturn_interm_indices = [3]",
        )
        .unwrap();
        assert_eq!((config.precision(), config.pad_multiple), (Precision::Bf16, 64));
        assert_eq!(config.model.padding(), Padding::Official);
        let dino = config.model.as_dino().unwrap().clone();
        assert_eq!((dino.denoising.number, dino.return_interm_indices), (50, vec![3]));
        let error = parse("version = 1\n[model.dino]\nbackbones = 1").unwrap_err().to_string();
        assert!(error.contains("model.dino.backbones: unknown key"), "{error}");
        let error = parse("version = 2").unwrap_err().to_string();
        assert!(error.contains("version: expected 1, got 2"), "{error}");
    }
}
