//! Which files of a folder or archive are images, and what was passed over.

use std::{collections::BTreeMap, fmt};

/// How the names of images that are read end, in lower case. What a file is, its contents tell.
pub const EXTENSIONS: [&str; 10] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif"];

/// Whether a file is an image by the end of its name, in whatever case. A hidden file is none: `._a.jpg`
/// is what macOS keeps of `a.jpg` on other systems' disks.
#[must_use]
pub fn is_image(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    !file.starts_with('.') && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Files that were not taken for images, by kind. `Display` gives a line without an end, as
/// `3 .txt (as notes.txt), 1 hidden (._a.jpg)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// By kind: how many, and the first.
    kinds: BTreeMap<String, (usize, String)>,
}

impl PassedOver {
    /// Counts a file.
    pub fn add(&mut self, name: &str) {
        let file = name.rsplit('/').next().unwrap_or(name);
        let kind = match file.rsplit_once('.') {
            Some(("", _)) => "hidden".to_owned(),
            _ if file.starts_with('.') => "hidden".to_owned(),
            Some((_, extension)) => format!(".{}", extension.to_lowercase()),
            None => "without an extension".to_owned(),
        };
        self.count(kind, name);
    }

    /// Counts a link to what does not exist.
    pub fn add_dangling(&mut self, name: &str) {
        self.count("links to nothing".to_owned(), name);
    }

    /// Counts something of a kind of its own, in the plural.
    pub fn count(&mut self, kind: String, name: &str) {
        self.kinds.entry(kind).or_insert_with(|| (0, name.to_owned())).0 += 1;
    }

    /// Adds what was passed over elsewhere.
    pub fn extend(&mut self, other: Self) {
        for (kind, (count, name)) in other.kinds {
            self.kinds.entry(kind).or_insert_with(|| (0, name)).0 += count;
        }
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, (count, name))) in self.kinds.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let such = if *count > 1 { "as " } else { "" };
            write!(f, "{comma}{count} {kind} ({such}{name})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_the_end_of_their_names() {
        for name in ["a.jpg", "deep/b.JPEG", "c.d.png", "e.WebP", "f.tiff", "g.gif", "h.bmp"] {
            assert!(is_image(name), "{name}");
        }
        for name in ["a.txt", "jpg", ".jpg", "._a.jpg", "deep/._a.jpg", "a.jpg/b", "Thumbs.db", ""]
        {
            assert!(!is_image(name), "{name}");
        }
    }

    #[test]
    fn what_was_passed_over_is_counted_by_kind() {
        let mut passed_over = PassedOver::default();
        assert!(passed_over.is_empty());
        for name in ["b/x.txt", "y.TXT", "._a.jpg", "README", ".DS_Store"] {
            passed_over.add(name);
        }
        passed_over.add_dangling("gone.jpg");
        assert_eq!(
            passed_over.to_string(),
            "2 .txt (as b/x.txt), 2 hidden (as ._a.jpg), 1 links to nothing (gone.jpg), 1 without an \
             extension (README)"
        );
    }
}
