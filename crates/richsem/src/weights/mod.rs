//! Public files of weights: which there are ([`entries`]), and how to have one here ([`fetch`]).
//!
//! Files are fetched by the program `curl`. A client of our own would be a TLS stack in the binary, with
//! certificates that grow old; `curl` has the machine's certificates, proxies and settings, resumes, and is
//! there on nearly every machine. Where it is not, the error says the address and where to put the file.

mod download;
mod table;

use std::path::{Path, PathBuf};

pub use table::{Address, Entry, Use};

use crate::{
    checkpoint_io::format_of,
    error::{Error, Result},
    hash::sha256_of_file,
    lock,
    shell::quoted,
};

/// The folder that this program keeps things in, instead of `~/.cache/richsem`.
pub const HOME: &str = "RICHSEM_HOME";
/// A place that has the files, instead of their publishers': `https://mirror/weights`, `file:///mnt/weights` or a
/// folder here. Each is below it by its own name.
pub const MIRROR: &str = "RICHSEM_MIRROR";
/// If set, and neither empty nor 0, nothing is fetched.
pub const OFFLINE: &str = "RICHSEM_OFFLINE";

/// The files that are known.
#[must_use]
pub fn entries() -> &'static [Entry] {
    table::TABLE
}

/// The file of a name, in any case.
///
/// # Errors
/// There is none; which may have been meant.
pub fn entry(name: &str) -> Result<&'static Entry> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let typed = plain(name);
    let found = |entry: &&Entry| entry.name == typed || plain(entry.file) == typed;
    entries().iter().find(found).ok_or_else(|| {
        let hint = match meant(&typed)[..] {
            [] => "`richsem weights` lists them".to_owned(),
            ref names => format!("did you mean {}?", names.join(", ")),
        };
        Error::other(format!("there are no weights called `{name}`")).with_hint(hint)
    })
}

/// Names that have all parts of what was typed, as `dino-r50-coco` has `dino`, or, if there are none, that it is
/// by a slip.
fn meant(typed: &str) -> Vec<String> {
    const MOST: usize = 4;
    let joined = |name: &str| name.replace('-', "");
    let quoted = |entry: &Entry| format!("`{}`", entry.name);
    let has_all = |entry: &&Entry| {
        let parts: Vec<&str> = entry.name.split('-').collect();
        typed.split('-').all(|part| parts.contains(&part))
    };
    let by_parts: Vec<String> = entries().iter().filter(has_all).map(quoted).collect();
    if !by_parts.is_empty() {
        return by_parts.into_iter().take(MOST).collect();
    }
    let slip = |entry: &&Entry| {
        joined(entry.name).len() > 4
            && strsim::osa_distance(&joined(entry.name), &joined(typed)) < 2
    };
    entries().iter().find(slip).map(quoted).into_iter().collect()
}

/// Where files come from, and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The folder they are kept in.
    pub folder: PathBuf,
    /// In place of the publishers' addresses.
    pub mirror: Option<String>,
    /// Whether nothing is fetched.
    pub offline: bool,
}

