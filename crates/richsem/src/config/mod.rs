//! Typed settings: a TOML file, the files it extends, and `--set` on top. Unknown keys are refused
//! with the nearest known one; what a run used is saved beside it.

mod difference;
mod layers;
pub(crate) mod prepared;
mod train;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use difference::Difference;
pub(crate) use layers::Assignment;
pub use train::{EmaConfig, ParamGroups, TrainConfig};

use crate::{
    bounds::{BATCH, within},
    checkpoint_io::fit::Patterns,
    data::{
        batch::Normalization,
        extra::ExtraConfig,
        image_io::Orientation,
        sampler::SamplerConfig,
        transforms::{EvalTransformConfig, TransformConfig},
    },
    error::{Error, Result},
    losses::LossConfig,
    models::{denoising::DenoisingConfig, dino::DinoConfig, projection::ProjectionKind},
    semantic_branch::SemanticConfig,
    teacher::TeacherConfig,
};

/// Version of the settings this program reads.
pub const VERSION: u32 = 1;

/// Threads that read; far beyond what a disk can feed, far below what a system refuses.
const MOST_WORKERS: usize = 1024;
/// Batches prepared ahead: each is held in memory.
const MOST_AHEAD: usize = 1024;
/// Pixels that sides are rounded up to a multiple of.
const LARGEST_STEP: u32 = 2048;
/// Detections of an image; COCO's evaluation looks at 100, LVIS's at 300.
const MOST_DETECTIONS: i64 = 100_000;

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

/// How classes are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassHeadConfig {
    /// One weight row a class.
    // With braces: of a variant without them serde takes any keys.
    Linear {},
    /// Cosines against a table of text embeddings.
    Text {
        /// `.npy` or safetensors file with one row a class, in order of category ids, or a larger
        /// table that the categories' `lvis_clip_row` point into. Relative to the file that says
        /// so. Absent: the teacher's own table.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<PathBuf>,
    },
}

impl Default for ClassHeadConfig {
    fn default() -> Self {
        Self::Linear {}
    }
}

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Mean of each channel of [0, 1] pixels, subtracted before the backbone.
    pub pixel_mean: [f32; 3],
    /// Standard deviation of each channel.
    pub pixel_std: [f32; 3],
    /// How classes are told apart.
    pub class_head: ClassHeadConfig,
    /// Sizes.
    pub dino: DinoConfig,
    /// Noised queries in training.
    pub denoising: DenoisingConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let Normalization { mean, std } = Normalization::IMAGENET;
        Self {
            pixel_mean: mean,
            pixel_std: std,
            class_head: ClassHeadConfig::default(),
            dino: DinoConfig::default(),
            denoising: DenoisingConfig::default(),
        }
    }
}

impl ModelConfig {
    /// What the images are normalised with.
    #[must_use]
    pub fn normalization(&self) -> Normalization {
        Normalization { mean: self.pixel_mean, std: self.pixel_std }
    }
}

/// The evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Images at once. Larger batches are faster, and results are the same but for rounding, unless
    /// `model.dino.padding` is `official`.
    pub batch_size: usize,
    /// Detections kept of an image.
    pub max_detections: i64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { batch_size: 1, max_detections: 300 }
    }
}

/// Reads TOML of another form than [`Config`]'s with the same errors: file, key, nearest known key.
pub(crate) fn parse_as<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    layers::parse(text, path)?.deserialize()
}

/// Settings of another kind, in the same form: a file (none: the defaults), the files it extends,
/// and `--set` assignments.
///
/// # Errors
/// As [`Config::load`].
pub(crate) fn load_settings<T: DeserializeOwned + Serialize>(
    path: Option<&Path>,
    assignments: &[String],
    validate: impl Fn(&T) -> Result<()>,
) -> Result<T> {
    let assignments = Assignment::of_command_line(assignments);
    let merged = match path {
        Some(path) => layers::read(path, &assignments)?,
        None => layers::defaults(&assignments)?,
    };
    let settings: T = merged.deserialize()?;
    merged.refuse_lists(&as_table(&settings))?;
    validate(&settings).map_err(|error| merged.locate(error))?;
    Ok(settings)
}

/// Settings as TOML, every one spelled out.
fn as_table(settings: &impl Serialize) -> toml::Table {
    toml::Table::try_from(settings).expect("numbers, strings, lists and tables are TOML")
}

/// # Errors
/// A file of another release.
pub(crate) fn check_version(version: u32) -> Result<()> {
    if version != VERSION {
        let problem =
            format!("expected {VERSION}, got {}: the file is of another release", version);
        return Err(Error::config("version", problem).with_hint(
            "compare it with the files in configs/ and CHANGELOG.md, then set version",
        ));
    }
    Ok(())
}

