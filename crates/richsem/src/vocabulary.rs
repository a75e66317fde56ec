//! The classes that a detector looks for: an argument of forward and post-processing, never a parameter
//! of the model.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Id of a category in an annotation file: any number, with holes, often starting at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CategoryId(pub i64);

/// Column of a logit tensor: contiguous, 0 to C − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassIndex(pub u32);

/// LVIS's groups by the number of training images (arXiv 1908.03195, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Frequency {
    /// At most 10 images of the training set.
    #[serde(rename = "r")]
    Rare,
    /// 11 to 100 images of the training set.
    #[serde(rename = "c")]
    Common,
    /// More than 100 images of the training set.
    #[serde(rename = "f")]
    Frequent,
}

impl Frequency {
    /// The group of a class seen in that many training images.
    #[must_use]
    pub fn of(image_count: u32) -> Self {
        match image_count {
            0..=10 => Self::Rare,
            11..=100 => Self::Common,
            _ => Self::Frequent,
        }
    }

    /// `r`, `c` or `f`, as LVIS files have it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Rare => 'r',
            Self::Common => 'c',
            Self::Frequent => 'f',
        }
    }
}

/// A class, as the annotation file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// Its id in the annotation file.
    pub id: CategoryId,
    /// Its name, letter by letter: prompts use it as it is, with underscores.
    pub name: String,
    /// Images that show it: from the file, or counted.
    pub image_count: u32,
    /// Boxes of it: from the file, or counted.
    pub instance_count: u32,
    /// Rare, common or frequent: from the file, or by `image_count`.
    pub frequency: Frequency,
    /// Its id in the set where that is text, as OpenImages' `/m/01g317`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// Its WordNet synset, as `aerosol.n.02`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub synset: Option<String>,
    /// Its WordNet id, as `n02690373`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wnid: Option<String>,
    /// Its row in a text table that has other classes too. Files call it `lvis_clip_row`.
    #[serde(rename = "lvis_clip_row", skip_serializing_if = "Option::is_none", default)]
    pub text_row: Option<u32>,
}

/// The classes in order of their category ids; the position is the [`ClassIndex`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vocabulary {
    categories: Vec<Category>,
}

impl Vocabulary {
    /// Sorts by id. Ids must be unique (the reader of the file has checked that).
    #[must_use]
    pub fn new(mut categories: Vec<Category>) -> Self {
        categories.sort_by_key(|c| c.id);
        Self { categories }
    }

    /// C: number of classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.categories.len()
    }

    /// Whether there are no classes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.categories.is_empty()
    }

    /// All classes, in the order of [`ClassIndex`].
    #[must_use]
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// The class at an index below [`Self::len`].
    ///
    /// # Panics
    /// If the index is not of this vocabulary.
    #[must_use]
    pub fn category(&self, class: ClassIndex) -> &Category {
        &self.categories[class.0 as usize]
    }

    /// The index of a category id, if the vocabulary has it.
    #[must_use]
    pub fn class_of(&self, id: CategoryId) -> Option<ClassIndex> {
        self.categories.binary_search_by_key(&id, |c| c.id).ok().map(|i| ClassIndex(i as u32))
    }

    /// The class of a name: as it is written, or else the only one of that name but for case, `_` and `-`.
    ///
    /// # Errors
    /// Why there is none, with the nearest name.
    pub fn class_named(&self, name: &str) -> Result<ClassIndex, String> {
        let by_name = self.by_name();
        match by_name.find(name) {
            [] => {}
            [one] => return Ok(ClassIndex(*one as u32)),
            several => return Err(format!("{} classes are called `{name}`", several.len())),
        }
        let plain = plain_name(name);
        let near = |class: &Category| strsim::jaro_winkler(&plain_name(&class.name), &plain);
        let nearest = self.categories.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        let nearest = nearest.map(|class| format!(" (the nearest: `{}`)", class.name));
        Err(format!("no class is called `{name}`{}", nearest.unwrap_or_default()))
    }

    /// The classes by their names.
    pub(crate) fn by_name(&self) -> ByName {
        ByName::of(self.names())
    }

    /// The names of the classes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.categories.iter().map(|class| class.name.as_str())
    }

    /// Whether a class of another set has the name of one here, but for case, `_` and `-`.
    #[must_use]
    pub fn has_any_of(&self, other: &Self) -> bool {
        let own = self.by_name();
        other.names().any(|name| !own.find(name).is_empty())
    }

    /// Image counts by class, for the federated loss and repeat factors.
    #[must_use]
    pub fn image_counts(&self) -> Vec<u32> {
        self.categories.iter().map(|c| c.image_count).collect()
    }
}

