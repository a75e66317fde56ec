//! Which class of one vocabulary is which of another (`richsem map`).
//!
//! [`map`] proposes for each class of FROM at most five of TO, each with the evidence for it: the same id,
//! name, synonym, WordNet sense, text embedding. A logistic model makes a confidence of the evidence
//! ([`model`]); above a threshold a class is mapped, and the rest is for a person ([`review`]). No class is
//! decided by name in the code. [`look`] shows a teacher images of each class; [`learned`] puts what it sees
//! together with the names, and says which entries of a mapping are doubtful.

pub mod candidates;
mod evidence;
pub mod learned;
pub mod look;
pub mod model;
pub mod read;
pub mod review;
mod senses;
mod text;
pub mod wordnet;
mod words;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::vocabulary::Frequency;

pub use candidates::{Candidate, Decision, MappedClass, Mapping, Options, map};
pub use evidence::{Evidence, NameMatch, Relation};
pub use text::TextEvidence;

/// A class of a vocabulary, by all that is known of it. Only the name must be there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassName<'a> {
    /// Its id in the vocabulary: a number, a machine id (`/m/01g317`), a wnid; or its name.
    pub id: String,
    /// Its name, as the file has it: `mouse_(computer_equipment)`.
    pub name: String,
    /// Other names.
    pub synonyms: Vec<String>,
    /// Its WordNet 3.0 synset, `mouse.n.04`.
    pub synset: Option<String>,
    /// Its WordNet 3.0 id, `n03793489`.
    pub wnid: Option<String>,
    /// Its row of a table of text embeddings; of any length that is not 0.
    pub text: Option<&'a [f32]>,
    /// Training images that show it.
    pub images: Option<u64>,
    /// Rare, common or frequent.
    pub frequency: Option<Frequency>,
}
