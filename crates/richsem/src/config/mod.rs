//! All settings of a training run: one section for each part of the program. A part takes its own
//! section, and never the whole.
//!
//! The documentation of a setting says what it does, its unit, default and range. "Reference" names
//! the key for it in the config files, or the flag (`--…`), of the official code of DINO and RichSem.

mod difference;
mod family;
pub(crate) mod prepared;
mod presets;
mod situation;
mod train;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use difference::Difference;
pub use train::{EmaConfig, OptimizerKind, ParamGroups, TrainConfig};

use crate::{
    bounds::{BATCH, LARGEST_STEP, within},
    checkpoint_io::fit::Patterns,
    data::{
        extra::ExtraConfig,
        formats::{BoxForm, Opening},
        image_io::Orientation,
        sampler::SamplerConfig,
        transforms::{EvalTransformConfig, TransformConfig},
    },
    detector::{DetectorConfig, EvalConfig, MOVED},
    error::{Error, Result},
    losses::LossConfig,
    models::config::{ClassHeadConfig, FamilyConfig, ModelConfig},
    semantic_branch::SemanticConfig,
    settings::{self, Assignment, Form},
    teacher::TeacherConfig,
};

pub use crate::settings::{Preset, VERSION};

/// Most reading threads: far beyond what a disk can feed, far below what a system refuses.
const MOST_WORKERS: usize = 1024;
/// Most batches that are built ahead. Each is held in memory.
const MOST_AHEAD: usize = 1024;

/// Most batches of all sources together before their order repeats: the sum of all weights.
const LONGEST_CYCLE: u64 = 1000;

/// All settings of a training run. A run saves them as `config.toml` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the file's format. Every settings file must have it. Only 1 exists.
    pub version: u32,
    /// Seed of initial weights, order of images, augmentation and noise. Default: 0. Reference:
    /// `--seed`.
    #[serde(default)]
    pub seed: u64,
    /// Data sets, and how batches are made of them.
    #[serde(default)]
    pub data: DataConfig,
    /// The detector's network.
    #[serde(default)]
    pub model: ModelConfig,
    /// Weights of the loss terms and of the matching.
    #[serde(default)]
    pub loss: LossConfig,
    /// The frozen CLIP that labels boxes with soft labels. Default: none. The semantic branch needs
    /// one, and so does a class head against text without a table of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    /// The semantic branch and its loss. Default: none, which is plain detection training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticConfig>,
    /// Weights of a whole detector to start from. Default: none, so that only the backbone may
    /// start from weights (`model.dino.backbone.weights`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// Optimizer, schedule, checkpoints and logging.
    #[serde(default)]
    pub train: TrainConfig,
    /// Evaluation during training, and what the trained detector does when it detects.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// Where a new run's weights come from. A run that is resumed has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A detector of this program, or a checkpoint of RichSem, DINO or Deformable DETR. The path is
    /// relative to the settings file. The classes may be others: a class head against text takes
    /// all weights, a linear class head starts anew. Reference: `--pretrain_model_path`.
    pub weights: PathBuf,
    /// Glob patterns of parameter names, as `class_embed.*`. These parameters may be missing in the
    /// file, unknown to the detector, or of another shape. Default: none. Reference:
    /// `--finetune_ignore`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_missing: Vec<String>,
}

