//! Answers `--help` and `--version` before libtorch starts: its constructors, which register some
//! thousands of operations, take a quarter of a second before `main`.
//!
//! glibc runs the functions in an executable's `.preinit_array` before the constructors of the libraries
//! that it is linked with. Only what clap answers by itself is answered there, and by the same command
//! line as in `main`: elsewhere, and for everything else, `main` does it.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
};

use clap::error::ErrorKind;
use signal_hook::consts::SIGPIPE;

/// `SIG_IGN`.
const IGNORE: usize = 1;

unsafe extern "C" {
    fn signal(number: c_int, handler: usize) -> usize;
}

type Strings = *const *const c_char;
type Function = unsafe extern "C" fn(c_int, Strings, Strings);

// SAFETY: what glibc expects there: functions that it calls once, with what a C `main` is given.
#[used]
#[unsafe(link_section = ".preinit_array")]
static ANSWER: Function = answer;

/// # Safety
/// As of a C `main`: both lists end with a null pointer, and hold strings.
unsafe extern "C" fn answer(_: c_int, arguments: Strings, environment: Strings) {
    // SAFETY: by this function's contract. Nothing is allocated where nothing is asked for here.
    let asked = unsafe {
        let (mut words, mut help) = (0, false);
        each(arguments, |word| {
            words += 1;
            help |= matches!(word.to_bytes(), b"-h" | b"--help" | b"-V" | b"--version");
        });
        help || words < 2
    };
    if !asked {
        return;
    }
    // SAFETY: as above.
    let (words, environment) = unsafe { (strings(arguments), strings(environment)) };
    // The C library does not know its own yet, and NO_COLOR is in it.
    for variable in environment {
        let bytes = variable.as_bytes();
        if let Some(at) = bytes.iter().position(|&b| b == b'=').filter(|&at| at > 0) {
            let (name, value) =
                (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
            // SAFETY: there is one thread, so early. The C library starts with its own list.
            unsafe { std::env::set_var(name, value) };
        }
    }
    // SAFETY: no handler is installed. Rust does this before `main`, so that a reader that has seen
    // enough is no error.
    unsafe { signal(SIGPIPE, IGNORE) };
    if let Err(said) = crate::command_line().try_get_matches_from(words)
        && matches!(
            said.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        )
    {
        said.exit();
    }
}

/// # Safety
/// The list ends with a null pointer, and holds strings.
unsafe fn each(mut list: Strings, mut f: impl FnMut(&CStr)) {
    // SAFETY: by this function's contract, up to the null pointer.
    unsafe {
        while !(*list).is_null() {
            f(CStr::from_ptr(*list));
            list = list.add(1);
        }
    }
}

/// # Safety
/// As [`each`].
unsafe fn strings(list: Strings) -> Vec<OsString> {
    let mut found = Vec::new();
    // SAFETY: by this function's contract.
    unsafe { each(list, |string| found.push(OsStr::from_bytes(string.to_bytes()).to_owned())) };
    found
}
