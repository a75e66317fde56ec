//! Whether two sets have the same classes: by their ids, or by their names.

use std::collections::HashSet;

use crate::{
    data::dataset::Dataset,
    error::{Error, Result},
    plural::counted,
    vocabulary::{Category, Vocabulary},
};

/// Classes that an error names.
const NAMED: usize = 8;

/// Every class that is evaluated must be one that is learned, under the same name. Where the ids differ, or were made
/// while reading, and every class of `val` has the name of one class of the training set, they get its ids. The
/// answer says so where the ids are the file's own.
///
/// # Errors
/// Naming the first class of `val` that is not learned, and the classes that are.
pub fn check_vocabularies(train: &Vocabulary, val: &mut Dataset) -> Result<Option<String>> {
    let Some((at, problem)) = first_difference(train, val.vocabulary()) else { return Ok(None) };
    let path = val.path().display().to_string();
    let own_ids = !val.is_numbered();
    let example = example(train, val.vocabulary());
    if val.number_as(train) {
        let classes = counted(val.vocabulary().len(), "class");
        let told = format!(
            "{path}: {classes} matched to the training set's by name, as the ids differ{example}"
        );
        return Ok(own_ids.then_some(told));
    }
    let (field, problem) = match own_ids {
        true => (format!("categories[{at}]"), problem),
        false => ("classes".to_owned(), strange(train, val.vocabulary())),
    };
    let problem = format!("{problem}. The training set has {}", named(train.categories()));
    Err(Error::invalid(val.path(), field, problem).with_hint(
        "both sets must number the same classes in the same way, or name each class alike and once; `richsem map` \
         finds which class is which",
    ))
}

/// The first class that has another name in the training set, or is not there: its place, and what is wrong.
fn first_difference(train: &Vocabulary, val: &Vocabulary) -> Option<(usize, String)> {
    val.categories().iter().enumerate().find_map(|(at, class)| {
        let (id, name) = (class.id.0, &class.name);
        let problem = match train.class_of(class.id).map(|class| &train.category(class).name) {
            None => format!("id {id} is not in the training set (here it is `{name}`)"),
            Some(other) if other != name => {
                format!("id {id} is `{name}` here and `{other}` in the training set")
            }
            Some(_) => return None,
        };
        Some((at, problem))
    })
}

/// A name with two ids.
fn example(train: &Vocabulary, val: &Vocabulary) -> String {
    let pair = val.categories().iter().find_map(|class| {
        let other = train.categories().iter().find(|other| other.name == class.name)?;
        (other.id != class.id).then_some((class, other))
    });
    pair.map_or_else(String::new, |(class, other)| {
        format!(" (`{}` is {} here and {} there)", class.name, class.id.0, other.id.0)
    })
}

/// The names that the training set does not have, or that are there twice.
fn strange(train: &Vocabulary, val: &Vocabulary) -> String {
    let known: HashSet<&str> = train.categories().iter().map(|class| class.name.as_str()).collect();
    let strange = val.categories().iter().filter(|class| !known.contains(&*class.name));
    let strange: Vec<Category> = strange.cloned().collect();
    match strange.is_empty() {
        true => "several classes have one name".to_owned(),
        false => format!("not in the training set: {}", named(&strange)),
    }
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

    #[test]
    fn classes_of_other_ids_are_matched_by_name_and_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let train = set(folder.path(), &[(1, "cat"), (7, "dog")]);
        for (of, told, id) in [
            (&[(7, "dog"), (1, "cat")][..], None, 7),
            (&[(7, "dog")], None, 7),
            (&[(0, "cat"), (1, "dog")], Some("2 classes matched"), 1),
            (&[(1, "dog"), (7, "cat")], Some("(`dog` is 1 here and 7 there)"), 7),
            (&[(3, "dog")], Some("1 class matched"), 7),
        ] {
            let mut val = set(folder.path(), of);
            let note = check_vocabularies(train.vocabulary(), &mut val).unwrap();
            assert_eq!(note.is_some(), told.is_some(), "{note:?}");
            assert!(note.unwrap_or_default().contains(told.unwrap_or_default()));
            let class = val.vocabulary().category(val.annotations()[0].class);
            assert_eq!((class.id.0, &*class.name), (id, of[0].1));
        }
        for (of, says) in [
            (&[(1, "cat"), (7, "wolf")][..], "id 7 is `wolf` here and `dog` in the training set"),
            (&[(0, "ant")], "id 0 is not in the training set (here it is `ant`)"),
            (&[(0, "cat"), (1, "cat")], "id 0 is not in the training set"),
        ] {
            let mut val = set(folder.path(), of);
            let error = check_vocabularies(train.vocabulary(), &mut val).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("The training set has `cat` (1), `dog` (7)"), "{error}");
        }
    }
}
