//! Classes from the names that people gave to objects.
//!
//! The rules are those of bottom-up-attention (`data/genome/setup_vg.py`, Anderson et al. 2018): the first
//! name of an object counts; it is lower-cased, and loses a final dot; leading words move off if all of them
//! are among 19 colours, sizes and materials (`tall white building` is a `building`). What its list of 1600
//! classes does not have is no class. A name that the list has as a whole is taken before words move off.

use std::{
    cmp::Reverse,
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::{
    argument::Argument,
    data::records::ClassRecord,
    error::{Error, Result, read_text},
    plural::counted,
};

/// The list beside the objects, as bottom-up-attention calls it.
const BESIDE: &str = "objects_vocab.txt";

/// Boxes that a name needs to be a class, without a list.
pub(super) const ENOUGH: usize = 50;

/// Words that move off.
const ADJECTIVES: [&str; 19] = [
    "white", "black", "blue", "green", "red", "brown", "yellow", "small", "large", "silver",
    "wooden", "orange", "gray", "grey", "metal", "pink", "tall", "long", "dark",
];

/// Most names that a note shows.
const SHOWN: usize = 3;

/// The first names of all objects, cleaned.
#[derive(Default)]
pub(super) struct Names {
    at: HashMap<String, u32>,
    names: Vec<String>,
    /// Objects of each name.
    counts: Vec<usize>,
    /// Objects with more names than the first.
    several: usize,
}

impl Names {
    /// Counts a name; gives its position.
    pub(super) fn add(&mut self, name: &str, several: bool) -> u32 {
        let clean = cleaned(name);
        self.several += usize::from(several);
        let next = self.names.len() as u32;
        let at = match self.at.get(&clean) {
            Some(&at) => at,
            None => {
                self.at.insert(clean.clone(), next);
                self.names.push(clean);
                self.counts.push(0);
                next
            }
        };
        self.counts[at as usize] += 1;
        at
    }
}

/// In lower case, without a final dot.
fn cleaned(name: &str) -> String {
    let name = name.trim().to_lowercase();
    name.strip_suffix('.').map_or(name.as_str(), str::trim).to_owned()
}

/// The last word, if all before it move off.
fn without_adjectives(name: &str) -> Option<&str> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let (last, before) = words.split_last()?;
    (!before.is_empty() && before.iter().all(|word| ADJECTIVES.contains(word))).then_some(*last)
}

/// A list of classes, or none: then all names with enough boxes are classes.
pub(super) struct Vocabulary {
    list: Option<(PathBuf, Vec<Listed>)>,
}

/// A class of a list.
struct Listed {
    /// The number of its line, from 1.
    id: i64,
    /// Its name, and other names of it.
    names: Vec<String>,
}

/// Which classes there are, and which one each name is.
pub(super) struct Chosen {
    pub(super) classes: Vec<ClassRecord>,
    /// By the position of a name.
    pub(super) class_of: Vec<Option<u32>>,
    pub(super) notes: Vec<String>,
}

impl Vocabulary {
    /// The list that was given, or that lies in the folder.
    pub(super) fn find(given: Option<&Path>, folder: &Path) -> Result<Self> {
        if let Some(absent) = given.filter(|file| !file.is_file()) {
            let problem = format!("there is no file `{}`", absent.display());
            return Err(Error::argument(Argument::Vocabulary, problem).with_hint(
                "give a list with a class on each line, its other names after commas, or leave it out",
            ));
        }
        let beside = folder.join(BESIDE);
        let Some(file) = given.map(Path::to_owned).or_else(|| beside.is_file().then_some(beside))
        else {
            return Ok(Self { list: None });
        };
        let classes = read_list(&file)?;
        Ok(Self { list: Some((file, classes)) })
    }

    /// `file` is for messages.
    pub(super) fn choose(&self, names: &Names, file: &Path) -> Result<Chosen> {
        match &self.list {
            Some((list, classes)) => Ok(by_list(list, classes, names)),
            None => by_count(names, ENOUGH, file),
        }
    }
}

/// The lines of a list, each with the name of a class and its other names.
fn read_list(file: &Path) -> Result<Vec<Listed>> {
    let text = read_text(file)?;
    let mut line_of: HashMap<String, i64> = HashMap::new();
    let mut classes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut names: Vec<String> = Vec::new();
        for name in line.split(',').map(cleaned).filter(|name| !name.is_empty()) {
            match line_of.insert(name.clone(), number) {
                None => names.push(name),
                Some(earlier) if earlier == number => {}
                Some(earlier) => {
                    let problem = format!("`{name}` is already in line {earlier}");
                    return Err(Error::invalid(file, format!("line {number}"), problem).with_hint(
                        "a name belongs to one class: take it out of one of the lines",
                    ));
                }
            }
        }
        if !names.is_empty() {
            classes.push(Listed { id: number, names });
        }
    }
    if classes.is_empty() {
        return Err(Error::invalid(file, "classes", "the list is empty")
            .with_hint("write a class a line, its other names after commas"));
    }
    Ok(classes)
}

