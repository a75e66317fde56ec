//! What a teacher was made for: the sizes of objects and the prompts that it was trained with. A teacher that
//! `richsem pretrain-teacher` wrote says it in its file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint_io::{safetensors::Metadata, weight_names},
    error::{Error, Result},
};

/// The key in a safetensors file's metadata.
const KEY: &str = "richsem.teacher";

/// What a teacher was trained with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MadeFor {
    /// Sides of the squares that objects were shown at, in pixels; empty if it is not known.
    pub(crate) sides: Vec<i64>,
    /// Prompts that its captions read like, with `{}` for the class name; none if they have none in common.
    pub(crate) templates: Vec<String>,
}

impl MadeFor {
    /// What a file of weights says; nothing of most.
    ///
    /// # Errors
    /// A file that cannot be read; a record that is damaged.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let (_, metadata) = weight_names(path)?;
        metadata.get(KEY).map_or_else(
            || Ok(Self::default()),
            |text| {
                serde_json::from_str(text)
                    .map_err(|error| Error::invalid(path, KEY, error.to_string()))
            },
        )
    }

    /// As metadata of a file.
    pub(crate) fn metadata(&self) -> Metadata {
        let text = serde_json::to_string(self).expect("numbers and strings are JSON");
        Metadata::from([(KEY.to_owned(), text)])
    }

    /// In words; none where nothing is known.
    pub(crate) fn describe(&self) -> Option<String> {
        let (least, most) = (self.sides.iter().min()?, self.sides.iter().max()?);
        let prompts = match &*self.templates {
            [] => String::new(),
            templates => format!(", with the prompt `{}`", templates.join("`, `")),
        };
        Some(format!("made for objects of {least} to {most} pixels{prompts}"))
    }
}

/// The words that all captions begin and end with, as a prompt; none if they have none in common.
pub(crate) fn common_prompt<'a>(mut captions: impl Iterator<Item = &'a str>) -> Option<String> {
    let first = captions.next()?;
    let (mut before, mut after) = (first, first);
    let mut shortest = first.len();
    for caption in captions {
        let same = before.char_indices().zip(caption.chars());
        let end = same.take_while(|((_, a), b)| a == b).last();
        before = &before[..end.map_or(0, |((at, c), _)| at + c.len_utf8())];
        let same = after.char_indices().rev().zip(caption.chars().rev());
        let start = same.take_while(|((_, a), b)| a == b).last();
        after = &after[start.map_or(after.len(), |((at, _), _)| at)..];
        shortest = shortest.min(caption.len());
    }
    // Whole words: `a photo of a c` is no beginning.
    let before = before.rfind(' ').map_or("", |at| &before[..=at]);
    let is_end = |c: char| c == ' ' || c.is_ascii_punctuation();
    let after = after.find(is_end).map_or("", |at| &after[at..]);
    let is_prompt = !before.is_empty() && before.len() + after.len() < shortest;
    is_prompt.then(|| format!("{before}{{}}{after}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn captions_that_read_alike_give_their_prompt() {
        let prompt = |captions: &[&str]| common_prompt(captions.iter().copied());
        let alike = ["a picture of a cat.", "a picture of a cow.", "a picture of a traffic light."];
        assert_eq!(prompt(&alike).as_deref(), Some("a picture of a {}."));
        assert_eq!(prompt(&["a red dog", "a red fox"]).as_deref(), Some("a red {}"));
        assert_eq!(
            prompt(&["ein Hund, innen", "ein Hahn, innen"]).as_deref(),
            Some("ein {}, innen")
        );
        assert_eq!(prompt(&["cat", "cow"]), None);
        assert_eq!(prompt(&["a cat on a mat", "two dogs"]), None);
        assert_eq!(prompt(&["a big", "a big dog"]), Some("a {}".to_owned()), "a name of two words");
        assert_eq!(prompt(&[]), None);
    }

    #[test]
    fn a_record_reads_back() {
        let made = MadeFor { sides: vec![48, 96], templates: vec!["a {}.".to_owned()] };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let tensors = [("x".to_owned(), tch::Tensor::from(1.0f32))].into();
        let write = |metadata| {
            crate::checkpoint_io::safetensors::write(&path, &tensors, &metadata).unwrap();
        };
        write(made.metadata());
        assert_eq!(MadeFor::of(&path).unwrap(), made);
        let told = made.describe().unwrap();
        assert_eq!(told, "made for objects of 48 to 96 pixels, with the prompt `a {}.`");
        write(Metadata::new());
        assert_eq!(MadeFor::of(&path).unwrap().describe(), None);
    }
}