impl Config {
    /// Reads a file, the files it extends, and `--set` assignments (`a.b=c`, values as in TOML; a
    /// bare word is a string).
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, an unknown key (with the nearest known one), a
    /// value of the wrong type or out of range: each with file and key.
    pub fn load(path: &Path, assignments: &[String]) -> Result<Self> {
        Self::load_assigned(path, &Assignment::of_command_line(assignments))
    }

    /// The defaults, and `--set` assignments.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn defaults(assignments: &[String]) -> Result<Self> {
        Self::of_merged(&layers::defaults(&Assignment::of_command_line(assignments))?)
    }

    /// As [`Self::load`], with assignments of several origins.
    pub(crate) fn load_assigned(path: &Path, assignments: &[Assignment<'_>]) -> Result<Self> {
        Self::of_merged(&layers::read(path, assignments)?)
    }

    /// Reads one text as [`Self::load`] reads a file. `path` is what errors call it, and what its paths
    /// are relative to.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::of_merged(&layers::parse(text, path)?)
    }

    /// Reads settings that this program saved: one file, complete. A setting that is not in it came
    /// later, and means what the program did before, not what new runs do.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse_saved(text: &str, path: &Path) -> Result<Self> {
        let mut merged = layers::parse(text, path)?;
        merged.add("train.ema", "warmup", false);
        merged.add("model.dino", "padding", "official");
        merged.add("teacher", "activation", "quick_gelu");
        for images in ["data.train", "data.val", "data.extra.*"] {
            merged.add(images, "orientation", "stored");
        }
        Self::of_merged(&merged)
    }

    fn of_merged(merged: &layers::Merged) -> Result<Self> {
        let config: Self = merged.deserialize()?;
        merged.refuse_lists(&as_table(&config))?;
        config.validate().map_err(|error| merged.locate(error))?;
        Ok(config)
    }

    /// As TOML, every setting spelled out.
    ///
    /// # Panics
    /// Never: every value is one that TOML has.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("numbers, strings, lists and tables are TOML")
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

    /// What a detector needs to know of a run: without teacher, branch and extra data, which leave
    /// no trace in it.
    #[must_use]
    pub fn of_detector(&self) -> Self {
        let data = DataConfig { extra: BTreeMap::new(), weight: 1, ..self.data.clone() };
        Self { data, teacher: None, semantic: None, init: None, ..self.clone() }
    }

    /// Without the names of files, which are those of one machine.
    #[must_use]
    pub fn without_paths(&self) -> Self {
        let mut config = self.of_detector();
        (config.data.train, config.data.val) = (None, None);
        config.model.dino.backbone.weights = None;
        if let ClassHeadConfig::Text { table } = &mut config.model.class_head {
            *table = None;
        }
        config
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
        check_version(self.version)?;
        within("data.batch_size", self.data.batch_size, BATCH)?;
        within("eval.batch_size", self.eval.batch_size, BATCH)?;
        within("data.prefetch", self.data.prefetch, 1..=MOST_AHEAD)?;
        within("data.workers", self.data.workers, 0..=MOST_WORKERS).map_err(|error| {
            error.with_hint("0 takes as many as the machine has cores, at most 8")
        })?;
        within("data.weight", u64::from(self.data.weight), 1..=LONGEST_CYCLE)?;
        within("data.pad_multiple", self.data.pad_multiple, 1..=LARGEST_STEP)?;
        within("eval.max_detections", self.eval.max_detections, 1..=MOST_DETECTIONS)?;
        self.train.validate("train")?;
        if let Some(init) = &self.init {
            Patterns::new(&init.allow_missing, "init.allow_missing")?;
        }
        for (name, values, range) in [
            ("pixel_mean", self.model.pixel_mean, 0.0..=1.0),
            ("pixel_std", self.model.pixel_std, 1e-3..=1.0),
        ] {
            for (channel, value) in values.into_iter().enumerate() {
                within(format!("model.{name}[{channel}]"), value, range.clone()).map_err(
                    |error| {
                        error
                            .with_hint("pixels are 0 to 1 here: divide what is for 0 to 255 by 255")
                    },
                )?;
            }
        }
        self.data.sampler.validate("data.sampler")?;
        self.data.augment.validate("data.augment")?;
        self.data.resize.validate("data.resize")?;
        self.model.dino.validate("model.dino")?;
        self.model.denoising.validate("model.denoising")?;
        if self.model.class_head == (ClassHeadConfig::Linear {})
            && self.model.dino.class_projection != ProjectionKind::Linear
        {
            let problem = "a linear class head has no projection";
            return Err(Error::config("model.dino.class_projection", problem)
                .with_hint("leave it out, or set model.class_head to kind = \"text\""));
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
