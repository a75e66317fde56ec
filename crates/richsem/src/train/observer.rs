//! What a run tells whoever watches it.

use std::{ops::ControlFlow, path::Path};

use super::rows::TrainRow;
use crate::{data::Reading, evaluate::Summary};

/// Receives the events of a run; every method may stay empty.
pub trait Observer {
    /// One line of news: what was loaded, saved, skipped.
    fn message(&mut self, _text: &str) {}
    /// The run's folder is there. The process of rank 0 alone writes into it, but for `ranks/`.
    fn folder(&mut self, _path: &Path) {}
    /// Annotations are being read, or a large archive of images is being indexed. Says whether to go on: if not,
    /// the run ends with [`Error::Stopped`](crate::Error::Stopped). What was found of an archive is kept.
    fn reading(&mut self, _at: Reading) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// Passes are being recorded as CUDA graphs: how many are done, of how many.
    fn recording(&mut self, _done: usize, _total: usize) {}
    /// An epoch starts (or goes on after a resume) at `batch` of `batches`.
    fn epoch(&mut self, _epoch: u64, _epochs: u64, _batch: u64, _batches: u64) {}
    /// One batch is done. `row` is given every `train.log_every` updates. An epoch that would have no row gets
    /// one at its end.
    fn batch(&mut self, _loss: f64, _images: usize, _row: Option<&TrainRow>) {}
    /// An evaluation is under way: images done, images in all.
    fn evaluating(&mut self, _done: usize, _total: usize) {}
    /// An evaluation is done.
    fn evaluated(&mut self, _epoch: u64, _summary: &Summary) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Hands everything on to the [`log`] facade, for programs that have a logger. As `info`: messages, the start
/// of an epoch, rows of metrics, the AP of an evaluation. As `debug`: how far recording and evaluation are. As
/// `trace`: the loss of a batch without a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logged;

impl Observer for Logged {
    fn message(&mut self, text: &str) {
        log::info!("{text}");
    }

    fn recording(&mut self, done: usize, total: usize) {
        log::debug!("recorded {done} of {total} sizes");
    }

    fn epoch(&mut self, epoch: u64, epochs: u64, batch: u64, batches: u64) {
        log::info!("epoch {} of {epochs}, from batch {batch} of {batches} on", epoch + 1);
    }

    fn batch(&mut self, loss: f64, _images: usize, row: Option<&TrainRow>) {
        match row {
            None => log::trace!("loss {loss:.4}"),
            Some(TrainRow { step, loss, lr, images_per_second, .. }) => {
                log::info!(
                    "step {step}: loss {loss:.4}, lr {lr:.2e}, {images_per_second:.1} images/s"
                );
            }
        }
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        log::debug!("evaluated {done} of {total} images");
    }

    fn evaluated(&mut self, epoch: u64, summary: &Summary) {
        log::info!("after epoch {epoch}: AP {:?}", summary.main());
    }
}
