//! Batches of classification images.

use std::sync::Arc;

use image::RgbImage;

use super::{
    ClassificationSet, ExtraConfig, FormConfig, Order, OrderConfig, mosaic::mosaic, set::Item,
};
use crate::{
    Result,
    boxes::Xyxy,
    data::{
        batch::Batch,
        detection_source::BrokenImages,
        loader::BatchSource,
        sampler::Share,
        transforms::{Sample, TransformConfig, finish},
    },
    geometry::Geometry,
    random::{Random, Stream},
    targets::{LabelKnowledge, Supervision, View},
    vocabulary::ClassIndex,
};

/// What a run decides about extra batches; a set's own section decides the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedConfig {
    /// Seed of the run: part of the key of every draw.
    pub seed: u64,
    /// Images (mosaics) a batch, and which part of them is this device's. `last` does not
    /// matter: the row of batches has no end.
    pub share: Share,
    /// What is done to each image where the set's section does not say.
    pub augment: TransformConfig,
    /// Height and width of a batch are rounded up to a multiple of this, in pixels.
    pub pad_multiple: u32,
    /// Extra batches an epoch; only [`OrderConfig::Official`] looks at it.
    pub batches_per_epoch: u64,
}

/// All extra batches of a run on one device. Positions count this source's batches from the start
/// of the run; what a batch holds depends on the set, the settings and the position alone.
///
/// An image with several labels has a box for each, all of them the whole image. Of the other
/// classes nothing is known.
#[derive(Debug)]
pub struct ExtraSource {
    set: Arc<ClassificationSet>,
    order: Order,
    form: FormConfig,
    kind: OrderConfig,
    supervision: Supervision,
    augment: TransformConfig,
    feed: FeedConfig,
    broken: Arc<BrokenImages>,
}

impl ExtraSource {
    /// `config.batch_size` and `config.augment`, where given, take the place of the feed's.
    ///
    /// # Errors
    /// As [`Order::new`].
    pub fn new(
        set: Arc<ClassificationSet>,
        config: &ExtraConfig,
        feed: FeedConfig,
        broken: Arc<BrokenImages>,
    ) -> Result<Self> {
        let batch_size = config.batch_size.unwrap_or(feed.share.batch_size);
        let feed = FeedConfig { share: Share { batch_size, ..feed.share }, ..feed };
        let order = Order::new(
            config.order,
            feed.seed,
            set.len(),
            config.form.images(),
            feed.share,
            feed.batches_per_epoch,
        )?;
        Ok(Self {
            set,
            order,
            form: config.form,
            kind: config.order,
            supervision: config.supervision.clone(),
            augment: config.augment.clone().unwrap_or_else(|| feed.augment.clone()),
            feed,
            broken,
        })
    }

    /// Classification images a batch on one device.
    #[must_use]
    pub fn images_per_batch(&self) -> usize {
        self.feed.share.batch_size * self.form.images()
    }

    /// One image, read and augmented, or the first readable one of `spares`.
    fn sample(
        &self,
        index: u32,
        spares: &mut dyn Iterator<Item = u32>,
        random: &mut Random,
        skipped: &mut Vec<String>,
    ) -> Result<Sample> {
        let candidates = std::iter::once(index).chain(spares);
        let found = self.broken.first_readable(
            candidates.map(|index| Ok((index as usize, self.set.item(index as usize)))),
            |(_, item)| &item.name,
            |(_, item)| self.set.store().image(&item.name),
            skipped,
        )?;
        let Some(((index, item), image)) = found else {
            return Err(self.broken.too_few());
        };
        let mut sample = item.sample(index, image, self.kind);
        self.augment.apply(&mut sample, random);
        Ok(sample)
    }
}

impl Item<'_> {
    /// The labels that are learned from.
    pub(crate) fn labels_in(&self, order: OrderConfig) -> &[ClassIndex] {
        match order {
            OrderConfig::Shuffled => self.labels,
            OrderConfig::Official => &self.labels[..1],
        }
    }

    /// As it is before any transform; `index` is its number in the set.
    pub(crate) fn sample(&self, index: usize, image: RgbImage, order: OrderConfig) -> Sample {
        let labels = self.labels_in(order);
        let (width, height) = image.dimensions();
        let mut present = labels.to_vec();
        present.sort_unstable();
        Sample {
            image,
            boxes: vec![Xyxy([0.0, 0.0, width as f32, height as f32]); labels.len()],
            labels: labels.to_vec(),
            knowledge: LabelKnowledge { present, ..LabelKnowledge::default() },
            image_id: self.id,
            original_size: [height, width],
            view: View::of(index),
            geometry: Some(Geometry::IDENTITY),
        }
    }
}

impl BatchSource for ExtraSource {
    fn build(&self, position: u64) -> Result<Batch> {
        let Share { batch_size, rank, .. } = self.feed.share;
        let mut skipped = Vec::new();
        let mut spares = self.order.spares(position);
        let mut samples = Vec::with_capacity(batch_size);
        for slot in 0..batch_size {
            let key = (rank * batch_size + slot) as u64;
            let mut random = Random::new(self.feed.seed, Stream::ExtraTransform, position, key);
            let images = self.order.sample(position, slot, &mut random);
            let mut tiles = Vec::with_capacity(images.len());
            for index in images {
                tiles.push(self.sample(index, &mut spares, &mut random, &mut skipped)?);
            }
            let sample = match self.form {
                FormConfig::Mosaic { tile } => {
                    let tiles = tiles.try_into().expect("FormConfig::images says four");
                    mosaic(tiles, tile, &mut random)
                }
                FormConfig::Single {} => tiles.remove(0),
            };
            samples.push(finish(sample));
        }
        let batch = Batch::collate(samples, skipped, self.feed.pad_multiple)?;
        Ok(Batch { supervision: self.supervision.clone(), ..batch })
    }

    fn shape(&self, _position: u64) -> Option<[i64; 3]> {
        match self.form {
            FormConfig::Mosaic { tile } => {
                let side = (2 * tile).next_multiple_of(self.feed.pad_multiple.max(1));
                Some([self.feed.share.batch_size as i64, side.into(), side.into()])
            }
            // How large a classification image is, its file says.
            FormConfig::Single {} => None,
        }
    }
}

#[cfg(test)]
#[path = "tests/source.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
