//! Batches of a detection dataset: read, transform, collate; broken images named and replaced.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use image::RgbImage;

use super::{
    batch::Batch,
    image_io::{Decoded, Orientation},
    image_store::ImageStore,
    loader::BatchSource,
    sampler::Share,
    transforms::{EvalTransformConfig, Sample, TransformConfig, finish, size_after_resize},
};
use crate::{
    Error, Result,
    argument::Argument,
    boxes::Xyxy,
    collective::{Collective, pack, unpack},
    geometry::Geometry,
    plural::counted,
    random::{Random, Stream},
    targets::{LabelKnowledge, Target, View},
    vocabulary::ClassIndex,
};

/// One image of a dataset, not yet read. `boxes` and `labels` are parallel, length T.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageEntry {
    /// Its file, relative to the image root or within the archive.
    pub name: String,
    /// Its id in the annotation file.
    pub id: i64,
    /// `[height, width]` by the annotation file, or, without one, by the image's head; an image of
    /// another size counts as broken, since its boxes cannot fit. Unchecked if none.
    pub size: Option<[u32; 2]>,
    /// `[T]` boxes in pixels of the file.
    pub boxes: Vec<Xyxy>,
    /// `[T]` class of each box.
    pub labels: Vec<ClassIndex>,
    /// What is known of the other classes.
    pub knowledge: LabelKnowledge,
}

impl ImageEntry {
    /// Reads the image.
    ///
    /// # Errors
    /// It cannot be read, or is of another size than annotated.
    pub(crate) fn read(&self, store: &ImageStore) -> Result<RgbImage> {
        let Decoded { image, exif } = store.decode(&self.name)?;
        let got = [image.height(), image.width()];
        let (keeps_size, orientation) = (exif < 5 || got[0] == got[1], store.orientation());
        let Some([h, w]) = self.size.filter(|&expected| expected != got) else {
            if exif != 1 && (keeps_size || self.size.is_none()) {
                store.note_turned(&self.name);
            }
            return Ok(image);
        };
        let problem = format!("expected {w} x {h} pixels as listed, got {} x {}", got[1], got[0]);
        let hint = match orientation {
            _ if exif < 5 || [got[1], got[0]] != [h, w] => {
                "the image was resized or replaced after it was annotated or listed"
            }
            Orientation::Exif => &format!(
                "the annotations have the size of the stored pixels, so the boxes were drawn on those: set \
                 orientation = \"stored\" for this set (`eval`, `predict`: {} stored)",
                Argument::Orientation
            ),
            Orientation::Stored => {
                "the annotations have the size that viewers show, after the EXIF orientation: leave out \
                 orientation = \"stored\" for this set"
            }
        };
        Err(Error::invalid(&store.display_path(&self.name), "image", problem).with_hint(hint))
    }

    /// The image and its boxes before any transform. `index` is its number in the set.
    pub(crate) fn sample(&self, index: usize, image: RgbImage) -> Sample {
        let (mut boxes, mut labels) = (self.boxes.clone(), self.labels.clone());
        if self.size.is_none() {
            // The annotation file did not know where the image ends.
            let (width, height) = image.dimensions();
            let clipped = boxes.into_iter().map(|bbox| bbox.clipped(width, height)).zip(labels);
            (boxes, labels) = clipped.filter(|(bbox, _)| !bbox.is_degenerate()).unzip();
        }
        Sample {
            original_size: [image.height(), image.width()],
            image,
            boxes,
            labels,
            knowledge: self.knowledge.clone(),
            image_id: self.id,
            view: View::of(index),
            geometry: Some(Geometry::IDENTITY),
        }
    }
}

/// What is done to each image before it goes into a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// Random flips, crops and sizes, for training.
    Train(TransformConfig),
    /// One size, nothing random, for evaluation and prediction.
    Eval(EvalTransformConfig),
}

/// What takes the place of a broken image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBroken {
    /// Training: the next readable image in the epoch's order, after the batch.
    Replace,
    /// Evaluation: nothing, so that no image is evaluated twice. A batch may then have no images.
    LeaveOut,
}

/// The images of a run that could not be read. All epochs and threads share it. So the batch at which
/// the limit is passed depends on how many are built ahead; the contents of batches do not.
#[derive(Debug)]
pub struct BrokenImages {
    allowed: usize,
    found: Mutex<BTreeMap<String, String>>,
}

impl Default for BrokenImages {
    fn default() -> Self {
        Self::new(Self::DEFAULT_ALLOWED)
    }
}

impl BrokenImages {
    /// How many different broken images a run accepts by default.
    pub const DEFAULT_ALLOWED: usize = 10;
    const MOST_LISTED: usize = 20;

