//! What is meant where a value is nearly what is expected: a known word in another case (`AdamW`), and, in an
//! assignment, one value in the place of a list of one.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    keys::at,
    layers::{Merged, outside},
    words::unknown_name,
};

/// Values that are changed, at most.
const MOST: usize = 32;

impl Merged {
    /// The same settings with such values as they are meant; none where there are none.
    pub(super) fn forgiven<T: DeserializeOwned>(&self) -> Option<Self> {
        let mut other: Option<Self> = None;
        for _ in 0..MOST {
            let now = other.as_ref().unwrap_or(self);
            match now.next_forgiven::<T>() {
                Some(next) => other = Some(next),
                None => break,
            }
        }
        other
    }

    /// The first value at fault changed, if it is known what is meant.
    fn next_forgiven<T: DeserializeOwned>(&self) -> Option<Self> {
        let read = serde_path_to_error::deserialize::<_, T>(Value::Table(self.table.clone()));
        let error = read.err()?;
        let message = error.inner().to_string();
        let message = message.trim().lines().next().unwrap_or_default();
        let whole = error.path().to_string();
        let key = self.innermost::<T>(whole, message);
        let is_assigned = self.origin(&key) == outside();
        let meant = |value: &Value| -> Option<Value> {
            if let Some((_, known)) = unknown_name(message, "variant") {
                return in_any_case(value, &known);
            }
            let list = message.starts_with("invalid type: ") && message.ends_with("a sequence");
            (list && is_assigned).then(|| list_of(value))?
        };
        let mut other = self.clone();
        let mut is_changed = false;
        at(&mut other.table, &key, &mut |value| {
            if let Some(meant) = meant(value) {
                *value = meant;
                is_changed = true;
            }
        });
        is_changed.then_some(other)
    }
}

/// The one known word that differs in case, dashes and underscores alone.
fn in_any_case(value: &Value, known: &[&str]) -> Option<Value> {
    let plain = |word: &str| word.to_lowercase().replace(['-', '_'], "");
    let word = value.as_str()?;
    let mut same = known.iter().filter(|known| plain(known) == plain(word));
    match (same.next(), same.next()) {
        (Some(known), None) if *known != word => Some(Value::String((*known).to_owned())),
        _ => None,
    }
}

/// `[1]` of `1`, and `[27, 33]` of `27,33`.
fn list_of(value: &Value) -> Option<Value> {
    match value {
        Value::Table(_) | Value::Array(_) => None,
        Value::String(text) => {
            let list = format!("v = [{text}]").parse::<Table>().ok();
            let list = list.and_then(|mut table| table.remove("v"));
            Some(list.unwrap_or_else(|| Value::Array(vec![value.clone()])))
        }
        value => Some(Value::Array(vec![value.clone()])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::{Config, OptimizerKind};

    fn with(assignments: &[&str]) -> crate::Result<Config> {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        Config::load_preset("tiny", &assignments)
    }

    #[test]
    fn known_words_are_taken_in_any_case_and_one_value_for_a_list_of_one() {
        let config = with(&["train.optimizer=SGD", "train.lr_drop=1"]).unwrap();
        assert_eq!(config.train.optimizer, OptimizerKind::Sgd);
        assert_eq!(&*config.train.lr_drop, [1]);
        let config = with(&["train.optimizer=AdamW", "train.lr_drop=4,9"]).unwrap();
        assert_eq!(config.train.optimizer, OptimizerKind::Adamw);
        assert_eq!(&*config.train.lr_drop, [4, 9]);
        let config = with(&["train.precision=BF16", "data.augment.scales=192"]).unwrap();
        assert_eq!(&*config.data.augment.scales, [192]);
        let config = with(&["model.dino.backbone.norm=GroupNorm"]).unwrap();
        assert!(config.model.backbone().describe().contains("group_norm"));
    }

    #[test]
    fn what_is_not_meant_is_refused_as_it_was_typed() {
        for (assignment, says) in [
            ("train.optimizer=adam", "adam"),
            ("train.lr_drop=soon", "soon"),
            ("train.lr_drop={}", "a table"),
            ("train.optimizer=3", "known words"),
        ] {
            let error = with(&[assignment]).unwrap_err().to_string();
            assert!(error.contains(says), "{assignment}: {error}");
        }
        // A file says lists as lists.
        let text = "version = 1\n[train]\nlr_drop = 3\n";
        let error = Config::parse(text, std::path::Path::new("a.toml")).unwrap_err().to_string();
        assert!(error.contains("expected a list"), "{error}");
    }
}
