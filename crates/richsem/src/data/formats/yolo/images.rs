//! The images of a split, each with the place of its label.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    files::{self, Files},
    places::{self, Found, LabelRule, tidy},
};
use crate::{
    data::{
        image_store::ImageStore,
        listing::{PassedOver, is_image},
        reading::{Watch, open_store},
    },
    error::Result,
};

/// An image.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data::formats) struct Image {
    /// Its path below [`Images::at`].
    pub(in crate::data::formats) name: String,
    /// Its label file, which need not be there.
    pub(in crate::data::formats) label: PathBuf,
}

/// The images of a split.
#[derive(Debug, Default)]
pub(in crate::data::formats) struct Images {
    /// The folder (or archive) that their names are in.
    pub(in crate::data::formats) at: PathBuf,
    /// Each once.
    pub(in crate::data::formats) all: Vec<Image>,
    /// Folders that hold labels of these images alone, with all below them.
    pub(in crate::data::formats) label_folders: BTreeSet<PathBuf>,
    /// Files among the images that are none; whole paths.
    others: Vec<PathBuf>,
    passed_over: PassedOver,
    /// Images that were named before.
    repeated: usize,
    /// Lines whose first folders were left out.
    cut: Vec<String>,
}

/// How the paths of a split are read.
pub(in crate::data::formats) struct Paths<'a> {
    pub(in crate::data::formats) files: &'a Files,
    /// The folder of the set, absolute.
    pub(in crate::data::formats) root: &'a Path,
    pub(in crate::data::formats) rule: LabelRule,
    /// Where the images are, if the user says.
    pub(in crate::data::formats) images: Option<&'a Path>,
}

impl Paths<'_> {
    /// The images of all folders and lists.
    ///
    /// # Errors
    /// A folder or list that cannot be read.
    pub(in crate::data::formats) fn gather(
        &self,
        parts: &[PathBuf],
        watch: Watch<'_>,
    ) -> Result<Images> {
        let store =
            self.images.map(|path| open_store(path, Default::default(), watch)).transpose()?;
        let mut images = Images { passed_over: self.files.links(), ..Images::default() };
        let mut paths = Vec::new();
        for part in parts {
            match (&store, self.files.is_file(part)) {
                (None, false) => self.of_folder(part, &mut images, &mut paths)?,
                (None, true) => {
                    let lines = self.lines(part, &mut images)?;
                    paths.extend(lines.into_iter().map(|(_, image)| image));
                }
                (Some(store), false) => self.named_in_folder(part, store, &mut images)?,
                (Some(store), true) => {
                    let lines = self.lines(part, &mut images)?;
                    let named = lines.par_iter().map(|(line, image)| {
                        let plain = line.trim_start_matches("./");
                        let name = places::ends(plain).find(|end| store.contains(end));
                        let name = name.unwrap_or(plain).to_owned();
                        Image { name, label: self.label(image) }
                    });
                    images.all.append(&mut named.collect());
                }
            }
        }
        match self.images {
            Some(place) => images.at = place.to_owned(),
            None => {
                images.at = match self.files.archive() {
                    Some(archive) => archive.to_owned(),
                    None => common_folder(self.root, &paths),
                };
                let named = paths.into_par_iter().map(|image| {
                    let below = image.strip_prefix(&images.at).unwrap_or(&image);
                    let name = below.to_string_lossy().into_owned();
                    Image { name, label: self.label(&image) }
                });
                images.all = named.collect();
            }
        }
        let mut seen = HashSet::with_capacity(images.all.len());
        let all = images.all.len();
        images.all.retain(|image| seen.insert(image.name.clone()));
        images.repeated = all - images.all.len();
        Ok(images)
    }

    /// The label file of an image, which need not be there.
    fn label(&self, image: &Path) -> PathBuf {
        self.rule.label(image, self.files)
    }

    /// The images below a folder, at any depth.
    fn of_folder(
        &self,
        folder: &Path,
        images: &mut Images,
        paths: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let mut files = Vec::new();
        self.files.walk(folder, &mut files, &mut images.passed_over)?;
        files.sort_unstable();
        let (found, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| is_image(&file.to_string_lossy()));
        paths.extend(found);
        images.others.extend(others);
        images.label_folders.insert(self.rule.folder(folder, self.files));
        Ok(())
    }

    /// The images that the user's folder or archive has for a folder of the file.
    fn named_in_folder(
        &self,
        folder: &Path,
        store: &ImageStore,
        images: &mut Images,
    ) -> Result<()> {
        let below = folder.strip_prefix(self.root).unwrap_or(folder).to_string_lossy().into_owned();
        let is_folder = store.path().is_dir();
        for end in places::ends(below.trim_start_matches('/')).chain([""]) {
            let prefix = if end.is_empty() { String::new() } else { format!("{end}/") };
            if is_folder && !store.path().join(end).is_dir() {
                continue;
            }
            let (names, passed_over) = store.images(&prefix)?;
            if names.is_empty() && !end.is_empty() {
                continue;
            }
            images.passed_over.extend(passed_over);
            images.label_folders.insert(self.rule.folder(folder, self.files));
            let named = names.into_iter().map(|name| Image {
                label: self.label(&folder.join(&name)),
                name: format!("{prefix}{name}"),
            });
            images.all.extend(named);
            break;
        }
        Ok(())
    }

    /// The images that a file lists: as written, and where each is.
    fn lines(&self, list: &Path, images: &mut Images) -> Result<Vec<(String, PathBuf)>> {
        let text = self.files.text(list)?;
        let mut lines: Vec<String> =
            text.lines().map(tidy).filter(|line| !line.is_empty()).collect();
        lines.retain(|line| {
            let kept = is_image(line);
            if !kept {
                images.passed_over.count(format!("lines of {}", list.display()), line);
            }
            kept
        });
        let beside = list.parent().unwrap_or(self.root).to_owned();
        let bases = [beside.clone(), self.root.to_owned(), files::absolute(Path::new(""))?];
        let is_file = |path: &Path| self.files.is_file(path);
        let there = |image: &Path| is_file(image) || is_file(&self.label(image));
        let found: Vec<Option<Found>> =
            lines.par_iter().map(|line| places::find(&bases, line, 1, there)).collect();
        let mut all = Vec::with_capacity(lines.len());
        for (line, found) in lines.into_iter().zip(found) {
            let image = match found {
                Some(found) => {
                    if found.cut {
                        images.cut.push(line.clone());
                    }
                    found.path
                }
                // Its reader says that it is missing.
                None => files::normal(&beside.join(line.trim_start_matches('/'))),
            };
            all.push((line, image));
        }
        Ok(all)
    }
}

