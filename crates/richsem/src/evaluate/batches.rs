//! Ground truth and detections in the engine's form, a batch of images at a time.

use hotcoco::{
    Annotation, COCO, COCOeval,
    params::{AreaRange, IouType},
    types,
};

use super::{Evaluator, Protocol, ground_truth::TrueBox};
use crate::{Error, Result, detections::Detection};

/// Images that are matched at a time. They keep every core busy, and their records (300 detections
/// an image, about 300 bytes each) stay below 100 MB.
const BATCH: usize = 1000;

/// An area outside every range, "all" included: such a box need not be found, and finding it is no
/// mistake.
const IGNORED_AREA: f64 = -1.0;

/// What every batch is matched by.
pub(super) struct Rules {
    /// Detections of an image that take part at most, over all classes (LVIS) or a class (COCO).
    pub(super) max_detections: usize,
    /// Overlaps from which on a detection finds a box.
    pub(super) overlaps: Vec<f64>,
    /// Areas of objects that are evaluated apart.
    pub(super) areas: Vec<AreaRange>,
}

/// The detections that take part.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) detections: &'a [Detection],
    /// Those of `detections` that stay; all, if there is no list.
    pub(super) kept: Option<&'a [bool]>,
    /// The best of an image that stay under LVIS's rules.
    pub(super) per_image: usize,
}

/// A batch of images. An id is a position in the ground truth; detections keep their order.
pub(super) struct Batch {
    pub(super) images: Vec<types::Image>,
    pub(super) truths: Vec<Annotation>,
    pub(super) found: Vec<Annotation>,
}

impl Batch {
    pub(super) fn of(images: usize) -> Self {
        Self { images: Vec::with_capacity(images), truths: vec![], found: vec![] }
    }
}

impl Evaluator {
    /// Hands over all images with their boxes and the chosen detections.
    pub(super) fn each_batch<E>(
        &self,
        Chosen { detections, kept, per_image }: Chosen<'_>,
        mut take: impl FnMut(Batch) -> Result<(), E>,
    ) -> Result<(), E> {
        // Detections by image, in their own order within one.
        let mut order: Vec<u32> = (0..detections.len() as u32).collect();
        if let Some(kept) = kept {
            order.retain(|&i| kept[i as usize]);
        }
        let image_of = |i: u32| self.image_at[&detections[i as usize].image_id];
        order.sort_by_cached_key(|&i| image_of(i));

        let mut rest = order.as_slice();
        for (number, images) in self.truth.images.chunks(BATCH).enumerate() {
            let (first, end) = (number * BATCH, number * BATCH + images.len());
            let mut batch = Batch::of(images.len());
            for (position, image) in (first as u64..).zip(images) {
                batch.images.push(types::Image {
                    id: position,
                    neg_category_ids: image.absent.clone(),
                    not_exhaustive_category_ids: image.not_exhaustive.clone(),
                    ..types::Image::default()
                });
                let boxes = self.truth.boxes[image.boxes.clone()].iter();
                let counted = boxes.filter(|b| self.counts(b.area));
                batch.truths.extend(counted.map(|b| self.true_box(position, b)));
            }
            let count = rest.partition_point(|&i| (image_of(i) as usize) < end);
            let (these, later) = rest.split_at(count);
            rest = later;
            for of_image in these.chunk_by(|&a, &b| image_of(a) == image_of(b)) {
                let kept = self.best_of_image(of_image, detections, per_image);
                batch.found.extend(kept.into_iter().filter_map(|i| {
                    let detection = &detections[i as usize];
                    let [_, _, width, height] = detection.bbox.0;
                    self.counts(width * height).then(|| Annotation {
                        image_id: u64::from(image_of(i)),
                        category_id: u64::from(self.category_at[&detection.category_id]),
                        bbox: Some(detection.bbox.0),
                        score: Some(detection.score),
                        ..Annotation::default()
                    })
                }));
            }
            take(batch)?;
        }
        Ok(())
    }

    /// Matches images by the protocol's rules. The result has the records of every image and class that
    /// is judged, from which all else can be computed.
    pub(super) fn match_records(&self, batch: Batch, rules: &Rules) -> Result<COCOeval> {
        let mut result = self.pair(batch, rules)?;
        result.evaluate().map_err(engine)?;
        Ok(result)
    }

    /// Images, boxes and detections in the engine, not matched yet. Boxes and detections are numbered from 1,
    /// in their order.
    pub(super) fn pair(&self, batch: Batch, rules: &Rules) -> Result<COCOeval> {
        let Batch { images, mut truths, found } = batch;
        for (id, truth) in (1..).zip(&mut truths) {
            truth.id = id;
        }
        let ids = images.iter().map(|image| image.id).collect();
        let truth = COCO::from_dataset(types::Dataset {
            images,
            annotations: truths,
            ..types::Dataset::default()
        });
        let found = truth.load_res_anns(found).map_err(engine)?;
        let mut result = match self.protocol {
            // The limit is applied already, and may be another than the engine's.
            Protocol::Lvis => {
                COCOeval::new_lvis(truth, found.cap_detections_per_image(None), IouType::Bbox)
            }
            _ => COCOeval::new(truth, found, IouType::Bbox),
        };
        result.params.img_ids = ids;
        result.params.cat_ids = (0..self.truth.categories.len() as u64).collect();
        result.params.max_dets = vec![rules.max_detections];
        result.params.iou_thrs.clone_from(&rules.overlaps);
        result.params.area_ranges.clone_from(&rules.areas);
        Ok(result)
    }

    /// The detections of an image that the protocol looks at. LVIS takes the best of all classes.
    fn best_of_image(
        &self,
        of_image: &[u32],
        detections: &[Detection],
        per_image: usize,
    ) -> Vec<u32> {
        let mut kept = of_image.to_vec();
        if self.protocol == Protocol::Lvis && kept.len() > per_image {
            // Stable, as lvis-api's: among equal scores the first in the file stay.
            let score = |i: u32| detections[i as usize].score + 0.0; // −0 ties with 0
            kept.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
            kept.truncate(per_image);
        }
        kept
    }

    /// Whether a box of that area takes part. lvis-api leaves out boxes without area: those of the
    /// ground truth, and detections after the limit on their number.
    pub(super) fn counts(&self, area: f64) -> bool {
        self.protocol != Protocol::Lvis || area > 0.0
    }

    fn true_box(&self, image: u64, b: &TrueBox) -> Annotation {
        let lvis = self.protocol == Protocol::Lvis;
        Annotation {
            image_id: image,
            category_id: u64::from(b.category),
            bbox: Some(b.bbox),
            area: Some(if lvis && b.ignore { IGNORED_AREA } else { b.area }),
            // pycocotools overwrites `ignore` by `iscrowd`, lvis-api never reads `iscrowd`.
            iscrowd: b.crowd && !lvis,
            ..Annotation::default()
        }
    }
}

/// An error of the engine.
pub(super) fn engine(error: hotcoco::Error) -> Error {
    Error::other(format!("evaluation: {error}"))
}
