//! How tensors by name fit a model's parameters: every difference, and which of them are allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use tch::Tensor;

use crate::{
    error::{Error, Result},
    models::parameters::ParameterStore,
};

/// Names that may differ: globs (`class_embed.*`; `*` is any text, dots too).
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<glob::Pattern>);

impl Patterns {
    /// Reads patterns; `key` is the setting or flag that they come from.
    ///
    /// # Errors
    /// One that is no glob.
    pub fn new(texts: &[impl AsRef<str>], key: &str) -> Result<Self> {
        let pattern = |text: &str| {
            glob::Pattern::new(text).map_err(|e| {
                Error::config(key, format!("`{text}` is no pattern: {e}"))
                    .with_hint("for example \"class_embed.*\": * is any text, dots too")
            })
        };
        Ok(Self(texts.iter().map(|t| pattern(t.as_ref())).collect::<Result<_>>()?))
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// A difference between a file's values and a model's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// A parameter of ours that the values lack.
    Missing(String),
    /// A value whose name no parameter of ours has.
    Unexpected(String),
    /// A parameter that has another shape in the file.
    Shape {
        /// The parameter's name, the same in the file and here.
        name: String,
        /// The value's shape in the file.
        from: Vec<i64>,
        /// The parameter's shape in the model.
        to: Vec<i64>,
    },
}

impl Mismatch {
    /// The name it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Missing(name) | Self::Unexpected(name) | Self::Shape { name, .. } => name,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "missing {name}"),
            Self::Unexpected(name) => write!(f, "unexpected {name}"),
            Self::Shape { name, from, to } => {
                write!(f, "{name}: shape {from:?} in the file, {to:?} here")
            }
        }
    }
}

/// All differences between values and a model's parameters.
#[derive(Debug, Clone, Default)]
pub struct Fit {
    /// Those that are not allowed.
    pub mismatches: Vec<Mismatch>,
    /// Those that are: missing and misshapen parameters keep their initial values.
    pub allowed: Vec<Mismatch>,
}

impl Fit {
    /// Compares the names and shapes of values with those of a model's parameters.
    #[must_use]
    pub fn of(
        store: &ParameterStore,
        values: &BTreeMap<String, Tensor>,
        patterns: &Patterns,
    ) -> Self {
        let own = store.named_tensors();
        let mut all = Vec::new();
        for (name, tensor) in &own {
            match values.get(name) {
                None => all.push(Mismatch::Missing(name.clone())),
                Some(value) if value.size() != tensor.size() => all.push(Mismatch::Shape {
                    name: name.clone(),
                    from: value.size(),
                    to: tensor.size(),
                }),
                Some(_) => {}
            }
        }
        let unexpected = values.keys().filter(|name| !own.contains_key(*name)).cloned();
        all.extend(unexpected.map(Mismatch::Unexpected));
        let (allowed, mismatches) = all.into_iter().partition(|m| patterns.allow(m.name()));
        Self { mismatches, allowed }
    }

    /// Every difference that is not allowed, in one message.
    ///
    /// # Errors
    /// If there is one.
    pub fn check(&self, path: &Path, hint: &str) -> Result<()> {
        if self.mismatches.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = self.mismatches.iter().map(|m| format!("\n  {m}")).collect();
        let count = lines.len();
        let problem = format!("{count} of the model's parameters differ:{}", lines.concat());
        Err(Error::invalid(path, "weights", problem).with_hint(hint))
    }

    /// Copies what fits; the rest of the model stays as it is.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn load(
        &self,
        store: &ParameterStore,
        values: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<()> {
        let apart: BTreeSet<&str> =
            self.mismatches.iter().chain(&self.allowed).map(Mismatch::name).collect();
        let mut all = store.named_tensors();
        for (name, value) in &mut all {
            if let Some(given) = values.get(name).filter(|_| !apart.contains(name.as_str())) {
                *value = given.shallow_clone();
            }
        }
        store.load(&all, path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::models::parameters::Init;
    use tch::{Device, Kind};

    #[test]
    fn every_difference_is_listed_and_patterns_allow_it() {
        let store = ParameterStore::new(Device::Cpu, 0);
        for name in ["head.weight", "head.bias", "body.weight"] {
            let _ = store.root().parameter(name, &[2], Init::Constant(1.0));
        }
        let zeros = |n: i64| Tensor::zeros([n], (Kind::Float, Device::Cpu));
        let values = BTreeMap::from([
            ("head.weight".to_owned(), zeros(3)),
            ("body.weight".to_owned(), zeros(2)),
            ("other.weight".to_owned(), zeros(2)),
        ]);
        let strict = Fit::of(&store, &values, &Patterns::default());
        let message = strict.check("w.pth".as_ref(), "a hint").unwrap_err().to_string();
        for part in [
            "w.pth: weights: 3 of",
            "missing head.bias",
            "head.weight: shape [3] in the file, [2] here",
            "unexpected other.weight",
            "a hint",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let patterns = Patterns::new(&["head.*", "other*"], "init.allow_missing").unwrap();
        let fit = Fit::of(&store, &values, &patterns);
        fit.check("w.pth".as_ref(), "").unwrap();
        assert_eq!(fit.allowed.len(), 3);
        fit.load(&store, &values, "w.pth".as_ref()).unwrap();
        let loaded = store.named_tensors();
        assert_eq!(loaded["body.weight"].double_value(&[0]), 0.0);
        assert_eq!(loaded["head.weight"].double_value(&[0]), 1.0, "initial");
        let error = Patterns::new(&["[a"], "init.allow_missing").unwrap_err().to_string();
        assert!(error.contains("init.allow_missing: `[a` is no pattern"), "{error}");
    }
}
