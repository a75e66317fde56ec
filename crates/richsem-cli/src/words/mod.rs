//! The command line before `clap` reads it: `help`, `version`, `key=value`, and what people are used to type
//! elsewhere ([`habits`]).

mod habits;
mod keys;
mod sets;
mod settings;

use std::{ffi::OsString, path::Path};

use clap::Command;

use habits::{Answer, FLAGS, Habit, VERBS};
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
pub(crate) fn read(arguments: Vec<OsString>, command: &Command) -> Said {
    let words: Vec<Option<String>> =
        arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let Some(Some(first)) = words.get(1) else { return Said::Arguments(arguments, Vec::new()) };
    match first.as_str() {
        "--version" | "-V" | "version" if words.len() == 2 => return Said::Version,
        "help" => {
            let mut asked: Vec<OsString> = arguments[..1].to_vec();
            asked.extend_from_slice(&arguments[2..]);
            asked.push("--help".into());
            return Said::Arguments(asked, Vec::new());
        }
        _ => {}
    }
    let Some(verb) = command.find_subcommand(first) else {
        return match verb_of(first) {
            Some(answer) => Said::Refused(format!("there is no verb `{first}`: {answer}")),
            None => Said::Arguments(arguments, Vec::new()),
        };
    };
    // `dataset stats`: the flags are the inner verb's.
    let inner = words.get(2).and_then(|word| verb.find_subcommand(word.as_deref()?));
    if let (None, Some(Some(word))) = (inner, words.get(2))
        && let Some(answer) = inner_of(verb, word)
    {
        let verb = verb.get_name();
        return Said::Refused(format!("there is no verb `{verb} {word}`: {answer}"));
    }
    let (head, name) = match inner {
        Some(inner) => (3, format!("{} {}", verb.get_name(), inner.get_name())),
        None => (2, verb.get_name().to_owned()),
    };
    Reader::new(inner.unwrap_or(verb), &name).read(&arguments, head)
}

/// What a word is below a verb that has verbs of its own.
fn inner_of(verb: &Command, word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    let fits =
        |(of, words, _): &&(&str, &[&str], &str)| *of == verb.get_name() && words.contains(&&*word);
    sets::INNER.iter().find(fits).map(|(_, _, answer)| *answer)
}

/// All words of others.
fn habits() -> impl Iterator<Item = &'static Habit> {
    FLAGS.iter().chain(sets::FLAGS).chain(keys::KEYS)
}

/// What a flag or key of another program is for a verb.
fn habit(verb: &str, name: &str) -> Option<&'static Habit> {
    let plain = |word: &str| word.replace('_', "-").to_ascii_lowercase();
    let name = plain(name);
    let fits = |habit: &&Habit| {
        habit.words.iter().any(|word| plain(word) == name)
            && (habit.verbs.is_empty() || habit.verbs.contains(&verb))
    };
    habits().find(fits)
}

fn verb_of(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    VERBS.iter().find(|(words, _)| words.contains(&&*word)).map(|(_, answer)| *answer)
}

