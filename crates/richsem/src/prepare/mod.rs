//! Asks the teacher about every view that training can show, and keeps its labels: see
//! [`crate::prepared`].

use std::{
    ops::{ControlFlow, Range},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tch::{Device, Kind, Tensor};

use crate::{
    collective::{self, Collective, Pace, Single},
    config::{Config, prepared::check_settings},
    data::{
        Reading,
        batch::Batch,
        detection_source::BrokenImages,
        loader::{BatchSource, Loader},
    },
    error::{Error, Result, guarded, unless_stopped},
    models::class_head::TextTable,
    normalization::Normalization,
    prepared::{
        manifest::{Manifest, SetFacts, TeacherFacts, VERSION, vocabulary_identity},
        plan::{self, Images, SetPlan, ViewSource},
        read::{shard_spec, text_path, write_text},
        shard::{self, Shard, ShardSpec},
    },
    teacher::{self, Teacher, TeacherConfig},
    train::{
        Observer, Worker,
        inputs::{Split, batches, check_files, extra_sets, workers},
        labels::label_batch,
        teacher_check::settle_activation,
    },
};

/// Images in a shard: with 22 views of 12 boxes of width 1,024, 110 MB.
const SHARD_IMAGES: usize = 200;

/// Watches the work; every method may stay empty.
pub trait PrepareObserver {
    /// A line of text for the user.
    fn message(&mut self, _text: &str) {}
    /// Of `total` views, `done` are labelled, or were before.
    fn views(&mut self, _done: u64, _total: u64) {}
}

/// How much was labelled, now and by earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrepareReport {
    /// Shards that were labelled and written.
    pub made: usize,
    /// Shards that were there, and whole.
    pub kept: usize,
    /// Rows of features, of all shards.
    pub rows: u64,
}

/// Labels every view of every image that training with these settings can show, into `folder`.
/// Shards that are there and whole are kept: after a stop, the work goes on where it was. Several processes make
/// the shards in turn; the folder must be the same for all.
///
/// # Errors
/// Settings whose images or boxes are random or predicted (see [`crate::prepared`]), a folder of
/// other settings, what keeps data or teacher from being read; [`Error::Stopped`], with whole
/// shards left in place.
pub fn prepare(
    config: &Config,
    folder: &Path,
    worker: &Worker,
    observer: &mut dyn PrepareObserver,
    stop: &AtomicBool,
) -> Result<PrepareReport> {
    prepare_sharded(config, folder, worker, SHARD_IMAGES, observer, stop)
}

/// Hands on what training's own functions say, and stops once the flag is set.
struct Lines<'a>(&'a mut dyn PrepareObserver, &'a AtomicBool);

