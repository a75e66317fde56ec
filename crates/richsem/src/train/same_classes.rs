//! Whether two sets have the same classes: by their ids, or by their names.

use std::collections::{HashMap, HashSet};

use crate::{
    data::dataset::Dataset,
    error::{Error, Result},
    plural::counted,
    vocabulary::{Category, CategoryId, Match, Vocabulary, plain_name},
};

/// What follows for detections from classes that were matched.
const OF_THIS_FILE: &str = "; detections get the ids of this file";

/// Classes that an error names.
const NAMED: usize = 8;

/// Every class that is evaluated must be one that is learned, under the same name but for case, `_` and `-`. Where the ids differ, or were made
/// while reading, and the classes of `val` have names of the training set's, they get its ids. A class without a box
/// may be one that is not learned. The answer says what was done: that classes were matched, where the ids are the
/// file's own, and which are left out.
///
/// # Errors
/// Naming the classes of `val` that are not learned, and those that are.
pub fn check_vocabularies(train: &Vocabulary, val: &mut Dataset) -> Result<Vec<String>> {
    let matched = Matched::of(train, val)?.whole(train, val)?;
    let mut notes = matched.matched(train, val, "");
    notes.extend(matched.left_out(val));
    matched.number(train, val);
    Ok(notes)
}

/// As [`check_vocabularies`], but classes of `val` that are not learned keep their boxes, under ids of their own: for
/// whoever looks at the two sets.
///
/// # Errors
/// Where no class has a name of the training set's, or names leave open which is which.
pub fn match_vocabularies(train: &Vocabulary, val: &mut Dataset) -> Result<Vec<String>> {
    let matched = Matched::of(train, val)?;
    let notes = matched.matched(train, val, "");
    matched.number(train, val);
    Ok(notes)
}

/// The ids that a detector's classes have in an annotated set.
#[derive(Debug, Clone, Default)]
pub struct ClassIds {
    /// By the detector's ids; none where both number alike.
    own: Option<HashMap<CategoryId, CategoryId>>,
}

impl ClassIds {
    /// Finds the detector's classes in a set: by their ids, or by their names where the ids differ. Also says what
    /// was done.
    ///
    /// # Errors
    /// As [`check_vocabularies`].
    pub fn of(detector: &Vocabulary, set: &Dataset) -> Result<(Self, Vec<String>)> {
        let matched = Matched::of(detector, set)?.whole(detector, set)?;
        let mut notes = matched.matched(detector, set, OF_THIS_FILE);
        notes.extend(matched.left_out(set));
        Ok((Self::of_matched(matched, set), notes))
    }

    /// As [`Self::of`], of a set that may have boxes of classes that the detector does not have: nothing is evaluated.
    ///
    /// # Errors
    /// As [`match_vocabularies`].
    pub fn of_known(detector: &Vocabulary, set: &Dataset) -> Result<(Self, Vec<String>)> {
        let matched = Matched::of(detector, set)?;
        let notes = matched.matched(detector, set, OF_THIS_FILE);
        Ok((Self::of_matched(matched, set), notes))
    }

    fn of_matched(matched: Matched, set: &Dataset) -> Self {
        let own = matched.ids.map(|ids| {
            let classes = ids.iter().zip(set.vocabulary().categories());
            classes.filter_map(|(id, class)| Some(((*id)?, class.id))).collect()
        });
        Self { own }
    }

    /// The set's id of a class of the detector; none if the set does not have the class. Where both number alike,
    /// it is the detector's id, also of a class that the set does not have.
    #[must_use]
    pub fn get(&self, id: CategoryId) -> Option<CategoryId> {
        self.own.as_ref().map_or(Some(id), |own| own.get(&id).copied())
    }

    /// The detector's classes with the set's ids, without those that it does not have.
    #[must_use]
    pub fn number(&self, detector: &Vocabulary) -> Vocabulary {
        let classes = detector.categories().iter();
        let classes = classes.filter_map(|c| Some(Category { id: self.get(c.id)?, ..c.clone() }));
        Vocabulary::new(classes.collect())
    }
}

/// Which class of one set is which of another.
struct Matched {
    /// The training set's id of each class, where it has the class; none where both number alike.
    ids: Option<Vec<Option<CategoryId>>>,
    /// Classes that are not learned and have boxes.
    strange: Vec<Category>,
    /// Those that have none.
    left_out: Vec<Category>,
}

