//! What NumPy's arrays have in common, in `.npy` files and in pickles: kinds of numbers, their order of
//! bytes, and the order of values.

use tch::Kind;

/// What an array's values are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Numbers that are read; `swapped`: the highest byte first.
    Numbers { kind: Kind, swapped: bool },
    /// Other numbers, as NumPy calls them.
    Unread(String),
    /// Text, objects, records: no weights.
    Others,
}

/// The kinds that are read, for messages.
pub(super) const READ: &str = "f2, f4, f8, i1, i2, i4, i8, u1 or b1";

impl Values {
    /// By the order of bytes (`<`, `>`; `|` and `=` where there is none, or it is this machine's) and
    /// the code (`f4`).
    pub(super) fn of(order: char, code: &str) -> Self {
        let kind = match code {
            "f2" => Kind::Half,
            "f4" => Kind::Float,
            "f8" => Kind::Double,
            "i1" => Kind::Int8,
            "i2" => Kind::Int16,
            "i4" => Kind::Int,
            "i8" => Kind::Int64,
            "u1" => Kind::Uint8,
            "b1" => Kind::Bool,
            _ if code.starts_with(['f', 'i', 'u', 'c']) => {
                return Self::Unread(format!("{order}{code}").chars().take(16).collect());
            }
            // What `ml_dtypes` adds to NumPy is bytes without a meaning once it is saved.
            "V2" => return Self::Unread("V2 (bfloat16?)".to_owned()),
            "V1" => return Self::Unread("V1 (float8?)".to_owned()),
            _ => return Self::Others,
        };
        Self::Numbers { kind, swapped: order == '>' && kind.elt_size_in_bytes() > 1 }
    }
}

/// Turns the bytes of each number around.
pub(super) fn swap(bytes: &mut [u8], kind: Kind) {
    bytes.chunks_exact_mut(kind.elt_size_in_bytes()).for_each(<[u8]>::reverse);
}

/// Steps between neighbours of each index, in values: the last index fastest, or with `fortran` the
/// first. None of sides that are more than can be.
pub(super) fn strides(shape: &[i64], fortran: bool) -> Option<Vec<i64>> {
    let mut strides = vec![0; shape.len()];
    let mut next = 1i64;
    for i in 0..shape.len() {
        let at = if fortran { i } else { shape.len() - 1 - i };
        strides[at] = next;
        next = next.checked_mul(shape[at].max(1))?;
    }
    Some(strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numpys() {
        let numbers = |kind, swapped| Values::Numbers { kind, swapped };
        for (order, code, expected) in [
            ('<', "f4", numbers(Kind::Float, false)),
            ('>', "f2", numbers(Kind::Half, true)),
            ('>', "i8", numbers(Kind::Int64, true)),
            ('>', "i1", numbers(Kind::Int8, false)),
            ('|', "b1", numbers(Kind::Bool, false)),
            ('=', "f8", numbers(Kind::Double, false)),
            ('<', "c8", Values::Unread("<c8".to_owned())),
            ('<', "u4", Values::Unread("<u4".to_owned())),
            ('<', "f16", Values::Unread("<f16".to_owned())),
            ('<', "U3", Values::Others),
            ('|', "O8", Values::Others),
            ('|', "V12", Values::Others),
            ('|', "V2", Values::Unread("V2 (bfloat16?)".to_owned())),
            ('<', "", Values::Others),
        ] {
            assert_eq!(Values::of(order, code), expected, "{order}{code}");
        }
    }

    #[test]
    fn steps_follow_the_order() {
        assert_eq!(strides(&[2, 3, 4], false), Some(vec![12, 4, 1]));
        assert_eq!(strides(&[2, 3, 4], true), Some(vec![1, 2, 6]));
        assert_eq!(strides(&[], true), Some(vec![]));
        assert_eq!(strides(&[0, 5], false), Some(vec![5, 1]));
        assert_eq!(strides(&[i64::MAX, 2, 2], false), None);
    }
}
