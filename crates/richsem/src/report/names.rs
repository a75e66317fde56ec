//! What runs are called: by what tells their folders apart.

use std::path::{Component, Path};

/// A folder of this name says nothing of the run in it.
const NAMELESS: &str = "run";

/// Names of runs in these folders, in their order. Each is the last part of its path that not all have alike:
/// `a/baseline/run` and `a/richsem/run` are `baseline` and `richsem`. One alone has its folder's name, or, where
/// that is `run`, that of the folder around it. Equal names are made longer.
pub(super) fn of_runs(folders: &[&Path]) -> Vec<String> {
    let parts: Vec<Vec<String>> = folders.iter().map(|folder| parts(folder)).collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    // From the back: the first part in which they differ.
    let alike = |back: usize| {
        let part = |of: &Vec<String>| of.iter().rev().nth(back).cloned();
        parts.windows(2).all(|pair| part(&pair[0]) == part(&pair[1]))
    };
    let first = match parts.len() {
        1 => usize::from(parts[0].last().is_some_and(|name| name == NAMELESS)),
        _ => (0..longest).find(|&back| !alike(back)).unwrap_or(0),
    };
    // Of `width` parts, the last of which is the `first`.
    let name = |of: &[String], width: usize| {
        let end = of.len().saturating_sub(first).max(1).min(of.len());
        of[end.saturating_sub(width)..end].join("/")
    };
    for width in 1..=longest {
        let names: Vec<String> = parts.iter().map(|of| name(of, width)).collect();
        let different: std::collections::HashSet<&String> = names.iter().collect();
        if different.len() == names.len() {
            return names;
        }
    }
    // The same folder twice.
    folders.iter().map(|folder| folder.display().to_string()).collect()
}

fn parts(folder: &Path) -> Vec<String> {
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    absolute.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_tells_the_folders_apart() {
        let of = |folders: &[&str]| of_runs(&folders.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(of(&["/none/demo/richsem"]), ["richsem"]);
        assert_eq!(of(&["/none/demo/baseline/run"]), ["baseline"]);
        assert_eq!(of(&["/none/richsem", "/none/baseline"]), ["richsem", "baseline"]);
        assert_eq!(of(&["/none/a/richsem/run", "/none/a/baseline/run"]), ["richsem", "baseline"]);
        assert_eq!(of(&["/none/a/x", "/none/b/x", "/none/b/y"]), ["a/x", "b/x", "b/y"]);
        assert_eq!(of(&["/none/richsem", "/none/other/base/run"]), ["richsem", "run"]);
        assert_eq!(of(&["/none/x", "/none/x"]), ["/none/x", "/none/x"]);
    }
}
