//! Studies: variants of the settings × seeds. Every finished run is a line of `study.jsonl`, and one
//! table has means, paired differences and 95 % t-intervals. `richsem study` trains the runs; here is
//! all else: the study file, its runs, how far a folder is, the statistics.

mod file;
mod plan;
mod results;
mod state;
mod table;

use std::path::Path;

pub use crate::statistics::Estimate;
pub use plan::{PlannedRun, Study, Variant};
pub use results::{ResultLine, Results};
pub use state::{RunState, last_row, run_state};
pub use table::{DifferenceRow, StudyTable, VariantRow};

use crate::{
    argument::Argument,
    error::{Error, Result},
    lock::lock_folder,
};

/// Keeps other studies out of a folder until the file is dropped. The lock ends with the process,
/// however it ends.
///
/// # Errors
/// Another process holds it; a folder that cannot be written.
pub fn lock(folder: &Path) -> Result<std::fs::File> {
    lock_folder(folder)?.ok_or_else(|| {
        let problem = format!("{}: another `richsem study` works in this folder", folder.display());
        Error::other(problem)
            .with_hint(format!("stop it first, or choose another folder with {}", Argument::Out))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
