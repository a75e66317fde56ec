//! Names of classes from what people have: annotated sets, lists, OpenImages' CSV, folders of a class each, in
//! archives too.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{ClassName, wordnet::WordNet};
use crate::{
    argument::Argument,
    checkpoint_io::read_text_rows,
    data::{
        dataset::Dataset,
        formats::{self, Opening},
        image_io::Orientation,
        image_store::ImageStore,
        openimages::read_classes,
    },
    error::{Error, Result, first_few, read_text},
    json::{self, JsonRecord, JsonStream, TopLevel},
    plural::clause,
    vocabulary::{Category, Frequency},
};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// What a file says of its classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// In the order of their ids, if these are numbers; else in the file's order.
    classes: Vec<ClassName<'static>>,
    /// Rows of a text table that other classes have too, where the file says them.
    text_rows: Vec<Option<u32>>,
    /// Embeddings, one a class, or none at all.
    text: Vec<Vec<f32>>,
    /// What the file is, and what was passed over.
    pub notes: Vec<String>,
    path: PathBuf,
    /// What the folders of the classes lie below, as `train/`, where the classes are folders of images.
    folders_below: Option<String>,
}

impl Names {
    /// Reads the names. By what `path` is:
    /// - an annotated set of any of the [`formats`]: its classes, of its training part where it has parts;
    /// - another folder, or a `.tar`: the folders in it are classes, by wnid (`n02690373`) or by name; those of
    ///   `train`, where all of them are parts of a set (`train`, `val`, `test`);
    /// - `.json` (also packed by gzip): `categories` of a COCO or LVIS file, or a list of such categories,
    ///   with `id`, `name` and, where they are there, `synset`, `synonyms`, `wnid`, `image_count`,
    ///   `frequency`, `lvis_clip_row`;
    /// - `.csv`: `MID,Name` as OpenImages has it, with or without a header;
    /// - any other file: a class a line; after commas synonyms; or `wnid TAB names`, as ImageNet's
    ///   `words.txt`.
    ///
    /// # Errors
    /// A file that cannot be read, is none of these, has no class, or one id twice; with line or record.
    pub fn read(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let mut names = match ending.as_str() {
            _ if path.is_dir() => match formats::format_of(path)? {
                Some(_) => Self::of_set(path)?,
                None => Self::of_folders(path)?,
            },
            "tar" => Self::of_folders(path)?,
            "json" | "gz" => Self::of_json(path)?,
            "csv" => Self::of_csv(path)?,
            _ => Self::of_list(path)?,
        };
        names.check()?;
        names.order();
        Ok(names)
    }

    /// Adds embeddings from a `.npy` or safetensors table: a row a class, in the order of [`Self::classes`];
    /// or the rows that the file's `lvis_clip_row` names.
    ///
    /// # Errors
    /// A table that cannot be read, or without a row for each class.
    pub fn read_text(&mut self, table: &Path) -> Result<()> {
        let rows = read_text_rows(table)?;
        if rows.len() == self.classes.len() {
            self.text = rows;
            return Ok(());
        }
        let chosen = self.text_rows.iter().map(|row| rows.get((*row)? as usize).cloned());
        self.text = chosen.collect::<Option<_>>().ok_or_else(|| {
            let problem =
                format!("expected {} rows, one a class, got {}", self.classes.len(), rows.len());
            Error::invalid(table, "rows", problem).with_hint(format!(
                "in the order of {}; a category's `lvis_clip_row` may name its row",
                self.path.display()
            ))
        })?;
        Ok(())
    }

