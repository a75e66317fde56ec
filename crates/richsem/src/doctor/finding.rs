//! What is found: how bad, how often, where first, and what to do.

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Training or its metrics go wrong by it.
    Problem,
    /// It may be a mistake: somebody should look.
    Look,
    /// A fact that one should know.
    Note,
}

impl Level {
    /// Its name, as `problem`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Look => "look",
            Self::Note => "note",
        }
    }
}

/// Something found in the data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of finding this is, for programs: `copies_between_parts`. It stays the same.
    pub code: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Where: the name of a part, as `train`, or of two, as `train, val`.
    pub part: String,
    /// How many there are.
    pub count: usize,
    /// What it is, in words, with the count.
    pub text: String,
    /// What to do; empty where nothing need be done.
    pub advice: String,
    /// The first of them, or the worst.
    pub examples: Vec<Example>,
}

impl Finding {
    /// A finding without advice and examples.
    pub(super) fn new(
        code: &'static str,
        level: Level,
        part: impl Into<String>,
        count: usize,
        text: impl Into<String>,
    ) -> Self {
        Self {
            code,
            level,
            part: part.into(),
            count,
            text: text.into(),
            advice: String::new(),
            examples: Vec::new(),
        }
    }

    /// Adds what to do.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Adds examples.
    pub(super) fn with(mut self, examples: Vec<Example>) -> Self {
        self.examples = examples;
        self
    }
}

/// One case of a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// What it is, in words.
    pub text: String,
    /// The images that show it, one or two.
    pub shown: Vec<Shown>,
}

/// An image of an example, and what is marked in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Position of its part among those examined.
    pub part: usize,
    /// Its file, as the annotations name it.
    pub file: String,
    /// Boxes to look at.
    pub boxes: Vec<Marked>,
}

/// A box of an example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Marked {
    /// `[x, y, width, height]` in pixels of the image.
    pub bbox: [f64; 4],
    /// Its class, and where it is from: `mug`, `detected: cup`.
    pub label: String,
    /// Id of its class.
    pub category_id: i64,
    /// Score of a detection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// `a file`, or `3 files`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

/// A share of a whole in percent, `12.3 %`.
pub(super) fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
