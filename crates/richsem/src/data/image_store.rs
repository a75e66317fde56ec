//! Where pictures lie: in a folder, or in one `.tar` read in place.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use fs_err::os::unix::fs::FileExt as _;

use crate::{Error, Result};

/// Pictures by name. Reading is safe from any number of threads at once.
#[derive(Debug)]
pub enum ImageStore {
    /// Files below a folder.
    Folder(PathBuf),
    /// Members of an uncompressed tar archive.
    Tar {
        /// The archive.
        path: PathBuf,
        /// Kept open; reads say where they start, so that threads do not disturb each other.
        file: fs_err::File,
        /// Name, without a leading `./`, to offset and length of its contents in bytes.
        index: HashMap<String, (u64, u64)>,
    },
}

impl ImageStore {
    /// Opens a folder, or indexes a tar archive (headers only, contents are skipped).
    ///
    /// # Errors
    /// `path` does not exist, is no tar archive, is compressed, or ends early.
    pub fn open(path: &Path) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let file = fs_err::File::open(path)?;
        let index = index_tar(&file, path)?;
        Ok(Self::Tar { path: path.to_owned(), file, index })
    }

    /// Where none of these files is there: which one was looked for first, in words. That is
    /// another mistake than some broken pictures: the wrong folder or archive.
    pub fn holds_none_of<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let first = names.next()?;
        let has = |name: &str| match self {
            Self::Folder(folder) => folder.join(name).exists(),
            Self::Tar { index, .. } => index.contains_key(plain(name)),
        };
        if has(first) || names.any(has) {
            return None;
        }
        let (what, example) = match self {
            Self::Folder(folder) => (format!("the folder `{}`", folder.display()), None),
            Self::Tar { path, index, .. } => {
                (format!("the archive `{}`", path.display()), index.keys().min())
            }
        };
        let example = example.map(|e| format!("; its names look like `{e}`")).unwrap_or_default();
        Some(format!("{what} holds none of the annotated pictures, as `{first}`{example}"))
    }

    /// The contents of one picture's file.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Folder(folder) => Ok(fs_err::read(folder.join(name))?),
            Self::Tar { path, file, index } => {
                let Some(&(offset, length)) = index.get(plain(name)) else {
                    let problem = format!("not among the archive's {} files", index.len());
                    let mut error = Error::invalid(path, name, problem);
                    if let Some(example) = index.keys().min() {
                        error = error.with_hint(format!("its names look like `{example}`"));
                    }
                    return Err(error);
                };
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            }
        }
    }

    /// How messages name a picture: its path, or archive and member.
    #[must_use]
    pub fn display_path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(path) | Self::Tar { path, .. } => path.join(name),
        }
    }
}

/// Names in archives often begin with `./`; annotation files have them without.
fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name
}

fn index_tar(file: &fs_err::File, path: &Path) -> Result<HashMap<String, (u64, u64)>> {
    const WHAT: &str = "tar archive";
    let total = file.metadata()?.len();
    let mut magic = [0; 2];
    if total >= 2 {
        file.read_exact_at(&mut magic, 0)?;
    }
    if magic == [0x1F, 0x8B] {
        return Err(Error::invalid(path, WHAT, "compressed with gzip; members cannot be found")
            .with_hint("decompress it first: `gunzip FILE`"));
    }
    if total == 0 {
        return Err(Error::invalid(path, WHAT, "the file is empty"));
    }
    let unreadable = |e: std::io::Error| {
        // After its first line the reader quotes the file itself.
        let text = e.to_string();
        let text = text.lines().next().unwrap_or_default();
        Error::invalid(path, WHAT, format!("unreadable or truncated: {text}")).with_hint(
            "expected a folder of pictures or an uncompressed .tar; check it with `tar tf FILE`",
        )
    };
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let mut index = HashMap::new();
    let mut links = Vec::new();
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // `path_bytes` resolves GNU long names and PAX records.
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = plain(&name).to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (offset, length) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(length).is_none_or(|end| end > total) {
                let problem = format!(
                    "truncated: `{name}` has {length} bytes from {offset}, the file ends at {total}"
                );
                return Err(Error::invalid(path, WHAT, problem)
                    .with_hint("copy or download the archive again"));
            }
            index.insert(name, (offset, length));
        } else if kind.is_hard_link() {
            // tar writes the second name of one file as a link to the first.
            if let Some(target) = entry.link_name_bytes() {
                links.push((name, String::from_utf8_lossy(&target).into_owned()));
            }
        }
    }
    for (name, target) in links {
        if let Some(&span) = index.get(plain(&target)) {
            index.insert(name, span);
        }
    }
    Ok(index)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let contents = format!("contents of {name}");
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, contents.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join("images.tar");
        fs_err::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn members_are_found_by_plain_long_and_dotted_names() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/x.jpg", "deep/".repeat(60)).replace("//", "/");
        let mut bytes = archive(&["a.jpg", "dir/b.jpg", &long]);
        // The tar crate drops a leading "./" when writing; GNU tar keeps it.
        bytes[..8].copy_from_slice(b"./a.jpg\0");
        let sum: u32 =
            (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(bytes[i]) }).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let store = ImageStore::open(&written(&folder, &bytes)).unwrap();
        assert_eq!(store.read("a.jpg").unwrap(), b"contents of a.jpg");
        assert_eq!(store.read("./dir/b.jpg").unwrap(), b"contents of dir/b.jpg");
        assert_eq!(store.read(&long).unwrap(), format!("contents of {long}").into_bytes());
        let text = store.read("c.jpg").unwrap_err().to_string();
        assert!(text.contains("images.tar: c.jpg: not among the archive's 3 files"), "{text}");
    }

    #[test]
    fn hard_links_are_a_second_name() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, "a.jpg", &b"abc"[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "b.jpg", "a.jpg").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&written(&folder, &builder.into_inner().unwrap())).unwrap();
        assert_eq!(store.read("b.jpg").unwrap(), b"abc");
    }

    #[test]
    fn truncated_compressed_or_other_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&["a.jpg", "b.jpg"]);
        let cases: [(&[u8], &str); 5] = [
            (&whole[..512 + 5], "truncated: `a.jpg`"),
            (&whole[..1024 + 100], "truncated"),
            (b"\x1F\x8Bxyz", "gzip"),
            (b"", "empty"),
            (&[b'x'; 2000], "tar archive"),
        ];
        for (bytes, expected) in cases {
            let text = ImageStore::open(&written(&folder, bytes)).unwrap_err().to_string();
            assert!(text.contains("images.tar: tar archive") && text.contains(expected), "{text}");
        }
        assert!(ImageStore::open(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn threads_read_one_archive_at_once() {
        let names: Vec<String> = (0..50).map(|i| format!("{i}.jpg")).collect();
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let store = ImageStore::open(&written(&folder, &bytes)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in names.iter().cycle().take(500) {
                        let expected = format!("contents of {name}").into_bytes();
                        assert_eq!(store.read(name).unwrap(), expected);
                    }
                });
            }
        });
    }
}
