//! Words and files: results to stdout, everything else to stderr, and refusing places that cannot
//! be written before the work whose result they are to hold.

use std::{
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Result, anyhow};
use richsem::{
    data::{image_store::ImageStore, listing::is_image},
    shell::quoted,
    train::RunFolder,
    weights,
};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// Writes a result and a line end to stdout. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: impl std::fmt::Display) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow!("could not write to stdout: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a message to stderr.
pub(crate) fn note(text: impl std::fmt::Display) {
    styled(printable(&text.to_string()));
}

/// Writes to stderr what may have colours.
fn styled(text: impl std::fmt::Display) {
    // Progress may be lost when stderr is closed; the work goes on.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// A text whose control characters a terminal does not obey: names and contents of files may hold any.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| c == '\n' || c == '\t' || !c.is_control();
    let escaped = |c: char| if shown(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(escaped).collect()
}

/// Warns of something that the user probably does not want.
pub(crate) fn warn(text: impl std::fmt::Display) {
    styled(format!("{WARNING}warning:{WARNING:#} {}", printable(&text.to_string())));
}

/// Says why the program ends. Without colours if stderr is no terminal, or `NO_COLOR` is set.
pub(crate) fn error(error: &anyhow::Error) {
    let text = printable(&format!("{error:#}"));
    let text = text.replace("\n  hint:", &format!("\n  {HINT}hint:{HINT:#}"));
    styled(format!("{ERROR}error:{ERROR:#} {text}"));
}

/// A panic is a bug: it gets one line instead of a backtrace. A panic that the library turns into an
/// error (`guarded`) gets none.
pub(crate) fn set_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        if richsem::error::is_guarded() {
            return;
        }
        let payload = info.payload();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let text = text.lines().next().unwrap_or_default();
        let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
        let text = printable(text);
        styled(format!(
            "{ERROR}internal error:{ERROR:#} {text}{place}; please report this line and the \
             command at {}/issues",
            env!("CARGO_PKG_REPOSITORY")
        ));
    }));
}

/// What a message about an argument begins with: its flag. An argument without a flag is known by what was typed,
/// which the message has.
pub(crate) fn of(flag: &str) -> String {
    if flag.starts_with('-') { format!("{flag}: ") } else { String::new() }
}

/// What to do with an address, of the web or of a store of objects; none if it is none.
pub(crate) fn address_hint(path: &Path) -> Option<String> {
    let (scheme, rest) = path.to_str()?.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c);
    if scheme.is_empty() || !scheme.chars().all(plain) || path.exists() {
        return None;
    }
    let how = match &*scheme.to_ascii_lowercase() {
        "file" => return Some(format!("give the path alone: {rest}")),
        "http" | "https" | "ftp" => "get the file first (curl -LO ADDRESS)",
        "s3" => "get the file first (aws s3 cp ADDRESS .)",
        "gs" => "get the file first (gcloud storage cp ADDRESS .)",
        _ => "get the file first",
    };
    Some(format!("addresses are not fetched: {how}"))
}

/// Refuses an input that does not exist. `what` says in words what it should be.
pub(crate) fn check_input(path: &Path, flag: &str, what: &str) -> Result<()> {
    // Also a pattern of archives or tables.
    if ImageStore::is_there(path) {
        return Ok(());
    }
    if let Some(hint) = address_hint(path) {
        return Err(anyhow!("{}`{}` is an address\n  hint: {hint}", of(flag), path.display()));
    }
    let hint = match std::env::current_dir() {
        Ok(here) if path.is_relative() => {
            format!("\n  hint: names are relative to the working folder, {}", here.display())
        }
        _ => String::new(),
    };
    Err(anyhow!("{}no such {what} as `{}`{hint}", of(flag), path.display()))
}

/// Refuses weights to start from that do not exist. Names of public ones are known.
pub(crate) fn check_weights(path: &Path, flag: &str) -> Result<()> {
    let name = path.to_str().filter(|name| !path.exists() && !name.contains(['/', '\\']));
    let found = name.and_then(|name| {
        let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
        let name = plain(name.trim_end_matches(".pth").trim_end_matches(".pt"));
        let known = weights::entries().iter();
        let begins = |known: &str| name.len() > 3 && plain(known).starts_with(&name);
        known.into_iter().find(|entry| {
            begins(entry.name) || entry.file == path.as_os_str() || begins(entry.file)
        })
    });
    match (found, name) {
        (Some(entry), Some(name)) => Err(anyhow!(
            "{}no such file or folder as `{name}`\n  hint: public weights are fetched first: {flag} \"$(richsem \
             weights fetch {})\" (`richsem weights` lists all)",
            of(flag),
            entry.name
        )),
        _ => check_input(path, flag, "file or folder").map_err(|error| match name {
            Some(_) => anyhow!("{error}; `richsem weights` lists public ones"),
            None => error,
        }),
    }
}

/// Refuses an input that does not exist or is a folder.
pub(crate) fn check_input_file(path: &Path, flag: &str) -> Result<()> {
    check_input(path, flag, "file")?;
    if path.is_dir() {
        let path = path.display();
        return Err(anyhow!(
            "{}`{path}` is a folder, expected a file\n  hint: name the file in it",
            of(flag)
        ));
    }
    Ok(())
}

