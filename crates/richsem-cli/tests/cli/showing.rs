//! `dataset show`: are my boxes right?

use serde_json::json;

use super::util::{Dir, SMALL_SYNTH};

/// Grey images of 64 by 48 pixels in `photos/`, and annotations of them: a box of each class in the first, a crowd
/// and a box beside the image in the second, and nothing in the others.
fn write_set(dir: &Dir, names: &[&str]) {
    for name in names {
        let file = dir.write(&format!("photos/{name}"), "");
        image::RgbImage::from_pixel(64, 48, image::Rgb([128; 3])).save(file).unwrap();
    }
    let images: Vec<_> = (1..)
        .zip(names)
        .map(|(id, name)| json!({"id": id, "file_name": name, "width": 64, "height": 48}))
        .collect();
    let boxed = |id: u32, image: u32, class: u32, bbox: [f64; 4], crowd: u32| json!({"id": id, "image_id": image, "category_id": class, "bbox": bbox, "iscrowd": crowd});
    let set = json!({
        "images": images,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            boxed(1, 1, 3, [1.0, 2.0, 30.0, 40.0], 0),
            boxed(2, 1, 7, [30.0, 2.0, 30.0, 40.0], 0),
            boxed(3, 2, 7, [5.0, 5.0, 40.0, 30.0], 1),
            boxed(4, 2, 3, [80.0, 5.0, 10.0, 10.0], 0),
        ],
    });
    dir.write("set.json", set.to_string());
}

#[test]
fn both_parts_of_a_set_are_drawn_the_same_way_each_time() {
    let dir = Dir::new();
    dir.command(&SMALL_SYNTH).ok();
    let shown = dir.command(&["dataset", "show", "set", "looks", "--limit", "5"]).ok();
    let shown = shown.stdout_has("part `train`").stdout_has("part `val`");
    let shown = shown.stdout_has("5 of 12 images").stderr_has("10 images drawn into looks");
    let files = dir.files("looks");
    assert_eq!(files.iter().filter(|file| file.starts_with("train/")).count(), 5, "{files:?}");
    assert_eq!(files.iter().filter(|file| file.starts_with("val/")).count(), 5, "{files:?}");
    // Each is in the table, with the boxes that the annotations have.
    let set = dir.json("set/val.json");
    let images = set["images"].as_array().unwrap();
    for file in files.iter().filter_map(|file| file.strip_prefix("val/")) {
        let is_it = |image: &&serde_json::Value| {
            image["file_name"].as_str().unwrap().ends_with(&format!("/{file}"))
        };
        let id = &images.iter().find(is_it).unwrap()["id"];
        let boxes = set["annotations"].as_array().unwrap();
        let boxes = boxes.iter().filter(|a| a["image_id"] == *id).count();
        assert_eq!(shown.row(&format!("looks/val/{file}"))[1], boxes.to_string(), "{shown:?}");
    }

    dir.command(&["dataset", "show", "set", "looks"])
        .fails(1)
        .stderr_has("error: `looks` exists and is not empty")
        .stderr_has("--overwrite");
    dir.command(&["dataset", "show", "set", "again", "--limit", "5"]).ok();
    for file in &files {
        let [first, second] = ["looks", "again"].map(|out| dir.read(&format!("{out}/{file}")));
        assert!(first == second, "{file}");
    }
    let more =
        ["dataset", "show", "set", "looks", "--limit", "99", "--split", "val", "--overwrite"];
    dir.command(&more).ok().stdout_has("\n6 images\n");
    assert_eq!(dir.files("looks").iter().filter(|file| !file.contains('/')).count(), 6);
}

#[test]
fn crowds_and_what_has_no_boxes_are_told_apart() {
    let dir = Dir::new();
    write_set(&dir, &["a.png", "b.png", "c.png"]);
    let show = ["dataset", "show", "set.json", "out", "--images", "photos"];
    let shown = dir.command(&show).ok();
    assert_eq!(shown.row("out/a.png")[1..], ["2", "–", "–", "cat", "1,", "dog", "1"]);
    assert_eq!(shown.row("out/b.png")[1..], ["1", "1", "1", "dog", "1"]);
    assert_eq!(shown.row("out/c.png")[1..], ["0", "–", "–", "no", "boxes"]);
    shown.stdout_has("1 image has no boxes: c.png").stdout_has("\n3 images\n");
    let grey = image::open(dir.path("photos/c.png")).unwrap();
    assert!(image::open(dir.path("out/c.png")).unwrap() == grey);
    assert!(image::open(dir.path("out/b.png")).unwrap() != grey);

    let only = |more: &[&str], out: &str| {
        let show = ["dataset", "show", "set.json", out, "--images", "photos"];
        dir.command(&[&show[..], more].concat())
    };
    only(&["--class", "CAT"], "cats").ok().stdout_has("\n2 images with it\n");
    assert_eq!(dir.files("cats"), ["a.png", "b.png"]);
    only(&["--image", "c.png", "--image", "b.png"], "two").ok();
    assert_eq!(dir.files("two"), ["b.png", "c.png"]);
}

