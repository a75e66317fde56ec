//! A run before its first step: folder, data, weights, and every check that can be made by then.

use std::{collections::HashSet, fs::File, path::PathBuf, sync::Arc};

use tch::Device;

use super::{
    Learner, NewRun, Observer, OpenedSet, Position, agree, changes, checkpoint, init,
    inputs::{Split, batches, check_boxes, check_files, extra_sets},
    run::Start,
    run_folder::RunFolder,
    teacher_check,
};
use crate::{
    collective::{self, Collective},
    config::{Config, SplitConfig},
    data::{
        detection_source::{BrokenImages, ImageEntry},
        extra::ClassificationSet,
        fingerprint::Fingerprint,
        image_store::ImageStore,
        interleaved::Interleaved,
    },
    error::{Error, Result},
    evaluate::Evaluator,
    prepared,
    teacher::OpenTeacher,
    vocabulary::Vocabulary,
};

/// Where it trains, kept from others.
pub(super) enum Place {
    New(NewRun),
    /// The lock is that of rank 0.
    Existing(RunFolder, Option<File>),
    /// A new run, whose folder is for rank 0 to make.
    Beside(PathBuf),
}

impl Place {
    /// The folder of a new run, or that of an old one, which no other process may have then; and the
    /// settings.
    ///
    /// # Errors
    /// A folder that is none of a run or is in use; settings that differ where they may not.
    pub(super) fn open(
        start: Start,
        collective: &dyn Collective,
        observer: &mut dyn Observer,
    ) -> Result<(Config, Self)> {
        let folder = match start {
            Start::New { config, folder } => {
                // It may have been changed since it was read.
                config.validate()?;
                return Ok((*config, Self::New(folder)));
            }
            Start::Beside { config, folder } => {
                config.validate()?;
                return Ok((*config, Self::Beside(folder)));
            }
            Start::Resume(folder) => folder,
        };
        let run = RunFolder::open(&folder)?;
        let config = run.config()?;
        training_split(&config)?;
        let lock = match collective.leads() {
            true => Some(run.lock()?),
            false => None,
        };
        if lock.is_some() {
            run.sweep()?;
        }
        // No one reads before it is swept.
        collective::any(collective, [false])?;
        for line in changes::since_checkpoint(&run, &config)? {
            observer.message(&line);
        }
        Ok((config, Self::Existing(run, lock)))
    }

    /// Whether there are weights of the run's own.
    pub(super) fn has_checkpoint(&self) -> bool {
        match self {
            Self::New(_) | Self::Beside(_) => false,
            Self::Existing(run, _) => run.file("checkpoints/last").exists(),
        }
    }
}

/// What a run learns from and is evaluated on.
pub(super) struct Data {
    /// Of the training set.
    pub(super) vocabulary: Vocabulary,
    pub(super) store: Arc<ImageStore>,
    pub(super) batches: Arc<Interleaved>,
    pub(super) val: Option<(OpenedSet, Evaluator)>,
    pub(super) broken: Arc<BrokenImages>,
    pub(super) fingerprint: Fingerprint,
    pub(super) entries: Arc<Vec<ImageEntry>>,
    extras: Vec<Arc<ClassificationSet>>,
}

impl Data {
    /// The batches that other settings make of the same images.
    fn batches_of(&self, config: &Config, collective: &dyn Collective) -> Result<Arc<Interleaved>> {
        let (store, entries) = (Arc::clone(&self.store), Arc::clone(&self.entries));
        batches(config, &Split { store, entries }, &self.extras, &self.broken, collective)
    }
}

/// Opens and checks all that the settings name.
///
/// # Errors
/// The first file, record or setting that is wrong.
pub(super) fn open_data(
    config: &Config,
    has_checkpoint: bool,
    collective: &dyn Collective,
    observer: &mut dyn Observer,
) -> Result<Data> {
    let split = training_split(config)?;
    check_files(config, has_checkpoint)?;
    for warning in config.warnings() {
        observer.message(&warning);
    }
    let (dataset, split) = Split::open("data.train", split, None, observer)?;
    check_boxes(config, &dataset, &split, observer)?;
    let vocabulary = dataset.vocabulary().clone();
    drop(dataset);
    let val = open_val(config, &vocabulary, &split, observer)?;
    let broken = Arc::new(BrokenImages::new(config.data.max_broken_images));
    let extras = extra_sets(config, &vocabulary, observer)?;
    prepared::check_data(config, (&split.store, &split.entries), &extras)?;
    let mut fingerprint =
        Fingerprint::of(&split.entries).with_extra(extras.iter().map(AsRef::as_ref));
    if let Some(file) = config.teacher_file() {
        fingerprint = fingerprint.with_teacher(&file)?;
    }
    agree::on_data(collective, &fingerprint, val.as_ref().map(|(set, _)| &*set.entries))?;
    let batches = batches(config, &split, &extras, &broken, collective)?;
    if let Some(line) = agree::in_words(config, collective) {
        observer.message(&line);
    }
    let updates = batches.total() / config.train.accumulate;
    if config.train.warmup_steps >= updates {
        observer.message(&format!(
            "train.warmup_steps: {} is not reached: the whole run has {updates} steps, so the rate \
             is below train.lr to its end",
            config.train.warmup_steps
        ));
    }
    let Split { store, entries } = split;
    Ok(Data { vocabulary, store, batches, val, broken, fingerprint, entries, extras })
}