impl Matched {
    fn of(train: &Vocabulary, val: &Dataset) -> Result<Self> {
        let classes = val.vocabulary().categories();
        let names = names(train.categories());
        let is_known = |class: &Category| names.contains(&plain_name(&class.name));
        let has_box = has_boxes(val);
        let strange = |with_box: bool| -> Vec<Category> {
            let all = classes.iter().zip(&has_box);
            let strange = all.filter(|(class, has)| **has == with_box && !is_known(class));
            strange.map(|(class, _)| class.clone()).collect()
        };
        let (strange, left_out) = (strange(true), strange(false));
        if !classes.is_empty() && !classes.iter().any(is_known) {
            let named = if strange.is_empty() { left_out } else { strange };
            return Err(refused(train, val, not_learned(&named)));
        }
        let is_same = |class: &Category| {
            let other = train.class_of(class.id).map(|other| &train.category(other).name);
            match other {
                Some(other) => plain_name(other) == plain_name(&class.name),
                None => !is_known(class),
            }
        };
        if classes.iter().all(is_same) {
            return Ok(Self { ids: None, strange, left_out });
        }
        let matches = train.by_name().match_all(val.vocabulary().names());
        let ids = classes.iter().zip(matches).map(|(class, found)| match found {
            Match::None => Ok(None),
            Match::One(place) => Ok(Some(train.categories()[place].id)),
            Match::Unclear(places) => {
                let theirs = places.iter().map(|&place| &train.categories()[place]);
                Err(refused(train, val, unclear(class, classes, theirs.collect())))
            }
        });
        Ok(Self { ids: Some(ids.collect::<Result<_>>()?), strange, left_out })
    }

    /// Every class with a box must be one that is learned.
    fn whole(self, train: &Vocabulary, val: &Dataset) -> Result<Self> {
        match self.strange.as_slice() {
            [] => Ok(self),
            strange => Err(refused(train, val, not_learned(strange))),
        }
    }

    /// Gives the classes of `val` the training set's ids.
    fn number(&self, train: &Vocabulary, val: &mut Dataset) {
        if let Some(ids) = &self.ids {
            val.set_ids(&with_free_ids(train, val.vocabulary(), ids));
        }
    }

    /// That classes were matched, and what follows from it.
    fn matched(&self, train: &Vocabulary, val: &Dataset, then: &str) -> Vec<String> {
        let matched = self.ids.as_ref().filter(|_| !val.is_numbered()).map(|ids| {
            let classes = counted(ids.iter().flatten().count(), "class");
            let (path, example) = (val.path().display(), example(train, val.vocabulary()));
            format!("{path}: {classes} matched to the training set's by name, as the ids differ{example}{then}")
        });
        matched.into_iter().collect()
    }

    /// That classes are not evaluated.
    fn left_out(&self, val: &Dataset) -> Option<String> {
        (!self.left_out.is_empty()).then(|| {
            format!(
                "{}: not among the detector's classes, and without a box here: {}",
                val.path().display(),
                named(&self.left_out)
            )
        })
    }
}

/// Whether each class has a box. One of a class is one of all that it is a kind of.
fn has_boxes(set: &Dataset) -> Vec<bool> {
    let mut has = vec![false; set.vocabulary().len()];
    for annotation in set.annotations() {
        let class = annotation.class.0;
        let above = set.relations().map_or(&[][..], |relations| relations.ancestors(class));
        for &class in above.iter().chain([&class]) {
            has[class as usize] = true;
        }
    }
    has
}

/// An id for each class: the training set's, or for those that it does not have, one that no class has there.
fn with_free_ids(
    train: &Vocabulary,
    own: &Vocabulary,
    ids: &[Option<CategoryId>],
) -> Vec<CategoryId> {
    let all = train.categories().iter().chain(own.categories()).map(|class| class.id.0);
    let mut last = all.max().unwrap_or_default();
    let classes = ids.iter().zip(own.categories());
    let free = classes.map(|(id, class)| match id {
        Some(id) => *id,
        None if train.class_of(class.id).is_none() => class.id,
        None => {
            last += 1;
            CategoryId(last)
        }
    });
    free.collect()
}

