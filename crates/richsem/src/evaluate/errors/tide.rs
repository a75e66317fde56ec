//! TIDE's kinds of errors (arXiv 2008.08115), by tidecv's rules (`verdicts`).

use serde::{Deserialize, Serialize};

/// From this overlap on a box is found.
pub(super) const FOUND: f64 = 0.5;

/// Up to this overlap with every box a detection shows background.
pub(super) const BACKGROUND: f64 = 0.1;

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// Well placed on a box of another class.
    Class,
    /// The right class, an overlap of 0.1 to 0.5 with its box.
    Location,
    /// Another class, an overlap of 0.1 to 0.5.
    Both,
    /// The box is found already, with a better score.
    Duplicate,
    /// An overlap of at most 0.1 with every box.
    Background,
    /// A box that no detection finds, nor would after its class or place is corrected.
    Missed,
}

impl ErrorKind {
    /// All kinds, in the order to be shown.
    pub(super) const ALL: [Self; 6] =
        [Self::Class, Self::Location, Self::Both, Self::Duplicate, Self::Background, Self::Missed];

    /// What it is, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Class => "wrong class",
            Self::Location => "badly placed",
            Self::Both => "wrong class and badly placed",
            Self::Duplicate => "found twice",
            Self::Background => "nothing is there",
            Self::Missed => "not found",
        }
    }
}

/// Errors at IoU 0.50 by kind.
///
/// Only what is judged counts: under LVIS's rules, a detection of a class of which the image says nothing is
/// no error, nor is one that finds nothing where not all of its class are annotated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tide {
    /// AP50, as in the summary.
    pub ap50: f64,
    /// Each kind, in a fixed order.
    pub errors: Vec<TideError>,
    /// What AP50 would gain if no false positive were there.
    pub false_positives: f64,
    /// What AP50 would gain if no box were missed.
    pub false_negatives: f64,
    /// Detections that were judged.
    pub judged: usize,
}

/// Errors of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TideError {
    /// Which kind.
    pub kind: ErrorKind,
    /// What AP50 would gain if these alone were mended, a fraction. Gains do not add up.
    pub delta_ap: f64,
    /// How many there are, over all classes.
    pub count: u64,
}
