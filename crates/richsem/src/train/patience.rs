//! Ending a run early: no better AP for some epochs.

use super::{
    checkpoint::Position,
    rows::{EvalRow, MetricsRow},
    run_folder::RunFolder,
};
use crate::{config::Config, error::Result, plural::counted};

impl RunFolder {
    /// The epoch after which `train.patience` ended the run, which is then finished; none where it goes on, or went
    /// to its last epoch.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn ended_early(&self, config: &Config) -> Result<Option<u64>> {
        let train = &config.train;
        let Some(at) = Position::of_run(self)? else { return Ok(None) };
        let between = at.batch == 0 && !at.pending_eval && at.epoch < train.epochs;
        if train.patience == 0 || !between {
            return Ok(None);
        }
        Ok(ended(&self.metrics()?, train.patience).map(|_| at.epoch))
    }
}

/// Why a run ends, if its last evaluation came at least `patience` epochs after its best. Evaluations alone
/// decide, so that a run that is resumed decides the same.
pub(super) fn ended(rows: &[MetricsRow], patience: u64) -> Option<String> {
    let evaluations = || rows.iter().filter_map(MetricsRow::eval);
    let last = evaluations().map(|row| row.epoch).max()?;
    let best = EvalRow::best(evaluations())?;
    let since = last.checked_sub(best.epoch).filter(|&epochs| epochs >= patience)?;
    let ap = best.ap().map_or_else(|| "no AP".to_owned(), |ap| format!("AP {:.1}", 100.0 * ap));
    Some(format!(
        "train.patience: no better AP for {} ({ap} after epoch {}): training ends here",
        counted(since as usize, "epoch"),
        best.epoch
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_evaluated_epochs_count_and_equal_is_not_better() {
        let row = |(epoch, ap): &(u64, Option<f64>)| {
            let metrics = [("AP".to_owned(), *ap)].into();
            let terms = std::collections::BTreeMap::new();
            MetricsRow::Eval(EvalRow {
                step: epoch * 10,
                epoch: *epoch,
                metrics,
                intervals: Default::default(),
                loss: None,
                terms,
            })
        };
        let ends = |rows: &[(u64, Option<f64>)], patience| {
            ended(&rows.iter().map(row).collect::<Vec<_>>(), patience).is_some()
        };
        let (a, b) = (Some(0.2), Some(0.1));
        assert!(!ends(&[], 1));
        assert!(!ends(&[(1, b), (2, a)], 1));
        assert!(ends(&[(1, a), (2, a)], 1) && !ends(&[(1, a), (2, a)], 2));
        assert!(ends(&[(1, a), (2, b), (3, b)], 2));
        // Evaluated every fifth epoch: the tenth is looked at first.
        assert!(!ends(&[(5, a)], 3) && ends(&[(5, a), (10, b)], 3));
        assert!(!ends(&[(5, a), (10, b), (15, Some(0.3))], 3));
        assert!(ends(&[(1, None), (2, None), (3, b), (4, None)], 1));
        assert!(!ends(&[(1, None), (2, None)], 1));
    }
}