/// Their names, as they are compared.
fn names(classes: &[Category]) -> HashSet<String> {
    classes.iter().map(|class| plain_name(&class.name)).collect()
}

/// That several classes have the name of one: of the other set, or of its own.
fn unclear(class: &Category, own: &[Category], theirs: Vec<&Category>) -> String {
    let name = plain_name(&class.name);
    let same = own.iter().filter(|other| plain_name(&other.name) == name);
    let several: Vec<&Category> = if theirs.len() > 1 { theirs } else { same.collect() };
    let ids: Vec<String> = several.iter().map(|class| class.id.0.to_string()).collect();
    let (name, count) = (&class.name, several.len());
    format!("the ids differ, and {count} classes are called `{name}` ({})", ids.join(" and "))
}

/// That these are not learned.
fn not_learned(classes: &[Category]) -> String {
    let are = if classes.len() == 1 { "is" } else { "are" };
    format!("{} {are} not among the training set's classes", named(classes))
}

/// The error, with the classes of the training set that this set does not have.
fn refused(train: &Vocabulary, val: &Dataset, problem: String) -> Error {
    let field = if val.is_numbered() { "classes" } else { "categories" };
    let own = names(val.vocabulary().categories());
    let others = train.categories().iter().filter(|class| !own.contains(&plain_name(&class.name)));
    let others: Vec<Category> = others.cloned().collect();
    let rest = match others.is_empty() {
        true => format!("The training set has {}", named(train.categories())),
        false => format!("Of the training set's, this one does not have {}", named(&others)),
    };
    Error::invalid(val.path(), field, format!("{problem}. {rest}")).with_hint(
        "both sets must name the same classes alike, each once (upper and lower case, `_` and `-` do not matter, nor \
         do ids): rename them; `richsem map` finds which class is which",
    )
}

/// A name with two ids.
fn example(train: &Vocabulary, val: &Vocabulary) -> String {
    let by_name = train.by_name();
    let pair = val.categories().iter().find_map(|class| {
        let place = *by_name.find(&class.name).first()?;
        let other = &train.categories()[place];
        (other.id != class.id).then_some((class, other))
    });
    pair.map_or_else(String::new, |(class, other)| {
        format!(" (`{}` is {} here and {} there)", class.name, class.id.0, other.id.0)
    })
}

