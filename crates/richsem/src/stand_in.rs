//! What lies in the place of a file that was to be fetched.

/// What a file is that only stands for another one, by its beginning, and what to do: a pointer of Git LFS, or a web
/// page that a server answered with.
pub(crate) fn stand_in(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    if text.starts_with("version https://git-lfs") {
        let hint = "fetch the contents with `git lfs pull` where it is from, or download the file by itself";
        return Some(("a pointer of git-lfs, not the file itself", hint));
    }
    let is_page = ["<!doctype html", "<html"].iter().any(|tag| text.starts_with(tag));
    is_page.then_some((
        "a web page (HTML): the server answered with it",
        "open it to see what it says, and download the file again",
    ))
}

/// Bytes that are looked at.
pub(crate) const LOOKED_AT: usize = 64;
