//! What a run reads: annotations, images, and the batches made of them.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use super::{Observer, check_vocabularies};
use crate::{
    argument::Argument,
    collective::Collective,
    config::{Config, SplitConfig},
    data::{
        Reading,
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        entries,
        epochs::Epochs,
        extra::{ClassificationSet, ExtraSource, FeedConfig, MappingConfig},
        image_store::ImageStore,
        interleaved::{Extra, Interleaved},
        sampler::{LastBatch, Share},
    },
    error::{Error, Result},
    gallery::ImageSet,
    models::config::ClassHeadConfig,
    plural::clause,
    predict::ReadAhead,
    teacher::TeacherText,
    vocabulary::Vocabulary,
};

/// What to do where a file of the settings is not there.
const MISSING: &str =
    "paths of a settings file are relative to it, those of the command line to the working folder";

/// Every file that the settings name must be there, before the first of them, which may be large,
/// is read. Weights to start from are not asked for where a checkpoint takes their place.
///
/// # Errors
/// Naming the key of the first that is not, or that is a folder where a file should be.
pub(crate) fn check_files(config: &Config, from_checkpoint: bool) -> Result<()> {
    let Config { data, model, .. } = config;
    let mut files: Vec<(String, Option<&Path>)> = Vec::new();
    for (name, split) in [("train", &data.train), ("val", &data.val)] {
        let split = split.as_ref();
        files.push((format!("data.{name}.annotations"), split.map(|s| &*s.annotations)));
        files.push((format!("data.{name}.images"), split.and_then(|s| s.images.as_deref())));
        let vocabulary = split.and_then(|s| s.vocabulary.as_deref());
        files.push((format!("data.{name}.vocabulary"), vocabulary));
    }
    for (name, extra) in data.extra_sets() {
        files.push((format!("data.extra.{name}.images"), Some(&*extra.images)));
        files.push((format!("data.extra.{name}.info"), extra.info.as_deref()));
        if let Some(MappingConfig::File { path }) = &extra.mapping {
            files.push((format!("data.extra.{name}.mapping.path"), Some(path)));
        }
    }
    if let ClassHeadConfig::Text { table } = &model.class_head {
        files.push(("model.class_head.table".into(), table.as_deref()));
    }
    let init = config.init.as_ref().map(|init| &*init.weights).filter(|_| !from_checkpoint);
    files.push(("init.weights".into(), init));
    // A whole detector's weights have the backbone's among them.
    let from_elsewhere = from_checkpoint || init.is_some();
    let weights = model.backbone().weights().filter(|_| !from_elsewhere);
    files.push((model.family_key("backbone.weights"), weights));
    if config.needs_teacher()
        && let Some(teacher) = &config.teacher
    {
        // Prepared labels take the place of the weights.
        let weights = teacher.weights.as_deref().filter(|_| teacher.prepared.is_none());
        files.push(("teacher.weights".into(), weights));
        files.push(("teacher.prepared".into(), teacher.prepared.as_deref()));
        if let TeacherText::Table { table } = &teacher.text {
            files.push(("teacher.text.table".into(), Some(table)));
        }
    }
    for (key, path) in files {
        let Some(path) = path else { continue };
        // Sets are files or folders, images lie in a folder or an archive, prepared labels in a folder.
        let may_be_folder =
            key.ends_with(".images") || key.ends_with(".annotations") || key == "teacher.prepared";
        // Several archives or tables may be named by a pattern.
        let is_there = path.exists() || may_be_folder && ImageStore::is_there(path);
        let (is, hint) = if !is_there {
            ("does not exist", MISSING)
        } else if path.is_dir() && !may_be_folder {
            ("is a folder, expected a file", "name the file in it")
        } else {
            continue;
        };
        return Err(Error::config(key, format!("`{}` {is}", path.display())).with_hint(hint));
    }
    Ok(())
}

/// One set of images, ready to be read.
pub(crate) struct Split {
    pub(crate) store: Arc<ImageStore>,
    pub(crate) entries: Arc<Vec<ImageEntry>>,
}

