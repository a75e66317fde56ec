//! What a run tells whoever watches it.

use super::run_folder::TrainRow;
use crate::evaluate::Summary;

/// Receives the events of a run; every method may stay empty.
pub trait Observer {
    /// One line of news: what was loaded, saved, skipped.
    fn message(&mut self, _text: &str) {}
    /// Passes are being recorded as CUDA graphs: how many are done, of how many.
    fn recording(&mut self, _done: usize, _total: usize) {}
    /// An epoch starts (or goes on after a resume) at `batch` of `batches`.
    fn epoch(&mut self, _epoch: u64, _epochs: u64, _batch: u64, _batches: u64) {}
    /// One batch is done; `row` is given every `train.log_every` updates, and at
    /// the end of an epoch without one.
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