impl Observer for Lines<'_> {
    fn message(&mut self, text: &str) {
        self.0.message(text);
    }

    fn reading(&mut self, _at: Reading) -> ControlFlow<()> {
        if self.1.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// [`prepare`] with another number of images in a shard.
fn prepare_sharded(
    config: &Config,
    folder: &Path,
    Worker { device, collective }: &Worker,
    shard_images: usize,
    observer: &mut dyn PrepareObserver,
    stop: &AtomicBool,
) -> Result<PrepareReport> {
    let (device, collective) = (*device, collective.as_ref());
    let teacher_config = teacher_of(config)?;
    let weights = teacher_config.weights()?;
    check_settings(config)?;
    let train = config.data.train.as_ref().ok_or_else(|| {
        Error::config("data.train", "missing: no images to label")
            .with_hint("set data.train to a file or folder of annotations")
    })?;
    let mut needed = without_the_rest_of_training(config);
    check_files(&needed, true)?;
    let (dataset, split) = Split::open("data.train", train, None, &mut Lines(observer, stop))?;
    let vocabulary = dataset.vocabulary().clone();
    drop(dataset);
    let extras = extra_sets(config, &vocabulary, &mut Lines(observer, stop))?;

    let broken = Arc::new(BrokenImages::new(config.data.max_broken_images));
    let first = || batches(config, &split, &extras, &broken, &Single);
    if let Some(settled) = settle_activation(&mut needed, &vocabulary, device, &first)? {
        observer.message(&settled);
    }
    let teacher_config = needed.teacher.as_ref().unwrap_or(teacher_config);

    // As in training, so that the teacher computes in the same numbers.
    config.train.precision.apply()?;
    let teacher = teacher::open(teacher_config, &vocabulary, device)?;
    let sets: Vec<LabelledSet> = plan::sets(config)?
        .into_iter()
        .map(|plan| {
            let images = Images::of(&plan, (&split.store, &split.entries), &extras);
            LabelledSet { facts: images.facts(&plan.augment), plan, images }
        })
        .collect();
    let manifest = Manifest {
        version: VERSION,
        teacher: TeacherFacts::of(teacher_config, weights, &vocabulary)?,
        classes: vocabulary.len(),
        vocabulary: vocabulary_identity(&vocabulary),
        dim: teacher.text().dim(),
        pixel_mean: config.model.pixel_mean,
        pad_multiple: config.data.pad_multiple,
        shard_images,
        sets: sets.iter().map(|set| (set.plan.name.clone(), set.facts.clone())).collect(),
    };
    if collective.leads() {
        start_folder(folder, &manifest, teacher.as_ref(), observer)?;
    }
    collective::any(collective, [false])?;
    if !collective.leads() {
        manifest.same_as_in(folder, &Manifest::read(folder)?)?;
    }
    let work = Work {
        config,
        collective,
        teacher: teacher.as_ref(),
        device,
        normalization: config.model.normalization(),
        broken: Arc::new(BrokenImages::new(config.data.max_broken_images)),
        done: 0,
        total: 0,
        report: PrepareReport::default(),
        observer,
        stop,
    };
    work.run(folder, &manifest, &sets)
}

/// The teacher of settings that learn from soft labels.
fn teacher_of(config: &Config) -> Result<&TeacherConfig> {
    if config.semantic.as_ref().is_none_or(|s| s.weight == 0.0) {
        let problem = "off: nothing learns from soft labels, so there is nothing to prepare";
        return Err(Error::config("semantic", problem).with_hint("set semantic.weight"));
    }
    // Settings with a semantic branch have a teacher, or were refused.
    config.teacher.as_ref().ok_or_else(|| {
        Error::config("teacher", "missing: there is nobody to ask").with_hint("set teacher.weights")
    })
}

/// The settings without what training needs besides, which may be on another machine.
fn without_the_rest_of_training(config: &Config) -> Config {
    let mut needed = config.clone();
    needed.data.val = None;
    if let Some(teacher) = &mut needed.teacher {
        teacher.prepared = None;
    }
    needed
}

/// Writes what a folder of labels starts with: the text table and the manifest. Nothing is written twice.
///
/// # Errors
/// The folder is there already, and was made with other settings.
fn start_folder(
    folder: &Path,
    manifest: &Manifest,
    teacher: &dyn Teacher,
    observer: &mut dyn PrepareObserver,
) -> Result<()> {
    let started = Manifest::path(folder).exists();
    if started {
        manifest.same_as_in(folder, &Manifest::read(folder)?)?;
    }
    observer.message(&teacher.describe());
    announce(manifest, observer);
    fs_err::create_dir_all(folder)?;
    let (text, scale) = (TextTable::new(&teacher.text().rows), teacher.logit_scale());
    if !started || !text_path(folder).is_file() {
        write_text(folder, &text, scale)?;
    }
    if !started {
        manifest.write(folder)?;
    }
    Ok(())
}

/// A set of images that are labelled.
struct LabelledSet {
    plan: SetPlan,
    images: Images,
    facts: SetFacts,
}

/// Tells how many images, boxes and rows there are, set by set.
fn announce(manifest: &Manifest, observer: &mut dyn PrepareObserver) {
    for (name, facts) in &manifest.sets {
        let SetFacts { images, boxes, views, .. } = facts;
        let rows = *boxes as u64 * views.len() as u64;
        let megabytes = (rows * manifest.dim as u64 * 2) as f64 / 1e6;
        observer.message(&format!(
            "{name}: {images} images with {boxes} boxes in {} views each: {rows} rows, \
             {megabytes:.1} MB",
            views.len()
        ));
    }
}

/// The labelling of all sets, and how far it is.
struct Work<'a> {
    config: &'a Config,
    collective: &'a dyn Collective,
    teacher: &'a dyn Teacher,
    device: Device,
    normalization: Normalization,
    broken: Arc<BrokenImages>,
    /// Views that are labelled, or were before.
    done: u64,
    /// Number of views that are this process's to label.
    total: u64,
    report: PrepareReport,
    observer: &'a mut dyn PrepareObserver,
    stop: &'a AtomicBool,
}

