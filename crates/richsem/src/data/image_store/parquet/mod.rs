//! Parquet files with a column of images, as Hugging Face's `datasets` writes them.

mod annotations;
mod columns;
mod page;
mod schema;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType},
    errors::{ParquetError, Result as ParquetResult},
    file::reader::FileReader as _,
};

pub(in crate::data) use annotations::shows_boxes;
pub use annotations::{Annotations, Object, Row, Value};
pub(in crate::data) use columns::{
    AREAS, BOXES, CATEGORIES, CROWDS, HEIGHTS, IMAGE_IDS, OBJECT_IDS, WIDTHS,
};
use page::{Page, Recent};
use schema::ImageColumn;
use source::File;

use super::{
    index::{Index, Span},
    pattern,
};
use crate::{Error, Result, data::listing::is_image, plural::clause};

/// Most files that are kept open: a process may have some thousand files open.
const MOST_OPEN: usize = 128;

/// Rows read at a time.
const ROWS: usize = 1024;

/// The tables of a store, and which row each image is in. Of the images, only the pages that were read last
/// are in memory.
#[derive(Debug)]
pub(super) struct Tables {
    /// What the user gave.
    path: PathBuf,
    files: Vec<File>,
    columns: Vec<ImageColumn>,
    /// Row of each image: the part is the file.
    index: Index,
    names: Names,
    /// Images that are called by file and row.
    numbered: usize,
    recent: Recent,
}

/// How images are called: by their `path`, or, where that is null or another image has it, too, by file and
/// row.
#[derive(Debug, Default)]
struct Names {
    /// Paths that more than one image has.
    shared: BTreeSet<String>,
    /// Whether no image is called by its path: paths look like files and rows.
    by_row: bool,
}

impl Names {
    /// The name of a row's image.
    fn of(&self, file: &File, row: u64, path: Option<&str>) -> String {
        match path {
            Some(path) if !self.by_row && !self.shared.contains(path) => {
                super::archives::plain(path).to_owned()
            }
            _ => {
                let stem = &file.stem;
                // The contents say what they are; the end of a name says that it is an image.
                let extension = path.filter(|path| is_image(path));
                let extension = extension.and_then(|path| path.rsplit_once('.'));
                let extension = extension.map_or("jpg", |(_, extension)| extension);
                format!("{stem}/{row}.{extension}")
            }
        }
    }
}

impl Tables {
    /// Reads the names of all images. `path` is what messages name.
    ///
    /// # Errors
    /// A file cannot be read, is no whole parquet file, or has no column of images.
    pub(super) fn open(path: &Path, paths: &[PathBuf]) -> Result<Self> {
        let (mut files, mut columns, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (path, stem) in paths.iter().zip(pattern::stems(paths)) {
            let file = File::open(path, stem, paths.len() <= MOST_OPEN)?;
            let column = schema::image_column(path, file.reader.metadata())?;
            rows.push(image_paths(&file, &column)?);
            files.push(file);
            columns.push(column);
        }
        let mut names = Names { shared: shared(&rows), by_row: false };
        let count: usize = rows.iter().map(Vec::len).sum();
        let index = |names: &Names| {
            let mut entries = Vec::with_capacity(count);
            for ((part, file), rows) in (0..).zip(&files).zip(&rows) {
                for (row, path) in (0..).zip(rows) {
                    let name = names.of(file, row, path.as_deref());
                    entries.push((name, Span { part, offset: row, length: 0 }));
                }
            }
            Index::of(entries, path)
        };
        let mut found = index(&names)?;
        if found.len() != count as u64 {
            names.by_row = true;
            found = index(&names)?;
        }
        let unnamed = |path: &&Option<String>| match path {
            Some(path) => names.by_row || names.shared.contains(path),
            None => true,
        };
        let numbered = rows.iter().flatten().filter(unnamed).count();
        let index = found;
        Ok(Self {
            path: path.to_owned(),
            files,
            columns,
            index,
            names,
            numbered,
            recent: Recent::default(),
        })
    }

    /// What the user gave.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its images.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// What should be told, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        if self.numbered == 0 {
            return Vec::new();
        }
        let why = match self.names.shared.first() {
            Some(path) => format!("not all have a path of their own (as `{path}`)"),
            None => "not all have a path".to_owned(),
        };
        let images = clause(self.numbered, "image", ["is", "are"]);
        vec![format!("{images} called by file and row, as `train-0/17.jpg`: {why}")]
    }

    /// The bytes of an image's file.
    ///
    /// # Errors
    /// There is no such image, its row has no bytes, or the table cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let Some(span) = self.index.find(super::archives::plain(name))? else {
            let problem = format!("not among the table's {} images", self.index.len());
            let error = Error::invalid(&self.path, name, problem);
            return Err(match self.index.first_from("")? {
                Some(example) => error.with_hint(format!("its names look like `{example}`")),
                None => error,
            });
        };
        let number = span.part as usize;
        let (Some(file), Some(column)) = (self.files.get(number), self.columns.get(number)) else {
            return Err(Error::invalid(&self.path, name, "no such file"));
        };
        let row = span.offset as usize;
        let page = match self.recent.find(number, row) {
            Some(page) => page,
            None => {
                let page = file.whole(|| Page::read(file, number, column.bytes, row))?;
                let page = Arc::new(page);
                self.recent.keep(page.clone());
                page
            }
        };
        page.image(row).map(<[u8]>::to_vec).ok_or_else(|| {
            let field = format!("row {}: {}.bytes", span.offset, column.name);
            Error::invalid(&file.path, field, "null").with_hint(
                "the images are not in the table: embed them, as `Dataset.push_to_hub` does",
            )
        })
    }
}

