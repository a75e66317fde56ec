//! Which images are meant, and what their results are called.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use richsem::{
    data::{
        image_store::unpacking,
        listing::{EXTENSIONS, PassedOver, is_image},
    },
    error::read_text,
};

use crate::{
    names::{Name, Names},
    output,
};

/// Every image meant by `inputs` (files, folders and all folders in them, patterns, lists of paths, and `-`: paths
/// from stdin), each once, in the order given; within a folder or pattern by name; and what was passed over. What
/// lies in `results`, where an earlier run may have drawn images, is not meant by a folder around it.
pub(crate) fn collect(inputs: &[PathBuf], results: &Path) -> Result<(Vec<PathBuf>, PassedOver)> {
    let mut images = Vec::new();
    let mut passed_over = PassedOver::default();
    let mut seen = HashSet::new();
    let mut given = Vec::new();
    for input in inputs {
        match input.to_str() {
            Some("-") => given.extend(from_stdin()?),
            _ if is_list(input) => given.extend(from_list(input)?),
            _ => given.push(input.clone()),
        }
    }
    let results = results.canonicalize().ok();
    for input in &given {
        for image in of_input(input, results.as_deref(), &mut passed_over)? {
            // The same image by two names, as through a folder and by itself.
            if seen.insert(image.canonicalize().unwrap_or_else(|_| image.clone())) {
                images.push(image);
            } else {
                let kind = "named a second time".to_owned();
                passed_over.count(kind, &image.to_string_lossy());
            }
        }
    }
    Ok((images, passed_over))
}

/// Those of the paths that are images, sorted.
fn images(paths: impl Iterator<Item = PathBuf>, passed_over: &mut PassedOver) -> Vec<PathBuf> {
    let mut images = Vec::new();
    for path in paths {
        let name = path.to_string_lossy();
        if path.is_dir() {
            passed_over.count("folders".to_owned(), &name);
        } else if !path.exists() {
            passed_over.add_dangling(&name);
        } else if !path.is_file() {
            passed_over.count("special files".to_owned(), &name);
        } else if !is_image_file(&path) {
            passed_over.add(&name);
        } else {
            images.push(path);
        }
    }
    images.sort();
    images
}

/// Whether a file is a list of images: by its ending.
fn is_list(input: &Path) -> bool {
    input.extension().is_some_and(|end| end.eq_ignore_ascii_case("txt")) && input.is_file()
}

/// The paths in a list, a line each, relative to the list.
fn from_list(list: &Path) -> Result<Vec<PathBuf>> {
    let text = read_text(list)?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let mut paths = Vec::new();
    for (number, line) in lines(&text) {
        if let Some(hint) = output::address_hint(Path::new(line)) {
            let list = list.display();
            return Err(anyhow!("{list}: line {number}: `{line}` is an address\n  hint: {hint}"));
        }
        let path = folder.join(line);
        if !path.exists() {
            return Err(anyhow!(
                "{}: line {number}: there is no file `{}`\n  hint: a list has a path a line, relative to \
                 the list",
                list.display(),
                path.display()
            ));
        }
        paths.push(path);
    }
    if paths.is_empty() {
        return Err(anyhow!("{}: the list is empty\n  hint: it has a path a line", list.display()));
    }
    Ok(paths)
}

/// Paths from stdin, relative to the working folder: a line each, or with zeros between them (`find -print0`).
fn from_stdin() -> Result<Vec<PathBuf>> {
    let text = std::io::read_to_string(std::io::stdin())
        .map_err(|error| anyhow!("-: stdin cannot be read: {error}"))?;
    let paths: Vec<PathBuf> = if text.contains('\0') {
        text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    } else {
        lines(&text).map(|(_, line)| PathBuf::from(line)).collect()
    };
    if paths.is_empty() {
        return Err(anyhow!(
            "-: no paths came from stdin\n  hint: for example find . -name '*.jpg' | richsem predict - …"
        ));
    }
    Ok(paths)
}

