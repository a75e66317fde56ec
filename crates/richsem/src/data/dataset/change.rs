//! What conversions ask of a set and change in it: its parts, its file, the frame of its images.

use super::{Dataset, group, report};
use crate::{
    boxes::Xywh,
    data::{json_file::JsonFile, records::ImageRecord},
    vocabulary::{ClassIndex, Frequency},
};

impl Dataset {
    /// Keeps these images and their annotations: a part of the set, called `name`. Counts of its classes that
    /// the file gave are those of the whole, so they are counted anew, and with them the frequency that follows from
    /// them; another one stays.
    ///
    /// # Panics
    /// If `kept` does not have an entry for every image.
    pub(in crate::data) fn keep(&mut self, kept: &[bool], name: &str) {
        assert_eq!(kept.len(), self.images.len(), "an entry for every image");
        let place: Vec<u32> = kept
            .iter()
            .scan(0, |next, &is_kept| {
                let at = *next;
                *next += u32::from(is_kept);
                Some(at)
            })
            .collect();
        self.annotations.retain(|annotation| kept[annotation.image as usize]);
        for annotation in &mut self.annotations {
            annotation.image = place[annotation.image as usize];
        }
        if let Some(ids) = &mut self.image_ids {
            ids.retain(kept);
        }
        let mut kept = kept.iter();
        self.images.retain(|_| kept.next() == Some(&true));
        self.starts = group::by_image(&mut self.annotations, self.images.len());
        for class in &mut self.class_records {
            if class.frequency == class.image_count.map(Frequency::of) {
                class.frequency = None;
            }
            (class.image_count, class.instance_count) = (None, None);
        }
        let classes = std::mem::take(&mut self.class_records);
        let same: Vec<ClassIndex> = (0..classes.len() as u32).map(ClassIndex).collect();
        self.set_classes(classes, &same);
        self.split = name.to_owned();
        self.report.images = self.images.len();
        self.report.annotations = self.annotations.len();
    }

    /// The images, to be changed in name and size.
    pub(in crate::data) fn images_mut(&mut self) -> &mut [ImageRecord] {
        &mut self.images
    }

    /// Gives an image another size, and its boxes the places that `place` says.
    ///
    /// # Panics
    /// If `image` is not an index into [`Self::images`].
    pub(in crate::data) fn redraw(
        &mut self,
        image: usize,
        size: [u32; 2],
        place: impl Fn(Xywh) -> Xywh,
    ) {
        self.images[image].size = Some(size);
        let range = self.starts[image] as usize..self.starts[image + 1] as usize;
        self.annotations[range].iter_mut().for_each(|a| a.bbox = place(a.bbox));
    }

    /// Numbers of images and of boxes of each class, in the vocabulary's order: of the boxes that there are, without
    /// those that a hierarchy makes of them.
    pub(in crate::data) fn written_counts(&self) -> Vec<(u32, u32)> {
        report::images_and_instances(self.class_records.len(), &self.annotations, None)
    }

    /// The file that the set was read from, if it is COCO's or LVIS's.
    pub(in crate::data) fn json_file(&self) -> Option<&JsonFile> {
        self.json.as_ref()
    }

    /// Whether the boxes were shares of the images as viewers show them, before they became pixels.
    pub(in crate::data) fn is_from_shares(&self) -> bool {
        self.from_shares
    }
}
