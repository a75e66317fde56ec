//! Prompts around class names.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The 80 prompts that CLIP was evaluated on ImageNet with, one a line
/// (`notebooks/Prompt_Engineering_for_ImageNet.ipynb` of openai/CLIP, MIT).
const IMAGENET: &str = include_str!("imagenet_templates.txt");

/// Which prompts stand for a class. `{}` is the class name, letter by letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptSet {
    /// Those that the file of the weights says it was trained with; where it says none, `reference`.
    #[default]
    Weights,
    /// RichSem's 81: the name alone (`{}.`) and CLIP's 80.
    Reference,
    /// The 80 prompts of CLIP's evaluation on ImageNet.
    Clip,
    /// The prompt `a photo of a {}.` alone.
    Single,
    /// The `templates` in the settings.
    Own,
}

impl PromptSet {
    /// The templates, `own` being the settings', or for `weights` those of their file.
    #[must_use]
    pub fn templates(self, own: &[String]) -> Vec<Cow<'_, str>> {
        let fixed: Vec<&str> = match self {
            Self::Weights if own.is_empty() => return Self::Reference.templates(own),
            Self::Own | Self::Weights => {
                return own.iter().map(|t| Cow::Borrowed(t.as_str())).collect();
            }
            Self::Single => vec!["a photo of a {}."],
            Self::Clip => IMAGENET.lines().collect(),
            Self::Reference => std::iter::once("{}.").chain(IMAGENET.lines()).collect(),
        };
        fixed.into_iter().map(Cow::Borrowed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_their_sizes_and_a_place_for_the_name() {
        let own = ["the {} of {}".to_owned()];
        for (set, count) in [
            (PromptSet::Reference, 81),
            (PromptSet::Clip, 80),
            (PromptSet::Single, 1),
            (PromptSet::Own, 1),
            (PromptSet::Weights, 1),
        ] {
            let templates = set.templates(&own);
            assert_eq!(templates.len(), count);
            assert!(templates.iter().all(|t| t.contains("{}")));
            let different: std::collections::BTreeSet<_> = templates.iter().collect();
            assert_eq!(different.len(), count, "a prompt twice weighs twice");
        }
        assert_eq!(PromptSet::Weights.templates(&[]), PromptSet::Reference.templates(&[]));
        assert_eq!(PromptSet::Reference.templates(&[])[1], "a bad photo of a {}.");
    }
}
