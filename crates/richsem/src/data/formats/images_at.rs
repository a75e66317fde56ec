//! Where the images of a set are, and by which part of their names.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    Request,
    place::{Roots, sample},
};
use crate::{
    data::{
        image_store::{ImageStore, StoreKind},
        reading::open_store,
        records::{ImageRecord, Records},
    },
    error::Result,
};

/// How many parts of a path are tried, where the whole is not there.
pub(super) const PARTS: [usize; 3] = [usize::MAX, 2, 1];

/// Looks for the images in the folder or archive that the user says, else in those near, and notes which one it is.
///
/// Files often lie elsewhere than their names say: Objects365's `images/v1/patch8/x.jpg` is
/// `train/patch8/x.jpg`. So the last two parts of the names are tried, too, and the last one. The names become
/// these, if they still tell all images apart, and a note says so.
///
/// # Errors
/// It is not to go on.
pub(super) fn find(near: Vec<PathBuf>, request: &Request<'_>, records: &mut Records) -> Result<()> {
    let near = request.images.map_or(near, |images| vec![images.to_owned()]);
    let roots = Roots::new(near, request.watch);
    let all = || records.images.iter().map(|image| image.file_name.as_str());
    let is_cut = |parts: usize| all().any(|name| last(name, parts) != name);
    let ways = PARTS.into_iter().filter(|&parts| parts == usize::MAX || is_cut(parts));
    let (ways, unclear): (Vec<usize>, Vec<usize>) =
        ways.partition(|&parts| are_apart(&records.images, parts));
    let names = |parts: &usize| -> Vec<&str> {
        sample(&records.images).into_iter().map(|name| last(name, *parts)).collect()
    };
    let lists = |ways: &[usize]| ways.iter().map(names).collect::<Vec<_>>();
    if let Some((way, root)) = roots.find(&lists(&ways)) {
        let (parts, root) = (ways[way], root.to_owned());
        cut_names(parts, &root, records);
        records.images_at = Some(root);
    } else if let Some((_, root)) = roots.find(&lists(&unclear)) {
        records.warnings.push(format!(
            "the images in {} have names like the ends of those in the annotations, and these do not tell \
             all images apart: keep the folders that the annotations name",
            root.display()
        ));
    } else if let Some(images) = request.images {
        find_below(images, request, records)?;
    }
    Ok(())
}

/// Whether the last parts of the names tell apart what the whole names do.
pub(super) fn are_apart(images: &[ImageRecord], parts: usize) -> bool {
    let names = || images.iter().map(|image| image.file_name.as_str());
    let count = |parts| names().map(|name| last(name, parts)).collect::<HashSet<_>>().len();
    parts == usize::MAX || count(parts) == count(usize::MAX)
}

/// Leaves only the last parts of all names.
fn cut_names(parts: usize, root: &Path, records: &mut Records) {
    if parts == usize::MAX {
        return;
    }
    let example =
        records.images.iter().find(|image| last(&image.file_name, parts) != image.file_name);
    let example = example.map(|image| image.file_name.clone()).unwrap_or_default();
    let what = if parts == 1 { "part" } else { "two parts" };
    records.notes.push(format!(
        "the images are found in {} by the last {what} of their names (`{}` for `{example}`)",
        root.display(),
        last(&example, parts)
    ));
    for image in &mut records.images {
        image.file_name = last(&image.file_name, parts).to_owned();
    }
}

/// Looks for the images below a folder of the place that the user says, as of an archive that was packed with the
/// folder around. Only one folder may have them, and it must have all.
fn find_below(images: &Path, request: &Request<'_>, records: &mut Records) -> Result<()> {
    // What cannot be opened is told where the images are read.
    let Ok(store) = open_store(images, Default::default(), request.watch) else { return Ok(()) };
    let Some(folder) = folder_of_all(&store, records) else { return Ok(()) };
    let first = &records.images[0].file_name;
    records.notes.push(format!(
        "the images are found in {} below `{folder}` (`{folder}/{first}` for `{first}`)",
        images.display()
    ));
    if ImageStore::kind_of(images)? == StoreKind::Folder {
        records.images_at = Some(images.join(folder));
        return Ok(());
    }
    // In an archive names are whole paths.
    for image in &mut records.images {
        image.file_name = format!("{folder}/{}", image.file_name);
    }
    records.images_at = Some(images.to_owned());
    Ok(())
}

/// The only folder below which all images are.
fn folder_of_all(store: &ImageStore, records: &Records) -> Option<String> {
    let sample: HashSet<&str> = sample(&records.images).into_iter().collect();
    let parts: HashSet<usize> = sample.iter().map(|name| name.split('/').count()).collect();
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for file in store.files("").ok()? {
        for name in parts.iter().map(|&parts| last(&file, parts)) {
            let folder = file[..file.len() - name.len()].strip_suffix('/');
            if let Some(folder) = folder.filter(|_| sample.contains(name)) {
                *held.entry(folder.to_owned()).or_default() += 1;
            }
        }
    }
    let mut all = held.into_iter().filter(|(_, held)| *held == sample.len());
    let (folder, _) = all.next().filter(|_| all.next().is_none())?;
    let is_there = |name: &str| store.contains(&format!("{folder}/{name}"));
    records.images.iter().all(|image| is_there(&image.file_name)).then_some(folder)
}

/// The last parts of a path, all of it if it has no more.
pub(super) fn last(name: &str, parts: usize) -> &str {
    if parts == usize::MAX {
        return name;
    }
    name.rmatch_indices('/').nth(parts - 1).map_or(name, |(at, _)| &name[at + 1..])
}
