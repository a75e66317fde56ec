//! One error type: what is wrong, where, and what to do about it.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::argument::Argument;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every message names the file and the field, what was expected and what was
/// found, and, where there is one, the remedy.
///
/// A message is complete: what it is made of, as the system's own words, is in it, so that there is no
/// [`source`](std::error::Error::source). `Debug` gives the message, too: it is what a `main` that
/// returns an error prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A user's file holds something it should not: `file: field: problem (hint)`.
    #[error("{}: {field}: {problem}{}", file.display(), Hint(hint))]
    Invalid {
        /// The file that was read.
        file: PathBuf,
        /// Which record and field of it, as `annotations[17].bbox`.
        field: String,
        /// Expected and got.
        problem: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// A setting is wrong or two settings contradict each other.
    #[error("{key}: {problem}{}", Hint(hint))]
    Config {
        /// Dotted key.
        key: String,
        /// Expected and got.
        problem: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// What a function was asked for is wrong, apart from the settings of a config.
    #[error("{argument}: {problem}{}", Hint(hint))]
    Argument {
        /// Which of its arguments.
        argument: Argument,
        /// Expected and got.
        problem: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// Reading or writing failed; the message carries the path (`fs-err`).
    #[error("{error}{}", Hint(hint))]
    Io {
        /// What the system says.
        error: std::io::Error,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// libtorch refused.
    #[error("libtorch: {}{}", torch_ext::without_backtrace(&error.to_string()), Hint(hint))]
    Torch {
        /// What it says.
        error: tch::TchError,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// An operation of `torch-ext` failed.
    #[error("{error}{}", Hint(hint))]
    Ext {
        /// What it says.
        error: torch_ext::Error,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// The memory, of the device or of the machine, does not suffice.
    #[error("not enough memory{}{}{}", For(work), Wanted(wanted), Hint(hint))]
    OutOfMemory {
        /// What was asked for last, as `2.00 GiB`, where libtorch says it.
        wanted: Option<String>,
        /// What it was for, where that is known.
        work: Option<String>,
        /// What makes it less.
        hint: Option<String>,
    },
    /// Training produced a number that is not finite.
    #[error("{problem}{}", Hint(hint))]
    NonFinite {
        /// Which number, and where.
        problem: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// Another process of the run failed.
    #[error("rank {rank} (on {host}): {problem}")]
    Process {
        /// Which one.
        rank: u64,
        /// The machine it is on.
        host: String,
        /// Its own message.
        problem: String,
    },
    /// The caller asked to stop; what was begun is taken away again.
    #[error("stopped before it was done")]
    Stopped,
    /// Anything else, complete in itself.
    #[error("{problem}{}", Hint(hint))]
    Other {
        /// What is wrong.
        problem: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let hint = remedy(&error).map(str::to_owned);
        Self::Io { error, hint }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch { error, hint: None }
    }
}

impl From<torch_ext::Error> for Error {
    fn from(error: torch_ext::Error) -> Self {
        Self::Ext { error, hint: None }
    }
}

/// What to do where the system refuses to write.
fn remedy(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    Some(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or write to another one"
        }
        ErrorKind::FileTooLarge => "raise the limit on the size of files (ulimit -f)",
        ErrorKind::ReadOnlyFilesystem => "choose a folder on a disk that can be written",
        _ => return None,
    })
}

struct For<'a>(&'a Option<String>);

impl std::fmt::Display for For<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |work| write!(f, " for {work}"))
    }
}

struct Wanted<'a>(&'a Option<String>);

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |wanted| write!(f, ": {wanted} more was asked for"))
    }
}

struct Hint<'a>(&'a Option<String>);

