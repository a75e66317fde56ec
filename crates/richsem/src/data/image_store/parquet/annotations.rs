//! What parquet files say about their images: classes, objects and their boxes.

use std::{borrow::Cow, path::Path, sync::Arc};

use ::parquet::{
    file::reader::FileReader as _,
    record::{Field, Row as Record},
    schema::types::Type,
};

use super::{
    super::recognise::recognise,
    Tables,
    columns::{Columns, Objects},
    schema,
    source::File,
};
use crate::{Error, Result, data::image_store::StoreKind};

/// An id or a class, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// An object in an image, as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Four numbers. The file does not say whether they are x, y, width and height, or two corners, nor
    /// whether they are pixels or shares of the image.
    pub bbox: [f64; 4],
    /// The class: none if there is no such column, it is null, or it is the number -1 of a column of
    /// classes, which stands for none.
    pub category: Option<Value>,
    /// Its id.
    pub id: Option<Value>,
    /// Its area, in whatever unit.
    pub area: Option<f64>,
    /// Whether it is a group of objects.
    pub crowd: Option<bool>,
}

/// A row of a table: an image and what is said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The image, as the store of the same files calls it.
    pub image: String,
    /// The file's number among the store's files.
    pub file: usize,
    /// The row's number in its file, from 0.
    pub row: u64,
    /// The image's id.
    pub id: Option<Value>,
    /// Width of the image in pixels, as written.
    pub width: Option<i64>,
    /// Height of the image in pixels, as written.
    pub height: Option<i64>,
    /// The class of the image; -1 is none, as of [`Object::category`].
    pub label: Option<Value>,
    /// The objects; none if the table has no boxes, or the row's are null.
    pub objects: Option<Vec<Object>>,
}

/// The annotations of parquet files with images.
#[derive(Debug)]
pub struct Annotations {
    tables: Tables,
    columns: Vec<Columns>,
    classes: Option<Vec<String>>,
    labels: Option<Vec<String>>,
}

impl Annotations {
    /// Finds the columns, in whatever [`ImageStore::open`](crate::data::image_store::ImageStore::open) takes
    /// for parquet.
    ///
    /// # Errors
    /// `path` is not parquet, a file cannot be read, or files name other classes.
    pub fn open(path: &Path) -> Result<Self> {
        let recognised = recognise(path)?;
        if recognised.kind != StoreKind::Parquet {
            let problem = format!("expected parquet, got {}", recognised.kind);
            return Err(Error::invalid(path, "parquet", problem));
        }
        let tables = Tables::open(path, &recognised.files)?;
        let mut columns = Vec::new();
        let mut names: Option<[Option<Vec<String>>; 2]> = None;
        for (file, image) in tables.files.iter().zip(&tables.columns) {
            let metadata = file.reader.metadata();
            let root = metadata.file_metadata().schema_descr().root_schema();
            let of_file = Columns::of(root, image);
            let found = [of_file.category_path(), of_file.label.as_deref().map(|l| vec![l])]
                .map(|path| schema::class_names(&schema::features(metadata)?, &path?));
            if names.get_or_insert_with(|| found.clone()) != &found {
                let problem = "its classes are not those of the first file";
                return Err(Error::invalid(&file.path, "huggingface", problem)
                    .with_hint("give the files of one data set"));
            }
            columns.push(of_file);
        }
        let [classes, labels] = names.unwrap_or_default();
        Ok(Self { tables, columns, classes, labels })
    }

    /// The names of the objects' classes, if the file has them: [`Value::Integer`] counts in this list.
    #[must_use]
    pub fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    /// The names of the images' classes, if the file has them.
    #[must_use]
    pub fn labels(&self) -> Option<&[String]> {
        self.labels.as_deref()
    }

    /// Whether the table has boxes.
    #[must_use]
    pub fn has_boxes(&self) -> bool {
        self.columns.iter().any(|columns| columns.objects.is_some())
    }

    /// Whether the table has labels of the images.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        self.columns.iter().any(|columns| columns.label.is_some())
    }

    /// Number of files.
    #[must_use]
    pub fn files(&self) -> usize {
        self.tables.files.len()
    }

    /// The columns that are not read, as `objects.segmentation`.
    #[must_use]
    pub fn unread(&self) -> Vec<&str> {
        let mut unread: Vec<&str> =
            self.columns.iter().flat_map(|c| &c.unread).map(String::as_str).collect();
        unread.sort_unstable();
        unread.dedup();
        unread
    }

    /// The file of that number: [`Row::file`].
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn file(&self, number: usize) -> &Path {
        &self.tables.files[number].path
    }

    /// Number of rows of all files.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tables.index.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows all rows, in the order of files and rows. The images themselves are not read.
    ///
    /// # Errors
    /// A file cannot be read, a value is not what its column should hold, or lists of one row's objects
    /// have different lengths: with file, row and column. Those of `visit`.
    pub fn each(&self, mut visit: impl FnMut(Row) -> Result<()>) -> Result<()> {
        for (number, (file, columns)) in self.tables.files.iter().zip(&self.columns).enumerate() {
            let metadata = file.reader.metadata().file_metadata();
            let wanted = projection(metadata.schema_descr().root_schema(), columns);
            let reader = Reader { file, columns };
            let mut records =
                file.whole(|| file.reader.get_row_iter(Some(Arc::unwrap_or_clone(wanted?))))?;
            let mut row = 0;
            while let Some(record) = file.whole(|| records.next().transpose())? {
                let path = reader.path(&record);
                let image = self.tables.names.of(file, row, path.as_deref());
                visit(reader.row(&record, (number, row), image)?)?;
                row += 1;
            }
        }
        Ok(())
    }
}

