//! `richsem predict`.

mod inputs;
mod place;
mod written;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use richsem::{
    boxes::Xywh,
    checkpoint_io::safetensors,
    collective::{Collective, Pace},
    detector::Detector,
    error::guarded,
    evaluate::Thresholds,
    models::{network::NetworkOutput, scored_box::ScoredBox},
    plural::counted,
    predict::{Detected, ReadAhead, detect_batches},
    stored_batch::StoredBatch,
};
use tch::Tensor;

use self::{
    inputs::{Inputs, Reading, source},
    place::Place,
};
use crate::{
    args::{self, InferenceArgs, MergeArgs, OrientationArgs, SetArgs, score},
    exit,
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
  find . -name '*.jpg' | richsem predict - --weights runs/tiny --formats json,csv
  richsem predict aerial/ --weights runs/tiny --tiles 640 --overlap 0.2
  richsem predict photos/ --weights runs/tiny --thresholds thresholds.toml
  richsem predict holiday.jpg --weights runs/tiny --no-images --raw raw.safetensors
  richsem predict --tensor in.safetensors --weights model.safetensors --raw raw.safetensors

Images are files, folders (searched through all folders in them), patterns, lists (a .txt with a path a line,
relative to the list), or - (paths from stdin).

The output folder gets what --formats names:
  images   every image with its boxes drawn, NAME.jpg or NAME.png
  json     detections.json: COCO's results format, with file_name and category_name added
  yolo     labels/NAME.txt: class, centre, size and score, a line a box; classes in classes.txt
  csv      detections.csv: file, class, score, x, y, width, height
  crops    crops/CLASS/NAME-N.jpg: each box cut out
NAME is that of the image. If several images have one name, it is their path below the folder that holds all
of them. What an earlier predict wrote into the folder (its list is .predicted) is replaced where it has the same
name; any other file that would be is refused before detection begins.

--tiles detects in the whole image and in tiles of it, for objects that are small in it. What several of them
see of one object is joined. --iou leaves out boxes that overlap a better one of their class: a DETR learns
to give one box an object, which takes time, so this is for detectors that were trained for a short one. `eval` has
both, too. Boxes are cut off at the image; those of `eval` are not, as in COCO's evaluation.

In detections.json image_id is the number of the image, from 1,
in the order read; with --annotations it is the id there, and so is category_id, where its classes have the
detector's names. `eval --detections` finds images by
file_name. An image that cannot be read, or whose name is not
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
    /// Images, folders of images, patterns ('photos/*.jpg'), lists (.txt), or - for paths from stdin
    #[arg(required_unless_present = "tensor", value_name = "IMAGE|FOLDER|PATTERN|LIST|-")]
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
    /// What is written: images, json, yolo, csv, crops; several with commas between them
    #[arg(
        long,
        value_enum,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "images,json",
        hide_possible_values = true
    )]
    formats: Vec<Written>,
    #[command(flatten)]
    merge: MergeArgs,
    /// Also writes what the network gives to this file: pred_logits [B, Q, C] and pred_boxes [B, Q, 4]
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "tiles")]
    raw: Option<PathBuf>,
    /// Reads a normalised batch instead of images, and writes only --raw
    #[arg(
        long,
        value_name = "FILE.safetensors",
        requires = "raw",
        conflicts_with_all = ["inputs", "output", "conf", "thresholds", "limit", "no_images", "orientation", "formats", "iou", "tiles"]
    )]
    tensor: Option<PathBuf>,
    /// Uses only the first N images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Annotation file (COCO or LVIS JSON) that lists these images: detections.json then has its ids, of
    /// images and of classes. The
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
    /// Draws nothing: as --formats without images
    #[arg(long, alias = "no-pictures")]
    no_images: bool,
    #[command(flatten)]
    inference: InferenceArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// A form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    Images,
    Json,
    Yolo,
    Csv,
    Crops,
}

impl Args {
    /// Whether that form is wanted.
    fn writes(&self, form: Written) -> bool {
        self.formats.contains(&form) && !(form == Written::Images && self.no_images)
    }
}

/// Rows that the table shows at most: those with the highest scores. Files have all.
const MOST_ROWS: usize = 40;

pub(crate) fn run(args: &Args) -> Result<u8> {
    check_formats(args)?;
    ranks::run(&args.processes, |member| run_as(args, member))
}

