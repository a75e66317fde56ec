//! `richsem eval`.

mod detect;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use richsem::{
    data::{
        dataset::Dataset,
        formats::{Opening, Unit},
        image_store::ImageStore,
    },
    detections::Detection,
    detector::Detector,
    error::write_atomically,
    evaluate::{Evaluator, Matches, Protocol, Summary, openimages::is_results},
    merge::{TWINS, twins},
    plural::{clause, counted},
    report::{self, ReportData},
    train::{ClassIds, Worker},
};

pub(crate) use self::detect::{Detecting, detect};
use self::detect::{Found, detect_in};

use crate::{
    analysis,
    args::{self, InferenceArgs, MergeArgs, OrientationArgs, SetArgs},
    exit, output,
    progress::open_set,
    ranks::{self, Member, ProcessArgs},
    results::read_detections,
    table,
};

const USAGE: &str = "\
richsem eval --annotations <PATH> --weights <FILE|RUN> [--images <FOLDER|TAR>] [OPTIONS]
       richsem eval --annotations <PATH> --detections <FILE> [OPTIONS]";

const HELP: &str = "\
Examples:
  richsem eval --weights runs/tiny --annotations val.json --images images/
  richsem eval --weights model.safetensors --annotations val.json --images val.tar --save-json dets.json
  richsem eval --annotations lvis_v1_val.json --detections dets.json --per-class
  richsem eval --annotations val.json --detections new.json --compare old.json --errors --report eval.html
  richsem eval --weights runs/tiny --annotations heldout.json --images images/ --save-thresholds t.toml

Values are percentages. A – means that there is nothing to evaluate. AP is the mean over IoU 0.50 to
0.95. s, m and l are small, medium and large objects: areas below 32², below 96², and from 96² pixels
on. r, c and f are rare, common and frequent classes: up to 10, up to 100, and more training images.

Intervals are of 95 %. \"Other images\": these classes on other images of this kind; 50 groups of images
are left out in turn (by position in order of ids, modulo 50). \"Classes in general\": these classes are
a sample of others. Neither tells what another training would give: that is what `study` is for.

--errors: kinds of errors at IoU 0.50 (TIDE) and what AP50 would gain without each; calibration; AP-Fixed
(the best 10,000 detections of each class, however many an image has) and AP-Pool (the same, all classes
in one ranking). Under LVIS's rules, detections that are not judged are no errors.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP, override_usage = USAGE)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["weights", "detections"]))]
pub(crate) struct Args {
    /// Annotations to evaluate against: a file or folder of any known format
    #[arg(long, value_name = "PATH")]
    annotations: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Detector to evaluate: a .safetensors file, or a run folder (its best checkpoint)
    #[arg(long, value_name = "FILE|RUN")]
    weights: Option<PathBuf>,
    /// The annotated images: a folder or an uncompressed .tar. Default: where the annotations have them
    #[arg(long, value_name = "FOLDER|TAR", conflicts_with = "detections")]
    images: Option<PathBuf>,
    /// Detections to evaluate instead of a detector: COCO results JSON, OpenImages' predictions (CSV) or a
    /// submission to its challenge
    #[arg(long, value_name = "FILE", conflicts_with_all = ["orientation", "tiles", "iou"])]
    detections: Option<PathBuf>,
    /// Rules to evaluate by: coco, lvis, openimages or visual-genome. Default: those of the format; else LVIS if
    /// the annotations list verified classes (neg_category_ids, not_exhaustive_category_ids), else COCO
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true)]
    protocol: Option<ProtocolChoice>,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Images of a batch. Default: eval.batch_size in the detector's settings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "detections")]
    batch: Option<u16>,
    #[command(flatten)]
    merge: MergeArgs,
    /// Shows every class, however many there are
    #[arg(long)]
    per_class: bool,
    /// Also writes the detections to this file: COCO results JSON with the ids of the annotations, or a
    /// submission to OpenImages' challenge if its name ends in .csv
    #[arg(long, value_name = "FILE", conflicts_with = "detections")]
    save_json: Option<PathBuf>,
    /// Also shows the difference to these detections (COCO results JSON), with intervals: both are evaluated
    /// on the same images
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Also shows kinds of errors, calibration, AP-Fixed and AP-Pool
    #[arg(long)]
    errors: bool,
    /// Also writes score thresholds with the best F1 of each class to this file (TOML), for `predict
    /// --thresholds`. Evaluate held-out training images for it
    #[arg(long, value_name = "FILE.toml")]
    save_thresholds: Option<PathBuf>,
    /// Also writes a page with all of it to this file (HTML)
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Also writes all metrics to this file, those of each class too (JSON, fractions)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    inference: InferenceArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolChoice {
    Coco,
    Lvis,
    Openimages,
    VisualGenome,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    ranks::run(&args.processes, |member| run_as(args, member))
}