    /// The classes, with their embeddings if there are some.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassName<'_>> {
        fn with_row<'a>(class: &ClassName<'static>, row: Option<&'a Vec<f32>>) -> ClassName<'a> {
            ClassName { text: row.map(Vec::as_slice), ..class.clone() }
        }
        let rows = self.text.iter().map(Some).chain(std::iter::repeat(None));
        self.classes.iter().zip(rows).map(|(class, row)| with_row(class, row)).collect()
    }

    /// Numbers in an embedding; none without embeddings.
    #[must_use]
    pub fn text_width(&self) -> Option<usize> {
        self.text.first().map(Vec::len)
    }

    /// The row of a text table that a class has, where its file says so.
    pub(super) fn text_row(&self, class: usize) -> Option<u32> {
        self.text_rows.get(class).copied().flatten()
    }

    /// The images of the classes.
    ///
    /// # Errors
    /// The classes are no folders of images.
    pub fn images(&self) -> Result<ImageStore> {
        if self.folders_below.is_none() {
            let problem = "expected a folder, or a .tar, with a folder of images for each class";
            return Err(Error::invalid(&self.path, "classes", problem)
                .with_hint("a teacher can only look at images of single classes"));
        }
        ImageStore::open(&self.path, Orientation::default())
    }

    /// The folder of each class in [`Self::images`].
    pub fn folders(&self) -> impl Iterator<Item = String> {
        let below = self.folders_below.clone().unwrap_or_default();
        self.classes.iter().map(move |class| format!("{below}{}", class.id))
    }

    /// The file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn new(path: &Path, classes: Vec<ClassName<'static>>, note: String) -> Self {
        let text_rows = vec![None; classes.len()];
        let (text, notes, path) = (Vec::new(), vec![note], path.to_owned());
        Self { classes, text_rows, text, notes, path, folders_below: None }
    }

    fn of_set(path: &Path) -> Result<Self> {
        let opening = Opening {
            usual_split: Some("train"),
            annotated: false,
            pixels: false,
            ..Opening::default()
        };
        let set = Dataset::open_as(path, &opening)?;
        let synonyms = set.synonyms().iter().cloned();
        let categories = set.vocabulary().categories().iter().zip(synonyms);
        let class = |(category, synonyms): (&Category, Vec<String>)| ClassName {
            synonyms,
            synset: category.synset.clone(),
            wnid: category.wnid.clone(),
            images: Some(category.image_count.into()),
            frequency: Some(category.frequency),
            ..by_id(&category.id.0.to_string(), &category.name)
        };
        let report = set.report();
        let part =
            if set.split().is_empty() { String::new() } else { format!(", `{}`", set.split()) };
        let note = format!("{} classes of a set ({}{part})", report.categories, report.format);
        let mut names = Self::new(path, categories.map(class).collect(), note);
        names.text_rows =
            set.vocabulary().categories().iter().map(|class| class.text_row).collect();
        Ok(names)
    }

    fn of_folders(path: &Path) -> Result<Self> {
        let store = ImageStore::open(path, Orientation::default())?;
        let mut folders = store.folders("")?;
        let (mut of, mut below) = (String::new(), String::new());
        if !folders.is_empty() && folders.iter().all(|folder| formats::is_usual(folder)) {
            let train = folders.iter().find(|folder| formats::same_split(folder, "train"));
            if let Some(train) = train {
                of = format!(" of `{train}`");
                below = format!("{train}/");
                folders = store.folders(&below)?;
            }
        }
        if folders.is_empty() {
            let problem = "expected a folder for each class, got none";
            return Err(Error::invalid(path, "classes", problem).with_hint(format!(
                "give the folder that holds the classes' folders; an annotated set that is not recognised is \
                 read by `dataset convert` with {}",
                Argument::Format
            )));
        }
        let note = format!("{} folders{of}, one a class", folders.len());
        let classes = folders.iter().map(|name| by_id(name, name)).collect();
        Ok(Self { folders_below: Some(below), ..Self::new(path, classes, note) })
    }

    fn of_list(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let (mut classes, mut blank) = (Vec::new(), 0);
        // Names that are meant to have a comma are cut there.
        let (mut cut, mut example) = (0, None);
        for line in text.lines().map(str::trim) {
            if line.is_empty() {
                blank += 1;
                continue;
            }
            let (id, words) = line.split_once('\t').unwrap_or(("", line));
            let mut words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
            let Some(name) = words.next() else {
                let problem = format!("expected a name, got `{line}`");
                let number = classes.len() + blank + 1;
                return Err(Error::invalid(path, format!("line {number}"), problem)
                    .with_hint("a class a line; synonyms behind commas"));
            };
            let mut class = by_id(if id.is_empty() { name } else { id }, name);
            let synonyms: Vec<String> = words.map(str::to_owned).collect();
            // ImageNet's lines, with a tab, are made so.
            if id.is_empty() && !synonyms.is_empty() {
                cut += 1;
                example.get_or_insert_with(|| format!("`{line}` is the class `{name}`"));
            }
            class.synonyms.extend(synonyms);
            classes.push(class);
        }
        let note = format!("{} lines, one a class; {blank} blank ones", classes.len());
        let mut names = Self::new(path, classes, note);
        if let Some(example) = example {
            names.notes.push(format!(
                "{} commas, and what follows one is a synonym: {example}",
                clause(cut, "line", ["has", "have"])
            ));
        }
        Ok(names)
    }

    fn of_csv(path: &Path) -> Result<Self> {
        let read = read_classes(path)?;
        let classes =
            read.mids.iter().zip(&read.names).map(|(mid, name)| by_id(mid, name)).collect();
        let note = format!("{} classes by MID (OpenImages)", read.names.len());
        Ok(Self::new(path, classes, note))
    }

    fn of_json(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        // What is wrong with the file, if anything, the reader below says better.
        let _ = json::open(path)?.take(64).read_to_end(&mut start);
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
        let is_list = start.trim_ascii_start().starts_with(b"[");
        let mut stream = JsonStream::new(path, json::open(path)?, CHUNK);
        let mut names = Self::new(path, Vec::new(), String::new());
        let mut found = is_list;
        stream.open(if is_list { &LIST } else { &OBJECT })?;
        if is_list {
            stream.records("", |batch| json::parse(path, batch, |i, raw| names.add(i, raw)))?;
            stream.end()?;
        } else {
            while let Some(key) = stream.next_key()? {
                if key == "categories" {
                    found = true;
                    stream.records(&key, |batch| {
                        json::parse(path, batch, |i, raw| names.add(i, raw))
                    })?;
                } else {
                    stream.skip_value(&key)?;
                }
            }
            stream.end()?;
        }
        if !found {
            return Err(Error::invalid(path, "categories", "missing")
                .with_hint("expected a COCO or LVIS file, or a list of its categories"));
        }
        names.notes = vec![format!("{} categories", names.classes.len())];
        Ok(names)
    }

    fn add(&mut self, index: usize, raw: RawCategory) -> Result<()> {
        let id = match &raw.id {
            None => raw.name.clone(),
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            Some(other) => {
                let problem = format!("expected an integer or a string, got {other}");
                return Err(Error::invalid(&self.path, format!("categories[{index}].id"), problem));
            }
        };
        self.text_rows.push(raw.text_row);
        self.classes.push(ClassName {
            synonyms: raw.synonyms.into_iter().filter(|s| *s != raw.name).collect(),
            synset: raw.synset,
            wnid: raw.wnid,
            images: raw.image_count,
            frequency: raw.frequency,
            ..by_id(&id, &raw.name)
        });
        Ok(())
    }

    /// Refuses no class and ids that are there twice; counts names that are.
    fn check(&mut self) -> Result<()> {
        if self.classes.is_empty() {
            return Err(Error::invalid(&self.path, "classes", "expected at least one, got none"));
        }
        let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::<&str, usize>::new());
        for (place, class) in self.classes.iter().enumerate() {
            if let Some(earlier) = ids.insert(&class.id, place) {
                let problem = format!(
                    "`{}` is the id of classes {} and {}",
                    class.id,
                    earlier + 1,
                    place + 1
                );
                return Err(Error::invalid(&self.path, "classes", problem)
                    .with_hint("every class needs an id (or, in a list, a name) of its own"));
            }
            *names.entry(&class.name).or_default() += 1;
        }
        let twice: Vec<String> =
            names.iter().filter(|(_, n)| **n > 1).map(|(name, _)| format!("`{name}`")).collect();
        if !twice.is_empty() {
            let names = first_few(twice.into_iter());
            self.notes.push(format!("names of more than one class: {names}"));
        }
        Ok(())
    }

    /// Ids that are numbers put classes in order, as in a model.
    fn order(&mut self) {
        let number = |class: &ClassName<'_>| class.id.parse::<i64>().ok();
        if self.classes.iter().all(|class| number(class).is_some()) {
            let rows = std::mem::take(&mut self.text_rows);
            let mut both: Vec<_> =
                std::mem::take(&mut self.classes).into_iter().zip(rows).collect();
            both.sort_by_key(|(class, _)| number(class));
            (self.classes, self.text_rows) = both.into_iter().unzip();
        }
    }
}

