//! Names in commands that are printed to be typed.

use std::path::Path;

/// A path as a POSIX shell takes it for one argument: as it is where it can be, else between quotes. A name that
/// begins with a dash gets `./` before it, so that no program takes it for a flag.
///
/// ```
/// use richsem::shell::quoted;
/// assert_eq!(quoted("runs/mine"), "runs/mine");
/// assert_eq!(quoted("my set.tar"), "'my set.tar'");
/// ```
#[must_use]
pub fn quoted(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let bytes = path.as_os_str().as_encoded_bytes();
    let dash = if bytes.starts_with(b"-") { "./" } else { "" };
    let Some(text) = path.to_str().filter(|text| !text.contains(char::is_control)) else {
        return escaped(dash, bytes);
    };
    let plain = |c: char| c.is_alphanumeric() || "/._-+=,@%:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        format!("{dash}{text}")
    } else if text.contains('\'') && !text.contains(['"', '$', '`', '\\', '!']) {
        format!("\"{dash}{text}\"")
    } else {
        format!("'{dash}{}'", text.replace('\'', r"'\''"))
    }
}

/// With the bytes that a terminal cannot show written as numbers, which bash and zsh read.
fn escaped(dash: &str, bytes: &[u8]) -> String {
    let mut text = format!("$'{dash}");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\{byte:03o}"),
        }
    }
    text + "'"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{ffi::OsStr, process::Command};

    use super::*;

    /// A shell reads the very name that was quoted.
    #[test]
    fn a_shell_takes_each_name_for_one_argument() {
        let names = [
            "a.tar",
            "my set é",
            "it's",
            "it's $5",
            "a\"b",
            "a;b&c|d",
            "*?[x]",
            "~",
            "#x",
            "(y)",
            "back\\slash",
            "two\nlines",
            "tab\there",
            "!bang",
            "",
            "ünï",
            "a'b\nc",
        ];
        let read = |name: &OsStr| {
            let line = format!("printf %s {}", quoted(Path::new(name)));
            Command::new("bash").args(["-c", &line]).output().unwrap().stdout
        };
        for name in names {
            assert_eq!(read(OsStr::new(name)), name.as_bytes(), "{name:?}");
        }
        assert_eq!(read(OsStr::new("-dash x")), b"./-dash x");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt as _;
            let name = OsStr::from_bytes(b"n\xff'x");
            assert_eq!(read(name), name.as_bytes());
        }
        assert_eq!(quoted("runs/ünï-2_b.tar"), "runs/ünï-2_b.tar");
    }
}
