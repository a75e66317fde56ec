//! Results as files.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use richsem::{
    boxes::{Cxcywh, Xywh, Xyxy},
    detector::Detector,
    draw::{self, Labeled},
    error::write_atomically,
    image::{RgbImage, imageops},
    models::scored_box::ScoredBox,
    plural::counted,
    predict::to_detections,
    vocabulary::ClassIndex,
};

use super::{Args, ImageResult, Written, inputs::Inputs};
use crate::{
    names::{Name, shortened},
    output,
};

/// Files of all images together.
pub(super) const JSON: &str = "detections.json";
pub(super) const CSV: &str = "detections.csv";
pub(super) const CLASSES: &str = "classes.txt";

/// Writes what is written of all images together. Gives what could not be: one form that fails takes no other along.
pub(super) fn all(
    args: &Args,
    found: &[ImageResult],
    inputs: &Inputs,
    detector: &Detector,
) -> Vec<String> {
    let mut written = Vec::new();
    if args.writes(Written::Json) {
        written.push(write_json(&args.output.join(JSON), found, inputs, detector));
    }
    if args.writes(Written::Csv) {
        written.push(write_csv(&args.output.join(CSV), found, detector));
    }
    if args.writes(Written::Yolo) {
        written.push(write_yolo(&args.output, found, inputs, detector));
    }
    written.into_iter().filter_map(|written| written.err().map(|e| format!("{e:#}"))).collect()
}

/// Writes what is written of an image: with boxes drawn, and each box cut out. Gives what could not be.
pub(super) fn images(
    args: &Args,
    image: RgbImage,
    name: &Name,
    boxes: &[ScoredBox],
    detector: &Detector,
) -> Vec<String> {
    let mut written = Vec::new();
    if args.writes(Written::Crops) {
        written.push(crops(&args.output, &image, &name.stem, boxes, detector));
    }
    if args.writes(Written::Images) {
        written.push(draw_boxes(image, &args.output.join(&name.drawn), boxes, detector));
    }
    written.into_iter().filter_map(|written| written.err().map(|e| e.to_string())).collect()
}

/// A name for the folder of a class: letters, digits and a few signs are kept.
fn folder_name(name: &str, class: ClassIndex) -> String {
    let plain = |c: char| c.is_alphanumeric() || [' ', '-', '_', '.'].contains(&c);
    let name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let name = name.trim_matches(['.', ' ']);
    if name.is_empty() { "_".to_owned() } else { shortened(name, class.0 as usize + 1) }
}

/// The file of a crop, below the output folder; `number` is that of its box in the image.
fn crop(stem: &Path, number: usize, found: &ScoredBox, detector: &Detector) -> PathBuf {
    let class = &detector.vocabulary().category(found.class).name;
    let folder = Path::new("crops").join(folder_name(class, found.class));
    let mut file = folder.join(stem).into_os_string();
    file.push(format!("-{}.jpg", number + 1));
    file.into()
}

/// The files of all crops of an image, below the output folder.
pub(super) fn crops_of(image: &ImageResult, inputs: &Inputs, detector: &Detector) -> Vec<PathBuf> {
    let stem = &inputs.result_names[image.number].stem;
    let boxes = image.boxes.iter().enumerate();
    boxes.map(|(number, found)| crop(stem, number, found, detector)).collect()
}

/// The file of an image's labels, below the output folder.
pub(super) fn label(name: &Name) -> PathBuf {
    let mut file = Path::new("labels").join(&name.stem).into_os_string();
    file.push(".txt");
    file.into()
}

/// Makes the folder of a file.
fn make_parent(file: &Path) -> richsem::Result<()> {
    if let Some(folder) = file.parent() {
        fs_err::create_dir_all(folder)?;
    }
    Ok(())
}

fn crops(
    output: &Path,
    image: &RgbImage,
    stem: &Path,
    boxes: &[ScoredBox],
    detector: &Detector,
) -> richsem::Result<()> {
    for (number, found) in boxes.iter().enumerate() {
        let Xyxy([x0, y0, x1, y1]) = found.bbox;
        let (left, top) = (x0.floor() as u32, y0.floor() as u32);
        let width = (x1.ceil() as u32).min(image.width()).saturating_sub(left);
        let height = (y1.ceil() as u32).min(image.height()).saturating_sub(top);
        if width == 0 || height == 0 {
            continue;
        }
        let file = output.join(crop(stem, number, found, detector));
        make_parent(&file)?;
        let cut = imageops::crop_imm(image, left, top, width, height).to_image();
        draw::save(&cut, &file)?;
    }
    Ok(())
}

