//! CLIP's byte-pair tokenizer, with the merges it was published with.
//!
//! Texts are cleaned as OpenAI's `simple_tokenizer.py` cleans them: mojibake, ligatures and quotes
//! mended (ftfy there, `plsfix` here), HTML entities resolved twice, white space joined, lower case.

use std::sync::LazyLock;

use instant_clip_tokenizer::Token;
use regex::Regex;
use tch::Tensor;

use crate::error::{Error, Result};

/// Tokens that stand for themselves, contractions, words, single digits, runs of other signs.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
    Regex::new(pattern).expect("the pattern is fixed, and a test uses it")
});

/// CLIP's byte-pair tokenizer: texts to token ids.
pub struct Tokenizer {
    merges: instant_clip_tokenizer::Tokenizer,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokenizer")
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// What decides the ids, for hashes of what was made from them.
    pub(crate) const VERSION: &str = "bpe_simple_vocab_16e6";
    /// Number of different ids: they are 0 to 49,407.
    pub const VOCABULARY: i64 = 49_408;
    /// The id that stands before every text.
    pub const START: i64 = 49_406;
    /// Stands after every text; the largest id.
    pub const END: i64 = 49_407;

    /// CLIP's own tokenizer, with its 49,408 ids.
    #[must_use]
    pub fn new() -> Self {
        Self { merges: instant_clip_tokenizer::Tokenizer::new() }
    }

    /// The ids of a text of any length, between [`Self::START`] and [`Self::END`].
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let mut ids = vec![Self::START];
        let mut tokens: Vec<Token> = Vec::new();
        for word in WORDS.find_iter(&clean(text)) {
            match word.as_str() {
                "<|startoftext|>" => ids.push(Self::START),
                "<|endoftext|>" => ids.push(Self::END),
                word => {
                    tokens.clear();
                    self.merges.encode(word, &mut tokens);
                    ids.extend(tokens.iter().map(|t| i64::from(t.to_u16())));
                }
            }
        }
        ids.push(Self::END);
        ids
    }

    /// The ids of many texts, filled up with zeros to `context_length`. A longer text is cut, its
    /// last id then [`Self::END`], if `truncate`.
    ///
    /// # Shapes
    /// N texts → `[N, context_length]` i64
    ///
    /// # Errors
    /// A longer text, without `truncate`.
    pub fn tokenize(
        &self,
        texts: &[impl AsRef<str>],
        context_length: usize,
        truncate: bool,
    ) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(texts.len() * context_length);
        for text in texts {
            let text = text.as_ref();
            let mut ids = self.encode(text);
            if ids.len() > context_length {
                if !truncate {
                    let start: String = text.chars().take(60).collect();
                    return Err(Error::other(format!(
                        "the text {start:?} has {} tokens, and the text encoder reads at most \
                         {context_length}",
                        ids.len()
                    )));
                }
                ids.truncate(context_length.saturating_sub(1));
                ids.push(Self::END);
            }
            ids.resize(context_length, 0);
            rows.extend(ids);
        }
        Ok(Tensor::f_from_slice(&rows)?.f_view([texts.len() as i64, context_length as i64])?)
    }
}

fn clean(text: &str) -> String {
    let mended = plsfix::fix_text(text, None);
    let once = htmlize::unescape(mended.as_str());
    let twice = htmlize::unescape(&*once);
    twice.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::shared;
    use serde_json::Value;

    /// Ids that OpenAI's own tokenizer gives (commit d05afc4, ftfy 6.3.1) for LVIS's names, prompts
    /// and definitions, and for 34 hard texts.
    #[test]
    fn ids_are_the_official_tokenizers() {
        let Some(path) = shared("clip/clip_tok_expected.json") else { return };
        let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let tokenizer = Tokenizer::new();
        let mut count = 0;
        for case in expected["cases"].as_object().unwrap().values() {
            for case in case.as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let mut ids: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
                let truncated = case["truncated"].as_bool().unwrap();
                assert_eq!(clean(text), case["cleaned"].as_str().unwrap());
                if !truncated {
                    assert_eq!(tokenizer.encode(text), ids, "{text:?}");
                }
                assert_eq!(tokenizer.tokenize(&[text], 77, false).is_err(), truncated);
                ids.resize(77, 0);
                let got = tokenizer.tokenize(&[text], 77, true).unwrap();
                assert_eq!(Vec::<i64>::try_from(got.view([77])).unwrap(), ids, "{text:?}");
                count += 1;
            }
        }
        assert_eq!(count, 4846);
    }

    /// The same, by hand, where the shared file is absent: `clip.tokenize` of openai/CLIP.
    #[test]
    fn a_few_ids() {
        let tokenizer = Tokenizer::new();
        for (text, ids) in [
            ("", vec![]),
            ("a photo of a  CAT\n", vec![320, 1125, 539, 320, 2368]),
            ("don\u{2019}t", vec![847, 713]),
            ("&amp;lt;b", vec![283, 321]),
            ("<|startoftext|>a cat<|endoftext|>", vec![49406, 320, 2368, 49407]),
        ] {
            let expected = [&[Tokenizer::START], &*ids, &[Tokenizer::END]].concat();
            assert_eq!(tokenizer.encode(text), expected, "{text:?}");
        }
        let error = tokenizer.tokenize(&["a ".repeat(80)], 77, false).unwrap_err().to_string();
        assert!(error.contains("82 tokens") && error.contains("at most 77"), "{error}");
    }
}
