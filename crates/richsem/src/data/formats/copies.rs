//! Images that are augmented copies of one source, as Roboflow names them.

use std::collections::HashMap;

use crate::data::records::ImageRecord;

/// What stands between the source's name and a hash: `X_jpg.rf.HASH.jpg`.
const MARK: &str = ".rf.";

/// A note on copies, if there are any.
pub(super) fn note(images: &[ImageRecord]) -> Option<String> {
    let mut sources: HashMap<&str, usize> = HashMap::new();
    let (mut marked, mut most) = (0, ("", 0));
    for image in images {
        let Some((source, _)) = image.file_name.rsplit_once(MARK) else { continue };
        marked += 1;
        let copies = sources.entry(source).or_default();
        *copies += 1;
        if *copies > most.1 {
            most = (source, *copies);
        }
    }
    (marked > sources.len()).then(|| {
        format!(
            "images that Roboflow made from others: {marked} of {} sources (`{}` is there {} times). Each counts \
             as an image of its own, in frequencies and repeat factors too",
            sources.len(),
            most.0,
            most.1
        )
    })
}