impl Split {
    /// Reads the annotations and finds the images. `key` is where the settings have them. All classes must be
    /// among those of `training`, where it is given.
    pub(crate) fn open(
        key: &str,
        config: &SplitConfig,
        training: Option<&Vocabulary>,
        observer: &mut dyn Observer,
    ) -> Result<(Dataset, Self)> {
        let (mut dataset, store) = open(key, config, &mut |at| observer.reading(at))?;
        if let Some(training) = training {
            for note in check_vocabularies(training, &mut dataset)? {
                observer.message(&note);
            }
        }
        let (path, report) = (config.annotations.display(), dataset.report());
        observer.message(&match training {
            None => format!("{path}: {report}"),
            Some(_) => format!("{path}: {}", report.without_counted_groups()),
        });
        if config.images.is_none() {
            observer.message(&format!("its images: {}", store.path().display()));
        }
        tell_notes(&store, observer);
        let entries = entries(&dataset);
        if let Some(problem) = store.holds_none_of(entries.iter().map(|e| e.name.as_str())) {
            return Err(Error::config(format!("{key}.images"), problem)
                .with_hint(format!(
                    "give what the file names in the annotations are relative to: {} {key}.images=FOLDER",
                    Argument::Set
                )));
        }
        Ok((dataset, Self { store: Arc::new(store), entries: Arc::new(entries) }))
    }
}

/// Tells what should be known of the images' folder or archives.
fn tell_notes(store: &ImageStore, observer: &mut dyn Observer) {
    for note in store.notes() {
        observer.message(&format!("{}: {note}", store.path().display()));
    }
}

/// Reads the annotations of a set, and opens its images. `key` is where the settings have it: `data.train`
/// or `data.val`.
fn open(
    key: &str,
    config: &SplitConfig,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<(Dataset, ImageStore)> {
    let usual_split = if key == "data.train" { "train" } else { "val" };
    let dataset = Dataset::open_with(&config.annotations, &config.opening(usual_split), progress)?;
    let images = dataset.images_in(config.images.as_deref()).ok_or_else(|| {
        let problem = format!(
            "missing: the images are not near the annotations (`{}`)",
            config.annotations.display()
        );
        Error::config(format!("{key}.images"), problem)
            .with_hint(format!(
                "give the folder or archive that the file names in the annotations are in: {} {key}.images=FOLDER, or \
                 for both sets {} FOLDER",
                Argument::Set,
                Argument::Images
            ))
    })?;
    let store = ImageStore::open_with(images, config.orientation, &mut |at| {
        progress(Reading::Indexing(at))
    })?;
    Ok((dataset, store))
}

/// A set whose annotations have been read, for whoever looks at its images again.
#[derive(Debug, Clone)]
pub struct OpenedSet {
    pub(crate) store: Arc<ImageStore>,
    pub(crate) entries: Arc<Vec<ImageEntry>>,
    pub(crate) vocabulary: Vocabulary,
}

impl OpenedSet {
    /// For whoever draws its images.
    pub(crate) fn images(&self) -> ImageSet<'_> {
        let Self { store, entries, vocabulary } = self;
        ImageSet { store, entries, vocabulary }
    }

    /// Reads the annotations.
    ///
    /// # Errors
    /// As [`Dataset::open`] and [`ImageStore::open`].
    pub(crate) fn open(config: &SplitConfig) -> Result<Self> {
        let (dataset, store) = open("data.val", config, &mut |_| ControlFlow::Continue(()))?;
        let (store, entries) = (Arc::new(store), Arc::new(entries(&dataset)));
        Ok(Self { store, entries, vocabulary: dataset.vocabulary().clone() })
    }
}

