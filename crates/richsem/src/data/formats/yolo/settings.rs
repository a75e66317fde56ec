//! `data.yaml`: which classes there are, and where the images of each split are.

use std::path::{Path, PathBuf};

use super::{
    files,
    files::Files,
    places::{LabelRule, tidy},
    yaml::{self, Node, Value},
};
use crate::error::{Error, Result, first_few};

/// Keys that name a part of the set.
pub(super) const SPLITS: [&str; 6] = ["train", "val", "validation", "valid", "test", "minival"];

/// What the file says.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) file: PathBuf,
    /// The folder that paths are relative to, absolute.
    pub(super) root: PathBuf,
    pub(super) rule: LabelRule,
    pub(super) names: Vec<String>,
    /// Numbers of keypoints after each box (`kpt_shape`).
    pub(super) keypoints: Option<usize>,
    /// The parts of the set, and where the images of each are, as written.
    pub(super) splits: Vec<(&'static str, Vec<Written>)>,
    /// What a user should know.
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// A path as it is written, with its line; 0 where it was found and not written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    pub(super) line: usize,
    pub(super) path: String,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that cannot be read or is no YAML, or has no splits or classes.
    pub(super) fn read(file: &Path, files: &Files) -> Result<Self> {
        let root = yaml::parse(file, &files.text(file)?)?;
        let Value::Map(entries) = &root.value else {
            let problem = format!("expected keys and values, got {}", root.describe());
            return Err(Error::invalid(file, format!("line {}", root.line), problem)
                .with_hint("data.yaml has `train`, `val` and `names`"));
        };
        let mut keys = Keys { file, entries, warnings: Vec::new() };
        let names = keys.names()?;
        let splits = keys.splits()?;
        let keypoints = keys.keypoints()?;
        let (root, notes) = keys.root(files)?;
        let warnings = keys.warnings;
        let rule = LabelRule::Ultralytics;
        Ok(Self { file: file.to_owned(), root, rule, names, keypoints, splits, notes, warnings })
    }
}

struct Keys<'a> {
    file: &'a Path,
    entries: &'a [(Node, Node)],
    warnings: Vec<String>,
}