/// Paths that more than one row has.
fn shared(files: &[Vec<Option<String>>]) -> BTreeSet<String> {
    let mut paths: Vec<&str> = files.iter().flatten().flatten().map(String::as_str).collect();
    paths.sort_unstable();
    let pairs = paths.windows(2).filter(|pair| pair[0] == pair[1]);
    pairs.map(|pair| pair[0].to_owned()).collect()
}

/// The column `path` of all rows.
fn image_paths(file: &File, column: &ImageColumn) -> Result<Vec<Option<String>>> {
    let paths = file.whole(|| {
        let mut paths = Vec::new();
        for group in 0..file.reader.num_row_groups() {
            let mut reader = bytes_reader(file, group, column.path)?;
            let before = paths.len();
            while let Some(some) = read_some(&mut reader, ROWS)? {
                let text = |bytes: ByteArray| String::from_utf8_lossy(bytes.data()).into_owned();
                let texts = some.into_iter().map(|path| path.map(text));
                paths.extend(texts.map(|path| path.filter(|path| !path.is_empty())));
            }
            let rows = file.reader.metadata().row_group(group).num_rows();
            if i64::try_from(paths.len() - before) != Ok(rows) {
                let problem = format!("row group {group} does not have {rows} rows");
                return Err(ParquetError::General(problem));
            }
        }
        Ok(paths)
    })?;
    Ok(paths)
}

fn bytes_reader(
    file: &File,
    group: usize,
    column: usize,
) -> ParquetResult<ColumnReaderImpl<ByteArrayType>> {
    match file.reader.get_row_group(group)?.get_column_reader(column)? {
        ColumnReader::ByteArrayColumnReader(reader) => Ok(reader),
        _ => Err(ParquetError::General("expected a column of bytes".to_owned())),
    }
}

/// The next values of a column, null where there is none; `None` at the end.
fn read_some(
    reader: &mut ColumnReaderImpl<ByteArrayType>,
    rows: usize,
) -> ParquetResult<Option<Vec<Option<ByteArray>>>> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if records == 0 {
        return Ok(None);
    }
    let most = levels.iter().copied().max().unwrap_or(0);
    if levels.is_empty() || values.len() == levels.len() {
        return Ok(Some(values.into_iter().map(Some).collect()));
    }
    let mut values = values.into_iter();
    let there = levels.iter().map(|level| if *level == most { values.next() } else { None });
    Ok(Some(there.collect()))
}
