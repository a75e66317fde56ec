//! Names of classes as words: alternatives, plurals, what is in brackets.

use super::wordnet::WordNet;

/// Kinds of names, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The class's name.
    Name,
    /// A synonym that the vocabulary lists.
    Synonym,
    /// One of several names between slashes.
    Alternative,
}

/// One way to call a class: words in lower case with single spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrase {
    /// As written, in lower case.
    pub(super) text: String,
    /// In the singular, without spaces and hyphens: `wine glass` and `wineglasses` are one.
    pub(super) key: String,
    /// Its words, each as a key.
    pub(super) words: Vec<String>,
    /// What kind of name it is.
    pub(super) kind: Kind,
}

/// All that a class is called, and what its name says in brackets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Each once, the name first.
    pub(super) phrases: Vec<Phrase>,
    /// Words in brackets, in the singular: `computer`, `equipment` of `mouse_(computer_equipment)`.
    pub(super) hints: Vec<String>,
}

impl Words {
    /// Of a name and its synonyms.
    pub(super) fn of(name: &str, synonyms: &[String]) -> Self {
        let mut words = Self::default();
        words.add(name, Kind::Name);
        for synonym in synonyms {
            words.add(synonym, Kind::Synonym);
        }
        words
    }

    fn add(&mut self, name: &str, kind: Kind) {
        let mut kind = kind;
        let before = self.phrases.len();
        // Even parts are outside of brackets.
        for (at, part) in name.split(['(', ')', '[', ']']).enumerate() {
            if at % 2 == 1 {
                for word in plain(part).split(' ').filter(|word| word.len() > 2) {
                    let word = singular(word).unwrap_or_else(|| word.to_owned());
                    if !self.hints.contains(&word) {
                        self.hints.push(word);
                    }
                }
                continue;
            }
            if self.add_alternatives(part, kind) && kind == Kind::Name {
                // `monitor_(computer_equipment) computer_monitor` has two names.
                kind = Kind::Synonym;
            }
        }
        if self.phrases.len() == before && kind == Kind::Name {
            // A name of brackets alone.
            self.push(&plain(name), kind);
        }
    }

    /// Adds `pot/pan` as two. Whether there was anything.
    fn add_alternatives(&mut self, text: &str, kind: Kind) -> bool {
        let parts: Vec<String> = text.split('/').map(plain).filter(|p| !p.is_empty()).collect();
        let [.., last] = &parts[..] else { return false };
        if let [only] = &parts[..] {
            self.push(only, kind);
            return true;
        }
        for part in &parts {
            self.push(part, Kind::Alternative);
        }
        // `cutting/chopping board`, `trash bin/can`: the word that they share is written once.
        let first = &parts[0];
        let words = |text: &str| text.split(' ').count();
        if words(first) == 1 && words(last) == 2 {
            let tail = last.split(' ').next_back().unwrap_or_default();
            self.push(&format!("{first} {tail}"), Kind::Alternative);
        } else if words(first) == 2 && words(last) == 1 {
            let head = first.split(' ').next().unwrap_or_default();
            self.push(&format!("{head} {last}"), Kind::Alternative);
        }
        true
    }

    fn push(&mut self, text: &str, kind: Kind) {
        if text.is_empty() {
            return;
        }
        let key = key(text);
        if !self.phrases.iter().any(|phrase| phrase.key == key) {
            let words = text.split([' ', '-']).map(self::key).collect();
            self.phrases.push(Phrase { text: text.to_owned(), key, words, kind });
        }
    }
}

/// Lower case, single spaces, no punctuation but hyphens.
pub(super) fn plain(text: &str) -> String {
    let text = text.to_lowercase().replace('&', " and ").replace(['\'', '’', '.'], "");
    let separator = |c: char| !(c.is_alphanumeric() || c == '-');
    let words = text.split(separator).map(|word| word.trim_matches('-'));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The singular, without spaces and hyphens.
pub(super) fn key(text: &str) -> String {
    let text = singular(text).unwrap_or_else(|| text.to_owned());
    text.replace([' ', '-'], "")
}

/// The singular of a phrase whose last word is a plural, none if it is none. A plural that WordNet has as
/// a word of its own stays: `glasses` are not several of `glass`.
pub(super) fn singular(text: &str) -> Option<String> {
    let wordnet = WordNet::get();
    if wordnet.senses(text).len() > 0 {
        return None;
    }
    let (before, last) = match text.rsplit_once([' ', '-']) {
        Some((before, last)) => (&text[..=before.len()], last),
        None => ("", text),
    };
    if !before.is_empty() && wordnet.exception(last).is_none() && !last.ends_with('s') {
        return None;
    }
    let known = |word: &str| {
        wordnet.senses(&format!("{before}{word}")).len() > 0 || wordnet.senses(word).len() > 0
    };
    if let Some(word) = wordnet.exception(last) {
        return Some(format!("{before}{word}"));
    }
    // The rules of WordNet's morphology (morphy, 7WN).
    let rules = [
        ("ses", "s"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
        ("s", ""),
    ];
    let by_rule = rules.iter().filter_map(|(plural, singular)| {
        let stem = last.strip_suffix(plural).filter(|stem| !stem.is_empty())?;
        Some(format!("{stem}{singular}"))
    });
    let mut found = by_rule.filter(|word| known(word));
    let word = found.next()?;
    Some(format!("{before}{word}"))
}
