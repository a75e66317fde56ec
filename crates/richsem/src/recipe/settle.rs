//! One value a setting, where the weights and the set's numbers want different ones.

use toml::Value;

use super::{Advice, Beginning, Choice};

/// The choices so far, each key once, and what was not followed.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) choices: Vec<Choice>,
    pub(super) left_out: Vec<Choice>,
}

impl Settled {
    /// Adds choices, each in place of an earlier one of its key. `whose` says whose that one was; where it is not
    /// empty, the reason tells the value that it replaces.
    pub(super) fn put(&mut self, choices: impl IntoIterator<Item = Choice>, whose: &str) {
        for mut choice in choices {
            let at = self.choices.iter().position(|other| overlap(&other.key, &choice.key));
            let Some(at) = at else {
                self.choices.push(choice);
                continue;
            };
            let old = std::mem::replace(&mut self.choices[at], choice.clone());
            if !whose.is_empty() && old.value != choice.value {
                let told = format!("in place of {}, {whose}", old.value);
                choice.why =
                    if choice.why.is_empty() { told } else { format!("{}; {told}", choice.why) };
            }
            self.choices[at] = choice;
            // A section may take the place of several of its keys.
            let mut place = 0..;
            let key = self.choices[at].key.clone();
            self.choices.retain(|other| place.next() == Some(at) || !overlap(&other.key, &key));
        }
    }

    /// Follows what the set's numbers say, but where the network of a whole detector would be another one: its
    /// weights would not fit.
    pub(super) fn follow(&mut self, advice: &[Advice], beginning: &Beginning) {
        let is_whole = matches!(beginning, Beginning::Detector { .. } | Beginning::Official { .. });
        for advice in advice {
            let (Some(value), false) = (&advice.value, advice.key.is_empty()) else { continue };
            let why = format!("{} ({})", advice.why, advice.source);
            let wanted = Choice { key: advice.key.clone(), value: value.clone(), why };
            if is_whole && wanted.key.starts_with("model.") {
                self.left_out.push(wanted);
            } else {
                self.put(leaves(wanted), "the weights' own");
            }
        }
    }
}

/// Whether two keys are one, or one is a section that holds the other.
fn overlap(a: &str, b: &str) -> bool {
    let holds = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    holds(a, b) || holds(b, a)
}

/// The settings of a section one by one. Sections of a kind stay whole: their keys depend on it.
fn leaves(choice: Choice) -> Vec<Choice> {
    let Value::Table(table) = &choice.value else { return vec![choice] };
    if table.contains_key("kind") || table.is_empty() {
        return vec![choice];
    }
    let mut why = choice.why.clone();
    let leaf = |(name, value): (&String, &Value)| Choice {
        key: format!("{}.{name}", choice.key),
        value: value.clone(),
        why: std::mem::take(&mut why),
    };
    table.iter().map(leaf).collect()
}