impl Images {
    /// What was passed over or understood in a way that a user should know. Files that are labels are no
    /// strangers.
    pub(in crate::data::formats) fn notes(&mut self) -> Vec<String> {
        let labels: HashSet<&Path> = self.all.iter().map(|image| &*image.label).collect();
        for other in &self.others {
            let is_text = other.extension().is_some_and(|extension| extension == "txt");
            let among_labels = self.label_folders.iter().any(|folder| other.starts_with(folder));
            let is_label = labels.contains(&**other) || (is_text && among_labels);
            if !is_label {
                self.passed_over
                    .add(&other.strip_prefix(&self.at).unwrap_or(other).to_string_lossy());
            }
        }
        let mut notes = Vec::new();
        if !self.passed_over.is_empty() {
            notes.push(format!("passed over as no images: {}", self.passed_over));
        }
        if self.repeated > 0 {
            notes.push(format!("images that are listed twice, taken once: {}", self.repeated));
        }
        if !self.cut.is_empty() {
            notes.push(format!(
                "listed images found only without the first folders of their paths: {}",
                named(&self.cut)
            ));
        }
        notes
    }

    /// Label files that no image has, in folders of labels of these images alone; sorted.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(in crate::data::formats) fn labels_alone(&self, all: &Files) -> Result<Vec<String>> {
        let labels: HashSet<&Path> = self.all.iter().map(|image| &*image.label).collect();
        let mut alone = BTreeSet::new();
        for folder in self.label_folders.iter().filter(|folder| all.is_dir(folder)) {
            let mut files = Vec::new();
            all.walk(folder, &mut files, &mut PassedOver::default())?;
            alone.extend(files.into_iter().filter(|file| {
                file.extension().is_some_and(|extension| extension == "txt")
                    // A list of the classes that annotation tools write there.
                    && file.file_name().is_none_or(|name| name != "classes.txt")
                    && !labels.contains(&**file)
            }));
        }
        let names = alone.into_iter().map(|file| {
            file.strip_prefix(&self.at).unwrap_or(&file).to_string_lossy().into_owned()
        });
        Ok(names.collect())
    }
}

/// How many there are, and the first of them: `12 (a, b, c, …)`.
pub(in crate::data::formats) fn named(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{} ({}{more})", names.len(), names[..names.len().min(SHOWN)].join(", "))
}

/// The set's folder, or the deepest one that has all of these files.
fn common_folder(root: &Path, files: &[PathBuf]) -> PathBuf {
    let mut common = root;
    for file in files {
        while !file.starts_with(common) {
            common = common.parent().unwrap_or(Path::new("/"));
        }
    }
    common.to_owned()
}
