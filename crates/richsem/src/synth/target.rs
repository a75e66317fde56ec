//! The output folder: drawn beside its place under another name, then renamed, so that it is
//! either whole or not there.

use std::path::{Path, PathBuf};

use super::{captions, readme};
use crate::{Error, Result, argument::Argument};

/// What a set consists of; a folder with anything else in it is never replaced.
const ENTRIES: [&str; 7] = [
    "train.json",
    "val.json",
    "images",
    "classification",
    captions::FILE,
    captions::FOLDER,
    readme::FILE,
];

/// A place for a set, with a folder beside it to draw into. Dropping it without
/// [`publish`](Self::publish) leaves the place as it was.
pub(super) struct Target {
    output: PathBuf,
    beside: tempfile::TempDir,
}

impl Target {
    pub(super) fn new(output: &Path, overwrite: bool) -> Result<Self> {
        // Behind a symbolic link the folder itself is replaced, not the link. A bare name gets
        // the working folder as its parent.
        let output = match fs_err::canonicalize(output) {
            Ok(existing) => existing,
            Err(_) => std::path::absolute(output)?,
        };
        if output.exists() {
            may_replace(&output, overwrite)?;
        }
        let parent = output.parent().ok_or_else(|| {
            Error::config("output", format!("`{}` is not a folder's name", output.display()))
        })?;
        fs_err::create_dir_all(parent)?;
        let beside = tempfile::Builder::new().prefix(".tmp-synth-").tempdir_in(parent)?;
        let target = Self { output, beside };
        // A folder within: the temporary one is private, a set is as readable as other folders.
        fs_err::create_dir(target.work())?;
        Ok(target)
    }

    /// The folder to write the set into.
    pub(super) fn work(&self) -> PathBuf {
        self.beside.path().join("set")
    }

    /// Makes what was written the set at `output`. What was there goes with the temporary folder.
    pub(super) fn publish(self) -> Result<()> {
        let earlier = self.beside.path().join("earlier");
        let replaced = self.output.exists();
        if replaced {
            fs_err::rename(&self.output, &earlier)?;
        }
        if let Err(error) = fs_err::rename(self.work(), &self.output) {
            if replaced {
                fs_err::rename(&earlier, &self.output)?;
            }
            return Err(error.into());
        }
        self.beside.close()?;
        Ok(())
    }
}

/// Empty folders may be replaced, and earlier sets when that is asked for.
fn may_replace(output: &Path, overwrite: bool) -> Result<()> {
    let refuse = |problem: &str, hint: &str| {
        let problem = format!("`{}` {problem}", output.display());
        Err(Error::config("output", problem).with_hint(hint))
    };
    if !output.is_dir() {
        return refuse("is a file, expected a folder or a name not taken", "choose another name");
    }
    let mut names = Vec::new();
    for entry in fs_err::read_dir(output)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    if names.is_empty() {
        return Ok(());
    }
    if !overwrite {
        return refuse(
            "exists and is not empty",
            &format!(
                "choose another folder, or pass {} to replace an earlier set",
                Argument::Overwrite
            ),
        );
    }
    // Overwriting a home folder must not cost the home folder.
    if let Some(other) = names.iter().find(|name| !ENTRIES.contains(&name.as_str())) {
        return refuse(
            &format!("holds `{other}`, which is not part of a set that `richsem synth` made"),
            "only such a set is overwritten; move the file away or choose another folder",
        );
    }
    let readme = output.join(readme::FILE);
    if !fs_err::read_to_string(readme).is_ok_and(|text| text.starts_with(readme::TITLE)) {
        return refuse(
            "was not made by `richsem synth` (its README.md does not say so)",
            "only such a set is overwritten; choose another folder",
        );
    }
    Ok(())
}
