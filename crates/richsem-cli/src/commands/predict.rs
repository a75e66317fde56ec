//! `richsem predict`.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow};
use richsem::{
    boxes::Xywh,
    checkpoint_io::safetensors,
    data::{
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource, ImageEntry},
        image_io,
        image_io::Orientation,
        image_store::ImageStore,
    },
    detector::Detector,
    draw::{self, Labeled},
    error::{guarded, write_atomically},
    image::RgbImage,
    models::network::{NetworkOutput, ScoredBox},
    predict::{
        Detected, ReadAhead, detect_batches, every_image_once, reading_order, to_detections,
    },
    stored_batch::StoredBatch,
    targets::LabelKnowledge,
};
use tch::Tensor;

use crate::{
    args::{self, InferenceArgs, OrientationArgs, score},
    exit, images, output,
    progress::Counter,
    table,
};

const HELP: &str = "\
Examples:
  richsem predict holiday.jpg --weights model.safetensors
  richsem predict photos/ 'more/*.png' --weights runs/tiny --conf 0.5 --output found
  richsem predict holiday.jpg --weights runs/tiny --no-images --raw raw.safetensors
  richsem predict --tensor in.safetensors --weights model.safetensors --raw raw.safetensors

Writes the images with boxes drawn, and detections.json: a list in COCO's results format
(image_id is the image's number, from 1, in the order read, or with --annotations its id there) with
file_name and category_name added; `eval --detections` goes by file_name. Files of these names in the
output folder are replaced. An image that cannot be read, or
whose name is not UTF-8, is named and skipped; the exit code is then 1.

--raw is before any choice by score, boxes as centre and size relative to the image. Of one image
the tensors have these names, of several <image_id>.pred_logits and <image_id>.pred_boxes; all are
held in memory until the end.

--tensor takes images as another program gave them to its network: `images` [B, 3, H, W], normalised
and padded, `mask` [B, H, W] (true = padding), and, if the proposals are to be the other program's,
`tokens` [B, Q]. All go through as one batch; --raw is all that is written.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Images, folders of images, or patterns ('photos/*.jpg')
    #[arg(required_unless_present = "tensor", value_name = "IMAGE|FOLDER|PATTERN")]
    inputs: Vec<PathBuf>,
    /// Detector: a .safetensors file, or a run folder (its best checkpoint)
    #[arg(long, value_name = "FILE|RUN")]
    weights: PathBuf,
    /// Folder to write
    #[arg(short, long, value_name = "FOLDER", default_value = "predictions")]
    output: PathBuf,
    /// Least score of what is drawn, written and listed, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    conf: f32,
    /// Writes what the network gives: pred_logits [B, Q, C] and pred_boxes [B, Q, 4]
    #[arg(long, value_name = "FILE.safetensors")]
    raw: Option<PathBuf>,
    /// Takes a normalised batch in place of images, and writes --raw alone
    #[arg(
        long,
        value_name = "FILE.safetensors",
        requires = "raw",
        conflicts_with_all = ["inputs", "output", "conf", "limit", "no_images", "orientation"]
    )]
    tensor: Option<PathBuf>,
    /// Takes the first N images alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Annotation file (COCO or LVIS JSON) that has these images: detections.json then has its ids. One
    /// without annotations (a test set's) serves, too
    #[arg(long, value_name = "FILE", conflicts_with = "tensor")]
    annotations: Option<PathBuf>,
    /// Images at once: more are faster on a GPU
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "tensor", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Draws nothing: detections.json and the table alone
    #[arg(long, alias = "no-pictures")]
    no_images: bool,
    #[command(flatten)]
    inference: InferenceArgs,
}

/// Rows that the table shows at most; `detections.json` has them all.
const MOST_ROWS: usize = 200;

/// What was found in one image.
struct Found {
    /// Which of the images it is, from 0.
    number: usize,
    image_id: i64,
    image: PathBuf,
    boxes: Vec<ScoredBox>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if let (Some(tensor), Some(raw)) = (&args.tensor, &args.raw) {
        return run_tensor(args, tensor, raw);
    }
    let (mut images, passed_over) = images::collect(&args.inputs)?;
    if !passed_over.is_empty() {
        output::note(format!("passed over: {passed_over}"));
    }
    images.truncate(args.limit.map_or(usize::MAX, |n| n as usize));
    let drawn = images::output_files(&images, &args.output)?;
    output::check_new_folder(&args.output, "--output")?;
    output::check_input(&args.weights, "--weights", "file or folder")?;
    if let Some(raw) = &args.raw {
        let weights = args::weights_file(&args.weights, "--weights")?;
        let images = images.iter().map(|image| (image.as_path(), "an image"));
        let inputs: Vec<_> = images.chain([(weights.as_path(), "--weights")]).collect();
        output::check_file(raw, "--raw")?;
        output::check_apart(raw, "--raw", &inputs)?;
    }
    let known = known_images(&images, args.annotations.as_deref())?;
    let detector = args::load_detector(&args.weights, &args.inference)?;
    output::make_folder(&args.output, "--output")?;

