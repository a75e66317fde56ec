//! Score thresholds for use: for each class the one with the best F1 on held-out training images, shrunk
//! towards one threshold for all.
//!
//! AP needs no threshold, a user does, and the best one differs between classes: rare classes have low scores.
//! Few boxes, however, tell little about it: with one box, the best F1 is anywhere below that box's score. So a
//! class with n boxes has, in logits,
//!
//! ```text
//! logit(threshold) = w · logit(own) + (1 − w) · logit(global),   w = n / (n + 10)
//! ```
//!
//! `global` has the best F1 of all classes' detections together. With 1 box w is 0.09, with 10 it is 0.5, with
//! 200 it is 0.95. It is the mean under a normal prior that weighs as much as 10 boxes. On drawn classes of 1 to
//! 60 boxes whose scores differ by a standard deviation of 0.3, 0.5 and 0.8 logits, the mean F1 on other images
//! was 0.805, 0.791, 0.754 with 10 boxes; 0.781, 0.785, 0.781 with the own threshold alone; and 0.796, 0.762,
//! 0.684 with `global` alone. Fewer than 10 would be better only where classes differ much. Logits, because
//! scores near 0 and 1 are far apart in them, and a mean stays between 0 and 1.
//!
//! Images that the detector learned from have too high scores: use others, and not those that it is evaluated
//! on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Matches,
    class_matches::{ClassMatches, Outcome},
};
use crate::{
    error::{Error, Result, read_text, write_atomically},
    settings::not_toml,
    vocabulary::{ByName, CategoryId, Match, Vocabulary},
};

/// Boxes of which `global` has the weight.
const PRIOR_BOXES: f64 = 10.0;

/// The format's version.
const VERSION: u32 = 1;

/// Smallest scores at which a detection of each class is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Of the file's format: 1.
    pub version: u32,
    /// For classes that are not listed: the best for all classes together.
    pub global: f64,
    /// In order of ids.
    #[serde(default)]
    pub classes: Vec<ClassThreshold>,
}

/// The threshold of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassThreshold {
    /// Id in the annotation file that it is from.
    pub id: CategoryId,
    /// Name in that file. Names decide which class is meant.
    pub name: String,
    /// Detections with this score or a higher one are used, 0 to 1.
    pub threshold: f64,
    /// Boxes that it rests on. Fewer are nearer to `global`.
    #[serde(default)]
    pub boxes: usize,
    /// The threshold with the best F1 on these boxes alone. None of a class that was never found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<f64>,
}

/// Thresholds of a detector's classes.
#[derive(Debug, Clone, PartialEq)]
pub struct OfVocabulary {
    /// By class index.
    pub of_class: Vec<f64>,
    /// Names of the detector's classes that the file doesn't have: they have `global`.
    pub global: Vec<String>,
    /// Names in the file that the detector doesn't have.
    pub unused: Vec<String>,
}

impl Matches {
    /// The thresholds with the best F1 at IoU 0.50, shrunk. Detections that are not judged don't count.
    ///
    /// # Errors
    /// No box was found, or a score is outside of 0 to 1.
    pub fn thresholds(&self) -> Result<Thresholds> {
        let of_class: Vec<Ranked> = self.classes.iter().map(Ranked::of).collect();
        let all = Ranked::merged(&of_class);
        if let Some(score) = all.scores_outside() {
            let problem = format!("score {score}: thresholds need scores from 0 to 1");
            return Err(Error::other(problem).with_hint("give probabilities, not logits"));
        }
        let global = all.best().ok_or_else(|| {
            Error::other("no detection finds a box at IoU 0.50: there is no threshold to choose")
                .with_hint("use the annotations that these detections were made for")
        })?;
        let classes = self.classes.iter().zip(&of_class).map(|(class, ranked)| {
            let own = ranked.best();
            ClassThreshold {
                id: class.id,
                name: class.name.clone(),
                threshold: own.map_or(global, |own| shrunk(own, global, ranked.boxes)),
                boxes: ranked.boxes,
                own,
            }
        });
        Ok(Thresholds { version: VERSION, global, classes: classes.collect() })
    }
}

/// `own` of that many boxes, moved towards `global`.
fn shrunk(own: f64, global: f64, boxes: usize) -> f64 {
    let weight = boxes as f64 / (boxes as f64 + PRIOR_BOXES);
    let logit = |p: f64| {
        let p = p.clamp(1e-6, 1.0 - 1e-6);
        (p / (1.0 - p)).ln()
    };
    let mean = weight * logit(own) + (1.0 - weight) * logit(global);
    1.0 / (1.0 + (-mean).exp())
}

/// Detections that count at IoU 0.50, best first, and whether each finds a box.
pub(super) struct Ranked {
    pub(super) boxes: usize,
    pub(super) detections: Vec<(f64, bool)>,
}

impl Ranked {
    fn of(class: &ClassMatches) -> Self {
        let outcomes = (0..class.scores.len()).map(|i| (class.scores[i], class.outcome(i, 0, 0)));
        let counted = outcomes.filter(|(_, outcome)| *outcome != Outcome::Ignored);
        Self {
            boxes: class.boxes(0),
            detections: counted.map(|(score, outcome)| (score, outcome == Outcome::Hit)).collect(),
        }
    }

