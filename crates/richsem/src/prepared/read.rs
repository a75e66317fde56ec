//! Reads prepared labels in training, and checks that they belong to the run.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tch::{Device, Kind, Tensor};

use super::{
    manifest::{Manifest, SetFacts, text_identity, vocabulary_identity},
    plan::{self, Images, SetPlan},
    shard::{self, Shard, ShardSpec, damaged},
};
use crate::{
    checkpoint_io::{checked_text_table, safetensors},
    config::{Config, prepared::check_settings},
    data::{
        batch::Batch, detection_source::ImageEntry, extra::ClassificationSet,
        image_store::ImageStore,
    },
    error::{Error, Result},
    models::class_head::TextTable,
    precision::Precision,
    targets::Target,
    teacher::{LabelSpace, TeacherConfig, TeacherText, VitLabels, clip::Activation},
    vocabulary::Vocabulary,
};

const TEXT_TABLE: &str = "text_table";
const LOGIT_SCALE: &str = "logit_scale";
/// How far from one the length of kept features may be; rounding gives 5e-4.
const LENGTH_TOLERANCE: f32 = 1e-2;

/// The labels of a folder, for the sets and views of a run.
#[derive(Debug)]
pub struct Prepared {
    folder: PathBuf,
    dim: i64,
    /// The detection set, then the extra sets as batches number them. None for a set that nothing is learned
    /// from.
    sets: Vec<Option<Set>>,
}

#[derive(Debug)]
struct Set {
    name: String,
    /// Each view's column in the shards, by shorter side and mirroring.
    views: HashMap<(u32, bool), usize>,
    shard_images: usize,
    shards: Vec<Shard>,
}

/// The activation of the teacher that labelled.
pub(crate) fn activation(folder: &Path) -> Result<Activation> {
    Ok(Manifest::read(folder)?.teacher.activation)
}

pub(crate) fn text_path(folder: &Path) -> PathBuf {
    folder.join("text.safetensors")
}

/// Writes the text table and the logit scale.
pub(crate) fn write_text(folder: &Path, text: &TextTable, logit_scale: f64) -> Result<()> {
    let tensors = [
        (TEXT_TABLE.to_owned(), text.rows.to_device(Device::Cpu)),
        (LOGIT_SCALE.to_owned(), Tensor::from(logit_scale)),
    ];
    safetensors::write(&text_path(folder), &tensors.into(), &Default::default())
}

impl Prepared {
    /// The folder that `teacher.prepared` names, and what its features are compared with, on `device`.
    ///
    /// # Errors
    /// A folder that is missing or damaged, or was made with other classes, another teacher or
    /// other views than the settings ask for; the message names the key.
    pub fn open(
        config: &Config,
        vocabulary: &Vocabulary,
        device: Device,
    ) -> Result<(Self, LabelSpace)> {
        let (teacher, folder) = named(config)?;
        let manifest = Manifest::read(folder)?;
        check_teacher(teacher, &manifest, vocabulary)?;
        let (text, logit_scale) = read_text(folder, vocabulary, manifest.dim)?;
        let mut sets: Vec<Option<Set>> = Vec::new();
        if config.semantic_branch().is_some() {
            check_settings(config)?;
            sets.resize_with(1 + config.data.extra_sets().count(), || None);
            for plan in plan::sets(config)? {
                let facts = check_views(config, &plan, &manifest)?;
                let number = plan.extra.map_or(0, |(number, _)| number + 1);
                sets[number] = Some(Set::open(folder, plan.name, facts, &manifest)?);
            }
        }
        let text = TextTable::new(&text.rows.to_device(device));
        let folder = folder.to_owned();
        let space = LabelSpace { text, logit_scale };
        Ok((Self { folder, dim: manifest.dim, sets }, space))
    }

    /// The features of a batch's boxes, image by image: `[ΣT, D]` f32, on the host. Only the batch's own rows
    /// are read. None for a set that nothing is learned of.
    ///
    /// # Errors
    /// An image in a view that is not there, rows that do not fit its boxes, or damaged ones.
    pub fn read(&self, batch: &Batch) -> Result<Option<Tensor>> {
        let Some(set) = self.sets.get(batch.source.0).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        for target in &batch.targets {
            set.read(target, &mut bytes)?;
        }
        let rows = bytes.len() as i64 / (2 * self.dim);
        let features = Tensor::f_from_data_size(&bytes, &[rows, self.dim], Kind::Half)?;
        let features = features.f_to_kind(Kind::Float)?;
        let lengths = features.f_norm_scalaropt_dim(2.0, [-1i64], false)?;
        // Nothing but length one (or zero, of a box that saw nothing) was written; NaN is neither.
        let whole = |n: &f32| *n == 0.0 || (n - 1.0).abs() <= LENGTH_TOLERANCE;
        let lengths = Vec::<f32>::try_from(lengths)?;
        if let Some(row) = lengths.iter().position(|n| !whole(n)) {
            let mut before = 0;
            let of = batch.targets.iter().find(|target| {
                before += target.boxes.len();
                row < before
            });
            let path = match of.and_then(|target| set.locate(target).ok()) {
                Some((shard, ..)) => shard.path(),
                None => &self.folder,
            };
            let problem = format!("features of length {}, expected 1", lengths[row]);
            return Err(damaged(path, "features", &problem));
        }
        Ok(Some(features))
    }
}

