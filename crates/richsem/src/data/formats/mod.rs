//! Formats of annotations: which one a file or folder has, and how it is read.
//!
//! A format is one file (or folder) here, and one line in `FORMATS`. It says by what it is recognised, which
//! splits it holds, and reads one of them into `Records`. What all have in common comes after: sizes that
//! only the images know (`sizes`), counts and checks ([`super::dataset`]).

pub(in crate::data) mod coco;
mod copies;
mod cvat;
mod darknet;
mod hf;
mod hints;
#[cfg(test)]
mod hints_tests;
mod images_at;
mod label_studio;
#[cfg(test)]
mod layout_tests;
mod members;
mod mistakes;
#[cfg(test)]
mod mistakes_tests;
mod nested;
mod openimages;
mod place;
mod request;
mod sizes;
#[cfg(test)]
mod tests;
mod visual_genome;
mod voc;
mod yolo;

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

pub use super::records::Unit;
use crate::{
    argument::Argument,
    data::{
        image_io::Orientation,
        reading::Reading,
        records::{ClassRecord, Records},
    },
    error::{Error, Result},
};
pub(in crate::data) use coco::{Rest, Written, below_root};
pub use hf::BoxForm;
pub(in crate::data) use hf::part_of_file;
pub(in crate::data) use place::Place;
pub(in crate::data) use request::Request;
#[cfg(test)]
pub(in crate::data) use voc::archive_that_leads_out;
#[cfg(test)]
pub(in crate::data) use yolo::tests as yolo_tests;

/// A format of annotations.
pub(in crate::data) struct Format {
    /// What settings and flags call it.
    pub(in crate::data) name: &'static str,
    /// What messages call it.
    pub(in crate::data) title: &'static str,
    /// What shows that a place has this format, in words (`data.yaml has names`); none if it has not. It
    /// looks at names and at the first bytes of files, and does not read them whole.
    pub(in crate::data) recognise: fn(&Place) -> Option<String>,
    /// The parts of the set that can be read, as `train` and `val`; none if it is all one.
    pub(in crate::data) splits: fn(&Place) -> Result<Vec<String>>,
    /// Reads one of them.
    pub(in crate::data) read: fn(&Request<'_>) -> Result<Records>,
}

/// All formats, in the order in which messages name them.
const FORMATS: &[&Format] = &[
    &coco::FORMAT,
    &cvat::FORMAT,
    &darknet::FORMAT,
    &hf::IMAGEFOLDER,
    &label_studio::FORMAT,
    &openimages::FORMAT,
    &hf::PARQUET,
    &visual_genome::FORMAT,
    &voc::FORMAT,
    &yolo::FORMAT,
];

/// How to open a set of annotations. The default leaves everything to what is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Name of the format, where two fit.
    pub format: Option<String>,
    /// Which part of a set, as `train`. It need not be said of a set in one piece.
    pub split: Option<String>,
    /// Which part is meant where a set has several and `split` names none, as `train` for training.
    pub usual_split: Option<&'static str>,
    /// The folder or archive of the images. Default: where the format has them.
    pub images: Option<PathBuf>,
    /// A list of the classes to read, where the format has names in the words of many people: a line each,
    /// the other names of it after commas (Visual Genome). Default: what lies beside, or all frequent names.
    pub vocabulary: Option<PathBuf>,
    /// What the numbers of the boxes are, where the format does not say it (Hugging Face). Default: what is the
    /// only possibility by the boxes themselves.
    pub boxes: Option<BoxForm>,
    /// Which way up the images are, for boxes in pixels.
    pub orientation: Orientation,
    /// Whether there must be annotations. Default: true.
    pub annotated: bool,
    /// Whether boxes must be in pixels. Formats that have shares of the image then need the images. Default:
    /// true.
    pub pixels: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            format: None,
            split: None,
            usual_split: None,
            images: None,
            vocabulary: None,
            boxes: None,
            orientation: Orientation::default(),
            annotated: true,
            pixels: true,
        }
    }
}

/// What was found at a path.
pub(in crate::data) struct Opened {
    pub(in crate::data) format: &'static Format,
    pub(in crate::data) split: String,
    pub(in crate::data) records: Records,
}

