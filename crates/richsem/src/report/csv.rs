//! The metrics of a run as a table for other programs.

use std::collections::BTreeSet;

use crate::train::MetricsRow;

/// The rows of `metrics.jsonl` as CSV (RFC 4180), in their order: one line for each row of training and each
/// evaluation. A column that a row does not have is empty. Values are as in the file: AP is a fraction.
#[must_use]
pub fn metrics_csv(rows: &[MetricsRow]) -> String {
    const TRAINING: [&str; 5] = ["lr", "grad_norm", "images_per_second", "images", "memory_mib"];
    let terms: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| match row {
            MetricsRow::Train(row) => row.terms.keys(),
            MetricsRow::Eval(row) => row.terms.keys(),
        })
        .map(String::as_str)
        .collect();
    let metrics: BTreeSet<&str> = rows
        .iter()
        .filter_map(MetricsRow::eval)
        .flat_map(|row| row.metrics.keys())
        .map(String::as_str)
        .collect();
    let head = ["kind", "step", "epoch", "loss"].into_iter().chain(TRAINING);
    let head = head.chain(terms.iter().copied()).chain(metrics.iter().copied());
    let mut csv = line(head.map(str::to_owned));
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in rows {
        let mut cells = Vec::new();
        match row {
            MetricsRow::Train(row) => {
                cells.extend(["train".to_owned(), row.step.to_string(), row.epoch.to_string()]);
                cells.push(row.loss.to_string());
                cells.extend([row.lr, row.grad_norm, row.images_per_second].map(|v| v.to_string()));
                cells.extend([row.images.to_string(), row.memory_mib.to_string()]);
                cells.extend(terms.iter().map(|term| number(row.terms.get(*term).copied())));
                cells.extend(metrics.iter().map(|_| String::new()));
            }
            MetricsRow::Eval(row) => {
                cells.extend(["eval".to_owned(), row.step.to_string(), row.epoch.to_string()]);
                cells.push(number(row.loss));
                cells.extend(TRAINING.map(|_| String::new()));
                cells.extend(terms.iter().map(|term| number(row.terms.get(*term).copied())));
                let metric = |name: &&str| number(row.metrics.get(*name).copied().flatten());
                cells.extend(metrics.iter().map(metric));
            }
        }
        csv.push_str(&line(cells));
    }
    csv
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    let quoted = |cell: String| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    let cells: Vec<String> = cells.into_iter().map(quoted).collect();
    cells.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{EvalRow, TrainRow};

    #[test]
    fn every_row_has_every_column() {
        let train = MetricsRow::Train(TrainRow {
            step: 20,
            epoch: 0,
            lr: 1e-4,
            loss: 3.5,
            grad_norm: 2.0,
            images_per_second: 8.0,
            images: 40,
            memory_mib: 0.0,
            terms: [("loss_ce".to_owned(), 0.25), ("a \"b\", c".to_owned(), 1.0)].into(),
        });
        let eval = MetricsRow::Eval(EvalRow {
            step: 20,
            epoch: 1,
            metrics: [("AP".to_owned(), Some(0.125)), ("APr".to_owned(), None)].into(),
            intervals: Default::default(),
            loss: Some(4.5),
            terms: [("loss_ce".to_owned(), 0.5)].into(),
        });
        let expected = "kind,step,epoch,loss,lr,grad_norm,images_per_second,images,memory_mib,\
                        \"a \"\"b\"\", c\",loss_ce,AP,APr\n\
                        train,20,0,3.5,0.0001,2,8,40,0,1,0.25,,\n\
                        eval,20,1,4.5,,,,,,,0.5,0.125,\n";
        assert_eq!(metrics_csv(&[train, eval]), expected);
        assert_eq!(metrics_csv(&[]).lines().count(), 1);
    }
}
