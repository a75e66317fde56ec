//! Where pictures lie: in a folder, or in one `.tar` read in place.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err::os::unix::fs::FileExt as _;
use image::RgbImage;

use super::{
    image_io::{self, Decoded, Orientation},
    listing::{PassedOver, is_image},
};
use crate::{Error, Result};

/// Pictures by name. Reading is safe from any number of threads at once.
#[derive(Debug)]
pub struct ImageStore {
    place: Place,
    orientation: Orientation,
    /// See [`Self::turned`].
    turned: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Place {
    /// Files below a folder.
    Folder(PathBuf),
    /// Members of an uncompressed tar archive.
    Tar {
        /// The archive.
        path: PathBuf,
        /// Kept open; reads say where they start, so that threads do not disturb each other.
        file: fs_err::File,
        /// Its files, sorted by name, each name once.
        members: Vec<Member>,
    },
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path, without a leading `./`.
    name: Box<str>,
    /// Where its contents begin, in bytes.
    offset: u64,
    /// Their length in bytes.
    length: u64,
}

impl ImageStore {
    /// Opens a folder, or indexes a tar archive (headers only, contents are skipped).
    ///
    /// # Errors
    /// `path` does not exist, is no tar archive, is compressed, or ends early.
    pub fn open(path: &Path, orientation: Orientation) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() {
            return Ok(Self::folder(path.to_owned(), orientation));
        }
        let file = fs_err::File::open(path)?;
        let members = index_tar(&file, path)?;
        let place = Place::Tar { path: path.to_owned(), file, members };
        Ok(Self { place, orientation, turned: Mutex::default() })
    }

    /// Names are paths below a folder; of an empty one, whole paths.
    #[must_use]
    pub fn folder(path: PathBuf, orientation: Orientation) -> Self {
        Self { place: Place::Folder(path), orientation, turned: Mutex::default() }
    }

    /// Notes an image that its EXIF orientation turns without a sign of whether its boxes are in that
    /// frame: its size is the same either way, or the annotations have none.
    pub(crate) fn note_turned(&self, name: &str) {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        if !turned.contains(name) {
            turned.insert(name.to_owned());
        }
    }

    /// A note on such images, if some were read. `setting` is what says how.
    #[must_use]
    pub fn turned(&self, setting: &str) -> Option<String> {
        let turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        let first = turned.first()?;
        let (read, otherwise, value) = match self.orientation {
            Orientation::Exif => ("as viewers show them", "on the pixels as stored", "stored"),
            Orientation::Stored => ("as stored", "on what viewers show", "exif"),
        };
        Some(format!(
            "{} image(s), as `{first}`, have an EXIF orientation, and the annotations do not show whether \
             their boxes are in its frame: read {read}; if the boxes were drawn {otherwise}, set {setting} \
             to {value}",
            turned.len()
        ))
    }

    /// Where none of these files is there: which one was looked for first, in words. That is
    /// another mistake than some broken pictures: the wrong folder or archive.
    pub fn holds_none_of<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let first = names.next()?;
        if self.contains(first) || names.any(|name| self.contains(name)) {
            return None;
        }
        let (what, example) = match &self.place {
            Place::Folder(folder) => (format!("the folder `{}`", folder.display()), None),
            Place::Tar { path, members, .. } => {
                let example = members.first().map(|member| &member.name);
                (format!("the archive `{}`", path.display()), example)
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
        match &self.place {
            Place::Folder(folder) => Ok(fs_err::read(folder.join(name))?),
            Place::Tar { path, file, members } => {
                let Some(member) = find(members, name) else {
                    let problem = format!("not among the archive's {} files", members.len());
                    let mut error = Error::invalid(path, name, problem);
                    if let Some(Member { name, .. }) = members.first() {
                        error = error.with_hint(format!("its names look like `{name}`"));
                    }
                    return Err(error);
                };
                let mut bytes = vec![0; member.length as usize];
                file.read_exact_at(&mut bytes, member.offset)?;
                Ok(bytes)
            }
        }
    }

    /// Reads and decodes one picture.
    ///
    /// # Errors
    /// As [`Self::read`] and [`image_io::decode_bytes`].
    pub fn picture(&self, name: &str) -> Result<RgbImage> {
        Ok(self.decode(name)?.image)
    }

    /// As [`Self::picture`], with its EXIF orientation.
    pub(crate) fn decode(&self, name: &str) -> Result<Decoded> {
        image_io::decode_bytes(&self.read(name)?, &self.display_path(name), self.orientation)
    }

    /// Which way up pictures are read.
    #[must_use]
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match &self.place {
            Place::Folder(folder) => folder.join(name).is_file(),
            Place::Tar { members, .. } => find(members, name).is_some(),
        }
    }

