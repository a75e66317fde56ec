//! The images of a classification set that have a class of the detection vocabulary.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use super::{
    ExtraConfig, ExtraReport, MappingConfig,
    groups::{Groups, NameList},
    info::Info,
    labels::{self, Labelled},
    mapping::{Mapper, SourceClass},
};
use crate::{
    Error, Result,
    data::{
        image_store::{ImageStore, Indexing},
        listing::{EXTENSIONS, is_image},
    },
    vocabulary::{ClassIndex, Vocabulary},
};

/// A classification image: its file and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its file in the set's store.
    pub name: String,
    /// Its classes, at least one, each once; in the order of the file that names them.
    pub labels: &'a [ClassIndex],
    /// Its id in the `info` file, or its number in the set.
    pub id: i64,
}

/// Classification images and their labels, in the detection vocabulary. In folders, sorted by
/// class folder and then by name; with an `info` file, in that file's order; with labels beside them, in the order of rows (parquet)
/// or sorted by name (webdataset).
#[derive(Debug)]
pub struct ClassificationSet {
    store: Arc<ImageStore>,
    names: NameList,
    groups: Groups,
    ids: Option<Vec<i64>>,
    report: ExtraReport,
}

impl ClassificationSet {
    /// Lists the images (none is read) and maps their classes. Classes that the vocabulary lacks
    /// are left out, see [`Self::report`].
    ///
    /// # Errors
    /// A file or folder cannot be read or is not what it should be, no class is mapped, or no
    /// image is left.
    pub fn open(config: &ExtraConfig, vocabulary: &Vocabulary) -> Result<Self> {
        Self::open_with(config, vocabulary, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Self::open`]. `progress` is told how far the indexing of archives is, and says whether to go on.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::Stopped`] if `progress` says so.
    pub fn open_with(
        config: &ExtraConfig,
        vocabulary: &Vocabulary,
        progress: &mut dyn FnMut(Indexing) -> ControlFlow<()>,
    ) -> Result<Self> {
        let mapping = config.mapping.as_ref();
        let mut paths = vec![("images", &config.images)];
        paths.extend(config.info.as_ref().map(|path| ("info", path)));
        if let Some(MappingConfig::File { path }) = mapping {
            paths.push(("mapping.path", path));
        }
        for (field, path) in paths {
            let there = match field {
                "images" => ImageStore::is_there(path),
                _ => path.exists(),
            };
            if !there {
                return Err(Error::invalid(path, field, "there is no such file or folder")
                    .with_hint("paths are relative to the settings file"));
            }
        }
        let store = ImageStore::open_with(&config.images, config.orientation, progress)?;
        let store = Arc::new(store);
        let set = match &config.info {
            Some(info) => Self::listed(info, mapping, store, &config.images, vocabulary)?,
            None => match labels::read(&store, &config.images)? {
                Some(labelled) => {
                    Self::labelled(labelled, mapping, store, &config.images, vocabulary)?
                }
                None => Self::in_folders(mapping, store, &config.images, vocabulary)?,
            },
        };
        if set.is_empty() {
            let problem = format!("no image is left: {}", set.report);
            return Err(Error::invalid(&config.images, "images", problem).with_hint(format!(
                "expected images (.{}) below the class folders",
                EXTENSIONS.join(", .")
            )));
        }
        Ok(set)
    }

    fn in_folders(
        mapping: Option<&MappingConfig>,
        store: Arc<ImageStore>,
        path: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<Self> {
        let ClassFolders { root, folders, other_splits } = class_folders(&store, path)?;
        let mapper = Mapper::new(Some(mapping.unwrap_or(&MappingConfig::Wnid {})), vocabulary)?;
        let mut report =
            ExtraReport { source_classes: folders.len(), other_splits, ..Default::default() };
        for name in hidden_folders(&store, &root)? {
            report.passed_over.count("hidden folders".to_owned(), &format!("{root}{name}"));
        }
        let sources: Vec<_> = folders.iter().map(|name| SourceClass::folder(name)).collect();
        let classes: Vec<_> = sources.iter().map(|source| mapper.classes(source)).collect();
        if classes.iter().all(Vec::is_empty) {
            return Err(mapper.nothing_found(path, &sources, vocabulary));
        }
        let (mut names, mut groups) = (NameList::default(), Groups::default());
        for (folder, labels) in folders.into_iter().zip(classes) {
            let prefix = format!("{root}{folder}/");
            let (files, passed_over) = store.images(&prefix)?;
            report.passed_over.extend(passed_over);
            if labels.is_empty() {
                report.unmapped.push((folder, files.len()));
                continue;
            }
            if files.is_empty() {
                report.empty.push(folder);
            }
            let group = groups.add(prefix, labels);
            for name in files {
                names.push(&name);
                groups.put(group);
            }
        }
        report.count(&groups, vocabulary);
        Ok(Self { store, names, groups, ids: None, report })
    }

    fn listed(
        info: &Path,
        mapping: Option<&MappingConfig>,
        store: Arc<ImageStore>,
        images: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<Self> {
        let mapper = Mapper::new(mapping, vocabulary)?;
        let file = info;
        let set = Self::of_info(Info::read(file)?, &mapper, store, file, vocabulary)?;
        // One is enough to see that the wrong folder was given; the rest shows in training.
        if !set.is_empty() && !set.store.contains(&set.item(0).name) {
            let problem = format!("there is no `{}`, which the list names", set.item(0).name);
            return Err(Error::invalid(images, "images", problem).with_hint(format!(
                "give the folder or archive that the file names of {} are relative to",
                file.display()
            )));
        }
        Ok(set)
    }

    /// Of images whose labels lie beside them. Their numbers are their ids.
    fn labelled(
        labelled: Labelled,
        mapping: Option<&MappingConfig>,
        store: Arc<ImageStore>,
        path: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<Self> {
        let mapper = Mapper::new(Some(mapping.unwrap_or(&labelled.mapping)), vocabulary)?;
        let mut set = Self::of_info(labelled.info, &mapper, store, path, vocabulary)?;
        set.report.unlabelled = labelled.unlabelled;
        set.report.other_splits = labelled.other_splits;
        set.report.passed_over = labelled.passed_over;
        Ok(set)
    }

    /// The images of a list. `file` is what messages name.
    fn of_info(
        info: Info,
        mapper: &Mapper,
        store: Arc<ImageStore>,
        file: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<Self> {
        let classes: Vec<_> = info.classes.iter().map(|source| mapper.classes(source)).collect();
        if classes.iter().all(Vec::is_empty) {
            return Err(mapper.nothing_found(file, &info.classes, vocabulary));
        }
        let mut counts = vec![0; classes.len()];
        let numbers = info.class_numbers();
        for &set in &info.sets {
            for id in &info.label_sets[set as usize] {
                counts[numbers[id]] += 1;
            }
        }
        let mut report = ExtraReport { source_classes: classes.len(), ..Default::default() };
        for ((source, &count), mapped) in info.classes.iter().zip(&counts).zip(&classes) {
            // Detic's file lists all of LVIS's classes, also those that no image shows.
            match (mapped.is_empty(), count) {
                (true, _) => report.unmapped.push((source.name.clone(), count)),
                (false, 0) => report.empty.push(source.name.clone()),
                (false, _) => {}
            }
        }
        let (names, ids, groups) = info.images(&classes);
        report.count(&groups, vocabulary);
        Ok(Self { store, names, groups, ids: Some(ids), report })
    }

    /// n: number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.of.len()
    }

    /// Whether the set has no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.of.is_empty()
    }

    /// The image at an index below [`Self::len`].
    ///
    /// # Panics
    /// If the index is not of this set.
    #[must_use]
    pub fn item(&self, index: usize) -> Item<'_> {
        let group = self.groups.of[index] as usize;
        Item {
            name: format!("{}{}", self.groups.prefixes[group], self.names.get(index)),
            labels: &self.groups.labels[group],
            id: self.ids.as_ref().map_or(index as i64, |ids| ids[index]),
        }
    }

    /// The folder or archive that holds the images.
    #[must_use]
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// What was found and left out.
    #[must_use]
    pub fn report(&self) -> &ExtraReport {
        &self.report
    }
}

/// Where the classes of a set are.
struct ClassFolders {
    /// The path before the class folders.
    root: String,
    /// Sorted.
    folders: Vec<String>,
    /// Parts of the set that are not for training.
    other_splits: Vec<String>,
}

/// The class folders. An archive often has one folder that holds all others. Ultralytics and others have
/// `train/CLASS` and `val/CLASS`: then they are those of `train`.
fn class_folders(store: &ImageStore, path: &Path) -> Result<ClassFolders> {
    /// Most folders in folders that are searched. Nobody packs deeper.
    const DEEPEST: usize = 8;
    let (mut root, mut other_splits) = (String::new(), Vec::new());
    for _ in 0..DEEPEST {
        let mut folders = store.folders(&root)?;
        if let Some(train) = training_split(store, &root, &folders)? {
            root = format!("{root}{train}/");
            other_splits = folders.into_iter().filter(|name| *name != train).collect();
            folders = store.folders(&root)?;
            return Ok(ClassFolders { root, folders, other_splits });
        }
        let [only] = &folders[..] else {
            if !folders.is_empty() {
                return Ok(ClassFolders { root, folders, other_splits });
            }
            break;
        };
        let below = format!("{root}{only}/");
        let files = store.files(&below)?;
        // A class's own images, rather than the folder of all classes.
        if files.is_empty() || files.iter().any(|name| !name.contains('/') && is_image(name)) {
            return Ok(ClassFolders { root, folders, other_splits });
        }
        root = below;
    }
    let files = store.files("")?;
    let mut hint = "expected one folder for each class, with the name of the class, and the \
                    images in it, as n02690373/1.jpg"
        .to_owned();
    if let Some(example) = files.first() {
        hint += &format!("; there is `{example}`");
    }
    if files.iter().any(|name| name.ends_with(".tar")) {
        hint += ". A .tar that is listed here is no archive, or lies beside folders or images: \
                 unpack each into a folder of its name";
    }
    let problem = format!("no class folders among {} files", files.len());
    Err(Error::invalid(path, "images", problem).with_hint(hint))
}

/// The folder with the training split's classes, if folders are splits and not classes: one is called
/// `train`, another one as a split, too, and `train` has folders alone. A class may be called `train`.
fn training_split(store: &ImageStore, root: &str, folders: &[String]) -> Result<Option<String>> {
    const OTHERS: [&str; 4] = ["val", "valid", "validation", "test"];
    let Some(train) = folders.iter().find(|name| *name == "train") else { return Ok(None) };
    if !folders.iter().any(|name| OTHERS.contains(&name.as_str())) {
        return Ok(None);
    }
    let below = format!("{root}{train}/");
    let has_images = store.files(&below)?.iter().any(|name| !name.contains('/') && is_image(name));
    let has_folders = !store.folders(&below)?.is_empty();
    Ok((has_folders && !has_images).then(|| train.clone()))
}

/// Folders beside the class folders that are hidden, as `.git`, sorted. Archives tell of none.
fn hidden_folders(store: &ImageStore, root: &str) -> Result<Vec<String>> {
    let mut hidden = Vec::new();
    if store.path().is_dir() {
        for entry in fs_err::read_dir(store.path().join(root))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && entry.path().is_dir() {
                hidden.push(name);
            }
        }
    }
    hidden.sort_unstable();
    Ok(hidden)
}

#[cfg(test)]
#[path = "tests/set.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
