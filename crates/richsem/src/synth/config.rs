//! The settings of a drawn set, and their ranges.

use super::classes;
use crate::{Error, Result};

/// What to draw: numbers of classes, images and objects, and their sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthConfig {
    /// Another seed gives other images of the same classes. Default 0.
    pub seed: u64,
    /// Number of classes, at most 600. Which ones they are depends on this number alone.
    pub classes: usize,
    /// Images of the long-tailed training split. With 130 or more, all three of LVIS's groups
    /// can be filled.
    pub train_images: usize,
    /// Images of the balanced validation split.
    pub val_images: usize,
    /// Least and greatest side of an image in pixels; width and height are drawn separately.
    pub image_size: (u32, u32),
    /// Least and greatest number of objects in an image. The greatest may be missed where no
    /// place is left.
    pub objects_per_image: (usize, usize),
    /// Classification images of each class; 0 for none.
    pub classification_per_class: usize,
    /// Side of the (square) classification images in pixels.
    pub classification_size: u32,
    /// Captioned images, of the classification images' size, classes in turn; 0 for none.
    pub captioned_images: usize,
}

impl Default for SynthConfig {
    /// 40 classes in 1,200 + 300 images of 160 to 224 pixels, 40 classification images a class, no
    /// captioned ones.
    fn default() -> Self {
        Self {
            seed: 0,
            classes: 40,
            train_images: 1200,
            val_images: 300,
            image_size: (160, 224),
            objects_per_image: (2, 7),
            classification_per_class: 40,
            classification_size: 128,
            captioned_images: 0,
        }
    }
}

impl SynthConfig {
    /// Checks every field, and those that must agree.
    ///
    /// # Errors
    /// [`Error::Config`] with the field's name, what is possible and what was asked for.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, key: &str, problem: String, hint: &str| {
            if ok { Ok(()) } else { Err(Error::config(key, problem).with_hint(hint)) }
        };
        let most = classes::MAX_CLASSES;
        check(
            (1..=most).contains(&self.classes),
            "classes",
            format!("expected 1 to {most}, got {}", self.classes),
            "every class is a texture, a colour and a shape, and there are no more of them",
        )?;
        for (key, images) in [("train_images", self.train_images), ("val_images", self.val_images)]
        {
            check(
                (1..=1_000_000).contains(&images),
                key,
                format!("expected 1 to 1000000, got {images}"),
                "a split without images cannot show the classes",
            )?;
        }
        let (small, large) = self.image_size;
        check(
            64 <= small && small <= large && large <= 4096,
            "image_size",
            format!("expected 64 <= least <= greatest <= 4096 pixels, got {small} and {large}"),
            "objects are at least 26 pixels large and need room around them; try 160 and 224",
        )?;
        let (fewest, most) = self.objects_per_image;
        // About half of the smallest image may be filled with the smallest objects.
        let room = ((small as usize / 32).pow(2)).min(200);
        check(
            fewest <= most && (1..=room).contains(&most),
            "objects_per_image",
            format!(
                "expected least <= greatest, the greatest from 1 to {room}, got {fewest} and {most}"
            ),
            &format!("images of {small} pixels have no room for more than {room} objects"),
        )?;
        if self.classification_per_class == 0 && self.captioned_images == 0 {
            return Ok(());
        }
        for (key, images, hint) in [
            ("classification_per_class", self.classification_per_class, "40 to 200 are plenty"),
            ("captioned_images", self.captioned_images, "100 a class are plenty"),
        ] {
            let problem = format!("expected 0 to 1000000, got {images}");
            check(images <= 1_000_000, key, problem, hint)?;
        }
        check(
            (48..=4096).contains(&self.classification_size),
            "classification_size",
            format!("expected 48 to 4096 pixels, got {}", self.classification_size),
            "try 128",
        )
    }
}