    /// Accepts this many different broken images.
    #[must_use]
    pub fn new(allowed: usize) -> Self {
        Self { allowed, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a broken image by name, once for each name.
    ///
    /// # Errors
    /// More than the allowed number are broken; the message lists them.
    pub(crate) fn record(&self, name: &str, message: &str) -> Result<()> {
        let mut found = self.found();
        if !found.contains_key(name) {
            found.insert(name.to_owned(), message.to_owned());
        }
        if found.len() <= self.allowed {
            return Ok(());
        }
        let problem = format!(
            "more than the allowed {} could not be read:\n{}",
            counted(self.allowed, "image"),
            listed(&found)
        );
        Err(Error::config("data.max_broken_images", problem)
            .with_hint("repair or remove these files, or raise the limit"))
    }

    /// The first candidate that can be read, with its image. Those before it are noted, and what
    /// was wrong with them is added to `skipped`. None if all candidates are broken.
    ///
    /// # Errors
    /// That of a candidate, or more than the allowed number are broken.
    pub(super) fn first_readable<T>(
        &self,
        candidates: impl IntoIterator<Item = Result<T>>,
        name: impl Fn(&T) -> &str,
        read: impl Fn(&T) -> Result<RgbImage>,
        skipped: &mut Vec<String>,
    ) -> Result<Option<(T, RgbImage)>> {
        for candidate in candidates {
            let candidate = candidate?;
            match read(&candidate) {
                Ok(image) => return Ok(Some((candidate, image))),
                Err(error) => {
                    let message = error.to_string();
                    self.record(name(&candidate), &message)?;
                    skipped.push(message);
                }
            }
        }
        Ok(None)
    }

    /// The error for a batch that no readable image is left for.
    pub(super) fn too_few(&self) -> Error {
        let broken = self.summary().unwrap_or_default();
        Error::other(format!("too few images can be read to fill a batch: {broken}"))
    }

    /// Gives rank 0 what the other processes found, too.
    ///
    /// # Errors
    /// A process that failed or is gone.
    pub fn gather(&self, collective: &dyn Collective) -> Result<()> {
        let own: Vec<Vec<u8>> =
            self.list().into_iter().flat_map(|(n, m)| [n.into_bytes(), m.into_bytes()]).collect();
        let Some(all) = collective.gather(pack(&own))? else { return Ok(()) };
        let mut found = self.found();
        for of_rank in all {
            for pair in unpack(&of_rank)?.chunks_exact(2) {
                let [name, message] =
                    [&pair[0], &pair[1]].map(|text| String::from_utf8_lossy(text));
                found.entry(name.into_owned()).or_insert_with(|| message.into_owned());
            }
        }
        Ok(())
    }

    /// Names and messages so far, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<(String, String)> {
        self.found().iter().map(|(name, message)| (name.clone(), message.clone())).collect()
    }

    /// A report for the end of a run; none if every image could be read.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let found = self.found();
        (!found.is_empty()).then(|| {
            format!("{} could not be read:\n{}", counted(found.len(), "image"), listed(&found))
        })
    }
}

fn listed(found: &BTreeMap<String, String>) -> String {
    let mut lines: Vec<String> =
        found.values().take(BrokenImages::MOST_LISTED).map(|m| format!("  {m}")).collect();
    if found.len() > lines.len() {
        lines.push(format!("  and {} more", found.len() - lines.len()));
    }
    lines.join("\n")
}

/// One epoch's batches of one device. Each depends on these fields and its position alone.
#[derive(Debug)]
pub struct DetectionSource {
    /// The folder or archive that holds the images.
    pub store: Arc<ImageStore>,
    /// The dataset, the same for all epochs.
    pub entries: Arc<Vec<ImageEntry>>,
    /// The epoch's order, indices into `entries` (see [`super::sampler`]). Not empty.
    pub order: Vec<u32>,
    /// Which part of the order is this device's.
    pub share: Share,
    /// What is done to each image before it goes into a batch.
    pub transform: Transform,
    /// Seed of the run: part of the augmentation's key.
    pub seed: u64,
    /// Number of the epoch, from 0: part of the augmentation's key.
    pub epoch: u64,
    /// Height and width of a batch are rounded up to a multiple of this, in pixels.
    pub pad_multiple: u32,
    /// Collects the images that could not be read.
    pub broken: Arc<BrokenImages>,
    /// What takes the place of an image that could not be read.
    pub on_broken: OnBroken,
    /// Whether batches keep the images as they were read ([`Batch::originals`]), for drawing on them.
    pub keep_originals: bool,
}

impl DetectionSource {
    /// Batches of the epoch, for [`super::loader::Loader::new`]'s positions.
    ///
    /// # Errors
    /// As [`Share::batches_per_epoch`].
    pub fn batches(&self) -> Result<u64> {
        self.share.batches_per_epoch(self.order.len())
    }

    /// Number of images of this process's batches; 0 where it has none.
    #[must_use]
    pub fn images(&self) -> usize {
        let slots = |position| self.share.slots(position, self.order.len()).len();
        (0..self.batches().unwrap_or(0)).map(slots).sum()
    }

