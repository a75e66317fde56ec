//! The smallest scores at which boxes are used.

use richsem::{evaluate::Thresholds, models::scored_box::ScoredBox, vocabulary::Vocabulary};

use crate::output;

/// The smallest score of each class.
pub(crate) struct Least {
    /// By class index.
    of_class: Vec<f64>,
    /// What they are, for messages.
    pub(crate) name: String,
}

impl Least {
    /// Those of the thresholds, or `conf` for all classes. Tells which classes only one of file and detector
    /// has.
    pub(crate) fn of(conf: f32, thresholds: Option<&Thresholds>, classes: &Vocabulary) -> Self {
        let Some(thresholds) = thresholds else {
            let of_class = vec![f64::from(conf); classes.len()];
            return Self { of_class, name: conf.to_string() };
        };
        let found = thresholds.of(classes);
        for (names, what) in [
            (&found.global, "classes of the detector are not in the file and have its global one"),
            (&found.unused, "classes of the file are not the detector's"),
        ] {
            if let Some(first) = names.first() {
                output::note(format!("--thresholds: {} {what} (`{first}`, …)", names.len()));
            }
        }
        Self { of_class: found.of_class, name: "its class's threshold".to_owned() }
    }

    /// Whether a box is used.
    pub(crate) fn keeps(&self, found: &ScoredBox) -> bool {
        let least = self.of_class.get(found.class.0 as usize);
        least.is_some_and(|&least| f64::from(found.score) >= least)
    }
}
