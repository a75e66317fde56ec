//! Which images, in which order, and what is known of them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow};
use richsem::{
    data::{
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource, ImageEntry},
        formats::Opening,
        image_io::Orientation,
        image_store::ImageStore,
    },
    detections::ImageNames,
    detector::Detector,
    predict::{every_image_once, reading_order},
    targets::LabelKnowledge,
    train::ClassIds,
};

use super::{Args, Written};
use crate::{
    args::{self, SetArgs},
    images,
    names::Name,
    output,
    progress::open_set,
};

/// The images to detect in. The three lists are parallel.
pub(super) struct Inputs {
    pub(super) images: Vec<PathBuf>,
    /// What the results of each image are called in the output folder.
    pub(super) result_names: Vec<Name>,
    pub(super) known: Vec<ImageInfo>,
    /// The images of the annotation file; none without one.
    pub(super) names: ImageNames,
    /// The annotation file, until its classes are known.
    set: Option<Dataset>,
    /// What the detector's classes are in the annotation file.
    pub(super) ids: ClassIds,
}

impl Inputs {
    /// Finds the images. Refuses what could not be written later, and results that would take the
    /// place of an input.
    pub(super) fn find(args: &Args) -> Result<Self> {
        let (mut images, passed_over) = images::collect(&args.inputs, &args.output)?;
        if !passed_over.is_empty() {
            output::note(format!("passed over: {passed_over}"));
        }
        images.truncate(args.limit.map_or(usize::MAX, |n| n as usize));
        let stems = args.writes(Written::Yolo) || args.writes(Written::Crops);
        let (result_names, told) = images::result_names(&images, &args.output, stems)?;
        told.into_iter().for_each(output::note);
        output::check_new_folder(&args.output, "--output")?;
        output::check_input(&args.weights, "--weights", "file or folder")?;
        if let Some(file) = &args.thresholds {
            output::check_input_file(file, "--thresholds")?;
        }
        if let Some(raw) = &args.raw {
            let weights = args::weights_file(&args.weights, "--weights")?;
            let images = images.iter().map(|image| (image.as_path(), "an image"));
            let given = output::given([
                (Some(&args.weights), "--weights"),
                (Some(&weights), "--weights"),
                (args.thresholds.as_ref(), "--thresholds"),
                (args.annotations.as_ref(), "--annotations"),
            ]);
            output::check_file(raw, "--raw")?;
            output::check_apart(raw, "--raw", &images.chain(given).collect::<Vec<_>>())?;
        }
        let (known, names, set) = known_images(&images, args.annotations.as_deref(), &args.set)?;
        Ok(Self { images, result_names, known, names, set, ids: ClassIds::default() })
    }

    /// Finds the detector's classes in the annotation file, and says where they are other ones.
    ///
    /// # Errors
    /// Names that leave open which class is which.
    pub(super) fn find_classes(&mut self, detector: &Detector) -> Result<()> {
        let Some(set) = self.set.take().filter(|set| !set.vocabulary().is_empty()) else {
            return Ok(());
        };
        let own = detector.vocabulary();
        if !own.has_any_of(set.vocabulary()) {
            // The file may be there for the images alone.
            output::warn(format!(
                "{}: none of its classes is one of the detector's; category_id in detections.json is the detector's \
                 own",
                set.path().display()
            ));
            return Ok(());
        }
        let (ids, notes) = ClassIds::of_known(own, &set)?;
        notes.iter().for_each(output::note);
        self.ids = ids;
        Ok(())
    }

    /// An image's id as the annotation file has it.
    pub(super) fn written_id(&self, id: i64) -> serde_json::Value {
        self.names.text_of(id).map_or_else(|| id.into(), Into::into)
    }
}

/// What is known of an image before it is read.
#[derive(Clone, Copy)]
pub(super) struct ImageInfo {
    /// Its id in the annotation file, or its number there if ids are texts; without a file its number, from 1.
    pub(super) id: i64,
    /// `[height, width]` in the annotation file, if the file says.
    pub(super) size: Option<[u32; 2]>,
}

/// Id and size of each image, from the annotation file if there is one.
/// Gives the names of the file's images, and the file, too.
fn known_images(
    images: &[PathBuf],
    annotations: Option<&Path>,
    set: &SetArgs,
) -> Result<(Vec<ImageInfo>, ImageNames, Option<Dataset>)> {
    let Some(file) = annotations else {
        let numbered = (1..=images.len() as i64).map(|id| ImageInfo { id, size: None });
        return Ok((numbered.collect(), ImageNames::default(), None));
    };
    output::check_input(file, "--annotations", "file or folder")?;
    let opening = Opening { annotated: false, pixels: false, ..set.opening() };
    let dataset = open_set(file, &opening)?;
    let names = dataset.image_names();
    let sizes: HashMap<i64, _> =
        dataset.images().iter().map(|image| (image.id, image.size)).collect();
    let mut of_id: HashMap<i64, &Path> = HashMap::new();
    let known = images.iter().map(|image| {
        let id = names.id_of(&image.to_string_lossy(), None).map_err(|problem| {
            anyhow!(
                "--annotations: {}: {problem}\n  hint: give an annotation file that lists all of \
                 these images, or leave out the others",
                file.display()
            )
        })?;
        if let Some(other) = of_id.insert(id, image) {
            return Err(anyhow!(
                "--annotations: {}: `{}` and `{}` would both be its image {id}\n  hint: leave out the one that it does \
                 not list, or list both with folders in file_name",
                file.display(),
                other.display(),
                image.display()
            ));
        }
        Ok(ImageInfo { id, size: sizes.get(&id).copied().flatten() })
    });
    let known = known.collect::<Result<_>>()?;
    Ok((known, names, Some(dataset)))
}

/// How images are read, and whether they are kept.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Images of a batch, at least 1.
    pub(super) batch: usize,
    pub(super) orientation: Orientation,
    /// Whether batches keep the images as they were read.
    pub(super) keep: bool,
}

/// The images in batches. Each has its position as its id. None if there are no images.
pub(super) fn source(
    detector: &Detector,
    images: &[PathBuf],
    known: &[ImageInfo],
    nameable: &[usize],
    Reading { batch, orientation, keep }: Reading,
) -> Option<DetectionSource> {
    // Names are whole paths: there is no folder before them.
    let store = Arc::new(ImageStore::folder(PathBuf::new(), orientation));
    let names: Vec<_> = nameable.iter().map(|&i| images[i].to_string_lossy()).collect();
    // An image that cannot be read is named when its batch is built.
    let sizes: Vec<_> = match batch {
        1 => vec![None; names.len()],
        _ => store.sizes(&names).into_iter().map(|size| size?.ok()).collect(),
    };
    let padding = detector.config().model.padding();
    let order = reading_order(sizes.iter().copied(), padding, batch);
    let entry = |at: usize| ImageEntry {
        name: names[at].clone().into_owned(),
        id: nameable[at] as i64,
        size: known[nameable[at]].size.or(sizes[at]),
        boxes: Vec::new(),
        labels: Vec::new(),
        knowledge: LabelKnowledge::default(),
    };
    let entries: Vec<ImageEntry> = order.into_iter().map(entry).collect();
    let broken = Arc::new(BrokenImages::new(usize::MAX));
    (!entries.is_empty()).then(|| {
        let every = every_image_once(detector, store, Arc::new(entries), batch, broken);
        DetectionSource { keep_originals: keep, ..every }
    })
}
