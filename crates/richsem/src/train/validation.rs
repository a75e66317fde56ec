//! The loss of the validation set: beside the training loss it shows when a detector learns its images by heart.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{
    BatchLoss, Learner,
    inputs::OpenedSet,
    pass::{PassInput, Runner},
    trainer::Trainer,
};
use crate::{
    collective,
    data::{batch::Batch, detection_source::ImageEntry, loader::Loader},
    error::{Error, Result, guarded},
    families::Step,
    losses::terms::{StepKey, WholeBatch},
    predict::{every_image_once, gather_in_order},
    targets::LabelKnowledge,
    vocabulary::{ClassIndex, Vocabulary},
};

/// The loss of a set: the mean of its batches, each counted as often as it has images, as rows of training
/// have it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SetLoss {
    /// The weighted objective.
    pub(super) loss: f64,
    /// Every term by name, before weighting.
    pub(super) terms: BTreeMap<String, f64>,
}

/// What a batch gave, as it goes from process to process.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    images: usize,
    loss: f64,
    terms: Vec<(String, f64)>,
}

impl SetLoss {
    /// None without images.
    fn of(rows: &[Row]) -> Option<Self> {
        let images: usize = rows.iter().map(|row| row.images).sum();
        if images == 0 {
            return None;
        }
        let mut mean = Self::default();
        for row in rows {
            let share = row.images as f64 / images as f64;
            mean.loss += share * row.loss;
            for (name, value) in &row.terms {
                *mean.terms.entry(name.clone()).or_default() += share * value;
            }
        }
        Some(mean)
    }
}

impl Learner {
    /// The objective of a batch with the weights that are evaluated ([`Self::evaluated`]): as
    /// [`Self::backward`] has it, without the semantic branch, gradients, drop path, or a change of running
    /// statistics. The batch stands for itself, whatever other processes do. What else is drawn (noise of
    /// denoising queries, federated classes, boxes that a two-stage detector learns from) depends on `key` and
    /// the image alone.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; what libtorch refuses.
    pub fn loss(&self, batch: &Batch, key: StepKey) -> Result<BatchLoss> {
        guarded(|| torch_ext::no_grad(|| self.loss_of(batch, key)))
    }

    fn loss_of(&self, batch: &Batch, key: StepKey) -> Result<BatchLoss> {
        let detector = self.evaluated();
        let Batch { targets, supervision, .. } = batch;
        let step = || Step { targets, supervision, whole: WholeBatch::of(key, targets) };
        let inputs = self.objective.prepare(step(), detector.device(), false);
        let normalization = detector.config().model.normalization();
        let (images, mask) = batch.normalize_to(detector.device(), &normalization, batch.size())?;
        let form = detector.form(batch);
        let input = PassInput { images, mask, draws: None, targets: inputs, form, learns: false };
        let input = if self.kind == Kind::Float { input } else { input.of_kind(self.kind) };
        let precision = detector.config().precision();
        let objective = &self.objective;
        let tensors = input.run(Runner { objective, detector, precision, buffers: &[] })?;
        let output = self.objective.output(&tensors, &input.targets);
        let matched = self.objective.start(&output, step())?.wait()?;
        let num_boxes = matched.num_boxes().max(1.0);
        let (terms, _) = matched.finish(num_boxes, None)?;
        let values = Tensor::f_cat(&[&terms.values, &terms.total.f_view([1])?], 0)?;
        let mut values = Vec::<f64>::try_from(values.f_to_kind(Kind::Double)?)?;
        let loss = values.pop().unwrap_or(f64::NAN);
        if !loss.is_finite() {
            return Err(Error::non_finite("the loss of the validation set is not finite"));
        }
        Ok(BatchLoss { loss, terms: terms.names.into_iter().zip(values).collect() })
    }
}

impl Trainer<'_> {
    /// The loss of the validation set, for rank 0. Breaks when told to stop.
    pub(super) fn validation_loss(
        &self,
        set: &OpenedSet,
    ) -> Result<ControlFlow<(), Option<SetLoss>>> {
        let collective = self.learner.collective();
        let detector = self.learner.evaluated();
        let mut source = every_image_once(
            detector,
            Arc::clone(&set.store),
            in_classes_of(detector.vocabulary(), set),
            self.config.eval.batch_size,
            Arc::clone(&self.broken),
        );
        source.share = source.share.of_process(collective);
        let batches = source.batches()?;
        let ahead = self.read_ahead();
        let loader = Loader::new(Arc::new(source), 0..batches, ahead.workers, ahead.prefetch)?;
        let mut rows = Vec::new();
        // Batches go to the processes in turn. The number among all decides what is drawn.
        let mut number = collective.rank();
        for batch in loader {
            let batch = batch?;
            if !batch.is_empty() {
                let key = StepKey { seed: self.config.seed, micro_step: number };
                let BatchLoss { loss, terms } = self.learner.loss(&batch, key)?;
                let row = Row { images: batch.len(), loss, terms };
                let bytes = serde_json::to_vec(&row);
                rows.push(bytes.map_err(|e| Error::other(format!("validation loss: {e}")))?);
            } else {
                rows.push(Vec::new());
            }
            number += collective.world();
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let [stopped] = collective::any(collective, [self.stop.load(Ordering::Relaxed)])?;
        if stopped {
            return Ok(ControlFlow::Break(()));
        }
        let Some(rows) = gather_in_order(collective, &rows)? else {
            return Ok(ControlFlow::Continue(None));
        };
        let rows = rows.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| {
            serde_json::from_slice(bytes)
                .map_err(|e| Error::other(format!("validation loss of another process: {e}")))
        });
        Ok(ControlFlow::Continue(SetLoss::of(&rows.collect::<Result<Vec<Row>>>()?)))
    }
}

/// The images of a set with the numbers that a detector has for its classes, which it knows by their ids.
fn in_classes_of(detector: &Vocabulary, set: &OpenedSet) -> Arc<Vec<ImageEntry>> {
    let ids = |vocabulary: &Vocabulary| -> Vec<_> {
        vocabulary.categories().iter().map(|category| category.id).collect()
    };
    if ids(detector) == ids(&set.vocabulary) {
        return Arc::clone(&set.entries);
    }
    let class = |own: ClassIndex| {
        // A class without a box need not be one of the detector's.
        detector.class_of(set.vocabulary.category(own).id)
    };
    let classes = |own: &[ClassIndex]| own.iter().filter_map(|&own| class(own)).collect::<Vec<_>>();
    let mut exhaustive: Option<[Arc<[ClassIndex]>; 2]> = None;
    let mut renumbered = |own: &Arc<[ClassIndex]>| match &exhaustive {
        // Most images of a set share one list.
        Some([of, renumbered]) if Arc::ptr_eq(of, own) => Arc::clone(renumbered),
        _ => {
            let mut new = classes(own);
            new.sort_unstable();
            let new: Arc<[ClassIndex]> = new.into();
            exhaustive = Some([Arc::clone(own), Arc::clone(&new)]);
            new
        }
    };
    let entries = set.entries.iter().map(|entry| {
        let LabelKnowledge { present, absent, not_exhaustive, exhaustive } = &entry.knowledge;
        ImageEntry {
            labels: classes(&entry.labels),
            knowledge: LabelKnowledge {
                present: classes(present),
                absent: classes(absent),
                not_exhaustive: classes(not_exhaustive),
                exhaustive: renumbered(exhaustive),
            },
            ..entry.clone()
        }
    });
    Arc::new(entries.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
