//! Archives that are not read in place.

use std::{io::Read as _, path::Path};

use crate::shell::quoted;

/// Archives that must be unpacked: how they begin, what they are called, and the command.
const PACKED: [(&[u8], &str, &str); 7] = [
    (b"PK\x03\x04", "a zip archive", "unzip {file} -d {folder}"),
    (b"PK\x05\x06", "an empty zip archive", "unzip {file} -d {folder}"),
    (b"\x1f\x8b", "packed with gzip", "mkdir {folder} && tar -xzf {file} -C {folder}"),
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
pub(super) fn packed(path: &Path, file: &Path) -> Option<(&'static str, String)> {
    let mut magic = Vec::new();
    std::fs::File::open(file).ok()?.take(8).read_to_end(&mut magic).ok()?;
    let (_, what, command) = PACKED.iter().find(|(start, ..)| magic.starts_with(start))?;
    let file = path.display().to_string();
    let folder = [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".gz"]
        .iter()
        .find_map(|end| file.strip_suffix(end))
        .map_or_else(|| format!("{file}-unpacked"), str::to_owned);
    let command = command.replace("{file}", &quoted(&file)).replace("{folder}", &quoted(&folder));
    Some((what, format!("unpack it: {command}; then give {folder}")))
}
