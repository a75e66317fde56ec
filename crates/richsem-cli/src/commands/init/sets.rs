//! The sets that are trained and evaluated on.

use std::path::Path;

use anyhow::{Result, anyhow};
use richsem::{
    data::{
        dataset::Dataset,
        formats::{Opening, same_split},
        image_io::Orientation,
        image_store::ImageStore,
    },
    doctor::scheme::{Place, Value},
};

use super::{Args, text};
use crate::{output, progress};

/// An annotated set, its images, and where it is.
pub(super) struct Opened {
    pub(super) dataset: Dataset,
    pub(super) store: ImageStore,
    pub(super) place: Place,
}

impl Opened {
    /// Its images, by their names.
    pub(super) fn images(&self) -> (&ImageStore, impl ExactSizeIterator<Item = &str>) {
        let images = self.dataset.images().iter();
        (&self.store, images.map(|image| image.file_name.as_str()))
    }
}

pub(super) fn open(
    args: &Args,
    path: &Path,
    usual: &'static str,
    folder: Option<&Path>,
) -> Result<Opened> {
    // What is said of DATA need not hold for another set; the part is said for training alone.
    let mut set = if path == args.data { args.set.opening() } else { Opening::default() };
    if usual != "train" {
        set.split = None;
    }
    let orientation = args.orientation.get();
    let images = args.images_of(usual);
    let opening = Opening {
        images: images.map(Path::to_owned),
        usual_split: Some(usual),
        orientation,
        ..set.clone()
    };
    let dataset = progress::open_set(path, &opening)?;
    let report = dataset.report();
    match usual {
        "train" => output::note(format!("{}: {report}", path.display())),
        _ => output::note(format!("{}: {}", path.display(), report.without_counted_groups())),
    }
    let at = dataset.images_in(images).ok_or_else(|| {
        anyhow!(
            "--images: missing: the images of `{}` are not near the annotations, and training needs them\n  hint: give \
             the folder or archive that the file names in the annotations are in",
            path.display()
        )
    })?;
    let store = progress::open_images(at, orientation)?;
    let names = dataset.images().iter().map(|image| image.file_name.as_str());
    if let Some(problem) = store.holds_none_of(names) {
        let (flag, other) = match usual {
            "val" if args.val_images.is_some() => ("--val-images", ""),
            "val" if args.val.is_some() => {
                ("--images", "; those of --val may be elsewhere: --val-images")
            }
            _ => ("--images", ""),
        };
        return Err(anyhow!(
            "{flag}: {}: {problem}\n  hint: give what the file names in the annotations are relative to{other}",
            path.display()
        ));
    }
    let mut settings: Vec<(String, Value)> =
        vec![("annotations".to_owned(), text(path, folder)?.into())];
    if let Some(format) = &set.format {
        settings.push(("format".to_owned(), format.clone().into()));
    }
    if !dataset.split().is_empty() && !same_split(dataset.split(), usual) || set.split.is_some() {
        settings.push(("split".to_owned(), dataset.split().into()));
    }
    if let Some(images) = images {
        settings.push(("images".to_owned(), text(images, folder)?.into()));
    }
    if let Some(vocabulary) = &set.vocabulary {
        settings.push(("vocabulary".to_owned(), text(vocabulary, folder)?.into()));
    }
    if let Some(boxes) = set.boxes {
        settings.push(("boxes".to_owned(), boxes.name().to_owned().into()));
    }
    if orientation == Orientation::Stored {
        settings.push(("orientation".to_owned(), "stored".into()));
    }
    Ok(Opened { dataset, store, place: Place { key: format!("data.{usual}"), settings } })
}

/// The set that is named, or the validation part of the training set's own.
pub(super) fn open_val(args: &Args, folder: Option<&Path>) -> Result<Option<Opened>> {
    let path = match &args.val {
        Some(path) => path,
        None => {
            let parts = Dataset::parts(&args.data, &args.set.opening())?;
            if !parts.iter().any(|part| same_split(part, "val")) {
                return Ok(None);
            }
            &args.data
        }
    };
    open(args, path, "val", folder).map(Some)
}
