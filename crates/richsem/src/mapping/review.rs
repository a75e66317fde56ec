//! What a person decides: the review file, which reruns keep, and the mapping that comes of both.

use std::{fmt::Write as _, path::Path};

use serde::Deserialize;

use super::{Candidate, ClassName, Decision, Mapping, Relation};
use crate::{
    error::{Error, Result, read_text, write_atomically},
    settings::not_toml,
};

/// Version of the file's format.
const VERSION: u32 = 1;

/// The decision that a class has no counterpart.
const NONE: &str = "none";

const HEAD: &str = "\
# Classes that were not mapped by themselves. Write a decision: the id or the name of the class that it is,
# or \"none\". An empty one is open. `richsem map` keeps decisions when it runs again; a class that was mapped
# by itself can be decided here too (add a [[class]] with `from` and `decision`).
";

/// A review file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    version: u32,
    /// The classes, in FROM's order; then those that FROM has no more.
    #[serde(default, rename = "class")]
    pub entries: Vec<Entry>,
}

/// A class that a person decides.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its id in FROM.
    pub from: String,
    /// Its name, for the reader.
    #[serde(default)]
    pub name: String,
    /// Empty: open. `none`, or the id or name of a class of TO.
    #[serde(default)]
    pub decision: String,
    /// What was proposed, the most probable first.
    #[serde(default)]
    pub candidates: Vec<Proposal>,
}

/// A candidate, as the file has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// Its id in TO.
    pub to: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `same`, `narrower`, `broader` or `part`.
    #[serde(default)]
    pub relation: String,
    /// Probability that the two are the same.
    #[serde(default)]
    pub confidence: f64,
    /// What it rests on, in words.
    #[serde(default)]
    pub evidence: String,
}

/// What became of the decisions of an earlier run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Decisions that hold.
    pub decided: usize,
    /// Classes that are open.
    pub open: usize,
    /// Decided classes whose candidates are others than when they were decided, in words.
    pub changed: Vec<String>,
    /// Decided classes that FROM does not have (any more): kept in the file, and without effect.
    pub gone: Vec<String>,
}

impl Review {
    /// Reads a review file. There is none before the first run: then it is empty.
    ///
    /// # Errors
    /// A file that cannot be read, is no such TOML, or has a class twice.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self { version: VERSION, entries: Vec::new() });
        }
        let text = read_text(path)?;
        let review: Self = toml::from_str(&text).map_err(|error| {
            not_toml(path, &text, &error).with_hint(match text.trim() {
                "" => "remove it, or give another name: `richsem map` writes the file",
                _ => "mend it, or put the file away: it holds decisions, and is never overwritten unread",
            })
        })?;
        if review.version != VERSION {
            let problem = format!("expected {VERSION}, got {}", review.version);
            return Err(Error::invalid(path, "version", problem)
                .with_hint("the file is of another release: give another name"));
        }
        for (i, entry) in review.entries.iter().enumerate() {
            if review.entries[..i].iter().any(|earlier| earlier.from == entry.from) {
                let problem = format!("`{}` is there twice", entry.from);
                return Err(Error::invalid(path, format!("class[{i}].from"), problem)
                    .with_hint("keep one of the two"));
            }
        }
        Ok(review)
    }

    /// Puts the decisions into a mapping, and makes the file of this run: what is open, and all decisions.
    ///
    /// # Errors
    /// A decision that is no class of TO, or a name of two.
    pub fn apply(
        &self,
        path: &Path,
        mapping: &mut Mapping,
        from: &[ClassName<'_>],
        to: &[ClassName<'_>],
    ) -> Result<(Self, Kept)> {
        let (mut next, mut kept) =
            (Self { version: VERSION, entries: Vec::new() }, Kept::default());
        for (class, mapped) in from.iter().zip(&mut mapping.classes) {
            let earlier = self.entries.iter().position(|entry| entry.from == class.id);
            let decided = earlier.filter(|&at| !self.entries[at].decision.is_empty());
            let proposals: Vec<Proposal> =
                mapped.candidates.iter().map(|candidate| proposal(candidate, to)).collect();
            if let Some(at) = decided {
                let entry = &self.entries[at];
                mapped.decision = decision(path, at, entry, &mapped.candidates, to)?;
                kept.decided += 1;
                if !entry.candidates.is_empty() && !same_candidates(&entry.candidates, &proposals) {
                    kept.changed.push(change(entry, &proposals));
                }
            } else if mapped.decision != Decision::Review {
                continue;
            } else {
                kept.open += 1;
            }
            next.entries.push(Entry {
                from: class.id.clone(),
                name: class.name.clone(),
                decision: decided.map(|at| self.entries[at].decision.clone()).unwrap_or_default(),
                candidates: proposals,
            });
        }
        let gone = self.entries.iter().filter(|entry| {
            !entry.decision.is_empty() && !from.iter().any(|class| class.id == entry.from)
        });
        for entry in gone {
            kept.gone.push(format!("{} `{}`", entry.from, entry.name));
            next.entries.push(entry.clone());
        }
        Ok((next, kept))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, |out| Ok(out.write_all(self.to_toml().as_bytes())?))
    }

    fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!("{HEAD}version = {VERSION}\n");
        for entry in &self.entries {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[class]]\nfrom = {}\nname = {}\ndecision = {}\ncandidates = [\n",
                quoted(&entry.from),
                quoted(&entry.name),
                quoted(&entry.decision)
            );
            for proposal in &entry.candidates {
                let _ = writeln!(
                    text,
                    "  {{ to = {}, name = {}, relation = {}, confidence = {:.3}, evidence = {} }},",
                    quoted(&proposal.to),
                    quoted(&proposal.name),
                    quoted(&proposal.relation),
                    proposal.confidence,
                    quoted(&proposal.evidence)
                );
            }
            text += "]\n";
        }
        text
    }
}

