//! One evaluation of a run: detect on every validation image, evaluate, record.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use super::{
    checkpoint,
    rows::{EvalRow, better},
    run_folder::write_text,
    trainer::{Trainer, wall_time},
};
use crate::{
    collective::{self, Pace},
    error::{Error, Result, guarded},
    evaluate::Summary,
    gallery,
    predict::{Detected, detect_batches, every_image_once, gather_detections, to_detections},
    vocabulary::Frequency,
};

/// Validation images in TensorBoard, the same at each evaluation.
const IMAGES: usize = 4;

impl Trainer<'_> {
    /// Evaluates the weights that `last` holds. Breaks when told to stop; the evaluation is then
    /// still pending. Rank 0 has the summary.
    pub(super) fn evaluate(&mut self) -> Result<ControlFlow<(), Option<Summary>>> {
        let Some((split, evaluator)) = &self.val else {
            return Err(Error::other("an evaluation is pending without data.val"));
        };
        let loss = match self.config.train.eval_loss {
            true => match self.validation_loss(split)? {
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
                ControlFlow::Continue(loss) => loss,
            },
            false => None,
        };
        let collective = self.learner.collective();
        collective.pace(Pace::Long);
        let mut source = every_image_once(
            self.learner.evaluated(),
            Arc::clone(&split.store),
            Arc::clone(&split.entries),
            self.config.eval.batch_size,
            Arc::clone(&self.broken),
        );
        source.share = source.share.of_process(collective);
        let (total, ahead) = (source.images(), self.read_ahead());
        let detector = self.learner.evaluated();
        let (observer, stop) = (&mut self.observer, self.stop);
        let mut batches = Vec::new();
        let mut done = 0;
        guarded(|| {
            detect_batches(detector, source, ahead, |Detected { batch, found, .. }| {
                let mut detections = Vec::new();
                for (target, found) in batch.targets.iter().zip(found) {
                    let found = to_detections(target.image_id, &found, detector.vocabulary());
                    detections.extend(found.into_iter().filter(|d| evaluator.knows(d.category_id)));
                    done += 1;
                    observer.evaluating(done, total);
                    if stop.load(Ordering::Relaxed) {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                batches.push(detections);
                collective.pace(Pace::Share);
                Ok(ControlFlow::Continue(()))
            })
        })?;
        // Those who are done wait for the others as long as these get on.
        collective.pace(Pace::Share);
        let [stopped] = collective::any(collective, [self.stop.load(Ordering::Relaxed)])?;
        if stopped {
            collective.pace(Pace::Long);
            return Ok(ControlFlow::Break(()));
        }
        let detections = gather_detections(collective, batches)?;
        self.broken.gather(collective)?;
        collective.pace(Pace::Long);
        let Some(detections) = detections else {
            self.position.pending_eval = false;
            return Ok(ControlFlow::Continue(None));
        };
        let summary = evaluator.evaluate_with_details(&detections)?;
        let (epoch, step) = (self.position.epoch, self.position.updates);
        write_text(&self.run.summary_file(epoch), &summary.to_json())?;
        let metrics: BTreeMap<String, Option<f64>> = summary.metrics.iter().cloned().collect();
        let measured = summary.intervals.iter().flat_map(|intervals| &intervals.metrics);
        let intervals = measured.filter_map(|m| Some((m.name.clone(), m.interval?))).collect();
        let (loss, terms) = match loss {
            Some(set) => (Some(set.loss), set.terms),
            None => (None, BTreeMap::new()),
        };
        let row = EvalRow { step, epoch, metrics, intervals, loss, terms };
        self.note_in_tensorboard(&row, &summary)?;
        let ap = summary.main();
        if self.position.best.is_none_or(|(best, _)| better(ap, best)) {
            self.position.best = Some((ap, step));
            checkpoint::link_best(&self.run, step)?;
        }
        // Resuming before this line evaluates again; the row is then rewritten, not doubled.
        self.run.replace_eval(row)?;
        self.position.pending_eval = false;
        checkpoint::write_position(&self.run.file("checkpoints").join("last"), &self.position)?;
        self.observer.evaluated(epoch, &summary);
        Ok(ControlFlow::Continue(Some(summary)))
    }

    /// Shows an evaluation in TensorBoard: metrics, AP50 of the frequency groups, the loss, and a few images.
    fn note_in_tensorboard(&mut self, row: &EvalRow, summary: &Summary) -> Result<()> {
        let Some(tensorboard) = &mut self.tensorboard else { return Ok(()) };
        let mut scalars: Vec<(String, f32)> = Vec::new();
        let mut add = |name: &str, value: Option<f64>| {
            scalars.extend(value.map(|value| (format!("eval/{name}"), value as f32)));
        };
        for (name, value) in &row.metrics {
            add(name, *value);
        }
        for group in [Frequency::Rare, Frequency::Common, Frequency::Frequent] {
            // OpenImages' protocol has it among its metrics.
            let name = format!("AP50{}", group.letter());
            if !row.metrics.contains_key(&name) {
                add(&name, summary.ap50_of(group));
            }
        }
        add("loss", row.loss);
        for (name, value) in &row.terms {
            add(name, Some(*value));
        }
        let scalars: Vec<(&str, f32)> = scalars.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        tensorboard.scalars(row.step, wall_time(), &scalars)?;
        if let Some((set, _)) = &self.val {
            // No run ends because of them.
            let detector = self.learner.evaluated();
            let shown = (IMAGES, gallery::LEAST_SCORE);
            // What cannot be read is told at the end of the run.
            match guarded(|| gallery::show(detector, set.images(), shown, &mut Vec::new())) {
                Ok(images) => {
                    for (i, drawn) in images.iter().enumerate() {
                        let tag = format!("eval_images/{i}");
                        tensorboard.image(row.step, wall_time(), &tag, &drawn.joined())?;
                    }
                }
                Err(error) => self.observer.message(&format!("no images in TensorBoard: {error}")),
            }
        }
        tensorboard.flush()
    }
}
