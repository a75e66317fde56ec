//! What tests of whole runs share: a set with classification images and a teacher, runs that stop, learners.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tch::Device;

use super::{normal, small_set, write_set};
use crate::{
    collective::Single,
    config::Config,
    data::dataset::Dataset,
    error::Result,
    synth::SynthConfig,
    teacher::clip,
    train::{
        Learner, MetricsRow, NewRun, Observer, Outcome, RunFolder, Start, TrainRow, Worker, train,
    },
};

/// Draws into a folder below `folder` a [`small_set`] with classification images, beside it `teacher.safetensors`,
/// a copy of `teacher`, and a table of random text of its width. Sets libtorch's threads to one, whatever the
/// environment says: tests side by side wait for each other's threads.
///
/// # Errors
/// As [`crate::synth::generate`]; a teacher that cannot be read.
pub fn write_taught_set(folder: &Path, teacher: &Path) -> Result<PathBuf> {
    tch::set_num_threads(1);
    let out = folder.join("synth");
    let config = SynthConfig {
        val_images: 4,
        classification_per_class: 5,
        classification_size: 48,
        ..small_set()
    };
    write_set(&config, &out)?;
    let (_, sizes, _) = clip::load(teacher, &clip::Hints::default(), Device::Cpu)?;
    normal(3, &[4, sizes.embed_dim]).write_npy(out.join("text.npy"))?;
    fs_err::copy(teacher, out.join("teacher.safetensors"))?;
    Ok(out)
}

/// The end of settings of a run on such a set: two epochs, mosaics of the classification images with these entries
/// of `supervision`, and a semantic branch with these settings.
#[must_use]
pub fn taught_run(set: &Path, supervision: &str, semantic: &str) -> String {
    format!(
        r#"epochs = 2
lr_drop = [1]
log_every = 3

[data.extra.classification]
images = "{0}/classification"
mapping = {{ by = "name" }}
form = {{ kind = "mosaic", tile = 32 }}
augment = {{ scales = [32], max_size = 48, crop = {{ probability = 0 }} }}
supervision = {{ {supervision} }}

[teacher]
weights = "{0}/teacher.safetensors"
text = {{ kind = "table", table = "{0}/text.npy" }}

[semantic]
{semantic}"#,
        set.display()
    )
}

/// What learns in a run of these settings on the training images of `set`.
///
/// # Errors
/// As [`Dataset::open`] and [`Learner::new`].
pub fn learner(config: &Config, set: &Path) -> Result<Learner> {
    let vocabulary = Dataset::open(&set.join("train.json"))?.vocabulary().clone();
    Learner::new(config, vocabulary, Device::Cpu, Arc::new(Single))
}

/// A new run of these settings.
///
/// # Errors
/// As [`NewRun::claim`].
pub fn new_run(config: &Config, folder: &Path) -> Result<Start> {
    Ok(Start::New { config: Box::new(config.clone()), folder: NewRun::claim(folder)? })
}

/// Sets the flag at its n-th batch or evaluated image, as a signal would.
#[derive(Debug)]
pub struct StopAt<'a>(pub usize, pub &'a AtomicBool);

impl StopAt<'_> {
    fn count(&mut self) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for StopAt<'_> {
    fn batch(&mut self, _loss: f64, _images: usize, _row: Option<&TrainRow>) {
        self.count();
    }

    fn evaluating(&mut self, _done: usize, _total: usize) {
        self.count();
    }
}

/// Runs these settings in a new folder, stopping after every `each` batches and evaluated images, and going on.
/// Returns how often it stopped.
///
/// # Errors
/// As [`train`].
pub fn run_in_pieces(config: &Config, folder: &Path, each: usize) -> Result<usize> {
    let mut next = new_run(config, folder)?;
    let mut stops = 0;
    loop {
        let stop = AtomicBool::new(false);
        match train(next, &Worker::alone(Device::Cpu), &mut StopAt(each, &stop), &stop)? {
            Outcome::Stopped(_) => stops += 1,
            Outcome::Finished { .. } => return Ok(stops),
        }
        next = Start::Resume(folder.to_owned());
    }
}

/// The rows of a run's metrics without their speeds, which differ each time.
///
/// # Errors
/// It is no run's folder; metrics that cannot be read.
pub fn rows_without_speed(run: &Path) -> Result<Vec<MetricsRow>> {
    let mut rows = RunFolder::open(run)?.metrics()?;
    for row in &mut rows {
        if let MetricsRow::Train(row) = row {
            row.images_per_second = 0.0;
        }
    }
    Ok(rows)
}
