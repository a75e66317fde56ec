//! The command line before `clap` reads it: `help`, `version`, `key=value`, and what people are used to type
//! elsewhere ([`habits`], [`verbs`]).

mod first;
mod habits;
mod keys;
mod near;
mod reader;
mod sets;
mod settings;
mod values;
mod verbs;

use std::ffi::OsString;

use clap::Command;

use habits::{Answer, FLAGS, Habit};
use near::plain;
use reader::Reader;
pub(crate) use settings::hint as setting_hint;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// Arguments for `clap`, and what was taken as something else, each a line.
    Arguments(Vec<OsString>, Vec<String>),
    /// It asks for the version.
    Version,
    /// It is not done; why, and what to type.
    Refused(String),
}

/// Reads the command line, the program's name first.
pub(crate) fn read(mut arguments: Vec<OsString>, command: &Command) -> Said {
    let mut notes = match first::verb_first(&mut arguments, command) {
        Ok(notes) => notes,
        Err(said) => return said,
    };
    let words: Vec<Option<String>> =
        arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let verb = words.get(1).and_then(|word| command.find_subcommand(word.as_deref()?));
    let Some(verb) = verb else { return Said::Arguments(arguments, notes) };
    let name = verb.get_name();
    // `dataset stats`: the flags are the inner verb's.
    let word = words.get(2).and_then(Option::as_deref);
    let inner = word.and_then(|word| verb.find_subcommand(word));
    if word == Some("help") && !std::path::Path::new("help").exists() {
        let asked = [arguments[0].clone(), arguments[1].clone(), "--help".into()];
        return Said::Arguments(asked.into(), notes);
    }
    if let (None, Some(word)) = (inner, word)
        && verb.has_subcommands()
        && !word.starts_with('-')
    {
        return Said::Refused(first::no_inner(verb, word));
    }
    let (head, name) = match inner {
        Some(inner) => (3, format!("{name} {}", inner.get_name())),
        None => (2, name.to_owned()),
    };
    match Reader::new(command, inner.unwrap_or(verb), &name).read(&arguments, head) {
        Said::Arguments(arguments, more) => {
            notes.extend(more);
            Said::Arguments(arguments, notes)
        }
        said => said,
    }
}

/// All words of others.
fn habits() -> impl Iterator<Item = &'static Habit> {
    FLAGS.iter().chain(sets::FLAGS).chain(keys::KEYS)
}

/// What a flag or key of another program is for a verb.
fn habit(verb: &str, name: &str) -> Option<&'static Habit> {
    let name = plain(name);
    let fits = |habit: &&Habit| {
        habit.words.iter().any(|word| plain(word) == name)
            && (habit.verbs.is_empty() || habit.verbs.contains(&verb))
    };
    habits().find(fits)
}

/// What a verb of another program is here.
fn verb_of(word: &str) -> Option<&'static str> {
    let word = plain(word);
    let fits = |(words, _): &&(&[&str], &str)| words.iter().any(|known| plain(known) == word);
    verbs::VERBS.iter().find(fits).map(|(_, answer)| *answer)
}

/// What a word is below a verb, in the place of a verb or of a file.
fn inner_of(verb: &str, word: &str) -> Option<&'static str> {
    let word = plain(word);
    let fits = |(of, words, _): &&(&str, &[&str], &str)| *of == verb && words.contains(&&*word);
    sets::INNER.iter().chain(verbs::INSTEAD).find(fits).map(|(_, _, answer)| *answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
