//! What speaks for a pair of classes.

use std::fmt;

use super::{
    ClassName, TextEvidence,
    senses::Meaning,
    wordnet::WordNet,
    words::{Kind, Words},
};

/// How two names are equal, apart from case, plural, spaces and hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameMatch {
    /// The two names, whole.
    Name,
    /// A synonym that the vocabulary lists, of one or both.
    Synonym,
    /// One of several names between slashes, of one or both.
    Alternative,
}

/// How two classes are related, FROM's to TO's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They mean the same.
    Same,
    /// FROM's is a kind of TO's: its images show TO's class.
    Narrower,
    /// TO's is a kind of FROM's: FROM's images may show anything else. Never used.
    Broader,
    /// One is a part of the other. Never used.
    Part,
}

impl Relation {
    /// As review files have it: `same`, `narrower`, `broader`, `part`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Narrower => "narrower",
            Self::Broader => "broader",
            Self::Part => "part",
        }
    }

    /// Whether images of FROM's class show TO's.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Same | Self::Narrower)
    }
}

/// What speaks for and against a pair being the same class.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Both vocabularies give them the same id, which is no mere number.
    pub id: bool,
    /// Both vocabularies give the WordNet sense: whether it is one and the same.
    pub given: Option<bool>,
    /// Equal names.
    pub name: Option<NameMatch>,
    /// Weight that the likely senses of both share, 0 to 1.
    pub sense: f64,
    /// Whether WordNet has words of both.
    pub in_wordnet: bool,
    /// Whether one name is the other and more words before or behind it: `polar bear` and `bear`, `television`
    /// and `television set`. Not `table tennis racket` and `table tennis table`: each says what the other is
    /// not.
    pub within: bool,
    /// Whether a word that WordNet has for the likeliest sense of one is a name of the other: `cows` is one for
    /// `cattle`.
    pub lemma: bool,
    /// Steps in WordNet from FROM's likeliest sense up to TO's (positive), or down to it (negative). None:
    /// neither is a kind of the other.
    pub steps: Option<i8>,
    /// Whether in WordNet one is a part of the other.
    pub part: bool,
    /// What text embeddings say, where both vocabularies have some.
    pub text: Option<TextEvidence>,
    /// How many times more probable TO's class is in images of FROM's than in those of all classes, where a
    /// teacher looked.
    pub seen: Option<f64>,
}

/// A class with what its words mean.
pub(super) struct Known {
    pub(super) id: Option<String>,
    /// The name as it is written.
    pub(super) name: String,
    pub(super) words: Words,
    pub(super) meaning: Meaning,
    /// Names that WordNet has for its likeliest sense.
    lemmas: Vec<String>,
}

impl Known {
    pub(super) fn of(class: &ClassName<'_>) -> Self {
        let words = Words::of(&class.name, &class.synonyms);
        let number = class.id.parse::<f64>().is_ok();
        let id = (!number && class.id != class.name).then(|| class.id.clone());
        let meaning = Meaning::of(class, &words);
        let name = class.name.to_string();
        Self { id, name, lemmas: meaning.lemmas(), meaning, words }
    }

    /// Whether WordNet has a name of another class for the likeliest sense of this one.
    fn is_also_called(&self, other: &Words) -> bool {
        other.phrases.iter().any(|phrase| self.lemmas.contains(&phrase.key))
    }
}

impl Evidence {
    /// For a pair; `text` is of the pair.
    pub(super) fn of(from: &Known, to: &Known, text: Option<TextEvidence>) -> Self {
        let given = (from.meaning.given && to.meaning.given)
            .then(|| from.meaning.best() == to.meaning.best());
        let (steps, part) = related(&from.meaning, &to.meaning);
        Self {
            id: from.id.is_some() && from.id == to.id,
            given,
            name: equal_name(&from.words, &to.words),
            in_wordnet: from.meaning.best().is_some() && to.meaning.best().is_some(),
            sense: from.meaning.overlap(&to.meaning),
            within: one_within_the_other(&from.words, &to.words),
            lemma: from.is_also_called(&to.words) || to.is_also_called(&from.words),
            steps,
            part,
            text,
            seen: None,
        }
    }