/// The work of one process.
fn run_as(args: &Args, member: &Member) -> Result<u8> {
    if args.detections.is_some() && member.has_others() {
        return Err(anyhow!(
            "--detections: there is nothing to detect, so one process is enough\n  hint: leave out --gpus, \
             torchrun or srun"
        ));
    }
    let weights = check_files(args)?;
    let protocol = args.protocol.map(|choice| match choice {
        ProtocolChoice::Coco => Protocol::Coco,
        ProtocolChoice::Lvis => Protocol::Lvis,
        ProtocolChoice::Openimages => Protocol::OpenImages,
        ProtocolChoice::VisualGenome => Protocol::VisualGenome,
    });
    // Its classes are looked for in the annotations.
    let detecting = weights.as_ref().filter(|_| args.detections.is_none());
    let detecting = detecting.map(|weights| -> Result<(Detector, Worker)> {
        let worker = member.worker(&args.inference.device)?;
        Ok((args::load_detector_on(weights, &args.inference, worker.device)?, worker))
    });
    let detecting = detecting.transpose()?;
    let (dataset, evaluator) = open(args, protocol)?;
    let detecting = detecting.map(|(detector, worker)| -> Result<_> {
        let (ids, notes) = ClassIds::of(detector.vocabulary(), &dataset)?;
        notes.iter().for_each(output::note);
        Ok((detector, worker, ids))
    });
    let detecting = detecting.transpose()?;
    tell(&dataset, &evaluator);
    let analysed = args.compare.is_some() || args.errors || args.save_thresholds.is_some();
    if evaluator.protocol() == Protocol::OpenImages && analysed {
        return Err(anyhow!(
            "--compare, --errors and --save-thresholds come from COCO's and LVIS's matches, and these \
             annotations are evaluated by the OpenImages protocol\n  hint: leave them out, or choose \
             another --protocol"
        ));
    }
    // Before detection, which may take hours.
    let other = args.compare.as_deref().map(|file| -> Result<Vec<Detection>> {
        let other = read_detections(file, &dataset)?;
        evaluator.check(file, &other)?;
        Ok(other)
    });
    let other = other.transpose()?;
    let found = match (&args.detections, detecting) {
        (Some(file), _) => {
            let detections = read_detections(file, &dataset)?;
            evaluator.check(file, &detections)?;
            Found { evaluator, detections, unread: 0, unsaved: None }
        }
        (None, Some((detector, worker, ids))) => {
            let images = dataset.images_in(args.images.as_deref()).ok_or_else(|| {
                anyhow!(
                    "--images: missing, and the images are not near the annotations\n  hint: give the \
                     folder or archive that the file names in the annotations are in"
                )
            })?;
            for (file, flag) in results(args) {
                output::check_no_images(file, flag, &[(images, "the images")])?;
            }
            match detect_in(args, &dataset, evaluator, (&detector, &worker, &ids), images)? {
                Some(found) => found,
                // Rank 0 goes on with what all have found.
                None => return Ok(exit::OK),
            }
        }
        _ => unreachable!("clap asks for --detections or --weights"),
    };
    let told = tell_results(args, &dataset, &found, other.as_deref());
    let Some(unsaved) = found.unsaved else { return told };
    if let Err(other) = told {
        output::warn(other);
    }
    Err(unsaved.into())
}

