//! Checks which libtorch runs. This crate depends on details of 2.11: layouts in its headers, and names and
//! sizes that no compiler checks (`shim/graph.cpp`). `build.rs` checks the headers, but the library may have
//! been replaced since.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{Error, Result, ffi};

/// The version that this crate is written for; any patch release will do.
const EXPECTED: &str = "2.11";

/// Version of the libtorch that is loaded, as `2.11.0`; none if it does not say.
pub fn loaded() -> Option<&'static str> {
    static LOADED: OnceLock<Option<String>> = OnceLock::new();
    let version = || ffi::libtorch_version().ok().filter(|version| !version.is_empty());
    LOADED.get_or_init(version).as_deref()
}

/// Folder that the running program loaded libtorch from.
pub(crate) fn torch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps.lines().find_map(|line| {
        let path = line.get(line.find('/')?..)?;
        path.ends_with("/libtorch_cpu.so").then(|| PathBuf::from(path))
    })?;
    Some(library.parent()?.to_owned())
}

/// Refuses a libtorch of another version than this crate is written for.
///
/// # Errors
/// The version that was expected, the one that is loaded, its folder, and what to do.
pub(crate) fn check() -> Result<()> {
    compare(loaded())
}

fn compare(version: Option<&str>) -> Result<()> {
    let rest = version.and_then(|version| version.strip_prefix(EXPECTED));
    if rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(());
    }
    let version = version.unwrap_or("one that does not say its version");
    let place = torch_folder().map(|folder| format!(" in `{}`", folder.display()));
    Err(Error::Version(format!(
        "libtorch: expected version {EXPECTED}, got {version}{}; put {EXPECTED} back there, or build \
         again (`make libtorch` fetches it, LIBTORCH names one of your own)",
        place.unwrap_or_default()
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_in_the_running_program() {
        // Something of libtorch must be called, or the linker drops it from the test.
        assert!(tch::get_num_threads() > 0);
        let folder = torch_folder().unwrap();
        assert!(folder.join("libc10.so").exists(), "{}", folder.display());
    }

    #[test]
    fn the_loaded_library_says_its_version() {
        let version = loaded().unwrap();
        assert!(version.starts_with("2.11."), "{version}");
        check().unwrap();
    }

    #[test]
    fn another_version_is_refused_with_what_to_do() {
        for version in ["2.11.0", "2.11.1", "2.11.0a0+git70d99e9", "2.11"] {
            compare(Some(version)).unwrap();
        }
        for version in ["2.10.0", "2.1.1", "2.110.0", "12.11.0", "2.12.0"] {
            let problem = compare(Some(version)).unwrap_err().to_string();
            let got = format!("expected version 2.11, got {version} in `/");
            for part in [&got, "make libtorch", "LIBTORCH"] {
                assert!(problem.contains(part), "no `{part}` in: {problem}");
            }
        }
        let problem = compare(None).unwrap_err().to_string();
        assert!(problem.contains("does not say its version"), "{problem}");
    }
}