    let mut found: Vec<Found> = Vec::new();
    let mut raw = BTreeMap::new();
    let mut failed = 0;
    let counter = Counter::new("detecting", images.len());
    let (nameable, others): (Vec<usize>, Vec<usize>) =
        (0..images.len()).partition(|&i| images[i].to_str().is_some());
    for i in others {
        failed += 1;
        let path = images[i].display();
        counter.note(&format!(
            "skipped: {path}: the name is not UTF-8, the results could not hold it\n  hint: rename \
             the file"
        ));
    }
    let mut done = failed;
    let orientation = args.orientation.get();
    let draw = !args.no_images;
    let reading = Reading { batch: args.batch.into(), orientation, draw };
    if let Some(source) = source(&detector, &images, &known, &nameable, reading) {
        let take = |Detected { mut batch, output, found: boxes }: Detected| {
            for problem in &batch.skipped {
                failed += 1;
                counter.note(&format!("skipped: {problem}"));
            }
            done += batch.skipped.len() + batch.len();
            for (b, (target, mut boxes)) in batch.targets.iter().zip(boxes).enumerate() {
                let number = target.image_id as usize;
                let (image, image_id) = (&images[number], known[number].id);
                boxes.retain(|found| found.score >= args.conf);
                if let Some(original) = batch.originals.get_mut(b) {
                    draw_boxes(std::mem::take(original), &drawn[number], &boxes, &detector)?;
                }
                if let (Some(output), true) = (&output, args.raw.is_some()) {
                    let prefix =
                        if images.len() == 1 { String::new() } else { format!("{image_id}.") };
                    let own = |x: &Tensor| x.narrow(0, b as i64, 1).copy();
                    for (name, tensor) in &output.named {
                        raw.insert(format!("{prefix}{name}"), own(tensor));
                    }
                }
                found.push(Found { number, image_id, image: image.clone(), boxes });
            }
            counter.set(done, images.len());
            Ok(ControlFlow::Continue(()))
        };
        guarded(|| detect_batches(&detector, source, ReadAhead::default(), take))?;
    }
    found.sort_by_key(|found| found.number);
    drop(counter);
    if let Some(news) = detector.take_news() {
        output::note(news);
    }

    write_json(&args.output.join("detections.json"), &found, &detector)?;
    if let Some(path) = args.raw.as_ref().filter(|_| !raw.is_empty()) {
        safetensors::write(path, &raw, &safetensors::Metadata::new())?;
    }
    show(&found, &detector)?;
    let objects: usize = found.iter().map(|f| f.boxes.len()).sum();
    output::note(format!(
        "{objects} objects with a score of at least {} in {} images; results in {}",
        args.conf,
        found.len(),
        args.output.display()
    ));
    if failed > 0 {
        let of = images.len();
        return Err(anyhow!("{failed} of {of} images could not be read (named above)"));
    }
    Ok(exit::OK)
}

/// An image, by its number or by the annotation file.
#[derive(Clone, Copy)]
struct Known {
    /// Its number, from 1, or its id in the annotation file.
    id: i64,
    /// `[height, width]` there, if the file says.
    size: Option<[u32; 2]>,
}

/// What is known of each image.
fn known_images(images: &[PathBuf], annotations: Option<&Path>) -> Result<Vec<Known>> {
    let Some(file) = annotations else {
        return Ok((1..=images.len() as i64).map(|id| Known { id, size: None }).collect());
    };
    output::check_input_file(file, "--annotations")?;
    let dataset = Dataset::open_images(file)?;
    let names = dataset.image_names();
    let sizes: HashMap<i64, _> =
        dataset.images().iter().map(|image| (image.id, image.size)).collect();
    let known = images.iter().map(|image| {
        let id = names.id_of(&image.to_string_lossy(), None).map_err(|problem| {
            anyhow!(
                "--annotations: {}: {problem}\n  hint: give the annotation file of these very images, \
                 or leave the others out",
                file.display()
            )
        })?;
        Ok(Known { id, size: sizes.get(&id).copied().flatten() })
    });
    known.collect()
}

