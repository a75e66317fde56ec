//! Detection in all images of a set.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use anyhow::{Result, anyhow};
use richsem::{
    collective::{Collective, Pace},
    data::{dataset::Dataset, detection_source::BrokenImages, entries, image_store::ImageStore},
    detections::{self, Detection},
    detector::Detector,
    error::{Error, guarded},
    evaluate::{
        Evaluator,
        openimages::{check_results, write_results},
    },
    merge::Merging,
    predict::{
        Detected, ReadAhead, detect_batches, every_image_once, gather_detections, to_detections,
    },
    train::{ClassIds, Worker},
};

use super::Args;
use crate::{
    output,
    progress::{Counter, open_images},
};

/// What is evaluated, and by what.
pub(super) struct Found {
    pub(super) evaluator: Evaluator,
    pub(super) detections: Vec<Detection>,
    /// Images that could not be read, so that their objects count as missed.
    pub(super) unread: usize,
    /// Why the detections are not in the file that they were to be written to. What comes of them is told first.
    pub(super) unsaved: Option<Error>,
}

/// Detects in every image.
pub(super) fn detect_in(
    args: &Args,
    dataset: &Dataset,
    evaluator: Evaluator,
    (detector, worker, ids): (&Detector, &Worker, &ClassIds),
    images: &Path,
) -> Result<Option<Found>> {
    // Before detection, which may take hours.
    if let Some(file) = args.save_json.as_deref().filter(|file| is_csv(file)) {
        check_results(file, dataset)?;
    }
    let store = open_images(images, args.orientation.get())?;
    for note in store.notes() {
        output::note(format!("{}: {note}", images.display()));
    }
    let store = Arc::new(store);
    let evaluator = evaluator
        .with_max_detections(detector.config().eval.max_detections as usize)
        .with_training_vocabulary(&ids.number(detector.vocabulary()));
    let batch = args.batch.map_or(detector.config().eval.batch_size, usize::from);
    let broken = Arc::new(BrokenImages::new(detector.config().max_broken_images));
    let how = Detecting {
        detector,
        ids,
        collective: worker.collective.as_ref(),
        batch,
        merging: args.merge.get(),
    };
    let detections = detect(&how, dataset, (&store, &broken))?;
    let Some(detections) = detections else { return Ok(None) };
    let notes = [store.turned("--orientation"), store.several()];
    notes.into_iter().flatten().for_each(output::note);
    let saved = args.save_json.as_deref().map_or(Ok(()), |file| save(file, &detections, dataset));
    let unread = broken.list().len();
    Ok(Some(Found { evaluator, detections, unread, unsaved: saved.err() }))
}

fn is_csv(file: &Path) -> bool {
    file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"))
}

fn save(file: &Path, detections: &[Detection], dataset: &Dataset) -> richsem::Result<()> {
    if is_csv(file) {
        write_results(file, detections, dataset)?;
    } else {
        detections::write_for(file, detections, &dataset.image_names())?;
    }
    output::note(format!("detections: {}", file.display()));
    Ok(())
}

/// What detects, and how.
pub(crate) struct Detecting<'a> {
    pub(crate) detector: &'a Detector,
    /// What its classes are in the annotations.
    pub(crate) ids: &'a ClassIds,
    pub(crate) collective: &'a dyn Collective,
    /// Images of a batch, at least 1.
    pub(crate) batch: usize,
    pub(crate) merging: Merging,
}

/// Detections of the classes that the annotations know, with the annotations' ids, made by all processes; for rank 0.
pub(crate) fn detect(
    &Detecting { detector, ids, collective, batch, merging }: &Detecting<'_>,
    dataset: &Dataset,
    (store, broken): (&Arc<ImageStore>, &Arc<BrokenImages>),
) -> Result<Option<Vec<Detection>>> {
    let entries = entries(dataset);
    if let Some(problem) = store.holds_none_of(entries.iter().map(|e| e.name.as_str())) {
        return Err(anyhow!(
            "--images: {problem}\n  hint: file names in the annotations are relative to the folder or archive that is \
             given"
        ));
    }
    let total = entries.len();
    let tiles_at_once = batch.max(1);
    let (images, collector) = (Arc::clone(store), Arc::clone(broken));
    let mut source = every_image_once(detector, images, Arc::new(entries), batch, collector);
    source.share = source.share.of_process(collective);
    source.keep_originals = merging.tiling.is_some();
    let own = source.images();
    let mut found = Vec::new();
    let counter = Counter::new("detecting", own);
    let mut done = 0;
    collective.pace(Pace::Long);
    guarded(|| {
        detect_batches(
            detector,
            source,
            ReadAhead::default(),
            |Detected { batch, found: boxes, .. }| {
                let mut of_batch = Vec::new();
                for (i, (target, boxes)) in batch.targets.iter().zip(boxes).enumerate() {
                    let original = batch.originals.get(i);
                    let boxes = merging.boxes(detector, original, boxes, tiles_at_once)?;
                    let boxes = to_detections(target.image_id, &boxes, detector.vocabulary());
                    // A split need not have every class of training.
                    of_batch.extend(boxes.into_iter().filter_map(|found| {
                        let category_id = ids.get(found.category_id)?;
                        dataset.vocabulary().class_of(category_id)?;
                        Some(Detection { category_id, ..found })
                    }));
                    done += 1;
                    counter.set(done, own);
                }
                found.push(of_batch);
                collective.pace(Pace::Share);
                Ok(ControlFlow::Continue(()))
            },
        )
    })?;
    drop(counter);
    if let Some(news) = detector.take_news() {
        output::note(news);
    }
    // Those who are done wait for the others as long as these get on.
    collective.pace(Pace::Share);
    let found = gather_detections(collective, found)?;
    broken.gather(collective)?;
    collective.pace(Pace::Long);
    let Some(found) = found else { return Ok(None) };
    if total > 0 && broken.list().len() >= total {
        let first = broken.list().into_iter().next().map(|(_, problem)| problem);
        return Err(anyhow!(
            "--images: none of the {total} images could be read: {}",
            first.unwrap_or_default()
        ));
    }
    if let Some(list) = broken.summary() {
        output::warn(format!("{list}\n  their objects count as missed"));
    }
    Ok(Some(found))
}
