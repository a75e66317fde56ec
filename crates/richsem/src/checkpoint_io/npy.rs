//! Arrays in NumPy's `.npy` files: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! `tch` reads them too, but trusts the shape. If a file is cut off, it hands on whatever lies in memory
//! behind the values.

use std::path::Path;

use tch::{Kind, Tensor};

use super::array::{self, Values};
use crate::error::{Error, Result};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an array of floating-point numbers, to the CPU, in the file's kind and shape.
///
/// # Errors
/// A file that cannot be read, is cut off, or holds another kind of values.
pub(super) fn read(path: &Path) -> Result<Tensor> {
    let mut bytes = fs_err::read(path)?;
    let invalid = |problem: String| {
        Error::invalid(path, "array", problem).with_hint(
            "write it with numpy.save(file, table.astype(\"float32\")); if that was done, the file \
             was cut off on its way",
        )
    };
    let header = Header::read(&bytes).map_err(invalid)?;
    let wrong = |got: &str| invalid(format!("expected f2, f4 or f8, got {got}"));
    let (kind, swapped) = match header.values {
        Values::Numbers { kind: kind @ (Kind::Half | Kind::Float | Kind::Double), swapped } => {
            (kind, swapped)
        }
        _ => return Err(wrong(&header.descr)),
    };
    let (shape, values) = (&header.shape, &mut bytes[header.length..]);
    let count = shape
        .iter()
        .try_fold(kind.elt_size_in_bytes(), |n, &side| n.checked_mul(usize::try_from(side).ok()?));
    if count != Some(values.len()) {
        let problem = format!("{shape:?} values of {kind:?} do not fill {} bytes", values.len());
        return Err(invalid(problem));
    }
    if swapped {
        array::swap(values, kind);
    }
    if !header.fortran {
        return Ok(Tensor::f_from_data_size(values, shape, kind)?);
    }
    // The first index fastest: the last one of the array turned around.
    let turned: Vec<i64> = shape.iter().rev().copied().collect();
    let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
    Ok(Tensor::f_from_data_size(values, &turned, kind)?.f_permute(axes)?.f_contiguous()?)
}

/// The header of a file, which precedes the values.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) values: Values,
    /// The kind of the values as the header has it, for messages: `<f4`.
    descr: String,
    /// Whether the first index is the fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<i64>,
    /// Bytes from the file's start to the first value.
    pub(super) length: usize,
}

impl Header {
    /// Reads the header at a file's start.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (header, values) = split(bytes).ok_or("not a .npy file, or cut off in its header")?;
        let unreadable =
            || format!("unreadable header {:?}", header.chars().take(256).collect::<String>());
        let descr = value_of(header, "descr").ok_or_else(unreadable)?;
        let code = descr.trim_matches(['\'', '"']);
        let order = code.chars().next().filter(|c| "<>|=".contains(*c));
        Ok(Self {
            values: match order {
                Some(order) => Values::of(order, &code[1..]),
                // Records: a list of fields.
                None => Values::Others,
            },
            descr: code.to_owned(),
            fortran: match value_of(header, "fortran_order").ok_or_else(unreadable)? {
                "False" => false,
                "True" => true,
                _ => return Err(unreadable()),
            },
            shape: value_of(header, "shape").and_then(shape).ok_or_else(unreadable)?,
            length: bytes.len() - values.len(),
        })
    }
}

/// Splits a file into the text of its header and the bytes of its values.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(2)?;
    // Version 1 has two bytes for the header's length, later ones four.
    let (length, rest) = rest.split_at_checked(if version[0] == 1 { 2 } else { 4 })?;
    let length = length.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte));
    let (header, values) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?.trim(), values))
}

/// The value of a key in the header, which is a Python dictionary of simple values.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim_end())
}

/// `(3, 8)`, `(3,)` or `()`.
fn shape(text: &str) -> Option<Vec<i64>> {
    let sides = text.strip_prefix('(')?.strip_suffix(')')?.split(',').map(str::trim);
    sides.filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::uniform;

    #[test]
    fn arrays_are_read_as_tch_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        for kind in [Kind::Half, Kind::Float, Kind::Double] {
            for size in [vec![3, 8], vec![5], vec![], vec![0, 4], vec![2, 1, 3]] {
                let array = uniform(1, &size).to_kind(kind);
                array.write_npy(&path).unwrap();
                let got = read(&path).unwrap();
                assert_eq!((got.kind(), got.size()), (kind, size));
                assert_eq!(got, array);
            }
        }
    }

    /// `numpy.save(file, table.T)` writes Fortran's order, and `astype(">f4")` the highest byte first.
    #[test]
    fn every_order_of_values_and_bytes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        // Value 10 i + j at row i, column j, of three rows and two columns.
        for (order, fortran, values) in [
            ('<', "False", [0., 1., 10., 11., 20., 21.]),
            ('>', "False", [0., 1., 10., 11., 20., 21.]),
            ('<', "True", [0., 10., 20., 1., 11., 21.]),
            ('>', "True", [0., 10., 20., 1., 11., 21.]),
        ] {
            let header = format!(
                "{{'descr': '{order}f4', 'fortran_order': {fortran}, 'shape': (3, 2), }}\n"
            );
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.bytes());
            bytes.extend(values.iter().flat_map(|value: &f32| match order {
                '<' => value.to_le_bytes(),
                _ => value.to_be_bytes(),
            }));
            std::fs::write(&path, bytes).unwrap();
            let got = read(&path).unwrap();
            let flat = Vec::<f32>::try_from(got.flatten(0, -1)).unwrap();
            assert_eq!((got.size(), got.is_contiguous()), (vec![3, 2], true));
            assert_eq!(flat, [0., 1., 10., 11., 20., 21.], "{order} {fortran}");
        }
    }

    #[test]
    fn no_length_of_a_file_is_read_beyond_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        uniform(2, &[3, 8]).write_npy(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("a.npy: array: ") && message.contains("hint"), "{message}");
        }
        let text = String::from_utf8_lossy(&bytes[..bytes.len() - 96]).into_owned();
        for (old, new, says) in [
            ("(3,8,)", "(9223372036854775807,8,)", "do not fill"),
            ("(3,8,)", "(-3,8,)", "do not fill"),
            ("(3,8,)", "(3,x,)", "unreadable header"),
            ("<f4", "<i8", "expected f2, f4 or f8, got <i8"),
            ("<f4", ">c8", "got >c8"),
            ("<f4", "|O", "got |O"),
            ("'<f4'", "[('a', '<f4')]", "got "),
            ("False", "Maybe", "unreadable header"),
            ("shape", "shale", "unreadable header"),
        ] {
            assert!(text.contains(old), "{text}");
            // Everything behind the ten bytes of magic, version and length.
            let header = text.rsplit("NUMPY").next().unwrap()[4..].replace(old, new);
            let mut changed = b"\x93NUMPY\x01\x00".to_vec();
            changed.extend((header.len() as u16).to_le_bytes());
            changed.extend(header.bytes());
            changed.extend(&bytes[bytes.len() - 96..]);
            std::fs::write(&path, changed).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