fn proposal(candidate: &Candidate, to: &[ClassName<'_>]) -> Proposal {
    let class = &to[candidate.to];
    Proposal {
        to: class.id.clone(),
        name: class.name.clone(),
        relation: candidate.relation.word().to_owned(),
        confidence: candidate.confidence,
        evidence: candidate.evidence.to_string(),
    }
}

/// Whether the same classes are proposed, in whatever order.
fn same_candidates(a: &[Proposal], b: &[Proposal]) -> bool {
    let has = |list: &[Proposal], wanted: &Proposal| list.iter().any(|p| p.to == wanted.to);
    a.len() == b.len() && a.iter().all(|proposal| has(b, proposal))
}

fn change(entry: &Entry, now: &[Proposal]) -> String {
    let names = |list: &[Proposal]| {
        let names: Vec<&str> = list.iter().map(|proposal| proposal.name.as_str()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    format!(
        "{} `{}`: decided `{}` among {}; now {}",
        entry.from,
        entry.name,
        entry.decision,
        names(&entry.candidates),
        names(now)
    )
}

/// What an entry decides.
fn decision(
    path: &Path,
    at: usize,
    entry: &Entry,
    candidates: &[Candidate],
    to: &[ClassName<'_>],
) -> Result<Decision> {
    let word = entry.decision.as_str();
    let by_id = to.iter().position(|class| class.id == word);
    let named = || to.iter().enumerate().filter(|(_, class)| class.name == word).map(|(i, _)| i);
    let found = match by_id {
        Some(place) => Some(place),
        None if word == NONE => return Ok(Decision::None),
        None if named().count() > 1 => {
            let problem = format!("`{word}` is the name of {} classes", named().count());
            return Err(Error::invalid(path, format!("class[{at}].decision"), problem)
                .with_hint("give its id"));
        }
        None => named().next(),
    };
    let Some(place) = found else {
        let near = to.iter().map(|class| (strsim::jaro_winkler(word, &class.name), &class.name));
        let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.85);
        let hint = match nearest {
            Some((_, name)) => format!("did you mean `{name}`? \"none\" if it has no counterpart"),
            None => "give an id or a name of TO's, or \"none\"".to_owned(),
        };
        let problem = format!("`{word}` is no class of TO");
        return Err(Error::invalid(path, format!("class[{at}].decision"), problem).with_hint(hint));
    };
    let narrower = candidates.iter().any(|c| c.to == place && c.relation == Relation::Narrower);
    Ok(if narrower { Decision::Narrower(place) } else { Decision::Same(place) })
}

/// The mapping as training reads it (`mapping = { by = "file", path = … }`): an object from each class's
/// id to a list of one class of TO: by its id if that is a number, else by its name, or by its id again where
/// another class has the same name. Classes without a counterpart have an empty list; those that are open are left out.
#[must_use]
pub fn to_json(mapping: &Mapping, from: &[ClassName<'_>], to: &[ClassName<'_>]) -> String {
    let entries = mapping.classes.iter().map(|mapped| match mapped.decision {
        Decision::Same(to) | Decision::Narrower(to) => Some(vec![to]),
        Decision::None => Some(Vec::new()),
        Decision::Review => None,
    });
    entries_to_json(entries, from, to)
}

/// As [`to_json`], of places in TO by class of FROM; classes without an entry are left out.
pub fn entries_to_json(
    entries: impl Iterator<Item = Option<Vec<usize>>>,
    from: &[ClassName<'_>],
    to: &[ClassName<'_>],
) -> String {
    let value = |place: usize| -> serde_json::Value {
        let class = &to[place];
        let is_unique = to.iter().filter(|other| other.name == class.name).count() == 1;
        let word = if is_unique { &class.name } else { &class.id };
        let number = class.id.parse::<i64>().ok();
        number.map_or_else(|| word.clone().into(), Into::into)
    };
    let mut object = serde_json::Map::new();
    for (class, entry) in from.iter().zip(entries) {
        let Some(entry) = entry else { continue };
        let classes: Vec<serde_json::Value> = entry.into_iter().map(value).collect();
        object.insert(class.id.clone(), classes.into());
    }
    format!("{:#}\n", serde_json::Value::Object(object))
}
