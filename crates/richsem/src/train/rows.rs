//! Rows of a run's metrics, and which evaluation is the best.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evaluate::MAIN;

/// Means over the updates since the row before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRow {
    /// Updates made so far.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Learning rate of the main group at the last update.
    pub lr: f64,
    /// The weighted objective.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Images a second, evaluations left out.
    pub images_per_second: f64,
    /// Images since the row before, those of extra sets among them; 0 in rows of older releases.
    #[serde(default)]
    pub images: u64,
    /// Most memory libtorch held on the GPU so far, in MiB; 0 on the CPU.
    pub memory_mib: f64,
    /// Every term, before weighting.
    pub terms: BTreeMap<String, f64>,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Updates made so far.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// AP, AP50, …; fractions, null where nothing could be evaluated.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// 95 % intervals of the average precisions, for other images ([`crate::evaluate::intervals`]); those that
    /// have one. Rows of older releases have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// The loss of the validation set, with `train.eval_loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its terms, before weighting.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
}

impl EvalRow {
    /// AP (AP50 under a protocol without it) as a fraction; `None` where nothing could be evaluated.
    #[must_use]
    pub fn ap(&self) -> Option<f64> {
        MAIN.iter().find_map(|name| self.metrics.get(*name).copied().flatten())
    }

    /// The evaluation whose checkpoint is `best`: that of the highest AP, the first of equals.
    /// Where none gave an AP, the last.
    pub fn best<'a>(rows: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        rows.into_iter().reduce(|best, row| match better(row.ap(), best.ap()) {
            true => row,
            false => best,
        })
    }
}

/// Whether an evaluation's AP makes its checkpoint `best` in place of an earlier one.
pub(super) fn better(ap: Option<f64>, best: Option<f64>) -> bool {
    best.is_none_or(|best| ap.is_some_and(|ap| ap > best))
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetricsRow {
    /// Progress of the objective.
    Train(TrainRow),
    /// An evaluation.
    Eval(EvalRow),
}

impl MetricsRow {
    /// The evaluation, if it is one.
    #[must_use]
    pub fn eval(&self) -> Option<&EvalRow> {
        match self {
            Self::Train(_) => None,
            Self::Eval(row) => Some(row),
        }
    }

    /// Updates made when it was written.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Train(row) => row.step,
            Self::Eval(row) => row.step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_evaluation_is_the_first_of_the_highest_ap() {
        let row = |epoch, ap: Option<f64>| EvalRow {
            step: epoch * 10,
            epoch,
            metrics: [("AP".to_owned(), ap)].into(),
            intervals: BTreeMap::new(),
            loss: None,
            terms: BTreeMap::new(),
        };
        let best = |aps: &[Option<f64>]| {
            let rows: Vec<EvalRow> = (1..).zip(aps).map(|(epoch, &ap)| row(epoch, ap)).collect();
            EvalRow::best(&rows).map(|row| row.epoch)
        };
        assert_eq!(best(&[Some(0.1), Some(0.3), Some(0.3), Some(0.2)]), Some(2));
        assert_eq!(best(&[None, Some(0.0), None]), Some(2));
        assert_eq!(best(&[None, None]), Some(2));
        assert_eq!(best(&[]), None);
    }
}
