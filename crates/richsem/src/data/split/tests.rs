//! Sets that are divided and read again.

use serde_json::json;

use super::*;
use crate::data::formats::Opening;

static GO: AtomicBool = AtomicBool::new(false);

/// 40 images; class `a` in all, `b` in images 0 and 1, `c` in image 2 alone. From 6 on they are
/// pairs of Roboflow's copies.
fn write(folder: &Path) {
    let name = |i: usize| match i {
        0..6 => format!("shots/{i}.jpg"),
        _ => format!("shots/{}_jpg.rf.{i:032x}.jpg", i / 2),
    };
    std::fs::create_dir_all(folder.join("images/shots")).unwrap();
    let images: Vec<_> = (0..40)
        .map(|i| {
            std::fs::write(folder.join("images").join(name(i)), "").unwrap();
            json!({ "id": i + 1, "file_name": name(i), "width": 20, "height": 10 })
        })
        .collect();
    let mut boxes: Vec<(usize, usize)> = (0..40).map(|i| (i, 1)).collect();
    boxes.extend([(0, 2), (1, 2), (2, 3)]);
    let annotations: Vec<_> = boxes
        .iter()
        .enumerate()
        .map(|(id, (image, class))| {
            json!({ "id": id + 1, "image_id": image + 1, "category_id": class,
                    "bbox": [1, 2, 3.25, 4], "area": 13, "iscrowd": 0 })
        })
        .collect();
    let categories =
        json!([{ "id": 1, "name": "a" }, { "id": 2, "name": "b" }, { "id": 3, "name": "c" }]);
    let set = json!({ "images": images, "annotations": annotations, "categories": categories });
    std::fs::write(folder.join("all.json"), set.to_string()).unwrap();
}

fn division(parts: &[(&str, f64)]) -> Division {
    let parts = parts.iter().map(|&(name, share)| (name.to_owned(), share)).collect();
    Division { parts, group: None, seed: 0 }
}

#[test]
fn parts_have_all_images_once_and_the_set_reads_as_train_and_val() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    let how = Conversion::to(Target::Yolo);
    let report =
        divide(&input, &output, &division(&[("train", 8.0), ("val", 2.0)]), &how, &GO, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let class = |name: &str| report.classes.iter().find(|c| c.name == name).unwrap().images.clone();
    assert_eq!(class("b"), [1, 1]);
    assert_eq!(class("c"), [1, 0]);
    assert_eq!(report.groups, (17, 34));
    let open = |split: &str| {
        let split = Some(split.to_owned());
        Dataset::open_as(&output, &Opening { split, ..Opening::default() }).unwrap()
    };
    let (train, val) = (open("train"), open("val"));
    let names = |set: &Dataset| -> Vec<String> {
        set.images().iter().map(|image| image.file_name.clone()).collect()
    };
    let mut all = [names(&train), names(&val)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40);
    assert_eq!((train.images().len(), val.images().len()), (32, 8));
    let stem = |name: &String| name.split("_jpg.rf.").next().unwrap().to_owned();
    let of_train: Vec<String> = names(&train).iter().map(stem).collect();
    for name in names(&val).iter().filter(|name| name.contains(".rf.")) {
        assert!(!of_train.contains(&stem(name)), "copies of {name} are on both sides");
    }
    let whole = Dataset::open(&input).unwrap();
    let boxes = train.annotations().len() + val.annotations().len();
    assert_eq!(boxes, whole.annotations().len());
    let first = &train.annotations()[0];
    assert_eq!(first.bbox, whole.annotations()[0].bbox);
    assert_eq!(train.vocabulary().categories()[0].image_count, 32);
    assert!(train.images_at().is_some(), "images are found from the folder");
}

#[test]
fn a_pattern_says_what_stays_together() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    // All of a folder: there is one, so that nothing is left for the other part.
    let whole = Division {
        group: Some(Regex::new("^(.*)/").unwrap()),
        ..division(&[("train", 0.5), ("val", 0.5)])
    };
    let how = Conversion::to(Target::Coco);
    let error =
        divide(&input, &output, &whole, &how, &GO, &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap_err()
            .to_string();
    assert!(error.contains("`val` would have no images"), "{error}");
    assert!(!output.exists());
}

#[test]
fn wrong_parts_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    for (parts, problem) in [
        (&[("train", 1.0)][..], "at least two"),
        (&[("a", 1.0), ("a", 1.0)], "twice"),
        (&[("a", 1.0), ("b/c", 1.0)], "b/c"),
        (&[("a", 1.0), ("b", 0.0)], "above 0"),
        (&[("a", 1.0), ("b", f64::NAN)], "above 0"),
        (&[("a", 0.7), ("b", 0.7)], "got 1.4"),
        (&[("a", 0.5), ("b", 0.25)], "got 0.75"),
    ] {
        let how = Conversion::to(Target::Coco);
        let error = divide(&input, &output, &division(parts), &how, &GO, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains(problem) && error.contains("parts"), "{error}");
    }
}