    /// The slots of a batch, and where those of later batches begin.
    ///
    /// A batch is padded to its largest height and width, and a step takes as long as that of the device with the
    /// largest batch. So the images of a step in training are dealt out by their shape: the widest to the last
    /// device, the highest to the first. The images of a step stay the same.
    fn slots(&self, position: u64) -> (Vec<usize>, usize) {
        let Share { batch_size, rank, world, last } = self.share;
        let own = self.share.slots(position, self.order.len());
        let end = own.end;
        if world == 1 || matches!(self.transform, Transform::Eval(_)) {
            return (own.collect(), end);
        }
        let of_all = Share { batch_size: batch_size * world, rank: 0, world: 1, last };
        let shape = |slot| {
            let (width, height) = self.size(slot).unwrap_or((1, 1));
            f64::from(width) / f64::from(height.max(1))
        };
        let mut dealt: Vec<(usize, f64)> =
            of_all.slots(position, self.order.len()).map(|slot| (slot, shape(slot))).collect();
        // In the order of their slots where shapes are the same.
        dealt.sort_by(|a, b| a.1.total_cmp(&b.1));
        let own = dealt.into_iter().map(|(slot, _)| slot).skip(rank * batch_size).take(batch_size);
        (own.collect(), end)
    }

    /// The image at a slot of the epoch's order, which repeats endlessly, with its number in the
    /// set.
    fn entry(&self, slot: usize) -> Result<(usize, &ImageEntry)> {
        let index = slot.checked_rem(self.order.len()).map(|i| self.order[i] as usize);
        index.and_then(|i| Some((i, self.entries.get(i)?))).ok_or_else(|| {
            Error::other(format!(
                "the epoch's order does not fit the dataset of {} images",
                self.entries.len()
            ))
        })
    }

    fn transformed(
        &self,
        (index, entry): (usize, &ImageEntry),
        image: RgbImage,
        slot: usize,
    ) -> (RgbImage, Target) {
        let mut sample = entry.sample(index, image);
        match &self.transform {
            Transform::Train(config) => {
                // Keyed by the slot, so that an image drawn twice is augmented in two ways.
                let key = Random::new(self.seed, Stream::Transform, self.epoch, slot as u64);
                config.apply(&mut sample, &mut { key });
            }
            Transform::Eval(config) => config.apply(&mut sample),
        }
        finish(sample)
    }
}

impl DetectionSource {
    /// `(width, height)` after the transform, if the annotation file knows those before.
    fn size(&self, slot: usize) -> Option<(u32, u32)> {
        let (_, entry) = self.entry(slot).ok()?;
        let [height, width] = entry.size?;
        Some(match &self.transform {
            Transform::Train(config) => {
                let mut random = Random::new(self.seed, Stream::Transform, self.epoch, slot as u64);
                config.size((width, height), &mut random)
            }
            Transform::Eval(config) => {
                size_after_resize(width, height, config.size, config.max_size)
            }
        })
    }
}

impl BatchSource for DetectionSource {
    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        let (slots, _) = self.slots(position);
        let images = slots.len() as i64;
        let sizes: Option<Vec<_>> = slots.into_iter().map(|slot| self.size(slot)).collect();
        let (widths, heights): (Vec<_>, Vec<_>) = sizes?.into_iter().unzip();
        let padded = |sides: Vec<u32>| {
            let largest = sides.into_iter().max().unwrap_or(0);
            i64::from(largest.next_multiple_of(self.pad_multiple.max(1)))
        };
        Some([images, padded(heights), padded(widths)])
    }

    fn build(&self, position: u64) -> Result<Batch> {
        let mut skipped = Vec::new();
        let (slots, end) = self.slots(position);
        let mut samples = Vec::with_capacity(slots.len());
        let mut originals = Vec::new();
        // Replacements come from after this batch, so that it shows no image twice.
        let mut spares = end..end + self.order.len();
        for slot in slots {
            let others = match self.on_broken {
                OnBroken::Replace => spares.len(),
                OnBroken::LeaveOut => 0,
            };
            let candidates = std::iter::once(slot).chain(spares.by_ref().take(others));
            let found = self.broken.first_readable(
                candidates.map(|slot| self.entry(slot)),
                |(_, entry)| &entry.name,
                |(_, entry)| entry.read(&self.store),
                &mut skipped,
            )?;
            match found {
                Some((entry, image)) => {
                    if self.keep_originals {
                        originals.push(image.clone());
                    }
                    samples.push(self.transformed(entry, image, slot));
                }
                None if self.on_broken == OnBroken::LeaveOut => {}
                None => return Err(self.broken.too_few()),
            }
        }
        Ok(Batch { originals, ..Batch::collate(samples, skipped, self.pad_multiple)? })
    }
}

#[cfg(test)]
#[path = "detection_source_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