/// Whether there is anything to learn, and whether the detector can answer for all of it.
pub(super) fn check_boxes(
    config: &Config,
    dataset: &Dataset,
    split: &Split,
    observer: &mut dyn Observer,
) -> Result<()> {
    let report = dataset.report();
    if split.entries.iter().all(|entry| entry.boxes.is_empty()) {
        let (annotations, others) = (report.annotations, report.annotations - report.crowd);
        let problem = match (annotations, others) {
            (0, _) => "the file has no annotations".to_owned(),
            (_, 0) => format!("all {annotations} annotations are crowds (iscrowd = 1)"),
            _ => format!("of {others} boxes that are no crowds none has an inside in its image"),
        };
        let problem = format!("there is no box to learn from: {problem}");
        return Err(Error::invalid(dataset.path(), "annotations", problem).with_hint(
            match others {
                0 => "did the program that wrote this file leave the boxes out, or set iscrowd?",
                _ => "boxes are [x, y, width, height] in pixels of the image",
            },
        ));
    }
    let Some((limit, setting)) = config.model.most_objects() else { return Ok(()) };
    let most = split.entries.iter().map(|entry| entry.boxes.len()).max().unwrap_or(0);
    if most > limit {
        let many = split.entries.iter().filter(|entry| entry.boxes.len() > limit).count();
        observer.message(&format!(
            "{} more boxes (at most {most}) than the detector can find in one ({limit}): it cannot find all \
             of them ({setting})",
            clause(many, "image", ["has", "have"])
        ));
    }
    Ok(())
}

/// The extra sets that take part, in the order of their names, as batches number them.
pub(crate) fn extra_sets(
    config: &Config,
    vocabulary: &Vocabulary,
    observer: &mut dyn Observer,
) -> Result<Vec<Arc<ClassificationSet>>> {
    let sets = config.data.extra_sets().map(|(_, extra)| {
        let progress = &mut |at| observer.reading(Reading::Indexing(at));
        let set = ClassificationSet::open_with(extra, vocabulary, progress)?;
        observer.message(&format!("{}: {}", extra.images.display(), set.report()));
        tell_notes(set.store(), observer);
        Ok(Arc::new(set))
    });
    sets.collect()
}

/// The training batches of all epochs, those of extra data among them.
pub(crate) fn batches(
    config: &Config,
    split: &Split,
    extra_sets: &[Arc<ClassificationSet>],
    broken: &Arc<BrokenImages>,
    collective: &dyn Collective,
) -> Result<Arc<Interleaved>> {
    let Config { seed, data, train, .. } = config.clone();
    let share = Share {
        batch_size: data.batch_size,
        rank: collective.rank() as usize,
        world: collective.world() as usize,
        last: LastBatch::Drop,
    };
    let (store, entries) = (Arc::clone(&split.store), Arc::clone(&split.entries));
    let (augment, of_detection) = (data.augment.clone(), Arc::clone(broken));
    // Epochs end with a whole cycle of the sources, and cycles with an update.
    let extras = || config.data.extra_sets();
    // 100 : 100 is 1 : 1.
    let shared = extras().fold(data.weight, |divisor, (_, extra)| gcd(divisor, extra.weight));
    let weight = if extras().next().is_none() { 1 } else { data.weight / shared };
    let multiple = train.accumulate * u64::from(weight);
    let epochs = Arc::new(Epochs::new(train.epochs, multiple, move |epoch| {
        let classes: Vec<&[_]> = entries.iter().map(|e| e.labels.as_slice()).collect();
        Ok(DetectionSource {
            store: Arc::clone(&store),
            entries: Arc::clone(&entries),
            order: data.sampler.epoch_order(&classes, seed, epoch)?,
            share,
            transform: Transform::Train(data.augment.clone()),
            seed,
            epoch,
            pad_multiple: data.pad_multiple,
            broken: Arc::clone(&of_detection),
            on_broken: OnBroken::Replace,
            keep_originals: false,
        })
    })?);
    let mut sources = Vec::new();
    for (i, ((name, extra), set)) in extras().zip(extra_sets).enumerate() {
        let feed = FeedConfig {
            // Sets of one size would otherwise walk in step.
            seed: seed.wrapping_add((i as u64) << 32),
            share,
            augment: augment.clone(),
            pad_multiple: config.data.pad_multiple,
            batches_per_epoch: epochs.batches(0) / u64::from(weight)
                * u64::from(extra.weight / shared),
        };
        let source = ExtraSource::new(Arc::clone(set), extra, feed, Arc::clone(broken))?;
        let (name, weight) = (name.clone(), extra.weight / shared);
        sources.push(Extra { name, source: Arc::new(source), weight });
    }
    Ok(Arc::new(Interleaved::new(epochs, weight, sources)))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Number of reading threads: as configured, or the machine's cores up to 8.
pub(crate) fn workers(configured: usize) -> usize {
    if configured > 0 { configured } else { ReadAhead::default().workers }
}