/// Recognises the format of a file or folder, and reads it. `progress` is told how far it is, and says whether
/// to go on.
///
/// # Errors
/// [`Error::Stopped`] if `progress` says so; a path that does not exist or has no known format, or several; a split that it has not; a vocabulary for a
/// format that has its own classes; what the reader of the format says.
pub(in crate::data) fn open(
    path: &Path,
    opening: &Opening,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<Opened> {
    open_set(path, opening, progress).map_err(mistakes::explained)
}

fn open_set(
    path: &Path,
    opening: &Opening,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<Opened> {
    let (progress, stopped) = (RefCell::new(progress), Cell::new(false));
    let watch = |at: Reading| {
        let mut progress = progress.borrow_mut();
        stopped.set(stopped.get() || progress(at).is_break());
        if stopped.get() { Err(Error::Stopped) } else { Ok(()) }
    };
    let place = nested::place_of(path, opening.format.as_deref())?;
    let format = choose_format(&place, opening.format.as_deref())?;
    refuse_unused(format, opening)?;
    let split = choose_split(&place, format, opening)?;
    let request = Request {
        path: place.path(),
        split: &split,
        images: opening.images.as_deref(),
        vocabulary: opening.vocabulary.as_deref(),
        boxes: opening.boxes,
        orientation: opening.orientation,
        annotated: opening.annotated,
        watch: &watch,
    };
    let read = (format.read)(&request).and_then(|mut records| {
        sizes::complete(place.path(), &mut records, opening, &watch)?;
        Ok(records)
    });
    // Where a stop looked like another failure, as of a place that may have the images.
    let mut records = if stopped.get() { Err(Error::Stopped) } else { read }?;
    refuse_empty(place.path(), &records)?;
    records.notes.extend(copies::note(&records.images));
    if place.path() != path {
        records.notes.insert(0, format!("the set is that in {}", place.path().display()));
    }
    if place.is_tar() {
        records.notes.extend(members::note_replaced(path)?);
    }
    Ok(Opened { format, split, records })
}

/// What no format may have: nothing at all, and classes without names, which no other file could say.
fn refuse_empty(path: &Path, records: &Records) -> Result<()> {
    if records.images.is_empty() {
        return Err(Error::invalid(path, "images", "the set has none").with_hint(format!(
            "give one that has images, or name another part with {}",
            Argument::Split
        )));
    }
    let nameless = |class: &&ClassRecord| class.name.trim().is_empty();
    match records.classes.iter().find(nameless) {
        Some(class) => {
            let problem = format!(
                "expected a name of class {}, got `{}`",
                class.id,
                class.name.escape_debug()
            );
            Err(Error::invalid(path, "classes", problem)
                .with_hint("name it where its boxes say their class, or take these boxes out"))
        }
        None => Ok(()),
    }
}

/// What other formats have a use for.
fn refuse_unused(format: &Format, opening: &Opening) -> Result<()> {
    let refuse = |argument, problem: &str| {
        let problem = format!("{} {problem}", format.title);
        Err(Error::argument(argument, problem).with_hint("leave it out"))
    };
    if opening.vocabulary.is_some() && format.name != visual_genome::FORMAT.name {
        return refuse(Argument::Vocabulary, "has classes of its own: it takes no list of them");
    }
    let leaves_open = [hf::PARQUET.name, hf::IMAGEFOLDER.name].contains(&format.name);
    if opening.boxes.is_some() && !leaves_open {
        return refuse(Argument::Boxes, "says what the numbers of its boxes are");
    }
    Ok(())
}

/// The name of the format that a path has, if it is one of the known ones.
///
/// # Errors
/// A path that cannot be read; several formats that fit.
pub(crate) fn format_of(path: &Path) -> Result<Option<&'static str>> {
    let place = nested::place_of(path, None)?;
    match fitting(&place).as_slice() {
        [] => Ok(None),
        [(format, _)] => Ok(Some(format.name)),
        _ => choose_format(&place, None).map(|format| Some(format.name)),
    }
}

/// The parts of a set that can be opened one by one; none if it is all one.
///
/// # Errors
/// A path that does not exist or has no known format, or several; what the format says.
pub(in crate::data) fn splits(path: &Path, opening: &Opening) -> Result<Vec<String>> {
    let place = nested::place_of(path, opening.format.as_deref())?;
    let format = choose_format(&place, opening.format.as_deref());
    format.and_then(|format| (format.splits)(&place)).map_err(mistakes::explained)
}

/// The format with that name, or the only one that fits.
fn choose_format(place: &Place, wanted: Option<&str>) -> Result<&'static Format> {
    if let Some(wanted) = wanted {
        let format = FORMATS.iter().find(|format| format.name.eq_ignore_ascii_case(wanted));
        return format.copied().ok_or_else(|| {
            let problem = format!("there is no format `{wanted}`");
            Error::argument(Argument::Format, problem).with_hint(format!("formats: {}", names()))
        });
    }
    match fitting(place).as_slice() {
        [(format, _)] => Ok(format),
        // JSON that is none: the reader of the most common format says best what is missing.
        [] if coco::begins_as_json(place) => Ok(&coco::FORMAT),
        [] => {
            if let Some(mistake) = mistakes::of(place) {
                return Err(mistake);
            }
            let all = || {
                let known = names();
                format!(
                    "known formats: {known}; if it is one of them, name it with {}",
                    Argument::Format
                )
            };
            let hint = hints::of(place).unwrap_or_else(all);
            Err(Error::invalid(place.path(), "format", place.describe()).with_hint(hint))
        }
        several => {
            let each: Vec<String> = several
                .iter()
                .map(|(format, evidence)| format!("`{}` ({evidence})", format.name))
                .collect();
            let problem = format!("more than one format fits: {}", each.join(", "));
            Err(Error::invalid(place.path(), "format", problem)
                .with_hint(format!("say which one with {}", Argument::Format)))
        }
    }
}

