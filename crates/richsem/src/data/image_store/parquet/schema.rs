//! Which columns a parquet file has, and what Hugging Face's `datasets` wrote about them.

use std::path::Path;

use ::parquet::{basic::Type as Physical, file::metadata::ParquetMetaData, schema::types::Type};
use serde_json::Value;

use crate::{Error, Result, error::first_few};

/// The column of images: a group of `bytes`, the image's file, and `path`, its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageColumn {
    /// The group's name.
    pub(super) name: String,
    /// Number of the column `bytes`.
    pub(super) bytes: usize,
    /// Number of the column `path`.
    pub(super) path: usize,
}

/// The column of images. Of several, the one called `image`.
///
/// # Errors
/// There is none, or there are several and none has that name.
pub(super) fn image_column(path: &Path, metadata: &ParquetMetaData) -> Result<ImageColumn> {
    let schema = metadata.file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let mut found: Vec<&str> = Vec::new();
    for field in fields {
        let is = |child: &Type, name: &str| {
            child.name() == name
                && child.is_primitive()
                && child.get_physical_type() == Physical::BYTE_ARRAY
        };
        let has = |name| field.is_group() && field.get_fields().iter().any(|c| is(c, name));
        if has("bytes") && has("path") {
            found.push(field.name());
        }
    }
    let name = match &found[..] {
        [only] => *only,
        [] => {
            let columns = first_few(fields.iter().map(|field| field.name().to_owned()));
            let problem = format!("no column of images; the columns are {columns}");
            return Err(Error::invalid(path, "image", problem).with_hint(
                "expected a column as Hugging Face's `Image`: a struct of `bytes` and `path`",
            ));
        }
        several if several.contains(&"image") => "image",
        several => {
            let several = several.join(", ");
            let problem =
                format!("several columns of images, and none is called `image`: {several}");
            return Err(Error::invalid(path, "image", problem)
                .with_hint("write a file with one of them, or call one `image`"));
        }
    };
    let column = |child: &str| {
        (0..schema.num_columns()).find(|i| schema.column(*i).path().parts() == [name, child])
    };
    match (column("bytes"), column("path")) {
        (Some(bytes), Some(path)) => Ok(ImageColumn { name: name.to_owned(), bytes, path }),
        _ => Err(Error::invalid(path, name, "expected the columns `bytes` and `path`")),
    }
}

/// What `datasets` wrote about the columns: the features.
pub(super) fn features(metadata: &ParquetMetaData) -> Option<Value> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let written = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref()?;
    let mut written: Value = serde_json::from_str(written).ok()?;
    Some(written.get_mut("info")?.get_mut("features")?.take())
}

/// The names of the classes of a column, by the path to it as `objects`, `category`. Lists on the way may be
/// written in any of the ways that `datasets` has had: `[feature]`, `Sequence`, `List`.
pub(super) fn class_names(features: &Value, path: &[&str]) -> Option<Vec<String>> {
    let mut feature = features;
    for name in path {
        feature = of_list(feature).get(name)?;
    }
    let feature = of_list(feature);
    if feature.get("_type")? != "ClassLabel" {
        return None;
    }
    let names = feature.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// What is in the lists.
fn of_list(mut feature: &Value) -> &Value {
    loop {
        feature = match feature {
            Value::Array(elements) if elements.len() == 1 => &elements[0],
            Value::Object(fields) => {
                let kind = fields.get("_type").and_then(Value::as_str);
                match (kind, fields.get("feature")) {
                    (Some("Sequence" | "List" | "LargeList"), Some(inside)) => inside,
                    _ => return feature,
                }
            }
            _ => return feature,
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn class_names_are_found_in_every_way_of_writing_lists() {
        let class = json!({"names": ["a", "b"], "_type": "ClassLabel"});
        for objects in [
            json!({"category": {"feature": class, "_type": "List"}}),
            json!({"feature": {"category": class}, "_type": "Sequence"}),
            json!({"feature": {"category": class}, "_type": "List"}),
            json!([{"category": class}]),
        ] {
            let features = json!({"objects": objects});
            let names = class_names(&features, &["objects", "category"]).unwrap();
            assert_eq!(names, ["a", "b"], "{features}");
            assert_eq!(class_names(&features, &["objects", "id"]), None);
        }
        let features = json!({"label": {"dtype": "int64", "_type": "Value"}});
        assert_eq!(class_names(&features, &["label"]), None);
    }
}