/// A text file an image, and the classes' names in the order of their numbers.
fn write_yolo(
    output: &Path,
    found: &[ImageResult],
    inputs: &Inputs,
    detector: &Detector,
) -> Result<()> {
    for ImageResult { number, size: [width, height], boxes, .. } in found {
        let file = output.join(label(&inputs.result_names[*number]));
        make_parent(&file)?;
        let mut text = String::new();
        for found in boxes {
            let Cxcywh([x, y, w, h]) = found.bbox.to_cxcywh(*width, *height);
            let (class, score) = (found.class.0, found.score);
            let _ = writeln!(text, "{class} {x:.6} {y:.6} {w:.6} {h:.6} {score:.6}");
        }
        write_atomically(&file, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    let names: Vec<&str> =
        detector.vocabulary().categories().iter().map(|class| &*class.name).collect();
    write_atomically(&output.join(CLASSES), |out| Ok(writeln!(out, "{}", names.join("\n"))?))?;
    Ok(())
}

/// A value of a table: in quotes where it needs them (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn write_csv(path: &Path, found: &[ImageResult], detector: &Detector) -> Result<()> {
    let mut text = String::from("file,class,score,x,y,width,height\n");
    for ImageResult { image, boxes, .. } in found {
        let file = quoted(&image.to_string_lossy());
        for found in boxes {
            let Xywh([x, y, w, h]) = found.bbox.to_xywh();
            let class = quoted(&detector.vocabulary().category(found.class).name);
            let score = found.score;
            let _ = writeln!(text, "{file},{class},{score:.6},{x:.2},{y:.2},{w:.2},{h:.2}");
        }
    }
    write_atomically(path, |out| Ok(out.write_all(text.as_bytes())?))?;
    Ok(())
}

fn draw_boxes(
    mut image: RgbImage,
    drawn: &Path,
    boxes: &[ScoredBox],
    detector: &Detector,
) -> richsem::Result<()> {
    let label = |found: &ScoredBox| {
        let category = detector.vocabulary().category(found.class);
        Labeled {
            bbox: found.bbox,
            class_name: category.name.clone(),
            color_key: category.id.0.unsigned_abs(),
            score: Some(found.score),
            dashed: false,
        }
    };
    draw::draw(&mut image, &boxes.iter().map(label).collect::<Vec<_>>());
    make_parent(drawn)?;
    draw::save(&image, drawn)
}

/// Writes COCO's results format, with names of files and classes added.
fn write_json(
    path: &Path,
    found: &[ImageResult],
    inputs: &Inputs,
    detector: &Detector,
) -> Result<()> {
    let mut records = Vec::new();
    let mut left_out = BTreeMap::<&str, usize>::new();
    for ImageResult { image_id, image, boxes, .. } in found {
        for record in to_detections(*image_id, boxes, detector.vocabulary()) {
            let class = detector.vocabulary().class_of(record.category_id);
            let name = class.map(|class| &*detector.vocabulary().category(class).name);
            let Some(category_id) = inputs.ids.get(record.category_id) else {
                *left_out.entry(name.unwrap_or_default()).or_default() += 1;
                continue;
            };
            records.push(serde_json::json!({
                "image_id": inputs.written_id(record.image_id),
                "category_id": category_id,
                "bbox": record.bbox.0,
                "score": record.score,
                "file_name": image.to_string_lossy(),
                "category_name": name,
            }));
        }
    }
    if let Some(first) = left_out.keys().next() {
        output::note(format!(
            "{}: left out, of classes that the annotations do not have: {} of {}, as `{first}`",
            path.display(),
            counted(left_out.values().sum(), "box"),
            counted(left_out.len(), "class")
        ));
    }
    write_atomically(path, |out| {
        for (i, record) in records.iter().enumerate() {
            out.write_all(if i == 0 { b"[\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *out, record).map_err(std::io::Error::from)?;
        }
        Ok(out.write_all(if records.is_empty() { b"[]\n" } else { b"\n]\n" })?)
    })?;
    Ok(())
}
