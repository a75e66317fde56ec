//! Names of classes from files: annotation files, lists, OpenImages' CSV, folders of a class each.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{ClassName, wordnet::WordNet};
use crate::{
    checkpoint_io::read_text_rows,
    error::{Error, Result, first_few, read_text},
    json::{self, JsonRecord, JsonStream, TopLevel},
    vocabulary::Frequency,
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
}

impl Names {
    /// Reads the names. By what `path` is:
    /// - a folder: its folders are classes, by wnid (`n02690373`) or by name;
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
        let mut names = if path.is_dir() {
            Self::of_folder(path)?
        } else {
            match ending.as_str() {
                "json" | "gz" => Self::of_json(path)?,
                "csv" => Self::of_csv(path)?,
                _ => Self::of_list(path)?,
            }
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

    /// The file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn new(path: &Path, classes: Vec<ClassName<'static>>, note: String) -> Self {
        let text_rows = vec![None; classes.len()];
        Self { classes, text_rows, text: Vec::new(), notes: vec![note], path: path.to_owned() }
    }

    fn of_folder(path: &Path) -> Result<Self> {
        let (mut folders, mut files) = (Vec::new(), 0);
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.path().is_dir() {
                files += 1;
            } else if !name.starts_with('.') {
                folders.push(name);
            }
        }
        folders.sort_unstable();
        if folders.is_empty() {
            let problem = format!("expected a folder for each class, got none ({files} files)");
            return Err(Error::invalid(path, "classes", problem)
                .with_hint("give the folder that holds the classes' folders"));
        }
        let note = format!("{} folders, one a class; {files} files beside them", folders.len());
        Ok(Self::new(path, folders.iter().map(|name| by_id(name, name)).collect(), note))
    }

    fn of_list(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let (mut classes, mut blank) = (Vec::new(), 0);
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
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
            class.synonyms.extend(words.map(str::to_owned));
            classes.push(class);
        }
        let note = format!("{} lines, one a class; {blank} blank ones", classes.len());
        Ok(Self::new(path, classes, note))
    }

    fn of_csv(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let mut classes = Vec::new();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let fields = csv_fields(line);
            let [id, name] = &fields[..] else {
                let problem = format!("expected 2 fields, MID and name, got {}", fields.len());
                return Err(Error::invalid(path, format!("line {number}"), problem)
                    .with_hint("as OpenImages' class descriptions: /m/01g317,Person"));
            };
            if number == 1 && id.eq_ignore_ascii_case("LabelName") {
                continue;
            }
            if id.is_empty() || name.is_empty() {
                let problem = format!("expected MID and name, got `{line}`");
                return Err(Error::invalid(path, format!("line {number}"), problem));
            }
            classes.push(by_id(id, name));
        }
        let note = format!("{} classes by MID (OpenImages)", classes.len());
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

/// Fields between commas; quotes as in RFC 4180, within a line.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut();
        match (c, field) {
            ('"', Some(field)) if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => fields.push(String::new()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields.iter().map(|field| field.trim().to_owned()).collect()
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
