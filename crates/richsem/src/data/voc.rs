//! Pascal VOC's XML to COCO's JSON, one file per image set.
//!
//! hotcoco has such a converter too (`hotcoco::convert::voc_to_coco`), which these numbers are
//! tested against. It reads a folder as one set, so image sets, archives, sizes missing from the
//! XML and images whose name the XML gets wrong need this one.
//!
//! Boxes: VOC counts pixels from 1 and includes both ends (the devkit's area is
//! `(xmax - xmin + 1) * (ymax - ymin + 1)`), so `xmin, ymin, xmax, ymax` become
//! `[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]`.
//!
//! `difficult` objects become `iscrowd: 1`, the nearest COCO has to VOC's rule: neither trained
//! on, nor missed, nor a false alarm when found. One difference remains: COCO compares a detection
//! with a crowd by the share of the *detection* inside, VOC by intersection over union.
//!
//! Boxes that lie beyond their image are written as they are and counted, as [`super::dataset`] keeps
//! and counts them: training clips them, evaluation sees the file's own numbers. Sizes are compared with
//! the images'.

mod report;
mod source;
#[cfg(test)]
mod tests;
mod xml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use serde::Serialize;

use super::{
    image_io::{self, Orientation},
    listing::EXTENSIONS,
};
use crate::{
    boxes::Xywh,
    error::{Error, Result, TEMPORARY, unless_stopped, write_atomically},
};
pub use report::{ConversionReport, Named, SplitReport};
use source::Collected;
use xml::{Annotated, Object};

/// The folder of an archive's images in the output.
const IMAGES: &str = "images";

#[derive(Serialize)]
struct CocoFile<'a> {
    images: Vec<&'a CocoImage>,
    annotations: Vec<&'a CocoAnnotation>,
    categories: Vec<CocoCategory<'a>>,
}

#[derive(Serialize)]
struct CocoImage {
    id: usize,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct CocoAnnotation {
    id: usize,
    image_id: usize,
    category_id: usize,
    bbox: Xywh,
    area: f64,
    iscrowd: u8,
    #[serde(skip)]
    learnable: bool,
}

#[derive(Serialize)]
struct CocoCategory<'a> {
    id: usize,
    name: &'a str,
}