/// What is told where a run is evaluated on images that it learns from: `of_train` of those of `data.val`, by the
/// stores of both and the images' names.
#[must_use]
pub fn learned_by_heart<'a>(
    (train, of_train): (&ImageStore, impl Iterator<Item = &'a str>),
    (val, of_val): (&ImageStore, impl ExactSizeIterator<Item = &'a str>),
) -> Option<String> {
    let root = |store: &ImageStore| std::fs::canonicalize(store.path()).ok();
    let (train, val) = (root(train)?, root(val)?);
    let all = of_val.len();
    // The validation set is the smaller one, as a rule.
    let judged: HashSet<PathBuf> = of_val.map(|name| val.join(name)).collect();
    let mut both = of_train.filter(|name| judged.contains(&train.join(name)));
    let first = both.next()?;
    let count = 1 + both.count();
    Some(format!(
        "{count} of the {all} images of data.val are in data.train, too, as `{first}`: AP says how well these are known \
         by heart, and nothing of new ones. Choose another part, or divide the set with `richsem dataset split`"
    ))
}

fn open_val(
    config: &Config,
    training: &Vocabulary,
    train: &Split,
    observer: &mut dyn Observer,
) -> Result<Option<(OpenedSet, Evaluator)>> {
    let Some(split) = &config.data.val else { return Ok(None) };
    let (dataset, Split { store, entries }) =
        Split::open("data.val", split, Some(training), observer)?;
    let of_train = train.entries.iter().map(|entry| entry.name.as_str());
    let of_val = entries.iter().map(|entry| entry.name.as_str());
    let told = learned_by_heart((&train.store, of_train), (&store, of_val));
    told.iter().for_each(|told| observer.message(told));
    let evaluator = Evaluator::of(&dataset)
        .with_max_detections(config.eval.max_detections as usize)
        .with_training_vocabulary(training);
    let (protocol, why) = (evaluator.protocol(), evaluator.why());
    observer.message(&format!("data.val is evaluated by the {protocol} protocol: {why}"));
    let vocabulary = dataset.vocabulary().clone();
    Ok(Some((OpenedSet { store, entries, vocabulary }, evaluator)))
}

/// The learner with the weights that it goes on from, and where its run stands, which is nowhere if it is
/// new.
///
/// # Errors
/// Weights, checkpoint or teacher that do not fit the settings.
pub(super) fn learner(
    config: &mut Config,
    data: &Data,
    network: (Device, Arc<dyn Collective>),
    open_teacher: &OpenTeacher,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<(Learner, Option<Position>)> {
    // A run with a checkpoint has weights of its own.
    let initial = match place.has_checkpoint() {
        true => None,
        false => init::read(config)?,
    };
    let mut learner =
        Learner::with_teacher(config, data.vocabulary.clone(), network, open_teacher)?;
    if let Place::Existing(run, lock) = place {
        if lock.is_some() {
            run.complete(&data.vocabulary, &data.fingerprint)?;
        }
        if let Some(position) = checkpoint::resume(run, &mut learner)? {
            agree::on_weights(&learner)?;
            return Ok((learner, Some(position)));
        }
    }
    let mut messages = init::start(config, initial, &mut learner)?;
    if let Some(semantic) = config.semantic_branch() {
        let rebuild = |config: &Config| data.batches_of(config, learner.collective());
        let present = (&*config, &data.batches);
        messages.extend(teacher_check::check(&learner, present, semantic.min_top1, &rebuild)?);
    }
    messages.iter().for_each(|message| observer.message(message));
    agree::on_weights(&learner)?;
    Ok((learner, None))
}

fn training_split(config: &Config) -> Result<&SplitConfig> {
    config.data.train.as_ref().ok_or_else(|| {
        Error::config("data.train", "missing: nothing to learn from")
            .with_hint("set data.train to a file or folder of annotations")
    })
}
