//! What was counted while loading: the numbers a user compares with what they believe they have.

use std::fmt;

/// Counts of one file. `Display` gives a few lines, the unremarkable left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Images.
    pub images: usize,
    /// Annotations, crowds included.
    pub annotations: usize,
    /// Classes.
    pub categories: usize,
    /// Classes that are rare, common, frequent.
    pub by_frequency: [usize; 3],
    /// Classes without any annotation in this file.
    pub unseen_categories: usize,
    /// Images without any annotation.
    pub images_without_boxes: usize,
    /// Crowd annotations: not trained on.
    pub crowd: usize,
    /// Others that reach beyond their image: clipped for training.
    pub clipped: usize,
    /// Others with no inside, in the file or once clipped: dropped from training.
    pub degenerate: usize,
    /// Classes whose `image_count` was counted because the file has none.
    pub computed_image_count: usize,
    /// Classes whose `instance_count` was counted.
    pub computed_instance_count: usize,
    /// Classes whose `frequency` was derived from the image count.
    pub computed_frequency: usize,
    /// Annotations whose `area` was computed as width × height.
    pub computed_area: usize,
    /// What looks wrong although it is allowed, each a sentence.
    pub warnings: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rare, common, frequent] = self.by_frequency;
        write!(
            f,
            "{} images, {} annotations, {} classes ({rare} rare, {common} common, {frequent} \
             frequent)",
            self.images, self.annotations, self.categories
        )?;
        let counted = |name: &str, count: usize| (count > 0).then(|| format!("{name} of {count}"));
        let computed: Vec<String> = [
            counted("image_count", self.computed_image_count),
            counted("instance_count", self.computed_instance_count),
            counted("frequency", self.computed_frequency),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (count, what) in [
            (self.images_without_boxes, "images without boxes"),
            (self.unseen_categories, "classes without boxes"),
            (self.crowd, "crowd regions, not trained on"),
            (self.clipped, "boxes reach beyond their image, clipped for training"),
            (self.degenerate, "boxes are empty, dropped from training"),
            (self.computed_area, "areas were missing, width x height taken"),
        ] {
            if count > 0 {
                write!(f, "\n  {count} {what}")?;
            }
        }
        if !computed.is_empty() {
            write!(f, "\n  counted from the boxes: {} classes", computed.join(", "))?;
        }
        for warning in &self.warnings {
            write!(f, "\n  warning: {warning}")?;
        }
        Ok(())
    }
}
