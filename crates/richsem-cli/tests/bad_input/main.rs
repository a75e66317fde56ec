//! Wrong input of every kind, given to the real binary: it ends with the documented code, says
//! which file, which field and what to do, and leaves every file as it was.
#![allow(clippy::unwrap_used)]

mod annotations;
mod configs;
mod conversions;
mod detections;
mod images;
mod places;
mod runs;
mod stored_batches;
#[path = "../util/mod.rs"]
mod util;
mod weights;

use std::{collections::BTreeMap, path::Path};

use util::{Dir, Ran, TestCommand};

/// One wrong input: its name, the arguments that give it, and what must be said.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Every one of these is [`refused`] with exit code 1.
#[track_caller]
fn all_refused(dir: &Dir, cases: &[Case]) {
    for (name, args, says) in cases {
        refused(dir, name, dir.command(args), 1, says);
    }
}

/// The command fails with this code, says all of this, and leaves every file as it was.
#[track_caller]
fn refused(dir: &Dir, name: &str, command: TestCommand, code: i32, says: &[&str]) -> Ran {
    let before = contents(dir);
    let ran = command.fails(code);
    for text in says {
        assert!(ran.stderr.contains(text), "{name}: no `{text}` in stderr:\n{ran:?}");
    }
    assert_same(name, &before, &contents(dir));
    ran
}

/// Names the first difference, not megabytes of weights.
#[track_caller]
fn assert_same(name: &str, before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    for path in before.keys().chain(after.keys()) {
        assert!(before.get(path) == after.get(path), "{name}: `{path}` was written or removed");
    }
}

/// Everything below the folder: files with their bytes, links with their targets, folders.
fn contents(dir: &Dir) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                all.insert(name, target.to_str().unwrap().as_bytes().to_vec());
            } else if path.is_dir() {
                all.insert(format!("{name}/"), Vec::new());
                walk(root, &path, all);
            } else {
                all.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    let root = dir.path("");
    walk(&root, &root, &mut all);
    all
}