impl std::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// `file: field: problem`, without a hint.
    pub fn invalid(file: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            file: file.to_owned(),
            field: field.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// `key: problem`, without a hint.
    pub fn config(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { key: key.into(), problem: problem.into(), hint: None }
    }

    /// `argument: problem`, without a hint.
    pub fn argument(argument: Argument, problem: impl Into<String>) -> Self {
        Self::Argument { argument, problem: problem.into(), hint: None }
    }

    /// A number that is not finite, without a hint.
    pub fn non_finite(problem: impl Into<String>) -> Self {
        Self::NonFinite { problem: problem.into(), hint: None }
    }

    /// Anything else, without a hint.
    pub fn other(problem: impl Into<String>) -> Self {
        Self::Other { problem: problem.into(), hint: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Invalid { hint, .. }
            | Self::Config { hint, .. }
            | Self::Argument { hint, .. }
            | Self::Io { hint, .. }
            | Self::Torch { hint, .. }
            | Self::Ext { hint, .. }
            | Self::OutOfMemory { hint, .. }
            | Self::NonFinite { hint, .. }
            | Self::Other { hint, .. } => *hint = Some(text.into()),
            Self::Process { .. } | Self::Stopped => {}
        }
        self
    }

    /// Of an error that says that the memory did not suffice: what the memory was for, and what makes
    /// it less. Said once, by whoever is nearest.
    #[must_use]
    pub(crate) fn for_work(self, needed_for: impl FnOnce() -> String, remedy: &str) -> Self {
        match self.or_shortage() {
            Self::OutOfMemory { wanted, work: None, .. } => Self::OutOfMemory {
                wanted,
                work: Some(needed_for()),
                hint: Some(remedy.to_owned()),
            },
            other => other,
        }
    }

    /// libtorch has no kind of its own for a lack of memory: it is known by its words.
    fn or_shortage(self) -> Self {
        match &self {
            Self::Torch { .. } | Self::Ext { .. } => shortage(&self.to_string()).unwrap_or(self),
            _ => self,
        }
    }
}

/// [`Error::Stopped`] once the flag is set.
pub(crate) fn unless_stopped(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}

thread_local! {
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// True while this thread runs inside [`guarded`] or the like: a panic here becomes an error, so a panic
/// hook need not report it.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs tensor code. `tch`'s operators panic where libtorch refuses (out of memory, mostly);
/// here that becomes an error like any other.
///
/// # Errors
/// Those of `f`, and its panics.
pub fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = caught(f).unwrap_or_else(|text| {
        let text = torch_ext::without_backtrace(&text);
        Err(shortage(text).unwrap_or_else(|| Error::other(format!("libtorch: {text}"))))
    });
    result.map_err(Error::or_shortage)
}

/// Runs the code of others that may panic.
///
/// # Errors
/// The words of the panic.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    GUARDED.set(before);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without a message").to_owned()
    })
}

/// The error where a message of libtorch says that memory is short: of the GPU's allocator, of the
/// host's, or of a size that no memory has.
fn shortage(text: &str) -> Option<Error> {
    let after = |start: &str| text.split_once(start).map(|(_, rest)| rest);
    let wanted = if text.contains("out of memory") {
        after("Tried to allocate ").and_then(|rest| Some(rest.split_once(". ")?.0.to_owned()))
    } else if text.contains("can't allocate memory") {
        let digits = after("tried to allocate ").and_then(|rest| rest.split(' ').next());
        digits.and_then(|digits| digits.parse().ok()).map(in_words)
    } else if text.contains("size calculation overflowed")
        || text.contains("integer multiplication overflow")
    {
        None
    } else {
        return None;
    };
    Some(Error::OutOfMemory { wanted, work: None, hint: None })
}

/// Bytes, as libtorch writes them.
fn in_words(bytes: f64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (bytes.max(1.0).log2() / 10.0).floor().min(5.0);
    let value = bytes / 1024_f64.powf(power);
    format!("{value:.2} {}", units[power as usize])
}

/// A user's file of text, without its byte order mark.
///
/// # Errors
/// A file that cannot be read, or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    text_of(path, fs_err::read(path)?)
}

/// The text that a file holds.
///
/// # Errors
/// No UTF-8.
pub(crate) fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let (problem, hint) = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                ("this is UTF-16 text, not UTF-8".to_owned(), "save it as UTF-8")
            }
            _ => {
                let at = error.utf8_error().valid_up_to();
                let problem = format!("expected UTF-8 text, got {:#04x} at byte {at}", bytes[at]);
                (problem, "is it the right file? If it is text, save it as UTF-8")
            }
        };
        Error::invalid(path, "text", problem).with_hint(hint)
    })?;
    // A byte order mark is how some programs say UTF-8: it is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// The beginning of a file's name while it is written. A file that still has such a name was left by a