/// Reads the arguments of a verb.
struct Reader<'a> {
    command: &'a Command,
    verb: &'a str,
    arguments: Vec<OsString>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(command: &'a Command, verb: &'a str) -> Self {
        Self { command, verb, arguments: Vec::new(), notes: Vec::new() }
    }

    fn read(mut self, given: &[OsString], head: usize) -> Said {
        self.arguments = given[..head].to_vec();
        let mut rest = given[head..].iter();
        while let Some(argument) = rest.next() {
            let Some(word) = argument.to_str() else {
                self.arguments.push(argument.clone());
                continue;
            };
            if word == "--" {
                self.arguments.push(argument.clone());
                self.arguments.extend(rest.cloned());
                break;
            }
            let done = if let Some(flag) = word.strip_prefix("--") {
                let (name, value) =
                    flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v)));
                self.flag(word, name, value, &mut rest)
            } else if word.starts_with('-') && word.len() > 1 {
                let takes = self.takes_value(|arg| arg.get_short() == word.chars().nth(1));
                self.arguments.push(argument.clone());
                // `-c FILE`, but not `-cFILE`.
                if takes && word.len() == 2 {
                    self.arguments.extend(rest.next().cloned());
                }
                Ok(())
            } else if let Some((name, value)) = assignment(word) {
                self.assigned(word, name, value)
            } else {
                self.arguments.push(argument.clone());
                Ok(())
            };
            if let Err(problem) = done {
                return Said::Refused(problem);
            }
        }
        Said::Arguments(self.arguments, self.notes)
    }

    /// `--name`, `--name=value` or `--name value`.
    fn flag(
        &mut self,
        word: &str,
        name: &str,
        value: Option<&str>,
        rest: &mut std::slice::Iter<'_, OsString>,
    ) -> Result<(), String> {
        if self.knows(name) {
            if name == "set" {
                return self.several(value, rest);
            }
            match (self.takes_value(|arg| is_long(arg, name)), value) {
                // As it was typed: a value may begin with a dash.
                (true, Some(value)) => {
                    let value = device(name, value.into());
                    let mut whole = OsString::from(format!("--{name}="));
                    whole.push(value);
                    self.arguments.push(whole);
                }
                (true, None) => self.push(name, rest.next().cloned()),
                (false, value) if is_on(value) => self.push(name, None),
                (false, _) => {}
            }
            return Ok(());
        }
        let Some(habit) = self.habit(name) else {
            self.arguments.push(word.into());
            return Ok(());
        };
        if habit.answer == Answer::Flag("--set") {
            self.notes.push(format!("--{name} is --set here"));
            return self.several(value, rest);
        }
        let needs = !matches!(habit.answer, Answer::Switch(_) | Answer::Says(_));
        let value = match value {
            Some(value) => Some(value.to_owned()),
            None if needs => rest.next().and_then(|value| value.to_str()).map(str::to_owned),
            None => None,
        };
        self.answer(&format!("--{name}"), habit.answer, value)
    }

    /// `name=value`.
    fn assigned(&mut self, word: &str, name: &str, value: &str) -> Result<(), String> {
        let flag = name.replace('_', "-");
        if self.knows(&flag) {
            if self.takes_value(|arg| is_long(arg, &flag)) {
                self.push(&flag, Some(value.into()));
            } else if is_on(Some(value)) {
                self.push(&flag, None);
            }
            return Ok(());
        }
        if let Some(habit) = self.habit(name) {
            return self.answer(&format!("{name}="), habit.answer, Some(value.to_owned()));
        }
        if self.knows("set") {
            return self.set(word);
        } else {
            self.arguments.push(word.into());
        }
        Ok(())
    }

    /// The assignments after `--set`: `KEY=VALUE`, and, as detectron2 and MMDetection have it, more of them, or
    /// keys and values by turns.
    fn several(
        &mut self,
        value: Option<&str>,
        rest: &mut std::slice::Iter<'_, OsString>,
    ) -> Result<(), String> {
        if let Some(value) = value {
            return self.set(value);
        }
        let Some(first) = rest.next() else {
            self.push("set", None);
            return Ok(());
        };
        let mut next = Some(first);
        while let Some(argument) = next.take() {
            match argument.to_str() {
                Some(word) if is_key(word) && is_value(rest.as_slice().first()) => {
                    let value = rest.next().and_then(|value| value.to_str()).unwrap_or_default();
                    self.set(&format!("{word}={value}"))?;
                }
                Some(word) => self.set(word)?,
                None => self.push("set", Some(argument.clone())),
            }
            let more = rest.as_slice().first().and_then(|word| word.to_str());
            let is_more = more.is_some_and(|word| {
                assignment(word).is_some() || is_key(word) && is_value(rest.as_slice().get(1))
            });
            if is_more {
                next = rest.next();
            }
        }
        Ok(())
    }

    /// An assignment, whose key may be another program's. A setting's name is checked where it is read.
    fn set(&mut self, word: &str) -> Result<(), String> {
        if let Some((name, value)) = word.split_once('=')
            && let Some(habit) = habit(self.verb, name.trim())
            && richsem::settings_reference::find(name.trim()).is_empty()
        {
            return self.answer(&format!("{name}="), habit.answer, Some(value.to_owned()));
        }
        self.push("set", Some(word.into()));
        Ok(())
    }

    fn answer(&mut self, typed: &str, answer: Answer, value: Option<String>) -> Result<(), String> {
        let missing = || format!("{typed} needs a value");
        match answer {
            Answer::Says(what) => return Err(format!("{typed}: {what}")),
            Answer::Switch(arguments) => {
                if is_on(value.as_deref()) {
                    self.arguments.extend(arguments.iter().map(OsString::from));
                    if !arguments.is_empty() {
                        self.notes.push(format!("{typed} is {} here", arguments.join(" ")));
                    }
                }
            }
            Answer::Argument => {
                self.arguments.push(value.ok_or_else(missing)?.into());
            }
            Answer::Flag(flag) => {
                self.notes.push(format!("{typed} is {flag} here"));
                self.push(flag.trim_start_matches('-'), Some(value.ok_or_else(missing)?.into()));
            }
            Answer::Set(key) => {
                self.notes.push(format!("{typed} is --set {key}= here"));
                let assigned = format!("{key}={}", value.ok_or_else(missing)?);
                self.push("set", Some(assigned.into()));
            }
        }
        Ok(())
    }

    /// A flag of the verb.
    fn push(&mut self, name: &str, value: Option<OsString>) {
        self.arguments.push(format!("--{name}").into());
        self.arguments.extend(value.map(|value| device(name, value)));
    }

    fn habit(&self, name: &str) -> Option<&'static Habit> {
        habit(self.verb, name)
    }

    fn knows(&self, name: &str) -> bool {
        name == "help" || self.command.get_arguments().any(|arg| is_long(arg, name))
    }

    fn takes_value(&self, is: impl Fn(&clap::Arg) -> bool) -> bool {
        self.command.get_arguments().any(|arg| is(arg) && arg.get_action().takes_values())
    }
}