/// Names with their ids, the first few.
fn named(classes: &[Category]) -> String {
    let names = classes.iter().take(NAMED).map(|c| format!("`{}` ({})", c.name, c.id.0));
    let more = if classes.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn classes(classes: &[(i64, &str)]) -> String {
        let all = classes.iter().map(|(id, name)| format!(r#"{{"id": {id}, "name": "{name}"}}"#));
        format!(
            r#"{{"images": [{{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}}],
                "annotations": [{{"id": 1, "image_id": 1, "category_id": {}, "bbox": [1, 1, 4, 4],
                                  "area": 16, "iscrowd": 0}}],
                "categories": [{}]}}"#,
            classes[0].0,
            all.collect::<Vec<_>>().join(",")
        )
    }

    fn set(folder: &std::path::Path, of: &[(i64, &str)]) -> Dataset {
        let path = folder.join("set.json");
        fs_err::write(&path, classes(of)).unwrap();
        Dataset::open(&path).unwrap()
    }

    const TRAIN: [(i64, &str); 2] = [(1, "cat"), (7, "dog")];

    #[test]
    fn classes_of_other_ids_are_matched_by_name_and_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let train = set(folder.path(), &TRAIN);
        for (of, told, id) in [
            (&[(7, "dog"), (1, "cat")][..], None, 7),
            (&[(7, "dog")], None, 7),
            (&[(0, "cat"), (1, "dog")], Some("2 classes matched"), 1),
            (&[(1, "dog"), (7, "cat")], Some("(`dog` is 1 here and 7 there)"), 7),
            (&[(3, "dog")], Some("1 class matched"), 7),
            (&[(3, "Dog "), (5, "CAT")], Some("2 classes matched"), 7),
        ] {
            let mut val = set(folder.path(), of);
            let own = of[0].0;
            let (ids, said) = ClassIds::of(train.vocabulary(), &val).unwrap();
            assert_eq!(ids.get(CategoryId(id)), Some(CategoryId(own)), "{of:?}");
            assert_eq!(said.len(), usize::from(told.is_some()), "{said:?}");
            let numbered = ids.number(train.vocabulary());
            let class = numbered.class_of(CategoryId(own)).unwrap();
            assert_eq!(plain_name(&numbered.category(class).name), plain_name(of[0].1));
            let notes = check_vocabularies(train.vocabulary(), &mut val).unwrap();
            assert_eq!(notes.len(), usize::from(told.is_some()), "{notes:?}");
            assert!(notes.concat().contains(told.unwrap_or_default()));
            let class = val.vocabulary().category(val.annotations()[0].class);
            assert_eq!((class.id.0, &*class.name), (id, of[0].1));
        }
    }

    #[test]
    fn classes_without_a_match_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let train = set(folder.path(), &TRAIN);
        for (of, says) in [
            (
                &[(7, "wolf"), (1, "cat")][..],
                "categories: `wolf` (7) is not among the training set's classes. Of the training set's, this one does \
                 not have `dog` (7)",
            ),
            (&[(1, "wolf"), (7, "cat")], "`wolf` (1) is not among"),
            (&[(0, "ant")], "`ant` (0) is not among"),
            // Without any class in common there is nothing to evaluate, whatever has boxes.
            (&[(7, "ant"), (1, "bee")], "`ant` (7) is not among"),
            (&[(0, "cat"), (1, "cat")], "2 classes are called `cat` (0 and 1). Of the training"),
            (&[(0, "Cat"), (1, "cat")], "2 classes are called `Cat` (0 and 1). Of the training"),
        ] {
            let mut val = set(folder.path(), of);
            let error = ClassIds::of(train.vocabulary(), &val).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            let other = check_vocabularies(train.vocabulary(), &mut val).unwrap_err().to_string();
            assert_eq!(other, error);
        }
    }

    #[test]
    fn classes_that_are_known_are_matched_beside_others() {
        let folder = tempfile::tempdir().unwrap();
        let train = set(folder.path(), &TRAIN);
        let mut val = set(folder.path(), &[(1, "wolf"), (2, "dog"), (7, "cat")]);
        assert!(ClassIds::of(train.vocabulary(), &val).is_err());
        let (ids, said) = ClassIds::of_known(train.vocabulary(), &val).unwrap();
        let found = [1, 7].map(|id| ids.get(CategoryId(id)));
        assert_eq!(found, [Some(CategoryId(7)), Some(CategoryId(2))]);
        assert!(said[0].contains("2 classes matched"), "{said:?}");
        match_vocabularies(train.vocabulary(), &mut val).unwrap();
        let classes = val.vocabulary().categories().iter();
        let classes: Vec<_> = classes.map(|c| (c.id.0, &*c.name)).collect();
        assert_eq!(classes, [(1, "cat"), (7, "dog"), (8, "wolf")]);
    }

    #[test]
    fn classes_without_a_box_need_not_be_learned() {
        let folder = tempfile::tempdir().unwrap();
        let train = set(folder.path(), &TRAIN);
        for (of, new) in [
            (&[(1, "cat"), (9, "ant")][..], [(1, "cat"), (9, "ant")]),
            (&[(3, "cat"), (9, "ant")], [(1, "cat"), (9, "ant")]),
            (&[(3, "cat"), (7, "ant")], [(1, "cat"), (8, "ant")]),
            // The id is that of another class.
            (&[(1, "cat"), (7, "ant")], [(1, "cat"), (8, "ant")]),
        ] {
            let mut val = set(folder.path(), of);
            let (ids, _) = ClassIds::of(train.vocabulary(), &val).unwrap();
            assert_eq!(ids.get(CategoryId(1)), Some(CategoryId(of[0].0)));
            let notes = check_vocabularies(train.vocabulary(), &mut val).unwrap();
            let last = notes.last().unwrap();
            let says = format!(
                "not among the detector's classes, and without a box here: `ant` ({})",
                of[1].0
            );
            assert!(last.contains(&says), "{last}");
            let classes = val.vocabulary().categories().iter();
            assert_eq!(classes.map(|c| (c.id.0, &*c.name)).collect::<Vec<_>>(), new);
        }
    }
}
