//! The smallest scores at which boxes are used.

use richsem::{
    evaluate::Thresholds, models::scored_box::ScoredBox, plural::counted, vocabulary::Vocabulary,
};

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
        for (names, of, what) in [
            (
                &found.global,
                "of the detector",
                [
                    "is not in the file and has its global one",
                    "are not in the file and have its global one",
                ],
            ),
            (
                &found.unused,
                "of the file",
                ["is not one of the detector's", "are not the detector's"],
            ),
        ] {
            if let Some(first) = names.first() {
                let several = names.len() > 1;
                let more = if several { ", …" } else { "" };
                output::note(format!(
                    "--thresholds: {} {of} {} (`{first}`{more})",
                    counted(names.len(), "class"),
                    what[usize::from(several)]
                ));
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