/// What comes of the detections: on the terminal, and in the files that were asked for.
fn tell_results(
    args: &Args,
    dataset: &Dataset,
    found: &Found,
    other: Option<&[Detection]>,
) -> Result<u8> {
    let (summary, matches) = measure(args, found, other)?;
    let unread = found.unread;
    if let Some(file) = &args.json {
        write_atomically(file, |out| Ok(out.write_all(summary.to_json().as_bytes())?))?;
        output::note(format!("metrics: {}", file.display()));
    }
    if let Some(file) = &args.report {
        report::write(file, &page(args, &summary))?;
        output::note(format!("report: {}", file.display()));
    }
    show(args, &summary)?;
    if args.merge.get().iou.is_none() {
        tell_twins(&found.detections, summary.boxes);
    }
    if let (Some(file), Some(matches)) = (&args.save_thresholds, matches) {
        matches.thresholds()?.write(file)?;
        output::note(format!("thresholds: {}", file.display()));
    }
    if unread > 0 {
        let of = counted(dataset.images().len(), "image");
        return Err(anyhow!("{unread} of {of} could not be read (named above)"));
    }
    Ok(exit::OK)
}

/// Tells of a detector that finds many objects twice, as one does that was trained for a short time.
fn tell_twins(detections: &[Detection], boxes: usize) {
    let [twins, of] = twins(detections, boxes);
    if twins * 10 > of {
        output::note(format!(
            "{twins} of the {of} best detections overlap a better one of their class by more than {TWINS}: objects are \
             found twice, mostly because training was short. --iou {TWINS} leaves these out, here and in predict"
        ));
    }
}

/// Refuses inputs that are not there, and results that could not be written or would take the place
/// of an input. Gives the file of the weights, if there are any.
fn check_files(args: &Args) -> Result<Option<PathBuf>> {
    for (file, flag) in results(args) {
        output::check_file(file, flag)?;
    }
    output::check_input(&args.annotations, "--annotations", "file or folder")?;
    for (path, flag, what) in [
        (&args.detections, "--detections", "file"),
        (&args.compare, "--compare", "file"),
        (&args.weights, "--weights", "file or folder"),
        (&args.images, "--images", "folder or archive"),
    ] {
        // A pattern of archives is no path.
        if let Some(path) = path.as_ref().filter(|path| !ImageStore::is_there(path)) {
            output::check_input(path, flag, what)?;
        }
    }
    let weights = args.weights.as_ref().map(|path| args::weights_file(path, "--weights"));
    let weights = weights.transpose()?;
    let inputs = output::given([
        (Some(&args.annotations), "--annotations"),
        (args.detections.as_ref(), "--detections"),
        (args.compare.as_ref(), "--compare"),
        (args.set.vocabulary(), "--vocabulary"),
        // The run, and its file.
        (args.weights.as_ref(), "--weights"),
        (weights.as_ref(), "--weights"),
    ]);
    for (file, flag) in results(args) {
        output::check_apart(file, flag, &inputs)?;
    }
    Ok(weights)
}

/// The files that are written, with their flags.
fn results(args: &Args) -> impl Iterator<Item = (&Path, &'static str)> {
    let all = [
        (&args.save_json, "--save-json"),
        (&args.json, "--json"),
        (&args.save_thresholds, "--save-thresholds"),
        (&args.report, "--report"),
    ];
    all.into_iter().filter_map(|(file, flag)| Some((file.as_deref()?, flag)))
}

/// The annotations, and what evaluates by them.
fn open(args: &Args, protocol: Option<Protocol>) -> Result<(Dataset, Evaluator)> {
    // OpenImages' results are shares of the images, as its annotations are: no image is needed.
    let results = [&args.detections, &args.compare].into_iter().flatten();
    let shares = args.detections.is_some() && results.into_iter().all(|file| is_results(file));
    let opened = |pixels: bool| -> Result<(Dataset, Evaluator)> {
        let opening = Opening {
            images: args.images.clone(),
            orientation: args.orientation.get(),
            usual_split: Some("val"),
            pixels,
            ..args.set.opening()
        };
        let dataset = open_set(&args.annotations, &opening)?;
        let evaluator = Evaluator::of_as(&dataset, protocol)?;
        Ok((dataset, evaluator))
    };
    let (dataset, evaluator) = opened(!shares)?;
    // Sizes of objects are in pixels.
    if dataset.unit() == Unit::Shares && evaluator.protocol() != Protocol::OpenImages {
        return opened(true);
    }
    Ok((dataset, evaluator))
}

