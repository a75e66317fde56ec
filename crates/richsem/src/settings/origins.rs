//! Which file said what: the one that an error is of.

use std::path::Path;

use super::layers::{Merged, outside};
use crate::error::Error;

impl Merged {
    /// The file that said this key, or the nearest table above it.
    pub(super) fn origin(&self, key: &str) -> &Path {
        let mut key = key;
        loop {
            if let Some(file) = self.origins.get(key) {
                return file;
            }
            match key.rsplit_once('.') {
                Some((parent, _)) => key = parent,
                None => return &self.main,
            }
        }
    }

    /// Adds the file to an error about a key. Where two keys do not go together, and a file that is extended
    /// says the one, it is the file that says the other.
    pub(super) fn locate(&self, error: Error) -> Error {
        let Error::Config { key, problem, hint } = error else { return error };
        let from = self.origin(&key);
        let other = match self.is_extended(from) {
            true => {
                self.named_in(&problem, &key).find(|other| !self.is_extended(self.origin(other)))
            }
            false => None,
        };
        let (file, hint) = match other {
            Some(other) => {
                let said = format!("`{other}` is said here, `{key}` in {}", from.display());
                (self.origin(&other), Some(hint.unwrap_or(said)))
            }
            None => (from, hint),
        };
        Error::Invalid { file: file.to_owned(), field: key, problem, hint }
    }

    /// Whether a file is one that the main file extends, and not the file or the command line.
    fn is_extended(&self, file: &Path) -> bool {
        file != self.main && file != outside()
    }

    /// The keys that a problem of `key` names, whole or as neighbours of it or of the tables around it.
    fn named_in<'a>(&'a self, problem: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
        let words = problem.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        words.map(|word| word.trim_matches('.')).filter(|word| !word.is_empty()).filter_map(
            move |word| {
                let around = std::iter::successors(Some(key), |key| Some(key.rsplit_once('.')?.0));
                let neighbours =
                    around.filter_map(|key| Some(format!("{}.{word}", key.rsplit_once('.')?.0)));
                let mut candidates = neighbours.chain([word.to_owned()]);
                candidates
                    .find(|candidate| candidate != key && self.origins.contains_key(candidate))
            },
        )
    }
}
