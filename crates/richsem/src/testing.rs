//! What tests and examples share: where data lies, and data of LVIS's size.

mod lvis;

use std::path::{Path, PathBuf};

pub use lvis::{LvisCounts, write_lvis};

/// The file or folder `path` below the project's test data, or `None`, with a line on stderr
/// saying so, where that data is absent (it is public, but not part of this repository).
///
/// Looked for in the folder that `RICHSEM_SHARED` names, then in `shared/data` in any folder
/// above this crate.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let named = std::env::var_os("RICHSEM_SHARED").map(PathBuf::from);
    let (roots, place) = match named {
        Some(root) => (vec![root.clone(), root.join("data")], root.display().to_string()),
        None => {
            let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
            let roots = crate_folder.ancestors().map(|above| above.join("shared/data")).collect();
            (roots, "`shared/data` above the crate".to_owned())
        }
    };
    let found = roots.iter().map(|root| root.join(path)).find(|p| p.exists());
    if found.is_none() {
        use std::io::Write as _;
        let line = format!("skipped: no `{path}` in {place}; RICHSEM_SHARED can name the folder\n");
        // Straight to stderr: the test harness swallows what a passing test prints.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}
