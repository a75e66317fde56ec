//! What the tests of this module share.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::ClassificationSet;
use crate::vocabulary::{Category, CategoryId, Frequency, Vocabulary};

/// Three classes: `cat` (id 3, rare), `dog` (5, common) and `airplane` (9, frequent), which are
/// indices 0, 1 and 2, each with wnid and synset.
pub(super) fn vocabulary() -> Vocabulary {
    let class = |id, name: &str, frequency, synset: &str, wnid: &str| Category {
        key: None,
        id: CategoryId(id),
        name: name.into(),
        image_count: 1,
        instance_count: 1,
        frequency,
        synset: Some(synset.into()),
        wnid: Some(wnid.into()),
        text_row: None,
    };
    Vocabulary::new(vec![
        class(3, "cat", Frequency::Rare, "cat.n.01", "n02121620"),
        class(5, "dog", Frequency::Common, "dog.n.01", "n02084071"),
        class(9, "airplane", Frequency::Frequent, "airplane.n.01", "n02691156"),
    ])
}

/// Writes a PNG of one colour, `width` by `height`.
pub(super) fn image(folder: &Path, name: &str, width: u32, height: u32, colour: u8) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(width, height, Rgb([colour; 3])).save(path).unwrap();
}

/// Class folders by name: two cats, one dog, three of a class nobody knows, and some clutter.
pub(super) fn class_folders() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in
        ["cat/b.png", "cat/a.png", "dog/sub/c.png", "yeti/1.png", "yeti/2.png", "yeti/3.png"]
            .into_iter()
            .enumerate()
    {
        image(folder.path(), name, 20, 10, 40 * i as u8);
    }
    for name in ["cat/readme.txt", "cat/Thumbs.db", "cat/._a.png", "notes.txt"] {
        fs_err::write(folder.path().join(name), "text").unwrap();
    }
    folder
}

/// The folder's files as members of `NAME.tar` beside it, each with `prefix` before its name.
pub(super) fn packed(folder: &Path, prefix: &str) -> (tempfile::TempDir, PathBuf) {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("set.tar");
    let mut builder = tar::Builder::new(fs_err::File::create(&path).unwrap());
    if prefix.is_empty() {
        builder.append_dir_all(".", folder).unwrap();
    } else {
        builder.append_dir_all(prefix, folder).unwrap();
    }
    builder.into_inner().unwrap();
    (target, path)
}

/// A file of that text, which must outlive its use.
pub(super) fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, text).unwrap();
    (folder, path)
}

/// Name, labels and id of each image of a set.
pub(super) fn items(set: &ClassificationSet) -> Vec<(String, Vec<u32>, i64)> {
    (0..set.len())
        .map(|i| set.item(i))
        .map(|item| (item.name, item.labels.iter().map(|c| c.0).collect(), item.id))
        .collect()
}
