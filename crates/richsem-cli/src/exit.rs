//! Exit codes, all of them, and how an error becomes one.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | an error in input, settings or files; some images could not be read, runs of a study failed, or the doctor found problems |
//! | 2 | the command line is wrong (mostly written by `clap`) |
//! | 3 | training met a number that is not finite |
//! | 101 | an internal error: a bug of this program (Rust's own code for a panic) |
//! | 129 | stopped by SIGHUP, which `nohup` keeps away; training has saved everything |
//! | 130 | stopped by Ctrl-C (SIGINT); training has saved everything |
//! | 143 | stopped by SIGTERM; training has saved everything |

/// The work is done.
pub(crate) const OK: u8 = 0;
/// An error in input, settings or files; or some images or runs failed, or `doctor` found problems.
pub(crate) const ERROR: u8 = 1;
/// The command line is wrong; `clap`'s own code.
pub(crate) const COMMAND_LINE: u8 = 2;
/// Training met a number that is not finite.
pub(crate) const NON_FINITE: u8 = 3;

/// The shell's code for a process that a signal ended: 128 plus the signal's number.
pub(crate) fn signal(number: usize) -> u8 {
    u8::try_from(128 + number).unwrap_or(ERROR)
}

/// The code of an error.
pub(crate) fn of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<richsem::Error>() {
        Some(richsem::Error::NonFinite { .. }) => NON_FINITE,
        _ => ERROR,
    }
}

/// The end of `richsem --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  error in input, settings or files; some images not readable, runs of a study failed, or
     problems found by doctor
  2  wrong command line
  3  training met a number that is not finite
  129, 130, 143  stopped by SIGHUP, Ctrl-C, SIGTERM: training has saved everything";
