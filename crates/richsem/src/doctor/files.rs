//! Images that are not there, cannot be read, are of another size than the file says, or are of no
//! part.

use std::collections::HashSet;

use super::{
    Examined, Options, Part,
    finding::{Example, Finding, Level, Shown, counted},
    images::{Image, Seen},
};
use crate::data::image_io::Orientation;

/// What is wrong with the files of all parts.
pub(super) fn check(examined: &Examined<'_>, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, (part, images)) in examined.parts.iter().zip(&examined.images).enumerate() {
        if part.store.is_none() {
            continue;
        }
        let named = Named { part, at, most: options.examples };
        findings.extend(missing(&named, images));
        findings.extend(broken(&named, images));
        findings.extend(sizes(&named, images));
    }
    findings.extend(unlisted(examined, options));
    findings
}

/// A part, to name some of its images.
struct Named<'a> {
    part: &'a Part<'a>,
    at: usize,
    most: usize,
}

impl Named<'_> {
    fn example(&self, image: usize, text: String, visible: bool) -> Example {
        let file = self.part.files[image].clone().into_owned();
        let shown = Shown { part: self.at, file, boxes: Vec::new() };
        Example { text, shown: if visible { vec![shown] } else { Vec::new() } }
    }
}

fn missing(named: &Named<'_>, images: &[Image]) -> Option<Finding> {
    let found: Vec<usize> =
        (0..images.len()).filter(|&i| matches!(images[i], Image::Missing)).collect();
    let text = format!(
        "{} of {} not there",
        counted(found.len(), "image file is", "image files are"),
        images.len()
    );
    let names = found.iter().take(named.most);
    let examples = names.map(|&i| named.example(i, named.part.files[i].to_string(), false));
    (!found.is_empty()).then(|| {
        Finding::new("missing_files", Level::Problem, named.part.name(), found.len(), text)
            .advise("take these images out of the annotations, or add the files")
            .with(examples.collect())
    })
}

fn broken(named: &Named<'_>, images: &[Image]) -> Option<Finding> {
    let found: Vec<(usize, &String)> = images
        .iter()
        .enumerate()
        .filter_map(|(i, image)| match image {
            Image::Broken(why) => Some((i, why)),
            _ => None,
        })
        .collect();
    let text = format!("{} cannot be read", counted(found.len(), "image", "images"));
    let first = found.iter().take(named.most);
    let examples = first.map(|&(i, why)| {
        let why = why.lines().next().unwrap_or_default();
        named.example(i, format!("{}: {why}", named.part.files[i]), false)
    });
    (!found.is_empty()).then(|| {
        Finding::new("broken_images", Level::Problem, named.part.name(), found.len(), text)
            .advise("fetch these files again, or take the images out of the annotations")
            .with(examples.collect())
    })
}

/// Sizes in the file that are not those of the images.
fn sizes(named: &Named<'_>, images: &[Image]) -> Vec<Finding> {
    let Some(dataset) = named.part.dataset else { return Vec::new() };
    let (mut resized, mut turned) = (Vec::new(), Vec::new());
    for (i, (record, image)) in dataset.images().iter().zip(images).enumerate() {
        let (Some(size), Some(seen)) = (record.size, image.seen()) else { continue };
        if size == seen.size {
            continue;
        }
        let by_exif = seen.exif >= 5 && [size[1], size[0]] == seen.size;
        if by_exif { &mut turned } else { &mut resized }.push((i, size, seen));
    }
    let part = named.part.name();
    let example = |&(i, [h, w], seen): &(usize, [u32; 2], &Seen)| {
        let [height, width] = seen.size;
        let file = &named.part.files[i];
        let text = format!("{file}: {w} x {h} in the annotations, {width} x {height} in the file");
        named.example(i, text, true)
    };
    let mut findings = Vec::new();
    if !resized.is_empty() {
        let text = format!(
            "{} another size than the annotations say: the boxes do not fit",
            counted(resized.len(), "image has", "images have")
        );
        findings.push(
            Finding::new("other_sizes", Level::Problem, part, resized.len(), text)
                .advise("use the images that were annotated, or scale the boxes")
                .with(resized.iter().take(named.most).map(example).collect()),
        );
    }
    if !turned.is_empty() {
        let store = named.part.store.map_or_else(Orientation::default, |s| s.orientation());
        let (frame, value) = match store {
            Orientation::Exif => ("of the pixels as they are stored", "stored"),
            Orientation::Stored => ("that viewers show", "exif"),
        };
        let text = format!(
            "{} an EXIF orientation, and the annotations have the size {frame}",
            counted(turned.len(), "image has", "images have")
        );
        findings.push(
            Finding::new("sizes_before_exif", Level::Problem, part, turned.len(), text)
                .advise(format!("read this set with orientation = \"{value}\""))
                .with(turned.iter().take(named.most).map(example).collect()),
        );
    }
    findings
}

/// Images beside the annotated ones that no part names.
fn unlisted(examined: &Examined<'_>, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut done = HashSet::new();
    for part in examined.parts.iter().filter(|part| part.dataset.is_some()) {
        let Some(store) = part.store.filter(|store| done.insert(store.path())) else { continue };
        let same = |other: &&Part<'_>| other.store.is_some_and(|s| s.path() == store.path());
        let of_store = examined.parts.iter().filter(same);
        let known: HashSet<&str> =
            of_store.flat_map(|part| part.files.iter().map(AsRef::as_ref)).collect();
        // What cannot be listed was told when its images were read.
        let Ok((all, _)) = store.images("") else { continue };
        let unlisted: Vec<&String> =
            all.iter().filter(|name| !known.contains(name.as_str())).collect();
        if unlisted.is_empty() {
            continue;
        }
        let text = format!(
            "{} in {} of no part that was looked at",
            counted(unlisted.len(), "image", "images"),
            store.path().display()
        );
        let example = |name: &&String| Example { text: (*name).clone(), shown: Vec::new() };
        let examples = unlisted.iter().take(options.examples).map(example).collect();
        findings.push(
            Finding::new("unlisted_images", Level::Note, part.name(), unlisted.len(), text)
                .with(examples),
        );
    }
    findings
}
