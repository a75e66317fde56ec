//! Which libtorch runs. This crate reaches into 2.11: names and sizes that the compiler has not checked
//! (`shim/graph.cpp`), and layouts of the headers. `build.rs` wants 2.11's headers; the library may have
//! been replaced since.

use std::sync::OnceLock;

use crate::cuda::libraries;
use crate::{Error, Result, ffi};

/// What the crate is written for, in any patch release.
const EXPECTED: &str = "2.11";

/// Version of the libtorch that is loaded, as `2.11.0`; none if it does not say.
pub(crate) fn loaded() -> Option<String> {
    of_settings(&ffi::build_settings().ok()?).map(str::to_owned)
}

/// Refuses a libtorch of another version than this crate is written for.
///
/// # Errors
/// The version that was expected, the one that is loaded, its folder, and what to do.
pub(crate) fn check() -> Result<()> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folder = libraries::torch_folder();
        let folder = folder.map_or_else(|| "an unknown folder".into(), |f| f.display().to_string());
        compare(loaded().as_deref(), &folder)
    });
    found.clone().map_err(Error::Version)
}

fn compare(version: Option<&str>, folder: &str) -> Result<(), String> {
    let rest = version.and_then(|version| version.strip_prefix(EXPECTED));
    if rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(());
    }
    Err(format!(
        "libtorch: expected version {EXPECTED}, got {} in `{folder}`; put {EXPECTED} back there, or \
         build again (`make libtorch` fetches it, LIBTORCH names one of your own)",
        version.unwrap_or("one that does not say its version")
    ))
}

/// The version in libtorch's list of what it was built with: `…, TORCH_VERSION=2.11.0, …`.
fn of_settings(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("TORCH_VERSION=")?;
    rest.split([',', ' ', '\n']).next().filter(|version| !version.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_says_its_version() {
        let version = loaded().unwrap();
        assert!(version.starts_with("2.11."), "{version}");
        check().unwrap();
    }

    #[test]
    fn another_version_is_refused_with_what_to_do() {
        for version in ["2.11.0", "2.11.1", "2.11.0a0+git70d99e9", "2.11"] {
            assert_eq!(compare(Some(version), "/lib"), Ok(()), "{version}");
        }
        for version in ["2.10.0", "2.1.1", "2.110.0", "12.11.0", "2.12.0"] {
            let problem = compare(Some(version), "/t/lib").unwrap_err();
            for part in ["expected version 2.11, got", version, "`/t/lib`", "make libtorch"] {
                assert!(problem.contains(part), "no `{part}` in: {problem}");
            }
        }
        assert!(compare(None, "/lib").unwrap_err().contains("does not say its version"));
    }

    #[test]
    fn the_version_is_found_among_the_settings() {
        let text = "PyTorch built with:\n  - Build settings: LAPACK_INFO=mkl, TORCH_VERSION=2.12.1, \
                    USE_CUDA=ON, \n";
        assert_eq!(of_settings(text), Some("2.12.1"));
        assert_eq!(of_settings("TORCH_VERSION=2.9.0\n"), Some("2.9.0"));
        assert_eq!(of_settings("CUDA_VERSION=13.0"), None);
    }
}