impl Places {
    /// As the environment says.
    ///
    /// # Errors
    /// Neither `RICHSEM_HOME`, `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = || {
            let base = set("XDG_CACHE_HOME").map(PathBuf::from);
            let base = base.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
            base.map(|base| base.join("richsem"))
        };
        let home = set(HOME).map(PathBuf::from).or_else(cache).ok_or_else(|| {
            Error::other("there is no folder to keep weights in: HOME is not set")
                .with_hint(format!("set {HOME} to a folder"))
        })?;
        Ok(Self {
            folder: home.join("weights"),
            mirror: set(MIRROR).and_then(|value| value.into_string().ok()),
            offline: set(OFFLINE).is_some_and(|value| value != "0"),
        })
    }

    /// Where the file of an entry is kept.
    #[must_use]
    pub fn file(&self, entry: &Entry) -> PathBuf {
        self.folder.join(entry.file)
    }

    /// Whether a file is there.
    #[must_use]
    pub fn has(&self, entry: &Entry) -> bool {
        !matches!(entry.address, Address::Unpublished(_)) && self.file(entry).is_file()
    }

    /// The address that it is fetched from.
    fn address(&self, entry: &Entry) -> Result<String> {
        match (&self.mirror, entry.address) {
            (_, Address::Unpublished(page)) => {
                let problem = format!("{}: its authors have not published it", entry.name);
                Err(Error::other(problem).with_hint(format!(
                    "{page} has a table whose links are empty; if you have the file, `richsem convert` reads it"
                )))
            }
            (Some(mirror), _) => {
                Ok(format!("{}/{}", mirror_address(mirror)?.trim_end_matches('/'), entry.file))
            }
            (None, Address::Direct(address)) => Ok(address.to_owned()),
            (None, Address::Page(_)) => {
                let problem =
                    format!("{}: its publisher has no address to fetch it from", entry.name);
                Err(Error::other(problem).with_hint(format!(
                    "{}; or set {MIRROR} to a place that has it",
                    self.by_hand(entry)
                )))
            }
        }
    }

    /// How to have a file here without this program: from its publisher, whatever the mirror is.
    fn by_hand(&self, entry: &Entry) -> String {
        let from = match entry.address {
            Address::Direct(address) => format!("{address} where there is a network"),
            Address::Page(page) | Address::Unpublished(page) => {
                format!("{} from {page} by hand", entry.file)
            }
        };
        let check = match entry.sha256 {
            Some(sum) if sum.len() == 64 => format!(" (SHA-256 {sum})"),
            Some(sum) => format!(" (its SHA-256 begins with {sum})"),
            None => String::new(),
        };
        format!("get {from}, and put it to {}{check}", self.file(entry).display())
    }
}

/// A mirror as an address, which may be a folder here.
fn mirror_address(mirror: &str) -> Result<String> {
    if mirror.contains("://") {
        return Ok(mirror.to_owned());
    }
    let folder = Path::new(mirror);
    if !folder.is_dir() {
        // `/data/mirror`, `./mirror`, `~/mirror` are no servers.
        if mirror.starts_with(['/', '.', '~']) {
            let problem = format!("{MIRROR}: there is no folder `{mirror}`");
            return Err(Error::other(problem).with_hint(
                "write the path of a folder that has the files, or an address, as https://…",
            ));
        }
        let problem = format!("{MIRROR}: `{mirror}` is no folder here, and no address");
        return Err(Error::other(problem).with_hint(format!(
            "write https://{mirror}, if it is a server, or the path of a folder that has the files"
        )));
    }
    let absolute = std::path::absolute(folder)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let written: String = absolute
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    Ok(format!("file://{written}"))
}

/// Whether a file is what its publisher says: `None` where the publisher says nothing. It is then at least of a
/// kind that weights are of.
///
/// # Errors
/// It is another; it cannot be read.
pub fn verify(entry: &Entry, file: &Path) -> Result<Option<()>> {
    let Some(expected) = entry.sha256 else { return format_of(file).map(|_| None) };
    let got = sha256_of_file(file)?;
    if got.starts_with(expected) {
        return Ok(Some(()));
    }
    let got = &got[..expected.len().min(got.len())];
    Err(Error::invalid(file, "SHA-256", format!("expected {expected}, got {got}")))
}

/// A file that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub file: PathBuf,
    /// Whether it was here before.
    pub was_here: bool,
    /// Whether it was compared with a checksum.
    pub verified: bool,
}

