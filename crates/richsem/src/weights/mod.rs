//! Public files of weights: which there are ([`entries`]), and how to have one here ([`fetch`]).
//!
//! Files are fetched by the program `curl`. A client of our own would be a TLS stack in the binary, with
//! certificates that grow old; `curl` has the machine's certificates, proxies and settings, resumes, and is
//! there on nearly every machine. Where it is not, the error says the address and where to put the file.

mod table;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use table::{Address, Entry, Use};

use crate::{
    error::{Error, Result},
    hash::sha256_of_file,
    shell::quoted,
};

/// The folder that this program keeps things in, instead of `~/.cache/richsem`.
pub const HOME: &str = "RICHSEM_HOME";
/// A place that has the files, instead of their publishers': `https://mirror/weights` or `file:///mnt/weights`.
/// Each is below it by its own name.
pub const MIRROR: &str = "RICHSEM_MIRROR";
/// If set, and neither empty nor 0, nothing is fetched.
pub const OFFLINE: &str = "RICHSEM_OFFLINE";

/// Names by letters alike enough to be meant.
const ALIKE: f64 = 0.8;

/// The files that are known.
#[must_use]
pub fn entries() -> &'static [Entry] {
    table::TABLE
}

/// The file of a name.
///
/// # Errors
/// There is none; which may have been meant.
pub fn entry(name: &str) -> Result<&'static Entry> {
    let found = |entry: &&Entry| entry.name == name || entry.file == name;
    entries().iter().find(found).ok_or_else(|| {
        let alike = |entry: &Entry| strsim::jaro_winkler(entry.name, name);
        let nearest = entries().iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        let hint = match nearest.filter(|entry| alike(entry) > ALIKE) {
            Some(entry) => format!("did you mean `{}`?", entry.name),
            None => "`richsem weights` lists them".to_owned(),
        };
        Error::other(format!("there are no weights called `{name}`")).with_hint(hint)
    })
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

    /// Whether it is there.
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
            (Some(mirror), _) => Ok(format!("{}/{}", mirror.trim_end_matches('/'), entry.file)),
            (None, Address::Direct(address)) => Ok(address.to_owned()),
            (None, Address::Page(page)) => {
                let problem =
                    format!("{}: its publisher has no address to fetch it from", entry.name);
                Err(Error::other(problem).with_hint(format!(
                    "get {} from {page} by hand, and put it to {}; or set {MIRROR} to a place that has it",
                    entry.file,
                    self.file(entry).display()
                )))
            }
        }
    }
}

/// Whether a file is what its publisher says: `None` where the publisher says nothing.
///
/// # Errors
/// It is another; it cannot be read.
pub fn verify(entry: &Entry, file: &Path) -> Result<Option<()>> {
    let Some(expected) = entry.sha256 else { return Ok(None) };
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
        return Err(Error::other(problem).with_hint(by_hand(entry, &address, &file)));
    }
    fs_err::create_dir_all(&places.folder)?;
    let part = places.folder.join(format!("{}.part", entry.file));
    download(entry, &address, &part, &file, progress)?;
    let verified = match verify(entry, &part) {
        Ok(verified) => verified.is_some(),
        Err(error) => {
            fs_err::remove_file(&part)?;
            return Err(error.with_hint(format!(
                "what was fetched from {address} is no such file (a page of a proxy, perhaps), and was removed; \
                 try again, or {}",
                by_hand(entry, &address, &file)
            )));
        }
    };
    fs_err::rename(&part, &file)?;
    Ok(Fetched { file, was_here: false, verified })
}

fn by_hand(entry: &Entry, address: &str, file: &Path) -> String {
    let check = match entry.sha256 {
        Some(sum) if sum.len() == 64 => format!(" (SHA-256 {sum})"),
        Some(sum) => format!(" (its SHA-256 begins with {sum})"),
        None => String::new(),
    };
    format!("get {address} where there is a network, and put it to {}{check}", file.display())
}

fn download(entry: &Entry, address: &str, part: &Path, file: &Path, progress: bool) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--retry", "3", "--continue-at", "-", "--show-error"]);
    curl.arg(if progress { "--progress-bar" } else { "--silent" });
    curl.arg("--output").arg(part).arg(address);
    curl.stdin(Stdio::null()).stdout(Stdio::null());
    let output = if progress {
        curl.stderr(Stdio::inherit()).status().map(|status| (status, String::new()))
    } else {
        curl.output()
            .map(|out| (out.status, String::from_utf8_lossy(&out.stderr).trim().to_owned()))
    };
    let hint = || by_hand(entry, address, file);
    let (status, said) = output.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "the program `curl`, which fetches files, is not here".to_owned()
            }
            _ => format!("`curl` could not be started: {error}"),
        };
        Error::other(format!("{}: {why}", entry.name))
            .with_hint(format!("install it (sudo apt-get install curl), or {}", hint()))
    })?;
    if status.success() && part.is_file() {
        return Ok(());
    }
    let code = status.code().map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(Error::other(format!("{}: fetching {address} ended with {code} of curl{said}", entry.name))
        .with_hint(format!(
            "what has come is kept, and the next try goes on with it. Behind a proxy set https_proxy; a mirror \
             is {MIRROR}; or {}",
            hint()
        )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
        let error = entry("yolov8n").unwrap_err().to_string();
        assert!(error.contains("richsem weights"), "{error}");
    }

    /// "weights\n", and the first digits of its SHA-256 (coreutils' sha256sum).
    const TEXT: &str = "weights\n";
    const SUM: &str = "1b465fa6";

    fn small(sum: &'static str) -> Entry {
        Entry { file: "small.pth", sha256: Some(sum), ..*entry("resnet18").unwrap() }
    }

    fn places(folder: &Path) -> Places {
        let mirror = format!("file://{}/mirror/", folder.display());
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
        let error = told(entry("richsem-r50").unwrap(), &places);
        assert!(error.contains("have not published it"), "{error}");
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok() {
            let error = told(&small(SUM), &places);
            assert!(error.contains("of curl") && error.contains("https_proxy"), "{error}");
            std::fs::create_dir_all(folder.path().join("mirror")).unwrap();
            std::fs::write(folder.path().join("mirror/small.pth"), "<html>").unwrap();
            let error = told(&small(SUM), &places);
            assert!(error.contains("a page of a proxy"), "{error}");
            assert!(!places.folder.join("small.pth.part").exists());
        }
    }
}
