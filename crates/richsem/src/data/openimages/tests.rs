mod broken;
mod files;
mod hierarchy;

use std::path::Path;

use tempfile::TempDir;

/// A folder with one file.
struct Written(TempDir);

impl Written {
    fn new(contents: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("file.csv"), contents).unwrap();
        Self(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("file.csv")
    }
}

/// A message without the folder in it.
fn message<T>(result: crate::Result<T>, file: &Path) -> String {
    let Err(error) = result else { panic!("no error") };
    error.to_string().replace(&file.display().to_string(), "FILE")
}