#[test]
fn images_in_folders_and_archives_keep_their_names_apart() {
    let dir = Dir::new();
    write_set(&dir, &["x/1.png", "y/1.png", "y/2.bmp", "y/2.png"]);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir.path("photos")).unwrap();
    dir.write("photos.tar", archive.into_inner().unwrap());
    for (place, out) in [("photos", "out"), ("photos.tar", "out2")] {
        dir.command(&["dataset", "show", "set.json", out, "--images", place]).ok();
        assert_eq!(dir.files(out), ["x/1.png", "y/1.png", "y/2.jpg", "y/2.png"]);
    }
    assert!(dir.read("out/x/1.png") == dir.read("out2/x/1.png"));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let dir = Dir::new();
    write_set(&dir, &["a.png", "b.png"]);
    let show = |more: &[&str]| {
        let show = ["dataset", "show", "set.json", "out", "--images", "photos"];
        dir.command(&[&show[..], more].concat())
    };
    show(&["--class", "cats"])
        .fails(1)
        .stderr_has("--class: no class is called `cats` (the nearest: `cat`)");
    show(&["--image", "d.png"]).fails(1).stderr_has("--image: no image of the annotation file");
    show(&["--image", "a.png", "--class", "cat"]).fails(2).stderr_has("--class");
    show(&["--limit", "0"]).fails(2).stderr_has("--limit");
    dir.command(&["dataset", "show", "none", "out"])
        .fails(1)
        .stderr_has("no such file, folder or archive as `none`");
    dir.command(&["dataset", "show", "set.json", "set.json"])
        .fails(1)
        .stderr_has("error: `")
        .stderr_has("is a file, expected a folder");
    dir.write("empty/notes.txt", "");
    dir.command(&["dataset", "show", "set.json", "out", "--images", "empty"])
        .fails(1)
        .stderr_has("--images: the folder `empty` holds none of the annotated images");
    assert!(!dir.exists("out"));
    let before = dir.read("photos/a.png");
    dir.command(&["dataset", "show", "set.json", "photos", "--images", "photos", "--overwrite"])
        .fails(1)
        .stderr_has("photos/a.png` is an image of the set and would be overwritten");
    assert!(dir.read("photos/a.png") == before);
    // Nor another image of the set, which is not drawn itself.
    dir.write("mixed/a.webp", &before);
    dir.write("mixed/a.jpg", &before);
    let text = dir.text("set.json").replace("a.png", "a.webp").replace("b.png", "a.jpg");
    dir.write("mixed.json", text);
    let mixed = ["dataset", "show", "mixed.json", "mixed", "--images", "mixed", "--overwrite"];
    dir.command(&[&mixed[..], &["--image", "a.webp"]].concat())
        .fails(1)
        .stderr_has("mixed/a.jpg` is an image of the set and would be overwritten");
    // One that cannot be read does not stop the others.
    dir.write("photos/a.png", "no image");
    show(&[]).fails(1).stderr_has("skipped: ").stderr_has("1 of 2 images could not be read");
    assert_eq!(dir.files("out"), ["b.png"]);
}

/// Drawn images would be images without labels of a set whose images are those of a folder.
#[test]
fn nothing_is_drawn_where_all_images_are_the_sets() {
    let dir = Dir::new();
    write_set(&dir, &["a.png", "b.png"]);
    for name in ["a.png", "b.png"] {
        dir.write(&format!("yolo/images/train/{name}"), dir.read(&format!("photos/{name}")));
    }
    dir.write("yolo/labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n");
    dir.write("yolo/data.yaml", "train: images/train\nnames: [cat]\n");
    let show = |output: &str| dir.command(&["dataset", "show", "yolo", output]);
    show("yolo/images/train/looks")
        .fails(1)
        .stderr_has("where all images are read")
        .stderr_has("hint: choose a folder that is not in it");
    assert!(!dir.exists("yolo/images/train/looks"));
    show("yolo/looks").ok();
}
