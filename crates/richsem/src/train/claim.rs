//! The folder of a run that is about to begin. Of several that want one, whoever comes second is told
//! so, and finds the first one's files untouched.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use super::run_folder::{RunFolder, SETTINGS, busy};
use crate::{
    config::Config,
    data::fingerprint::Fingerprint,
    error::{Error, Result},
    lock::{LOCK, lock_folder},
    vocabulary::Vocabulary,
};

/// How often a folder that vanishes is made again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The folder of a run that is about to begin: made if it was not there, and locked. Dropped before
/// the run has begun, it takes away what was made for it, and nothing else.
#[derive(Debug)]
pub struct NewRun {
    path: PathBuf,
    lock: Option<File>,
    /// Folders that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

/// Why a folder cannot be had.
enum Refusal {
    /// Someone else has it, or it holds something.
    Taken(Error),
    Other(Error),
}

impl NewRun {
    /// Takes a folder, which must be empty or absent. What is left there of a run that was killed
    /// before it had settings does not count.
    ///
    /// # Errors
    /// A folder that holds something, that another process trains in, or that cannot be written.
    pub fn claim(path: &Path) -> Result<Self> {
        Self::take(path).map_err(|refusal| match refusal {
            Refusal::Taken(error) | Refusal::Other(error) => error,
        })
    }

    /// Takes that folder or, where it is taken, the first free one of `path-2`, `path-3`, ….
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn claim_free(path: &Path) -> Result<Self> {
        let mut suffixed = path.to_owned();
        for number in 2_u64.. {
            match Self::take(&suffixed) {
                Ok(run) => return Ok(run),
                Err(Refusal::Taken(_)) => {
                    let mut name = path.as_os_str().to_owned();
                    name.push(format!("-{number}"));
                    suffixed = name.into();
                }
                Err(Refusal::Other(error)) => return Err(error),
            }
        }
        unreachable!("more folders than a disk has")
    }