/// The metrics with their intervals, and what else was asked for; what the detections matched, where the
/// protocol has it.
fn measure(
    args: &Args,
    found: &Found,
    other: Option<&[Detection]>,
) -> Result<(Summary, Option<Matches>)> {
    let Found { evaluator, detections, .. } = found;
    if evaluator.protocol() == Protocol::OpenImages {
        return Ok((evaluator.evaluate_with_intervals(detections)?, None));
    }
    let (mut summary, matches) = evaluator.evaluate_and_match(detections)?;
    summary.intervals = Some(matches.intervals());
    if let (Some(file), Some(other)) = (&args.compare, other) {
        let mut comparison = matches.compare(&evaluator.matches(other)?)?;
        comparison.with = file.display().to_string();
        summary.comparison = Some(comparison);
    }
    if args.report.is_some() {
        summary.details = Some(evaluator.details(detections, &matches)?);
    }
    if args.errors {
        summary.errors = Some(evaluator.errors(detections, &matches)?);
    }
    Ok((summary, Some(matches)))
}

/// The page of `--report`.
fn page(args: &Args, summary: &Summary) -> ReportData {
    let of = args.detections.as_ref().or(args.weights.as_ref());
    let name = of.map(|path| path.display().to_string()).unwrap_or_default();
    let annotations = args.annotations.display().to_string();
    let changed = args.merge.get().in_words().map(|words| ("boxes".to_owned(), words));
    ReportData {
        title: format!("Evaluation of {name}"),
        facts: vec![
            ("evaluated".to_owned(), name.clone()),
            ("annotations".to_owned(), annotations),
        ]
        .into_iter()
        .chain(changed)
        .collect(),
        name,
        summary: Some(summary.clone()),
        ..ReportData::default()
    }
}

/// Tells what one should know of the annotations before one reads the metrics.
fn tell(dataset: &Dataset, evaluator: &Evaluator) {
    output::note(format!(
        "evaluated by the {} protocol: {}",
        evaluator.protocol(),
        evaluator.why()
    ));
    if !dataset.split().is_empty() {
        output::note(format!("of {}: part `{}`", dataset.path().display(), dataset.split()));
    }
    let report = dataset.report();
    if report.removed_listed > 0 {
        output::note(format!(
            "ignored: {} of neg_category_ids and not_exhaustive_category_ids, of no category of the file",
            counted(report.removed_listed, "entry")
        ));
    }
    if report.absent_with_boxes.count > 0 {
        output::note(format!(
            "{} boxes of a class in its neg_category_ids: the boxes count{}",
            clause(report.absent_with_boxes.count, "image", ["has", "have"]),
            report.absent_with_boxes.ids("image")
        ));
    }
    report.notes.iter().for_each(output::note);
    report.warnings.iter().for_each(output::warn);
}

fn show(args: &Args, summary: &Summary) -> Result<()> {
    let head = format!(
        "{} protocol: {}, {} of {}, {}",
        summary.protocol,
        counted(summary.images, "image"),
        counted(summary.boxes, "box"),
        counted(summary.per_class.len(), "class"),
        counted(summary.detections, "detection"),
    );
    let changed = args.merge.get().in_words().map(|words| format!("Boxes: {words}"));
    let parts = [
        Some([Some(head), changed].into_iter().flatten().collect::<Vec<_>>().join("\n")),
        Some(table::precisions(summary)),
        Some(table::recalls(summary)),
        summary.intervals.as_ref().map(analysis::intervals),
        summary.comparison.as_ref().map(analysis::comparison),
        summary.errors.as_ref().map(|errors| analysis::errors(summary, errors)),
        Some(table::classes(summary, args.per_class)),
    ];
    output::print(parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n"))
}
