//! Candidates for each class, their confidence, and what follows from it.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::{
    ClassName, Evidence, Relation,
    evidence::Known,
    learned::{MOST, Seen, combine, lifts},
    model,
    text::{NEAREST, Similarities},
    wordnet::{Synset, WordNet},
};
use crate::{error::Result, vocabulary::plain_name};

/// Steps in WordNet within which a kind is a candidate.
const STEPS: usize = 3;

/// Least weight of a sense that is looked for.
const LEAST_SENSE: f64 = 0.02;

/// Confidence from which on a pair is the same rather than what WordNet says of other relations.
const EVEN: f64 = 0.5;

/// What decides without a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Confidence from which on a class is mapped, 0 to 1. Default: [`model::THRESHOLD`].
    pub threshold: f64,
    /// Confidence below which a class has no counterpart, and nobody is asked. Default: 0.05.
    pub least: f64,
    /// Whether a class is mapped to the nearest of TO that it is a kind of, if nothing in TO is the same
    /// and both vocabularies say the WordNet senses themselves. Default: no.
    pub narrower: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: model::THRESHOLD, least: 0.05, narrower: false }
    }
}

/// A class of TO that one of FROM may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its place in TO.
    pub to: usize,
    /// How the two are related, by the evidence.
    pub relation: Relation,
    /// Probability that the two mean the same, given that no other pair of either does.
    pub confidence: f64,
    /// What it rests on.
    pub evidence: Evidence,
}

/// What becomes of a class of FROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is this class of TO.
    Same(usize),
    /// It is a kind of this class of TO.
    Narrower(usize),
    /// A person should look.
    Review,
    /// TO has no such class.
    None,
}

/// A class of FROM and what was found for it.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedClass {
    /// At most [`MOST`], the most probable first.
    pub candidates: Vec<Candidate>,
    /// What follows.
    pub decision: Decision,
}

/// A vocabulary mapped to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// In the order of FROM.
    pub classes: Vec<MappedClass>,
}

impl Mapping {
    /// Decides anew by what a teacher saw in the images of each class, together with what the names say.
    /// Classes without images, and those that both vocabularies give an id for, stay as they are.
    ///
    /// # Errors
    /// As [`combine`].
    pub fn see(&mut self, seen: &[Seen], options: &Options) -> Result<()> {
        let same = |candidate: &&Candidate| candidate.relation == Relation::Same;
        let priors: Vec<Vec<(usize, f64)>> = self
            .classes
            .iter()
            .map(|class| {
                class.candidates.iter().filter(same).map(|c| (c.to, c.confidence)).collect()
            })
            .collect();
        let posteriors = combine(&priors, seen)?;
        let lifts = lifts(seen)?;
        for ((class, posterior), lifts) in self.classes.iter_mut().zip(posteriors).zip(lifts) {
            let is_given = |c: &Candidate| c.evidence.id || c.evidence.given == Some(true);
            if lifts.is_empty() || class.candidates.iter().any(is_given) {
                continue;
            }
            let named = std::mem::take(&mut class.candidates);
            let candidate = |(to, confidence): (usize, f64)| {
                let known = named.iter().find(|c| c.to == to);
                let evidence = known.map_or_else(
                    || Evidence::of_images(lifts[to]),
                    |known| Evidence { seen: Some(lifts[to]), ..known.evidence.clone() },
                );
                // What is only seen may be a part of the image beside the class.
                let relation = known.map_or(Relation::Same, |known| known.relation);
                Candidate { to, relation, confidence, evidence }
            };
            class.candidates = posterior.classes.into_iter().map(candidate).collect();
            class.decision = decide(&class.candidates, options);
        }
        Ok(())
    }