/// One annotated set of images. In a file a path alone is enough: `train = "shapes"` means
/// `train = { annotations = "shapes" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// A file or folder of annotations, of any known format: docs/formats.md lists them. The path is
    /// relative to the settings file.
    pub annotations: PathBuf,
    /// Folder or uncompressed `.tar` that holds the files that the annotations name. Default: where the
    /// format has them, or near the annotations. The path is relative to the settings file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Name of the format, where two fit. Default: as recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Which part of a set in several parts. Default: `train` in `data.train`, `val` in `data.val`; names
    /// that mean the same fit (`valid`, `val2017`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// File of the classes to read from Visual Genome: a line each, its other names after commas. The path is
    /// relative to the settings file. Default: `objects_vocab.txt` beside the annotations, or else all names
    /// that have 50 boxes. Other formats have classes of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
    /// What the four numbers of a box are, where the format does not say it (Hugging Face's sets): `xywh`,
    /// `xyxy`, `cxcywh` in pixels, or `xywh_shares`, `xyxy_shares`, `cxcywh_shares`. Default: the only
    /// possibility by the boxes themselves; if there are several, this must say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<BoxForm>,
    /// Which way up the images are, for the boxes. `exif` (the default): as viewers show them.
    /// `stored`: as their pixels are stored, which is what the tools of COCO and LVIS read.
    #[serde(default)]
    pub orientation: Orientation,
}

impl SplitConfig {
    /// How to open it. `usual_split` is what it is for: `train` or `val`.
    #[must_use]
    pub fn opening(&self, usual_split: &'static str) -> Opening {
        Opening {
            format: self.format.clone(),
            split: self.split.clone(),
            usual_split: Some(usual_split),
            images: self.images.clone(),
            vocabulary: self.vocabulary.clone(),
            boxes: self.boxes,
            orientation: self.orientation,
            ..Opening::default()
        }
    }
}

/// Data sets, and how batches are made of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Training set. Default: none. `richsem train` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitConfig>,
    /// Validation set. Default: none. Then a run has no metrics and no `best` checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<SplitConfig>,
    /// Sets of classification images, by a name of your choice. Their batches come between those of
    /// `train`. Default: none. Reference: `use_imagenet`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, ExtraConfig>,
    /// How many detection batches a cycle has. Each extra set has a `weight` of its own, so that 1
    /// and 1 means one detection batch, one extra batch, and so on. Default: 1; 1 to 1000. All
    /// weights together are at most 1000.
    pub weight: u32,
    /// Images in a detection batch of one process. Default: 2; 1 to 4096. Reference: `batch_size`.
    pub batch_size: usize,
    /// Threads that read and augment images. Default: 0, which is one a core, at most 8. Largest:
    /// 1024. Reference: `--num_workers`.
    pub workers: usize,
    /// Batches that are built before they are used. They are held in host memory. Default: 8; 1 to
    /// 1024.
    pub prefetch: usize,
    /// How many different images may be unreadable before the run stops. Another image takes the
    /// place of each. Default: 10.
    pub max_broken_images: usize,
    /// Height and width of a batch are rounded up to a multiple of this, in pixels. Default: 32, as
    /// in the reference; 1 to 2048.
    pub pad_multiple: u32,
    /// Which training images an epoch shows, and how often. Default: `{ kind = "uniform" }`.
    pub sampler: SamplerConfig,
    /// Random changes of training images. The defaults are DETR's.
    pub augment: TransformConfig,
    /// Size of images in evaluation and prediction. Default: shorter side 800, longer side at most
    /// 1333.
    pub resize: EvalTransformConfig,
}

impl DataConfig {
    /// The sets of classification images with a weight above 0, in the order of their names, as batches
    /// number them ([`crate::data::batch::Batch::source`]).
    pub fn extra_sets(&self) -> impl Iterator<Item = (&String, &ExtraConfig)> {
        self.extra.iter().filter(|(_, extra)| extra.weight > 0)
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: None,
            val: None,
            extra: BTreeMap::new(),
            weight: 1,
            batch_size: 2,
            workers: 0,
            prefetch: 8,
            max_broken_images: 10,
            pad_multiple: 32,
            sampler: SamplerConfig::default(),
            augment: TransformConfig::default(),
            resize: EvalTransformConfig::default(),
        }
    }
}

