//! Many short texts, in little more memory than their letters take.

/// A list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::data) struct Texts {
    /// All of them, one after the other.
    letters: String,
    /// Where each ends, in bytes.
    ends: Vec<usize>,
}

impl Texts {
    pub(in crate::data) fn push(&mut self, text: &str) {
        self.letters.push_str(text);
        self.ends.push(self.letters.len());
    }

    pub(in crate::data) fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.letters[start..end])
    }

    pub(in crate::data) fn iter(&self) -> impl Iterator<Item = &str> {
        self.ends.iter().scan(0, |start, &end| {
            let text = &self.letters[*start..end];
            *start = end;
            Some(text)
        })
    }

    /// Keeps some of the texts: those of which `kept` says so, one after the other.
    pub(in crate::data) fn retain(&mut self, kept: &[bool]) {
        *self = self.iter().zip(kept).filter_map(|(text, &kept)| kept.then_some(text)).collect();
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all.letters.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_were_put_in() {
        let mut texts: Texts = ["a", "", "µm", "a"].into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "µm", "a"]);
        assert_eq!([0, 1, 2, 4].map(|at| texts.get(at)), [Some("a"), Some(""), Some("µm"), None]);
        texts.retain(&[false, true, true, false]);
        texts.push("z");
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["", "µm", "z"]);
        assert_eq!(Texts::default().iter().next(), None);
    }
}