    /// Places in TO that no class of FROM is mapped to, rare classes first, then common, then frequent
    /// ones, each with the fewest images first; then those of which nothing is known, in their order.
    #[must_use]
    pub fn unmapped(&self, to: &[ClassName<'_>]) -> Vec<usize> {
        let mut mapped = vec![false; to.len()];
        for class in &self.classes {
            if let Decision::Same(to) | Decision::Narrower(to) = class.decision {
                mapped[to] = true;
            }
        }
        let mut places: Vec<usize> = (0..to.len()).filter(|&place| !mapped[place]).collect();
        let rarity = |&place: &usize| {
            let class = &to[place];
            let group = class.frequency.map_or(u8::MAX, |group| group as u8);
            (group, class.images.unwrap_or(u64::MAX), place)
        };
        places.sort_by_key(rarity);
        places
    }
}

/// Finds candidates for each class of FROM among those of TO and decides where the evidence suffices.
/// Embeddings count if every class of both sides has one, all of one length.
#[must_use]
pub fn map(from: &[ClassName<'_>], to: &[ClassName<'_>], options: &Options) -> Mapping {
    let pairs = Pairs::of(from, to);
    let classes = pairs.candidates(&model::WEIGHTS).into_iter().map(|candidates| {
        let decision = decide(&candidates, options);
        MappedClass { candidates, decision }
    });
    Mapping { classes: classes.collect() }
}

fn decide(candidates: &[Candidate], options: &Options) -> Decision {
    let mut same = candidates.iter().filter(|c| c.relation == Relation::Same);
    let best = same.next();
    match best {
        Some(best) if best.confidence >= options.threshold => return Decision::Same(best.to),
        Some(best) if best.confidence >= options.least => return Decision::Review,
        _ => {}
    }
    let kinds = candidates
        .iter()
        .filter(|c| c.relation == Relation::Narrower && c.evidence.given.is_some());
    match kinds.min_by_key(|c| (c.evidence.steps, c.to)) {
        Some(kind) if options.narrower => Decision::Narrower(kind.to),
        _ => Decision::None,
    }
}

/// All pairs for which something speaks, with what.
pub(super) struct Pairs {
    /// By class of FROM: places in TO, ascending.
    pub(super) rows: Vec<Vec<(usize, Evidence)>>,
    columns: usize,
}

impl Pairs {
    pub(super) fn of(from: &[ClassName<'_>], to: &[ClassName<'_>]) -> Self {
        let text = Similarities::of(from, to);
        let known = |classes: &[ClassName<'_>]| -> Vec<Known> {
            classes.par_iter().map(Known::of).collect()
        };
        let (from, to) = (known(from), known(to));
        let index = Index::of(&to);
        let mut places: Vec<Vec<usize>> =
            from.iter().map(|class| index.candidates(class)).collect();
        if let Some(text) = &text {
            for (row, places) in places.iter_mut().enumerate() {
                places.extend(text.nearest_of(row));
            }
            for column in 0..to.len() {
                for row in text.nearest_to(column).take(NEAREST) {
                    places[row].push(column);
                }
            }
        }
        let names = |classes: &[Known]| -> HashSet<String> {
            classes.iter().map(|class| class.name.clone()).collect()
        };
        let (from_names, to_names) = (names(&from), names(&to));
        // Where `cat` and `Cat` are two classes, each is the one that is written so.
        let has_other = |row: usize, column: usize| {
            let (from, to) = (&from[row].name, &to[column].name);
            from != to
                && (to_names.contains(from) || from_names.contains(to))
                && plain_name(from) == plain_name(to)
        };
        let rows = places.into_par_iter().enumerate().map(|(row, mut places)| {
            places.sort_unstable();
            places.dedup();
            places.retain(|&column| !has_other(row, column));
            let evidence = |column: usize| {
                let text = text.as_ref().map(|text| text.of_pair(row, column));
                (column, Evidence::of(&from[row], &to[column], text))
            };
            places.into_iter().map(evidence).collect()
        });
        Self { rows: rows.collect(), columns: to.len() }
    }

