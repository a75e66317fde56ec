//! Fits the model's weights on UniDet's table, and nothing else.
//!
//! `cargo test --release -p richsem --lib mapping::tests::fit -- --nocapture` prints what is fitted, and
//! precision and recall on the table itself.

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
struct Task {
    pairs: Pairs,
    /// Places in FROM and TO.
    same: BTreeSet<(usize, usize)>,
}

/// OpenImages → COCO, OpenImages → Objects365, Objects365 → COCO, and back.
fn unidet() -> Option<Vec<Task>> {
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
#[allow(clippy::needless_range_loop)] // Indices of matrices.
fn fit(tasks: &[Task]) -> [f64; FEATURES] {
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
#[allow(clippy::needless_range_loop)] // Indices of matrices.
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

/// Right and wrong ones of what would be mapped at a threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) right: usize,
    pub(super) wrong: usize,
}

impl Score {
    pub(super) fn precision(&self) -> f64 {
        self.right as f64 / (self.right + self.wrong).max(1) as f64
    }

    /// Of so many that there are to find.
    pub(super) fn recall(&self, all: usize) -> f64 {
        self.right as f64 / all as f64
    }
}

/// The class that would be mapped.
pub(super) fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.relation == Relation::Same)
}

/// `right` says whether a pair is; none: not measured.
pub(super) fn score(
    found: &[Vec<Candidate>],
    threshold: f64,
    right: impl Fn(usize, usize) -> Option<bool>,
) -> Score {
    let mut score = Score::default();
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

#[test]
fn the_weights_are_those_of_unidets_table() {
    let Some(tasks) = unidet() else { return };
    let weights = fit(&tasks);
    for (name, weight) in model::NAMES.iter().zip(weights) {
        println!("{weight:>10.6}  {name}");
    }
    for ((name, fitted), ours) in model::NAMES.iter().zip(weights).zip(model::WEIGHTS) {
        assert!((fitted - ours).abs() < 2e-6, "{name}: {fitted}, not {ours}");
    }
}

/// The rule by which the threshold was chosen, see [`model::THRESHOLD`].
#[test]
fn the_threshold_is_the_lowest_within_a_standard_error_of_the_highest_precision() {
    let Some(tasks) = unidet() else { return };
    let at = |threshold: f64| {
        let mut sum = Score::default();
        for task in &tasks[..3] {
            let found = task.pairs.candidates(&model::WEIGHTS);
            let right = |from, to| Some(task.same.contains(&(from, to)));
            let score = score(&found, threshold, right);
            sum.right += score.right;
            sum.wrong += score.wrong;
        }
        sum
    };
    let all: usize = tasks[..3].iter().map(|task| task.same.len()).sum();
    println!("threshold  precision recall (UniDet's table, {all} pairs)");
    let thresholds: Vec<f64> = (1..=19).map(|step| f64::from(step) / 20.0).collect();
    let scores: Vec<Score> = thresholds.iter().map(|threshold| at(*threshold)).collect();
    for (threshold, score) in thresholds.iter().zip(&scores) {
        println!("{threshold:>9}  {:.4} {:.4} {score:?}", score.precision(), score.recall(all));
    }
    let highest = scores.iter().max_by(|a, b| a.precision().total_cmp(&b.precision())).unwrap();
    let (precision, mapped) = (highest.precision(), (highest.right + highest.wrong) as f64);
    let least = precision - (precision * (1.0 - precision) / mapped).sqrt();
    let lowest = thresholds.iter().zip(&scores).find(|(_, score)| score.precision() >= least);
    assert_eq!(*lowest.unwrap().0, model::THRESHOLD);
}