/// The formats that a place has, each with what shows it.
fn fitting(place: &Place) -> Vec<(&'static Format, String)> {
    FORMATS.iter().filter_map(|format| Some((*format, (format.recognise)(place)?))).collect()
}

fn names() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    names.join(", ")
}

/// Names that mean the same part of a set.
const SYNONYMS: [&[&str]; 3] =
    [&["train", "training"], &["val", "valid", "validation"], &["test", "testing"]];

/// The split that is meant.
fn choose_split(place: &Place, format: &Format, opening: &Opening) -> Result<String> {
    let splits = (format.splits)(place)?;
    if splits.is_empty() {
        return Ok(String::new());
    }
    let listed = splits.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ");
    let refuse = |problem: String| {
        Error::invalid(place.path(), "split", problem)
            .with_hint(format!("say which one with {}", Argument::Split))
    };
    if let Some(exact) = opening.split.as_ref().filter(|&wanted| splits.contains(wanted)) {
        return Ok(exact.clone());
    }
    let wanted = opening.split.as_deref().or(opening.usual_split);
    let fits = |split: &&String| wanted.is_none_or(|wanted| same_split(split, wanted));
    let fitting: Vec<&String> = splits.iter().filter(fits).collect();
    match (fitting.as_slice(), wanted) {
        ([only], _) => Ok((*only).clone()),
        // `labels.json` is no split's name: it is all of the set.
        ([], Some(_)) if opening.split.is_none() && matches!(&*splits, [s] if !is_usual(s)) => {
            Ok(splits[0].clone())
        }
        ([], Some(wanted)) => {
            let is_yolo = format.name == yolo::FORMAT.name;
            let absent = is_yolo.then(|| yolo::absent(place, wanted)).flatten();
            let none = || refuse(format!("the set has no part `{wanted}`; it has {listed}"));
            Err(absent.unwrap_or_else(none))
        }
        _ => Err(refuse(format!("the set has several parts: {listed}"))),
    }
}

/// The words of a split's name, without a year; `valid` and `validation` are `val`.
pub(in crate::data) fn words(name: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let plain = word.trim_end_matches(|c: char| c.is_ascii_digit());
            if word.len() == plain.len() + "2017".len() { plain } else { word }
        })
        .filter(|word| !word.is_empty())
        .map(|word| {
            let group = SYNONYMS.iter().find(|group| group.contains(&word));
            group.map_or(word, |group| group[0]).to_owned()
        })
        .collect()
}

/// Whether the name of a part has a word that a name means: `valid`, `val2017`, `lvis_v1_val` for `val`.
pub fn same_split(split: &str, wanted: &str) -> bool {
    let split = words(split);
    words(wanted).iter().all(|word| split.contains(word))
}

/// Whether a name is one of a training, validation or test split.
pub(crate) fn is_usual(split: &str) -> bool {
    SYNONYMS.iter().any(|group| same_split(split, group[0]))
}