    /// The candidates of each class of FROM. A class is the same as at most one class of the other side:
    /// the odds of all pairs of a class compete.
    pub(super) fn candidates(&self, weights: &[f64; model::FEATURES]) -> Vec<Vec<Candidate>> {
        let odds = self.odds(weights);
        let mut of_column = vec![0.0; self.columns];
        for (row, odds) in self.rows.iter().zip(&odds) {
            for ((column, _), odds) in row.iter().zip(odds) {
                of_column[*column] += odds;
            }
        }
        let candidates = |(row, odds): (&Vec<(usize, Evidence)>, Vec<f64>)| {
            let of_row: f64 = odds.iter().sum();
            let candidate = |((to, evidence), odds): (&(usize, Evidence), f64)| {
                let confidence = odds / (1.0 + of_row + (of_column[*to] - odds).max(0.0));
                let other = evidence.other_relation().filter(|_| confidence < EVEN);
                let relation = other.unwrap_or(Relation::Same);
                Candidate { to: *to, relation, confidence, evidence: evidence.clone() }
            };
            let mut found: Vec<Candidate> = row.iter().zip(odds).map(candidate).collect();
            found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.to.cmp(&b.to)));
            found.truncate(MOST);
            found
        };
        self.rows.iter().zip(odds).map(candidates).collect()
    }

    /// Odds of each pair. Pairs with equal names that compete for one class are weighed against each
    /// other: each counts in proportion to how well it agrees, by the one that agrees best.
    fn odds(&self, weights: &[f64; model::FEATURES]) -> Vec<Vec<f64>> {
        let agreement = |evidence: &Evidence| model::agreement(evidence, weights);
        let mut of_column = vec![0.0f64; self.columns];
        for (column, evidence) in self.rows.iter().flatten() {
            if evidence.name.is_some() {
                of_column[*column] = of_column[*column].max(agreement(evidence));
            }
        }
        let of_row = |row: &Vec<(usize, Evidence)>| -> Vec<f64> {
            let named = row.iter().filter(|(_, evidence)| evidence.name.is_some());
            let most = named.map(|(_, evidence)| agreement(evidence)).fold(0.0, f64::max);
            let of_pair = |(column, evidence): &(usize, Evidence)| {
                let odds = model::odds(evidence, weights);
                match evidence.name {
                    Some(_) => odds * agreement(evidence) / most.max(of_column[*column]),
                    None => odds,
                }
            };
            row.iter().map(of_pair).collect()
        };
        self.rows.iter().map(of_row).collect()
    }
}

/// Classes of TO by what a class of FROM may have in common with them.
#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Vec<usize>>,
    by_key: BTreeMap<String, Vec<usize>>,
    by_last_word: BTreeMap<String, Vec<usize>>,
    by_sense: BTreeMap<Synset, Vec<usize>>,
    /// By what their likeliest sense is a kind of.
    below: BTreeMap<Synset, Vec<usize>>,
}

impl Index {
    fn of(to: &[Known]) -> Self {
        let wordnet = WordNet::get();
        let mut index = Self::default();
        for (place, class) in to.iter().enumerate() {
            if let Some(id) = &class.id {
                index.by_id.entry(id.clone()).or_default().push(place);
            }
            for phrase in &class.words.phrases {
                index.by_key.entry(phrase.key.clone()).or_default().push(place);
                let last = phrase.text.rsplit([' ', '-']).next().unwrap_or_default();
                index.by_last_word.entry(last.to_owned()).or_default().push(place);
            }
            for (sense, weight) in &class.meaning.senses {
                if *weight >= LEAST_SENSE {
                    index.by_sense.entry(*sense).or_default().push(place);
                }
            }
            for (kind, steps) in class.meaning.best().map_or(Vec::new(), |best| wordnet.above(best))
            {
                if (1..=STEPS).contains(&steps) {
                    index.below.entry(kind).or_default().push(place);
                }
            }
        }
        index
    }

    /// Places of the classes with something in common, in no order, some twice.
    fn candidates(&self, from: &Known) -> Vec<usize> {
        fn add<K: Ord>(found: &mut Vec<usize>, index: &BTreeMap<K, Vec<usize>>, key: &K) {
            found.extend(index.get(key).into_iter().flatten());
        }
        let wordnet = WordNet::get();
        let mut found = Vec::new();
        if let Some(id) = &from.id {
            add(&mut found, &self.by_id, id);
        }
        for phrase in &from.words.phrases {
            add(&mut found, &self.by_key, &phrase.key);
            let last = phrase.text.rsplit([' ', '-']).next().unwrap_or_default();
            add(&mut found, &self.by_last_word, &last.to_owned());
        }
        for (sense, weight) in &from.meaning.senses {
            if *weight >= LEAST_SENSE {
                add(&mut found, &self.by_sense, sense);
            }
        }
        if let Some(best) = from.meaning.best() {
            add(&mut found, &self.below, &best);
            for (kind, steps) in wordnet.above(best) {
                if steps <= STEPS {
                    add(&mut found, &self.by_sense, &kind);
                }
            }
            for whole in wordnet.wholes(best) {
                add(&mut found, &self.by_sense, whole);
            }
        }
        found
    }
}