/// The value of a flag: `--device 0` is `cuda:0`, as elsewhere.
fn device(name: &str, value: OsString) -> OsString {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value.to_str() {
        Some(text) if name == "device" && number(text) => format!("cuda:{text}").into(),
        _ => value,
    }
}

fn is_long(arg: &clap::Arg, name: &str) -> bool {
    arg.get_long() == Some(name)
        || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

/// The parts of `name=value`, unless it is a file.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    (is_name && !Path::new(word).exists()).then_some((name, value))
}

/// Whether a word is a key with dots, as `SOLVER.BASE_LR`, and no file.
fn is_key(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut parts = word.split('.');
    word.contains('.')
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && parts.all(|part| !part.is_empty() && part.chars().all(plain))
        && (habit("train", word).is_some() || !richsem::settings_reference::find(word).is_empty())
        && !Path::new(word).exists()
}

/// Whether a word can be the value of a key that stands before it: no flag, and no assignment.
fn is_value(word: Option<&OsString>) -> bool {
    let number = |word: &str| word.parse::<f64>().is_ok();
    word.and_then(|word| word.to_str()).is_some_and(|word| {
        (!word.starts_with('-') || number(word)) && assignment(word).is_none() && !is_key(word)
    })
}

/// Whether a switch is on: it is where it is said, unless its value is a no.
fn is_on(value: Option<&str>) -> bool {
    !value.is_some_and(|value| {
        ["false", "0", "no", "off", "none"].contains(&&*value.to_ascii_lowercase())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
