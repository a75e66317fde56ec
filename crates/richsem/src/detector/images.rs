//! A detector on images in memory, and where its weights lie: all that a program of one's own needs.

use std::path::{Path, PathBuf};

use image::RgbImage;
use tch::Device;

use super::Detector;
use crate::{
    boxes::Xyxy,
    data::{
        batch::Batch,
        image_io::{self, Orientation},
        transforms::{Sample, finish},
    },
    error::{Error, Result},
    models::scored_box::ScoredBox,
    vocabulary::ClassIndex,
};

/// The file that has a detector, in a checkpoint's folder.
const WEIGHTS: &str = "model.safetensors";

/// An object that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Name of its class.
    pub name: String,
    /// Its class.
    pub class: ClassIndex,
    /// Probability, in [0, 1].
    pub score: f32,
    /// In pixels of the image.
    pub bbox: Xyxy,
}

/// The weights of a file, a checkpoint's folder, or a run's (its best, or its last where none was
/// evaluated).
///
/// # Errors
/// A folder that holds none.
pub fn weights_in(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let places = ["", "checkpoints/best", "checkpoints/last"];
    let mut files = places.iter().map(|place| path.join(place).join(WEIGHTS));
    files.find(|file| file.is_file()).ok_or_else(|| {
        let problem = format!("the folder holds neither {WEIGHTS} nor checkpoints with one");
        Error::invalid(path, "weights", problem).with_hint(
            "give a .safetensors file, or the folder of a run that has saved a checkpoint",
        )
    })
}

/// An image of a file, the right way up as viewers show it: JPEG, PNG, WebP, BMP, TIFF or GIF.
///
/// # Errors
/// A file that cannot be read, or is none of these.
pub fn read_image(path: impl AsRef<Path>) -> Result<RgbImage> {
    Ok(image_io::decode(path.as_ref(), Orientation::Exif)?.image)
}

impl Detector {
    /// Opens a detector: a weights file of this program, a checkpoint's folder, or a run's (its best
    /// checkpoint, or its last where none was evaluated).
    ///
    /// # Errors
    /// A folder that holds none; as [`Self::load`].
    pub fn open(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        Self::load(&weights_in(path.as_ref())?, device)
    }

    /// What it finds in an image with at least that score, best first. Several images at once are
    /// [`Self::detect_images`].
    ///
    /// # Errors
    /// As [`Self::detect_images`].
    pub fn predict(&self, image: &RgbImage, score: f32) -> Result<Vec<Prediction>> {
        let found = self.detect_images(std::slice::from_ref(image))?;
        let found = found.into_iter().flatten().filter(|found| found.score >= score);
        Ok(found.map(|found| self.prediction(found)).collect())
    }

    fn prediction(&self, ScoredBox { bbox, class, score }: ScoredBox) -> Prediction {
        Prediction { name: self.vocabulary().category(class).name.clone(), class, score, bbox }
    }

    /// What it finds in each image, best first, in pixels of the images. They are one batch: images of like
    /// shape take least time.
    ///
    /// # Errors
    /// An image without pixels; what libtorch refuses, as too little memory.
    pub fn detect_images(&self, images: &[RgbImage]) -> Result<Vec<Vec<ScoredBox>>> {
        let empty = images.iter().position(|image| image.width() == 0 || image.height() == 0);
        if let Some(index) = empty {
            return Err(Error::other(format!("image {index} of those to detect in has no pixels")));
        }
        let prepared = images.iter().map(|image| {
            let mut sample = Sample::new(image.clone());
            self.config.resize.apply(&mut sample);
            finish(sample)
        });
        let batch = Batch::collate(prepared.collect(), Vec::new(), self.config.pad_multiple)?;
        self.detect(&batch)
    }
}