impl Set {
    fn open(folder: &Path, name: String, facts: &SetFacts, manifest: &Manifest) -> Result<Self> {
        let hash = manifest.hash();
        let folder = folder.join(&name);
        let shards = (0..facts.images.div_ceil(manifest.shard_images)).map(|number| {
            let spec = shard_spec(&hash, facts, manifest, number);
            Shard::open(&shard::path(&folder, number), &spec)
        });
        let shards = shards.collect::<Result<_>>()?;
        let views = facts.views.iter().enumerate().map(|(i, view)| (*view, i)).collect();
        Ok(Self { name, views, shard_images: manifest.shard_images, shards })
    }

    /// A target's shard, image within the shard, and view.
    fn locate(&self, target: &Target) -> Result<(&Shard, usize, usize)> {
        let located = target.view.and_then(|view| {
            let image = view.image as usize;
            let column = *self.views.get(&(view.scale, view.flip))?;
            let shard = self.shards.get(image / self.shard_images)?;
            Some((shard, image % self.shard_images, column))
        });
        located.ok_or_else(|| {
            Error::other(format!(
                "set {}, image {}: the batch shows it as {:?}, which was not prepared",
                self.name, target.image_id, target.view
            ))
        })
    }

    fn read(&self, target: &Target, bytes: &mut Vec<u8>) -> Result<()> {
        let (shard, image, view) = self.locate(target)?;
        let (found, wanted) = (shard.count(image, view), target.boxes.len());
        if found != wanted {
            let field = format!("image {}", target.image_id);
            let problem = format!("expected {wanted} boxes, got {found}");
            return Err(Error::invalid(shard.path(), field, problem).with_hint(
                "the image could not be read when it was prepared: delete this shard and run \
                 the same `richsem prepare` again",
            ));
        }
        shard.read(image, view, bytes)
    }
}

/// What shard `number` of a set must hold.
pub(crate) fn shard_spec(
    hash: &str,
    facts: &SetFacts,
    manifest: &Manifest,
    number: usize,
) -> ShardSpec {
    let before = number * manifest.shard_images;
    ShardSpec {
        manifest: hash.to_owned(),
        images: (facts.images - before).min(manifest.shard_images),
        views: facts.views.len(),
        dim: manifest.dim as usize,
    }
}

fn named(config: &Config) -> Result<(&TeacherConfig, &Path)> {
    let teacher = config.teacher.as_ref();
    teacher
        .and_then(|teacher| Some((teacher, teacher.prepared.as_deref()?)))
        .ok_or_else(|| Error::config("teacher.prepared", "missing: no folder of prepared labels"))
}

fn read_text(folder: &Path, vocabulary: &Vocabulary, dim: i64) -> Result<(TextTable, f64)> {
    let path = text_path(folder);
    let hint = "run the same `richsem prepare` again";
    if !path.is_file() {
        return Err(Error::invalid(&path, "file", "missing").with_hint(hint));
    }
    let (mut tensors, _) = safetensors::read(&path).map_err(|e| e.with_hint(hint))?;
    let mut take = |name: &str| {
        let missing = || Error::invalid(&path, name, "missing").with_hint(hint);
        tensors.remove(name).ok_or_else(missing)
    };
    let text = checked_text_table(&take(TEXT_TABLE)?, vocabulary, &path)?;
    if text.dim() != dim {
        let problem = format!("expected rows of width {dim}, got {}", text.dim());
        return Err(Error::invalid(&path, TEXT_TABLE, problem).with_hint(hint));
    }
    let scale = take(LOGIT_SCALE)?;
    let scale = if scale.numel() == 1 { scale.f_double_value(&[])? } else { f64::NAN };
    if !scale.is_finite() {
        let problem = "expected one finite number";
        return Err(Error::invalid(&path, LOGIT_SCALE, problem).with_hint(hint));
    }
    Ok((text, scale))
}