/// Whether a parquet file has images with boxes, as far as it says about itself.
///
/// # Errors
/// It cannot be read, or is no whole parquet file.
pub(in crate::data) fn shows_boxes(path: &Path) -> Result<bool> {
    let file = File::open(path, String::new(), false)?;
    let metadata = file.reader.metadata();
    let Ok(image) = schema::image_column(path, metadata) else { return Ok(false) };
    let root = metadata.file_metadata().schema_descr().root_schema();
    Ok(Columns::of(root, &image).objects.is_some())
}

impl Columns {
    fn category_path(&self) -> Option<Vec<&str>> {
        let objects = self.objects.as_ref()?;
        let category = objects.category.as_deref()?;
        Some(objects.column.as_deref().into_iter().chain([category]).collect())
    }
}

/// The columns that are read: without the images' bytes.
fn projection(root: &Type, columns: &Columns) -> ::parquet::errors::Result<Arc<Type>> {
    let mut fields = Vec::new();
    for field in root.get_fields() {
        if field.name() == columns.image {
            let path = field.get_fields().iter().filter(|child| child.name() == "path").cloned();
            let group = Type::group_type_builder(field.name())
                .with_repetition(field.get_basic_info().repetition())
                .with_fields(path.collect());
            fields.push(Arc::new(group.build()?));
        } else if columns.reads(field.name()) {
            fields.push(field.clone());
        }
    }
    Ok(Arc::new(Type::group_type_builder(root.name()).with_fields(fields).build()?))
}

/// Reads the rows of one file.
struct Reader<'a> {
    file: &'a File,
    columns: &'a Columns,
}

fn get<'a>(record: &'a Record, name: Option<&str>) -> &'a Field {
    let name = name.unwrap_or_default();
    let found = record.get_column_iter().find(|(column, _)| *column == name);
    found.map_or(&Field::Null, |(_, field)| field)
}

impl Reader<'_> {
    fn path<'r>(&self, record: &'r Record) -> Option<Cow<'r, str>> {
        let Field::Group(image) = get(record, Some(&self.columns.image)) else { return None };
        let path = match get(image, Some("path")) {
            Field::Str(path) => Cow::Borrowed(&**path),
            Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()),
            _ => return None,
        };
        Some(path).filter(|path| !path.is_empty())
    }

    fn row(&self, record: &Record, (file, row): (usize, u64), image: String) -> Result<Row> {
        let at = Place { file: self.file, row };
        let of = |name: &Option<String>| get(record, name.as_deref());
        let Columns { id, width, height, label, objects, .. } = self.columns;
        Ok(Row {
            image,
            file,
            row,
            id: at.value(of(id), id)?,
            width: at.integer(of(width), width)?,
            height: at.integer(of(height), height)?,
            label: unless_absent(at.value(of(label), label)?),
            objects: match objects {
                Some(objects) => self.objects(record, objects, &at)?,
                None => None,
            },
        })
    }

    /// The objects of a struct of lists, of a list of structs, or of lists.
    fn objects(
        &self,
        record: &Record,
        objects: &Objects,
        at: &Place<'_>,
    ) -> Result<Option<Vec<Object>>> {
        let record = match &objects.column {
            None => record,
            Some(column) => match get(record, Some(column)) {
                Field::Null => return Ok(None),
                Field::Group(lists) => lists,
                Field::ListInternal(structs) => {
                    let object = |field: &Field| match field {
                        Field::Group(fields) => {
                            let of = |name: &Option<String>| get(fields, name.as_deref());
                            self.object(get(fields, Some(&objects.bbox)), of, objects, at)
                        }
                        other => Err(at.wrong(column, "a struct", other)),
                    };
                    return structs.elements().iter().map(object).collect::<Result<_>>().map(Some);
                }
                other => return Err(at.wrong(column, "a struct of lists or a list", other)),
            },
        };
        let list = |name: &str| match get(record, Some(name)) {
            Field::Null => Ok(None),
            Field::ListInternal(list) => Ok(Some(list.elements())),
            other => Err(at.wrong(name, "a list", other)),
        };
        let Some(boxes) = list(&objects.bbox)? else { return Ok(None) };
        let Objects { category, id, area, crowd, .. } = objects;
        for name in [category, id, area, crowd].into_iter().flatten() {
            let length = list(name)?.map_or(boxes.len(), <[Field]>::len);
            if length != boxes.len() {
                let problem = format!("{length} values for {} boxes", boxes.len());
                return Err(at.invalid(name, problem));
            }
        }
        let object = |(i, bbox): (usize, &Field)| {
            let of = |name: &Option<String>| match get(record, name.as_deref()) {
                Field::ListInternal(list) => list.elements().get(i).unwrap_or(&Field::Null),
                _ => &Field::Null,
            };
            self.object(bbox, of, objects, at)
        };
        boxes.iter().enumerate().map(object).collect::<Result<_>>().map(Some)
    }

    fn object<'f>(
        &self,
        bbox: &Field,
        of: impl Fn(&Option<String>) -> &'f Field,
        objects: &Objects,
        at: &Place<'_>,
    ) -> Result<Object> {
        let Objects { category, id, area, crowd, .. } = objects;
        Ok(Object {
            bbox: at.bbox(bbox, &objects.bbox)?,
            category: unless_absent(at.value(of(category), category)?),
            id: at.value(of(id), id)?,
            area: at.number(of(area), area)?,
            crowd: at.flag(of(crowd), crowd)?,
        })
    }
}