/// Lines that say something, with their numbers, from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // Some programs write a byte order mark into a pipe, too.
    let text = text.trim_start_matches('\u{feff}');
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Everything in a folder and in the folders in it, but for hidden folders and `results`. A link to a folder is
/// followed once.
fn walk(
    folder: &Path,
    results: Option<&Path>,
    seen: &mut HashSet<PathBuf>,
    passed_over: &mut PassedOver,
) -> Result<Vec<PathBuf>> {
    let place = folder.canonicalize()?;
    if results == Some(&*place) {
        passed_over.count("folders of results".to_owned(), &folder.to_string_lossy());
        return Ok(Vec::new());
    }
    if !seen.insert(place) {
        passed_over.count("folders seen before".to_owned(), &folder.to_string_lossy());
        return Ok(Vec::new());
    }
    let entries = fs_err::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.is_dir() {
            true if hidden => {
                passed_over.count("hidden folders".to_owned(), &path.to_string_lossy());
            }
            true => all.extend(walk(&path, results, seen, passed_over)?),
            false => all.push(path),
        }
    }
    Ok(all)
}

/// Endings of films.
const FILMS: [&str; 8] = ["mp4", "avi", "mov", "mkv", "webm", "m4v", "mpg", "wmv"];

/// What to do with an input that other programs take and this one does not; none for what may be an image.
fn instead(input: &Path) -> Option<String> {
    let text = input.to_str()?;
    let ending = input.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|other| ending.eq_ignore_ascii_case(other));
    let is_stream = text.starts_with("rtsp://") || text.starts_with("rtmp://");
    if is_stream || (!input.exists() && text.len() < 3 && text.parse::<u8>().is_ok()) {
        return Some(
            "there are no cameras: cut frames first (ffmpeg -i /dev/video0 frames/%05d.jpg)"
                .to_owned(),
        );
    }
    if let Some(hint) = output::address_hint(input) {
        return Some(hint);
    }
    let hint = if ends(&FILMS) {
        "films are not read: cut frames first (ffmpeg -i film.mp4 frames/%05d.jpg)"
    } else if let Some(hint) = unpacking(input) {
        return Some(format!("archives are not read here: {hint}"));
    } else if ends(&["parquet"]) {
        "tables are not read here: give the images themselves"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn of_input(
    input: &Path,
    results: Option<&Path>,
    passed_over: &mut PassedOver,
) -> Result<Vec<PathBuf>> {
    let name = input.display();
    let expected = || format!(".{}", EXTENSIONS.join(", ."));
    if input.is_dir() {
        let mut here = PassedOver::default();
        let paths = walk(input, results, &mut HashSet::new(), &mut here)?;
        let images = images(paths.into_iter(), &mut here);
        if images.is_empty() {
            let instead = if here.is_empty() { "it is empty".into() } else { here.to_string() };
            let has_results =
                |results: &Path| input.canonicalize().is_ok_and(|i| results.starts_with(i));
            let hint = match results.is_some_and(has_results) {
                true => "what lies in the folder of the results is not looked at: choose another --output".to_owned(),
                false => format!(
                    "the folders in it were searched, too; other names are found by a pattern, as '{name}/**/*.dat'"
                ),
            };
            return Err(anyhow!(
                "{name}: no images in this folder ({}): {instead}\n  hint: {hint}",
                expected()
            ));
        }
        passed_over.extend(here);
        return Ok(images);
    }
    if let Some(instead) = instead(input) {
        return Err(anyhow!("{name}: this is no image\n  hint: {instead}"));
    }
    if input.exists() {
        return Ok(vec![input.to_owned()]);
    }
    if input.is_symlink() {
        return Err(anyhow!(
            "{name}: this link points to a file that does not exist\n  hint: repair the link, or leave \
             it out"
        ));
    }
    let Some(pattern) = input.to_str().filter(|text| text.contains(['*', '?', '['])) else {
        return Err(anyhow!(
            "{name}: no such file or folder\n  hint: a pattern holds *, ? or [, as 'photos/*.jpg'"
        ));
    };
    let matches = glob::glob(pattern).map_err(|error| anyhow!("{name}: {error}"))?;
    let mut paths = not_utf8(pattern);
    for path in matches {
        paths.push(path.map_err(|error| anyhow!("{}: {}", error.path().display(), error.error()))?);
    }
    let mut here = PassedOver::default();
    let images = images(paths.into_iter(), &mut here);
    if images.is_empty() {
        let instead = if here.is_empty() { String::new() } else { format!(": {here}") };
        return Err(anyhow!(
            "{name}: no image ({}) has such a name{instead}\n  hint: put the pattern in quotes; ** \
             stands for folders at any depth",
            expected()
        ));
    }
    passed_over.extend(here);
    Ok(images)
}

/// Images whose names match the pattern, but are not UTF-8: `glob` passes over them silently. Folders
/// with such names are not found.
fn not_utf8(pattern: &str) -> Vec<PathBuf> {
    let (folders, name) = match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folders, name)) => (folders, name),
        None => (".", pattern),
    };
    let (Ok(folders), Ok(name)) = (glob::glob(folders), glob::Pattern::new(name)) else {
        return Vec::new();
    };
    let within = folders.flatten().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    within
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_none())
        .filter(|entry| name.matches(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

fn is_image_file(path: &Path) -> bool {
    is_image(&path.to_string_lossy())
}

/// What the results of each image are called in `folder`. Images that do not all have different file names keep
/// their folders, as far as these differ; a line then says so. Another one says where `stems`, which are names of
/// files too, are whole names.
///
/// # Errors
/// A drawn image would take the place of one of the images.
pub(crate) fn result_names(
    images: &[PathBuf],
    folder: &Path,
    stems: bool,
) -> Result<(Vec<Name>, Vec<String>)> {
    let place = |image: &PathBuf| {
        let parent = image.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Of two ways to one folder both are that folder.
        let parent = parent.canonicalize().or_else(|_| std::path::absolute(parent));
        (parent.unwrap_or_default(), image.file_name().unwrap_or_default().to_owned())
    };
    let names = Names::of(&images.iter().map(place).collect::<Vec<_>>());
    let inputs: HashSet<PathBuf> = images.iter().filter_map(|p| p.canonicalize().ok()).collect();
    let mut files = names.all.iter().map(|name| folder.join(&name.drawn));
    let overwritten = |file: &PathBuf| file.canonicalize().is_ok_and(|f| inputs.contains(&f));
    if let Some(file) = files.find(overwritten) {
        return Err(anyhow!(
            "--output: `{}` is one of the images and would be overwritten\n  hint: choose \
             another folder",
            file.display()
        ));
    }
    let told = names.twice.map(|name| {
        let name = name.to_string_lossy();
        format!("several images are called `{name}`: the results have the images' folders")
    });
    let whole = names.whole.filter(|_| stems).map(|name| {
        format!(
            "several images have one name but for the extension: files of such as `{0}` are called by the whole name \
             (labels/{0}.txt)",
            name.display()
        )
    });
    Ok((names.all, told.into_iter().chain(whole).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn files(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
        let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        for path in &paths {
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        paths
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn files_folders_and_patterns_give_each_image_once() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let all = files(
            folder,
            &["b.jpg", "a.PNG", "c.webp", "notes.txt", "in/d.jpg", "odd", "._a.PNG", "e.BMP"],
        );
        std::os::unix::fs::symlink("gone", folder.join("f.jpg")).unwrap();
        let results = folder.join("results");
        files(folder, &["results/old.jpg", ".git/x.jpg"]);
        std::os::unix::fs::symlink(folder, folder.join("in/loop")).unwrap();
        let collected = |inputs: &[PathBuf]| collect(inputs, &results).map_err(|e| e.to_string());
        let (images, passed_over) = collected(&[folder.to_owned()]).unwrap();
        assert_eq!(names(&images), ["a.PNG", "b.jpg", "c.webp", "e.BMP", "d.jpg"]);
        let name = |name: &str| folder.join(name).display().to_string();
        assert_eq!(
            passed_over.to_string(),
            format!(
                "1 .txt ({}), 1 broken link ({}), 1 folder of results ({}), 1 folder seen before ({}), 1 \
                 hidden ({}), 1 hidden folder ({}), 1 without an extension ({})",
                name("notes.txt"),
                name("f.jpg"),
                name("results"),
                name("in/loop"),
                name("._a.PNG"),
                name(".git"),
                name("odd")
            )
        );
        let both = [all[0].clone(), folder.join("[be].*"), all[5].clone()];
        let (images, passed_over) = collected(&both).unwrap();
        assert_eq!(names(&images), ["b.jpg", "e.BMP", "odd"]);
        assert!(passed_over.to_string().starts_with("1 named a second time ("), "{passed_over}");
        assert_eq!(names(&collected(&[folder.join("**/d.jpg")]).unwrap().0), ["d.jpg"]);
        for (input, problem) in [
            ("none.jpg", "no such file"),
            ("*.jxl", "no image"),
            ("*.txt", "1 .txt"),
            ("f.jpg", "this link points to a file that does not exist"),
            ("***", "wildcard"),
        ] {
            let error = collected(&[folder.join(input)]).unwrap_err();
            assert!(error.contains(input) && error.contains(problem), "{error}");
        }
        // A list, relative to itself.
        fs_err::write(folder.join("list.txt"), "\u{feff}b.jpg\n\n# a comment\nin/d.jpg\n").unwrap();
        let (images, _) = collected(&[folder.join("list.txt")]).unwrap();
        assert_eq!(names(&images), ["b.jpg", "d.jpg"]);
        fs_err::write(folder.join("none.txt"), "\n").unwrap();
        assert!(collected(&[folder.join("none.txt")]).unwrap_err().contains("the list is empty"));
        // The results' own folder, by any way to it, and one that has no other images.
        for (input, results) in [("in/loop", ""), ("in", "in"), ("only", "only/deep")] {
            files(folder, &["only/deep/a.jpg"]);
            let collected = collect(&[folder.join(input)], &folder.join(results));
            let error = collected.unwrap_err().to_string();
            assert!(error.contains("is not looked at: choose another --output"), "{error}");
        }
        fs_err::create_dir(folder.join("empty")).unwrap();
        assert!(collected(&[folder.join("empty")]).unwrap_err().contains("no images"));
    }

    #[test]
    fn a_name_that_is_not_utf8_is_not_passed_over() {
        use std::os::unix::ffi::OsStrExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        files(folder, &["in/a.jpg", "in/z.jpg", "out/b.jpg"]);
        let odd = folder.join("in").join(std::ffi::OsStr::from_bytes(b"caf\xe9.jpg"));
        if fs_err::write(&odd, "").is_err() {
            return; // a file system of UTF-8 names alone
        }
        let expected = [folder.join("in/a.jpg"), odd.clone(), folder.join("in/z.jpg")];
        for input in ["in", "in/*.jpg", "i?/*.j*", "**/[acz]*.jpg"] {
            assert_eq!(
                collect(&[folder.join(input)], &folder.join("none")).unwrap().0,
                expected,
                "{input}"
            );
        }
        assert_eq!(collect(&[folder.join("in/c*")], &folder.join("none")).unwrap().0, [odd]);
        assert_eq!(
            collect(&[folder.join("out/*")], &folder.join("none")).unwrap().0,
            [folder.join("out/b.jpg")]
        );
    }

    #[test]
    fn drawn_images_never_share_a_name_nor_take_that_of_an_image() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let images =
            files(folder, &["x/1.jpg", "y/1.jpg", "z/1-2.jpg", "z/odd", "z/P.PNG", "z/w.webp"]);
        let drawn = |images: &[PathBuf], out: &str| {
            let (names, told) = result_names(images, &folder.join(out), true)?;
            let drawn = names.into_iter().map(|name| name.drawn.display().to_string());
            anyhow::Ok((drawn.collect::<Vec<_>>(), told))
        };
        let (all, told) = drawn(&images, "out").unwrap();
        assert_eq!(all, ["x/1.jpg", "y/1.jpg", "z/1-2.jpg", "z/odd.jpg", "z/P.PNG", "z/w.jpg"]);
        assert!(told.join("").contains("`1.jpg`"));
        let (some, told) = drawn(&images[1..], "out").unwrap();
        assert_eq!(some, ["1.jpg", "1-2.jpg", "odd.jpg", "P.PNG", "w.jpg"]);
        assert_eq!(told, [""; 0]);
        // Drawn images keep their extensions; what is called without one cannot.
        let two = files(folder, &["z/g.jpg", "z/g.png"]);
        let told = |stems| result_names(&two, &folder.join("out"), stems).unwrap().1;
        assert_eq!(told(false), [""; 0]);
        assert!(told(true)[0].contains("labels/g.png.txt"), "{:?}", told(true));
        // One folder by two ways is one.
        std::os::unix::fs::symlink("x", folder.join("link")).unwrap();
        let two = files(folder, &["link/1.jpg", "x/2.jpg", "y/1.jpg"]);
        assert_eq!(drawn(&two, "out").unwrap().0, ["x/1.jpg", "x/2.jpg", "y/1.jpg"]);
        for (images, out) in [(&images[..1], "x"), (&images[..], "")] {
            let error = drawn(images, out).unwrap_err().to_string();
            assert!(error.contains("would be overwritten") && error.contains("1.jpg"), "{error}");
        }
    }
}
