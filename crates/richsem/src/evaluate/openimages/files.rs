//! The metric from OpenImages' own files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{OpenImagesSummary, Rules, Truth, evaluate};
use crate::{
    data::openimages::{
        Classes, Columns, Flag, Hierarchy, Kind, Names, Relations, read_boxes, read_classes,
        read_labels, read_predictions, read_submission,
    },
    error::{Error, Result},
    evaluate::{ScoredBox, TrueBox, VerifiedLabel},
};

/// Where the truth is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Boxes, not expanded.
    pub boxes: PathBuf,
    /// Verified image-level labels, not expanded. Without them an image judges only the classes of its
    /// boxes, and false positives of other classes go unseen.
    pub labels: Option<PathBuf>,
    /// The classes to be measured, in order.
    pub classes: PathBuf,
    /// Their hierarchy. None: no class is a kind of another.
    pub hierarchy: Option<PathBuf>,
}

/// What was read and is not measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Boxes of classes that are not in the list, by MID.
    pub boxes: BTreeMap<String, usize>,
    /// Labels of classes that are not in the list, by MID.
    pub labels: BTreeMap<String, usize>,
    /// Labels that verify nothing.
    pub unverified: usize,
    /// Boxes of which nobody said whether they are a group. They count as none.
    pub group_unknown: usize,
    /// Boxes without an area. They are to be found, and nothing finds them.
    pub without_area: usize,
}

/// Truth that detections are measured by.
#[derive(Debug, Clone)]
pub struct Evaluation {
    classes: Classes,
    relations: Relations,
    images: Names,
    boxes: Vec<TrueBox>,
    labels: Vec<VerifiedLabel>,
    left_out: LeftOut,
    columns: Columns,
}

impl Evaluation {
    /// Reads the truth.
    ///
    /// # Errors
    /// A file that cannot be read or is not as it should be; no box of any of the classes.
    pub fn open(files: &Files) -> Result<Self> {
        let classes = read_classes(&files.classes)?;
        let relations = match &files.hierarchy {
            Some(path) => Hierarchy::open(path)?.over(&classes.mids),
            None => Relations::none(classes.mids.len()),
        };
        let (mut images, mut mids) = (Names::new(), classes.mids.clone());
        let boxes = read_boxes(&files.boxes, &mut images, &mut mids)?;
        let labels = match &files.labels {
            Some(path) => read_labels(path, &mut images, &mut mids)?,
            None => Default::default(),
        };
        let known = relations.len();
        let mut left_out = LeftOut {
            boxes: strangers(boxes.boxes.iter().map(|truth| truth.class), known, &mids),
            labels: strangers(labels.labels.iter().map(|label| label.class), known, &mids),
            unverified: labels.unverified,
            without_area: boxes.without_area,
            group_unknown: 0,
        };
        let is_known = |class: u32| (class as usize) < known;
        let taken = boxes.boxes.iter().filter(|truth| is_known(truth.class));
        let taken: Vec<TrueBox> = taken
            .map(|truth| {
                left_out.group_unknown += usize::from(truth.group_of() == Flag::Unknown);
                let group_of = truth.group_of() == Flag::Yes;
                TrueBox { image: truth.image, class: truth.class, bbox: truth.bbox, group_of }
            })
            .collect();
        if taken.is_empty() {
            let problem = format!("none of the boxes is of one of the {known} classes");
            return Err(Error::invalid(&files.boxes, "column LabelName", problem)
                .with_hint(format!("the classes are those of {}", files.classes.display())));
        }
        let labels = labels.labels.into_iter().filter(|label| is_known(label.class)).collect();
        let columns = boxes.columns;
        Ok(Self { classes, relations, images, boxes: taken, labels, left_out, columns })
    }

    /// The classes that are measured.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// How they are related.
    #[must_use]
    pub fn relations(&self) -> &Relations {
        &self.relations
    }

    /// What was read and is not measured.
    #[must_use]
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// What the file of boxes has not, and what of it was passed over.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Measures a file of predictions or a submission. Also returns how many predictions are of classes that
    /// are not in the list, by MID: these are passed over. Ties are decided by the order of the images' ids,
    /// so that the order of the files matters only within an image.
    ///
    /// # Errors
    /// A file that cannot be read or is not as it should be; those of [`evaluate`].
    pub fn measure(
        &self,
        predictions: &Path,
        rules: Rules,
    ) -> Result<(OpenImagesSummary, BTreeMap<String, usize>)> {
        let (mut images, mut mids) = (self.images.clone(), self.classes.mids.clone());
        let found = match Kind::of_file(predictions)? {
            Some(Kind::Submission) => read_submission(predictions, &mut images, &mut mids)?,
            _ => read_predictions(predictions, &mut images, &mut mids)?,
        };
        let mut found = found.boxes;
        let known = self.relations.len();
        let passed_over = strangers(found.iter().map(|found| found.class), known, &mids);
        found.retain(|found| (found.class as usize) < known);
        let ranks = images.ranks();
        let summary = self.ranked(found, &ranks, rules)?;
        Ok((summary, passed_over))
    }

    fn ranked(
        &self,
        mut found: Vec<ScoredBox>,
        ranks: &[u32],
        rules: Rules,
    ) -> Result<OpenImagesSummary> {
        let rank = |image: &mut u32| *image = ranks[*image as usize];
        let (mut boxes, mut labels) = (self.boxes.clone(), self.labels.clone());
        boxes.iter_mut().for_each(|truth| rank(&mut truth.image));
        labels.iter_mut().for_each(|label| rank(&mut label.image));
        found.iter_mut().for_each(|found| rank(&mut found.image));
        evaluate(Truth { boxes: &boxes, labels: &labels }, &found, &self.relations, rules)
    }
}

/// Records of classes that are not in the list, by MID.
fn strangers(
    classes: impl Iterator<Item = u32>,
    known: usize,
    mids: &Names,
) -> BTreeMap<String, usize> {
    let mut counts = vec![0; mids.len()];
    classes.for_each(|class| counts[class as usize] += 1);
    let counted = (0..).zip(counts).skip(known).filter(|(_, count)| *count > 0);
    counted.map(|(class, count)| (mids.get(class).unwrap_or_default().to_owned(), count)).collect()
}
