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
        let same = |same: &dyn Fn(&str) -> bool| -> Vec<u32> {
            let classes = (0..).zip(&self.categories);
            classes.filter(|(_, class)| same(&class.name)).map(|(index, _)| index).collect()
        };
        let exact = same(&|other| other == name);
        let plain = plain_name(name);
        let found =
            if exact.is_empty() { same(&|other| plain_name(other) == plain) } else { exact };
        if let [one] = found[..] {
            return Ok(ClassIndex(one));
        }
        if !found.is_empty() {
            return Err(format!("{} classes are called `{name}`", found.len()));
        }
        let near = |class: &Category| strsim::jaro_winkler(&plain_name(&class.name), &plain);
        let nearest = self.categories.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        let nearest = nearest.map(|class| format!(" (the nearest: `{}`)", class.name));
        Err(format!("no class is called `{name}`{}", nearest.unwrap_or_default()))
    }

    /// Where each name is among the classes, as names are compared.
    pub(crate) fn places(&self) -> HashMap<String, Vec<usize>> {
        places_of(self.categories.iter().map(|class| class.name.as_str()))
    }

    /// Whether a class of another set has the name of one here, but for case, `_` and `-`.
    #[must_use]
    pub fn has_any_of(&self, other: &Self) -> bool {
        let places = self.places();
        other.categories.iter().any(|class| places.contains_key(&plain_name(&class.name)))
    }

    /// Image counts by class, for the federated loss and repeat factors.
    #[must_use]
    pub fn image_counts(&self) -> Vec<u32> {
        self.categories.iter().map(|c| c.image_count).collect()
    }
}

/// Where each name is among `names`, as names are compared; empty ones are nowhere.
pub(crate) fn places_of<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> HashMap<String, Vec<usize>> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, name) in names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        places.entry(plain_name(name)).or_default().push(place);
    }
    places
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