/// Checks that the settings' teacher is the one that labelled. Settings without `weights` need not say
/// anything about it, but what they say must be true.
fn check_teacher(
    config: &TeacherConfig,
    manifest: &Manifest,
    vocabulary: &Vocabulary,
) -> Result<()> {
    const HINT: &str = "prepare with these settings into another folder, or take the key out";
    let refuse = |key: &str, here: String, there: String| {
        let problem = format!("{here}, and the labels were prepared with {there}");
        Err(Error::config(key, problem).with_hint(HINT))
    };
    if vocabulary_identity(vocabulary) != manifest.vocabulary {
        let (here, there) = (vocabulary.len(), manifest.classes);
        let problem = format!(
            "the training set has {here} classes, the labels were prepared for {there} of other \
             ids or names"
        );
        return Err(Error::config("teacher.prepared", problem)
            .with_hint("give the annotations that they were prepared with, or prepare again"));
    }
    // Without weights, a default is no word about the teacher.
    let named = config.weights.is_some();
    let labeller = &manifest.teacher;
    if (named || config.precision != Precision::F32) && config.precision != labeller.precision {
        let (here, there) =
            (format!("{:?}", config.precision), format!("{:?}", labeller.precision));
        return refuse("teacher.precision", here, there);
    }
    if (named || config.vit != VitLabels::default()) && config.vit != labeller.vit {
        let (here, there) = (format!("{:?}", config.vit), format!("{:?}", labeller.vit));
        return refuse("teacher.vit", here, there);
    }
    if let Some(activation) = config.activation
        && activation != labeller.activation
    {
        let (here, there) = (activation.name().to_owned(), labeller.activation.name().to_owned());
        return refuse("teacher.activation", here, there);
    }
    if named || config.text != TeacherText::default() {
        let here = text_identity(&config.text, vocabulary)?;
        if here != labeller.text {
            return refuse("teacher.text", here, labeller.text.clone());
        }
    }
    Ok(())
}

/// Checks that every view that the settings can draw is there.
fn check_views<'a>(
    config: &Config,
    plan: &SetPlan,
    manifest: &'a Manifest,
) -> Result<&'a SetFacts> {
    let refuse = |key: String, problem: String| {
        Err(Error::config(key, problem)
            .with_hint("prepare with these settings, into another folder"))
    };
    let (pad, mean) = (config.data.pad_multiple, config.model.pixel_mean);
    if pad != manifest.pad_multiple {
        let problem = format!("{pad}, and the labels were prepared with {}", manifest.pad_multiple);
        return refuse("data.pad_multiple".into(), problem);
    }
    if mean != manifest.pixel_mean {
        let there = manifest.pixel_mean;
        let problem = format!("{mean:?}, and the labels were prepared with {there:?}");
        return refuse("model.pixel_mean".into(), problem);
    }
    let Some(facts) = manifest.sets.get(&plan.name) else {
        let there: Vec<&str> = manifest.sets.keys().map(String::as_str).collect();
        let problem = format!("no labels of set {} there, only of {}", plan.name, there.join(", "));
        return refuse("teacher.prepared".into(), problem);
    };
    let key = &plan.augment_key;
    if plan.augment.max_size != facts.max_size {
        let (here, there) = (plan.augment.max_size, facts.max_size);
        let problem = format!("{here}, and the labels were prepared with {there}");
        return refuse(format!("{key}.max_size"), problem);
    }
    for view in plan.augment.views() {
        if facts.views.contains(&view) {
            continue;
        }
        let (scale, flip) = view;
        if facts.views.iter().any(|v| v.0 == scale) {
            let what = if flip { "mirrored images" } else { "images as they are" };
            return refuse(format!("{key}.flip"), format!("{what} were not prepared"));
        }
        let there: Vec<u32> = facts.views.iter().map(|v| v.0).collect();
        let problem = format!("{scale} was not prepared, only {there:?}");
        return refuse(format!("{key}.scales"), problem);
    }
    Ok(facts)
}

/// Checks before a run that its images and boxes are those that were labelled. Settings without prepared
/// labels to learn from are not checked.
///
/// # Errors
/// Another set of annotations or images, by its key.
pub(crate) fn check_data(
    config: &Config,
    detection: (&Arc<ImageStore>, &Arc<Vec<ImageEntry>>),
    extras: &[Arc<ClassificationSet>],
) -> Result<()> {
    let has_labels = config.teacher.as_ref().is_some_and(|t| t.prepared.is_some());
    if !has_labels || config.semantic.as_ref().is_none_or(|s| s.weight == 0.0) {
        return Ok(());
    }
    let (_, folder) = named(config)?;
    let manifest = Manifest::read(folder)?;
    for plan in plan::sets(config)? {
        let prepared = check_views(config, &plan, &manifest)?;
        let here = Images::of(&plan, detection, extras).facts(&plan.augment);
        if here.orientation != prepared.orientation {
            let key = if plan.extra.is_none() { "train" } else { &plan.name };
            let problem = format!(
                "images are read {:?} now, and were {:?} when labels were prepared",
                here.orientation, prepared.orientation
            );
            return Err(Error::config(format!("data.{key}.orientation"), problem)
                .with_hint("prepare again, into another folder"));
        }
        if (here.images, here.boxes, &here.hash)
            == (prepared.images, prepared.boxes, &prepared.hash)
        {
            continue;
        }
        let key = match plan.extra {
            None => "data.train.annotations".to_owned(),
            Some(_) => format!("data.{}", plan.name),
        };
        let counts = |of: &SetFacts| format!("{} images and {} boxes", of.images, of.boxes);
        let (now, then) = (counts(&here), counts(prepared));
        let problem = if now == then {
            format!("{now}, of other ids, names, classes or places than were prepared")
        } else {
            format!("{now}, and labels were prepared of {then}")
        };
        return Err(Error::config(key, problem).with_hint("prepare again, into another folder"));
    }
    Ok(())
}
