//! Where the images of a converted set are: where they were, or put beside.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use fs_err::os::unix::fs::symlink;
use rayon::prelude::*;

use super::{Conversion, ConversionReport, Part, Target};
use crate::{
    argument::Argument,
    data::{dataset::Dataset, formats::below_root, image_store::ImageStore},
    error::{Error, Result, first_few, unless_stopped},
};

/// The folder of images that are put beside the annotations.
const FOLDER: &str = "images";

/// What becomes of the images of a set that is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutImages {
    /// They stay where they are.
    Keep,
    /// They are copied.
    Copy,
    /// Symbolic links lead to them. They must be files of their own, not in an archive.
    Link,
}

/// Where the images of each part are, and will be.
pub(super) struct Placing {
    parts: Vec<Placed>,
    /// The places that images are in now, each once.
    stores: BTreeMap<PathBuf, ImageStore>,
    /// Parts without an image in the place that the user says, a line each.
    absent: Vec<String>,
}

/// The images of one part.
struct Placed {
    name: String,
    /// The folder or archive that they are in now, where it is known.
    source: Option<PathBuf>,
    put: PutImages,
    /// The folder they are put in, below that of the output.
    folder: String,
    /// What their names begin with and is left out.
    prefix: String,
}

/// The images of a part: the name of each in its store, and its path below the output.
pub(super) type Names = Vec<(String, PathBuf)>;

impl Placing {
    /// Decides, and refuses what cannot be done.
    pub(super) fn choose(sets: &[Part], how: &Conversion) -> Result<Self> {
        let mut stores = BTreeMap::new();
        for source in sets.iter().filter_map(|(_, set)| set.images_at()) {
            if !stores.contains_key(source) {
                let store = ImageStore::open(source, how.opening.orientation)?;
                stores.insert(source.to_owned(), store);
            }
        }
        let absent = absent_parts(sets, &stores, how)?;
        let one_place = stores.len() < 2 && how.target != Target::Yolo;
        let mut parts = Vec::with_capacity(sets.len());
        for (name, set) in sets {
            let source = set.images_at().map(Path::to_owned);
            let store = source.as_ref().map(|source| &stores[source]);
            let put = choose_put(set, store, how)?;
            let folder = if one_place { FOLDER.to_owned() } else { format!("{FOLDER}/{name}") };
            let (name, prefix) = (name.clone(), String::new());
            parts.push(Placed { name, source, put, folder, prefix });
        }
        let mut placing = Self { parts, stores, absent };
        placing.leave_out_prefixes(sets);
        Ok(placing)
    }

    /// What should be known of the images' folders and archives.
    pub(super) fn notes(&self) -> Vec<String> {
        let notes = |(path, store): (&PathBuf, &ImageStore)| {
            let notes = store.notes().into_iter();
            notes.map(|note| format!("{}: {note}", path.display())).collect::<Vec<_>>()
        };
        self.stores.iter().flat_map(notes).chain(self.absent.iter().cloned()).collect()
    }

    /// Names in an archive begin with folders that say nothing, as `BCCD/JPEGImages/`: those that all of one
    /// archive have are left out where its images are copied out of it.
    fn leave_out_prefixes(&mut self, sets: &[Part]) {
        let mut prefixes: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
        for (part, (_, set)) in self.parts.iter().zip(sets) {
            let Some(source) = part.source.as_ref().filter(|_| part.put == PutImages::Copy) else {
                continue;
            };
            let prefix = prefixes.entry(source.clone()).or_default();
            for image in set.images() {
                let folders = image.file_name.rfind('/').map_or(0, |end| end + 1);
                let folders = &image.file_name[..folders];
                match prefix {
                    None => *prefix = Some(folders.to_owned()),
                    Some(prefix) => prefix.truncate(common(prefix, folders)),
                }
            }
        }
        for part in &mut self.parts {
            let copied = |source: &&PathBuf| part.put == PutImages::Copy && !source.is_dir();
            let source = part.source.as_ref().filter(copied);
            if let Some(Some(prefix)) = source.and_then(|source| prefixes.get(source)) {
                part.prefix.clone_from(prefix);
            }
        }
    }

    /// The images of a part, where they are known.
    pub(super) fn store(&self, part: usize) -> Option<&ImageStore> {
        self.parts[part].source.as_ref().map(|source| &self.stores[source])
    }

    /// Has the sets say the names that their images will have. Gives for each image its name until now, and
    /// the path it will have below the output.
    pub(super) fn rename(&self, sets: &mut [Part]) -> Result<Vec<Names>> {
        let mut all = Vec::with_capacity(sets.len());
        for (part, (_, set)) in self.parts.iter().zip(sets) {
            let path = set.path().to_owned();
            let mut names = Vec::with_capacity(set.images().len());
            for image in set.images_mut() {
                let name =
                    below_root(&image.file_name[part.prefix.len()..]).map_err(|problem| {
                        Error::invalid(&path, "images", problem).with_hint(
                            "names in the new files are relative to the folder of the images",
                        )
                    })?;
                let place = Path::new(&part.folder).join(&name);
                names.push((std::mem::replace(&mut image.file_name, name), place));
            }
            all.push(names);
        }
        Ok(all)
    }

    /// Whether any images are put beside.
    pub(super) fn puts_any(&self) -> bool {
        self.parts.iter().any(|part| part.put != PutImages::Keep)
    }

