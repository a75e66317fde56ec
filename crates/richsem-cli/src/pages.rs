//! The pages of docs/: every command in them is one that the program takes, and every link leads somewhere.

use std::{
    collections::HashSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::words::{Said, read};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All pages, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut files: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .iter()
            .map(|name| root.join(name))
            .collect();
    for folder in ["docs", "benches", "reference"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let pages = entries.map(|entry| entry.unwrap().path());
        files.extend(pages.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        (file, text)
    };
    files.into_iter().map(read).collect()
}

/// The lines of fenced blocks that begin with `richsem`, continued ones joined.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fenced = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        // A line of Cargo.toml is none.
        let is_command = line.trim_start().starts_with("richsem ") && !line.contains("richsem = ");
        if !fenced || !is_command {
            continue;
        }
        let mut command = line.trim().to_owned();
        while let Some(start) = command.strip_suffix('\\') {
            command = format!("{} {}", start.trim_end(), lines.next().unwrap_or_default().trim());
        }
        commands.push(command);
    }
    commands
}

/// The words of a command, as a shell takes them: quotes, `$(…)` as one word, comments and what follows a pipe
/// left out.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut depth, mut any) = (String::new(), None, 0, false);
    for c in command.chars() {
        match (c, quote) {
            ('(', _) => depth += 1,
            (')', _) if depth > 0 => depth -= 1,
            (c, _) if depth > 0 => word.push(c),
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => (quote, any) = (Some(c), true),
            ('#', None) if word.is_empty() => break,
            ('|' | '>' | ';' | '&', None) => break,
            (c, None) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (c, None) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn every_command_in_the_pages_is_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in pages() {
        for command in commands(&text) {
            // A number of the reader's choice.
            let number = |word: String| if word == "N" { "1".to_owned() } else { word };
            let words = words(&command).into_iter().map(number);
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let place = format!("{}: {command}", file.display());
            let Said::Arguments(arguments, _) = read(words, &crate::command_line()) else {
                continue; // it shows what is refused, or the version
            };
            let taken = crate::command_line().try_get_matches_from(arguments);
            if let Err(error) = taken
                && !matches!(
                    error.kind(),
                    clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
                )
            {
                wrong.push(format!("{place}\n{error}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "{count} commands were found");
}

/// As GitHub makes them of headings.
fn anchor(heading: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == ' ' || c == '-' || c == '_';
    let text: String = heading.to_lowercase().chars().filter(|&c| plain(c)).collect();
    text.trim().replace(' ', "-")
}

fn anchors(text: &str) -> HashSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for part in text.split("](").skip(1) {
        if let Some(end) = part.find(')') {
            links.push(part[..end].to_owned());
        }
    }
    links
}

#[test]
fn every_link_leads_to_a_file_and_its_heading() {
    let mut wrong = Vec::new();
    for (file, text) in pages() {
        for link in links(&text) {
            let place = format!("{}: {link}", file.display());
            if link.starts_with("https://") || link.starts_with("http://") {
                assert!(!link.contains(' '), "{place}");
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            if !target.exists() {
                wrong.push(format!("{place}: there is no such file"));
            } else if !heading.is_empty()
                && !anchors(&std::fs::read_to_string(&target).unwrap()).contains(heading)
            {
                wrong.push(format!("{place}: there is no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A page that nothing leads to is not found.
#[test]
fn every_page_is_linked_from_another() {
    let pages = pages();
    for (file, _) in &pages {
        let name = file.file_name().unwrap().to_str().unwrap();
        let in_docs = file.parent().unwrap().ends_with("docs");
        let linked = pages.iter().any(|(other, text)| {
            other != file
                && links(text).iter().any(|link| link.split('#').next().unwrap().ends_with(name))
        });
        assert!(!in_docs || linked, "nothing links to {}", file.display());
    }
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(
        words("richsem init a --weights \"$(richsem weights fetch b)\" 'x y' # note"),
        ["richsem", "init", "a", "--weights", "$richsem weights fetch b", "x y"]
    );
    assert_eq!(words("richsem settings --schema > a.json"), ["richsem", "settings", "--schema"]);
    assert_eq!(anchor(" Thresholds for use"), "thresholds-for-use");
}

/// Messages that docs/problems.md explains are ones that the program has.
#[test]
fn every_explained_message_is_one() {
    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for name in ["torch-ext", "richsem"] {
        sources(&root().join("crates").join(name).join("src"), &mut all);
    }
    let page = std::fs::read_to_string(root().join("docs/problems.md")).unwrap();
    let messages = page.split("## Messages").nth(1).unwrap();
    let messages: Vec<&str> =
        messages.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(messages.len() > 10);
    for message in messages {
        assert!(all.contains(message), "no message has `{message}`");
    }
}
