//! What a class may mean: senses of its words, each with a weight.

use super::{
    ClassName,
    wordnet::{Synset, WordNet},
    words::{Kind, Words, key, singular},
};

/// What a class's words may mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Meaning {
    /// Senses and their weights, which sum to 1; the likeliest first. Empty if WordNet has no such word.
    pub(super) senses: Vec<(Synset, f64)>,
    /// Whether the vocabulary itself says the sense.
    pub(super) given: bool,
}

/// Most kinds above a sense that a hint may name.
const KINDS: usize = 6;

/// Weight from which on a sense is likelier than all others.
const LIKELY: f64 = 0.5;

impl Meaning {
    /// As the vocabulary says (wnid, synset), or what the words may mean.
    pub(super) fn of(class: &ClassName<'_>, words: &Words) -> Self {
        let wordnet = WordNet::get();
        let by_wnid = class.wnid.as_deref().and_then(|wnid| wordnet.by_wnid(wnid));
        let given = by_wnid.or_else(|| class.synset.as_deref().and_then(|s| wordnet.by_name(s)));
        match given {
            Some(synset) => Self { senses: vec![(synset, 1.0)], given: true },
            None => Self { senses: of_words(words), given: false },
        }
    }

    /// Weight that two classes give to the same senses, 0 to 1.
    pub(super) fn overlap(&self, other: &Self) -> f64 {
        let of = |sense: Synset| other.senses.iter().find(|(s, _)| *s == sense).map(|(_, w)| *w);
        self.senses.iter().filter_map(|&(sense, weight)| Some(of(sense)?.min(weight))).sum()
    }

    /// Keys of the words that WordNet has for the likeliest sense, if it is likelier than all others. A plural
    /// that WordNet has as a word of its own counts as its singular too: `cows`, for cattle.
    pub(super) fn lemmas(&self) -> Vec<String> {
        let wordnet = WordNet::get();
        let best = self.senses.first().filter(|(_, weight)| *weight >= LIKELY);
        let mut lemmas = Vec::new();
        for word in best.map_or(&[][..], |(sense, _)| wordnet.words(*sense)) {
            let word = word.replace('_', " ");
            let one = word.strip_suffix('s').filter(|one| wordnet.senses(one).len() > 0);
            lemmas.extend(one.map(|one| one.replace([' ', '-'], "")));
            lemmas.push(key(&word));
        }
        lemmas
    }

    /// The likeliest sense.
    pub(super) fn best(&self) -> Option<Synset> {
        self.senses.first().map(|(sense, _)| *sense)
    }
}

/// Ways to write a phrase that WordNet may have it by.
fn spellings(text: &str) -> Vec<String> {
    let mut found = vec![text.to_owned()];
    let singular = singular(text);
    found.extend(singular);
    for spelling in found.clone() {
        for other in [
            spelling.replace('-', " "),
            spelling.replace(' ', "-"),
            spelling.replace([' ', '-'], ""),
        ] {
            if !found.contains(&other) {
                found.push(other);
            }
        }
    }
    found
}

/// The senses of all phrases. The n-th visible sense of a word has the weight 1/n²: most words of
/// detection vocabularies are meant in their first one. A sense that several phrases share, or that fits
/// what is in brackets, is likelier.
fn of_words(words: &Words) -> Vec<(Synset, f64)> {
    let wordnet = WordNet::get();
    let mut senses: Vec<(Synset, f64)> = Vec::new();
    for phrase in &words.phrases {
        let spelling = spellings(&phrase.text).into_iter().find(|s| wordnet.senses(s).len() > 0);
        let Some(spelling) = spelling else { continue };
        let importance = if phrase.kind == Kind::Name { 1.0 } else { 0.7 };
        let mut rank = 0.0;
        for sense in wordnet.senses(&spelling) {
            let visible = wordnet.is_visible(sense);
            if visible {
                rank += 1.0;
            }
            let weight = importance * if visible { 1.0 / (rank * rank) } else { 0.01 };
            match senses.iter_mut().find(|(s, _)| *s == sense) {
                // Two words that have one sense in common mean it.
                Some((_, known)) => *known = (*known + weight) * 4.0,
                None => senses.push((sense, weight)),
            }
        }
    }
    if !words.hints.is_empty() {
        for (sense, weight) in &mut senses {
            *weight *= 1.0 + 8.0 * hits(*sense, &words.hints) as f64;
        }
    }
    let sum: f64 = senses.iter().map(|(_, weight)| weight).sum();
    for (_, weight) in &mut senses {
        *weight /= sum;
    }
    senses.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    senses
}

/// How many of the hints are words of a sense, of its gloss, or of the kinds above it.
fn hits(sense: Synset, hints: &[String]) -> usize {
    let wordnet = WordNet::get();
    let mut about: Vec<String> = Vec::new();
    for (kind, _) in wordnet.above(sense).into_iter().take(KINDS) {
        for word in wordnet.words(kind) {
            about.extend(word.split(['_', '-']).map(str::to_owned));
        }
    }
    let gloss = wordnet.gloss(sense).split(|c: char| !c.is_alphanumeric());
    about.extend(gloss.map(|word| singular(word).unwrap_or_else(|| word.to_owned())));
    hints.iter().filter(|hint| about.contains(hint)).count()
}