/// Converts a VOC set: a folder or a `.tar`, at any depth of which lie `Annotations/*.xml`,
/// `JPEGImages/` (both with folders in them, or without) and, unless everything is one set,
/// `ImageSets/Main/*.txt` (or `ImageSets/*.txt`).
///
/// Writes `output/<set>.json` for each image set, whatever it is called, and from an archive also
/// `output/images/`. Image, annotation and category ids are the same in every file, so files may be
/// merged. Everything is written under another name first: where there is an error, `output` is as it was.
/// Where it is not empty, it is refused, unless `overwrite` is set: files of the same names are then
/// replaced.
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set; [`Error::Config`] for an `output` that is not empty; if the
/// input is no such set, if an XML file is broken (it is named), if an image set lists what
/// does not exist, or if writing fails.
pub fn convert(
    input: &Path,
    output: &Path,
    overwrite: bool,
    stop: &AtomicBool,
) -> Result<ConversionReport> {
    if !overwrite && output.is_dir() && fs_err::read_dir(output)?.next().is_some() {
        let problem = format!("`{}` exists and is not empty", output.display());
        return Err(Error::config("output", problem).with_hint(
            "choose another folder, or pass --overwrite to replace files of the same names",
        ));
    }
    let of_folder = fs_err::metadata(input)?.is_dir();
    // On the same disk as the output, so that renaming is all that is left to do.
    let absolute = std::path::absolute(output)?;
    let existing = absolute.ancestors().find(|p| p.is_dir()).unwrap_or(&absolute);
    let staging = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(existing)?;
    let collected = if of_folder {
        source::from_folder(input, stop)?
    } else {
        source::from_tar(input, &staging.path().join(IMAGES), stop)?
    };
    if collected.annotations.is_empty() {
        return Err(Error::invalid(input, "Annotations", "no Annotations/*.xml in it")
            .with_hint("a Pascal VOC set has the folders Annotations, JPEGImages and ImageSets"));
    }
    let mut report = ConversionReport {
        image_root: if of_folder { collected.image_root.clone() } else { output.join(IMAGES) },
        passed_over: collected.passed_over.clone(),
        ..ConversionReport::default()
    };
    let splits = splits(input, &collected, &mut report)?;
    let images = Stems::of(collected.images.keys());
    let listed: BTreeSet<&str> = splits.iter().flat_map(|(_, stems)| stems).copied().collect();
    let classes: Vec<&str> = listed
        .iter()
        .flat_map(|stem| &collected.annotations[*stem].objects)
        .map(|object| object.name.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();

    // An empty list of files is told below.
    if classes.is_empty() && !listed.is_empty() {
        let problem =
            format!("no object in any of the {} annotations that are listed", listed.len());
        return Err(Error::invalid(input, "Annotations", problem).with_hint(
            "without a class there is nothing to train on or to evaluate: has the program \
                        that wrote these files left the <object>s out?",
        ));
    }
    report.classes = classes.iter().map(|&class| class.to_owned()).collect();
    report.unlisted = collected.annotations.len() - listed.len();
    let mut of_image: BTreeMap<String, &str> = BTreeMap::new();
    let mut converted: BTreeMap<&str, (CocoImage, Vec<CocoAnnotation>)> = BTreeMap::new();
    let mut annotation_id = 0;
    for (position, &stem) in listed.iter().enumerate() {
        unless_stopped(stop)?;
        let annotated = &collected.annotations[stem];
        let file_name = image_of(input, &collected, &images, stem)?;
        if let Some(other) = of_image.insert(file_name.clone(), stem) {
            let problem = format!("JPEGImages/{file_name} is the image of `{other}`, too");
            return Err(Error::invalid(input, format!("Annotations/{stem}.xml"), problem)
                .with_hint("give each its own image, or take one of them out of the lists"));
        }
        let path = collected.image_root.join(&file_name);
        let (width, height) = frame(&path, stem, annotated, &mut report)?;
        let image = CocoImage { id: position + 1, file_name, width, height };
        let mut annotations = Vec::new();
        for object in &annotated.objects {
            let bbox = Xywh(written(object));
            let [x, y, w, h] = bbox.0;
            if w <= 0.0 || h <= 0.0 {
                report.degenerate.add(stem);
                continue;
            }
            report.from_zero += usize::from(x == -1.0 || y == -1.0);
            let corners = bbox.to_xyxy();
            let clipped = corners.clipped(width, height);
            if !object.difficult {
                match (clipped.is_degenerate(), clipped == corners) {
                    (true, _) => report.outside.add(stem),
                    (false, false) => report.beyond.add(stem),
                    (false, true) => {}
                }
            }
            report.difficult += usize::from(object.difficult);
            annotation_id += 1;
            annotations.push(CocoAnnotation {
                id: annotation_id,
                image_id: image.id,
                category_id: 1 + classes.partition_point(|c| *c < object.name.as_str()),
                bbox,
                area: w * h,
                iscrowd: u8::from(object.difficult),
                learnable: !object.difficult && !clipped.is_degenerate(),
            });
        }
        converted.insert(stem, (image, annotations));
    }
    for (name, stems) in splits {
        if stems.is_empty() {
            report.empty_splits.push(name.to_owned());
            continue;
        }
        let records: Vec<_> = stems.iter().map(|stem| &converted[stem]).collect();
        let file = CocoFile {
            images: records.iter().map(|(image, _)| image).collect(),
            annotations: records.iter().flat_map(|(_, annotations)| annotations).collect(),
            categories: (1..).zip(&classes).map(|(id, name)| CocoCategory { id, name }).collect(),
        };
        let file_name = format!("{name}.json");
        write_atomically(&staging.path().join(&file_name), |out| {
            serde_json::to_writer(out, &file).map_err(|e| Error::Io(e.into()))
        })?;
        report.splits.push(SplitReport {
            name: name.to_owned(),
            path: output.join(file_name),
            images: file.images.len(),
            boxes: file.annotations.len(),
            learnable: file.annotations.iter().filter(|a| a.learnable).count(),
        });
    }
    if report.splits.is_empty() {
        let sets = report.empty_splits.join(", ");
        return Err(Error::invalid(input, "ImageSets", format!("no list names an image: {sets}"))
            .with_hint("take the empty lists away, and all annotated images become one set"));
    }
    move_into(staging.path(), output)?;
    Ok(report)
}

/// Moves all files of a folder, and of folders in it, to the same names in another.
fn move_into(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.exists() {
            move_into(&entry.path(), &target)?;
        } else {
            fs_err::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

/// An image set: its name, and the images it lists, every one of which is annotated.
type Split<'a> = (&'a str, Vec<&'a str>);

/// A line of an image set that names an image.
struct Line<'a> {
    /// From 1.
    number: usize,
    text: &'a str,
    /// Up to the first space.
    first: &'a str,
    /// With the flag behind it that the devkit's lists of a class have.
    flagged: bool,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(i, line)| {
        let text = line.trim();
        let first = text.split_whitespace().next()?;
        let last = text.rsplit_once(char::is_whitespace).map(|(_, last)| last);
        let flagged = last.is_some_and(|flag| ["-1", "0", "1"].contains(&flag));
        Some(Line { number: i + 1, text, first, flagged })
    })
}

/// Whether a set is the devkit's list of a class, as `aeroplane_train`: images of another set, each with
/// a flag of whether it shows the class.
fn is_of_class(name: &str, text: &str, collected: &Collected) -> bool {
    let within = |whole: &str| {
        let whole: BTreeSet<&str> = lines(whole).map(|line| line.first).collect();
        lines(text).all(|line| whole.contains(line.first))
    };
    let mut sets = collected
        .splits
        .iter()
        .filter(|(set, _)| name.strip_suffix(set.as_str()).is_some_and(|rest| rest.ends_with('_')));
    let mut lines = lines(text).peekable();
    lines.peek().is_some() && lines.all(|line| line.flagged) && sets.any(|(_, whole)| within(whole))
}

/// Each image set.
fn splits<'a>(
    input: &Path,
    collected: &'a Collected,
    report: &mut ConversionReport,
) -> Result<Vec<Split<'a>>> {
    if collected.splits.is_empty() {
        let all = collected.annotations.keys().map(String::as_str).collect();
        return Ok(vec![("all", all)]);
    }
    let stems = Stems::of(collected.annotations.keys());
    let mut splits = Vec::new();
    for (split, text) in &collected.splits {
        if is_of_class(split, text, collected) {
            report.passed_over.count("lists of a class".to_owned(), &format!("{split}.txt"));
            continue;
        }
        let mut listed = Vec::new();
        let mut taken = BTreeSet::new();
        for Line { number, text, first, .. } in lines(text) {
            let at = || format!("image set {split}, line {number}");
            let wrong = |problem| Error::invalid(input, at(), problem);
            // `name`, or `name 1`; a name may hold spaces.
            let (name, found) = match stems.find(text) {
                Found::None => (first, stems.find(first)),
                found => (text, found),
            };
            let stem = match found {
                Found::One(stem) => stem,
                Found::None => {
                    return Err(wrong(format!("no Annotations/{name}.xml"))
                        .with_hint("each line names an image, without extension"));
                }
                Found::Several(one, two) => {
                    return Err(wrong(format!("`{name}` may be `{one}` or `{two}`"))
                        .with_hint("name it with its folder below Annotations"));
                }
            };
            match taken.insert(stem) {
                true => listed.push(stem),
                false => report.listed_twice.add(&format!("{split} line {number}")),
            }
        }
        splits.push((split.as_str(), listed));
    }
    // As one reads them; others behind, by name.
    let rank = |name: &str| USUAL.iter().position(|usual| *usual == name).unwrap_or(USUAL.len());
    splits.sort_by_key(|(name, _)| rank(name));
    Ok(splits)
}

