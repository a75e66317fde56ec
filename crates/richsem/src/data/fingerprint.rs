//! Shows whether a resumed run still has the data and the teacher that it was started with.

use std::{hash::Hasher as _, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    data::{detection_source::ImageEntry, extra::ClassificationSet},
    error::Result,
    hash::{Fnv, sha256_of_file},
    plural::counted,
};

/// Counts and hashes of what a run learns from: `data.json` in its folder. File names are not part of
/// it, so images may be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Images of the training set.
    pub images: usize,
    /// Boxes that are trained on.
    pub boxes: usize,
    /// FNV-1a of the images' ids, and of the classes and corners of their boxes, in order;
    /// hexadecimal.
    pub hash: String,
    /// Number of images of each set of classification images, and a hash of their names and labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<(usize, String)>,
    /// SHA-256 of the teacher's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
}

impl Fingerprint {
    /// The fingerprint of a training set alone.
    #[must_use]
    pub fn of(entries: &[ImageEntry]) -> Self {
        let mut hash = Fnv::default();
        let mut boxes = 0;
        for entry in entries {
            boxes += entry.boxes.len();
            hash.write(&entry.id.to_le_bytes());
            hash.write(&(entry.boxes.len() as u64).to_le_bytes());
            for (corners, label) in entry.boxes.iter().zip(&entry.labels) {
                corners.0.iter().for_each(|c| hash.write(&c.to_le_bytes()));
                hash.write(&label.0.to_le_bytes());
            }
        }
        let hash = hexadecimal(&hash);
        Self { images: entries.len(), boxes, hash, extra: Vec::new(), teacher: None }
    }

    /// Adds the classification images of these sets.
    #[must_use]
    pub fn with_extra<'a>(self, sets: impl IntoIterator<Item = &'a ClassificationSet>) -> Self {
        let of_set = |set: &ClassificationSet| {
            let mut hash = Fnv::default();
            for item in (0..set.len()).map(|i| set.item(i)) {
                hash.write(item.name.as_bytes());
                item.labels.iter().for_each(|label| hash.write(&label.0.to_le_bytes()));
            }
            (set.len(), hexadecimal(&hash))
        };
        Self { extra: sets.into_iter().map(of_set).collect(), ..self }
    }

    /// Adds the file of the teacher.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn with_teacher(self, file: &Path) -> Result<Self> {
        Ok(Self { teacher: Some(sha256_of_file(file)?), ..self })
    }

    /// What has changed since the run was started, in words. None if nothing has.
    pub(crate) fn differs_from(&self, started: &Self) -> Option<String> {
        if self.teacher != started.teacher {
            return Some(
                "the run was started with another teacher than teacher.weights now names".into(),
            );
        }
        if self.extra != started.extra {
            let counts = |of: &Self| {
                let counts: Vec<String> = of.extra.iter().map(|(n, _)| n.to_string()).collect();
                if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
            };
            return Some(format!(
                "the run was started with other classification images (data.extra: {}) than there \
                 are now ({})",
                counts(started),
                counts(self)
            ));
        }
        let counts =
            |of: &Self| format!("{} and {}", counted(of.images, "image"), counted(of.boxes, "box"));
        let (now, then) = (counts(self), counts(started));
        match (self == started, now == then) {
            (true, _) => None,
            (false, false) => Some(format!(
                "the run was started with {then}, data.train.annotations now has {now}"
            )),
            (false, true) => Some(format!(
                "the run was started with {then} too, but with other ids, classes or places than \
                 data.train.annotations now has"
            )),
        }
    }
}

fn hexadecimal(hash: &Fnv) -> String {
    format!("{:016x}", hash.finish())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{boxes::Xyxy, targets::LabelKnowledge, vocabulary::ClassIndex};

    fn entry(id: i64, boxes: &[[f32; 4]]) -> ImageEntry {
        ImageEntry {
            name: format!("{id}.jpg"),
            id,
            size: None,
            boxes: boxes.iter().map(|b| Xyxy(*b)).collect(),
            labels: vec![ClassIndex(0); boxes.len()],
            knowledge: LabelKnowledge::default(),
        }
    }

    #[test]
    fn whatever_is_learned_from_shows() {
        let corners = [1.0, 2.0, 3.0, 4.0];
        let set = [entry(1, &[corners]), entry(2, &[])];
        let first = Fingerprint::of(&set);
        assert_eq!((first.images, first.boxes), (2, 1));
        let changed = |change: fn(&mut [ImageEntry; 2])| {
            let mut set = set.clone();
            change(&mut set);
            Fingerprint::of(&set).differs_from(&first)
        };
        assert_eq!(changed(|_| ()), None);
        assert_eq!(changed(|set| set[0].name = "moved/1.jpg".to_owned()), None);
        let changes: [fn(&mut [ImageEntry; 2]); 5] = [
            |set| set[1].id = 3,
            |set| set.reverse(),
            |set| set[0].labels[0] = ClassIndex(1),
            |set| set[0].boxes[0].0[2] = 3.5,
            |set| {
                let (boxes, labels) = (set[0].boxes.split_off(0), set[0].labels.split_off(0));
                (set[1].boxes, set[1].labels) = (boxes, labels);
            },
        ];
        for change in changes {
            assert!(changed(change).unwrap().contains("other ids, classes or places"));
        }
        let fewer = Fingerprint::of(&set[..1]).differs_from(&first).unwrap();
        assert!(fewer.contains("with 2 images and 1 box") && fewer.contains("1 image"), "{fewer}");
    }
}