/// -1 is no class, also of classes without names.
fn unless_absent(value: Option<Value>) -> Option<Value> {
    value.filter(|value| *value != Value::Integer(-1))
}

/// A row, as messages name it.
struct Place<'a> {
    file: &'a File,
    row: u64,
}

impl Place<'_> {
    fn invalid(&self, column: &str, problem: impl Into<String>) -> Error {
        Error::invalid(&self.file.path, format!("row {}: {column}", self.row), problem)
    }

    fn wrong(&self, column: &str, expected: &str, got: &Field) -> Error {
        /// Characters of a value that are shown.
        const SHOWN: usize = 60;
        let got: String = got.to_string().chars().take(SHOWN).collect();
        self.invalid(column, format!("expected {expected}, got {got}"))
    }

    fn bbox(&self, field: &Field, column: &str) -> Result<[f64; 4]> {
        let wrong = || self.wrong(column, "four numbers", field);
        let Field::ListInternal(list) = field else { return Err(wrong()) };
        let numbers: Option<Vec<f64>> = list.elements().iter().map(number).collect();
        numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
    }

    fn value(&self, field: &Field, column: &Option<String>) -> Result<Option<Value>> {
        Ok(Some(match field {
            Field::Null => return Ok(None),
            Field::Str(text) => Value::Text(text.clone()),
            other => match integer(other) {
                Some(integer) => Value::Integer(integer),
                None => return Err(self.wrong(named(column), "an integer or a text", other)),
            },
        }))
    }

    fn integer(&self, field: &Field, column: &Option<String>) -> Result<Option<i64>> {
        match field {
            Field::Null => Ok(None),
            other => match integer(other) {
                Some(integer) => Ok(Some(integer)),
                None => Err(self.wrong(named(column), "an integer", other)),
            },
        }
    }

    fn number(&self, field: &Field, column: &Option<String>) -> Result<Option<f64>> {
        match field {
            Field::Null => Ok(None),
            other => match number(other) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(named(column), "a number", other)),
            },
        }
    }

    fn flag(&self, field: &Field, column: &Option<String>) -> Result<Option<bool>> {
        match (field, integer(field)) {
            (Field::Null, _) => Ok(None),
            (Field::Bool(flag), _) => Ok(Some(*flag)),
            (_, Some(flag @ (0 | 1))) => Ok(Some(flag == 1)),
            (other, _) => Err(self.wrong(named(column), "true, false, 0 or 1", other)),
        }
    }
}

fn named(column: &Option<String>) -> &str {
    column.as_deref().unwrap_or_default()
}

fn integer(field: &Field) -> Option<i64> {
    Some(match field {
        Field::Byte(value) => i64::from(*value),
        Field::Short(value) => i64::from(*value),
        Field::Int(value) => i64::from(*value),
        Field::Long(value) => *value,
        Field::UByte(value) => i64::from(*value),
        Field::UShort(value) => i64::from(*value),
        Field::UInt(value) => i64::from(*value),
        Field::ULong(value) => i64::try_from(*value).ok()?,
        _ => return None,
    })
}

fn number(field: &Field) -> Option<f64> {
    match field {
        Field::Float(value) => Some(f64::from(*value)),
        Field::Double(value) => Some(*value),
        Field::Float16(value) => Some(f64::from(*value)),
        other => integer(other).map(|value| value as f64),
    }
}
