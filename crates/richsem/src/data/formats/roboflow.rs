//! What Roboflow's exports have in common, whatever their format.

use std::collections::HashSet;

use crate::data::dataset::ImageRecord;

/// What stands between the name of a source and the hash of a copy: `a_jpg.rf.9e06f593.jpg`.
const MARK: &str = ".rf.";

/// A note on images that are augmented copies of fewer sources; none if each is a source of its own. Copies
/// count as images: in frequencies, repeat factors and metrics.
pub(super) fn copies(images: &[ImageRecord]) -> Option<String> {
    let mut copies = 0;
    let mut sources = HashSet::new();
    for image in images {
        let file = image.file_name.rsplit('/').next().unwrap_or_default();
        if let Some((source, _)) = file.rsplit_once(MARK) {
            copies += 1;
            sources.insert(source);
        }
    }
    (copies > sources.len()).then(|| {
        format!(
            "{copies} images are copies of {} sources, as Roboflow augments them (names with `{MARK}`): \
             each counts as an image",
            sources.len()
        )
    })
}