/// Refuses to write nothing at all.
fn check_formats(args: &Args) -> Result<()> {
    let anything = args.formats.iter().any(|form| args.writes(*form));
    if anything || args.raw.is_some() {
        return Ok(());
    }
    Err(anyhow!(
        "--no-images with --formats images: nothing would be written\n  hint: leave one of them out, or name another \
         form, as --formats json"
    ))
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
    let mut inputs = Inputs::find(args)?;
    let place = Place::find(args, &inputs.result_names)?;
    let chosen = args.thresholds.as_deref().map(Thresholds::read).transpose()?;
    let worker = member.worker(&args.inference.device)?;
    let detector = args::load_detector_on(&args.weights, &args.inference, worker.device)?;
    inputs.find_classes(&detector)?;
    let least = Least::of(args.conf, chosen.as_ref(), detector.vocabulary());
    output::make_folder(&args.output, "--output")?;
    place.list()?;
    let started = Instant::now();
    let others = worker.collective.as_ref();
    let results = detect(args, &inputs, (&detector, &least), others)?;
    let Some(Results { images, raw, failed, highest, mut unwritten, .. }) = results else {
        return Ok(exit::OK);
    };
    let seconds = started.elapsed().as_secs_f64();

    unwritten.extend(written::all(args, &images, &inputs, &detector));
    if let Some(path) = args.raw.as_ref().filter(|_| !raw.is_empty()) {
        let written = safetensors::write(path, &raw, &safetensors::Metadata::new());
        unwritten.extend(written.err().map(|error| error.to_string()));
    }
    place.tell_left(args, &images, &inputs, &detector);
    show(args, &images, &detector)?;
    let objects: usize = images.iter().map(|result| result.boxes.len()).sum();
    let best = match highest.filter(|_| objects == 0) {
        Some(score) => format!(" (highest: {score:.2})"),
        None => String::new(),
    };
    output::note(format!(
        "{} with a score of at least {}{best} in {}, {:.0} ms each; results in {}",
        counted(objects, "object"),
        least.name,
        counted(images.len(), "image"),
        1e3 * seconds / images.len().max(1) as f64,
        args.output.display()
    ));
    let unread = (failed > 0).then(|| {
        let of = counted(inputs.images.len(), "image");
        format!("{failed} of {of} could not be read (named above)")
    });
    if let Some(first) = unwritten.first() {
        unread.into_iter().for_each(output::warn);
        let more = match unwritten.len() - 1 {
            0 => String::new(),
            n => format!("\n  and {}", counted(n, "other such problem")),
        };
        return Err(anyhow!("not all results could be written: {first}{more}"));
    }
    unread.map_or(Ok(exit::OK), |unread| Err(anyhow!(unread)))
}

/// What was found in one image.
struct ImageResult {
    /// Position of the image among all of them.
    number: usize,
    image_id: i64,
    image: PathBuf,
    /// Its width and height, in pixels.
    size: [u32; 2],
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
    /// The highest score of all, whatever is kept; none where nothing was detected.
    highest: Option<f32>,
    /// Why files of images could not be written. The other results are whole.
    unwritten: Vec<String>,
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
            let [height, width] = target.original_size;
            let original = batch.originals.get_mut(b).map(std::mem::take);
            boxes =
                args.merge.get().boxes(detector, original.as_ref(), boxes, args.batch.into())?;
            let scores = boxes.iter().map(|found| found.score);
            self.highest = scores.chain(self.highest).max_by(f32::total_cmp);
            boxes.retain(|found| least.keeps(found));
            for found in &mut boxes {
                found.bbox = found.bbox.clipped(width, height);
            }
            if let Some(original) = original {
                let name = &inputs.result_names[number];
                let problems = written::images(args, original, name, &boxes, detector);
                self.unwritten.extend(problems);
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
            let (image, size) = (image.clone(), [width, height]);
            self.images.push(ImageResult { number, image_id, image, size, boxes });
        }
        Ok(())
    }

    /// What all processes found, for rank 0.
    fn gather(mut self, inputs: &Inputs, collective: &dyn Collective) -> Result<Option<Self>> {
        let images = self.images.into_iter().map(|image| (image.number, image.size, image.boxes));
        let (problems, unwritten) =
            (std::mem::take(&mut self.problems), std::mem::take(&mut self.unwritten));
        let own: Shared = (images.collect(), problems, unwritten, self.highest);
        let Some(all) = collective.gather(serde_json::to_vec(&own)?)? else { return Ok(None) };
        let mut images = Vec::new();
        for (rank, text) in all.iter().enumerate() {
            let (found, problems, unwritten, highest): Shared = serde_json::from_slice(text)?;
            self.unwritten.extend(unwritten);
            // None is below every score.
            self.highest = self.highest.into_iter().chain(highest).reduce(f32::max);
            if rank > 0 {
                self.failed += problems.len();
                problems.iter().for_each(|problem| output::note(format!("skipped: {problem}")));
            }
            images.extend(found.into_iter().map(|(number, size, boxes)| ImageResult {
                number,
                size,
                image_id: inputs.known[number].id,
                image: inputs.images[number].clone(),
                boxes,
            }));
        }
        Ok(Some(Self { images, ..self }))
    }
}

