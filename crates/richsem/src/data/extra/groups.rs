//! The images of a classification set, in little memory: their names, and what they have in common.

use crate::vocabulary::ClassIndex;

/// Many short texts in one: a set can have 14 million images.
#[derive(Debug, Default)]
pub(super) struct NameList {
    pub(super) text: String,
    pub(super) ends: Vec<usize>,
}

impl NameList {
    pub(super) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    pub(super) fn get(&self, i: usize) -> &str {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[i]]
    }
}

/// Images with the same labels, and, where they lie in class folders, of the same folder.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// What their names begin with.
    pub(super) prefixes: Vec<String>,
    pub(super) labels: Vec<Vec<ClassIndex>>,
    /// Number of images of each group.
    pub(super) images: Vec<usize>,
    /// The group of each image.
    pub(super) of: Vec<u32>,
}

impl Groups {
    pub(super) fn add(&mut self, prefix: String, labels: Vec<ClassIndex>) -> u32 {
        self.prefixes.push(prefix);
        self.labels.push(labels);
        self.images.push(0);
        self.labels.len() as u32 - 1
    }

    /// Adds the next image to a group.
    pub(super) fn put(&mut self, group: u32) {
        self.of.push(group);
        self.images[group as usize] += 1;
    }
}
