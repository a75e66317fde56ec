//! Where images and their labels are. Paths that somebody else wrote rarely fit as they are.

use std::path::{Component, Path, PathBuf};

use super::files::{Files, normal};

/// Where the label of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::data::formats) enum LabelRule {
    /// The last folder `images` of its path is `labels`; beside it if there is none.
    Ultralytics,
    /// The same with the folders of the set alone: the first parts of the path, so many, are above it.
    Below(usize),
    /// Beside it; if it is not there, `images` or `JPEGImages` is `labels`.
    Darknet,
}

impl LabelRule {
    /// That of a set in this folder.
    pub(super) fn below(root: &Path) -> Self {
        Self::Below(root.components().count())
    }

    /// The label file of an image, which need not be there. The path is absolute.
    pub(super) fn label(self, image: &Path, files: &Files) -> PathBuf {
        let above = files.archive().map_or(0, |archive| archive.components().count());
        match self {
            Self::Ultralytics => beside_or_in_labels(image, "images", above),
            Self::Below(above) => beside_or_in_labels(image, "images", above),
            Self::Darknet => {
                let beside = image.with_extension("txt");
                let others = ["images", "JPEGImages"];
                let mut others =
                    others.map(|name| beside_or_in_labels(image, name, above)).into_iter();
                let there = others.find(|label| !files.is_file(&beside) && files.is_file(label));
                there.unwrap_or(beside)
            }
        }
    }

    /// The folder that has the labels of a folder's images.
    pub(super) fn folder(self, images: &Path, files: &Files) -> PathBuf {
        let label = self.label(&images.join("0.jpg"), files);
        label.parent().unwrap_or(Path::new("")).to_owned()
    }
}

/// The label of an image, with `labels` in place of the last folder of that name. The first `above` parts of the
/// path are no folders of the set.
fn beside_or_in_labels(image: &Path, name: &str, above: usize) -> PathBuf {
    let parts: Vec<Component<'_>> = image.components().collect();
    let folders = &parts[..parts.len().saturating_sub(1)];
    let last = folders.iter().rposition(|part| part.as_os_str() == name);
    let last = last.filter(|at| *at >= above);
    let labels = Component::Normal("labels".as_ref());
    let parts = parts.iter().enumerate().map(|(i, part)| match last {
        Some(at) if at == i => labels,
        _ => *part,
    });
    parts.collect::<PathBuf>().with_extension("txt")
}

/// A path as it is written, with `/` between folders.
pub(in crate::data::formats) fn tidy(written: &str) -> String {
    written.trim().replace('\\', "/")
}

/// The ends of a path: all of it, then without its first folder, and so on.
pub(super) fn ends(written: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(written);
    std::iter::from_fn(move || {
        let this = rest?;
        rest = this.split_once('/').map(|(_, rest)| rest);
        Some(this)
    })
    .filter(|end| !end.is_empty())
}

/// Where a path was found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data::formats) struct Found {
    pub(in crate::data::formats) path: PathBuf,
    /// Whether folders at its beginning were left out to find it.
    pub(in crate::data::formats) cut: bool,
}

/// The first place where a path may be that passes the test: as it is written, below one of `bases`; then
/// below these with its first folders left out, as long as `least` parts remain.
pub(in crate::data::formats) fn find(
    bases: &[PathBuf],
    written: &str,
    least: usize,
    there: impl Fn(&Path) -> bool,
) -> Option<Found> {
    let candidates = ends(written).enumerate().flat_map(|(i, end)| {
        let few = end.split('/').filter(|part| !part.is_empty()).count() < least;
        let bases = if i > 0 && few { &[] } else { bases };
        bases.iter().map(move |base| Found { path: normal(&base.join(end)), cut: i > 0 })
    });
    candidates.into_iter().find(|found| there(&found.path))
}
