//! Shows images of each class to a teacher, and says what it sees in them.

use std::ops::ControlFlow;

use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{ClassName, learned::Seen, read::Names};
use crate::{
    data::{image_store::ImageStore, transforms::resize},
    error::{Error, Result},
    teacher::Teacher,
    vocabulary::{Category, CategoryId, Frequency, Vocabulary},
};

/// Images that the teacher is shown at a time.
const BATCH: usize = 16;

/// Images that could not be read, of which the first are named.
const NAMED: usize = 5;

/// How the teacher is shown the images.
#[derive(Debug, Clone, Copy)]
pub struct Looking {
    /// Where the teacher computes.
    pub device: Device,
    /// Pixels of the longer side that images are resized to. The scale matters: take what the teacher was
    /// trained at.
    pub size: u32,
    /// Most images of a class. They are taken at equal distances from the sorted list of its images.
    pub images: usize,
}

/// What the teacher saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Looked {
    /// Of each class of FROM, in its order; without images where it has none.
    pub seen: Vec<Seen>,
    /// Number of images that could not be read and were left out.
    pub unread: usize,
    /// Why, of the first of them.
    pub why: Vec<String>,
}

/// The classes of TO for a teacher, in their order: with their own ids where these are numbers, else with
/// their places from 1.
#[must_use]
pub fn vocabulary(to: &Names) -> Vocabulary {
    let classes = to.classes();
    let numbers: Option<Vec<i64>> = classes.iter().map(|class| class.id.parse().ok()).collect();
    let ids = numbers.unwrap_or_else(|| (1..=classes.len() as i64).collect());
    let category = |(at, class): (usize, &ClassName<'_>)| Category {
        id: CategoryId(ids[at]),
        name: class.name.clone(),
        image_count: class.images.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        instance_count: 0,
        frequency: class.frequency.unwrap_or(Frequency::Frequent),
        key: Some(class.id.clone()),
        synset: class.synset.clone(),
        wnid: class.wnid.clone(),
        text_row: to.text_row(at),
    };
    Vocabulary::new(classes.iter().enumerate().map(category).collect())
}

/// Shows the teacher images of each class of `from`, out of [`Names::images`]. It must know the classes of
/// [`vocabulary`].
///
/// # Errors
/// A folder that cannot be listed; what the teacher says;
/// [`Error::Stopped`] if `progress` (classes that are done) breaks.
pub fn look(
    from: &Names,
    store: &ImageStore,
    teacher: &dyn Teacher,
    how: &Looking,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Looked> {
    let mut looked = Looked::default();
    for (done, folder) in from.folders().enumerate() {
        if progress(done).is_break() {
            return Err(Error::Stopped);
        }
        let seen = of_class(store, &folder, teacher, how, &mut looked)?;
        looked.seen.push(seen);
    }
    Ok(looked)
}

fn of_class(
    store: &ImageStore,
    folder: &str,
    teacher: &dyn Teacher,
    how: &Looking,
    looked: &mut Looked,
) -> Result<Seen> {
    let (names, _) = store.images(&format!("{folder}/"))?;
    let count = names.len().min(how.images);
    let chosen: Vec<String> =
        (0..count).map(|i| format!("{folder}/{}", names[i * names.len() / count])).collect();
    let mut distributions: Vec<Vec<f32>> = Vec::with_capacity(count);
    for names in chosen.chunks(BATCH) {
        let read: Vec<Result<RgbImage>> =
            names.par_iter().map(|name| Ok(resized(&store.image(name)?, how.size))).collect();
        let mut images = Vec::with_capacity(read.len());
        for image in read {
            match image {
                Ok(image) => images.push(image),
                Err(error) => {
                    looked.unread += 1;
                    if looked.why.len() < NAMED {
                        looked.why.push(error.to_string());
                    }
                }
            }
        }
        if !images.is_empty() {
            distributions.extend(ask(teacher, &images, how)?);
        }
    }
    Seen::of(distributions.iter().map(Vec::as_slice)).ok_or_else(|| {
        Error::other(format!("the teacher gives no probabilities for the images of `{folder}`"))
    })
}

fn resized(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let scale = f64::from(size) / f64::from(width.max(height));
    let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    resize(image, side(width), side(height))
}

/// The probabilities of the classes in each image.
///
/// # Shapes
/// A row of C numbers an image.
fn ask(teacher: &dyn Teacher, images: &[RgbImage], how: &Looking) -> Result<Vec<Vec<f32>>> {
    let side = i64::from(how.size);
    let canvas = Tensor::zeros([images.len() as i64, 3, side, side], (Kind::Float, Device::Cpu));
    let mut boxes: Vec<f32> = Vec::with_capacity(5 * images.len());
    for (i, image) in images.iter().enumerate() {
        let (width, height) = image.dimensions();
        let pixels =
            Tensor::from_slice(image.as_raw()).view([i64::from(height), i64::from(width), 3]);
        let pixels = pixels.permute([2, 0, 1]).to_kind(Kind::Float) / 255.0; // [3, H, W]
        let of_image = canvas.select(0, i as i64);
        of_image.narrow(1, 0, i64::from(height)).narrow(2, 0, i64::from(width)).copy_(&pixels);
        boxes.extend([i as f32, 0.0, 0.0, width as f32, height as f32]);
    }
    let boxes = Tensor::from_slice(&boxes).view([-1, 5]).to_device(how.device);
    let map = teacher.encode(&canvas.to_device(how.device))?;
    let labels = teacher.label(&map, &boxes)?;
    let probabilities = labels.logits.softmax(-1, Kind::Float).to_device(Device::Cpu); // [N, C]
    Ok(Vec::<Vec<f32>>::try_from(probabilities)?)
}
