//! The names of what is written of images.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

/// Extensions that an image with boxes keeps; other images become .jpg.
const DRAWN: [&str; 3] = ["jpg", "jpeg", "png"];

/// Bytes of a name at most. File systems take 255; what is written may have a number and another extension.
const LONGEST: usize = 239;

/// The name, or where it is too long for a file system its beginning, with a number that tells it from others. What
/// seems to be an extension is kept.
pub(crate) fn shortened(name: &str, number: usize) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let is_short = |(_, extension): &(&str, &str)| extension.len() <= "jpeg".len();
    let end = match name.rsplit_once('.').filter(is_short) {
        Some((_, extension)) => format!("-{number}.{extension}"),
        None => format!("-{number}"),
    };
    let mut length = LONGEST - end.len();
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{end}", &name[..length])
}

/// What the results of one image are called, relative to a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// The file that it is drawn into.
    pub(crate) drawn: PathBuf,
    /// What its other files begin with: the same without the extension, or with it where two images would
    /// have the same.
    pub(crate) stem: PathBuf,
}

/// Names of all images, and why they have folders.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// In the images' order; all different.
    pub(crate) all: Vec<Name>,
    /// A file name that two images have. All names then have the images' folders, as far as these differ.
    pub(crate) twice: Option<OsString>,
    /// The first image whose other files have its whole name: without the extension another one has it.
    pub(crate) whole: Option<PathBuf>,
}

impl Names {
    /// Names for images that lie in these folders, `(folder, file name)`, all different. Images that are
    /// neither JPEG nor PNG by their name become JPEG.
    pub(crate) fn of(images: &[(PathBuf, OsString)]) -> Self {
        let short = |(number, (folder, file)): (usize, &(PathBuf, OsString))| {
            let file = match file.len() > LONGEST {
                true => shortened(&file.to_string_lossy(), number).into(),
                false => file.clone(),
            };
            (folder.clone(), file)
        };
        let images: Vec<(PathBuf, OsString)> = (1..).zip(images).map(short).collect();
        let mut seen = HashSet::new();
        let twice =
            images.iter().find(|(_, file)| !seen.insert(file)).map(|(_, file)| file.clone());
        let below = match twice {
            Some(_) => below_common(&images),
            None => vec![PathBuf::new(); images.len()],
        };
        let wanted: Vec<(PathBuf, bool)> = images
            .iter()
            .zip(&below)
            .map(|((_, file), folder)| {
                let path = folder.join(file);
                if keeps_extension(&path) {
                    (path, true)
                } else {
                    (path.with_extension("jpg"), false)
                }
            })
            .collect();
        // Whoever keeps its name has the first right to it.
        let mut taken: HashSet<PathBuf> =
            wanted.iter().filter(|(_, keeps)| *keeps).map(|(path, _)| path.clone()).collect();
        let mut stems = HashSet::new();
        let mut all = Vec::with_capacity(images.len());
        let mut first_whole = None;
        for (((_, file), folder), (path, keeps)) in images.iter().zip(&below).zip(wanted) {
            let whole = folder.join(file);
            let drawn = match keeps || taken.insert(path.clone()) {
                true => path,
                false => free(&whole, ".jpg", &mut taken),
            };
            let short = drawn.with_extension("");
            let stem = match stems.insert(short.clone()) {
                true => short,
                false => {
                    first_whole.get_or_insert_with(|| whole.clone());
                    free(&whole, "", &mut stems)
                }
            };
            all.push(Name { drawn, stem });
        }
        Self { all, twice, whole: first_whole }
    }
}

fn keeps_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| DRAWN.iter().any(|e| extension.eq_ignore_ascii_case(e)))
}

/// The path with an end, and with a number if that is taken.
fn free(path: &Path, end: &str, taken: &mut HashSet<PathBuf>) -> PathBuf {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { end.to_owned() } else { format!("-{number}{end}") });
        if taken.insert(PathBuf::from(&name)) {
            return name.into();
        }
        number += 1;
    }
}

/// The images' folders below the one that holds all of them. Nothing in them leads upwards.
fn below_common(images: &[(PathBuf, OsString)]) -> Vec<PathBuf> {
    let parts = |folder: &PathBuf| -> Vec<OsString> {
        let parts = folder.components().filter(|part| matches!(part, Component::Normal(_)));
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let all: Vec<Vec<OsString>> = images.iter().map(|(folder, _)| parts(folder)).collect();
    let Some(first) = all.first() else { return Vec::new() };
    let same = |other: &Vec<OsString>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let common = all.iter().map(same).min().unwrap_or(0);
    all.iter().map(|parts| parts[common..].iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[(&str, &str)]) -> (Vec<(String, String)>, bool) {
        let images: Vec<(PathBuf, OsString)> =
            images.iter().map(|(folder, file)| (folder.into(), file.into())).collect();
        let Names { all, twice, .. } = Names::of(&images);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        (all.iter().map(|n| (text(&n.drawn), text(&n.stem))).collect(), twice.is_some())
    }

    #[test]
    fn folders_are_kept_where_two_images_have_one_name() {
        let drawn = |images: &[(&str, &str)]| -> Vec<String> {
            names(images).0.into_iter().map(|(drawn, _)| drawn).collect()
        };
        let different = [("/p/x", "1.jpg"), ("/p/y", "2.png"), ("/p/y/z", "3.webp")];
        assert_eq!(drawn(&different), ["1.jpg", "2.png", "3.jpg"]);
        assert!(!names(&different).1);
        let same = [("/p/x", "1.jpg"), ("/p/y", "1.jpg"), ("/p", "2.jpg"), ("/p/y/z", "1.jpg")];
        assert_eq!(drawn(&same), ["x/1.jpg", "y/1.jpg", "2.jpg", "y/z/1.jpg"]);
        assert!(names(&same).1);
        // Nothing is written outside of the results' folder.
        assert_eq!(drawn(&[("../x", "1.jpg"), ("a/../y", "1.jpg")]), ["x/1.jpg", "a/y/1.jpg"]);
    }

    #[test]
    fn names_that_are_too_long_are_cut_and_stay_different() {
        let long = "\u{e4}".repeat(125);
        let (all, told) = names(&[("p", &format!("{long}.jpg")), ("p", &format!("{long}b.jpg"))]);
        assert!(!told);
        for ((drawn, stem), end) in all.iter().zip(["-1", "-2"]) {
            assert!(drawn.ends_with(&format!("\u{e4}{end}.jpg")) && drawn.len() < 240, "{drawn}");
            assert_eq!(*drawn, format!("{stem}.jpg"));
        }
        assert_eq!(shortened("a tea pot", 7), "a tea pot");
        assert_eq!(shortened(&"x.y ".repeat(100), 7).len(), LONGEST);
        assert!(shortened(&"x".repeat(300), 7).ends_with("x-7"));
    }

    #[test]
    fn no_two_images_share_a_file() {
        let (all, told) = names(&[
            ("p", "a.webp"),
            ("p", "a.jpg"),
            ("p", "a.bmp"),
            ("p", "a.png"),
            ("p", "odd"),
            ("p", "b.PNG"),
            ("p", "a.webp.jpg"),
        ]);
        assert!(!told);
        let (mut drawn, mut stems): (Vec<_>, Vec<_>) = all.iter().cloned().unzip();
        assert_eq!(
            drawn,
            ["a.webp-2.jpg", "a.jpg", "a.bmp.jpg", "a.png", "odd.jpg", "b.PNG", "a.webp.jpg"]
        );
        for names in [&mut drawn, &mut stems] {
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all.len(), "{names:?}");
        }
    }
}