    /// The folders directly below `below` (empty, or a path that ends in `/`), sorted, as in
    /// `n02690373`. Hidden ones (`.git`) are left out. Links to folders are followed.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn folders(&self, below: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        match &self.place {
            Place::Folder(folder) => {
                for entry in fs_err::read_dir(folder.join(below))? {
                    let entry = entry?;
                    if entry.path().is_dir() {
                        found.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
            }
            Place::Tar { members, .. } => {
                for member in within(members, below) {
                    // Sorted by name, so that those of one folder stand together.
                    if let Some((folder, _)) = member.name[below.len()..].split_once('/')
                        && found.last().is_none_or(|last| last != folder)
                    {
                        found.push(folder.to_owned());
                    }
                }
            }
        }
        found.retain(|name| !name.starts_with('.'));
        found.sort_unstable();
        Ok(found)
    }

    /// The files below `below` (empty, or a path that ends in `/`), at any depth, sorted; paths
    /// relative to `below`. Hidden ones (`._1.jpg`) are left out. Links to files are followed,
    /// links to folders are not: they may lead back.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn files(&self, below: &str) -> Result<Vec<String>> {
        Ok(self.list(below)?.files)
    }

    /// Those of [`Self::files`] that are images by their names, and what was passed over (with whole
    /// paths).
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn images(&self, below: &str) -> Result<(Vec<String>, PassedOver)> {
        let Listed { mut files, hidden, dangling } = self.list(below)?;
        let mut passed_over = PassedOver::default();
        files.retain(|name| {
            let kept = is_image(name);
            if !kept {
                passed_over.add(&format!("{below}{name}"));
            }
            kept
        });
        hidden.iter().for_each(|name| passed_over.add_hidden(&format!("{below}{name}")));
        dangling.iter().for_each(|name| passed_over.add_dangling(&format!("{below}{name}")));
        Ok((files, passed_over))
    }

    fn list(&self, below: &str) -> Result<Listed> {
        let mut listed = Listed::default();
        match &self.place {
            Place::Folder(folder) => walk(&folder.join(below), "", &mut listed)?,
            Place::Tar { members, .. } => {
                for name in within(members, below).iter().map(|m| &m.name[below.len()..]) {
                    let hidden = name.split('/').any(|part| part.starts_with('.'));
                    let of_kind = if hidden { &mut listed.hidden } else { &mut listed.files };
                    of_kind.push(name.to_owned());
                }
            }
        }
        let Listed { files, hidden, dangling } = &mut listed;
        for names in [files, hidden, dangling] {
            names.sort_unstable();
        }
        Ok(listed)
    }

    /// How messages name a picture: its path, or archive and member.
    #[must_use]
    pub fn display_path(&self, name: &str) -> PathBuf {
        match &self.place {
            Place::Folder(path) | Place::Tar { path, .. } => path.join(name),
        }
    }
}

/// What lies below a folder, by kind.
#[derive(Default)]
struct Listed {
    files: Vec<String>,
    /// Files and folders.
    hidden: Vec<String>,
    /// Links to nothing.
    dangling: Vec<String>,
}

/// Names in archives often begin with `./`; annotation files have them without.
fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name
}

/// The member of that name.
fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Member> {
    let at = members.binary_search_by(|m| (*m.name).cmp(plain(name))).ok()?;
    Some(&members[at])
}

/// The members whose names begin so.
fn within<'a>(members: &'a [Member], below: &str) -> &'a [Member] {
    let rest = &members[members.partition_point(|m| *m.name < *below)..];
    &rest[..rest.partition_point(|m| m.name.starts_with(below))]
}

/// Adds the files of a folder and those below it, with `prefix` before their names.
fn walk(folder: &Path, prefix: &str, listed: &mut Listed) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        let of_kind = if entry.file_name().as_encoded_bytes().starts_with(b".") {
            &mut listed.hidden
        } else if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), listed)?;
            continue;
        } else if !kind.is_symlink() {
            &mut listed.files
        } else {
            match std::fs::metadata(entry.path()) {
                Ok(target) if target.is_dir() => continue,
                Ok(_) => &mut listed.files,
                Err(_) => &mut listed.dangling,
            }
        };
        of_kind.push(name);
    }
    Ok(())
}

