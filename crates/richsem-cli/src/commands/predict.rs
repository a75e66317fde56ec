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
    collective::Collective,
    data::{
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource, ImageEntry},
        formats::Opening,
        image_io::Orientation,
        image_store::ImageStore,
    },
    detections::ImageNames,
    detector::Detector,
    draw::{self, Labeled},
    error::{guarded, write_atomically},
    evaluate::Thresholds,
    image::RgbImage,
    models::{network::NetworkOutput, scored_box::ScoredBox},
    predict::{
        Detected, ReadAhead, detect_batches, every_image_once, reading_order, to_detections,
    },
    stored_batch::StoredBatch,
    targets::LabelKnowledge,
};
use tch::Tensor;

use crate::{
    args::{self, InferenceArgs, OrientationArgs, SetArgs, score},
    exit, images,
    least::Least,
    output,
    progress::Counter,
    ranks::{self, Member, ProcessArgs},
    table,
};

const HELP: &str = "\
Examples:
  richsem predict holiday.jpg --weights model.safetensors
  richsem predict photos/ 'more/*.png' --weights runs/tiny --conf 0.5 --output found
  richsem predict photos/ --weights runs/tiny --thresholds thresholds.toml
  richsem predict holiday.jpg --weights runs/tiny --no-images --raw raw.safetensors
  richsem predict --tensor in.safetensors --weights model.safetensors --raw raw.safetensors

The output folder gets every image with its boxes drawn, and detections.json: a list in COCO's
results format, with file_name and category_name added. image_id is the number of the image, from 1,
in the order read; with --annotations it is the id there. `eval --detections` finds images by
file_name. Files of the same names are replaced. An image that cannot be read, or whose name is not
UTF-8, is named and skipped; the exit code is then 1.

--raw has all queries, whatever their score. Boxes are centre and size, relative to the image. For
one image the tensors have the names below. For several images they are <image_id>.pred_logits and
<image_id>.pred_boxes, and all are held in memory until the end.