impl Work<'_> {
    /// Labels all sets, shard by shard.
    fn run(
        mut self,
        folder: &Path,
        manifest: &Manifest,
        sets: &[LabelledSet],
    ) -> Result<PrepareReport> {
        let hash = manifest.hash();
        let shards = sets.iter().flat_map(|set| {
            let shards = set.facts.images.div_ceil(manifest.shard_images);
            (0..shards).map(move |number| (set, number))
        });
        let (rank, world) = (self.collective.rank() as usize, self.collective.world() as usize);
        let own: Vec<_> = shards
            .skip(rank)
            .step_by(world)
            .map(|(set, number)| (set, number, shard_spec(&hash, &set.facts, manifest, number)))
            .collect();
        self.total = own.iter().map(|(_, _, spec)| spec.all_views()).sum();
        self.collective.pace(Pace::Long);
        for (set, number, spec) in own {
            let of_set = folder.join(&set.plan.name);
            fs_err::create_dir_all(&of_set)?;
            let path = shard::path(&of_set, number);
            if !self.keep_shard(&path, &spec)? {
                self.make_shard(&path, &spec, set, number * manifest.shard_images)?;
            }
        }
        // Those who are done wait for the others as long as these get on.
        self.collective.pace(Pace::Share);
        self.broken.gather(self.collective)?;
        if let Some(summary) = self.broken.summary() {
            self.observer.message(&summary);
        }
        let PrepareReport { made, kept, rows } = self.report;
        let sums = collective::sums(self.collective, &[made as f64, kept as f64, rows as f64])?;
        self.collective.pace(Pace::Long);
        Ok(PrepareReport { made: sums[0] as usize, kept: sums[1] as usize, rows: sums[2] as u64 })
    }

    /// Counts a shard that is there and whole. False if it is to be made.
    fn keep_shard(&mut self, path: &Path, spec: &ShardSpec) -> Result<bool> {
        unless_stopped(self.stop)?;
        if !path.exists() {
            return Ok(false);
        }
        match Shard::open_whole(path, spec) {
            Ok(shard) => {
                self.report.kept += 1;
                self.report.rows += u64::from(shard.rows());
                self.done += spec.all_views();
                self.observer.views(self.done, self.total);
                self.collective.pace(Pace::Share);
                Ok(true)
            }
            Err(Error::Invalid { file, field, problem, .. }) => {
                let file = file.display();
                self.observer.message(&format!("{file}: {field}: {problem}; made again"));
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// Labels the images of a shard, which are those of the set from `first` on.
    fn make_shard(
        &mut self,
        path: &Path,
        spec: &ShardSpec,
        set: &LabelledSet,
        first: usize,
    ) -> Result<()> {
        let before = self.done;
        let mut rows = vec![0i32; spec.images * spec.views];
        let empty = Tensor::f_zeros([0, spec.dim as i64], (Kind::Half, Device::Cpu))?;
        let mut features = vec![empty];
        for batch in self.views_of(set, first..first + spec.images)? {
            unless_stopped(self.stop)?;
            let batch = batch?;
            for target in &batch.targets {
                let row = target.view.and_then(|view| {
                    let views = &set.facts.views;
                    let column = views.iter().position(|v| *v == (view.scale, view.flip))?;
                    Some((view.image as usize - first) * spec.views + column)
                });
                let row = row.expect("`ViewSource` makes the views of the plan");
                rows[row] = target.boxes.len() as i32;
            }
            if batch.targets.iter().any(|target| !target.boxes.is_empty()) {
                features.push(self.ask(&batch)?);
            }
            self.done += batch.targets.len() as u64;
            self.observer.views(self.done, self.total);
            self.collective.pace(Pace::Share);
        }
        let features = Tensor::f_cat(&features, 0)?;
        shard::write(path, spec, &rows, &features)?;
        self.report.made += 1;
        self.report.rows += features.size()[0] as u64;
        // Images without boxes, or that cannot be read, are done too.
        self.done = before + spec.all_views();
        self.observer.views(self.done, self.total);
        Ok(())
    }

    /// Loads the views of some images of a set, those without boxes left out: a batch an image and scale.
    fn views_of(&self, set: &LabelledSet, images: Range<usize>) -> Result<Loader> {
        let mut scales: Vec<u32> = set.facts.views.iter().map(|view| view.0).collect();
        scales.dedup();
        let with_boxes = images.filter(|&image| set.images.boxes(image) > 0);
        let tasks: Vec<(usize, u32)> =
            with_boxes.flat_map(|p| scales.iter().map(move |&scale| (p, scale))).collect();
        let positions = 0..tasks.len() as u64;
        let source: Arc<dyn BatchSource> = Arc::new(ViewSource {
            images: set.images.clone(),
            augment: set.plan.augment.clone(),
            pad_multiple: self.config.data.pad_multiple,
            tasks,
            broken: Arc::clone(&self.broken),
        });
        let data = &self.config.data;
        Loader::new(source, positions, workers(data.workers), data.prefetch)
    }

    /// The features that the learner would get for that batch, `[ΣT, D]` f16 on the CPU.
    fn ask(&self, batch: &Batch) -> Result<Tensor> {
        let features = guarded(|| {
            let labels = label_batch(self.teacher, batch, self.device, &self.normalization)?;
            Ok(labels.features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Half)?)
        })?;
        if bool::try_from(features.f_isfinite()?.f_all()?)? {
            return Ok(features);
        }
        let image = batch.targets.first().map_or(0, |target| target.image_id);
        let problem = format!("the teacher's features of image {image} are not finite");
        Err(Error::non_finite(problem)
            .with_hint("set teacher.precision = \"f32\", and look at the weights"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