/// A batch that was normalised elsewhere, and nothing but what the network makes of it.
fn run_tensor(args: &Args, tensor: &Path, raw: &Path) -> Result<u8> {
    output::check_file(raw, "--raw")?;
    output::check_input_file(tensor, "--tensor")?;
    output::check_input(&args.weights, "--weights", "file or folder")?;
    let weights = args::weights_file(&args.weights, "--weights")?;
    output::check_apart(raw, "--raw", &[(tensor, "--tensor"), (&weights, "--weights")])?;
    let batch = StoredBatch::read(tensor)?;
    let detector = args::load_detector(&args.weights, &args.inference)?;
    let NetworkOutput { named } = detector.infer_stored(&batch)?;
    // Of all of them the first two axes are images and what is found in each.
    let sizes = named.first().map(|(_, tensor)| tensor.size()).unwrap_or_default();
    let tensors = named.into_iter().map(|(name, x)| (name.to_owned(), x)).collect();
    safetensors::write(raw, &tensors, &safetensors::Metadata::new())?;
    let (images, queries) = (sizes[0], sizes[1]);
    output::note(format!("{queries} queries in {images} images; results in {}", raw.display()));
    Ok(exit::OK)
}

/// How images are read.
#[derive(Clone, Copy)]
struct Reading {
    /// Images at once.
    batch: usize,
    orientation: Orientation,
    /// Whether they are kept, to be drawn on.
    draw: bool,
}

/// The images in batches, each with its number as its id; none if there are none.
fn source(
    detector: &Detector,
    images: &[PathBuf],
    known: &[Known],
    nameable: &[usize],
    Reading { batch, orientation, draw }: Reading,
) -> Option<DetectionSource> {
    // What cannot be read is told when it is its turn.
    let size = |&i: &usize| match batch {
        1 => None,
        _ => image_io::size(&images[i], orientation).ok(),
    };
    let padding = detector.config().model.padding();
    let sizes: Vec<_> = nameable.iter().map(size).collect();
    let order = reading_order(sizes.iter().copied(), padding, batch);
    let entry = |at: usize| ImageEntry {
        name: images[nameable[at]].to_string_lossy().into_owned(),
        id: nameable[at] as i64,
        size: known[nameable[at]].size.or(sizes[at]),
        boxes: Vec::new(),
        labels: Vec::new(),
        knowledge: LabelKnowledge::default(),
    };
    let entries: Vec<ImageEntry> = order.into_iter().map(entry).collect();
    // Names are whole paths, so the folder before them is none.
    let store = Arc::new(ImageStore::folder(PathBuf::new(), orientation));
    let broken = Arc::new(BrokenImages::new(usize::MAX));
    (!entries.is_empty()).then(|| {
        let every = every_image_once(detector, store, Arc::new(entries), batch, broken);
        DetectionSource { keep_originals: draw, ..every }
    })
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
        }
    };
    draw::draw(&mut image, &boxes.iter().map(label).collect::<Vec<_>>());
    draw::save(&image, drawn)
}

/// COCO's results format, with the names that it lacks.
fn write_json(path: &Path, found: &[Found], detector: &Detector) -> Result<()> {
    let mut records = Vec::new();
    for Found { image_id, image, boxes, .. } in found {
        for record in to_detections(*image_id, boxes, detector.vocabulary()) {
            let class = detector.vocabulary().class_of(record.category_id);
            let name = class.map(|class| &detector.vocabulary().category(class).name);
            records.push(serde_json::json!({
                "image_id": record.image_id,
                "category_id": record.category_id,
                "bbox": record.bbox.0,
                "score": record.score,
                "file_name": image.to_string_lossy(),
                "category_name": name,
            }));
        }
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

fn show(found: &[Found], detector: &Detector) -> Result<()> {
    let rows = found.iter().flat_map(|Found { image, boxes, .. }| {
        boxes.iter().map(|b| {
            let Xywh([x, y, w, h]) = b.bbox.to_xywh();
            vec![
                image.display().to_string(),
                detector.vocabulary().category(b.class).name.clone(),
                format!("{:.2}", b.score),
                format!("{x:.0}"),
                format!("{y:.0}"),
                format!("{w:.0}"),
                format!("{h:.0}"),
            ]
        })
    });
    let columns = ["<file", "<class", "score", "x", "y", "width", "height"];
    let total: usize = found.iter().map(|f| f.boxes.len()).sum();
    if total > 0 {
        output::print(table::table(&columns, rows.take(MOST_ROWS)))?;
    }
    if total > MOST_ROWS {
        output::note(format!("… and {} more in detections.json", total - MOST_ROWS));
    }
    Ok(())
}
