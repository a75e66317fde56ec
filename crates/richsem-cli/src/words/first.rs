//! The first word, which is to be a verb, and the one below it.

use std::{ffi::OsString, path::Path};

use clap::Command;
use richsem::{shell::quoted, weights};

use super::{Said, habit, inner_of, near, plain, values::assignment, verb_of, verbs};

/// Puts a verb first, where it is said in another way, and notes it.
///
/// # Errors
/// What the line says if there is no verb to read further for.
pub(super) fn verb_first(
    arguments: &mut Vec<OsString>,
    command: &Command,
) -> Result<Vec<String>, Said> {
    let mut notes = Vec::new();
    while let Some(first) = arguments.get(1).and_then(|word| word.to_str()).map(str::to_owned) {
        match first.as_str() {
            "--version" | "-V" | "version" if arguments.len() == 2 => return Err(Said::Version),
            "help" | "--help" | "-h" => {
                arguments.remove(1);
                if let Some(topic) = arguments.get(1).and_then(|word| word.to_str())
                    && command.find_subcommand(topic).is_none()
                {
                    return Err(Said::Refused(no_verb(topic, command)));
                }
                arguments.push("--help".into());
                return Err(Said::Arguments(std::mem::take(arguments), notes));
            }
            _ => {}
        }
        if command.find_subcommand(&first).is_some() {
            return Ok(notes);
        }
        if command.find_subcommand(plain(&first)).is_some() {
            arguments[1] = plain(&first).into();
            return Ok(notes);
        }
        let second = arguments.get(2).and_then(|word| word.to_str());
        let verb_follows = second.is_some_and(|word| command.find_subcommand(word).is_some());
        // Ultralytics: `yolo detect train …`, `task=detect mode=train …`.
        let detects = plain(&first) == "detect" && verb_follows || plain(&first) == "task=detect";
        if detects && arguments.len() > 2 {
            arguments.remove(1);
            notes.push(format!("{first} is left out: this program detects, and nothing else"));
            continue;
        }
        if assignment(&first).is_some() {
            notes.push(mode_first(arguments, command).map_err(Said::Refused)?);
            continue;
        }
        return Err(Said::Refused(match first.strip_prefix('-') {
            Some(_) => flag_first(&first, &arguments[1..], command),
            None => no_verb(&first, command),
        }));
    }
    Ok(notes)
}

/// Puts the verb of `mode=train` first.
fn mode_first(arguments: &mut Vec<OsString>, command: &Command) -> Result<String, String> {
    let mode = |word: &OsString| {
        let (name, mode) = assignment(word.to_str()?)?;
        (plain(name) == "mode").then(|| plain(mode))
    };
    let found = arguments.iter().enumerate().find_map(|(at, word)| Some((at, mode(word)?)));
    let Some((at, mode)) = found else {
        let first = arguments[1].to_string_lossy();
        let task = assignment(&first).filter(|(name, _)| plain(name) == "task");
        return Err(match task.and_then(|(_, task)| verb_of(task)) {
            Some(answer) => format!("{first}: {answer}"),
            None => format!("`{first}`: the verb comes first: {}", example("train")),
        });
    };
    let Some(verb) = command.find_subcommand(&mode) else {
        return Err(format!("mode={}", no_verb_but(&mode, command)));
    };
    arguments.remove(at);
    arguments.insert(1, verb.get_name().into());
    Ok(format!("mode={mode} is the verb `{}` here", verb.get_name()))
}

/// A flag before the verb, with what is said after it.
fn flag_first(flag: &str, all: &[OsString], command: &Command) -> String {
    let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    let knows = |verb: &&Command| {
        let own = verb.get_arguments().any(|arg| arg.get_long() == Some(&*plain(name)));
        name.len() > 1 && (own || habit(verb.get_name(), name).is_some_and(|h| !h.verbs.is_empty()))
    };
    // What is asked for most often comes first.
    let often = ["predict", "train", "eval"].map(|verb| command.find_subcommand(verb));
    let verb = often.into_iter().flatten().chain(command.get_subcommands()).find(knows);
    match verb {
        Some(verb) => {
            let line: Vec<String> =
                all.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let line: Vec<String> = line.iter().map(|word| as_typed(word)).collect();
            format!("the verb comes first: richsem {} {}", verb.get_name(), line.join(" "))
        }
        None => format!("there is no flag `{flag}` before a verb: {}", example("predict")),
    }
}