/// Has a file here: the one that is kept, or that of the publisher or the mirror. A download that broke off goes
/// on where it was. `curl` shows its progress on stderr, if `progress` is set.
///
/// # Errors
/// It is not here and may not or cannot be fetched: the hint says what to do. It is another than its publisher
/// says: what was fetched is then removed.
pub fn fetch(entry: &Entry, places: &Places, progress: bool) -> Result<Fetched> {
    let file = places.file(entry);
    if places.has(entry) {
        let verified = verify(entry, &file).map_err(|error| {
            error.with_hint(format!("remove it, and fetch it again: rm {}", quoted(&file)))
        })?;
        return Ok(Fetched { file, was_here: true, verified: verified.is_some() });
    }
    let address = places.address(entry)?;
    if places.offline {
        let problem =
            format!("{}: not in {}, and {OFFLINE} is set", entry.name, places.folder.display());
        return Err(Error::other(problem).with_hint(places.by_hand(entry)));
    }
    let part = places.folder.join(format!("{}.part", entry.file));
    // The folder is tried before anything is fetched. Of several processes one fetches.
    let waiting = || {
        if progress {
            eprintln!("{}: another process fetches it; waiting", entry.name);
        }
    };
    let begun = fs_err::create_dir_all(&places.folder).map_err(Error::from);
    let _lock = begun.and_then(|()| lock::wait_for(&part, waiting)).map_err(|error| {
        error.with_hint(format!(
            "weights are kept there; set {HOME} to a folder that can be written to"
        ))
    })?;
    // Another process has it by now.
    if places.has(entry) {
        drop(std::fs::remove_file(&part));
        return fetch(entry, places, progress);
    }
    let by_hand = places.by_hand(entry);
    if let Err(error) = download::download(entry.name, &address, &part, progress, &by_hand) {
        // Nothing came.
        if part.metadata().is_ok_and(|about| about.len() == 0) {
            drop(std::fs::remove_file(&part));
        }
        return Err(error);
    }
    let verified = match verify(entry, &part) {
        Ok(verified) => verified.is_some(),
        Err(error) => {
            drop(std::fs::remove_file(&part));
            return Err(error.with_hint(format!(
                "what was fetched from {address} is no such file (a page of a proxy, perhaps), and was removed; \
                 try again, or {by_hand}"
            )));
        }
    };
    fs_err::rename(&part, &file)?;
    Ok(Fetched { file, was_here: false, verified })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_files_and_checksums_are_of_one_file_each() {
        let mut names = std::collections::HashSet::new();
        for entry in entries() {
            assert!(names.insert(entry.name), "{}", entry.name);
            if let Some(sum) = entry.sha256 {
                assert!([8, 64].contains(&sum.len()), "{}", entry.name);
                assert!(sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            }
            if let Address::Direct(address) = entry.address {
                assert!(address.starts_with("https://") && address.ends_with(entry.file));
            }
            assert_eq!(super::entry(entry.name).unwrap().name, entry.name);
        }
        let error = entry("resnet-50").unwrap_err().to_string();
        assert!(error.contains("did you mean `resnet50`"), "{error}");
        for (typed, hint) in [
            ("yolov8n", "`richsem weights` lists them"),
            ("detr", "`richsem weights` lists them"),
            ("dino", "did you mean `dino-r50-coco`?"),
            ("resnet5", "did you mean `resnet50`?"),
            ("eva02", "did you mean `eva02-b`, `eva02-l`, `eva02-l-m38m`?"),
        ] {
            let error = entry(typed).unwrap_err().to_string();
            assert!(error.ends_with(hint), "{typed}: {error}");
        }
        assert_eq!(entry("RESNET50_V2").unwrap().name, "resnet50-v2");
    }

    /// "weights\n", and the first digits of its SHA-256 (coreutils' sha256sum).
    const TEXT: &str = "weights\n";
    const SUM: &str = "1b465fa6";

    fn small(sum: &'static str) -> Entry {
        Entry { file: "small.pth", sha256: Some(sum), ..*entry("resnet18").unwrap() }
    }

    fn places(folder: &Path) -> Places {
        let mirror = format!("file://{}/mirror/", folder.display());
        assert_eq!(mirror_address(&mirror).unwrap(), mirror);
        Places { folder: folder.join("kept"), mirror: Some(mirror), offline: false }
    }

    #[test]
    fn a_file_is_fetched_once_verified_and_resumed() {
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: curl is not here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        std::fs::create_dir_all(folder.path().join("mirror")).unwrap();
        std::fs::create_dir_all(&places.folder).unwrap();
        std::fs::write(folder.path().join("mirror/small.pth"), TEXT).unwrap();
        // Half of it came before.
        std::fs::write(places.folder.join("small.pth.part"), &TEXT[..4]).unwrap();
        let fetched = fetch(&small(SUM), &places, false).unwrap();
        assert_eq!(std::fs::read_to_string(&fetched.file).unwrap(), TEXT);
        assert!(fetched.verified && !fetched.was_here);
        std::fs::remove_dir_all(folder.path().join("mirror")).unwrap();
        let offline = Places { offline: true, ..places.clone() };
        assert!(fetch(&small(SUM), &offline, false).unwrap().was_here);
        // What is kept was changed.
        std::fs::write(&fetched.file, "other").unwrap();
        let error = fetch(&small(SUM), &places, false).unwrap_err().to_string();
        assert!(
            error.contains("SHA-256: expected 1b465fa6, got") && error.contains("rm "),
            "{error}"
        );
    }

    #[test]
    fn a_mirror_may_be_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("my files");
        std::fs::create_dir(&mirror).unwrap();
        let address = mirror_address(mirror.to_str().unwrap()).unwrap();
        assert!(address.starts_with("file:///") && address.ends_with("/my%20files"), "{address}");
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: curl is not here");
            return;
        }
        std::fs::write(mirror.join("small.pth"), TEXT).unwrap();
        let mirror = Some(mirror.to_str().unwrap().to_owned());
        let places = Places { folder: folder.path().join("kept"), mirror, offline: false };
        assert!(fetch(&small(SUM), &places, false).unwrap().verified);
    }

    #[test]
    fn what_cannot_be_had_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let offline = Places { offline: true, ..places.clone() };
        let told =
            |entry: &Entry, places: &Places| fetch(entry, places, false).unwrap_err().to_string();
        let error = told(&small(SUM), &offline);
        assert!(error.contains("RICHSEM_OFFLINE") && error.contains("kept/small.pth"), "{error}");
        let by_hand = Places { mirror: None, ..places.clone() };
        let error = told(entry("dino-r50-coco").unwrap(), &by_hand);
        assert!(error.contains("drive.google.com") && error.contains("by hand"), "{error}");
        let elsewhere = Places { mirror: Some("absent/place".to_owned()), ..places.clone() };
        let error = told(&small(SUM), &elsewhere);
        assert!(error.contains("RICHSEM_MIRROR: `absent/place` is no folder"), "{error}");
        for path in ["/no/folder", "./folder", "~/folder"] {
            let error = mirror_address(path).unwrap_err().to_string();
            assert!(error.contains(&format!("there is no folder `{path}`")), "{error}");
            assert!(!error.contains("https:///") && !error.contains("https://."), "{error}");
        }
        std::fs::write(folder.path().join("file"), "").unwrap();
        let unwritable = Places { folder: folder.path().join("file/weights"), ..places.clone() };
        assert!(told(&small(SUM), &unwritable).contains("RICHSEM_HOME"));
        let error = told(entry("richsem-r50").unwrap(), &places);
        assert!(error.contains("have not published it"), "{error}");
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok() {
            let error = told(&small(SUM), &places);
            assert!(error.contains("of curl") && error.contains("https_proxy"), "{error}");
            // The publisher's address, not the mirror's.
            assert!(error.contains("or get https://download.pytorch.org/"), "{error}");
            assert_eq!(error.matches("curl: (").count(), 1, "{error}");
            assert!(!places.folder.join("small.pth.part").exists());
            std::fs::create_dir_all(folder.path().join("mirror")).unwrap();
            std::fs::write(folder.path().join("mirror/small.pth"), "<html>").unwrap();
            // What has no checksum is at least no web page.
            for entry in [small(SUM), Entry { sha256: None, ..small(SUM) }] {
                let error = told(&entry, &places);
                assert!(error.contains("a page of a proxy"), "{error}");
                assert!(!places.folder.join("small.pth.part").exists());
                assert!(!places.folder.join("small.pth").exists());
            }
        }
    }
}
