//! Which files of a folder or archive are images, and what was passed over.

use std::{collections::BTreeMap, fmt};

/// Ends of the names of images, in lower case. The contents of a file decide how it is read.
pub const EXTENSIONS: [&str; 10] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif"];

/// Whether a file is an image, by the end of its name, in upper or lower case. Hidden files are not:
/// `._a.jpg` is what macOS writes for `a.jpg` on other systems' disks.
#[must_use]
pub fn is_image(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    !file.starts_with('.') && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

const HIDDEN: &str = "hidden";
const DANGLING: &str = "broken links";
/// Most names that are kept of each kind.
const NAMED: usize = 20;

/// Files that were not taken for images, by kind. `Display` gives a line without an end, as
/// `3 .txt (as notes.txt), 1 hidden (._a.jpg)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Number of files of each kind, and the names of the first of them.
    kinds: BTreeMap<String, (usize, Vec<String>)>,
}

impl PassedOver {
    /// Counts a file by its extension.
    pub fn add(&mut self, name: &str) {
        let file = name.rsplit('/').next().unwrap_or(name);
        let kind = match file.rsplit_once('.') {
            _ if file.starts_with('.') => HIDDEN.to_owned(),
            Some((_, extension)) => format!(".{}", extension.to_lowercase()),
            None => "without an extension".to_owned(),
        };
        self.count(kind, name);
    }

    /// Counts a file that is hidden, or lies in a hidden folder.
    pub fn add_hidden(&mut self, name: &str) {
        self.count(HIDDEN.to_owned(), name);
    }

    /// Counts a link to what does not exist.
    pub fn add_dangling(&mut self, name: &str) {
        self.count(DANGLING.to_owned(), name);
    }

    /// Counts something of a kind of its own, in the plural: of a single one the first word that ends with an s
    /// loses it.
    pub fn count(&mut self, kind: String, name: &str) {
        let (count, names) = self.kinds.entry(kind).or_default();
        *count += 1;
        if names.len() < NAMED {
            names.push(name.to_owned());
        }
    }

    /// Adds what was passed over elsewhere.
    pub fn extend(&mut self, other: Self) {
        for (kind, (more, others)) in other.kinds {
            let (count, names) = self.kinds.entry(kind).or_default();
            *count += more;
            names.extend(others);
            names.truncate(NAMED);
        }
    }

    /// Whether no file was passed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, (count, names))) in self.kinds.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            // Of a link that leads nowhere something is missing: it is named.
            let shown = if kind == DANGLING { &names[..] } else { &names[..1] };
            let such = if *count > shown.len() { "as " } else { "" };
            let kind = if *count == 1 { singular(kind) } else { kind.clone() };
            write!(f, "{comma}{count} {kind} ({such}{})", shown.join(", "))?;
        }
        Ok(())
    }
}

/// A kind of [`PassedOver::count`] for a single one. Extensions stay as they are.
fn singular(kind: &str) -> String {
    let mut words: Vec<&str> = kind.split(' ').collect();
    let noun = words.iter_mut().find(|word| word.ends_with('s') && !word.starts_with('.'));
    if let Some(noun) = noun {
        *noun = &noun[..noun.len() - 1];
    }
    words.join(" ")
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
        for name in ["b/x.txt", "y.TXT", "README", "./.DS_Store"] {
            passed_over.add(name);
        }
        passed_over.add_hidden(".git/a.jpg");
        passed_over.add_dangling("gone.jpg");
        let mut elsewhere = PassedOver::default();
        elsewhere.add_dangling("too.jpg");
        passed_over.extend(elsewhere);
        assert_eq!(
            passed_over.to_string(),
            "2 .txt (as b/x.txt), 2 broken links (gone.jpg, too.jpg), 2 hidden (as ./.DS_Store), \
             1 without an extension (README)"
        );
        let mut single = PassedOver::default();
        single.count("folders of results".to_owned(), "out");
        single.add("a.cls");
        single.add_dangling("gone.jpg");
        assert_eq!(
            single.to_string(),
            "1 .cls (a.cls), 1 broken link (gone.jpg), 1 folder of results (out)"
        );
    }
}