/// A word of a command, which may be a flag, also with its value.
fn as_typed(word: &str) -> String {
    match word.split_once('=') {
        Some((flag, value)) if word.starts_with('-') => format!("{flag}={}", quoted(value)),
        None if word.starts_with('-') => word.to_owned(),
        _ => quoted(word),
    }
}

/// How a verb is typed, as an example.
fn example(verb: &str) -> String {
    match verb {
        "train" => "richsem init DATA, then richsem train -c DATA.toml".to_owned(),
        "eval" => "richsem eval --weights runs/mine --annotations mine".to_owned(),
        "predict" => "richsem predict IMAGE --weights runs/mine".to_owned(),
        verb => format!("richsem {verb} --help"),
    }
}

fn no_verb(word: &str, command: &Command) -> String {
    format!("there is no verb {}", no_verb_but(word, command))
}

/// A word that is no verb, and what to type instead.
fn no_verb_but(word: &str, command: &Command) -> String {
    if let Some(answer) = verb_of(word) {
        return format!("`{word}`: {answer}");
    }
    if let Some(answer) = of_path(word) {
        return format!("`{word}`: {answer}");
    }
    // `model.train(data=…)`, `train.py`, `tools/train_net.py`.
    let called = word.split('(').next().unwrap_or_default();
    let python = called
        .strip_suffix(".py")
        .map(|file| file.rsplit('/').next().unwrap_or(file))
        .or_else(|| called.split_once('.').map(|(_, method)| method));
    if let Some(name) = python {
        let answer = match command.find_subcommand(plain(name)) {
            Some(verb) => Some(example(verb.get_name())),
            None => verb_of(name).map(str::to_owned),
        };
        if let Some(answer) = answer {
            return format!("`{word}`: that is Python; here verbs are typed: {answer}");
        }
    }
    let own = || command.get_subcommands().flat_map(Command::get_name_and_visible_aliases);
    let others = verbs::VERBS.iter().flat_map(|(words, _)| *words).copied();
    match near::meant(word, own().chain(others)).or_else(|| near::one_letter_off(word, own())) {
        Some(meant) => match verb_of(meant) {
            Some(answer) => format!("`{word}`; if `{meant}` is meant: {answer}"),
            None => format!("`{word}`: did you mean `{meant}`? (richsem {meant} --help)"),
        },
        None => format!("`{word}`: richsem --help lists all"),
    }
}

/// What to do with a file or folder in the place of a verb.
fn of_path(word: &str) -> Option<String> {
    let path = Path::new(word);
    if !path.exists() {
        return None;
    }
    let name = quoted(path);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let command = match &*extension.to_ascii_lowercase() {
        _ if path.join("config.toml").is_file() => format!("richsem report {name}"),
        "toml" => format!("richsem train -c {name}"),
        "pt" | "pth" | "safetensors" | "pkl" => format!("richsem info {name}"),
        "jpg" | "jpeg" | "png" | "webp" | "bmp" | "tif" | "tiff" | "gif" => {
            format!("richsem predict {name} --weights runs/mine")
        }
        _ => format!("richsem init {name}"),
    };
    Some(format!("the verb comes first: {command}"))
}

/// A word below a verb that has verbs, and is none of them.
pub(super) fn no_inner(verb: &Command, word: &str) -> String {
    let name = verb.get_name();
    let is = format!("there is no verb `{name} {word}`");
    if let Some(answer) = inner_of(name, word) {
        return format!("{is}: {answer}");
    }
    if name == "weights" {
        if Path::new(word).exists() {
            return format!("{is}: what a file holds is shown by richsem info {}", quoted(word));
        }
        if let Ok(entry) = weights::entry(word) {
            return format!("{is}: a file is fetched by richsem weights fetch {}", entry.name);
        }
    }
    if let Some(meant) = near::meant(word, verb.get_subcommands().map(Command::get_name)) {
        return format!("{is}: did you mean `{name} {meant}`?");
    }
    match name {
        "weights" => format!("{is}: richsem weights lists what richsem weights fetch NAME fetches"),
        _ => format!("{is}: richsem {name} --help lists them"),
    }
}