    /// Puts the images of each part below `folder`. Those that are not there are counted.
    pub(super) fn put(
        &self,
        names: &[Names],
        folder: &Path,
        report: &mut ConversionReport,
        stop: &AtomicBool,
    ) -> Result<()> {
        // By the new place: parts may share images.
        let mut work: BTreeMap<&Path, (&Placed, &ImageStore, &str)> = BTreeMap::new();
        for (part, names) in self.parts.iter().zip(names) {
            let Some(store) = part.source.as_ref().map(|source| &self.stores[source]) else {
                continue;
            };
            unless_stopped(stop)?;
            let there: Vec<bool> = names.par_iter().map(|(name, _)| store.contains(name)).collect();
            let mut missing = Vec::new();
            for ((name, place), is_there) in names.iter().zip(there) {
                if !is_there {
                    missing.push(name.clone());
                } else if part.put != PutImages::Keep {
                    work.insert(place, (part, store, name));
                }
            }
            let shown = first_few(missing.iter().cloned());
            let instead = format!("annotated all the same: {shown}");
            report.not_carried.add(&part.name, "images without a file", missing.len(), instead);
        }
        let outcomes: Vec<Result<()>> = work
            .par_iter()
            .map(|(place, (part, store, name))| {
                unless_stopped(stop)?;
                put_one(store, name, part.put, folder, place)
            })
            .collect();
        outcomes.into_iter().collect()
    }

    /// Where the images of a part are in the end, if that is known.
    pub(super) fn place_of(&self, part: usize, output: &Path) -> Option<PathBuf> {
        let part = &self.parts[part];
        match part.put {
            PutImages::Keep => part.source.clone(),
            PutImages::Copy | PutImages::Link => Some(output.join(&part.folder)),
        }
    }
}

/// Parts that have no image in the place that the user says, a note each.
///
/// # Errors
/// No part has one.
fn absent_parts(
    sets: &[Part],
    stores: &BTreeMap<PathBuf, ImageStore>,
    how: &Conversion,
) -> Result<Vec<String>> {
    let Some(given) = &how.opening.images else { return Ok(Vec::new()) };
    let is_absent = |(_, set): &&Part| {
        let store = set.images_at().map(|place| &stores[place]);
        let mut images = set.images().iter();
        let held = store.is_some_and(|store| images.any(|image| store.contains(&image.file_name)));
        !set.images().is_empty() && !held
    };
    let absent: Vec<&Part> = sets.iter().filter(is_absent).collect();
    let Some((_, first)) = absent.first() else { return Ok(Vec::new()) };
    if absent.len() < sets.len() {
        let note =
            |(name, _): &&Part| format!("{name}: none of its images is in {}", given.display());
        return Ok(absent.iter().map(note).collect());
    }
    let store = ImageStore::open(given, how.opening.orientation)?;
    let names = first.images().iter().map(|image| image.file_name.as_str());
    let problem = store.holds_none_of(names).unwrap_or_else(|| "there are none".to_owned());
    Err(Error::argument(Argument::Images, problem).with_hint(
        "give the folder or archive that file names in the annotations are relative to, or leave it out to \
         convert the annotations alone",
    ))
}

/// What becomes of the images of one part.
fn choose_put(set: &Dataset, store: Option<&ImageStore>, how: &Conversion) -> Result<PutImages> {
    let refuse = |problem: String| {
        Err(Error::invalid(set.path(), "images", problem)
            .with_hint(format!("say where the images are: {}", Argument::Images)))
    };
    let Some(store) = store else {
        return match how.images {
            None | Some(PutImages::Keep) => Ok(PutImages::Keep),
            Some(_) => refuse("they cannot be put beside, because they are not known".to_owned()),
        };
    };
    let names = || set.images().iter().map(|image| image.file_name.as_str());
    let there = names().find(|name| store.contains(name));
    let loose = there.is_none_or(|name| store.display_path(name).is_file());
    let usual = match (there, loose) {
        (None, _) => PutImages::Keep,
        (Some(_), true) if how.target == Target::Yolo => PutImages::Link,
        (Some(_), true) => PutImages::Keep,
        (Some(_), false) => PutImages::Copy,
    };
    match how.images.unwrap_or(usual) {
        PutImages::Keep => Ok(PutImages::Keep),
        _ if there.is_none() => {
            refuse(store.holds_none_of(names()).unwrap_or_else(|| "there are none".to_owned()))
        }
        PutImages::Link if !loose => {
            let problem =
                format!("`{}` is an archive: no link can lead into it", store.path().display());
            Err(Error::invalid(set.path(), "images", problem).with_hint("copy them instead"))
        }
        put => Ok(put),
    }
}

/// Bytes of the folders that two paths have in common.
fn common(one: &str, two: &str) -> usize {
    let same = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
    one.as_bytes()[..same].iter().rposition(|byte| *byte == b'/').map_or(0, |end| end + 1)
}

fn put_one(
    store: &ImageStore,
    name: &str,
    put: PutImages,
    folder: &Path,
    place: &Path,
) -> Result<()> {
    if !place.components().all(|part| matches!(part, Component::Normal(_))) {
        let problem = "this name leads out of the folder of the images".to_owned();
        return Err(Error::invalid(store.path(), name, problem));
    }
    let target = folder.join(place);
    if let Some(folder) = target.parent() {
        fs_err::create_dir_all(folder)?;
    }
    match put {
        PutImages::Keep => {}
        PutImages::Copy => fs_err::write(target, store.read(name)?)?,
        PutImages::Link => symlink(std::path::absolute(store.display_path(name))?, target)?,
    }
    Ok(())
}
