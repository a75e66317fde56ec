//! Reads every image once, in parallel, and keeps a few hundred bytes of each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{Part, look::Look};
use crate::{
    data::{
        image_io::{self, Decoded},
        image_store::ImageStore,
    },
    error::{Result, unless_stopped},
};

/// Who watches while images are read.
pub struct Watch<'a> {
    /// Once it is set, the work ends with [`crate::Error::Stopped`].
    pub stop: &'a AtomicBool,
    /// Is told how many images of how many are read, from any thread.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// What is kept of an image.
#[derive(Debug)]
pub(super) enum Image {
    /// Its part has no images to read.
    Unread,
    /// There is no such file.
    Missing,
    /// The file cannot be read as an image: why.
    Broken(String),
    /// It was read.
    Read(Box<Seen>),
}

/// An image that was read.
#[derive(Debug)]
pub(super) struct Seen {
    /// The first half of the SHA-256 of its file.
    pub(super) bytes: [u8; 16],
    /// What it looks like.
    pub(super) look: Look,
    /// `[height, width]` the way up that its store reads it.
    pub(super) size: [u32; 2],
    /// Its EXIF orientation, 1 to 8.
    pub(super) exif: u8,
}

impl Image {
    pub(super) fn seen(&self) -> Option<&Seen> {
        match self {
            Self::Read(seen) => Some(seen.as_ref()),
            _ => None,
        }
    }
}

/// The images of all parts, each in the order of its files.
pub(super) fn read(parts: &[Part<'_>], watch: &Watch<'_>) -> Result<Vec<Vec<Image>>> {
    let total = parts.iter().filter(|part| part.store.is_some()).map(|part| part.files.len()).sum();
    let done = AtomicUsize::new(0);
    let of_part = |part: &Part<'_>| {
        let Some(store) = part.store else {
            return Ok(part.files.iter().map(|_| Image::Unread).collect());
        };
        part.files
            .par_iter()
            .map(|name| {
                unless_stopped(watch.stop)?;
                let image = read_image(store, name);
                (watch.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                Ok(image)
            })
            .collect()
    };
    parts.iter().map(of_part).collect()
}

fn read_image(store: &ImageStore, name: &str) -> Image {
    if !store.contains(name) {
        return Image::Missing;
    }
    let read = store.read(name).and_then(|bytes| {
        let path = store.display_path(name);
        Ok((image_io::decode_bytes(&bytes, &path, store.orientation())?, bytes))
    });
    match read {
        Ok((Decoded { image, exif }, bytes)) => {
            let mut half = [0; 16];
            half.copy_from_slice(&Sha256::digest(&bytes)[..16]);
            let size = [image.height(), image.width()];
            Image::Read(Box::new(Seen { bytes: half, look: Look::of(&image), size, exif }))
        }
        Err(error) => Image::Broken(error.to_string()),
    }
}
