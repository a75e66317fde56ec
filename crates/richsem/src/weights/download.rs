//! A file by `curl`.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::MIRROR;
use crate::error::{Error, Result};

/// Fetches an address to a file, and goes on where the file ends. `progress` shows how far it is on stderr;
/// `by_hand` says how to have the file without it.
pub(super) fn download(
    name: &str,
    address: &str,
    part: &Path,
    progress: bool,
    by_hand: &str,
) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--retry", "3", "--continue-at", "-", "--show-error"]);
    curl.arg(if progress { "--progress-bar" } else { "--silent" });
    curl.arg("--output").arg(part).arg(address);
    curl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = || {
        let mut child = curl.spawn()?;
        let said = child.stderr.take().map(|stderr| told(stderr, progress)).unwrap_or_default();
        Ok((child.wait()?, said))
    };
    let run: std::io::Result<_> = { run }();
    let (status, said) = run.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "the program `curl`, which fetches files, is not here".to_owned()
            }
            _ => format!("`curl` could not be started: {error}"),
        };
        Error::other(format!("{name}: {why}"))
            .with_hint(format!("install it (sudo apt-get install curl), or {by_hand}"))
    })?;
    if status.success() && part.is_file() {
        return Ok(());
    }
    let code = status.code().map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(Error::other(format!("{name}: fetching {address} ended with {code} of curl{said}")).with_hint(format!(
        "what has come is kept, and the next try goes on with it. Behind a proxy set https_proxy; a mirror is \
         {MIRROR}; or {by_hand}"
    )))
}

/// What `curl` says of errors, each once, however often it tries. Its progress, which are the lines that it writes
/// over, goes on to stderr, if it is to be shown.
fn told(mut from: impl std::io::Read, progress: bool) -> String {
    let mut said: Vec<String> = Vec::new();
    let (mut line, mut read) = (Vec::new(), [0; 1024]);
    loop {
        // What cannot be read is not said; how it ended, its code tells.
        let count = from.read(&mut read).unwrap_or_default();
        for &byte in &read[..count] {
            line.push(byte);
            if byte == b'\r' || byte == b'\n' {
                take(&mut line, progress, &mut said);
            }
        }
        if count == 0 {
            take(&mut line, progress, &mut said);
            return said.join("; ");
        }
    }
}

fn take(line: &mut Vec<u8>, progress: bool, said: &mut Vec<String>) {
    let text = String::from_utf8_lossy(line).trim().to_owned();
    if ["curl: ", "Warning: "].iter().any(|start| text.starts_with(start)) {
        // How soon it tries again is no error.
        if text.starts_with("curl: ") && !said.contains(&text) {
            said.push(text);
        }
    } else if progress {
        // Progress may be lost when stderr is closed.
        let _ = std::io::stderr().write_all(line);
    }
    line.clear();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_every_try_is_said_once() {
        let text =
            "\r 10%\rcurl: (6) no host\nWarning: Will retry\ncurl: (6) no host\ncurl: (7) x\n";
        assert_eq!(told(text.as_bytes(), false), "curl: (6) no host; curl: (7) x");
    }
}
