//! Locks that end with their process: that of a folder, which every run and study holds, and that of a file.

use std::{
    fs::{File, TryLockError},
    io::ErrorKind,
    path::Path,
    time::Duration,
};

use crate::error::Result;

/// Held by the process that works in a folder.
pub(crate) const LOCK: &str = ".lock";

/// How often a lock that another process only looks at, or takes away, is tried again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Keeps other processes that ask out of a folder, which is there, until the file is dropped; `None`
/// if one of them was first. The lock ends with the process, however it ends.
///
/// # Errors
/// A folder that is not there (any more) or cannot be written.
pub(crate) fn lock_folder(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    for _ in 0..TRIES {
        let file = fs_err::OpenOptions::new().create(true).append(true).open(&path)?.into_file();
        match file.try_lock() {
            // The one who held it may have taken the file away in between.
            Ok(()) if is_file(&file, &path)? => return Ok(Some(file)),
            Ok(()) => {}
            // Held for a moment by one who asks whether the folder is busy, or for long.
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Waits until no other process holds a file, makes it if it is not there, and holds it until what is given is
/// dropped. `waiting` is called if another process has it. A file system without locks keeps no one out.
///
/// # Errors
/// A file that cannot be made.
pub(crate) fn wait_for(path: &Path, waiting: impl FnOnce()) -> Result<File> {
    let mut waiting = Some(waiting);
    loop {
        let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_file();
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // Who held it may have renamed it or taken it away.
        if locked.is_err() || is_file(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether a process holds the folder's lock now. False for a folder that is not there.
///
/// # Errors
/// A folder that cannot be looked into.
pub(crate) fn is_locked(folder: &Path) -> Result<bool> {
    let file = match fs_err::File::open(folder.join(LOCK)) {
        Ok(file) => file.into_file(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether that open file is the one that lies under the name.
fn is_file(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_file_also_where_it_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let (part, whole) = (folder.path().join("a.part"), folder.path().join("a"));
        let made = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _held = wait_for(&part, || ()).unwrap();
                    if !whole.exists() {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                        std::fs::rename(&part, &whole).unwrap();
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_look_at_a_lock_keeps_no_one_out() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_locked(folder.path()).unwrap());
        let held = lock_folder(folder.path()).unwrap().unwrap();
        assert!(is_locked(folder.path()).unwrap());
        assert!(lock_folder(folder.path()).unwrap().is_none());
        drop(held);
        assert!(!is_locked(folder.path()).unwrap());
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| (0..2000).all(|_| is_locked(folder.path()).is_ok()));
            for _ in 0..200 {
                assert!(lock_folder(folder.path()).unwrap().is_some());
            }
            assert!(looks.join().unwrap());
        });
    }
}