--tensor takes images as another program gave them to its network: `images` [B, 3, H, W], normalised
and padded; `mask` [B, H, W], true = padding; and `tokens` [B, Q], if the network is to use the other
program's proposals. They go through the network as one batch. Only --raw is written.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Images, folders of images, or patterns ('photos/*.jpg')
    #[arg(required_unless_present = "tensor", value_name = "IMAGE|FOLDER|PATTERN")]
    inputs: Vec<PathBuf>,
    /// Detector: a .safetensors file, or a run folder (its best checkpoint)
    #[arg(long, value_name = "FILE|RUN")]
    weights: PathBuf,
    /// Folder to write to
    #[arg(short, long, value_name = "FOLDER", default_value = "predictions")]
    output: PathBuf,
    /// Smallest score of boxes that are drawn, written and listed, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    conf: f32,
    /// Smallest score of each class (TOML, as `eval --save-thresholds` writes it), instead of one for all.
    /// Classes are found by name; those that are not in the file have its global one
    #[arg(long, value_name = "FILE.toml", conflicts_with = "conf")]
    thresholds: Option<PathBuf>,
    /// Also writes what the network gives to this file: pred_logits [B, Q, C] and pred_boxes [B, Q, 4]
    #[arg(long, value_name = "FILE.safetensors")]
    raw: Option<PathBuf>,
    /// Reads a normalised batch instead of images, and writes only --raw
    #[arg(
        long,
        value_name = "FILE.safetensors",
        requires = "raw",
        conflicts_with_all = ["inputs", "output", "conf", "thresholds", "limit", "no_images", "orientation"]
    )]
    tensor: Option<PathBuf>,
    /// Uses only the first N images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Annotation file (COCO or LVIS JSON) that lists these images: detections.json then has its ids. The
    /// file of a test set, without annotations, is enough
    #[arg(long, value_name = "FILE", conflicts_with = "tensor")]
    annotations: Option<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    /// Images of a batch. More are faster on a GPU
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "tensor", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Draws nothing: writes only detections.json, and prints the table
    #[arg(long, alias = "no-pictures")]
    no_images: bool,
    #[command(flatten)]
    inference: InferenceArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// Rows that the table shows at most. `detections.json` has them all.
const MOST_ROWS: usize = 200;

pub(crate) fn run(args: &Args) -> Result<u8> {
    ranks::run(&args.processes, |member| run_as(args, member))
}

/// The work of one process.
fn run_as(args: &Args, member: &Member) -> Result<u8> {
    if args.raw.is_some() && member.has_others() {
        return Err(anyhow!(
            "--raw: the network's own output is written by one process\n  hint: leave out --gpus, torchrun or \
             srun"
        ));
    }
    if let (Some(tensor), Some(raw)) = (&args.tensor, &args.raw) {
        return run_tensor(args, tensor, raw);
    }
    let inputs = Inputs::find(args)?;
    let chosen = args.thresholds.as_deref().map(Thresholds::read).transpose()?;
    let worker = member.worker(&args.inference.device)?;
    let detector = args::load_detector_on(&args.weights, &args.inference, worker.device)?;
    let least = Least::of(args.conf, chosen.as_ref(), detector.vocabulary());
    output::make_folder(&args.output, "--output")?;
    let others = worker.collective.as_ref();
    let results = detect(args, &inputs, (&detector, &least), others)?;
    let Some(Results { images, raw, failed, .. }) = results else { return Ok(exit::OK) };

    write_json(&args.output.join("detections.json"), &images, &inputs, &detector)?;
    if let Some(path) = args.raw.as_ref().filter(|_| !raw.is_empty()) {
        safetensors::write(path, &raw, &safetensors::Metadata::new())?;
    }
    show(&images, &detector)?;
    let objects: usize = images.iter().map(|result| result.boxes.len()).sum();
    output::note(format!(
        "{objects} objects with a score of at least {} in {}; results in {}",
        least.name,
        counted(images.len()),
        args.output.display()
    ));
    if failed > 0 {
        let of = inputs.images.len();
        return Err(anyhow!("{failed} of {of} images could not be read (named above)"));
    }
    Ok(exit::OK)
}

/// The images to detect in. The three lists are parallel.
struct Inputs {
    images: Vec<PathBuf>,
    /// The file that each image is drawn into.
    drawn: Vec<PathBuf>,
    known: Vec<ImageInfo>,
    /// The images of the annotation file; none without one.
    names: ImageNames,
}

impl Inputs {
    /// Finds the images. Refuses what could not be written later, and results that would take the
    /// place of an input.
    fn find(args: &Args) -> Result<Self> {
        let (mut images, passed_over) = images::collect(&args.inputs)?;
        if !passed_over.is_empty() {
            output::note(format!("passed over: {passed_over}"));
        }
        images.truncate(args.limit.map_or(usize::MAX, |n| n as usize));
        let drawn = images::output_files(&images, &args.output)?;
        output::check_new_folder(&args.output, "--output")?;
        output::check_input(&args.weights, "--weights", "file or folder")?;
        if let Some(file) = &args.thresholds {
            output::check_input_file(file, "--thresholds")?;
        }
        if let Some(raw) = &args.raw {
            let weights = args::weights_file(&args.weights, "--weights")?;
            let images = images.iter().map(|image| (image.as_path(), "an image"));
            let inputs: Vec<_> = images.chain([(weights.as_path(), "--weights")]).collect();
            output::check_file(raw, "--raw")?;
            output::check_apart(raw, "--raw", &inputs)?;
        }
        let (known, names) = known_images(&images, args.annotations.as_deref(), &args.set)?;
        Ok(Self { images, drawn, known, names })
    }

    /// An image's id as the annotation file has it.
    fn written_id(&self, id: i64) -> serde_json::Value {
        self.names.text_of(id).map_or_else(|| id.into(), Into::into)
    }
}

/// What was found in one image.
struct ImageResult {
    /// Position of the image among all of them.
    number: usize,
    image_id: i64,
    image: PathBuf,
    boxes: Vec<ScoredBox>,
}

/// What was found in all images.
#[derive(Default)]
struct Results {
    /// In the order of the images, those left out that could not be read.
    images: Vec<ImageResult>,
    /// The tensors of `--raw`, by name.
    raw: BTreeMap<String, Tensor>,
    /// Number of images that could not be read.
    failed: usize,
    /// What was wrong with them.
    problems: Vec<String>,
}

impl Results {
    /// Takes the results of one batch, and draws its images.
    fn take(
        &mut self,
        args: &Args,
        inputs: &Inputs,
        (detector, least): (&Detector, &Least),
        Detected { mut batch, output, found }: Detected,
    ) -> richsem::Result<()> {
        self.failed += batch.skipped.len();
        self.problems.append(&mut batch.skipped);
        for (b, (target, mut boxes)) in batch.targets.iter().zip(found).enumerate() {
            let number = target.image_id as usize;
            let (image, image_id) = (&inputs.images[number], inputs.known[number].id);
            boxes.retain(|found| least.keeps(found));
            if let Some(original) = batch.originals.get_mut(b) {
                draw_boxes(std::mem::take(original), &inputs.drawn[number], &boxes, detector)?;
            }
            if let (Some(output), true) = (&output, args.raw.is_some()) {
                let alone = inputs.images.len() == 1;
                let written = inputs.names.text_of(image_id);
                let written = written.map_or_else(|| image_id.to_string(), str::to_owned);
                let prefix = if alone { String::new() } else { format!("{written}.") };
                let own = |x: &Tensor| x.narrow(0, b as i64, 1).copy();
                for (name, tensor) in &output.named {
                    self.raw.insert(format!("{prefix}{name}"), own(tensor));
                }
            }
            self.images.push(ImageResult { number, image_id, image: image.clone(), boxes });
        }
        Ok(())
    }

    /// What all processes found, for rank 0.
    fn gather(mut self, inputs: &Inputs, collective: &dyn Collective) -> Result<Option<Self>> {
        let images = self.images.into_iter().map(|image| (image.number, image.boxes));
        let own: Shared = (images.collect(), std::mem::take(&mut self.problems));
        let Some(all) = collective.gather(serde_json::to_vec(&own)?)? else { return Ok(None) };
        let mut images = Vec::new();
        for (rank, text) in all.iter().enumerate() {
            let (found, problems): Shared = serde_json::from_slice(text)?;
            if rank > 0 {
                self.failed += problems.len();
                problems.iter().for_each(|problem| output::note(format!("skipped: {problem}")));
            }
            images.extend(found.into_iter().map(|(number, boxes)| ImageResult {
                number,
                image_id: inputs.known[number].id,
                image: inputs.images[number].clone(),
                boxes,
            }));
        }
        Ok(Some(Self { images, ..self }))
    }
}

/// What a process tells of its images: their numbers and what was found in each, and what could not be read.
type Shared = (Vec<(usize, Vec<ScoredBox>)>, Vec<String>);

/// Detects in every image, the processes in turn; for rank 0. An image that cannot be read is named on stderr and
/// counted.
fn detect(
    args: &Args,
    inputs: &Inputs,
    (detector, least): (&Detector, &Least),
    collective: &dyn Collective,
) -> Result<Option<Results>> {
    let Inputs { images, known, .. } = inputs;
    let mut results = Results::default();
    let counter = Counter::new("detecting", images.len());
    let (nameable, others): (Vec<usize>, Vec<usize>) =
        (0..images.len()).partition(|&i| images[i].to_str().is_some());
    for i in others {
        results.failed += 1;
        let path = images[i].display();
        counter.note(&format!(
            "skipped: {path}: the name is not UTF-8, so the results cannot hold it\n  hint: rename \
             the file"
        ));
    }
    let mut done = results.failed;
    let reading = Reading {
        batch: args.batch.into(),
        orientation: args.orientation.get(),
        draw: !args.no_images,
    };
    if let Some(mut source) = source(detector, images, known, &nameable, reading) {
        source.share = source.share.of_process(collective);
        let take = |detected: Detected| {
            for problem in &detected.batch.skipped {
                counter.note(&format!("skipped: {problem}"));
            }
            done += detected.batch.skipped.len() + detected.batch.len();
            results.take(args, inputs, (detector, least), detected)?;
            counter.set(done, images.len());
            Ok(ControlFlow::Continue(()))
        };
        guarded(|| detect_batches(detector, source, ReadAhead::default(), take))?;
    }
    drop(counter);
    // Nothing is told twice, and the names of files are the same for all.
    let results = match collective.world() {
        1 => Some(results),
        _ => results.gather(inputs, collective)?,
    };
    let Some(mut results) = results else { return Ok(None) };
    results.images.sort_by_key(|result| result.number);
    if let Some(news) = detector.take_news() {
        output::note(news);
    }
    Ok(Some(results))
}

/// What is known of an image before it is read.
#[derive(Clone, Copy)]
struct ImageInfo {
    /// Its id in the annotation file, or its number there if ids are texts; without a file its number, from 1.
    id: i64,
    /// `[height, width]` in the annotation file, if the file says.
    size: Option<[u32; 2]>,
}

/// Id and size of each image, from the annotation file if there is one.
/// Gives the names of the file's images too.
fn known_images(
    images: &[PathBuf],
    annotations: Option<&Path>,
    set: &SetArgs,
) -> Result<(Vec<ImageInfo>, ImageNames)> {
    let Some(file) = annotations else {
        let numbered = (1..=images.len() as i64).map(|id| ImageInfo { id, size: None });
        return Ok((numbered.collect(), ImageNames::default()));
    };
    output::check_input(file, "--annotations", "file or folder")?;
    let opening = Opening { annotated: false, pixels: false, ..set.opening() };
    let dataset = Dataset::open_as(file, &opening)?;
    let names = dataset.image_names();
    let sizes: HashMap<i64, _> =
        dataset.images().iter().map(|image| (image.id, image.size)).collect();
    let known = images.iter().map(|image| {
        let id = names.id_of(&image.to_string_lossy(), None).map_err(|problem| {
            anyhow!(
                "--annotations: {}: {problem}\n  hint: give an annotation file that lists all of \
                 these images, or leave out the others",
                file.display()
            )
        })?;
        Ok(ImageInfo { id, size: sizes.get(&id).copied().flatten() })
    });
    let known = known.collect::<Result<_>>()?;
    Ok((known, names))
}

/// Runs the network on a batch that another program normalised, and writes what it gives.
fn run_tensor(args: &Args, tensor: &Path, raw: &Path) -> Result<u8> {
    output::check_file(raw, "--raw")?;
    output::check_input_file(tensor, "--tensor")?;
    output::check_input(&args.weights, "--weights", "file or folder")?;
    let weights = args::weights_file(&args.weights, "--weights")?;
    output::check_apart(raw, "--raw", &[(tensor, "--tensor"), (&weights, "--weights")])?;
    let batch = StoredBatch::read(tensor)?;
    let detector = args::load_detector(&args.weights, &args.inference)?;
    let NetworkOutput { named } = detector.infer_stored(&batch)?;
    // The first two axes of every tensor are the image and what is found in it.
    let sizes = named.first().map(|(_, tensor)| tensor.size()).unwrap_or_default();
    let tensors = named.into_iter().map(|(name, x)| (name.to_owned(), x)).collect();
    safetensors::write(raw, &tensors, &safetensors::Metadata::new())?;
    let (images, queries) = (sizes[0], sizes[1]);
    let images = counted(images as usize);
    output::note(format!("{queries} queries in {images}; results in {}", raw.display()));
    Ok(exit::OK)
}

/// As `1 image` or `2 images`.
fn counted(images: usize) -> String {
    format!("{images} image{}", if images == 1 { "" } else { "s" })
}

/// How images are read, and whether they are drawn on.
#[derive(Clone, Copy)]
struct Reading {
    /// Images of a batch, at least 1.
    batch: usize,
    orientation: Orientation,
    /// Whether batches keep the images as they were read.
    draw: bool,
}

/// The images in batches. Each has its position as its id. None if there are no images.
fn source(
    detector: &Detector,
    images: &[PathBuf],
    known: &[ImageInfo],
    nameable: &[usize],
    Reading { batch, orientation, draw }: Reading,
) -> Option<DetectionSource> {
    // Names are whole paths: there is no folder before them.
    let store = Arc::new(ImageStore::folder(PathBuf::new(), orientation));
    let names: Vec<_> = nameable.iter().map(|&i| images[i].to_string_lossy()).collect();
    // An image that cannot be read is named when its batch is built.
    let sizes: Vec<_> = match batch {
        1 => vec![None; names.len()],
        _ => store.sizes(&names).into_iter().map(|size| size?.ok()).collect(),
    };
    let padding = detector.config().model.padding();
    let order = reading_order(sizes.iter().copied(), padding, batch);
    let entry = |at: usize| ImageEntry {
        name: names[at].clone().into_owned(),
        id: nameable[at] as i64,
        size: known[nameable[at]].size.or(sizes[at]),
        boxes: Vec::new(),
        labels: Vec::new(),
        knowledge: LabelKnowledge::default(),
    };
    let entries: Vec<ImageEntry> = order.into_iter().map(entry).collect();
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

/// Writes COCO's results format, with names of files and classes added.
fn write_json(
    path: &Path,
    found: &[ImageResult],
    inputs: &Inputs,
    detector: &Detector,
) -> Result<()> {
    let mut records = Vec::new();
    for ImageResult { image_id, image, boxes, .. } in found {
        for record in to_detections(*image_id, boxes, detector.vocabulary()) {
            let class = detector.vocabulary().class_of(record.category_id);
            let name = class.map(|class| &detector.vocabulary().category(class).name);
            records.push(serde_json::json!({
                "image_id": inputs.written_id(record.image_id),
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

fn show(found: &[ImageResult], detector: &Detector) -> Result<()> {
    let rows = found.iter().flat_map(|ImageResult { image, boxes, .. }| {
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
