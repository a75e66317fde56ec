//! Reads the text embeddings of a vocabulary from a table in a file.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{npy, safetensors};
use crate::{
    error::{Error, Result},
    models::class_head::TextTable,
    vocabulary::Vocabulary,
};

/// Reads a `.npy` or safetensors table `[rows, D_text]`. If there are as many rows as classes, they belong to
/// the classes in order of category ids. Otherwise each category's `lvis_clip_row` names its row.
///
/// # Errors
/// A file that is neither, of another shape, or without a row for some class.
pub fn read_text_table(path: &Path, vocabulary: &Vocabulary) -> Result<TextTable> {
    if !path.is_file() {
        let problem = format!("there is no file `{}`", path.display());
        return Err(Error::config("model.class_head.table", problem)
            .with_hint("paths of a settings file are relative to it, those of the command line to the working folder"));
    }
    let table = read_rows(path)?;
    let rows = table.size()[0];
    let classes = vocabulary.len() as i64;
    if rows == classes {
        return checked_text_table(&table, vocabulary, path);
    }
    let mut chosen = Vec::with_capacity(vocabulary.len());
    for category in vocabulary.categories() {
        match category.text_row.map(i64::from) {
            Some(row) if row < rows => chosen.push(row),
            Some(row) => {
                let problem = format!("`{}` wants row {row}, the table has {rows}", category.name);
                return Err(Error::invalid(path, "rows", problem));
            }
            None => {
                let problem = format!(
                    "the table has {rows} rows for {classes} classes, and `{}` (category {}) names none",
                    category.name, category.id.0
                );
                return Err(Error::invalid(path, "rows", problem)
                    .with_hint("give one row a class, in order of category ids"));
            }
        }
    }
    checked_text_table(&table.index_select(0, &Tensor::from_slice(&chosen)), vocabulary, path)
}

/// Reads the one table `[rows, width]` of a `.npy` or safetensors file, to the CPU, in the file's kind.
fn read_rows(path: &Path) -> Result<Tensor> {
    let is_npy = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"));
    let table = if is_npy {
        npy::read(path)?
    } else {
        let (tensors, _) = safetensors::read(path)?;
        let names: Vec<String> = tensors.keys().cloned().collect();
        let mut tables = tensors.into_values().filter(|t| t.dim() == 2);
        match (tables.next(), tables.next()) {
            (Some(only), None) => only,
            _ => {
                let problem = format!("expected one [rows, width] tensor, got {names:?}");
                return Err(Error::invalid(path, "tensors", problem));
            }
        }
    };
    let size = table.size();
    if size.len() != 2 {
        let problem = format!("expected shape [rows, width], got {size:?}");
        return Err(Error::invalid(path, "shape", problem));
    }
    Ok(table)
}

/// The rows of a table of text embeddings, `[rows, width]`, as numbers.
///
/// # Errors
/// A file that is neither `.npy` nor safetensors, of another shape, or a row without a direction.
pub(crate) fn read_text_rows(path: &Path) -> Result<Vec<Vec<f32>>> {
    let table = read_rows(path)?.to_kind(Kind::Float);
    let width = usize::try_from(table.size()[1]).unwrap_or(0);
    if width == 0 {
        return Err(Error::invalid(path, "shape", "expected a width of 1 or more, got 0"));
    }
    let values = Vec::<f32>::try_from(table.flatten(0, -1))?;
    let rows: Vec<Vec<f32>> = values.chunks(width).map(<[f32]>::to_vec).collect();
    let directed = |row: &Vec<f32>| {
        row.iter().all(|value| value.is_finite()) && row.iter().any(|value| *value != 0.0)
    };
    match rows.iter().position(|row| !directed(row)) {
        Some(row) => {
            let problem = "expected finite numbers that are not all 0";
            Err(Error::invalid(path, format!("row {row}"), problem)
                .with_hint("every class needs an embedding"))
        }
        None => Ok(rows),
    }
}

/// Checks a table `[C, D_text]`. Each row must be a direction.
///
/// # Errors
/// Another shape, numbers that are not finite, or a row of zeros, which has no direction.
pub(crate) fn checked_text_table(
    rows: &Tensor,
    vocabulary: &Vocabulary,
    path: &Path,
) -> Result<TextTable> {
    let size = rows.size();
    if size.len() != 2 || size[0] != vocabulary.len() as i64 || size[1] == 0 {
        let problem = format!("expected shape [{}, width], got {size:?}", vocabulary.len());
        return Err(Error::invalid(path, "text table", problem)
            .with_hint("give one row a class, in order of category ids"));
    }
    let rows = rows.to_kind(Kind::Float);
    let lengths = Vec::<f32>::try_from(rows.norm_scalaropt_dim(2.0, [-1i64], false))?;
    for (category, length) in vocabulary.categories().iter().zip(lengths) {
        if !(length.is_finite() && length > 0.0) {
            let problem = format!(
                "the row of `{}` (category {}) has length {length}, expected a positive number",
                category.name, category.id.0
            );
            return Err(Error::invalid(path, "text table", problem)
                .with_hint("every class needs an embedding"));
        }
    }
    Ok(TextTable::new(&rows))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{category, normal};
    use crate::vocabulary::Category;

    fn vocabulary(rows: &[Option<u32>]) -> Vocabulary {
        let class = |(i, &text_row): (usize, &Option<u32>)| Category {
            text_row,
            ..category(i as i64 + 1, format!("class {i}"))
        };
        Vocabulary::new(rows.iter().enumerate().map(class).collect())
    }

    #[test]
    fn rows_are_found_by_order_or_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        let table = normal(1, &[4, 3]).to_kind(Kind::Half);
        table.write_npy(&path).unwrap();
        let table = table.to_kind(Kind::Float);
        let all = read_text_table(&path, &vocabulary(&[None; 4])).unwrap();
        assert_eq!(all.rows, table);
        let two = read_text_table(&path, &vocabulary(&[Some(3), Some(0)])).unwrap();
        assert_eq!(two.rows.get(0), table.get(3));
        assert_eq!(two.rows.get(1), table.get(0));
        for (rows, part) in
            [(vec![Some(4), Some(0)], "wants row 4"), (vec![None, Some(0)], "names none")]
        {
            let message = read_text_table(&path, &vocabulary(&rows)).unwrap_err().to_string();
            assert!(message.contains("t.npy") && message.contains(part), "{message}");
        }
        std::fs::write(&path, b"no array").unwrap();
        let message = read_text_table(&path, &vocabulary(&[None])).unwrap_err().to_string();
        assert!(message.contains("t.npy: array"), "{message}");
    }
}