/// The usual image sets, in the order in which they are shown.
const USUAL: [&str; 4] = ["train", "val", "trainval", "test"];

/// Names with folders before them, to be found without these too.
struct Stems<'a> {
    whole: BTreeSet<&'a str>,
    by_last: BTreeMap<&'a str, Vec<&'a str>>,
}

enum Found<'a> {
    None,
    One(&'a str),
    Several(&'a str, &'a str),
}

impl<'a> Stems<'a> {
    fn of(names: impl Iterator<Item = &'a String>) -> Self {
        let mut stems = Self { whole: BTreeSet::new(), by_last: BTreeMap::new() };
        for name in names {
            let last = name.rsplit('/').next().unwrap_or(name);
            stems.whole.insert(name);
            stems.by_last.entry(last).or_default().push(name);
        }
        stems
    }

    /// By the whole name; or else by its last part, where that is enough.
    fn find(&self, name: &str) -> Found<'a> {
        if let Some(&whole) = self.whole.get(name) {
            return Found::One(whole);
        }
        match self.by_last.get(name).map(Vec::as_slice) {
            None | Some([]) => Found::None,
            Some(&[one]) => Found::One(one),
            Some(&[one, two, ..]) => Found::Several(one, two),
        }
    }
}

/// The image that belongs to an XML file: of the same name, with its folder or without, or else the one
/// that its text names.
fn image_of(input: &Path, collected: &Collected, images: &Stems<'_>, stem: &str) -> Result<String> {
    let wrong = |problem: String| {
        Error::invalid(input, format!("Annotations/{stem}.xml"), problem)
            .with_hint("add the image, or take the name out of the lists in ImageSets/Main")
    };
    let last = stem.rsplit('/').next().unwrap_or(stem);
    // Folders of one kind alone; of two kinds they are the same ones.
    let fits = |image: &str| !(stem.contains('/') && image.contains('/'));
    let named = || {
        let name = collected.annotations[stem].file_name.as_deref()?;
        let (other, _) = name.rsplit_once('.')?;
        match images.find(other) {
            Found::One(found) if fits(found) && collected.images[found].ends_with(name) => {
                Some(found)
            }
            _ => None,
        }
    };
    let found = match (images.find(stem), images.find(last)) {
        (Found::None, Found::One(one)) if !fits(one) => Found::None,
        (Found::None, found) => found,
        (found, _) => found,
    };
    let found = match (found, named()) {
        (Found::One(found), _) => found,
        (_, Some(named)) => named,
        (Found::Several(one, two), None) => {
            return Err(wrong(format!("its image may be JPEGImages/{one} or JPEGImages/{two}")));
        }
        (Found::None, None) => {
            let kinds = EXTENSIONS.join(", .");
            return Err(wrong(format!(
                "its image is missing: no JPEGImages/{stem} with an image's extension (.{kinds})"
            )));
        }
    };
    Ok(collected.images[found].clone())
}

