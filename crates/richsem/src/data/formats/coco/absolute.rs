//! Images named by absolute paths, as programs write them that run where the images are.

use std::path::PathBuf;

use crate::data::records::ImageRecord;

/// The root of a path, if it has one, and the path below it, with `/` between folders. A root is `/`, a drive as
/// `C:`, or `//` before a server.
pub(super) fn below(path: &str) -> Option<(String, String)> {
    let unix = path.replace('\\', "/");
    let bytes = unix.as_bytes();
    let drive =
        bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.get(1..3) == Some(b":/");
    let rest = if drive { &unix[2..] } else { &unix };
    let root = match drive {
        true => unix[..2].to_ascii_uppercase(),
        false if rest.starts_with("//") => "//".to_owned(),
        false => "/".to_owned(),
    };
    rest.starts_with('/').then(|| (root, rest.trim_start_matches('/').to_owned()))
}

/// Calls all images by their paths below the folder that they share, and gives that folder, as if the root were `/`.
pub(super) fn name_below_folder(images: &mut [ImageRecord]) -> PathBuf {
    let folder = |name: &str| name.rfind('/').map_or(0, |at| at + 1);
    let first = images.first().map(|image| image.file_name.clone()).unwrap_or_default();
    let mut shared = folder(&first);
    for image in images.iter() {
        let same = first.bytes().zip(image.file_name.bytes()).take_while(|(a, b)| a == b).count();
        if same < shared {
            shared = folder(&first[..floor(&first, same)]);
        }
    }
    for image in images {
        image.file_name.drain(..shared);
    }
    PathBuf::from(format!("/{}", &first[..shared]))
}

/// The last boundary between characters, not after a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_those_of_all_systems() {
        for (path, expected) in [
            ("/data/a.jpg", Some(("/", "data/a.jpg"))),
            (r"C:\Users\me\a.jpg", Some(("C:", "Users/me/a.jpg"))),
            (r"\\server\share\a.jpg", Some(("//", "server/share/a.jpg"))),
            ("c:/a.jpg", Some(("C:", "a.jpg"))),
            ("c:a.jpg", None),
            ("a/b.jpg", None),
            ("", None),
        ] {
            let expected = expected.map(|(root, rest): (&str, &str)| (root.into(), rest.into()));
            assert_eq!(below(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_below_the_folder_that_all_share() {
        for (names, folder, expected) in [
            (&["d/train/a.jpg", "d/train/b.jpg"][..], "/d/train/", &["a.jpg", "b.jpg"][..]),
            (&["d/train/a.jpg", "d/test/b.jpg"], "/d/", &["train/a.jpg", "test/b.jpg"]),
            (&["d/träin/a.jpg", "d/tröin/b.jpg"], "/d/", &["träin/a.jpg", "tröin/b.jpg"]),
            (&["a.jpg", "d/b.jpg"], "/", &["a.jpg", "d/b.jpg"]),
            (&["d/a/x.jpg"], "/d/a/", &["x.jpg"]),
        ] {
            let image =
                |name: &&str| ImageRecord { file_name: (*name).to_owned(), ..Default::default() };
            let mut images: Vec<ImageRecord> = names.iter().map(image).collect();
            assert_eq!(name_below_folder(&mut images), PathBuf::from(folder));
            assert_eq!(images.iter().map(|i| &*i.file_name).collect::<Vec<_>>(), expected);
        }
    }
}