/// process that was killed.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes a file so that it is either wholly there or not at all: to a temporary file in the same
/// folder, synced, then renamed over `path`. A link stays one: the file that it points to is
/// replaced. A device or pipe (`/dev/stdout`) is written to as it is.
///
/// # Errors
/// Whatever `write` returns, and I/O errors with the path in them (unwritable folder, full disk).
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
) -> Result<()> {
    use std::io::Write as _;
    let at = |e: std::io::Error| {
        std::io::Error::new(e.kind(), format!("could not write `{}`: {e}", path.display()))
    };
    let write = |out: &mut dyn std::io::Write| match write(out) {
        Err(Error::Io { error, hint }) => Err(Error::Io { error: at(error), hint }),
        other => other,
    };
    if path.metadata().is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        // Renaming a file over a device would replace the device.
        let device = std::fs::OpenOptions::new().write(true).open(path).map_err(at)?;
        let mut buffered = std::io::BufWriter::with_capacity(1 << 20, device);
        write(&mut buffered)?;
        return Ok(buffered.flush().map_err(at)?);
    }
    let target = match path.is_symlink() {
        true => path.canonicalize().unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    };
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).map_err(at)?;
    // The file itself: its wrapper would name the temporary file beside the one that is meant.
    let mut buffered = std::io::BufWriter::with_capacity(1 << 20, file.as_file());
    write(&mut buffered)?;
    buffered.flush().map_err(at)?;
    drop(buffered);
    file.as_file().sync_all().map_err(at)?;
    // Temporary files are private by default; a result is as readable as any file the user makes.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(at)?;
    }
    file.persist(&target).map_err(|e| at(e.error))?;
    Ok(())
}

/// What is wrong in one line of JSON. serde counts lines within what it was given, which is always
/// its first: the file's own line is for the caller to tell.
pub(crate) fn problem_in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(problem) => format!("{problem}, at column {}", error.column()),
        None => text,
    }
}

/// The first few of a list, and how many more there are.
pub(crate) fn first_few(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 10;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn a_message_is_complete_and_there_once() {
        let missing = Error::from(fs_err::read("nowhere").unwrap_err());
        let refused =
            Error::from(Tensor::zeros([2], (Kind::Float, Device::Cpu)).f_view([3]).unwrap_err());
        for error in [missing, refused, Error::config("a.b", "expected 1").with_hint("set it")] {
            let text = error.to_string();
            assert_eq!(format!("{error:?}"), text);
            assert!(std::error::Error::source(&error).is_none(), "{text}");
        }
    }

    #[test]
    fn text_of_another_encoding_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, says) in [
            (&b"\xff\xfev\0"[..], "text: this is UTF-16 text"),
            (b"a = '\xe4'", "got 0xe4 at byte 5"),
        ] {
            fs_err::write(file.path(), bytes).unwrap();
            let error = read_text(file.path()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("save it as UTF-8"), "{error}");
        }
        fs_err::write(file.path(), "ä").unwrap();
        assert_eq!(read_text(file.path()).unwrap(), "ä");
    }

    /// In the words of the libtorch that is there, and in those of its CUDA allocator.
    #[test]
    fn a_lack_of_memory_says_what_for() {
        let size = [1 << 25, 1 << 20];
        let options = (Kind::Float, Device::Cpu);
        let panicking = guarded(|| Ok(Tensor::zeros(size, options))).unwrap_err();
        let failing = guarded(|| Ok(Tensor::f_zeros(size, options)?)).unwrap_err();
        let endless = guarded(|| Ok(Tensor::zeros([1 << 40, 1 << 40], options))).unwrap_err();
        let gpu = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of";
        let gpu = guarded::<()>(|| std::panic::panic_any(gpu.to_owned())).unwrap_err();
        for (error, wanted) in [
            (panicking, ": 128.00 TiB more was asked for"),
            (failing, ": 128.00 TiB more was asked for"),
            (endless, ""),
            (gpu, ": 2.00 GiB more was asked for"),
        ] {
            assert_eq!(error.to_string(), format!("not enough memory{wanted}"));
            let error = error.for_work(|| "a step".to_owned(), "make it smaller");
            // The one nearest to the work has said it.
            let error = error.for_work(|| "a run".to_owned(), "buy more");
            let text = format!("not enough memory for a step{wanted}\n  hint: make it smaller");
            assert_eq!(error.to_string(), text);
        }
        let other = guarded(|| Ok(Tensor::zeros([2], options).f_view([3])?)).unwrap_err();
        let text = other.to_string();
        assert_eq!(other.for_work(|| "a step".to_owned(), "").to_string(), text);
    }
}
