//! The output folder: what an earlier `predict` wrote there may be replaced, and nothing else.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use richsem::{
    detector::Detector,
    error::{read_text, write_atomically},
    plural::clause,
};

use super::{Args, ImageResult, Written, inputs::Inputs, written};
use crate::{names::Name, output};

/// Lists what `predict` wrote into its folder, as a JSON array of paths in it. Of crops it has the folder alone: their
/// names are not known before detection.
const LIST: &str = ".predicted";
const CROPS: &str = "crops";

pub(super) struct Place {
    folder: PathBuf,
    /// What earlier ones wrote.
    earlier: BTreeSet<String>,
    /// What this one writes.
    wanted: BTreeSet<String>,
}

impl Place {
    /// Refuses to replace what `predict` did not write.
    pub(super) fn find(args: &Args, names: &[Name]) -> Result<Self> {
        let folder = args.output.clone();
        let wanted = wanted(args, names.iter());
        // Before the list is read: another process of this command may have begun, and it lists first.
        let there: Vec<&String> =
            wanted.iter().filter(|name| is_there(&folder.join(name))).collect();
        let earlier = listed(&folder)?;
        let others: Vec<_> = there.into_iter().filter(|name| !earlier.contains(*name)).collect();
        let Some(first) = others.first() else { return Ok(Self { folder, earlier, wanted }) };
        let more = match others.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Err(anyhow!(
            "--output: `{}`{more} was not written by predict, and would be overwritten\n  hint: choose another folder",
            folder.join(first).display()
        ))
    }

    /// Lists what is written, before it is.
    pub(super) fn list(&self) -> Result<()> {
        let still = self.earlier.iter().filter(|name| is_there(&self.folder.join(name)));
        let all: BTreeSet<&String> = still.chain(&self.wanted).collect();
        let text = serde_json::to_string(&all)?;
        Ok(write_atomically(&self.folder.join(LIST), |out| Ok(writeln!(out, "{text}")?))?)
    }

    /// Warns of what earlier ones wrote and these results do not have.
    pub(super) fn tell_left(
        &self,
        args: &Args,
        found: &[ImageResult],
        inputs: &Inputs,
        detector: &Detector,
    ) {
        let names = found.iter().map(|image| &inputs.result_names[image.number]);
        let new = wanted(args, names);
        let is_left = |name: &&String| *name != CROPS && !new.contains(*name);
        let mut left: Vec<PathBuf> =
            self.earlier.iter().filter(is_left).map(PathBuf::from).collect();
        left.retain(|name| is_there(&self.folder.join(name)));
        if self.earlier.contains(CROPS) {
            let mut crops = Vec::new();
            files_below(&self.folder, Path::new(CROPS), &mut crops);
            let new: BTreeSet<PathBuf> = match args.writes(Written::Crops) {
                true => found
                    .iter()
                    .flat_map(|image| written::crops_of(image, inputs, detector))
                    .collect(),
                false => BTreeSet::new(),
            };
            left.extend(crops.into_iter().filter(|crop| !new.contains(crop)));
        }
        if let Some(first) = left.first() {
            output::warn(format!(
                "{}: {} there that an earlier predict wrote, and that these results do not have, as {}\n  hint: take \
                 them away, or choose another folder",
                self.folder.display(),
                clause(left.len(), "file", ["is", "are"]),
                first.display()
            ));
        }
    }
}

/// What is written of these images.
fn wanted<'a>(args: &Args, names: impl Iterator<Item = &'a Name>) -> BTreeSet<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut wanted = BTreeSet::new();
    for (form, file) in [
        (Written::Json, written::JSON),
        (Written::Csv, written::CSV),
        (Written::Yolo, written::CLASSES),
        (Written::Crops, CROPS),
    ] {
        if args.writes(form) {
            wanted.insert(file.to_owned());
        }
    }
    for name in names {
        if args.writes(Written::Images) {
            wanted.insert(text(&name.drawn));
        }
        if args.writes(Written::Yolo) {
            wanted.insert(text(&written::label(name)));
        }
    }
    wanted
}

fn listed(folder: &Path) -> Result<BTreeSet<String>> {
    let list = folder.join(LIST);
    if !list.is_file() {
        return Ok(BTreeSet::new());
    }
    serde_json::from_str(&read_text(&list)?).map_err(|error| {
        anyhow!(
            "--output: {}: this is not predict's list of what it wrote: {error}\n  hint: choose another folder",
            list.display()
        )
    })
}

/// Whether a file is there, or a folder that holds something.
fn is_there(path: &Path) -> bool {
    match path.read_dir() {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    }
}

/// All files in a folder and those in it, by their paths below `root`.
fn files_below(root: &Path, at: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root.join(at)) else { return };
    for entry in entries.flatten() {
        let name = at.join(entry.file_name());
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => files_below(root, &name, files),
            false => files.push(name),
        }
    }
}
