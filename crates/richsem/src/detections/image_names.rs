//! The images that names in a results file mean.

use std::collections::HashMap;

/// The images of an annotation file by their names. A name in a results file means an image if one of the two
/// paths ends in the other: `found/val/7.jpg` and `7.jpg` mean `val/7.jpg`, `train/7.jpg` does not.
#[derive(Debug, Default)]
pub struct ImageNames {
    /// Whole names and ids, by the last part.
    by_last: HashMap<String, Vec<(String, i64)>>,
    /// Ids, by the texts that stand for them in the annotation file; empty where it has numbers.
    by_text: HashMap<String, i64>,
    texts: HashMap<i64, String>,
}

impl ImageNames {
    /// Takes the names and ids of all images.
    #[must_use]
    pub fn new<'a>(images: impl IntoIterator<Item = (&'a str, i64)>) -> Self {
        let mut names = Self::default();
        for (name, id) in images {
            let last = parts(name).next().unwrap_or_default().to_owned();
            names.by_last.entry(last).or_default().push((name.to_owned(), id));
        }
        // Sorted, for names whose last part many have.
        names.by_last.values_mut().for_each(|same| same.sort_by(|a, b| a.0.cmp(&b.0)));
        names
    }

    /// Adds the texts that are the images' ids in the annotation file.
    #[must_use]
    pub fn with_texts(mut self, texts: impl IntoIterator<Item = (String, i64)>) -> Self {
        for (text, id) in texts {
            self.texts.insert(id, text.clone());
            self.by_text.insert(text, id);
        }
        self
    }

    /// Whether the ids in the annotation file are texts.
    #[must_use]
    pub fn has_texts(&self) -> bool {
        !self.by_text.is_empty()
    }

    /// The number of the image that has this text as id in the annotation file.
    #[must_use]
    pub fn with_text(&self, text: &str) -> Option<i64> {
        self.by_text.get(text).copied()
    }

    /// The text that is an image's id in the annotation file; none where that has numbers.
    #[must_use]
    pub fn text_of(&self, id: i64) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    /// As [`Self::id_of`]; none if no image has the name.
    pub(super) fn find(&self, name: &str, given: Option<i64>) -> Result<Option<i64>, String> {
        let last = parts(name).next().unwrap_or_default();
        let known = self.by_last.get(last).map_or(&[][..], Vec::as_slice);
        let first = known.partition_point(|(known, _)| known.as_str() < name);
        let mut found: Vec<&(String, i64)> =
            known[first..].iter().take_while(|(known, _)| known == name).collect();
        if found.is_empty() {
            let same = |known: &str| parts(known).zip(parts(name)).all(|(a, b)| a == b);
            found = known.iter().filter(|(known, _)| same(known)).collect();
        }
        if let Some((_, id)) = found.iter().find(|(_, id)| Some(*id) == given) {
            return Ok(Some(*id));
        }
        match found[..] {
            [] => Ok(None),
            [(_, id)] => Ok(Some(*id)),
            [(a, first), (b, second), ..] => Err(format!(
                "`{name}` may be image {first} (`{a}`) or {second} (`{b}`) of the annotation file"
            )),
        }
    }

    /// The id of the image of that name. If several images have it (a file may list one image twice), the
    /// one of the `given` id.
    ///
    /// # Errors
    /// Why there is none: no image has the name, or several have.
    pub fn id_of(&self, name: &str, given: Option<i64>) -> Result<i64, String> {
        self.find(name, given)?.ok_or_else(|| not_called(name))
    }
}

/// The parts of a path, the last first.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.rsplit(['/', '\\']).filter(|part| !part.is_empty() && *part != ".")
}

pub(super) fn not_called(name: &str) -> String {
    format!("no image of the annotation file is called `{name}`")
}
