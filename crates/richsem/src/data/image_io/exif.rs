//! The orientation in an EXIF segment.

use image::metadata::Orientation;

/// EXIF's tag of the orientation.
const TAG: u16 = 0x112;

/// The orientation in a segment that begins with its byte order mark. None if there is none that can be
/// read.
///
/// EXIF wants one SHORT. Some cameras and programs write a LONG or another integer, or several: then the
/// first counts. Viewers accept these, and so does Pillow, except for a BYTE. The crate `image` reads only
/// a SHORT.
pub(super) fn orientation(segment: &[u8]) -> Option<Orientation> {
    let tiff = Tiff {
        bytes: segment,
        big_endian: match segment.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        },
    };
    let directory = tiff.number(4, 4)?;
    let entries = tiff.number(directory, 2)?;
    let mut places = (0..entries).map(|i| directory.saturating_add(2 + 12 * i));
    // A directory that is cut off has no further entries.
    let entry = places.find_map(|at| match tiff.number(at, 2) {
        None => Some(None),
        Some(tag) => (tag == u64::from(TAG)).then_some(Some(at)),
    })??;
    let width: u64 = match tiff.number(entry + 2, 2)? {
        // BYTE and SBYTE, SHORT and SSHORT, LONG, SLONG and IFD.
        1 | 6 => 1,
        3 | 8 => 2,
        4 | 9 | 13 => 4,
        _ => return None,
    };
    // What is longer than four bytes lies elsewhere.
    let at = match tiff.number(entry + 4, 4)?.checked_mul(width)? {
        0 => return None,
        1..=4 => entry + 8,
        _ => tiff.number(entry + 8, 4)?,
    };
    Orientation::from_exif(u8::try_from(tiff.number(at, width)?).ok()?)
}

struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Tiff<'_> {
    /// The number of `width` bytes at a place; none beyond the end.
    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let (at, width) = (usize::try_from(at).ok()?, usize::try_from(width).ok()?);
        let bytes = self.bytes.get(at..at.checked_add(width)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with another tag, and the orientation of that type with these values.
    fn segment(big_endian: bool, kind: u16, width: usize, values: &[u8]) -> Vec<u8> {
        let number = |value: u64, width: usize| {
            let mut bytes = value.to_le_bytes()[..width].to_vec();
            if big_endian {
                bytes.reverse();
            }
            bytes
        };
        let mut bytes = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        bytes.extend([number(42, 2), number(8, 4), number(2, 2)].concat());
        bytes.extend([number(0x10f, 2), number(2, 2), number(1, 4), number(0, 4)].concat());
        let count = number(values.len() as u64, 4);
        bytes.extend([number(u64::from(TAG), 2), number(u64::from(kind), 2), count].concat());
        let mut values: Vec<u8> =
            values.iter().flat_map(|v| number(u64::from(*v), width)).collect();
        if values.len() <= 4 {
            values.resize(4, 0);
            bytes.extend([values, number(0, 4)].concat());
        } else {
            bytes.extend([number(bytes.len() as u64 + 8, 4), number(0, 4), values].concat());
        }
        bytes
    }

    /// Pillow 13's `exif_transpose` turns for the same types and counts, BYTE excepted.
    #[test]
    fn every_type_of_integer_is_an_orientation() {
        for big_endian in [false, true] {
            for (kind, width, is_one) in [
                (1, 1, true),
                (2, 1, false),
                (3, 2, true),
                (4, 4, true),
                (5, 8, false),
                (6, 1, true),
                (7, 1, false),
                (8, 2, true),
                (9, 4, true),
                (12, 8, false),
                (13, 4, true),
            ] {
                for exif in 0..=9 {
                    let expected = Orientation::from_exif(exif).filter(|_| is_one);
                    for values in [vec![exif], vec![exif, 3], vec![exif; 5]] {
                        let bytes = segment(big_endian, kind, width, &values);
                        assert_eq!(orientation(&bytes), expected, "{big_endian} {kind} {values:?}");
                    }
                }
                assert_eq!(orientation(&segment(big_endian, kind, width, &[])), None);
            }
            let short = segment(big_endian, 3, 2, &[6]);
            assert_eq!(orientation(&short), Orientation::from_exif_chunk(&short));
        }
    }

    #[test]
    fn a_segment_that_is_cut_off_or_damaged_says_nothing_or_something_and_never_panics() {
        for bytes in [segment(false, 4, 4, &[6]), segment(true, 4, 4, &[6, 6])] {
            let whole = orientation(&bytes);
            for length in 0..bytes.len() {
                let cut = orientation(&bytes[..length]);
                assert!(cut.is_none() || cut == whole, "{length}");
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let _ = orientation(&changed);
                }
            }
        }
    }
}
