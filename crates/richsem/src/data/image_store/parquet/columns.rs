//! Which columns of a table hold annotations, by their names.

use std::sync::Arc;

use ::parquet::schema::types::Type;

use super::schema::ImageColumn;

pub(in crate::data) const BOXES: &[&str] = &["bbox", "bboxes", "box", "boxes"];
pub(in crate::data) const CATEGORIES: &[&str] =
    &["category", "categories", "category_id", "label", "labels", "class", "classes", "class_id"];
pub(in crate::data) const OBJECT_IDS: &[&str] =
    &["id", "ids", "bbox_id", "object_id", "annotation_id"];
pub(in crate::data) const AREAS: &[&str] = &["area", "areas"];
pub(in crate::data) const CROWDS: &[&str] = &["is_crowd", "iscrowd", "crowd"];
const LABELS: &[&str] = &["label", "labels", "class", "category", "fine_label"];
pub(in crate::data) const IMAGE_IDS: &[&str] = &["image_id", "id"];
pub(in crate::data) const WIDTHS: &[&str] = &["width", "image_width"];
pub(in crate::data) const HEIGHTS: &[&str] = &["height", "image_height"];

/// The columns of a row that are read, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) image: String,
    pub(super) id: Option<String>,
    pub(super) width: Option<String>,
    pub(super) height: Option<String>,
    /// The class of the image.
    pub(super) label: Option<String>,
    pub(super) objects: Option<Objects>,
    /// Columns that are not read, those of objects as `objects.segmentation`; in the file's order.
    pub(super) unread: Vec<String>,
}

/// Where a row's objects are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Objects {
    /// The column that holds them; none: each of their fields is a column.
    pub(super) column: Option<String>,
    pub(super) bbox: String,
    pub(super) category: Option<String>,
    pub(super) id: Option<String>,
    pub(super) area: Option<String>,
    pub(super) crowd: Option<String>,
}

impl Objects {
    fn all(&self) -> impl Iterator<Item = &str> {
        let others = [&self.category, &self.id, &self.area, &self.crowd].into_iter().flatten();
        std::iter::once(&self.bbox).chain(others).map(String::as_str)
    }
}

/// The first of some names that is among the fields.
fn first(names: &[&str], fields: &[Arc<Type>], fits: impl Fn(&Type) -> bool) -> Option<String> {
    let there = |name: &&&str| fields.iter().any(|field| field.name() == **name && fits(field));
    names.iter().find(there).map(|name| (*name).to_owned())
}

/// The fields of a struct, or of the structs in a list; none of anything else.
fn inside(field: &Type) -> &[Arc<Type>] {
    if !field.is_group() {
        return &[];
    }
    match field.get_fields() {
        // A list: a repeated group of one element.
        [only] if is_repeated(only) && only.is_group() => match only.get_fields() {
            [element] if element.is_group() => element.get_fields(),
            _ => &[],
        },
        fields => fields,
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == ::parquet::basic::Repetition::REPEATED
}

/// The fields of objects among fields, all of them lists, or of any kind.
fn objects(column: Option<String>, fields: &[Arc<Type>], lists: bool) -> Option<Objects> {
    let of = |names| first(names, fields, |field| !lists || field.is_group());
    Some(Objects {
        column,
        bbox: of(BOXES)?,
        category: of(CATEGORIES),
        id: of(OBJECT_IDS),
        area: of(AREAS),
        crowd: of(CROWDS),
    })
}

impl Columns {
    /// By the names of a table's columns. Objects are the column with a field `bbox` (or the like): the one
    /// called `objects`, or the first.
    pub(super) fn of(root: &Type, image: &ImageColumn) -> Self {
        let fields = root.get_fields();
        let mut nested: Vec<Objects> = fields
            .iter()
            .filter(|field| field.name() != image.name)
            .filter_map(|field| objects(Some(field.name().to_owned()), inside(field), false))
            .collect();
        nested.sort_by_key(|objects| objects.column.as_deref() != Some("objects"));
        let objects = nested.into_iter().next().or_else(|| objects(None, fields, true));
        let scalar = |names: &[&str]| first(names, fields, Type::is_primitive);
        let mut columns = Self {
            image: image.name.clone(),
            id: scalar(IMAGE_IDS),
            width: scalar(WIDTHS),
            height: scalar(HEIGHTS),
            label: scalar(LABELS),
            objects,
            unread: Vec::new(),
        };
        for field in fields.iter().filter(|field| field.name() != image.name) {
            match &columns.objects {
                Some(objects) if objects.column.as_deref() == Some(field.name()) => {
                    let left = inside(field).iter().map(|field| field.name());
                    let left = left.filter(|name| !objects.all().any(|read| read == *name));
                    let left = left.map(|name| format!("{}.{name}", field.name()));
                    columns.unread.extend(left.collect::<Vec<_>>());
                }
                _ if !columns.reads(field.name()) => columns.unread.push(field.name().to_owned()),
                _ => {}
            }
        }
        columns
    }

    /// Whether a column of the table is read, apart from the images.
    pub(super) fn reads(&self, name: &str) -> bool {
        let own = [&self.id, &self.width, &self.height, &self.label].into_iter().flatten();
        let is_own = own.into_iter().any(|own| own == name);
        is_own
            || self.objects.as_ref().is_some_and(|objects| match &objects.column {
                Some(column) => column == name,
                None => objects.all().any(|field| field == name),
            })
    }
}