/// Names, found as they are written, or else but for upper and lower case, `_` and `-`. Empty ones are never found.
#[derive(Debug, Default)]
pub(crate) struct ByName {
    exact: HashMap<String, Vec<usize>>,
    plain: HashMap<String, Vec<usize>>,
}

impl ByName {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for (place, name) in names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            all.exact.entry(name.to_owned()).or_default().push(place);
            all.plain.entry(plain_name(name)).or_default().push(place);
        }
        all
    }

    /// The places of those that are written so; if there are none, of those that differ in case, `_` and `-` alone.
    pub(crate) fn find(&self, name: &str) -> &[usize] {
        let exact = self.exact.get(name);
        exact.or_else(|| self.plain.get(&plain_name(name))).map_or(&[], Vec::as_slice)
    }

    /// For each of `names`, which of these it is.
    pub(crate) fn match_all<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<Match> {
        let names: Vec<&str> = names.into_iter().collect();
        let own = Self::of(names.iter().copied());
        let of = |name: &&str| match self.find(name) {
            [] => Match::None,
            _ if name.is_empty() => Match::None,
            // No other of the names could be it, too.
            [one] if self.exact.contains_key(*name) && own.exact[*name].len() == 1 => {
                Match::One(*one)
            }
            [one] if own.plain[&plain_name(name)].len() == 1 => Match::One(*one),
            several => Match::Unclear(several.to_vec()),
        };
        names.iter().map(of).collect()
    }
}

/// Which of other names one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// None of them.
    None,
    /// The one at this place.
    One(usize),
    /// Perhaps one of these: several have the name, or several are called so.
    Unclear(Vec<usize>),
}

/// A name as it is compared with those of other sets and programs: without what these write differently, upper and
/// lower case, and `_` or `-` for a space.
pub(crate) fn plain_name(name: &str) -> String {
    let words = name.split(|c: char| c.is_whitespace() || c == '_' || c == '-');
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn names_are_found_as_they_are_written_first() {
        use Match::{None, One, Unclear};
        let other = ByName::of(["cat", "Cat", "Stop sign", "", "dog", "dog"]);
        let matches = |names: &[&str]| other.match_all(names.iter().copied());
        assert_eq!(
            matches(&["Cat", "cat", "stop_SIGN", "", "bird"]),
            [One(1), One(0), One(2), None, None]
        );
        assert_eq!(matches(&["CAT", "dog"]), [Unclear(vec![0, 1]), Unclear(vec![4, 5])]);
        // Two that may be one.
        assert_eq!(matches(&["stop-sign", "Stop sign"]), [Unclear(vec![2]), One(2)]);
        assert_eq!(matches(&["stop-sign", "stop_sign"]), [Unclear(vec![2]), Unclear(vec![2])]);
        assert_eq!(matches(&["cat", "cat"]), [Unclear(vec![0]), Unclear(vec![0])]);
    }

    fn category(id: i64) -> Category {
        testing::category(id, format!("class {id}"))
    }

    #[test]
    fn ids_with_holes_become_contiguous_indices_in_id_order() {
        let vocabulary = Vocabulary::new(vec![category(90), category(1), category(7)]);
        assert_eq!(vocabulary.class_of(CategoryId(1)), Some(ClassIndex(0)));
        assert_eq!(vocabulary.class_of(CategoryId(7)), Some(ClassIndex(1)));
        assert_eq!(vocabulary.class_of(CategoryId(90)), Some(ClassIndex(2)));
        assert_eq!(vocabulary.class_of(CategoryId(2)), None);
        assert_eq!(vocabulary.category(ClassIndex(2)).name, "class 90");
    }

    #[test]
    fn classes_are_found_by_name_and_the_nearest_is_named() {
        let names = ["Cat", "dog", "DOG", "cow"];
        let classes = (1..).zip(names).map(|(id, name)| testing::category(id, name));
        let vocabulary = Vocabulary::new(classes.collect());
        assert_eq!(vocabulary.class_named("cat"), Ok(ClassIndex(0)));
        assert_eq!(vocabulary.class_named("DOG"), Ok(ClassIndex(2)));
        assert_eq!(vocabulary.class_named("Dog").unwrap_err(), "2 classes are called `Dog`");
        assert_eq!(
            vocabulary.class_named("cows").unwrap_err(),
            "no class is called `cows` (the nearest: `cow`)"
        );
        let none = Vocabulary::new(Vec::new()).class_named("cat");
        assert_eq!(none.unwrap_err(), "no class is called `cat`");
    }

    #[test]
    fn frequency_groups_are_lviss() {
        use Frequency::{Common, Frequent, Rare};
        let groups: Vec<_> = [1, 10, 11, 100, 101].map(Frequency::of).into();
        assert_eq!(groups, [Rare, Rare, Common, Common, Frequent]);
    }
}
