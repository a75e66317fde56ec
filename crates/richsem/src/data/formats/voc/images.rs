//! Which image belongs to which annotation.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    Annotated, Collected, Request,
    collected::{ImageFile, TextFile, twice},
    stems::{Found, Stems},
};
use crate::{
    argument::Argument,
    data::{
        image_store::ImageStore,
        listing::{EXTENSIONS, is_image},
    },
    error::{Error, Result},
};

/// The images of a set, by their names.
pub(super) struct Images {
    input: std::path::PathBuf,
    /// By path below the folder of the images, without extension.
    files: BTreeMap<String, ImageFile>,
    /// What messages call that folder.
    folder: String,
    /// The paths of the XML files in the set, by their names.
    texts: BTreeMap<String, String>,
    /// Whether the user said where the images are.
    said: bool,
}

impl Images {
    /// The images in `JPEGImages`, or those of `store`, if the user says where they are.
    pub(super) fn new(
        input: &Path,
        request: &Request<'_>,
        collected: &Collected,
        store: &ImageStore,
    ) -> Result<Self> {
        let text = |(stem, file): (&String, &TextFile)| {
            let path = file.path.strip_prefix(input).unwrap_or(&file.path);
            (stem.clone(), path.display().to_string())
        };
        let texts = collected.annotations.iter().map(text).collect();
        let (input, said) = (input.to_owned(), request.images.is_some());
        let Some(elsewhere) = request.images else {
            let at = collected.images_at.display().to_string();
            let folder = if collected.beside { at } else { "JPEGImages".to_owned() };
            return Ok(Self { input, files: collected.images.clone(), folder, texts, said });
        };
        let mut files = BTreeMap::new();
        for name in store.files("")?.into_iter().filter(|name| is_image(name)) {
            let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem).to_owned();
            let file = ImageFile { below: name.clone(), name };
            if let Some(other) = files.insert(stem, file.clone()) {
                return Err(twice(&store.display_path(&file.name), &other.below));
            }
        }
        Ok(Self { input, files, folder: elsewhere.display().to_string(), texts, said })
    }

    /// The names of the images of these annotations, for the store. No two have the same one.
    pub(super) fn places_of(
        &self,
        stems: &[&str],
        annotated: &BTreeMap<&str, Annotated>,
    ) -> Result<Vec<String>> {
        let names = Stems::of(self.files.keys());
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        // In the order of their names, as they are numbered.
        let sorted: BTreeSet<&str> = stems.iter().copied().collect();
        let mut found: BTreeMap<&str, &ImageFile> = BTreeMap::new();
        for stem in sorted {
            let file = &self.files[self.image_of(stem, &names, &annotated[stem])?];
            if let Some(other) = taken.insert(&file.name, stem) {
                let problem =
                    format!("{}/{} is the image of `{other}`, too", self.folder, file.below);
                return Err(self.wrong(
                    stem,
                    problem,
                    "give each its own image, or take one of them out of the lists",
                ));
            }
            found.insert(stem, file);
        }
        Ok(stems.iter().map(|stem| found[stem].name.clone()).collect())
    }

    fn wrong(&self, stem: &str, problem: String, hint: &str) -> Error {
        Error::invalid(&self.input, &*self.texts[stem], problem).with_hint(hint)
    }

    /// The image that belongs to an XML file. It has the same name, with its folder or without. If there is
    /// none, it is the one that the XML's `<filename>` names.
    fn image_of<'a>(
        &self,
        stem: &str,
        images: &Stems<'a>,
        annotated: &Annotated,
    ) -> Result<&'a str> {
        let last = stem.rsplit('/').next().unwrap_or(stem);
        // Folders of one kind alone; of two kinds they are the same ones.
        let fits = |image: &str| !(stem.contains('/') && image.contains('/'));
        let named = || {
            let name = annotated.file_name.as_deref()?;
            let (other, _) = name.rsplit_once('.')?;
            match images.find(other) {
                Found::One(found) if fits(found) && self.files[found].below.ends_with(name) => {
                    Some(found)
                }
                _ => None,
            }
        };
        // Where several folders have it, the one that the XML names.
        let in_folder = || match images.find(&format!("{}/{last}", annotated.folder.as_deref()?)) {
            Found::One(found) => Some(found),
            _ => None,
        };
        let found = match (images.find(stem), images.find(last)) {
            (Found::None, Found::One(one)) if !fits(one) => Found::None,
            (Found::None, found) => found,
            (found, _) => found,
        };
        let folder = &self.folder;
        let problem = match (found, named()) {
            (Found::One(found), _) => return Ok(found),
            (_, Some(named)) => return Ok(named),
            (Found::Several(one, two), None) => {
                if let Some(found) = in_folder() {
                    return Ok(found);
                }
                format!("its image may be {folder}/{one} or {folder}/{two}")
            }
            (Found::None, None) if self.files.is_empty() => format!(
                "its image is missing: there is none in {folder}, nor in a folder JPEGImages or images beside"
            ),
            (Found::None, None) => {
                let kinds = EXTENSIONS.join(", .");
                format!(
                    "its image is missing: no {folder}/{stem} with an image's extension (.{kinds})"
                )
            }
        };
        let hint = if self.said {
            "add the image, or take the XML file away (and its name out of the lists, if there are any)".to_owned()
        } else {
            format!(
                "add the image, or say where the images are with {}; or take the XML file away (and its name out \
                 of the lists, if there are any)",
                Argument::Images
            )
        };
        Err(self.wrong(stem, problem, &hint))
    }
}
