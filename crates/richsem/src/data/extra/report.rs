//! Counts of a set of classification images, for a user to compare with what the set should have.

use std::fmt;

use super::groups::Groups;
use crate::{
    data::listing::PassedOver,
    error::first_few,
    plural::counted,
    vocabulary::{ClassIndex, Frequency, Vocabulary},
};

/// Counts of one set. `Display` gives a few lines, and leaves out what is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtraReport {
    /// Images that are learned from.
    pub images: usize,
    /// Classes of the set, mapped or not.
    pub source_classes: usize,
    /// Classes of the detection vocabulary that have images.
    pub classes: usize,
    /// All classes of the detection vocabulary.
    pub vocabulary: usize,
    /// Rare, common and frequent classes that have images.
    pub classes_by_frequency: [usize; 3],
    /// Images of rare, common and frequent classes; one with labels of two groups counts in both.
    pub images_by_frequency: [usize; 3],
    /// Classes of the set that are none of the detection classes, with the number of their images.
    /// They are left out.
    pub unmapped: Vec<(String, usize)>,
    /// Mapped classes without any image.
    pub empty: Vec<String>,
    /// Images without a label where others have one beside them. They are left out.
    pub unlabelled: usize,
    /// Folders (or parts of parquet files) beside that of the training split (`val`, `test`). Their images are left out.
    pub other_splits: Vec<String>,
    /// Files in the class folders that are no images, and hidden folders beside these.
    pub passed_over: PassedOver,
}

fn group(frequency: Frequency) -> usize {
    match frequency {
        Frequency::Rare => 0,
        Frequency::Common => 1,
        Frequency::Frequent => 2,
    }
}

impl ExtraReport {
    /// Fills in what follows from the images' labels.
    pub(super) fn count(&mut self, groups: &Groups, vocabulary: &Vocabulary) {
        let mut seen = vec![false; vocabulary.len()];
        for (labels, &images) in std::iter::zip(&groups.labels, &groups.images) {
            let mut groups = [false; 3];
            for &class in labels.iter().filter(|_| images > 0) {
                seen[class.0 as usize] = true;
                groups[group(vocabulary.category(class).frequency)] = true;
            }
            for (count, shown) in self.images_by_frequency.iter_mut().zip(groups) {
                *count += if shown { images } else { 0 };
            }
        }
        self.images = groups.images.iter().sum();
        self.vocabulary = vocabulary.len();
        for class in (0..).map(ClassIndex).zip(seen).filter(|(_, s)| *s).map(|(c, _)| c) {
            self.classes += 1;
            self.classes_by_frequency[group(vocabulary.category(class).frequency)] += 1;
        }
    }
}

impl fmt::Display for ExtraReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rare, common, frequent] = self.classes_by_frequency;
        let [of_rare, of_common, of_frequent] = self.images_by_frequency;
        write!(
            f,
            "{} of {} of the {} classes: {of_rare} of {rare} rare, \
             {of_common} of {common} common, {of_frequent} of {frequent} frequent ones",
            counted(self.images, "classification image"),
            self.classes,
            self.vocabulary
        )?;
        if !self.unmapped.is_empty() {
            let images: usize = self.unmapped.iter().map(|(_, count)| count).sum();
            write!(
                f,
                "\n  {} of the set's {} classes are not in the detection set, left out with their \
                 {}: {}",
                self.unmapped.len(),
                self.source_classes,
                counted(images, "image"),
                first_few(self.unmapped.iter().map(|(name, count)| format!("{name} ({count})")))
            )?;
        }
        if !self.empty.is_empty() {
            let names = first_few(self.empty.iter().cloned());
            write!(f, "\n  {} without images: {names}", counted(self.empty.len(), "class"))?;
        }
        if self.unlabelled > 0 {
            write!(f, "\n  {} without a label, left out", counted(self.unlabelled, "image"))?;
        }
        if !self.other_splits.is_empty() {
            let names = first_few(self.other_splits.iter().cloned());
            write!(f, "\n  classes are those of `train`; not learned from: {names}")?;
        }
        if !self.passed_over.is_empty() {
            write!(f, "\n  passed over as no images: {}", self.passed_over)?;
        }
        Ok(())
    }
}
