//! A set of any of the [`super::formats`], written as COCO, LVIS or YOLO.
//!
//! All parts of a set go into one folder, with the same classes and ids in each. What the new format has no
//! place for is counted ([`NotCarried`]). Everything is written under another name first: if there is an
//! error, the folder is as it was.

mod classes;
mod frames;
mod images;
mod inputs;
mod json;
mod not_carried;
mod report;
mod rests;
mod sizes;
#[cfg(test)]
mod tests;
mod yolo;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use crate::{
    argument::Argument,
    data::{
        Reading,
        dataset::Dataset,
        formats::{self, Opening, same_split},
        reading::until,
    },
    error::{Error, Result, TEMPORARY, unless_stopped},
    plural,
};
use images::Placing;
pub use images::PutImages;
pub use not_carried::{Lost, NotCarried};
pub use report::{ConversionReport, NEVER_READ, SplitReport};
use rests::Rests;
use sizes::Completed;

/// The format that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// COCO's JSON, a file for each part.
    Coco,
    /// LVIS's JSON, a file for each part: COCO's, with the classes that are verified absent or not
    /// exhaustively annotated in each image, and with counts and frequency groups of the classes.
    Lvis,
    /// Ultralytics' YOLO: `data.yaml`, `images/` and `labels/`, a text file for each image.
    Yolo,
}

/// How to convert a set. `Conversion::to(Target::Coco)` leaves all else to what is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The format that is written.
    pub target: Target,
    /// How to open the set: its format, where its images are. A `split` here means that part alone; without,
    /// all parts are written.
    pub opening: Opening,
    /// What becomes of the images. Default: those of a folder stay where they are (for YOLO, which wants
    /// them beside its labels, links lead to them), those of an archive are copied out of it.
    pub images: Option<PutImages>,
    /// Whether files of the same names are replaced, if the folder is not empty. Default: no.
    pub overwrite: bool,
}

impl Conversion {
    /// With the defaults.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Self { target, opening: Opening::default(), images: None, overwrite: false }
    }
}