#[test]
fn shares_of_one_and_whole_numbers_are_taken() {
    for parts in [
        &[("a", 0.8), ("b", 0.2)][..],
        &[("a", 0.33), ("b", 0.33), ("c", 0.33)],
        &[("a", 80.0), ("b", 20.0)],
        &[("a", 4.0), ("b", 1.0)],
    ] {
        let shares = shares(&division(parts)).unwrap();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_and_matches_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    let divided = |pattern: &str| {
        let division = Division {
            group: Some(Regex::new(pattern).unwrap()),
            ..division(&[("train", 0.8), ("val", 0.2)])
        };
        divide(&input, &output, &division, &Conversion::to(Target::Coco), &GO, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
    };
    let error = divided("^xyz").unwrap_err().to_string();
    assert!(error.contains("group") && error.contains("none of the 40 names"), "{error}");
    assert!(!output.exists());
    assert_eq!(divided(r"shots/([0-9]+)_jpg").unwrap().matched, Some((34, 40)));
}

/// Records go to their part whole; an image without a file is counted.
#[test]
fn parts_keep_every_field_of_their_records() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    let mut whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&input).unwrap()).unwrap();
    whole["info"] = json!({ "year": 2020 });
    for (list, field) in [("images", "video_id"), ("annotations", "segmentation")] {
        for record in whole[list].as_array_mut().unwrap() {
            record[field] = json!([[record["id"], 1.5]]);
        }
    }
    std::fs::write(&input, whole.to_string()).unwrap();
    std::fs::remove_file(folder.path().join("images/shots/3.jpg")).unwrap();
    let report = divide(
        &input,
        &output,
        &division(&[("train", 0.8), ("val", 0.2)]),
        &Conversion::to(Target::Coco),
        &GO,
        &mut |_| std::ops::ControlFlow::Continue(()),
    )
    .unwrap();
    assert!(report.written.fields_counted);
    let lost = report.written.not_carried.lost();
    assert_eq!(
        lost.iter().map(|l| (&*l.what, l.count)).collect::<Vec<_>>(),
        [("images without a file", 1)]
    );
    let mut found = [0, 0];
    for part in ["train", "val"] {
        let path = output.join(format!("{part}.json"));
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(file["info"], whole["info"]);
        for (at, (list, field)) in
            [("images", "video_id"), ("annotations", "segmentation")].into_iter().enumerate()
        {
            for record in file[list].as_array().unwrap() {
                assert_eq!(record[field], json!([[record["id"], 1.5]]));
                found[at] += 1;
            }
        }
    }
    assert_eq!(found, [40, 43]);
}

/// Texts for ids are known of the file, also in a part that shows none of them.
#[test]
fn what_is_not_read_is_kept_where_a_part_has_no_annotation() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    let images: Vec<_> = (0..40)
        .map(|i| json!({ "id": format!("i{i}"), "file_name": format!("{i}.jpg"), "width": 9, "height": 9 }))
        .collect();
    let annotations: Vec<_> = (0..2)
        .map(|i| {
            json!({ "id": format!("a{i}"), "image_id": format!("i{i}"), "category_id": i + 1,
                    "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6]] })
        })
        .collect();
    let categories = json!([{ "id": 1, "name": "a" }, { "id": 2, "name": "b" }]);
    let set = json!({ "images": images, "annotations": annotations, "categories": categories });
    std::fs::write(&input, set.to_string()).unwrap();
    divide(
        &input,
        &output,
        &division(&[("tiny", 0.05), ("train", 0.95)]),
        &Conversion::to(Target::Coco),
        &GO,
        &mut |_| std::ops::ControlFlow::Continue(()),
    )
    .unwrap();
    let read = |part: &str| -> serde_json::Value {
        let text = std::fs::read(output.join(format!("{part}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(read("tiny")["annotations"], json!([]));
    let train = read("train");
    let kept = train["annotations"].as_array().unwrap();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|a| a["segmentation"] == json!([[1, 2, 4, 2, 4, 6]])), "{kept:?}");
}

/// Groups that follow from counts follow from those of the part; others are somebody's choice, and stay.
#[test]
fn groups_follow_the_counts_of_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("all.json"), folder.path().join("out"));
    let images: Vec<_> = (1..=12)
        .map(|i| {
            json!({ "id": i, "file_name": format!("{i}.jpg"), "width": 9, "height": 9,
                         "neg_category_ids": [], "not_exhaustive_category_ids": [2] })
        })
        .collect();
    let annotations: Vec<_> = (1..=24)
        .map(|i| {
            json!({ "id": i, "image_id": (i - 1) % 12 + 1, "category_id": (i - 1) / 12 + 1,
                         "bbox": [1, 2, 3, 4], "area": 12 })
        })
        .collect();
    let class = |id: i64, group: &str| json!({ "id": id, "name": format!("c{id}"), "image_count": 12, "instance_count": 12, "frequency": group });
    let categories = [class(1, "c"), class(2, "f")];
    let set = json!({ "images": images, "annotations": annotations, "categories": categories });
    std::fs::write(&input, set.to_string()).unwrap();
    let report = divide(
        &input,
        &output,
        &division(&[("train", 0.75), ("val", 0.25)]),
        &Conversion::to(Target::Coco),
        &GO,
        &mut |_| std::ops::ControlFlow::Continue(()),
    )
    .unwrap();
    let told = "were counted in `train`; frequency of 1 class is as the file has it";
    assert!(report.written.notes.iter().any(|note| note.ends_with(told)), "{report:?}");
    for part in ["train", "val"] {
        let text = std::fs::read(output.join(format!("{part}.json"))).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let of = |field: &str| [&file["categories"][0][field], &file["categories"][1][field]];
        assert_eq!(of("image_count"), [9, 9]);
        assert_eq!(of("frequency"), ["r", "f"]);
    }
}