/// Those of the paths that are given, each with its flag or what it is.
pub(crate) fn given<'a>(
    all: impl IntoIterator<Item = (Option<&'a PathBuf>, &'a str)>,
) -> Vec<(&'a Path, &'a str)> {
    all.into_iter().filter_map(|(path, what)| Some((path?.as_path(), what))).collect()
}

/// Refuses a result that would overwrite one of the inputs, each with its flag or what it is, or a file of an input
/// that is a folder: what a run keeps there, and whatever else may be part of a set.
pub(crate) fn check_apart(file: &Path, flag: &str, inputs: &[(&Path, &str)]) -> Result<()> {
    let (flag, name) = (of(flag), file.display());
    // A file that does not exist yet is no input.
    let place = file.canonicalize().ok();
    let is_same = |input: &Path| place.is_some() && input.canonicalize().ok() == place;
    if let Some((_, what)) = inputs.iter().find(|(input, _)| is_same(input)) {
        return Err(anyhow!(
            "{flag}`{name}` is the file of {what}, which would be overwritten\n  hint: give another name"
        ));
    }
    for (input, what) in inputs {
        if let Ok(run) = RunFolder::open(input) {
            // Also one that is not there yet.
            if run.keeps(file) {
                return Err(anyhow!(
                    "{flag}`{name}` is a file of the run in `{}`, which would be overwritten\n  hint: give another name",
                    input.display()
                ));
            }
        } else if let (Some(place), Ok(folder)) = (&place, input.canonicalize())
            && folder.is_dir()
            && place.starts_with(folder)
            && !is_never_data(place)
        {
            return Err(anyhow!(
                "{flag}`{name}` lies in the folder of {what}, may be part of it, and would be overwritten\n  hint: \
                 give another name, or take that file away"
            ));
        }
    }
    Ok(())
}

/// Whether a file is a page or has settings: no set has such.
fn is_never_data(file: &Path) -> bool {
    ends(file, &["html", "toml"])
}

fn ends(file: &Path, endings: &[&str]) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    endings.iter().any(|other| ending.eq_ignore_ascii_case(other))
}

/// As [`check_apart`], of folders and archives of images, each with its flag or what it is: of a folder only what may
/// hold images is read.
pub(crate) fn check_no_images(file: &Path, flag: &str, places: &[(&Path, &str)]) -> Result<()> {
    let holds_images = is_image(&file.to_string_lossy()) || ends(file, &["tar", "parquet"]);
    let is_read = |(place, _): &&(&Path, &str)| !place.is_dir() || holds_images;
    let places: Vec<(&Path, &str)> = places.iter().filter(is_read).copied().collect();
    check_apart(file, flag, &places)
}

/// Refuses a file that could not be written later.
pub(crate) fn check_file(path: &Path, flag: &str) -> Result<()> {
    if path.is_dir() {
        let path = path.display();
        return Err(anyhow!("{}`{path}` is a folder, expected the name of a file", of(flag)));
    }
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        // A device or pipe, as /dev/stdout: written to as it is.
        return Ok(());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(anyhow!(
            "{}the folder `{}` does not exist\n  hint: make it with mkdir -p {}",
            of(flag),
            folder.display(),
            quoted(folder)
        ));
    }
    probe(folder, flag)
}

/// Makes a folder if it is missing, and refuses one that cannot be written to.
pub(crate) fn make_folder(path: &Path, flag: &str) -> Result<()> {
    if path.exists() && !path.is_dir() {
        let path = path.display();
        return Err(anyhow!("{}`{path}` is a file, expected a folder", of(flag)));
    }
    fs_err::create_dir_all(path).map_err(|error| anyhow!("{}{error}", of(flag)))?;
    probe(path, flag)
}

/// Refuses a folder that could not be made later, without making it yet.
pub(crate) fn check_new_folder(path: &Path, flag: &str) -> Result<()> {
    let path = std::path::absolute(path)?;
    let existing: PathBuf = path.ancestors().find(|p| p.exists()).unwrap_or(&path).to_owned();
    if !existing.is_dir() {
        let existing = existing.display();
        return Err(anyhow!("{}`{existing}` is a file, expected a folder", of(flag)));
    }
    probe(&existing, flag)
}

/// Tries to write: this shows permissions, read-only disks and quotas alike.
fn probe(folder: &Path, flag: &str) -> Result<()> {
    tempfile::tempfile_in(folder).map(drop).map_err(|error| {
        anyhow!("{}the folder `{}` cannot be written to: {error}", of(flag), folder.display())
    })
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let bytes = b"not a .tar: \x1b[31mred\x07\x00\r\xff\n  hint: \xc3\xa9";
        let text = printable(&String::from_utf8_lossy(bytes));
        assert_eq!(text, "not a .tar: \\u{1b}[31mred\\u{7}\\u{0}\\r\u{fffd}\n  hint: \u{e9}");
    }
}
