//! How far the reading of a set is, for whoever waits for it.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    image_io::Orientation,
    image_store::{ImageStore, Indexing},
};
use crate::{Result, json::Counter};

/// Files that are read between two looks at whether to go on.
pub(in crate::data) const FILES: usize = 1024;

/// What takes long when a set is opened, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// Archives of images are indexed.
    Indexing(Indexing),
    /// A large file of annotations is read.
    Annotations {
        /// Bytes of the file that are behind.
        bytes: u64,
        /// Bytes of the file.
        of: u64,
    },
    /// Files of annotations are read, one an image.
    Files {
        /// Files that are behind.
        done: usize,
        /// All of them.
        of: usize,
    },
    /// Sizes of images are read from their headers.
    Sizes {
        /// Images that are behind.
        done: usize,
        /// All of them.
        of: usize,
    },
}

/// Told how far it is; [`crate::Error::Stopped`] if it is not to go on.
pub(crate) type Watch<'a> = &'a dyn Fn(Reading) -> Result<()>;

/// For whoever need not be told.
pub(crate) const UNWATCHED: Watch<'static> = &|_| Ok(());

/// Tells how far a file of annotations is read.
///
/// # Errors
/// It is not to go on.
pub(in crate::data) fn tell(counter: &Counter, watch: Watch<'_>) -> Result<()> {
    let (bytes, of) = counter.get();
    watch(Reading::Annotations { bytes, of })
}

/// Opens a store of images; its indexing is watched.
pub(in crate::data) fn open_store(
    path: &Path,
    orientation: Orientation,
    watch: Watch<'_>,
) -> Result<ImageStore> {
    ImageStore::open_with(path, orientation, &mut |at| match watch(Reading::Indexing(at)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    })
}

/// Goes on until a flag is set, and as long as `progress` says so.
pub(in crate::data) fn until<'a>(
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> impl FnMut(Reading) -> ControlFlow<()> {
    move |at| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { progress(at) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        Error,
        data::{dataset::Dataset, formats::Opening},
    };

    /// A set in each of several forms, and the kinds of news that its reading gives.
    fn sets(folder: &Path) -> Vec<(PathBuf, Vec<&'static str>)> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
            path
        };
        let coco = r#"{"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 8}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
            "categories": [{"id": 1, "name": "a"}]}"#;
        let csv = "ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0.1,0.2,0.3,0.4\n";
        let image = |name: &str| {
            fs_err::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            image::RgbImage::new(9, 8).save(folder.join(name)).unwrap();
        };
        image("openimages/a.jpg");
        image("yolo/images/a.png");
        write("yolo/labels/a.txt", "0 .5 .5 .1 .1\n");
        vec![
            (write("coco.json", coco), vec!["annotations"]),
            (write("openimages/boxes.csv", csv), vec!["annotations", "sizes"]),
            (
                write("yolo/data.yaml", "train: images\nval: images\nnames: [a]\n"),
                vec!["files", "sizes"],
            ),
        ]
    }

    fn kind(at: Reading) -> &'static str {
        match at {
            Reading::Indexing(_) => "indexing",
            Reading::Annotations { bytes, of } => {
                assert!(bytes <= of && of > 0);
                "annotations"
            }
            Reading::Files { done, of } => {
                assert!(done <= of);
                "files"
            }
            Reading::Sizes { done, of } => {
                assert!(done <= of);
                "sizes"
            }
        }
    }

    #[test]
    fn reading_tells_how_far_it_is_and_stops_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let opening = Opening { split: None, usual_split: Some("train"), ..Opening::default() };
        for (path, expected) in sets(folder.path()) {
            let mut told = Vec::new();
            let set = Dataset::open_with(&path, &opening, &mut |at| {
                told.push(kind(at));
                ControlFlow::Continue(())
            });
            assert_eq!(set.unwrap().annotations().len(), 1, "{}", path.display());
            let kinds: std::collections::BTreeSet<_> = told.iter().copied().collect();
            assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "{}", path.display());
            // It can be stopped at each of them.
            for at in 0..told.len() {
                let mut left = at;
                let stopped = Dataset::open_with(&path, &opening, &mut |_| {
                    if left == 0 {
                        return ControlFlow::Break(());
                    }
                    left -= 1;
                    ControlFlow::Continue(())
                });
                assert!(matches!(stopped, Err(Error::Stopped)), "{} at {at}", path.display());
            }
        }
    }

    #[test]
    fn a_flag_stops_what_it_is_given_to() {
        let (stop, mut told) = (AtomicBool::new(false), 0);
        let mut progress = |_| {
            told += 1;
            ControlFlow::Continue(())
        };
        let mut watch = until(&stop, &mut progress);
        let at = Reading::Files { done: 1, of: 2 };
        assert!(watch(at).is_continue());
        stop.store(true, Ordering::Relaxed);
        assert!(watch(at).is_break());
        drop(watch);
        assert_eq!(told, 1);
    }
}