/// What a process tells of its images: their numbers and sizes and what was found in each, what could not be read and
/// what could not be written, and the highest score.
type Shared = (Vec<(usize, [u32; 2], Vec<ScoredBox>)>, Vec<String>, Vec<String>, Option<f32>);

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
        keep: args.writes(Written::Images)
            || args.writes(Written::Crops)
            || args.merge.get().tiling.is_some(),
    };
    if let Some(mut source) = source(detector, images, known, &nameable, reading) {
        source.share = source.share.of_process(collective);
        let store = Arc::clone(&source.store);
        collective.pace(Pace::Long);
        let take = |detected: Detected| {
            for problem in &detected.batch.skipped {
                counter.note(&format!("skipped: {problem}"));
            }
            done += detected.batch.skipped.len() + detected.batch.len();
            results.take(args, inputs, (detector, least), detected)?;
            counter.set(done, images.len());
            collective.pace(Pace::Share);
            Ok(ControlFlow::Continue(()))
        };
        guarded(|| detect_batches(detector, source, ReadAhead::default(), take))?;
        if let Some(note) = store.several() {
            counter.note(&note);
        }
    }
    drop(counter);
    // Those who are done wait for the others as long as these get on.
    collective.pace(Pace::Share);
    // Nothing is told twice, and the names of files are the same for all.
    let results = match collective.world() {
        1 => Some(results),
        _ => results.gather(inputs, collective)?,
    };
    collective.pace(Pace::Long);
    let Some(mut results) = results else { return Ok(None) };
    results.images.sort_by_key(|result| result.number);
    if let Some(news) = detector.take_news() {
        output::note(news);
    }
    Ok(Some(results))
}

/// Runs the network on a batch that another program normalised, and writes what it gives.
fn run_tensor(args: &Args, tensor: &Path, raw: &Path) -> Result<u8> {
    output::check_file(raw, "--raw")?;
    output::check_input_file(tensor, "--tensor")?;
    output::check_input(&args.weights, "--weights", "file or folder")?;
    let weights = args::weights_file(&args.weights, "--weights")?;
    let inputs = [(tensor, "--tensor"), (&*weights, "--weights"), (&*args.weights, "--weights")];
    output::check_apart(raw, "--raw", &inputs)?;
    let batch = StoredBatch::read(tensor)?;
    let detector = args::load_detector(&args.weights, &args.inference)?;
    let NetworkOutput { named } = detector.infer_stored(&batch)?;
    // The first two axes of every tensor are the image and what is found in it.
    let sizes = named.first().map(|(_, tensor)| tensor.size()).unwrap_or_default();
    let tensors = named.into_iter().map(|(name, x)| (name.to_owned(), x)).collect();
    safetensors::write(raw, &tensors, &safetensors::Metadata::new())?;
    let (images, queries) = (sizes[0], sizes[1]);
    let queries = counted(queries as usize, "query");
    let images = counted(images as usize, "image");
    output::note(format!("{queries} in {images}; results in {}", raw.display()));
    Ok(exit::OK)
}

/// A table of the boxes with the highest scores, in the images' order, and where the others are.
fn show(args: &Args, found: &[ImageResult], detector: &Detector) -> Result<()> {
    let all = found
        .iter()
        .flat_map(|ImageResult { image, boxes, .. }| boxes.iter().map(move |found| (image, found)));
    let mut shown: Vec<_> = all.enumerate().collect();
    let total = shown.len();
    shown.sort_by(|(_, (_, a)), (_, (_, b))| b.score.total_cmp(&a.score));
    shown.truncate(MOST_ROWS);
    shown.sort_by_key(|(at, _)| *at);
    let rows = shown.into_iter().map(|(_, (image, found))| {
        let Xywh([x, y, w, h]) = found.bbox.to_xywh();
        vec![
            image.display().to_string(),
            detector.vocabulary().category(found.class).name.clone(),
            format!("{:.2}", found.score),
            format!("{x:.0}"),
            format!("{y:.0}"),
            format!("{w:.0}"),
            format!("{h:.0}"),
        ]
    });
    let columns = ["<file", "<class", "score", "x", "y", "width", "height"];
    if total > 0 {
        output::print(table::table(&columns, rows))?;
    }
    if total > MOST_ROWS {
        let files = [(Written::Json, written::JSON), (Written::Csv, written::CSV)];
        let all = match files.into_iter().find(|(form, _)| args.writes(*form)) {
            Some((_, file)) => args.output.join(file).display().to_string(),
            None => "--formats json or csv".to_owned(),
        };
        output::note(format!(
            "… and {} with lower scores ({all})",
            counted(total - MOST_ROWS, "box")
        ));
    }
    Ok(())
}