/// Sorts by name. Of several members of one name the last is the file, as when unpacking.
fn sort(members: &mut Vec<Member>) {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members.dedup_by(|later, kept| {
        let same = later.name == kept.name;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

fn index_tar(file: &fs_err::File, path: &Path) -> Result<Vec<Member>> {
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
        return Err(Error::invalid(path, WHAT, "the file is empty")
            .with_hint("copy or download the archive again"));
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
    let mut members = Vec::new();
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
            members.push(Member { name: name.into(), offset, length });
        } else if kind.is_hard_link() {
            // tar writes the second name of one file as a link to the first.
            if let Some(target) = entry.link_name_bytes() {
                links.push((name, String::from_utf8_lossy(&target).into_owned()));
            }
        }
    }
    sort(&mut members);
    let linked = links.into_iter().filter_map(|(name, target)| {
        let target = find(&members, &target)?.clone();
        Some(Member { name: name.into(), ..target })
    });
    let linked: Vec<Member> = linked.collect();
    if !linked.is_empty() {
        members.extend(linked);
        sort(&mut members);
    }
    Ok(members)
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
        let store = ImageStore::open(&written(&folder, &bytes), Orientation::Exif).unwrap();
        assert_eq!(store.read("a.jpg").unwrap(), b"contents of a.jpg");
        assert_eq!(store.read("./dir/b.jpg").unwrap(), b"contents of dir/b.jpg");
        assert_eq!(store.read(&long).unwrap(), format!("contents of {long}").into_bytes());
        let text = store.read("c.jpg").unwrap_err().to_string();
        assert!(text.contains("images.tar: c.jpg: not among the archive's 3 files"), "{text}");
    }

    #[test]
    fn folders_and_archives_list_alike() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            ["b/2.jpg", "b/1.jpg", "a-b/x.jpg", "a/x.jpg", "a/deep/y.jpg", "top.txt", ".git/z"];
        for name in names.iter().chain(&["a/._x.jpg"]) {
            let path = folder.path().join("tree").join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        let linked = folder.path().join("tree/c");
        std::os::unix::fs::symlink(folder.path().join("tree/b"), linked).unwrap();
        let mut members = names.to_vec();
        members.extend(["a/._x.jpg", "c/1.jpg", "c/2.jpg", "b/2.jpg"]);
        let archive =
            ImageStore::open(&written(&folder, &archive(&members)), Orientation::Exif).unwrap();
        let tree = ImageStore::open(&folder.path().join("tree"), Orientation::Exif).unwrap();
        for store in [&archive, &tree] {
            assert_eq!(store.folders("").unwrap(), ["a", "a-b", "b", "c"]);
            assert_eq!(store.folders("a/").unwrap(), ["deep"]);
            assert_eq!(store.files("a/").unwrap(), ["deep/y.jpg", "x.jpg"]);
            assert_eq!(store.files("c/").unwrap(), ["1.jpg", "2.jpg"]);
            assert!(store.contains("b/1.jpg") && !store.contains("b"));
        }
        assert_eq!(archive.files("").unwrap().len(), 8, "b/2.jpg, twice in the archive, once");
    }

    #[test]
    fn of_members_with_one_name_the_last_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for contents in ["old", "new"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            builder.append_data(&mut header, "a.jpg", contents.as_bytes()).unwrap();
        }
        let store =
            ImageStore::open(&written(&folder, &builder.into_inner().unwrap()), Orientation::Exif)
                .unwrap();
        assert_eq!(store.read("a.jpg").unwrap(), b"new");
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
        let store =
            ImageStore::open(&written(&folder, &builder.into_inner().unwrap()), Orientation::Exif)
                .unwrap();
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
            let text = ImageStore::open(&written(&folder, bytes), Orientation::Exif)
                .unwrap_err()
                .to_string();
            assert!(text.contains("images.tar: tar archive") && text.contains(expected), "{text}");
        }
        assert!(ImageStore::open(&folder.path().join("absent"), Orientation::Exif).is_err());
    }

    #[test]
    fn threads_read_one_archive_at_once() {
        let names: Vec<String> = (0..50).map(|i| format!("{i}.jpg")).collect();
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let store = ImageStore::open(&written(&folder, &bytes), Orientation::Exif).unwrap();
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
