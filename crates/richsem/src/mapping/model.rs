//! From evidence to the odds that two classes are the same: a logistic model.

use super::{Evidence, NameMatch, TextEvidence};

/// Number of weights.
pub(super) const FEATURES: usize = 12;

/// What the weights are for, in their order.
pub const NAMES: [&str; FEATURES] = [
    "always",
    "equal name or synonym",
    "equal alternative",
    "other names: a shared sense",
    "other names: weight of shared senses",
    "other names: WordNet knows both, and no sense is shared",
    "other names: one begins or ends with the other",
    "other names: a kind one or two steps away",
    "other names: WordNet has one for the sense of the other",
    "other names: embeddings are there",
    "other names: ten times the embeddings' cosine",
    "other names: ten times the cosine's margin",
];

/// Fitted on UniDet's hand-made table of OpenImages, Objects365 and COCO (`label_spaces/manual.csv`, github
/// xingyizhou/UniDet, commit 94cd0e8) by `tests/fit.rs`, with the text embeddings of Detic for OpenImages
/// and COCO. No other table had a part in it.
pub const WEIGHTS: [f64; FEATURES] = [
    -3.478684, 6.720837, 4.108913, -0.404202, 0.990572, -1.223407, 1.555769, 0.349555, 1.651135,
    -1.375418, 0.377292, 1.084051,
];

/// Confidence from which on a class is mapped without being asked about: the lowest one, in steps of 0.05,
/// whose precision on UniDet's table is within one standard error of the highest (0.970 at a recall of 0.915;
/// the highest is 0.978. What is wrong is disputable there, as an animal for a computer mouse).
pub const THRESHOLD: f64 = 0.5;

/// Confidence of what both vocabularies say themselves: equal ids.
const CERTAIN: f64 = 0.999;

/// Confidence of what both vocabularies deny: other WordNet ids.
const DENIED: f64 = 0.001;

/// The evidence as numbers, in the order of [`NAMES`].
pub(super) fn features(evidence: &Evidence) -> [f64; FEATURES] {
    let is = |yes: bool| f64::from(u8::from(yes));
    let name = matches!(evidence.name, Some(NameMatch::Name | NameMatch::Synonym));
    let other = is(evidence.name.is_none());
    [
        1.0,
        is(name),
        is(evidence.name == Some(NameMatch::Alternative)),
        is(!name && evidence.sense >= 0.05),
        is(!name) * evidence.sense,
        other * is(evidence.in_wordnet && evidence.sense < 0.005),
        other * is(evidence.within),
        other * is(matches!(evidence.steps, Some(-2..=-1 | 1..=2))),
        other * is(evidence.lemma),
        other * is(evidence.text.is_some()),
        other * evidence.text.map_or(0.0, |text| 10.0 * text.cosine),
        other * evidence.text.map_or(0.0, |text| 10.0 * text.margin),
    ]
}

/// How well a pair with equal names agrees, to weigh it against others with the same name: by kind of name,
/// senses and embeddings. A number above 0, of no scale.
///
/// Synonyms count half as much as names, alternatives a quarter. Senses next to each other in WordNet
/// are hard to tell apart by a word; senses that have nothing in common may be a gap of WordNet's. Embeddings
/// count as much as between names that differ.
pub(super) fn agreement(evidence: &Evidence, weights: &[f64; FEATURES]) -> f64 {
    let of_name = match evidence.name {
        Some(NameMatch::Name) => 1.0,
        Some(NameMatch::Synonym) => 0.5,
        _ => 0.25,
    };
    let least = if matches!(evidence.steps, Some(-1 | 1)) { 0.2 } else { 0.01 };
    let [.., of_cosine, of_margin] = weights;
    let text = |text: &TextEvidence| 10.0 * (of_cosine * text.cosine + of_margin * text.margin);
    of_name * evidence.sense.max(least) * evidence.text.as_ref().map_or(0.0, text).exp()
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
