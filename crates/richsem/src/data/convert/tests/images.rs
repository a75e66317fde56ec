//! Where images are afterwards.

use super::{super::PutImages, *};
use crate::data::{formats::archive_that_leads_out, image_store::ImageStore};

fn putting(put: PutImages) -> Conversion {
    Conversion { images: Some(put), ..Conversion::to(Target::Coco) }
}

/// Two parts with their images in a folder, or all in one archive below `set/photos/`.
fn with_images(archived: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    two_parts(folder.path());
    let images = tempfile::tempdir().unwrap();
    let place = if archived { images.path() } else { &folder.path().join("images") };
    for name in ["a.png", "b.png", "c.png"] {
        write(place, name, name);
    }
    if archived {
        for part in ["train", "val"] {
            let path = folder.path().join(format!("{part}.json"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("file_name\": \"", "file_name\": \"set/photos/"))
                .unwrap();
        }
        let archive = std::fs::File::create(folder.path().join("images.tar")).unwrap();
        let mut builder = tar::Builder::new(archive);
        builder.append_dir_all("set/photos", images.path()).unwrap();
        builder.finish().unwrap();
    }
    folder
}

fn names(report: &ConversionReport) -> Vec<String> {
    let sets = report.splits.iter().map(|split| Dataset::open(&split.path).unwrap());
    sets.flat_map(|set| set.images().iter().map(|i| i.file_name.clone()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn images_of_a_folder_stay_or_are_put_beside() {
    let input = with_images(false);
    let own = input.path().join("images");
    for (how, link) in [
        (Conversion::to(Target::Coco), None),
        (putting(PutImages::Keep), None),
        (putting(PutImages::Copy), Some(false)),
        (putting(PutImages::Link), Some(true)),
    ] {
        let output = tempfile::tempdir().unwrap();
        let report = convert(input.path(), output.path(), &how, &GO, &mut go_on).unwrap();
        let put = output.path().join("images");
        assert_eq!(names(&report), ["a.png", "b.png", "c.png"]);
        let expected = if link.is_some() { &put } else { &own };
        assert!(report.splits.iter().all(|split| split.images_at.as_ref() == Some(expected)));
        assert_eq!(put.exists(), link.is_some());
        if let Some(link) = link {
            assert_eq!(std::fs::read(put.join("b.png")).unwrap(), b"b.png");
            assert_eq!(put.join("b.png").is_symlink(), link);
        }
    }
}

#[test]
fn images_of_an_archive_are_copied_without_the_folders_that_all_are_in() {
    let input = with_images(true);
    let output = tempfile::tempdir().unwrap();
    let report = to(Target::Coco, input.path(), output.path()).unwrap();
    assert_eq!(names(&report), ["a.png", "b.png", "c.png"]);
    assert_eq!(std::fs::read(output.path().join("images/c.png")).unwrap(), b"c.png");
    // Or they stay, under their names in it.
    let output = tempfile::tempdir().unwrap();
    let report =
        convert(input.path(), output.path(), &putting(PutImages::Keep), &GO, &mut go_on).unwrap();
    assert_eq!(names(&report)[0], "set/photos/a.png");
    assert_eq!(report.splits[0].images_at, Some(input.path().join("images.tar")));
    let output = tempfile::tempdir().unwrap();
    let error = convert(input.path(), output.path(), &putting(PutImages::Link), &GO, &mut go_on)
        .unwrap_err();
    assert!(error.to_string().contains("is an archive: no link can lead into it"), "{error}");
}

#[test]
fn parts_with_images_in_different_places_keep_them_apart() {
    let input = tempfile::tempdir().unwrap();
    two_parts(input.path());
    for (part, images) in [("train", &["a.png", "b.png"][..]), ("val", &["c.png"])] {
        let json = input.path().join(format!("{part}.json"));
        std::fs::create_dir(input.path().join(part)).unwrap();
        std::fs::rename(json, input.path().join(part).join("_annotations.coco.json")).unwrap();
        for image in images {
            write(&input.path().join(part), image, image);
        }
    }
    let output = tempfile::tempdir().unwrap();
    let report =
        convert(input.path(), output.path(), &putting(PutImages::Copy), &GO, &mut go_on).unwrap();
    for (split, image) in report.splits.iter().zip(["b.png", "c.png"]) {
        let place = output.path().join("images").join(&split.name);
        assert_eq!(split.images_at.as_ref(), Some(&place));
        assert_eq!(std::fs::read(place.join(image)).unwrap(), image.as_bytes());
        // Found again without being named.
        assert_eq!(Dataset::open(&split.path).unwrap().images_at(), Some(&*place));
    }
}

#[test]
fn images_that_are_not_there_are_told() {
    let input = with_images(false);
    std::fs::remove_file(input.path().join("images/a.png")).unwrap();
    let output = tempfile::tempdir().unwrap();
    let report =
        convert(input.path(), output.path(), &putting(PutImages::Copy), &GO, &mut go_on).unwrap();
    assert_eq!(lost(&report), ["train: images without a file 1"]);
    assert_eq!(report.not_carried.lost()[0].instead, "annotated all the same: a.png");
    // None at all is a mistake.
    let opening = Opening { images: Some(output.path().to_owned()), ..Opening::default() };
    let how = Conversion { opening, ..putting(PutImages::Copy) };
    let other = tempfile::tempdir().unwrap();
    let message =
        convert(input.path(), other.path(), &how, &GO, &mut go_on).unwrap_err().to_string();
    assert!(message.contains("images: "), "{message}");
    std::fs::remove_dir_all(input.path().join("images")).unwrap();
    let message = convert(input.path(), other.path(), &putting(PutImages::Link), &GO, &mut go_on)
        .unwrap_err()
        .to_string();
    assert!(message.contains("are not known") && message.contains("hint"), "{message}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_outside_the_output() {
    let archive = archive_that_leads_out();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("in/deep/er");
    let report = to(Target::Coco, archive.path(), &output).unwrap();
    assert_eq!((names(&report), report.splits[0].images), (vec!["a.png".to_owned()], 1));
    assert!(output.join("images/a.png").exists());
    let all = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((all(folder.path()), all(&folder.path().join("in")), all(&output)), (1, 1, 2));
    // Under its name in the archive it would be refused by whoever reads the file.
    let kept = folder.path().join("kept");
    let message = convert(archive.path(), &kept, &putting(PutImages::Keep), &GO, &mut go_on)
        .unwrap_err()
        .to_string();
    assert!(message.contains("leaves the image root") && !kept.exists(), "{message}");
}

#[test]
fn sizes_that_the_annotations_lack_are_the_images() {
    let input = tempfile::tempdir().unwrap();
    two_parts(input.path());
    let path = input.path().join("train.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(r#", "width": 8, "height": 6"#, "")).unwrap();
    std::fs::create_dir(input.path().join("images")).unwrap();
    image::RgbImage::new(8, 6).save(input.path().join("images/a.png")).unwrap();
    write(input.path(), "images/b.png", "no image");
    let output = tempfile::tempdir().unwrap();
    let report = to(Target::Coco, input.path(), output.path()).unwrap();
    let train = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!((train.images()[0].size, train.images()[1].size), (Some([6, 8]), None));
    assert_eq!(report.notes, ["read from the images, because the annotations lack it: 1 size"]);
    assert_eq!(lost(&report), ["train: images of unknown size 1"]);
    let store = ImageStore::open(&input.path().join("images"), Default::default()).unwrap();
    assert_eq!(store.size("a.png").unwrap(), [6, 8]);
}

#[test]
fn a_place_without_the_images_is_refused_and_one_with_those_of_a_part_is_told() {
    let input = with_images(false);
    let places = tempfile::tempdir().unwrap();
    let (none, some) = (places.path().join("none"), places.path().join("some"));
    write(&none, "other.png", "");
    write(&some, "a.png", "");
    for target in [Target::Coco, Target::Lvis, Target::Yolo] {
        let at = |images: &Path| {
            let mut how = Conversion::to(target);
            how.opening.images = Some(images.to_owned());
            let output = places.path().join("out");
            let done = convert(input.path(), &output, &how, &GO, &mut go_on);
            let _ = std::fs::remove_dir_all(&output);
            done.map_err(|error| error.to_string())
        };
        let error = at(&none).unwrap_err();
        let says = format!("`{}` holds none of the annotated images, as `a.png`", none.display());
        assert!(error.starts_with("`images`: ") && error.contains(&says), "{error}");
        if target == Target::Yolo {
            // It needs the images of every part.
            assert!(at(&some).unwrap_err().contains("expected the images, found none"));
            continue;
        }
        let notes = at(&some).unwrap().notes;
        let says = format!("val: none of its images is in {}", some.display());
        assert!(notes.contains(&says), "{notes:?}");
    }
}
