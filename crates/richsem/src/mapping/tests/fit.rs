//! Fits the model's weights on UniDet's table, and nothing else.
//!
//! `cargo test --release -p richsem --lib mapping -- --nocapture weights` prints what is fitted.

use std::collections::BTreeSet;

use super::support::{Texts, csv, named, openimages, with_text};
use crate::{
    mapping::{
        ClassName, Relation,
        candidates::{Candidate, Pairs},
        model::{self, FEATURES},
    },
    testing::shared,
};

/// Two vocabularies of UniDet's and which pairs its authors hold for the same.
pub(super) struct Task {
    pub(super) pairs: Pairs,
    /// Places in FROM and TO.
    pub(super) same: BTreeSet<(usize, usize)>,
}

/// OpenImages → COCO, OpenImages → Objects365, Objects365 → COCO, and back.
pub(super) fn unidet() -> Option<Vec<Task>> {
    let table = std::fs::read_to_string(shared("samples/mapping/unidet/manual.csv")?).unwrap();
    let coco = std::fs::read_to_string(shared("lvis/coco_to_synset.json")?).unwrap();
    let (texts, (openimages, _)) = (Texts::read()?, openimages()?);
    let rows = csv(&table);
    let coco: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&coco).unwrap();
    let mut coco: Vec<(u64, &String)> =
        coco.iter().map(|(name, about)| (about["coco_cat_id"].as_u64().unwrap(), name)).collect();
    coco.sort_unstable();
    let coco: Vec<ClassName<'_>> =
        coco.iter().map(|(id, name)| named(&id.to_string(), name)).collect();
    let objects: BTreeSet<&String> = rows.iter().map(|r| &r[3]).filter(|n| !n.is_empty()).collect();
    let objects: Vec<ClassName<'_>> = objects.iter().map(|name| named(name, name)).collect();
    assert_eq!((openimages.len(), objects.len(), coco.len()), (500, 365, 80));
    let coco = with_text(coco, &texts.coco);
    let openimages = with_text(openimages, &texts.openimages);
    let place = |classes: &[ClassName<'_>], text: &String| {
        classes.iter().position(|class| class.id == *text || class.name == *text)
    };
    let of = |from: &[ClassName<'_>], a: usize, to: &[ClassName<'_>], b: usize| Task {
        pairs: Pairs::of(from, to),
        same: rows.iter().filter_map(|r| Some((place(from, &r[a])?, place(to, &r[b])?))).collect(),
    };
    Some(vec![
        of(&openimages, 1, &coco, 4),
        of(&openimages, 1, &objects, 3),
        of(&objects, 3, &coco, 4),
        of(&coco, 4, &openimages, 1),
        of(&objects, 3, &openimages, 1),
        of(&coco, 4, &objects, 3),
    ])
}

/// Maximum likelihood with a small penalty on every weight (its square / 2 × [`PENALTY`]), by Newton's
/// method.
pub(super) fn fit(tasks: &[&Task]) -> [f64; FEATURES] {
    const PENALTY: f64 = 0.1;
    let mut examples = Vec::new();
    for task in tasks {
        for (from, row) in task.pairs.rows.iter().enumerate() {
            for (to, evidence) in row {
                let same = f64::from(u8::from(task.same.contains(&(from, *to))));
                examples.push((model::features(evidence), same));
            }
        }
    }
    let mut weights = [0.0; FEATURES];
    for _ in 0..40 {
        let mut gradient = weights.map(|w| PENALTY * w);
        let mut curvature = [[0.0; FEATURES]; FEATURES];
        for (i, row) in curvature.iter_mut().enumerate() {
            row[i] = PENALTY;
        }
        for (x, same) in &examples {
            let sum: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
            let p = 1.0 / (1.0 + (-sum).exp());
            for i in 0..FEATURES {
                gradient[i] += (p - same) * x[i];
                for j in 0..FEATURES {
                    curvature[i][j] += p * (1.0 - p) * x[i] * x[j];
                }
            }
        }
        let step = solve(curvature, gradient);
        for (weight, step) in weights.iter_mut().zip(step) {
            *weight -= step;
        }
    }
    weights
}

/// Gauss's elimination of a positive definite system.
fn solve(mut a: [[f64; FEATURES]; FEATURES], mut b: [f64; FEATURES]) -> [f64; FEATURES] {
    for i in 0..FEATURES {
        for j in i + 1..FEATURES {
            let factor = a[j][i] / a[i][i];
            for k in i..FEATURES {
                a[j][k] -= factor * a[i][k];
            }
            b[j] -= factor * b[i];
        }
    }
    for i in (0..FEATURES).rev() {
        let known: f64 = (i + 1..FEATURES).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

/// Right and wrong ones of what would be mapped at a threshold, and how many there are to find.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Score {
    pub(super) right: usize,
    pub(super) wrong: usize,
    pub(super) all: usize,
}

impl Score {
    pub(super) fn precision(&self) -> f64 {
        self.right as f64 / (self.right + self.wrong).max(1) as f64
    }

    pub(super) fn recall(&self) -> f64 {
        self.right as f64 / self.all as f64
    }
}

/// The class that would be mapped.
pub(super) fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.relation == Relation::Same)
}

/// `right` says whether a pair is; none: not measured.
pub(super) fn score(
    found: &[Vec<Candidate>],
    all: usize,
    threshold: f64,
    right: impl Fn(usize, usize) -> Option<bool>,
) -> Score {
    let mut score = Score { all, ..Score::default() };
    for (from, candidates) in found.iter().enumerate() {
        let Some(best) = best(candidates).filter(|best| best.confidence >= threshold) else {
            continue;
        };
        match right(from, best.to) {
            Some(true) => score.right += 1,
            Some(false) => score.wrong += 1,
            None => {}
        }
    }
    score
}

pub(super) const THRESHOLDS: [f64; 16] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99];

#[test]
fn the_weights_are_those_of_unidets_table() {
    let Some(tasks) = unidet() else { return };
    let weights = fit(&tasks.iter().collect::<Vec<_>>());
    for (name, weight) in model::NAMES.iter().zip(weights) {
        println!("{weight:>10.6}  {name}");
    }
    println!("threshold  precision recall (UniDet, fitted on the same table)");
    for threshold in THRESHOLDS {
        let mut sum = Score::default();
        for task in &tasks[..3] {
            let found = task.pairs.candidates(&weights);
            let right = |from, to| Some(task.same.contains(&(from, to)));
            let score = score(&found, task.same.len(), threshold, right);
            sum.right += score.right;
            sum.wrong += score.wrong;
            sum.all += score.all;
        }
        println!("{threshold:>9}  {:.4} {:.4} {sum:?}", sum.precision(), sum.recall());
    }
}