/// A class of an id and a name. If the id is a wnid and there is no other name, WordNet's words are its
/// names.
fn by_id(id: &str, name: &str) -> ClassName<'static> {
    let wordnet = WordNet::get();
    let mut class = ClassName { id: id.to_owned(), name: name.to_owned(), ..ClassName::default() };
    if let Some(synset) = wordnet.by_wnid(id) {
        class.wnid = Some(id.to_owned());
        if name == id {
            let words = wordnet.words(synset);
            class.name = words[0].to_owned();
            class.synonyms = words[1..].iter().map(|word| (*word).to_owned()).collect();
        }
    }
    class
}

const EXPECTED: &str = "a COCO or LVIS file, or a list of its categories";
const OBJECT: TopLevel = TopLevel { bracket: b'{', expected: EXPECTED, other: "give such a file" };
const LIST: TopLevel = TopLevel { bracket: b'[', expected: EXPECTED, other: "give such a file" };

#[derive(Deserialize)]
struct RawCategory {
    id: Option<Value>,
    name: String,
    #[serde(default)]
    synonyms: Vec<String>,
    synset: Option<String>,
    wnid: Option<String>,
    image_count: Option<u64>,
    frequency: Option<Frequency>,
    #[serde(rename = "lvis_clip_row")]
    text_row: Option<u32>,
}

impl JsonRecord<'_> for RawCategory {
    const LIST: &'static str = "categories";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "an integer or a string"),
        ("name", "a string"),
        ("synonyms", "a list of strings"),
        ("synset", "a string"),
        ("wnid", "a string"),
        ("image_count", "a whole number of 0 or more"),
        ("frequency", "`r`, `c` or `f`"),
        ("lvis_clip_row", "a row of the text table, 0 or more"),
    ];
}
