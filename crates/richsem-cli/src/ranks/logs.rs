//! What processes other than rank 0 write: not to the terminal, but to a file each in the run's folder, or, until
//! there is one, to a file without a name.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Result;
use richsem::train::RANKS;

struct Logs {
    rank: u64,
    terminal: OwnedFd,
    /// Without a name.
    so_far: Mutex<Option<File>>,
}

static LOGS: OnceLock<Logs> = OnceLock::new();

fn redirect(to: &File) -> Result<()> {
    rustix::stdio::dup2_stdout(to)?;
    rustix::stdio::dup2_stderr(to)?;
    Ok(())
}

/// From now on nothing of this process goes to the terminal.
pub(super) fn begin(rank: u64) -> Result<()> {
    let terminal = rustix::io::dup(rustix::stdio::stderr())?;
    let file = tempfile::tempfile()?;
    redirect(&file)?;
    let _ = LOGS.set(Logs { rank, terminal, so_far: Mutex::new(Some(file)) });
    Ok(())
}

/// Moves what was written, and what will be, to a file of this rank in the folder of the run. Does nothing in a
/// process that writes to the terminal.
pub(crate) fn keep(run: &Path) -> Result<()> {
    let Some(logs) = LOGS.get() else { return Ok(()) };
    let mut so_far = logs.so_far.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut before) = so_far.take() else { return Ok(()) };
    let folder = run.join(RANKS);
    fs_err::create_dir_all(&folder)?;
    let mut file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(format!("rank-{}.log", logs.rank)))?
        .into_file();
    let mut text = Vec::new();
    before.seek(SeekFrom::Start(0))?;
    before.read_to_end(&mut text)?;
    file.write_all(&text)?;
    redirect(&file)
}

/// Writes a line to the terminal all the same.
pub(super) fn to_terminal(text: &str) {
    if let Some(logs) = LOGS.get()
        && let Ok(terminal) = logs.terminal.try_clone()
    {
        // The terminal may be closed; there is nobody else to tell.
        let _ = writeln!(File::from(terminal), "error: {text}");
    }
}
