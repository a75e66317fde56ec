//! Archives that are not read in place.

use std::{io::Read as _, path::Path};

use super::is_header;
use crate::{json, shell::quoted};

const GZIP: &[u8] = b"\x1f\x8b";

/// Archives that must be unpacked: how they begin, what they are called, and the command.
const PACKED: [(&[u8], &str, &str); 7] = [
    (b"PK\x03\x04", "a zip archive", "unzip {file} -d {folder}"),
    (b"PK\x05\x06", "an empty zip archive", "unzip {file} -d {folder}"),
    (GZIP, "packed with gzip", "mkdir {folder} && tar -xzf {file} -C {folder}"),
    (b"BZh", "packed with bzip2", "mkdir {folder} && tar -xjf {file} -C {folder}"),
    (b"\xfd7zXZ", "packed with xz", "mkdir {folder} && tar -xJf {file} -C {folder}"),
    (
        b"\x28\xb5\x2f\xfd",
        "packed with zstd",
        "mkdir {folder} && tar --zstd -xf {file} -C {folder}",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {file} -o{folder}"),
];

/// An archive that is not read in place: what it is, and what unpacks it.
///
/// `path` is what was given, `file` the file that it begins with.
pub(in crate::data) fn packed(path: &Path, file: &Path) -> Option<(&'static str, String)> {
    let mut magic = Vec::new();
    std::fs::File::open(file).ok()?.take(8).read_to_end(&mut magic).ok()?;
    let (_, what, command) = PACKED.iter().find(|(start, ..)| magic.starts_with(start))?;
    if magic.starts_with(GZIP) && is_one_file(file) {
        return Some((what, unpack_one(path)));
    }
    Some((what, unpack(path, command)))
}

/// How an archive is unpacked: one that is not read in place, or a tar archive; none for other files.
#[must_use]
pub fn unpacking(path: &Path) -> Option<String> {
    if let Some((_, hint)) = packed(path, path) {
        return Some(hint);
    }
    let mut block = Vec::new();
    std::fs::File::open(path).ok()?.take(512).read_to_end(&mut block).ok()?;
    is_header(&block).then(|| unpack(path, "mkdir {folder} && tar -xf {file} -C {folder}"))
}

/// What unpacks a gzip file that is no archive, but one file.
fn unpack_one(path: &Path) -> String {
    let file = path.display().to_string();
    let one = file.strip_suffix(".gz").map_or_else(|| format!("{file}-unpacked"), str::to_owned);
    format!("unpack it: gunzip -c {} > {}; then give {}", quoted(&file), quoted(&one), quoted(&one))
}

/// Whether what a gzip file begins with is no member of a tar archive.
fn is_one_file(file: &Path) -> bool {
    let mut block = Vec::new();
    let read = json::open(file).map(|unpacked| unpacked.take(512).read_to_end(&mut block));
    matches!(read, Ok(Ok(_))) && !is_header(&block)
}

/// What a command for a file is, and where its contents are then.
fn unpack(path: &Path, command: &str) -> String {
    let file = path.display().to_string();
    let folder = [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".gz"]
        .iter()
        .find_map(|end| file.strip_suffix(end))
        .map_or_else(|| format!("{file}-unpacked"), str::to_owned);
    let command = command.replace("{file}", &quoted(&file)).replace("{folder}", &quoted(&folder));
    format!("unpack it: {command}; then give {}", quoted(&folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The command that is named does unpack the archive.
    #[test]
    fn archives_are_known_by_their_contents_and_unpacked_by_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.txt"), "contents").unwrap();
        let run = |line: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", line]).current_dir(folder.path()).stderr(Stdio::null());
            bash.status().unwrap().success()
        };
        for (name, flag) in
            [("my set.tar", ""), ("b.tar.gz", "z"), ("c.tar.xz", "J"), ("gz as.tar", "z")]
        {
            if !run(&format!("tar -c{flag}f '{name}' a.txt")) {
                eprintln!("skipped: {name}");
                continue;
            }
            let hint = unpacking(&at(name)).unwrap();
            let (command, place) =
                hint.strip_prefix("unpack it: ").unwrap().split_once("; then give ").unwrap();
            assert!(run(command), "{command}");
            assert!(run(&format!("test -f {place}/a.txt")), "{hint}");
        }
        // One file.
        assert!(run("gzip -c a.txt > 'one file.txt.gz'"));
        let hint = unpacking(&at("one file.txt.gz")).unwrap();
        let (command, file) =
            hint.strip_prefix("unpack it: ").unwrap().split_once("; then give ").unwrap();
        assert!(run(command) && run(&format!("cmp a.txt {file}")), "{hint}");
        std::fs::write(at("d.7z"), b"7z\xbc\xaf\x27\x1c").unwrap();
        assert!(unpacking(&at("d.7z")).unwrap().starts_with("unpack it: 7z x "));
        assert_eq!(unpacking(&at("a.txt")), None);
    }
}