    /// Nothing but what a teacher saw.
    pub(super) fn of_images(seen: f64) -> Self {
        Self {
            id: false,
            given: None,
            name: None,
            sense: 0.0,
            in_wordnet: false,
            within: false,
            lemma: false,
            steps: None,
            part: false,
            text: None,
            seen: Some(seen),
        }
    }

    /// The relation that WordNet speaks for, if the two are not the same.
    pub(super) fn other_relation(&self) -> Option<Relation> {
        match self.steps {
            Some(1..) => Some(Relation::Narrower),
            Some(..=-1) => Some(Relation::Broader),
            _ => self.part.then_some(Relation::Part),
        }
    }
}

fn equal_name(from: &Words, to: &Words) -> Option<NameMatch> {
    let equal = from
        .phrases
        .iter()
        .flat_map(|a| to.phrases.iter().filter(|b| b.key == a.key).map(|b| a.kind.max(b.kind)));
    equal.min().map(|kind| match kind {
        Kind::Name => NameMatch::Name,
        Kind::Synonym => NameMatch::Synonym,
        Kind::Alternative => NameMatch::Alternative,
    })
}

/// Whether one of two names begins or ends with the other, word by word in the singular.
fn one_within_the_other(from: &Words, to: &Words) -> bool {
    let of_pair = |a: &[String], b: &[String]| {
        let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
        short.len() < long.len() && (long.starts_with(short) || long.ends_with(short))
    };
    let mut pairs = from.phrases.iter().flat_map(|a| to.phrases.iter().map(move |b| (a, b)));
    pairs.any(|(a, b)| of_pair(&a.words, &b.words))
}

/// Steps from the likeliest sense of one up (positive) or down (negative) to that of the other, and whether
/// one is a part of the other.
fn related(from: &Meaning, to: &Meaning) -> (Option<i8>, bool) {
    let (Some(a), Some(b)) = (from.best(), to.best()) else { return (None, false) };
    let wordnet = WordNet::get();
    let small = |steps: usize| i8::try_from(steps).ok();
    let up = wordnet.steps_up(a, b).and_then(small);
    let down = || wordnet.steps_up(b, a).and_then(small).map(|steps| -steps);
    let part = wordnet.wholes(a).contains(&b) || wordnet.wholes(b).contains(&a);
    (up.or_else(down), part)
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        if self.id {
            parts.push("equal id".into());
        }
        match self.given {
            Some(true) => parts.push("equal WordNet id".into()),
            Some(false) => parts.push("other WordNet id".into()),
            None => {}
        }
        match self.name {
            Some(NameMatch::Name) => parts.push("equal name".into()),
            Some(NameMatch::Synonym) => parts.push("synonym".into()),
            Some(NameMatch::Alternative) => parts.push("one of several names".into()),
            None => {}
        }
        if self.given.is_none() && self.sense >= 0.005 {
            parts.push(format!("sense {:.2}", self.sense));
        }
        if self.within && self.name.is_none() {
            parts.push("name with more words".into());
        }
        if self.lemma && self.name.is_none() {
            parts.push("WordNet's word for it".into());
        }
        match self.steps {
            Some(steps @ 1..) => parts.push(format!("{steps} kinds below")),
            Some(steps @ ..=-1) => parts.push(format!("{} kinds above", -i16::from(steps))),
            _ => {}
        }
        if self.part {
            parts.push("part".into());
        }
        if let Some(text) = &self.text {
            let place = |rank: Option<u8>| rank.map_or("–".to_owned(), |rank| rank.to_string());
            let [to, from] = text.ranks.map(place);
            parts.push(format!("text {:.2} (place {to}, {from})", text.cosine));
        }
        if let Some(seen) = self.seen {
            parts.push(format!("images {seen:.1}x"));
        }
        f.write_str(&if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
    }
}
