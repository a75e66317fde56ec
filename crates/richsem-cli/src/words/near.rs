//! Slips of the fingers: which of the known words was meant. A word that is far from all of them means something
//! else, and nothing is suggested.

use strsim::osa_distance;

/// The known word that was meant; of several equally near ones the first.
pub(super) fn meant<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = plain(typed);
    known
        .into_iter()
        .filter_map(|word| Some((distance(&typed, &plain(word))?, word)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The word that has another letter in one place, and begins as it was typed: `evel` is `eval`. For few words
/// that are far from what else may be typed.
pub(super) fn one_letter_off<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = plain(typed);
    known.into_iter().find(|word| {
        typed.len() >= 4
            && typed.chars().count() == word.chars().count()
            && typed.chars().next() == word.chars().next()
            && osa_distance(&typed, word) == 1
    })
}

/// As words are compared: `Batch_size` is `batch-size`.
pub(super) fn plain(word: &str) -> String {
    word.replace('_', "-").to_ascii_lowercase()
}

/// How many slips lie between two words, unless they are too many for their length.
fn distance(typed: &str, word: &str) -> Option<usize> {
    let length = typed.chars().count().min(word.chars().count());
    let slips = osa_distance(typed, word);
    // Short words with one letter in the place of another are other words: `best` is not `test`.
    let replaced = slips == 1 && typed.chars().count() == word.chars().count() && {
        let sorted = |word: &str| {
            let mut letters: Vec<char> = word.chars().collect();
            letters.sort_unstable();
            letters
        };
        sorted(typed) != sorted(word)
    };
    let most = match length {
        0..3 => 0,
        3 | 4 if replaced => 0,
        3..8 => 1,
        _ => 2,
    };
    (slips <= most).then_some(slips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_with_one_wrong_letter_is_known() {
        let verbs = ["eval", "val", "info", "map", "study"];
        for (typed, expected) in [
            ("evel", Some("eval")),
            ("infu", Some("info")),
            ("stady", Some("study")),
            ("best", None),
            ("mop", None),
            ("oval", None),
        ] {
            assert_eq!(one_letter_off(typed, verbs), expected, "{typed}");
        }
    }

    #[test]
    fn only_slips_are_taken_for_what_was_meant() {
        let words = ["train", "eval", "predict", "pretrain-teacher", "detect", "inference", "test"];
        for (typed, expected) in [
            ("trian", Some("train")),
            ("evla", Some("eval")),
            ("predictt", Some("predict")),
            ("detetc", Some("detect")),
            ("infrence", Some("inference")),
            ("Pretrain_teachr", Some("pretrain-teacher")),
            ("best", None),
            ("python", None),
            ("rain", Some("train")),
            ("xy", None),
        ] {
            assert_eq!(meant(typed, words), expected, "{typed}");
        }
    }
}