/// Converts the set at `input` to files in the folder `output`.
///
/// COCO and LVIS become `output/<part>.json`, and `output/images/` if images are put there (in a folder for
/// each part, where the parts have theirs in different places). Category ids stay as they are, if all parts
/// agree about them; otherwise classes are numbered anew, by name, and the report says so. All parts are in
/// memory at once. `progress` is as in [`Dataset::open_with`].
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set; an `output` that is not empty, unless `overwrite` is set, in which a file that
/// is read would be replaced, or that is in a folder which is searched for the images; what
/// [`Dataset::open_as`] says; images that should be put beside and are not known; parts that cannot have
/// the same classes; if writing fails.
pub fn convert(
    input: &Path,
    output: &Path,
    how: &Conversion,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<ConversionReport> {
    refuse_full(output, how.overwrite)?;
    if how.target == Target::Yolo {
        yolo::refuse_labels(output)?;
    }
    let mut sets = open_all(input, &how.opening, stop, progress)?;
    let mut report = ConversionReport::default();
    report.notes.extend(classes::unify(input, &mut sets)?);
    write_parts(input, sets, output, how, report, stop)
}

/// Writes parts that have the same classes, as [`convert`] does.
pub(in crate::data) fn write_parts(
    input: &Path,
    mut sets: Vec<Part>,
    output: &Path,
    how: &Conversion,
    mut report: ConversionReport,
    stop: &AtomicBool,
) -> Result<ConversionReport> {
    if how.target == Target::Yolo {
        yolo::name_parts(input, &mut sets, &mut report)?;
    }
    let placing = Placing::choose(&sets, how)?;
    inputs::refuse_searched(&sets, &placing, output, how)?;
    report.notes.extend(placing.notes());
    let Completed { unknown, guessed } =
        sizes::complete(&mut sets, &placing, how, &mut report, stop)?;
    if how.target == Target::Yolo {
        unknown.refuse(&sets)?;
    }
    frames::fit(&mut sets, &placing, how, guessed, &mut report, stop)?;
    // On the same disk as the output, so that renaming is all that is left to do.
    let absolute = std::path::absolute(output)?;
    let existing = absolute.ancestors().find(|p| p.is_dir()).unwrap_or(&absolute);
    let staging = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(existing)?;
    unless_stopped(stop)?;
    let carried = (how.target != Target::Yolo).then_some(existing);
    let rests = Rests::read(&sets, carried, stop)?;
    report.fields_counted = rests.are_all();
    let images = match how.target {
        Target::Yolo => yolo::write(&sets, staging.path(), &mut report)?,
        Target::Coco | Target::Lvis => {
            let images = placing.rename(&mut sets)?;
            write_json(&sets, &rests, how.target, staging.path(), &mut report, stop)?;
            unknown.tell(&sets, &mut report.not_carried);
            images
        }
    };
    rests.tell(&sets, how.target, &mut report.not_carried);
    placing.put(&images, staging.path(), &mut report, stop)?;
    inputs::refuse_read(input, &sets, (&placing, &images), (staging.path(), output))?;
    report.tell(&sets, &placing, how.target, output);
    unless_stopped(stop)?;
    move_into(staging.path(), output)?;
    Ok(report)
}

/// Where the file of a part is, below the output.
fn file_of(target: Target, part: &str) -> String {
    match target {
        Target::Coco | Target::Lvis => format!("{part}.json"),
        Target::Yolo => format!("labels/{part}"),
    }
}

fn write_json(
    sets: &[Part],
    rests: &Rests,
    target: Target,
    folder: &Path,
    report: &mut ConversionReport,
    stop: &AtomicBool,
) -> Result<()> {
    let counting = counting(sets, target, report);
    for (at, (name, set)) in sets.iter().enumerate() {
        let kind = match target {
            Target::Lvis => json::Kind::Lvis(&sets[counting.unwrap_or(at)].1),
            Target::Coco | Target::Yolo => json::Kind::Coco,
        };
        let more =
            json::More { of: rests.of(at), classes: rests.of_classes(at, set.class_records()) };
        json::write(set, kind, &more, &folder.join(file_of(target, name)), stop)?;
        json::tell_lost(name, set, kind, &mut report.not_carried);
    }
    Ok(())
}

/// A part of a set, with the name that its files get.
pub(in crate::data) type Part = (String, Dataset);

/// Reads all parts that are meant.
fn open_all(
    input: &Path,
    opening: &Opening,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<Vec<Part>> {
    let splits = match &opening.split {
        Some(_) => Vec::new(),
        None => formats::splits(input, opening)?,
    };
    let wanted: Vec<Option<String>> = if splits.is_empty() {
        vec![opening.split.clone()]
    } else {
        splits.into_iter().map(Some).collect()
    };
    let mut sets: Vec<Part> = Vec::with_capacity(wanted.len());
    for split in wanted {
        unless_stopped(stop)?;
        let opening = Opening { split, ..opening.clone() };
        let set = Dataset::open_with(input, &opening, &mut until(stop, progress))?;
        let name = match set.split() {
            "" => name_of(input),
            split => split.replace(['/', '\\'], "-"),
        };
        if sets.iter().any(|(other, _)| *other == name) {
            let problem = format!("two parts would be written as `{name}`");
            return Err(Error::invalid(input, "split", problem).with_hint(format!(
                "convert them one at a time, into two folders: {}",
                Argument::Split
            )));
        }
        sets.push((name, set));
    }
    Ok(sets)
}

/// What the only part of a set is called: as its file, without what is behind the name's first dot.
fn name_of(input: &Path) -> String {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let name = if input.is_dir() { "" } else { name.split('.').next().unwrap_or_default() };
    if name.is_empty() { "all".to_owned() } else { name.to_owned() }
}

/// Where classes are counted whose counts no file gives: in the training part, by its place.
fn counting(sets: &[Part], target: Target, report: &mut ConversionReport) -> Option<usize> {
    let counted = |set: &Dataset| {
        set.class_records().iter().filter(|class| class.image_count.is_none()).count()
    };
    let classes = sets.iter().map(|(_, set)| counted(set)).max().unwrap_or(0);
    if target != Target::Lvis || classes == 0 {
        return None;
    }
    let train = sets.iter().position(|(name, _)| same_split(name, "train"));
    let place = match (train, sets) {
        (Some(at), _) => format!("`{}`", sets[at].0),
        (None, [(name, _)]) => format!("`{name}`"),
        (None, _) => "each part by itself, because none is called train".to_owned(),
    };
    let kept = |set: &Dataset| {
        let uncounted = set.class_records().iter().filter(|class| class.image_count.is_none());
        uncounted.filter(|class| class.frequency.is_some()).count()
    };
    let kept = sets.iter().map(|(_, set)| kept(set)).max().unwrap_or(0);
    let kept = match kept {
        0 => String::new(),
        kept => format!("; frequency of {} is as the file has it", plural::counted(kept, "class")),
    };
    report.notes.push(format!(
        "image_count, instance_count and frequency of {} were counted in {place}{kept}",
        plural::counted(classes, "class")
    ));
    train
}

/// Refuses an output folder that is not empty, unless it may be written over.
///
/// # Errors
/// It is not empty, or cannot be read.
pub fn refuse_full(output: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && output.is_dir() && fs_err::read_dir(output)?.next().is_some() {
        let problem = format!("`{}` exists and is not empty", output.display());
        return Err(Error::config("output", problem).with_hint(format!(
            "choose another folder, or pass {} to replace files of the same names",
            Argument::Overwrite
        )));
    }
    Ok(())
}

/// Moves all files of a folder, and of folders in it, to the same names in another.
fn move_into(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    let entries: Vec<PathBuf> = fs_err::read_dir(from)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    for entry in entries {
        let target = to.join(entry.file_name().unwrap_or_default());
        if entry.is_dir() && !entry.is_symlink() && target.exists() {
            move_into(&entry, &target)?;
        } else {
            fs_err::rename(entry, target)?;
        }
    }
    Ok(())
}
