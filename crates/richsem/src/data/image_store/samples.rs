//! webdataset's samples: neighbouring files of an archive with the same key. The key is the path up to the
//! first dot of the file's name, and the rest, in lower case, is the field: `a/0001.seg.png` is the field
//! `seg.png` of the sample `a/0001`.

use serde::{Deserialize, Serialize};

use crate::data::listing::{EXTENSIONS, is_image};

/// Key and field of a file, the field as it is written; none for a hidden file, and one without a dot.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.').filter(|dot| *dot > 0)?;
    Some((&name[..base + dot], &name[base + dot + 1..]))
}

/// The key of a file.
pub(super) fn key(name: &str) -> Option<&str> {
    split(name).map(|(key, _)| key)
}

/// Whether a file is its sample's own image: `a.jpg` is, `a.seg.png` is not.
pub(super) fn is_own_image(name: &str) -> bool {
    split(name).is_some_and(|(_, field)| is_own_image_field(field))
}

fn is_own_image_field(field: &str) -> bool {
    EXTENSIONS.iter().any(|known| field.eq_ignore_ascii_case(known))
}

/// Neighbouring files with one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The key.
    pub(super) key: String,
    /// Whether there is an image, be it the sample's own or another field.
    pub(super) image: bool,
    /// Whether there is an image of its own.
    #[serde(rename = "picture")]
    pub(super) own_image: bool,
    /// Whether there is another field.
    pub(super) other: bool,
}

impl Group {
    /// Adds a file.
    pub(super) fn add(&mut self, name: &str) {
        if let Some((_, field)) = split(name) {
            let own_image = is_own_image_field(field);
            self.image |= is_image(name);
            self.own_image |= own_image;
            self.other |= !own_image;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dot_of_the_base_name_ends_the_key() {
        for (name, expected) in [
            ("000000.jpg", Some(("000000", "jpg"))),
            ("sub.dir/000001.seg.PNG", Some(("sub.dir/000001", "seg.PNG"))),
            ("a/b.cls", Some(("a/b", "cls"))),
            ("a/README", None),
            ("a/._b.jpg", None),
            ("", None),
        ] {
            assert_eq!(split(name), expected, "{name}");
        }
        assert!(is_own_image("a/b.JPEG") && !is_own_image("a/b.seg.png") && !is_own_image("b.cls"));
    }
}
