//! Everything that decides a run: the sections of the rooms, together. What a run used is saved beside it.
//! Rooms below take their own section.

mod difference;
pub(crate) mod prepared;
mod train;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use difference::Difference;
pub use train::{EmaConfig, ParamGroups, TrainConfig};

use crate::{
    bounds::{BATCH, within},
    checkpoint_io::fit::Patterns,
    data::{
        extra::ExtraConfig,
        image_io::Orientation,
        sampler::SamplerConfig,
        transforms::{EvalTransformConfig, TransformConfig},
    },
    detector::{DetectorConfig, EvalConfig, MOVED},
    error::{Error, Result},
    losses::LossConfig,
    models::config::{ClassHeadConfig, ModelConfig},
    semantic_branch::SemanticConfig,
    settings::{self, Assignment, Form},
    teacher::TeacherConfig,
};

pub use crate::settings::VERSION;

/// Threads that read; far beyond what a disk can feed, far below what a system refuses.
const MOST_WORKERS: usize = 1024;
/// Batches prepared ahead: each is held in memory.
const MOST_AHEAD: usize = 1024;
/// Pixels that sides are rounded up to a multiple of.
const LARGEST_STEP: u32 = 2048;

/// Batches of all sources before the row of them repeats its pattern.
const LONGEST_CYCLE: u64 = 1000;

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the file's form.
    pub version: u32,
    /// Decides initial weights, order, augmentation and noise.
    #[serde(default)]
    pub seed: u64,
    /// Where the data is and how it is fed.
    #[serde(default)]
    pub data: DataConfig,
    /// The detector.
    #[serde(default)]
    pub model: ModelConfig,
    /// The objective.
    #[serde(default)]
    pub loss: LossConfig,
    /// The frozen model that labels boxes softly; used if there is a semantic branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    /// The semantic branch; absent: plain detection training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticConfig>,
    /// Weights of a whole detector to start from; absent: initial values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// The optimisation.
    #[serde(default)]
    pub train: TrainConfig,
    /// The evaluation.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// Where a new run's weights come from; a run that is resumed has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A detector of this program, or a checkpoint of RichSem, DINO or Deformable DETR. Its classes
    /// may be others: a class head against text takes everything, a linear one starts anew. Relative
    /// to the file that says so.
    pub weights: PathBuf,
    /// Names that may be missing, unexpected or of another shape: globs, as `class_embed.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_missing: Vec<String>,
}

/// One annotated set of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// COCO or LVIS JSON. Relative to the file that says so.
    pub annotations: PathBuf,
    /// Folder or `.tar` that the annotations' file names are in. Relative likewise.
    pub images: PathBuf,
    /// Which way up the images are, for the boxes: `exif`, as viewers show them; `stored`, as their
    /// pixels are stored, which is what the tools of COCO and LVIS read.
    #[serde(default)]
    pub orientation: Orientation,
}

/// Where the data is and how it is fed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// What is learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitConfig>,
    /// What is evaluated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<SplitConfig>,
    /// Classification images by name of the set; their batches take turns with those of `train`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, ExtraConfig>,
    /// Share of detection batches, against each extra source's `weight`.
    pub weight: u32,
    /// Images a step and process.
    pub batch_size: usize,
    /// Threads that read and augment; 0: as many as the machine has cores, at most 8.
    pub workers: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
    /// Images that may be unreadable before the run stops.
    pub max_broken_images: usize,
    /// Height and width of a batch are rounded up to a multiple of this.
    pub pad_multiple: u32,
    /// Which images an epoch shows.
    pub sampler: SamplerConfig,
    /// What is done to training images.
    pub augment: TransformConfig,
    /// What is done to images that are evaluated or predicted on.
    pub resize: EvalTransformConfig,
}

impl DataConfig {
    /// The sets of classification images that take part, in the order of their names, as batches
    /// number them ([`crate::data::batch::Batch::extra`]).
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

/// What is special about the keys of a run's settings.
pub(crate) const FORM: Form = Form {
    paths: &[
        "data.extra.*.images",
        "data.extra.*.info",
        "data.extra.*.mapping.path",
        "data.train.annotations",
        "data.train.images",
        "data.val.annotations",
        "data.val.images",
        "init.weights",
        "model.class_head.table",
        "model.*.backbone.weights",
        "teacher.prepared",
        "teacher.text.table",
        "teacher.weights",
    ],
    moved: MOVED,
};

impl Config {
    /// Reads a file, the files it extends, and assignments (`a.b=c`, values as in TOML; a
    /// bare word is a string).
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

    /// As TOML, every setting spelled out.
    ///
    /// # Panics
    /// Never: every value is one that TOML has.
    #[must_use]
    pub fn to_toml(&self) -> String {
        settings::to_toml(self)
    }

    /// The semantic branch, if there is to be one: with weight 0 there is none.
    #[must_use]
    pub fn semantic_branch(&self) -> Option<&SemanticConfig> {
        self.semantic.as_ref().filter(|semantic| semantic.weight > 0.0)
    }

    /// Whether a run needs the teacher or what it said before: for the semantic branch, or for its
    /// text alone.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        self.semantic_branch().is_some()
            || self.model.class_head == ClassHeadConfig::Text { table: None }
    }

    /// The file by which the teacher that a run asks, or its prepared labels, are known again.
    #[must_use]
    pub fn teacher_file(&self) -> Option<PathBuf> {
        let teacher = self.teacher.as_ref().filter(|_| self.needs_teacher())?;
        match &teacher.prepared {
            Some(folder) => Some(prepared::manifest_file(folder)),
            None => teacher.weights.clone(),
        }
    }

    /// What a detector needs to know of a run.
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

    /// What is allowed, and hardly meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.train.warnings("train");
        warnings.extend(self.loss.warnings("loss"));
        for (name, extra) in self.data.extra_sets() {
            let on = &extra.supervision;
            let semantic = on.semantic && self.semantic_branch().is_some();
            if !(on.class || on.l1 || on.giou || semantic || on.interm_exempt) {
                warnings.push(format!(
                    "data.extra.{name}.supervision has no term that is on: its batches teach nothing"
                ));
            }
        }
        warnings
    }

    fn validate(&self) -> Result<()> {
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
        let mut shares = u64::from(self.data.weight);
        for (name, extra) in &self.data.extra {
            extra.validate(&format!("data.extra.{name}"))?;
            shares += u64::from(extra.weight);
        }
        if shares > LONGEST_CYCLE {
            let problem = format!("expected at most {LONGEST_CYCLE} in all, got {shares}");
            return Err(Error::config("data.weight", problem)
                .with_hint("weights are relative: 1 and 2 are 100 and 200"));
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
            let problem = "it takes the classes that the federated loss draws, which is off";
            return Err(Error::config("semantic.federated", problem)
                .with_hint("set [loss.federated], or semantic.federated = false"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
