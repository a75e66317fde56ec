//! What functions are asked for, as messages name it.

use std::{fmt, sync::OnceLock};

/// What a function is asked for, apart from the settings of a config. In a message it has the name of the
/// function's argument or field, as `` `annotations` ``; a program whose users give it in another way says
/// how, by [`set_words`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Argument {
    /// Patterns of parameters that may be missing in the weights a run starts from.
    AllowMissing,
    /// The annotation file.
    Annotations,
    /// What the numbers of a set's boxes are.
    Boxes,
    /// A CLIP's weights.
    Clip,
    /// A results file.
    Detections,
    /// The format of a set of annotations.
    Format,
    /// The folder or archive of a set's images.
    Images,
    /// Weights that a run starts from.
    Init,
    /// The part of a file that is meant, by the beginning of its tensors' names.
    Key,
    /// The variants of a study.
    Only,
    /// Whether images are turned as their EXIF orientation says.
    Orientation,
    /// The folder that is written to.
    Out,
    /// Whether files that are there may be replaced.
    Overwrite,
    /// What becomes of the images of a set that is written.
    PutImages,
    /// What an earlier conversion left out.
    Rest,
    /// The run to go on with.
    Resume,
    /// The folder of a new run.
    Run,
    /// The seeds of a study.
    Seeds,
    /// Settings, as `key=value`.
    Set,
    /// The part of a set, as `train`.
    Split,
    /// A list of the classes to read.
    Vocabulary,
}

impl Argument {
    /// Its name in the library, as `allow_missing`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllowMissing => "allow_missing",
            Self::Annotations => "annotations",
            Self::Boxes => "boxes",
            Self::Clip => "clip",
            Self::Detections => "detections",
            Self::Format => "format",
            Self::Images => "images",
            Self::Init => "init",
            Self::Key => "key",
            Self::Only => "only",
            Self::Orientation => "orientation",
            Self::Out => "out",
            Self::Overwrite => "overwrite",
            Self::PutImages => "put_images",
            Self::Rest => "rest",
            Self::Resume => "resume",
            Self::Run => "run",
            Self::Seeds => "seeds",
            Self::Set => "set",
            Self::Split => "split",
            Self::Vocabulary => "vocabulary",
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WORDS.get() {
            Some(words) => f.write_str(&words(*self)),
            None => write!(f, "`{}`", self.name()),
        }
    }
}

static WORDS: OnceLock<fn(Argument) -> String> = OnceLock::new();

/// How this program's users give arguments, for all messages from now on: once, when it starts. Later
/// calls change nothing.
pub fn set_words(words: fn(Argument) -> String) {
    let _ = WORDS.set(words);
}