impl<'a> Keys<'a> {
    /// The value of a key; none if it has none or is left empty.
    fn get(&mut self, key: &str) -> Option<&'a Node> {
        let mut all = self.entries.iter().filter(|(found, _)| found.text() == Some(key));
        let (_, last) = all.next_back()?;
        let earlier = all.count();
        if earlier > 0 {
            self.warnings.push(format!(
                "`{key}` is there {} times in {}: the last one (line {}) counts",
                earlier + 1,
                self.file.display(),
                last.line
            ));
        }
        (!last.is_null()).then_some(last)
    }

    fn names(&mut self) -> Result<Vec<String>> {
        let (names, count) = (self.get("names"), self.get("nc"));
        let count = match count {
            Some(node) => Some((node.line, self.whole(node, "nc")?)),
            None => None,
        };
        let Some(node) = names else {
            let Some((line, count)) = count else {
                return Err(Error::invalid(self.file, "names", "missing").with_hint(
                    "list the classes in the order of their indices, as `names: [cat, dog]`",
                ));
            };
            if count == 0 || count > MOST_CLASSES {
                let problem = format!("expected 1 to {MOST_CLASSES} classes, got {count}");
                return Err(self.wrong(line, "nc", problem));
            }
            self.warnings.push(format!(
                "{} has `nc` and no `names`: the classes are called `class_0`, `class_1`, …, which no \
                 text prompt and no mapping by name understands",
                self.file.display()
            ));
            return Ok((0..count).map(|i| format!("class_{i}")).collect());
        };
        let names = match &node.value {
            Value::List(items) => {
                items.iter().map(|item| self.name(item)).collect::<Result<_>>()?
            }
            Value::Map(entries) => self.numbered(node.line, entries)?,
            Value::Scalar { .. } => {
                let problem = format!(
                    "expected a list of classes, or a mapping from index to class, got {}",
                    node.describe()
                );
                return Err(self.wrong(node.line, "names", problem));
            }
        };
        if names.is_empty() {
            return Err(self.wrong(node.line, "names", "the list is empty"));
        }
        match count {
            Some((line, count)) if count != names.len() => {
                let problem = format!("{count}, but `names` has {} classes", names.len());
                Err(self.wrong(line, "nc", problem).with_hint("correct one of the two"))
            }
            _ => Ok(names),
        }
    }

    fn name(&self, node: &Node) -> Result<String> {
        match node.written() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            _ => {
                let problem = format!("expected the name of a class, got {}", node.describe());
                Err(self.wrong(node.line, "names", problem))
            }
        }
    }

    /// `{0: cat, 1: dog}`, in any order, without holes.
    fn numbered(&self, line: usize, entries: &[(Node, Node)]) -> Result<Vec<String>> {
        let mut names = vec![None; entries.len()];
        for (key, value) in entries {
            let index = self.whole(key, "names")?;
            let Some(place) = names.get_mut(index) else {
                let problem = format!(
                    "expected indices from 0 to {} without holes, got {index}",
                    entries.len() - 1
                );
                return Err(self.wrong(key.line, "names", problem).with_hint(
                    "number the classes without holes, and the labels with them; a class without \
                     boxes may stay",
                ));
            };
            if place.is_some() {
                let problem = format!("the index {index} is there twice");
                return Err(self.wrong(key.line, "names", problem));
            }
            *place = Some(self.name(value)?);
        }
        let all: Option<Vec<String>> = names.into_iter().collect();
        all.ok_or_else(|| self.wrong(line, "names", "an index is missing"))
    }

    fn splits(&mut self) -> Result<Vec<(&'static str, Vec<Written>)>> {
        let mut splits = Vec::new();
        for key in SPLITS {
            let Some(node) = self.get(key) else { continue };
            let parts = match &node.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            let written = parts.iter().map(|part| match part.text() {
                Some(path) if !part.is_null() && !path.is_empty() => {
                    Ok(Written { line: part.line, path: tidy(path) })
                }
                _ => {
                    let problem = format!("expected a path, got {}", part.describe());
                    Err(self.wrong(part.line, key, problem).with_hint(
                        "give a folder of images, a file that lists images, or a list of these",
                    ))
                }
            });
            let written = written.collect::<Result<Vec<_>>>()?;
            if !written.is_empty() {
                splits.push((key, written));
            }
        }
        if splits.is_empty() {
            return Err(Error::invalid(self.file, "train", "missing").with_hint(
                "say where the images are: `train: images/train`, `val: images/val`, relative to \
                 `path` or to the file",
            ));
        }
        Ok(splits)
    }

    /// Numbers of keypoints in a row: `kpt_shape: [17, 3]`.
    fn keypoints(&mut self) -> Result<Option<usize>> {
        let Some(node) = self.get("kpt_shape") else { return Ok(None) };
        if let Value::List(items) = &node.value
            && let [count, each] = items.as_slice()
        {
            let (count, each) = (self.whole(count, "kpt_shape")?, self.whole(each, "kpt_shape")?);
            let numbers = count.checked_mul(each).filter(|numbers| *numbers <= MOST_NUMBERS);
            return numbers.map(Some).ok_or_else(|| {
                let problem =
                    format!("expected {MOST_NUMBERS} numbers a box at most, got {count} x {each}");
                self.wrong(node.line, "kpt_shape", problem)
            });
        }
        let problem = format!("expected two numbers, as [17, 3], got {}", node.describe());
        Err(self.wrong(node.line, "kpt_shape", problem))
    }

    /// The folder that paths are relative to: `path`, or the file's.
    fn root(&mut self, files: &Files) -> Result<(PathBuf, Vec<String>)> {
        let own = files::absolute(self.file.parent().unwrap_or(Path::new("")))?;
        let Some(node) = self.get("path") else { return Ok((own, Vec::new())) };
        let Some(path) = node.text() else {
            let problem = format!("expected a folder, got {}", node.describe());
            return Err(self.wrong(node.line, "path", problem));
        };
        let path = tidy(path);
        for near in [own.join(&path), files::absolute(Path::new(&path))?] {
            if files.is_dir(&near) {
                return Ok((files::normal(&near), Vec::new()));
            }
        }
        let note = format!(
            "there is no folder `{path}` (`path` in {}): paths are taken relative to the file",
            self.file.display()
        );
        Ok((own, vec![note]))
    }

    fn whole(&self, node: &Node, key: &str) -> Result<usize> {
        node.text().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let problem = format!("expected a whole number, got {}", node.describe());
            self.wrong(node.line, key, problem)
        })
    }

    fn wrong(&self, line: usize, key: &str, problem: impl Into<String>) -> Error {
        Error::invalid(self.file, format!("line {line}: {key}"), problem)
    }
}

/// Most numbers of keypoints in a row of a label: more is a slip of the keyboard.
const MOST_NUMBERS: usize = 100_000;

/// Most classes of a set without names: more is a slip of the keyboard.
const MOST_CLASSES: usize = 1_000_000;

impl Settings {
    /// The paths of a split.
    pub(super) fn split(&self, name: &str) -> Result<(&'static str, &[Written])> {
        let found = self.splits.iter().find(|(split, _)| *split == name);
        found.map(|(split, paths)| (*split, paths.as_slice())).ok_or_else(|| {
            let all = first_few(self.splits.iter().map(|(split, _)| format!("`{split}`")));
            Error::invalid(&self.file, name, "missing").with_hint(format!("there is {all}"))
        })
    }
}