    /// Those of several classes together.
    pub(super) fn of_all<'a>(classes: impl Iterator<Item = &'a ClassMatches>) -> Self {
        Self::merged(&classes.map(Self::of).collect::<Vec<_>>())
    }

    fn merged(classes: &[Self]) -> Self {
        let mut all = Self {
            boxes: classes.iter().map(|class| class.boxes).sum(),
            detections: classes.iter().flat_map(|class| &class.detections).copied().collect(),
        };
        all.detections.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        all
    }

    /// A score that is no probability.
    pub(super) fn scores_outside(&self) -> Option<f64> {
        let scores = self.detections.iter().map(|(score, _)| *score);
        scores.into_iter().find(|score| !(0.0..=1.0).contains(score))
    }

    /// The threshold with the best F1, the higher of equal ones: in the middle between the last score that is
    /// used and the next one. `None` if no box is found.
    pub(super) fn best(&self) -> Option<f64> {
        let (mut hits, mut best) = (0, None::<(f64, f64)>);
        for (i, &(score, hit)) in self.detections.iter().enumerate() {
            hits += usize::from(hit);
            let next = self.detections.get(i + 1).map(|&(next, _)| next);
            if next == Some(score) {
                continue; // a threshold takes all equal scores or none
            }
            let f1 = 2.0 * hits as f64 / (i + 1 + self.boxes) as f64;
            if hits > 0 && best.is_none_or(|(best, _)| f1 > best) {
                best = Some((f1, next.map_or(score, |next| f64::midpoint(score, next))));
            }
        }
        best.map(|(_, threshold)| threshold)
    }
}

impl Thresholds {
    /// Reads a file that [`Self::write`] wrote, or one like it.
    ///
    /// # Errors
    /// Naming file and line or class: no TOML, unknown fields, another version, numbers outside of 0 to 1, a
    /// name twice.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let thresholds: Self = toml::from_str(&text).map_err(|error| {
            not_toml(path, &text, &error).with_hint("`eval --save-thresholds` writes such files")
        })?;
        if thresholds.version != VERSION {
            let problem = format!("{}; expected {VERSION}", thresholds.version);
            return Err(Error::invalid(path, "version", problem));
        }
        let listed =
            thresholds.classes.iter().map(|c| (format!("class `{}`", c.name), c.threshold));
        for (field, value) in [("global".to_owned(), thresholds.global)].into_iter().chain(listed) {
            if !(0.0..=1.0).contains(&value) {
                let problem = format!("{value}; expected a threshold from 0 to 1");
                return Err(Error::invalid(path, field, problem));
            }
        }
        let mut names: Vec<&str> = thresholds.classes.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        let ids_differ = |name: &str| {
            let ids = thresholds.classes.iter().filter(|c| c.name == name).map(|c| c.id);
            let mut ids: Vec<_> = ids.collect();
            ids.sort_unstable();
            ids.windows(2).all(|pair| pair[0] != pair[1])
        };
        if let Some(pair) = names.windows(2).find(|p| p[0] == p[1] && !ids_differ(p[0])) {
            let field = format!("class `{}`", pair[0]);
            return Err(Error::invalid(path, field, "listed twice with the same id"));
        }
        Ok(thresholds)
    }

    /// Writes the file, as TOML. It is either wholly there or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self)
            .map_err(|error| Error::invalid(path, "thresholds", error.to_string()))?;
        let head = "# Smallest scores at which detections are used: best F1 at IoU 0.50, shrunk towards \
                    `global`\n# for classes with few boxes. For `richsem predict --thresholds`.\n";
        write_atomically(path, |out| {
            out.write_all(head.as_bytes())?;
            Ok(out.write_all(text.as_bytes())?)
        })
    }

    /// The thresholds of a detector's classes, found by name (case, `_` and `-` do not matter); if several classes
    /// have the name, by id too.
    #[must_use]
    pub fn of(&self, vocabulary: &Vocabulary) -> OfVocabulary {
        let listed = ByName::of(self.classes.iter().map(|listed| listed.name.as_str()));
        let mut used = vec![false; self.classes.len()];
        let mut result = OfVocabulary { of_class: vec![], global: vec![], unused: vec![] };
        let matches = listed.match_all(vocabulary.names());
        for (category, found) in vocabulary.categories().iter().zip(matches) {
            let place = match found {
                Match::None => None,
                Match::One(place) => Some(place),
                Match::Unclear(places) => {
                    places.into_iter().find(|&place| self.classes[place].id == category.id)
                }
            };
            match place {
                Some(place) => {
                    used[place] = true;
                    result.of_class.push(self.classes[place].threshold);
                }
                None => {
                    result.of_class.push(self.global);
                    result.global.push(category.name.clone());
                }
            }
        }
        let unused = self.classes.iter().zip(used).filter(|(_, used)| !used);
        result.unused = unused.map(|(listed, _)| listed.name.clone()).collect();
        result
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "thresholds_tests.rs"]
mod tests;
