//! Which images are to be labelled, in which views.

use std::{borrow::Cow, hash::Hasher as _, sync::Arc};

use super::manifest::SetFacts;
use crate::{
    config::{Config, prepared::labelled},
    data::{
        batch::Batch,
        detection_source::{BrokenImages, ImageEntry},
        extra::{ClassificationSet, OrderConfig},
        fingerprint::Fingerprint,
        image_store::ImageStore,
        loader::BatchSource,
        transforms::{Sample, TransformConfig, finish},
    },
    error::{Error, Result},
    hash::Fnv,
};

/// Name of the folder with the detection set's shards.
const DETECTION: &str = "train";

/// A set that the semantic branch learns from, by the settings alone.
#[derive(Debug, Clone)]
pub(crate) struct SetPlan {
    /// Name of the folder with its shards: `train`, or `extra.` and the name of an extra set.
    pub(crate) name: String,
    /// Key of its transforms in the settings, for messages.
    pub(crate) augment_key: String,
    /// The transforms, which decide the views.
    pub(crate) augment: TransformConfig,
    /// Of an extra set: its number among the extra sets, and the order of its images.
    pub(crate) extra: Option<(usize, OrderConfig)>,
}

/// The detection set, then the extra sets.
///
/// # Errors
/// An extra set's name cannot be that of a folder.
pub(crate) fn sets(config: &Config) -> Result<Vec<SetPlan>> {
    let mut sets = vec![SetPlan {
        name: DETECTION.to_owned(),
        augment_key: "data.augment".to_owned(),
        augment: config.data.augment.clone(),
        extra: None,
    }];
    for (name, extra) in labelled(config) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !name.chars().all(plain) {
            let problem = "the name of this set becomes that of a folder, and holds other \
                           characters than letters, digits, _, - and .";
            return Err(Error::config(format!("data.extra.{name}"), problem));
        }
        // Batches count the sets that take part, labelled or not.
        let number = config.data.extra_sets().take_while(|(other, _)| *other != name).count();
        let own = extra.augment.is_some();
        sets.push(SetPlan {
            name: format!("extra.{name}"),
            augment_key: if own {
                format!("data.extra.{name}.augment")
            } else {
                "data.augment".to_owned()
            },
            augment: extra.augment.clone().unwrap_or_else(|| config.data.augment.clone()),
            extra: Some((number, extra.order)),
        });
    }
    Ok(sets)
}

/// The images of a set.
#[derive(Debug, Clone)]
pub(crate) enum Images {
    Detection { store: Arc<ImageStore>, entries: Arc<Vec<ImageEntry>> },
    Extra { set: Arc<ClassificationSet>, order: OrderConfig },
}

impl Images {
    pub(crate) fn of(
        plan: &SetPlan,
        (store, entries): (&Arc<ImageStore>, &Arc<Vec<ImageEntry>>),
        extras: &[Arc<ClassificationSet>],
    ) -> Self {
        match plan.extra {
            None => Self::Detection { store: Arc::clone(store), entries: Arc::clone(entries) },
            Some((number, order)) => Self::Extra { set: Arc::clone(&extras[number]), order },
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Detection { entries, .. } => entries.len(),
            Self::Extra { set, .. } => set.len(),
        }
    }

    /// Boxes that an image is annotated with.
    pub(crate) fn boxes(&self, index: usize) -> usize {
        match self {
            Self::Detection { entries, .. } => entries[index].boxes.len(),
            Self::Extra { set, order } => set.item(index).labels_in(*order).len(),
        }
    }

    pub(crate) fn name(&self, index: usize) -> Cow<'_, str> {
        match self {
            Self::Detection { entries, .. } => Cow::Borrowed(&entries[index].name),
            Self::Extra { set, .. } => Cow::Owned(set.item(index).name),
        }
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        match self {
            Self::Detection { store, entries } => {
                let entry = &entries[index];
                Ok(entry.sample(index, entry.read(store)?))
            }
            Self::Extra { set, order } => {
                let item = set.item(index);
                let image = set.store().image(&item.name)?;
                Ok(item.sample(index, image, *order))
            }
        }
    }

    pub(crate) fn facts(&self, augment: &TransformConfig) -> SetFacts {
        let hash = match self {
            // Names of files are left out: images may be moved.
            Self::Detection { entries, .. } => Fingerprint::of(entries).hash,
            // Here an image's name is all that tells it from others.
            Self::Extra { set, order } => {
                let mut hash = Fnv::default();
                for index in 0..set.len() {
                    let item = set.item(index);
                    let labels = item.labels_in(*order);
                    hash.write(&(item.name.len() as u64).to_le_bytes());
                    hash.write(item.name.as_bytes());
                    hash.write(&item.id.to_le_bytes());
                    hash.write(&(labels.len() as u64).to_le_bytes());
                    labels.iter().for_each(|label| hash.write(&label.0.to_le_bytes()));
                }
                format!("{:016x}", hash.finish())
            }
        };
        SetFacts {
            images: self.len(),
            boxes: (0..self.len()).map(|index| self.boxes(index)).sum(),
            hash,
            orientation: match self {
                Self::Detection { store, .. } => store.orientation(),
                Self::Extra { set, .. } => set.store().orientation(),
            },
            max_size: augment.max_size,
            views: augment.views(),
        }
    }
}

/// Batches of the views of one image at one scale, mirrored and not. So an image has no more padding than in
/// a batch of its own. An image that cannot be read gives an empty batch.
#[derive(Debug)]
pub(crate) struct ViewSource {
    pub(crate) images: Images,
    pub(crate) augment: TransformConfig,
    pub(crate) pad_multiple: u32,
    /// (number of the image, scale) of each position.
    pub(crate) tasks: Vec<(usize, u32)>,
    pub(crate) broken: Arc<BrokenImages>,
}

impl BatchSource for ViewSource {
    fn build(&self, position: u64) -> Result<Batch> {
        let (image, scale) = self.tasks[position as usize];
        let sample = match self.images.sample(image) {
            Ok(sample) => sample,
            Err(error) => {
                let message = error.to_string();
                self.broken.record(&self.images.name(image), &message)?;
                return Batch::collate(Vec::new(), vec![message], self.pad_multiple);
            }
        };
        let views = self.augment.views().into_iter().filter(|view| view.0 == scale);
        let views = views.map(|(scale, flip)| {
            let mut sample = sample.clone();
            self.augment.apply_view(&mut sample, scale, flip);
            finish(sample)
        });
        Batch::collate(views.collect(), Vec::new(), self.pad_multiple)
    }
}
