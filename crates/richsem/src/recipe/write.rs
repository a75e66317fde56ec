//! A recipe as a settings file, each setting below the reason for it.

use std::fmt::Write as _;

use super::{Choice, Recipe};

/// Letters of a line of comment, at most about.
const WIDTH: usize = 100;

/// The file. Keys of one section stand together, in the order in which they were chosen.
pub(super) fn toml(recipe: &Recipe, head: &str) -> String {
    let mut text = comment(head);
    text += "version = 1\n";
    if let Some(preset) = recipe.preset {
        let _ = writeln!(text, "extends = \"preset:{preset}\"   # {}", recipe.preset_why);
    }
    let mut sections: Vec<(&str, Vec<(&str, &Choice)>)> = Vec::new();
    for choice in &recipe.choices {
        let (section, name) = split(&choice.key);
        match sections.iter_mut().find(|(other, _)| *other == section) {
            Some((_, choices)) => choices.push((name, choice)),
            None => sections.push((section, vec![(name, choice)])),
        }
    }
    // Stable: what is of one rank stays in the order of its choice.
    sections.sort_by_key(|(section, _)| rank(section));
    for (section, choices) in sections {
        let _ = write!(text, "\n[{section}]\n");
        for (name, choice) in choices {
            if !choice.why.is_empty() {
                text += &comment(&choice.why);
            }
            let _ = writeln!(text, "{name} = {}", choice.value);
        }
    }
    for Choice { key, value, why } in &recipe.left_out {
        text += &format!("\n{}", comment(&format!("Not set: {key} = {value}. {LEFT_OUT}. {why}")));
    }
    text
}

/// Why settings are left out.
const LEFT_OUT: &str = "The network would be another one, and the weights would not fit";

/// Sections that stand first, by what their names begin with.
const ORDER: [&str; 5] = ["init", "data", "model", "loss", "train"];

fn rank(section: &str) -> (usize, usize) {
    let first = ORDER.iter().position(|start| section.starts_with(start)).unwrap_or(ORDER.len());
    (first, section.matches('.').count())
}

/// The section and the name in it of a key. What follows a data set's name is one name: `mapping.by`.
fn split(key: &str) -> (&str, &str) {
    let mut parts = key.match_indices('.').map(|(at, _)| at);
    let end = match key {
        key if key.starts_with("data.extra.") => parts.nth(2),
        key if key.starts_with("data.train.") || key.starts_with("data.val.") => parts.nth(1),
        _ => parts.next_back(),
    };
    end.map_or(("", key), |end| (&key[..end], &key[end + 1..]))
}

/// Lines that begin with `#`.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let mut line = String::from("#");
        for word in paragraph.split(' ') {
            if line.len() + word.len() > WIDTH && line.len() > 1 {
                let _ = writeln!(lines, "{}", line.trim_end());
                line = String::from("#");
            }
            let _ = write!(line, " {word}");
        }
        let _ = writeln!(lines, "{}", line.trim_end());
    }
    lines
}
