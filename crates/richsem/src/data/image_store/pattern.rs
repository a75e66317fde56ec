//! Several files by one name: `shard-{000000..000127}.tar`, `train-*.parquet`.

use std::path::{Path, PathBuf};

use crate::{Error, Result, error::first_few};

/// Most files of one pattern.
const MOST: usize = 1_000_000;

/// The files that a pattern names, sorted; `None` if it is no pattern, or there is a file of that very
/// name. A range counts with the digits it is written with.
///
/// # Errors
/// Nothing fits, or a file that a range names is not there.
pub(super) fn files(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = path.to_str().filter(|_| !path.exists()) else { return Ok(None) };
    let ranged = range(text).is_some();
    if !ranged && !text.contains(['*', '?', '[']) {
        return Ok(None);
    }
    let names = expanded(text);
    if names.len() > MOST {
        return Err(Error::invalid(path, "pattern", format!("names more than {MOST} files")));
    }
    let mut files = Vec::new();
    for name in &names {
        let globbed = glob::glob(name)
            .map_err(|error| Error::invalid(path, "pattern", error.msg.to_owned()))?;
        let before = files.len();
        files.extend(globbed.filter_map(Result::ok).filter(|file| file.is_file()));
        if ranged && files.len() == before {
            let missing: Vec<&String> =
                names.iter().filter(|name| !Path::new(name).exists()).collect();
            let count = missing.len();
            let missing = first_few(missing.into_iter().cloned());
            let problem = format!("{count} of the {} files are not there: {missing}", names.len());
            return Err(Error::invalid(path, "pattern", problem)
                .with_hint("give the numbers that are there, or the folder"));
        }
    }
    files.sort_unstable();
    files.dedup();
    if files.is_empty() {
        return Err(Error::invalid(path, "pattern", "no file fits"));
    }
    Ok(Some(files))
}

/// What files of a store are called in it: their names without the extension; with the folders that they
/// do not share, if two have one name.
pub(super) fn stems(files: &[PathBuf]) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let short: Vec<String> = files.iter().map(stem).collect();
    let mut sorted: Vec<&String> = short.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() == files.len() {
        return short;
    }
    let mut shared = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
    while files.iter().any(|file| !file.starts_with(shared)) {
        shared = shared.parent().unwrap_or(Path::new(""));
    }
    let below = |path: &PathBuf| {
        let path = path.strip_prefix(shared).unwrap_or(path).with_extension("");
        path.to_string_lossy().into_owned()
    };
    files.iter().map(below).collect()
}

/// The names of a text with ranges of numbers; one more than [`MOST`] if there are more.
fn expanded(text: &str) -> Vec<String> {
    let Some((before, numbers, after)) = range(text) else { return vec![text.to_owned()] };
    let after = expanded(after);
    let names = numbers
        .iter()
        .flat_map(|number| after.iter().map(move |after| format!("{before}{number}{after}")));
    names.take(MOST + 1).collect()
}

/// The first range of numbers, `{0000..0127}`: what is before it, its numbers, what is after it.
fn range(text: &str) -> Option<(&str, Vec<String>, &str)> {
    for (open, _) in text.match_indices('{') {
        let Some((inside, after)) = text[open + 1..].split_once('}') else { continue };
        let Some((first, last)) = inside.split_once("..") else { continue };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(first) || !digits(last) {
            continue;
        }
        let (Ok(from), Ok(to)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
        if from > to {
            continue;
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        let numbers = (from..=to).take(MOST + 1).map(|number| format!("{number:0width$}"));
        return Some((&text[..open], numbers.collect(), after));
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_stars_name_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["s-008.tar", "s-009.tar", "s-010.tar", "a-1-0.tar", "a-1-1.tar", "x{1..2}"] {
            fs_err::write(folder.path().join(name), "").unwrap();
        }
        let found = |pattern: &str| {
            let files = files(&folder.path().join(pattern))?;
            Ok::<_, Error>(files.map(|files| {
                let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
                files.iter().map(name).collect::<Vec<_>>()
            }))
        };
        let all = ["s-008.tar", "s-009.tar", "s-010.tar"].map(str::to_owned).to_vec();
        assert_eq!(found("s-{008..010}.tar").unwrap().unwrap(), all);
        assert_eq!(found("s-*.tar").unwrap().unwrap(), all);
        assert_eq!(found("a-{1..1}-{0..1}.tar").unwrap().unwrap(), ["a-1-0.tar", "a-1-1.tar"]);
        assert_eq!(found("s-008.tar").unwrap(), None);
        assert_eq!(found("x{1..2}").unwrap(), None, "a file of that very name");
        assert_eq!(found("nothing").unwrap(), None);
        let text = found("s-{007..011}.tar").unwrap_err().to_string();
        assert!(
            text.contains("2 of the 5 files are not there") && text.contains("s-007"),
            "{text}"
        );
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(stems(&paths(&["a/0.tar", "b/1.tar"])), ["0", "1"]);
        assert_eq!(stems(&paths(&["x/a/0.tar", "x/b/0.tar"])), ["a/0", "b/0"]);
        assert_eq!(stems(&paths(&["a/0.tar", "0.tar"])), ["a/0", "0"]);
        assert!(found("t-*.tar").unwrap_err().to_string().contains("no file fits"));
    }
}
