//! Where the images of a set are, and by which part of their names.

use std::{collections::HashSet, path::PathBuf};

use super::place::root_of;
use crate::data::{reading::Watch, records::Records};

/// Images whose files are looked for, all over the set: often a part of it is missing.
const LOOKED_FOR: usize = 20;

/// How many parts of a path are tried, where the whole is not there.
const PARTS: [usize; 2] = [2, 1];

/// Looks for the images in folders and archives, and notes which one it is.
///
/// Files often lie elsewhere than their names say: Objects365's `images/v1/patch8/x.jpg` is
/// `train/patch8/x.jpg`. So the last two parts of the names are tried, then the last one. The names become
/// these, if they still tell all images apart, and a note says so.
pub(super) fn find(candidates: &[PathBuf], watch: Watch<'_>, records: &mut Records) {
    let every = (records.images.len() / LOOKED_FOR).max(1);
    let names = || records.images.iter().step_by(every).map(|image| image.file_name.as_str());
    if let Some(root) = root_of(candidates.iter().cloned(), names(), watch) {
        records.images_at = Some(root);
        return;
    }
    for parts in PARTS {
        if records.images.iter().all(|image| last(&image.file_name, parts) == image.file_name) {
            continue;
        }
        let short = names().map(|name| last(name, parts));
        let Some(root) = root_of(candidates.iter().cloned(), short, watch) else { continue };
        let all = || records.images.iter().map(|image| image.file_name.as_str());
        let whole: HashSet<&str> = all().collect();
        let cut: HashSet<&str> = all().map(|name| last(name, parts)).collect();
        if cut.len() < whole.len() {
            records.warnings.push(format!(
                "the images in {} have names like the ends of those in the annotations, and these do not tell \
                 all images apart: keep the folders that the annotations name",
                root.display()
            ));
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
        records.images_at = Some(root);
        return;
    }
}

/// The last parts of a path, all of it if it has no more.
fn last(name: &str, parts: usize) -> &str {
    name.rmatch_indices('/').nth(parts - 1).map_or(name, |(at, _)| &name[at + 1..])
}