    fn take(path: &Path) -> std::result::Result<Self, Refusal> {
        let mut run = Self { path: path.to_owned(), lock: None, made: Vec::new() };
        let check = || {
            RunFolder::check_new(path).map_err(|error| match error {
                Error::Io { .. } => Refusal::Other(error),
                _ => Refusal::Taken(error),
            })
        };
        for _ in 0..TRIES {
            // In a folder that holds something, not even a lock is made.
            check()?;
            // Another start that failed may take the folder away again, even one that it had made
            // above this one.
            match run.make_folders().and_then(|()| lock_folder(path)) {
                Ok(Some(lock)) => {
                    run.lock = Some(lock);
                    check()?;
                    return Ok(run);
                }
                Ok(None) => return Err(Refusal::Taken(busy(path))),
                Err(Error::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(Refusal::Other(error)),
            }
        }
        let problem = format!("{}: the folder vanishes as soon as it is made", path.display());
        Err(Refusal::Other(Error::other(problem).with_hint("another program removes it")))
    }

    fn make_folders(&mut self) -> Result<()> {
        let missing: Vec<&Path> = self
            .path
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            match fs_err::create_dir(folder) {
                Ok(()) => self.made.push(folder.to_owned()),
                // Another start was faster. A link to nothing is no folder.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && !folder.is_symlink() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it the folder of a run with these settings, which is the lock's as long as it is kept.
    ///
    /// # Errors
    /// A folder that cannot be written; it is then as it was.
    pub(super) fn begin(
        mut self,
        config: &Config,
        vocabulary: &Vocabulary,
        data: &Fingerprint,
    ) -> Result<(RunFolder, File)> {
        let run = RunFolder::create(&self.path, config, vocabulary, data)?;
        let lock = self.lock.take();
        Ok((run, lock.expect("a claim holds its lock until it begins or is dropped")))
    }
}

impl Drop for NewRun {
    fn drop(&mut self) {
        // Best effort. The lock's file is for the one who holds it; a folder that is not empty stays.
        let held = self.lock.take();
        if held.is_some() && !self.path.join(SETTINGS).exists() {
            let _ = std::fs::remove_file(self.path.join(LOCK));
        }
        for folder in self.made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Barrier};

    use super::*;

    fn settled(run: NewRun, seed: u64) -> File {
        let config = Config { seed, ..Config::defaults(&[]).unwrap() };
        let data = Fingerprint::of(&[]);
        run.begin(&config, &Vocabulary::new(Vec::new()), &data).unwrap().1
    }

    fn seed_of(folder: &Path) -> u64 {
        RunFolder::open(folder).unwrap().config().unwrap().seed
    }

    /// A race is mostly waiting for locks: several go on at a time.
    fn races(count: usize, race: impl Fn(u64) + Sync) {
        const LANES: usize = 8;
        std::thread::scope(|scope| {
            for lane in 0..LANES {
                let race = &race;
                scope.spawn(move || (lane..count).step_by(LANES).for_each(|at| race(at as u64)));
            }
        });
    }

    /// Some of those who come first fail, as those do whose data are wrong: of all the others one
    /// has the folder, and no one's files are another's.
    #[test]
    fn of_many_who_start_at_once_one_has_the_folder() {
        races(200, |race| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("runs/deep/one");
            let barrier = Barrier::new(6);
            let winners: Vec<u64> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..6)
                    .map(|me| {
                        let (path, barrier) = (&path, &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            let claim = NewRun::claim(path).ok()?;
                            let fails = (race + me) % 3 == 0;
                            (!fails).then(|| (me, settled(claim, me)))
                        })
                    })
                    .collect();
                // Locks are held until all have ended.
                let held: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
                held.iter().flatten().map(|(me, _)| *me).collect()
            });
            assert!(winners.len() <= 1, "race {race}: {winners:?}");
            match winners.first() {
                Some(&winner) => {
                    assert_eq!(seed_of(&path), winner);
                    let error = NewRun::claim(&path).unwrap_err().to_string();
                    assert!(error.contains("is not empty"), "{error}");
                    assert_eq!(seed_of(&path), winner);
                }
                // Those who failed have taken everything away that they made.
                None => assert!(!folder.path().join("runs").exists()),
            }
        });
    }

    #[test]
    fn free_names_are_each_ones_own() {
        races(50, |_| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tiny-20260131-120000");
            let barrier = Barrier::new(5);
            let names: Vec<(u64, PathBuf)> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..5)
                    .map(|me| {
                        let (path, barrier) = (&path, &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            let claim = NewRun::claim_free(path).unwrap();
                            let taken = claim.path().to_owned();
                            (me, taken, settled(claim, me))
                        })
                    })
                    .collect();
                let held: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
                held.into_iter().map(|(me, taken, _)| (me, taken)).collect()
            });
            for (me, taken) in &names {
                assert_eq!(seed_of(taken), *me);
            }
            let names: BTreeSet<_> = names.iter().map(|(_, taken)| taken.clone()).collect();
            let expected = ["", "-2", "-3", "-4", "-5"]
                .map(|s| PathBuf::from(format!("{}{s}", path.display())));
            assert_eq!(names, BTreeSet::from(expected));
        });
    }

    #[test]
    fn what_one_did_not_make_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        std::fs::create_dir(&path).unwrap();
        // Of a process that was killed while it wrote its settings.
        std::fs::write(path.join(".tmp-abc"), "").unwrap();
        drop(NewRun::claim(&path).unwrap());
        assert!(path.join(".tmp-abc").exists() && !path.join(LOCK).exists());

        std::fs::write(path.join("notes.txt"), "").unwrap();
        let error = NewRun::claim(&path).unwrap_err().to_string();
        assert!(error.contains("it is not a run's"), "{error}");
        assert!(path.join("notes.txt").exists() && !path.join(LOCK).exists());
    }
}