/// An object's box as it is written: `[x, y, width, height]`, from 0.
fn written(object: &Object) -> [f64; 4] {
    let [x0, y0, x1, y1] = object.corners;
    [x0 - 1.0, y0 - 1.0, x1 - x0 + 1.0, y1 - y0 + 1.0]
}

/// Width and height of the frame that the boxes are in; what of it the XML and the image do not agree
/// on is counted.
///
/// Programs exchange width and height in the XML; so does whoever turns the image later. Where the
/// boxes lie in the image as it is, and not in a turned one, it was the program; where in both, nothing
/// tells. Otherwise the XML's size is kept, so that the image is refused when it is read, and not trained
/// on with boxes that are elsewhere. So it is where
/// the XML has the size of the pixels as stored, and the boxes nearly lie in it.
fn frame(
    path: &Path,
    stem: &str,
    annotated: &Annotated,
    report: &mut ConversionReport,
) -> Result<(u32, u32)> {
    let said = annotated.size;
    if said.0 == 0 || said.1 == 0 {
        report.sizes_from_images += 1;
        return header_size(path);
    }
    let size =
        |orientation| image_io::size(path, orientation).map(|[height, width]| (width, height));
    let Ok(own) = size(Orientation::Exif) else {
        report.unread_images.add(stem);
        return Ok(said);
    };
    if own == said {
        return Ok(said);
    }
    // Boxes that end a little beyond are usual.
    let fits = |(width, height): (u32, u32), slack: f64| {
        let within = |object: &Object| {
            let [x, y, w, h] = written(object);
            let most = |side: u32| f64::from(side) + (f64::from(side) * slack).ceil();
            x + w <= most(width) && y + h <= most(height)
        };
        annotated.objects.iter().all(within)
    };
    let stored = size(Orientation::Stored).is_ok_and(|stored| stored == said);
    if own == (said.1, said.0) && fits(own, 0.0) && !(stored && fits(said, 0.05)) {
        let unclear = fits(said, 0.0);
        let swapped = if unclear { &mut report.unclear_sizes } else { &mut report.swapped_sizes };
        swapped.add(stem);
        return Ok(own);
    }
    let kept = if stored { &mut report.stored_frames } else { &mut report.other_sizes };
    kept.add(stem);
    Ok(said)
}

/// Width and height in the image's own header.
fn header_size(path: &Path) -> Result<(u32, u32)> {
    let [height, width] = image_io::size(path, Orientation::Exif).map_err(|e| {
        let problem = format!("the XML gives none, and the image's is unreadable: {e}");
        Error::invalid(path, "size", problem)
            .with_hint("write width and height into the XML, or replace the image")
    })?;
    Ok((width, height))
}
