//! The public items of both library crates, one a line: a change of them is seen in a review.
//! `UPDATE=1 cargo test --release --workspace --test public_api` writes the list anew.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

/// Files of a crate, sorted, without those of tests.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" && name != "testing" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.contains("test") {
            found.push(path);
        }
    }
}

/// What a line declares, if it is public: up to its body.
fn declared(line: &str) -> Option<String> {
    let line = line.trim_start();
    let rest = line.strip_prefix("pub ")?;
    let kinds = ["fn ", "const ", "struct ", "enum ", "trait ", "type ", "mod ", "use ", "async "];
    if !kinds.iter().any(|kind| rest.starts_with(kind)) {
        // A field.
        let (name, kind) = rest.split_once(": ")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        return name.chars().all(plain).then(|| format!("{name}: {}", kind.trim_end_matches(',')));
    }
    let end = rest.find([';', '{']).unwrap_or(rest.len());
    let mut text = rest[..end].trim_end().to_owned();
    if let Some(at) = text.find(" where ") {
        text.truncate(at);
    }
    Some(text)
}

/// Public modules of a crate's root are public; so is what lies in them. (What a private module has is
/// listed too: it may be exported from elsewhere.)
fn items(root: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(root, &mut files);
    let mut items = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let name = file.strip_prefix(root).unwrap().with_extension("");
        let module = name.display().to_string().replace('/', "::");
        let module = module.trim_end_matches("::mod");
        let mut owner = String::new();
        for line in text.lines() {
            for start in ["impl", "pub struct ", "pub enum ", "pub trait "] {
                if line.starts_with(start) {
                    owner = line.trim_end_matches(['{', ' ', ';']).to_owned();
                }
            }
            let Some(item) = declared(line) else { continue };
            let inner = line.starts_with(' ');
            let of = if inner { format!(" [{owner}]") } else { String::new() };
            items.insert(format!("{module}: {item}{of}"));
        }
    }
    items
}

#[test]
fn public_items_are_those_of_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["richsem", "torch-ext"] {
        let crate_folder = folder.join("..").join(name);
        let list = crate_folder.join("public-api.txt");
        let now = items(&crate_folder.join("src"));
        assert!(now.len() > 50, "{name}: {} items: the search is broken", now.len());
        if std::env::var_os("UPDATE").is_some() {
            let text = now.iter().map(|item| format!("{item}\n")).collect::<String>();
            std::fs::write(&list, text).unwrap();
        }
        let text = std::fs::read_to_string(&list).unwrap_or_default();
        let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let mut changes = String::new();
        now.difference(&listed).for_each(|item| writeln!(changes, "+ {item}").unwrap());
        listed.difference(&now).for_each(|item| writeln!(changes, "- {item}").unwrap());
        assert!(
            changes.is_empty(),
            "the public items of {name} are others than its public-api.txt lists:\n{changes}If that is meant: \
             UPDATE=1 cargo test --release --workspace --test public_api, and CHANGELOG.md"
        );
    }
}