/// Which keys of a run's settings are paths, and which keys have moved.
pub(crate) const FORM: Form = Form {
    paths: &[
        "data.extra.*.images",
        "data.extra.*.info",
        "data.extra.*.mapping.path",
        "data.train.annotations",
        "data.train.images",
        "data.train.vocabulary",
        "data.val.annotations",
        "data.val.images",
        "data.val.vocabulary",
        "init.weights",
        "model.class_head.table",
        "model.*.backbone.weights",
        "teacher.prepared",
        "teacher.text.table",
        "teacher.weights",
    ],
    moved: MOVED,
    short: &[
        ("data.train", "annotations"),
        ("data.val", "annotations"),
        ("data.extra.*", "images"),
    ],
    presets: presets::PRESETS,
    kinds: &[("model.*.backbone", "resnet")],
};

impl Config {
    /// Reads a file, the files it extends, and assignments (`a.b=c`, values as in TOML; a
    /// bare word is a string). The file may be `preset:NAME`, one of [`Self::presets`].
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, an unknown key (with the nearest known one), a
    /// value of the wrong type or out of range: each with file and key.
    pub fn load(path: &Path, assignments: &[String]) -> Result<Self> {
        Self::load_assigned(path, &Assignment::from_outside(assignments))
    }

    /// The defaults, and assignments.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn defaults(assignments: &[String]) -> Result<Self> {
        let assignments = Assignment::from_outside(assignments);
        FORM.defaults(&assignments)?.settings(Self::validate)
    }

    /// As [`Self::load`], with assignments of several origins.
    pub(crate) fn load_assigned(path: &Path, assignments: &[Assignment<'_>]) -> Result<Self> {
        if let Some(name) = Preset::named_by(path) {
            return FORM.read_preset(name, assignments)?.settings(Self::validate);
        }
        FORM.read(path, assignments)?.settings(Self::validate)
    }

    /// Reads one text as [`Self::load`] reads a file. `path` is what errors call it, and what its paths
    /// are relative to.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        FORM.parse(text, path)?.settings(Self::validate)
    }

    /// Reads settings that this program saved: one file, complete. A setting that is not in it came
    /// later, and means what the program did before, not what new runs do.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse_saved(text: &str, path: &Path) -> Result<Self> {
        let mut merged = FORM.parse(text, path)?;
        merged.add("train.ema", "warmup", false);
        DetectorConfig::add_former_defaults(&mut merged);
        merged.add("teacher", "activation", "quick_gelu");
        for images in ["data.train", "data.val", "data.extra.*"] {
            merged.add(images, "orientation", "stored");
        }
        merged.settings(Self::validate)
    }

    /// All settings as TOML, defaults included.
    ///
    /// # Panics
    /// Never: every value is one that TOML has.
    #[must_use]
    pub fn to_toml(&self) -> String {
        settings::to_toml(self)
    }

    /// The settings of the semantic branch. None without a branch: if it has no section, or weight 0.
    #[must_use]
    pub fn semantic_branch(&self) -> Option<&SemanticConfig> {
        self.semantic.as_ref().filter(|semantic| semantic.weight > 0.0)
    }

    /// Whether a run needs the teacher, or labels that it made before: for the semantic branch, or only for
    /// its text embeddings.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        self.semantic_branch().is_some()
            || self.model.class_head == ClassHeadConfig::Text { table: None }
    }

    /// The file that identifies the teacher of a run: its weights, or the manifest of its prepared labels.
    #[must_use]
    pub fn teacher_file(&self) -> Option<PathBuf> {
        let teacher = self.teacher.as_ref().filter(|_| self.needs_teacher())?;
        match &teacher.prepared {
            Some(folder) => Some(prepared::manifest_file(folder)),
            None => teacher.weights.clone(),
        }
    }

    /// The settings of the detector that a run trains.
    #[must_use]
    pub fn of_detector(&self) -> DetectorConfig {
        let Self { data, model, train, eval, .. } = self;
        DetectorConfig {
            model: model.clone(),
            resize: data.resize.clone(),
            pad_multiple: data.pad_multiple,
            max_broken_images: data.max_broken_images,
            eval: EvalConfig {
                precision: eval.precision.or(Some(train.precision)),
                ..eval.clone()
            },
            cuda_graphs: train.cuda_graphs,
            cuda_graphs_mib: train.cuda_graphs_mib,
        }
    }

    /// What is allowed, but probably not meant, each a sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.train.warnings("train");
        warnings.extend(situation::warnings(self));
        warnings.extend(self.loss.warnings("loss"));
        for (name, extra) in self.data.extra_sets() {
            let on = &extra.supervision;
            let semantic = on.semantic && self.semantic_branch().is_some();
            let others = match self.model.family {
                FamilyConfig::Dino(_) => on.giou || on.interm_exempt,
                FamilyConfig::FasterRcnn(_) => on.rpn,
            };
            if !(on.class || on.l1 || semantic || others) {
                warnings.push(format!(
                    "data.extra.{name}.supervision switches all losses off: its batches teach nothing"
                ));
            }
        }
        warnings
    }

    /// # Errors
    /// The first setting that is out of its range or contradicts another one.
    pub fn validate(&self) -> Result<()> {
        settings::check_version(self.version)?;
        within("data.batch_size", self.data.batch_size, BATCH)?;
        self.eval.validate("eval")?;
        within("data.prefetch", self.data.prefetch, 1..=MOST_AHEAD)?;
        within("data.workers", self.data.workers, 0..=MOST_WORKERS).map_err(|error| {
            error.with_hint("0 takes as many as the machine has cores, at most 8")
        })?;
        within("data.weight", u64::from(self.data.weight), 1..=LONGEST_CYCLE)?;
        within("data.pad_multiple", self.data.pad_multiple, 1..=LARGEST_STEP)?;
        self.train.validate("train")?;
        if let Some(init) = &self.init {
            Patterns::new(&init.allow_missing, "init.allow_missing")?;
        }
        self.data.sampler.validate("data.sampler")?;
        self.data.augment.validate("data.augment")?;
        self.data.resize.validate("data.resize")?;
        self.model.validate("model")?;
        let multiple = self.model.backbone().pad_multiple();
        if !self.data.pad_multiple.is_multiple_of(multiple) {
            let problem = format!(
                "expected a multiple of {multiple}, as the backbone ({}) needs it, got {}",
                self.model.backbone().describe(),
                self.data.pad_multiple
            );
            return Err(Error::config("data.pad_multiple", problem));
        }
        self.loss.validate("loss")?;
        family::check(self)?;
        let mut shares = u64::from(self.data.weight);
        for (name, extra) in &self.data.extra {
            extra.validate(&format!("data.extra.{name}"))?;
            shares += u64::from(extra.weight);
        }
        if shares > LONGEST_CYCLE {
            let problem = format!(
                "expected all weights together to be at most {LONGEST_CYCLE}, got {shares}"
            );
            return Err(Error::config("data.weight", problem)
                .with_hint("weights are relative: 1 and 2 mean the same as 100 and 200"));
        }
        if let Some(teacher) = &self.teacher {
            teacher.validate("teacher")?;
        }
        if let Some(semantic) = &self.semantic {
            semantic.validate("semantic")?;
        }
        let Some(semantic) = self.semantic_branch() else { return Ok(()) };
        if self.teacher.as_ref().is_some_and(|t| t.prepared.is_some()) {
            prepared::check_settings(self)?;
        }
        if self.teacher.is_none() {
            let problem = "the semantic branch learns from a teacher, and there is none";
            return Err(Error::config("semantic", problem)
                .with_hint("set teacher.weights, or take [semantic] out"));
        }
        if semantic.federated && self.loss.federated.is_none() {
            let problem = "it needs the federated loss, which is off";
            return Err(Error::config("semantic.federated", problem)
                .with_hint("set [loss.federated], or semantic.federated = false"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