/// How objects got into their classes: numbers of objects, and the most frequent names.
#[derive(Default)]
struct Way<'a> {
    objects: usize,
    names: Vec<(usize, &'a str, &'a str)>,
}

impl<'a> Way<'a> {
    fn add(&mut self, objects: usize, name: &'a str, class: &'a str) {
        self.objects += objects;
        self.names.push((objects, name, class));
    }

    /// `12 objects of 3 names (as …)`.
    fn told(&mut self) -> String {
        self.names.sort_by_key(|&(objects, name, _)| (Reverse(objects), name));
        let first = self.names.iter().take(SHOWN).map(|(objects, name, class)| match *class {
            "" => format!("`{name}` {objects}"),
            class => format!("`{name}` as `{class}` {objects}"),
        });
        let first: Vec<String> = first.collect();
        let more = if self.names.len() > SHOWN { ", …" } else { "" };
        format!(
            "{} of {} ({}{more})",
            counted(self.objects, "object"),
            counted(self.names.len(), "name"),
            first.join(", ")
        )
    }
}

fn by_list(list: &Path, classes: &[Listed], names: &Names) -> Chosen {
    let mut class_of_name: HashMap<&str, u32> = HashMap::new();
    for (class, all) in (0..).zip(classes) {
        class_of_name.extend(all.names.iter().map(|name| (name.as_str(), class)));
    }
    let (mut same, mut synonym, mut shortened, mut out) = <(Way, Way, Way, Way)>::default();
    let mut class_of = Vec::with_capacity(names.names.len());
    for (name, &count) in names.names.iter().zip(&names.counts) {
        let whole = class_of_name.get(name.as_str()).copied();
        let short = without_adjectives(name).and_then(|short| class_of_name.get(short)).copied();
        let class = whole.or(short);
        class_of.push(class);
        match class.map(|class| classes[class as usize].names[0].as_str()) {
            None => out.add(count, name, ""),
            Some(class) if whole.is_none() => shortened.add(count, name, class),
            Some(class) if class == name => same.add(count, name, ""),
            Some(class) => synonym.add(count, name, class),
        }
    }
    let mut notes = vec![format!(
        "classes: {} of {}, found under their own name: {}",
        classes.len(),
        list.display(),
        same.told()
    )];
    for (what, way) in [
        ("merged by other names in the list", &mut synonym),
        ("merged after colours, sizes and materials moved off", &mut shortened),
        ("in no class, left out", &mut out),
    ] {
        if way.objects > 0 {
            notes.push(format!("{what}: {}", way.told()));
        }
    }
    notes.extend(several(names));
    let classes = classes.iter().map(|Listed { id, names }| ClassRecord {
        synonyms: names[1..].to_vec(),
        ..ClassRecord::named(*id, names[0].clone())
    });
    Chosen { classes: classes.collect(), class_of, notes }
}

/// All names that have `enough` boxes, in alphabetical order.
fn by_count(names: &Names, enough: usize, file: &Path) -> Result<Chosen> {
    let short = |name: &'_ str| without_adjectives(name).unwrap_or(name).to_owned();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (name, count) in names.names.iter().zip(&names.counts) {
        *counts.entry(short(name)).or_default() += count;
    }
    let mut classes: Vec<&String> =
        counts.iter().filter(|(_, count)| **count >= enough).map(|(name, _)| name).collect();
    classes.sort_unstable();
    if classes.is_empty() {
        let problem = format!("none of {} names has {enough} boxes", counts.len());
        return Err(Error::invalid(file, "names", problem).with_hint(format!(
            "give a list of the classes with {}, or put it beside as {BESIDE}",
            Argument::Vocabulary
        )));
    }
    let (mut shortened, mut out) = <(Way, Way)>::default();
    let mut class_of = Vec::with_capacity(names.names.len());
    for (name, &count) in names.names.iter().zip(&names.counts) {
        let class = classes.binary_search(&&short(name)).ok();
        class_of.push(class.map(|class| class as u32));
        match class.map(|class| classes[class].as_str()) {
            None => out.add(count, name, ""),
            Some(class) if class != name => shortened.add(count, name, class),
            Some(_) => {}
        }
    }
    let mut notes = vec![format!(
        "classes: {} that {enough} boxes have, because no list of classes is given or lies beside \
         ({BESIDE})",
        counted(classes.len(), "name")
    )];
    for (what, way) in [
        ("merged after colours, sizes and materials moved off", &mut shortened),
        ("in no class, left out", &mut out),
    ] {
        if way.objects > 0 {
            notes.push(format!("{what}: {}", way.told()));
        }
    }
    notes.extend(several(names));
    let classes = classes.iter().zip(1..).map(|(name, id)| ClassRecord::named(id, *name)).collect();
    Ok(Chosen { classes, class_of, notes })
}

fn several(names: &Names) -> Option<String> {
    (names.several > 0).then(|| {
        format!("objects with several names, of which the first counts: {}", names.several)
    })
}
