//! The arguments of a verb: its flags and settings, and what others call them.

use std::{ffi::OsString, path::Path, slice::Iter};

use clap::Command;
use richsem::{detector::weights_in, settings_reference};

use super::{
    Answer, Habit, Said, habit, habits, inner_of, near, plain,
    values::{
        assignment, device, is_absent_file, is_key, is_negative, is_no, is_number, is_on, is_value,
        is_word, no_value, word_after,
    },
    verb_of,
};

/// Reads the arguments of a verb.
pub(super) struct Reader<'a> {
    all: &'a Command,
    command: &'a Command,
    verb: &'a str,
    arguments: Vec<OsString>,
    notes: Vec<String>,
    /// Where the arguments without a flag are.
    bare: Vec<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(all: &'a Command, command: &'a Command, verb: &'a str) -> Self {
        Self { all, command, verb, arguments: Vec::new(), notes: Vec::new(), bare: Vec::new() }
    }

    pub(super) fn read(mut self, given: &[OsString], head: usize) -> Said {
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
                self.short(word, &mut rest)
            } else if let Some((name, value)) = assignment(word) {
                self.assigned(word, name, value)
            } else if is_key(self.verb, word) && is_value(self.verb, rest.as_slice().first()) {
                self.pair(argument, &mut rest)
            } else {
                self.bare(word)
            };
            if let Err(problem) = done {
                return Said::Refused(problem);
            }
        }
        self.name_bare();
        Said::Arguments(self.arguments, self.notes)
    }

    /// `-c FILE`, an image called `-x.jpg`, and what others write with one dash: `-w FILE`, `-batch 4`.
    fn short(&mut self, word: &str, rest: &mut Iter<'_, OsString>) -> Result<(), String> {
        let whole = word.trim_start_matches('-');
        let (name, value) = whole.split_once('=').map_or((whole, None), |(n, v)| (n, Some(v)));
        if Path::new(word).exists() {
            return self.bare(&format!("./{word}"));
        }
        if name.len() > 1 && (self.own(name).is_some() || self.habit(name).is_some()) {
            return self.flag(word, name, value, rest);
        }
        let letter = whole.chars().next();
        let is = |arg: &clap::Arg| arg.get_short() == letter;
        if self.command.get_arguments().any(is) || letter == Some('h') {
            self.arguments.push(word.into());
            // `-c FILE`, but not `-cFILE`.
            if self.takes_value(is) && whole.len() == 1 {
                self.arguments.extend(rest.next().cloned());
            }
            return Ok(());
        }
        if name.len() == 1 && self.habit(name).is_some() {
            return self.flag(word, name, value, rest);
        }
        match word.parse::<f64>() {
            Ok(_) => self.bare(word),
            Err(_) => Err(format!("{} (a file of that name: ./{word})", self.unknown(word, name))),
        }
    }

    /// An argument without a flag.
    fn bare(&mut self, word: &str) -> Result<(), String> {
        if !Path::new(word).exists() {
            if let Some(answer) = inner_of(self.verb, word) {
                return Err(format!("{} {word}: {answer}", self.verb));
            }
            let is_key = |part: &str| {
                let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                part.len() > 1 && part.chars().all(plain)
            };
            let takes_keys = ["train", "eval", "predict"].contains(&self.verb);
            if takes_keys && word.contains('.') && word.split('.').all(is_key) {
                return Err(self.unknown(word, word));
            }
        }
        self.bare.push(self.arguments.len());
        self.arguments.push(word.into());
        Ok(())
    }

    /// Gives what stands without a flag the flag that it can only be for: a detector among the images of `predict`,
    /// a detector and a set after `eval`.
    fn name_bare(&mut self) {
        if !["predict", "eval"].contains(&self.verb) {
            return;
        }
        let is_weights = |word: &OsString| {
            let path = Path::new(word);
            let ends = ["safetensors", "pt", "pth"];
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|e| ends.contains(&e))
                || path.is_dir() && weights_in(path).is_ok()
        };
        let mut named: Vec<(usize, &str)> = Vec::new();
        if !self.has("weights") && !self.has("detections") {
            let at = self.bare.iter().find(|at| is_weights(&self.arguments[**at]));
            named.extend(at.map(|at| (*at, "--weights")));
        }
        if self.verb == "eval" && !self.has("annotations") {
            let at = self.bare.iter().find(|at| named.iter().all(|(named, _)| named != *at));
            named.extend(at.map(|at| (*at, "--annotations")));
        }
        named.sort_unstable();
        for (at, flag) in named.into_iter().rev() {
            self.notes.push(format!("{} is {flag} here", self.arguments[at].display()));
            self.arguments.insert(at, flag.into());
        }
    }

    /// Whether a flag is among the arguments.
    fn has(&self, name: &str) -> bool {
        let (flag, with) = (format!("--{name}"), format!("--{name}="));
        self.arguments
            .iter()
            .filter_map(|word| word.to_str())
            .any(|word| word == flag || word.starts_with(&with))
    }

    /// `--name`, `--name=value` or `--name value`.
    fn flag(
        &mut self,
        word: &str,
        name: &str,
        value: Option<&str>,
        rest: &mut Iter<'_, OsString>,
    ) -> Result<(), String> {
        if let Some(own) = self.own(name) {
            if own == "set" {
                return self.several(value, rest);
            }
            return match (self.takes_value(|arg| is_long(arg, &own)), value) {
                // As it was typed: a value may begin with a dash.
                (true, Some(value)) if !is_word(value) => {
                    self.check(word, &own, value)?;
                    let value = device(&own, value.into());
                    let mut whole = OsString::from(format!("--{own}="));
                    whole.push(value);
                    self.arguments.push(whole);
                    Ok(())
                }
                (true, None) => match rest.next() {
                    Some(value) => {
                        let mut value = value.clone();
                        // `--imgsz 640 480`.
                        while own == "imgsz"
                            && let Some(more) =
                                rest.as_slice().first().filter(|more| is_number(more))
                        {
                            value.push(",");
                            value.push(more);
                            rest.next();
                        }
                        self.with_value(word, &own, value)
                    }
                    None => {
                        self.push(&own, None);
                        Ok(())
                    }
                },
                (true, Some(value)) => self.with_value(word, &own, value.into()),
                (false, value) => {
                    if is_on(value.or_else(|| word_after(rest))) {
                        self.push(&own, None);
                    }
                    Ok(())
                }
            };
        }
        if let Some(value) = value.filter(|_| ["task", "mode"].contains(&&*plain(name))) {
            return self.task(word, value);
        }
        let Some(habit) = self.habit(name) else {
            return self.section(word, name, value, rest);
        };
        if habit.answer == Answer::Flag("--set") {
            self.notes.push(format!("{word} is --set here"));
            return self.several(value, rest);
        }
        let needs = !matches!(habit.answer, Answer::Switch(_) | Answer::Says(_) | Answer::Lacks(_));
        let value = match value {
            Some(value) => Some(value.to_owned()),
            None if needs => rest.next().and_then(|value| value.to_str()).map(str::to_owned),
            None => word_after(rest).map(str::to_owned),
        };
        let follows = rest.as_slice().first().and_then(|word| word.to_str());
        if let (Answer::Switch(_), "predict", Some(follows)) = (habit.answer, self.verb, follows)
            && value.is_none()
            && is_absent_file(follows)
        {
            return Err(format!(
                "{word}: it has no value here, and there is no `{follows}`: what is found goes to --output FOLDER"
            ));
        }
        let typed = word.split('=').next().unwrap_or(word);
        self.answer(typed, habit.answer, value)
    }

    /// A setting as a flag: `--train.lr 0.1`.
    fn section(
        &mut self,
        word: &str,
        name: &str,
        value: Option<&str>,
        rest: &mut Iter<'_, OsString>,
    ) -> Result<(), String> {
        if self.own("set").is_none() || !name.contains('.') {
            return Err(self.unknown(word, name));
        }
        let follows = || is_value(self.verb, rest.as_slice().first());
        let value = match value {
            Some(value) => Some(value.to_owned()),
            None if follows() => rest.next().and_then(|value| value.to_str()).map(str::to_owned),
            None => None,
        };
        let typed = word.split('=').next().unwrap_or(word);
        let key = name.replace('-', "_");
        let value = value.ok_or_else(|| format!("{typed} needs a value: --set {key}=VALUE"))?;
        self.notes.push(format!("{typed} is --set {key}= here"));
        // A key is checked where settings are read.
        self.push("set", Some(format!("{key}={value}").into()));
        Ok(())
    }

    /// `name=value`.
    fn assigned(&mut self, word: &str, name: &str, value: &str) -> Result<(), String> {
        if let Some(own) = self.own(name) {
            if self.takes_value(|arg| is_long(arg, &own)) {
                return self.with_value(word, &own, value.into());
            } else if is_on(Some(value)) {
                self.push(&own, None);
            }
            return Ok(());
        }
        if ["task", "mode"].contains(&&*plain(name)) {
            return self.task(word, value);
        }
        if let Some(habit) = self.habit(name) {
            return self.answer(&format!("{name}="), habit.answer, Some(value.to_owned()));
        }
        // A key with dots is checked where settings are read.
        let may_be = name.contains('.') || !settings_reference::find(name).is_empty();
        if self.own("set").is_some() && may_be {
            return self.set(word);
        }
        let typed = format!("{name}=");
        Err(format!("{} (a file of that name: ./{word})", self.unknown(&typed, name)))
    }

    /// `task=detect` and `mode=train`, which the program and the verb say.
    fn task(&mut self, word: &str, value: &str) -> Result<(), String> {
        if plain(value) == "detect"
            || self.all.find_subcommand(value).is_some_and(|verb| verb.get_name() == self.verb)
        {
            self.notes.push(format!("{word} is left out: it is always so here"));
            return Ok(());
        }
        Err(match verb_of(value) {
            Some(answer) => format!("{word}: {answer}"),
            None => format!("{word}: the verb is the first word: richsem {} --help", self.verb),
        })
    }

    /// The assignments after `--set`: `KEY=VALUE`, and, as detectron2 and MMDetection have it, more of them, or
    /// keys and values by turns.
    fn several(
        &mut self,
        value: Option<&str>,
        rest: &mut Iter<'_, OsString>,
    ) -> Result<(), String> {
        if let Some(value) = value {
            return self.set(value);
        }
        match rest.next() {
            Some(first) => self.pair(first, rest),
            None => {
                self.push("set", None);
                Ok(())
            }
        }
    }

    /// `KEY VALUE` or an assignment, and those that follow it.
    fn pair(&mut self, first: &OsString, rest: &mut Iter<'_, OsString>) -> Result<(), String> {
        let mut next = Some(first);
        while let Some(argument) = next.take() {
            match argument.to_str() {
                Some(word)
                    if is_key(self.verb, word) && is_value(self.verb, rest.as_slice().first()) =>
                {
                    let value = rest.next().and_then(|value| value.to_str()).unwrap_or_default();
                    self.set(&format!("{word}={value}"))?;
                }
                Some(word) => self.set(word)?,
                None => self.push("set", Some(argument.clone())),
            }
            let more = rest.as_slice().first().and_then(|word| word.to_str());
            let is_more = more.is_some_and(|word| {
                assignment(word).is_some()
                    || is_key(self.verb, word) && is_value(self.verb, rest.as_slice().get(1))
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
            && settings_reference::find(name.trim()).is_empty()
        {
            return self.answer(&format!("{name}="), habit.answer, Some(value.to_owned()));
        }
        self.push("set", Some(word.into()));
        Ok(())
    }

    fn answer(&mut self, typed: &str, answer: Answer, value: Option<String>) -> Result<(), String> {
        let missing = || format!("{typed} needs a value");
        match answer {
            Answer::Lacks(_) if value.as_deref().is_some_and(is_no) => {
                self.notes.push(format!("{typed} is left out: there is none here"));
            }
            Answer::Says(what) | Answer::Lacks(what) => return Err(format!("{typed}: {what}")),
            Answer::Switch(arguments) => {
                if is_on(value.as_deref()) {
                    self.arguments.extend(arguments.iter().map(OsString::from));
                    if !arguments.is_empty() {
                        self.notes.push(format!("{typed} is {} here", arguments.join(" ")));
                    }
                }
            }
            Answer::Argument => return self.bare(&value.ok_or_else(missing)?),
            Answer::Flag(flag) => {
                let (name, value) = (flag.trim_start_matches('-'), value.ok_or_else(missing)?);
                self.check(typed, name, &value)?;
                self.notes.push(format!("{typed} is {flag} here"));
                self.push(name, Some(value.into()));
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
        let value = value.map(|value| device(name, value));
        // `--lr -1` is a rate, not a flag.
        match value.as_ref().and_then(|value| value.to_str()).filter(|value| is_negative(value)) {
            Some(value) => self.arguments.push(format!("--{name}={value}").into()),
            None => {
                self.arguments.push(format!("--{name}").into());
                self.arguments.extend(value);
            }
        }
    }

    /// Refuses a value that flags of that name take elsewhere.
    fn check(&self, typed: &str, name: &str, value: &str) -> Result<(), String> {
        match no_value(self.verb, name, value, self.own("gpus").is_some()) {
            Some(what) => {
                let typed = typed.split('=').next().unwrap_or(typed);
                Err(format!("{typed} {value}: {what}"))
            }
            None => Ok(()),
        }
    }

    /// A flag of the verb that takes a value. A yes or a no is none: `resume=True`.
    fn with_value(&mut self, typed: &str, name: &str, value: OsString) -> Result<(), String> {
        let Some(word) = value.to_str().filter(|word| is_word(word)) else {
            self.check(typed, name, &value.to_string_lossy())?;
            self.push(name, Some(value));
            return Ok(());
        };
        // `val=True` of others: a set that is there is evaluated on.
        if (self.verb, name) == ("train", "val") && is_on(Some(word)) {
            self.notes.push(format!(
                "--val {word} is left out: it is always so, if there is a set for it"
            ));
            return Ok(());
        }
        if !is_on(Some(word)) {
            self.notes.push(format!("--{name} is left out: {word} is said for it"));
            return Ok(());
        }
        let arg = self.command.get_arguments().find(|arg| is_long(arg, name));
        let names = arg.and_then(clap::Arg::get_value_names).unwrap_or_default();
        let of = names.first().map_or("VALUE", |name| name.as_str());
        Err(format!("{typed}: it needs more than {word}: richsem {} --{name} {of}", self.verb))
    }

    /// What is said of a flag or key that the verb does not have.
    fn unknown(&self, typed: &str, name: &str) -> String {
        let verb = self.verb;
        let is = format!("there is no `{typed}` in {verb}");
        let own = self.command.get_arguments().filter_map(clap::Arg::get_long);
        let others = habits().filter(|habit| habit.verbs.contains(&verb));
        let others = others.flat_map(|habit| habit.words).copied();
        if let Some(meant) = near::meant(name, own.chain(others)) {
            return match self.habit(meant).map(|habit| habit.answer) {
                Some(Answer::Says(what) | Answer::Lacks(what)) => {
                    format!("{is}; if `{meant}` is meant: {what}")
                }
                Some(Answer::Flag(flag)) => format!("{is}: did you mean {flag}?"),
                _ => format!("{is}: did you mean --{meant}?"),
            };
        }
        let has =
            |verb: &&Command| verb.get_arguments().any(|arg| arg.get_long() == Some(&*plain(name)));
        let verbs: Vec<&str> =
            self.all.get_subcommands().filter(has).map(Command::get_name).collect();
        if let 1..=3 = verbs.len() {
            return format!(
                "{is}; it is a flag of {}: richsem {} --help",
                verbs.join(" and "),
                verbs[0]
            );
        }
        if self.own("set").is_some() {
            return format!(
                "{is}: richsem {verb} --help lists the flags, richsem settings the settings"
            );
        }
        format!("{is}: richsem {verb} --help lists what there is")
    }

    fn habit(&self, name: &str) -> Option<&'static Habit> {
        habit(self.verb, name)
    }

    /// The verb's own flag of that name: `Batch` and `allow_missing` are as good as `batch` and `allow-missing`.
    fn own(&self, name: &str) -> Option<String> {
        let known = |name: &str| {
            name == "help" || self.command.get_arguments().any(|arg| is_long(arg, name))
        };
        [name.to_owned(), plain(name)].into_iter().find(|name| known(name))
    }

    fn takes_value(&self, is: impl Fn(&clap::Arg) -> bool) -> bool {
        self.command.get_arguments().any(|arg| is(arg) && arg.get_action().takes_values())
    }
}

fn is_long(arg: &clap::Arg, name: &str) -> bool {
    arg.get_long() == Some(name)
        || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}
