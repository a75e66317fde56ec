//! Recording a network's passes as CUDA graphs: as they come, and before a run's first step.

use std::{ops::ControlFlow, sync::atomic::Ordering, time::Instant};

use tch::{Kind, Tensor};

use super::{Learner, pass::PassInput, pass::recorded_with, trainer::Trainer};
use crate::{
    boxes::Cxcywh,
    data::loader::BatchSource as _,
    error::{Result, guarded},
    families::Step,
    losses::terms::{StepKey, WholeBatch},
    models::{padding::Padding, parameters::Role},
    recordings::{Recordings, Size, buckets::Plan},
    targets::{LabelKnowledge, Supervision, Target},
    vocabulary::ClassIndex,
};

/// Batches whose sizes decide what is recorded ahead.
const SIZES_LOOKED_AT: u64 = 10_000;

impl Learner {
    /// Whether [`Self::record_ahead`] records any.
    #[must_use]
    pub fn records_ahead(&self) -> bool {
        let masked = self.model.detector.config().model.padding() == Padding::Masked;
        masked && self.recordings.borrow().on()
    }

    /// Records passes for batches of these shapes, `[images, height, width]`, of as many steps or a sample of
    /// them, before they come: at few sizes, so that each can be padded up to one of them. `each` is told how
    /// many are done, of how many; it can end it early. Says what they hold; nothing where nothing is
    /// recorded.
    ///
    /// # Errors
    /// What libtorch refuses of a pass that is not recorded.
    pub fn record_ahead(
        &self,
        shapes: &[[i64; 3]],
        mut each: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<String>> {
        if !self.records_ahead() {
            return Ok(None);
        }
        let mut recordings = self.recordings.borrow_mut();
        let Plan { sizes, added } = Plan::new(shapes);
        for (done, &(images, [height, width])) in sizes.iter().enumerate() {
            let input = guarded(|| self.example([images, height, width]))?;
            if done == 0 {
                // Kernels are loaded and constants made by a pass that is not recorded.
                guarded(|| self.warm_up(images))?;
            }
            let of = recorded_with(images, &input.targets, input.form);
            self.record(&mut recordings, &of, [height, width], &input);
            // Where it fails, a step on images of that size says so, if there is one.
            if let Some((_, labels)) = &self.semantic {
                let normalization = self.model.detector.config().model.normalization();
                let _ = guarded(|| labels.warm_up(&input.images, &normalization));
            }
            if each(done + 1, sizes.len()).is_break() {
                return Ok(None);
            }
        }
        recordings.at_once();
        Ok(recordings.describe().map(|held| {
            format!("{held}; batches are padded up to them ({:.1} % more pixels)", added * 100.0)
        }))
    }

    /// Records the network's pass and its backward pass. What lies between them is not: how many boxes there
    /// are changes from batch to batch.
    pub(super) fn record(
        &self,
        recordings: &mut Recordings,
        of: &[i64],
        size: Size,
        input: &PassInput,
    ) {
        recordings.record(of, size, &input.tensors(), &self.trained(), |places| {
            input.run_on(places, self.runner(&self.optimizer.buffers()))
        });
    }

    /// The detector's parameters that are trained.
    fn trained(&self) -> Vec<Tensor> {
        let parameters = self.model.detector.parameters().into_iter();
        parameters.filter_map(|p| (p.role == Role::Trainable).then_some(p.tensor)).collect()
    }

    /// A pass's input of that shape, `[images, height, width]`: nothing to be seen, one box each.
    fn example(&self, [images, height, width]: [i64; 3]) -> Result<PassInput> {
        let device = self.model.detector.device();
        let floats = (Kind::Float, device);
        let target = Target {
            image_id: 0,
            boxes: vec![Cxcywh([0.5; 4])],
            labels: vec![ClassIndex(0)],
            knowledge: LabelKnowledge::default(),
            size: [height as u32, width as u32],
            original_size: [height as u32, width as u32],
            view: None,
            geometry: None,
        };
        let targets = vec![target; images as usize];
        let whole = WholeBatch::of(StepKey { seed: 0, micro_step: 0 }, &targets);
        let draws = self.draws(images as usize, &whole);
        let step = Step { targets: &targets, supervision: &Supervision::default(), whole };
        let targets = self.objective.prepare(step, device, true);
        Ok(PassInput {
            images: Tensor::f_zeros([images, height, width, 3], floats)?.f_permute([0, 3, 1, 2])?,
            mask: Tensor::f_zeros([images, height, width], (Kind::Bool, device))?,
            draws,
            targets,
            form: self.model.detector.network().form([[height as u32, width as u32]]),
            learns: true,
        })
    }

    /// A pass and its backward pass on small images. The gradients stay as they are.
    fn warm_up(&self, images: i64) -> Result<()> {
        let input = self.example([images, 256, 256])?;
        let outputs = input.run(self.runner(&self.optimizer.buffers()))?;
        let outputs: Vec<Tensor> = outputs.into_iter().filter(Tensor::requires_grad).collect();
        let zeros: Vec<Tensor> = outputs.iter().map(Tensor::zeros_like).collect();
        Ok(torch_ext::backward(&outputs, &zeros, &self.trained())?)
    }
}

impl Trainer<'_> {
    /// Records passes for the sizes that the batches will have. When told to stop it ends early: the first step
    /// sees to the rest.
    pub(super) fn record_ahead(&mut self) -> Result<()> {
        // Of the whole run, whether it is resumed or not.
        let total = self.batches.total();
        let positions =
            (0..total.min(SIZES_LOOKED_AT)).map(|i| i * total / total.min(SIZES_LOOKED_AT));
        let shapes: Vec<_> =
            positions.filter_map(|position| self.batches.shape(position)).collect();
        let start = Instant::now();
        let (stop, observer) = (self.stop, &mut self.observer);
        let summary = self.learner.record_ahead(&shapes, |done, total| {
            observer.recording(done, total);
            match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if let Some(summary) = summary {
            self.observer.message(&format!("{summary}, {:.1} s", start.elapsed().as_secs_f64()));
        }
        Ok(())
    }
}
