//! Archives for tests.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// A tar archive of files.
pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A file in a folder.
pub(super) fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(&path, bytes).unwrap();
    path
}

/// As ImageNet's: archives of classes in an archive.
pub(super) fn nested(below: &str) -> Vec<u8> {
    let class = |wnid: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("{wnid}_{i}.JPEG")).collect();
        let files: Vec<_> = names.iter().map(|name| (&**name, name.as_bytes())).collect();
        tar(&files)
    };
    let inners = [("n02123045", 3), ("n01440764", 12), ("n01443537", 0)];
    let inners: Vec<_> = inners
        .map(|(wnid, count)| (format!("{below}{wnid}.tar"), class(wnid, count)))
        .into_iter()
        .collect();
    tar(&inners.iter().map(|(name, bytes)| (&**name, &bytes[..])).collect::<Vec<_>>())
}
