//! V3Det's class tree, a file of ten maps beside its annotations: other names of the classes, and what each
//! is a kind of. Its metric uses no tree.

use std::{collections::HashMap, io::Read as _, path::Path};

use serde::Deserialize;

use crate::{
    data::{formats::Place, records::Records},
    error::{Error, Result},
    json::{self, Id},
    plural::{clause, counted},
};

/// Part of the file's name.
const NAME: &str = "category_tree";

/// Keys are the tree's own ids, but for the first map.
#[derive(Deserialize)]
struct Tree {
    categoryid2treeid: HashMap<String, Id>,
    id2name: HashMap<String, String>,
    #[serde(default)]
    id2synonym_list: HashMap<String, Vec<String>>,
    #[serde(default)]
    child2father: HashMap<String, Vec<Id>>,
}

/// Adds what the tree says, if one lies beside `file`.
pub(super) fn complete(file: &Path, records: &mut Records) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    // In an archive there is no folder to look into.
    if folder.is_some_and(|folder| !folder.is_dir()) {
        let note = "a class tree (V3Det's `*category_tree*.json`) is not looked for in an archive";
        records.notes.push(note.to_owned());
        return Ok(());
    }
    let place = Place::new(folder.unwrap_or(Path::new(".")))?;
    let Some(name) = place.files().find(|name| name.contains(NAME) && name.ends_with(".json"))
    else {
        return Ok(());
    };
    let path = place.path().join(name);
    let mut bytes = Vec::new();
    json::open(&path)?.read_to_end(&mut bytes)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let tree: Tree = serde_json::from_slice(text).map_err(|problem| {
        Error::invalid(&path, "class tree", format!("not V3Det's: {problem}"))
            .with_hint("download it again, or move it elsewhere to do without it")
    })?;
    let (mut with_synonyms, mut with_father, mut several, mut absent) = (0, 0, 0, 0);
    for class in &mut records.classes {
        let Some(id) = tree.categoryid2treeid.get(&class.id.to_string()) else {
            absent += 1;
            continue;
        };
        let id = id.clone().into_text();
        let others = tree.id2synonym_list.get(&id).into_iter().flatten();
        let before = class.synonyms.len();
        class.synonyms.extend(others.filter(|other| **other != class.name).cloned());
        with_synonyms += usize::from(class.synonyms.len() > before);
        match tree.child2father.get(&id).map_or(&[][..], Vec::as_slice) {
            [only] => {
                class.supercategory = tree.id2name.get(&only.clone().into_text()).cloned();
                with_father += 1;
            }
            [] => {}
            _ => several += 1,
        }
    }
    let mut note = format!(
        "class tree {name}: synonyms of {}, the class above of {with_father}",
        counted(with_synonyms, "class")
    );
    if several > 0 {
        note += &format!("; {several} are below several, none of which is taken");
    }
    if absent > 0 {
        note += &format!("; {} not in it", clause(absent, "class", ["is", "are"]));
    }
    records.notes.push(note);
    Ok(())
}
