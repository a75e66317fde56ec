//! `richsem doctor`.

mod parts;
mod show;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use richsem::{
    Error,
    collective::Single,
    config::Config,
    data::{
        dataset::Dataset,
        detection_source::BrokenImages,
        extra::{ClassificationSet, ExtraConfig, MappingConfig},
        formats::Opening,
        image_io::Orientation,
        image_store::ImageStore,
    },
    detections::Detection,
    doctor::{
        Detected, Examination, Level, LimitChoice, Limits, Options, Origin, Part, Role, Scale,
        Watch, examine, page,
        scheme::{Place, Value},
    },
    error::write_atomically,
    merge::Merging,
    train::{ClassIds, match_vocabularies},
};

use super::eval::{self, Detecting};
use crate::{
    args::{self, InferenceArgs, OrientationArgs, SetArgs},
    exit, output,
    progress::{Counter, open_images, open_set},
    results::read_detections,
    signals::Signals,
};
use show::show;

const HELP: &str = "\
Examples:
  richsem doctor train.json --val val.json --images images/
  richsem doctor data.yaml --html doctor.html    (its train, val and test)
  richsem doctor train.json --images images/ --extra imagenet/ --scheme scheme.toml
  richsem doctor val.json --images images/ --weights runs/tiny --out-of-fold

Reads every image once. Finds: files that are missing or broken; other sizes than the annotations say;
images that are in two parts or twice in one, also encoded anew, resized or mirrored; Roboflow's copies;
boxes with two classes; classes that a part lacks. With detections it finds boxes that are probably
wrong, as ObjectLab does (arXiv 2309.00832): overlooked, of another class, badly placed.
Where classes are verified image by image, it judges only those.

--scheme writes settings for richsem train, each below the number that it rests on.

Ends with 1 if there is a problem (with --strict also if there is something to look at), else with 0.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Training annotations: a file or folder of any known format
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Validation annotations. Default: the validation part of DATA, if it has one
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// Extra data: classification images (a folder or .tar of class folders), or annotations (JSON)
    #[arg(long, value_name = "DATA")]
    extra: Option<PathBuf>,
    /// The annotated images: a folder or an uncompressed .tar. Default: where the annotations have them
    #[arg(long, value_name = "FOLDER|TAR")]
    images: Option<PathBuf>,
    /// Images of --val. Default: where its annotations have them, or else --images
    #[arg(long, value_name = "FOLDER|TAR", requires = "val")]
    val_images: Option<PathBuf>,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Looks at annotations alone: no image is read
    #[arg(long, conflicts_with = "weights")]
    no_images: bool,
    /// Settings of a run: their image sizes and queries are those that objects are compared with
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Detections in the images of DATA (COCO results JSON), to find label errors
    #[arg(long, value_name = "FILE", conflicts_with = "weights")]
    detections: Option<PathBuf>,
    /// Detector to detect with instead: a .safetensors file, or a run folder (its best checkpoint)
    #[arg(long, value_name = "FILE|RUN")]
    weights: Option<PathBuf>,
    /// Says that the detector was not trained on these images
    #[arg(long)]
    out_of_fold: bool,
    /// Which scores are sure: objectlab (from 0.95 on), or precision (from where 90 % of the detections
    /// are right, by these labels). Default: objectlab for --detections, precision for --weights
    #[arg(long, value_enum, value_name = "objectlab|precision", hide_possible_values = true)]
    sure: Option<SureChoice>,
    /// Images of a batch. Default: eval.batch_size in the detector's settings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), requires = "weights")]
    batch: Option<u16>,
    /// Writes one HTML file with images of what was found
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes everything for programs (JSON)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes settings for richsem train (TOML)
    #[arg(long, value_name = "FILE")]
    scheme: Option<PathBuf>,
    /// Cases of each finding that are shown
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(..=1000))]
    examples: u16,
    /// Ends with 1 also if there is only something to look at
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    inference: InferenceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SureChoice {
    Objectlab,
    Precision,
}

/// An annotated set and its images.
struct Opened {
    dataset: Dataset,
    store: Option<Arc<ImageStore>>,
}

/// Extra data.
enum Extra {
    Images(Box<ClassificationSet>, MappingConfig),
    Annotated(Box<Opened>),
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let weights = check_files(args)?;
    let config = match &args.config {
        Some(file) => Config::load(file, &[])?,
        None => Config::defaults(&[])?,
    };
    let train = open(args, &args.data, args.images.as_deref(), (Role::Train, None))?;
    let found = parts::of_data(args)?;
    let val = found.val.as_ref().map(|path| -> Result<(PathBuf, Opened)> {
        let images = args.val_images.as_deref().or(args.images.as_deref());
        let opened = open(args, path, images, (Role::Val, None))?;
        Ok((path.clone(), opened))
    });
    let mut val = val.transpose()?;
    let detections = detections(args, &train, weights.as_deref())?;
    let mut tests = parts::open_tests(args, &found.tests);
    let mut extra =
        args.extra.as_ref().map(|path| open_extra(args, path, &train.dataset)).transpose()?;
    let extra_annotated = match &mut extra {
        Some(Extra::Annotated(of)) => Some(&mut **of),
        _ => None,
    };
    for other in val.iter_mut().map(|(_, val)| val).chain(&mut tests).chain(extra_annotated) {
        // Where the classes differ, it is a finding.
        let notes = match_vocabularies(train.dataset.vocabulary(), &mut other.dataset);
        notes.iter().flatten().for_each(output::note);
    }
    let signals = Signals::catch()?;
    let parts = parts(args, &train, (val.as_ref().map(|(_, val)| val), &tests), extra.as_ref());
    let options = options(args, &config, &train, val.as_ref(), extra.as_ref());
    let detected = detections.as_ref().map(|detections| detected(args, detections));
    let examination = match watched(&parts, detected.as_ref(), &options, &signals.stop) {
        Err(Error::Stopped) => {
            output::note("stopped: nothing was written");
            return Ok(signals.exit_code());
        }
        examination => examination?,
    };
    write(args, &examination, &parts)?;
    show(&examination)?;
    let problems = examination.count(Level::Problem);
    let strict = if args.strict { examination.count(Level::Look) } else { 0 };
    Ok(if problems + strict > 0 { exit::ERROR } else { exit::OK })
}

/// Refuses inputs that are not there, and results that could not be written or would take the place of an
/// input. Gives the file of the weights, if there are any.
fn check_files(args: &Args) -> Result<Option<PathBuf>> {
    output::check_input(&args.data, "DATA", "file or folder")?;
    for (path, flag, what) in [
        (&args.val, "--val", "file or folder"),
        (&args.extra, "--extra", "file or folder"),
        (&args.images, "--images", "folder or archive"),
        (&args.val_images, "--val-images", "folder or archive"),
        (&args.config, "--config", "file"),
        (&args.detections, "--detections", "file"),
        (&args.weights, "--weights", "file or folder"),
    ] {
        if let Some(path) = path {
            output::check_input(path, flag, what)?;
        }
    }
    let weights = args.weights.as_ref().map(|path| args::weights_file(path, "--weights"));
    let weights = weights.transpose()?;
    let inputs = output::given([
        (Some(&args.data), "the set"),
        (args.val.as_ref(), "--val"),
        (args.extra.as_ref(), "--extra"),
        (args.config.as_ref(), "--config"),
        (args.detections.as_ref(), "--detections"),
        (args.set.vocabulary(), "--vocabulary"),
        // The run, and its file.
        (args.weights.as_ref(), "--weights"),
        (weights.as_ref(), "--weights"),
    ]);
    let results: Vec<(&Path, &str)> = results(args).collect();
    for (at, (file, flag)) in results.iter().enumerate() {
        output::check_file(file, flag)?;
        output::check_apart(file, flag, &inputs)?;
        if let Some((_, other)) = results[..at].iter().find(|(other, _)| other == file) {
            return Err(anyhow!("{flag}: this is the file of {other}\n  hint: give another name"));
        }
    }
    Ok(weights)
}

/// The files that are written, with their flags.
fn results(args: &Args) -> impl Iterator<Item = (&Path, &'static str)> {
    let all = [(&args.html, "--html"), (&args.json, "--json"), (&args.scheme, "--scheme")];
    all.into_iter().filter_map(|(file, flag)| Some((file.as_deref()?, flag)))
}

/// Opens a set, or the named part of it.
fn open(
    args: &Args,
    path: &Path,
    images: Option<&Path>,
    (role, part): (Role, Option<&str>),
) -> Result<Opened> {
    // What is said of DATA need not hold for the other sets.
    let set = if path == args.data { args.set.opening() } else { Opening::default() };
    let usual = if role == Role::Val { "val" } else { "train" };
    let opening = Opening {
        images: images.map(Path::to_owned),
        orientation: args.orientation.get(),
        usual_split: Some(usual),
        split: if role == Role::Train { set.split.clone() } else { part.map(str::to_owned) },
        // Those of a test part may be withheld.
        annotated: role != Role::Test,
        ..set
    };
    let dataset = open_set(path, &opening)?;
    let place = dataset.images_in(images).filter(|_| !args.no_images);
    for (file, flag) in results(args) {
        if let Some(place) = place {
            output::check_no_images(file, flag, &[(place, "the images")])?;
        }
    }
    let store = place.map(|place| open_images(place, args.orientation.get())).transpose()?;
    let names = || dataset.images().iter().map(|image| image.file_name.as_str());
    if let Some(problem) = store.as_ref().and_then(|store| store.holds_none_of(names())) {
        return Err(anyhow!(
            "{}: {problem}\n  hint: give the folder or archive that file names in the annotations are \
             relative to, or look at the annotations alone with --no-images",
            if role == Role::Val && args.val_images.is_some() {
                "--val-images"
            } else {
                "--images"
            }
        ));
    }
    if store.is_none() && !args.no_images {
        output::note(format!(
            "{}: the images are not near the annotations, so they are not read (--images)",
            path.display()
        ));
    }
    Ok(Opened { dataset, store: store.map(Arc::new) })
}

/// Annotations, or classification images whose folders are named by wnid or by class.
fn open_extra(args: &Args, path: &Path, train: &Dataset) -> Result<Extra> {
    let is_json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    if is_json {
        return Ok(Extra::Annotated(Box::new(open(args, path, None, (Role::Extra, None))?)));
    }
    let with = |mapping: MappingConfig| {
        let config = ExtraConfig { mapping: Some(mapping.clone()), ..ExtraConfig::new(path) };
        ClassificationSet::open(&config, train.vocabulary())
            .map(|set| Extra::Images(Box::new(set), mapping))
    };
    let extra = match with(MappingConfig::Wnid {}) {
        Err(error) => with(MappingConfig::Name {}).map_err(|_| error)?,
        extra => extra?,
    };
    if let Extra::Images(set, _) = &extra {
        output::note(format!("{}: {}", path.display(), set.report()));
    }
    Ok(extra)
}

fn parts<'a>(
    args: &Args,
    train: &'a Opened,
    (val, tests): (Option<&'a Opened>, &'a [Opened]),
    extra: Option<&'a Extra>,
) -> Vec<Part<'a>> {
    let annotated = |role, of: &'a Opened| Part::annotated(role, &of.dataset, of.store.as_deref());
    let first = annotated(Role::Train, train);
    let split = train.dataset.split();
    // A part that the user names is called as it is.
    let named = args.set.opening().split.is_some() && !split.is_empty();
    let mut parts = vec![if named { first.called(split) } else { first }];
    parts.extend(val.map(|val| annotated(Role::Val, val)));
    for test in tests {
        let part = annotated(Role::Test, test);
        // Two need two names.
        parts.push(if tests.len() > 1 { part.called(test.dataset.split()) } else { part });
    }
    parts.extend(extra.map(|extra| match extra {
        Extra::Annotated(of) => annotated(Role::Extra, of),
        Extra::Images(set, _) => {
            let mut labelled = vec![0; train.dataset.vocabulary().len()];
            let mut files = Vec::with_capacity(set.len());
            for index in 0..set.len() {
                let item = set.item(index);
                item.labels.iter().for_each(|class| labelled[class.0 as usize] += 1);
                files.push(item.name);
            }
            let store = (!args.no_images).then_some(set.store());
            Part::classification(files, store, labelled)
        }
    }));
    parts
}

fn options(
    args: &Args,
    config: &Config,
    train: &Opened,
    val: Option<&(PathBuf, Opened)>,
    extra: Option<&Extra>,
) -> Options {
    let default = Options::default();
    let queries = config.model.as_dino().map(|dino| dino.transformer.num_queries);
    let mut places = vec![place("data.train", &args.data, (args.images.as_deref(), train), args)];
    if let Some((path, val)) = val {
        let images = args.val_images.as_deref().or(args.images.as_deref());
        places.push(place("data.val", path, (images, val), args));
    }
    if let (Some(path), Some(Extra::Images(_, mapping))) = (&args.extra, extra) {
        let by = if *mapping == (MappingConfig::Name {}) { "name" } else { "wnid" };
        let mut settings = vec![("images".to_owned(), text(path))];
        settings.push(("mapping.by".to_owned(), by.into()));
        places.push(Place { key: "data.extra.extra".to_owned(), settings });
    }
    Options {
        examples: args.examples.into(),
        scale: Scale::of(&config.data.augment, &config.data.resize),
        queries: queries.and_then(|n| usize::try_from(n).ok()).unwrap_or(default.queries),
        max_detections: usize::try_from(config.eval.max_detections)
            .unwrap_or(default.max_detections),
        places,
    }
}

/// A path for a settings file, whose own place is not known: from the root.
fn text(path: &Path) -> Value {
    let path = std::path::absolute(path).map_or(Cow::Borrowed(path), Cow::Owned);
    path.to_string_lossy().into_owned().into()
}

/// Where a set is, as settings say it.
fn place(key: &str, path: &Path, (images, of): (Option<&Path>, &Opened), args: &Args) -> Place {
    let mut settings = vec![("annotations".to_owned(), text(path))];
    let format = args.set.opening().format.filter(|_| key == "data.train");
    settings.extend(format.map(|format| ("format".to_owned(), format.into())));
    if let Some(images) = images {
        settings.push(("images".to_owned(), text(images)));
    }
    if !of.dataset.split().is_empty() {
        settings.push(("split".to_owned(), of.dataset.split().into()));
    }
    if args.orientation.get() == Orientation::Stored {
        settings.push(("orientation".to_owned(), "stored".into()));
    }
    Place { key: key.to_owned(), settings }
}

/// Detections of a file, or of the detector; none where neither was given.
fn detections(
    args: &Args,
    train: &Opened,
    weights: Option<&Path>,
) -> Result<Option<Vec<Detection>>> {
    if let Some(file) = &args.detections {
        return read_detections(file, &train.dataset).map(Some);
    }
    let Some(weights) = weights else { return Ok(None) };
    let store = train
        .store
        .as_ref()
        .ok_or_else(|| anyhow!("--images: missing, and the images are not near the annotations"))?;
    let detector = args::load_detector(weights, &args.inference)?;
    let (ids, notes) = ClassIds::of(detector.vocabulary(), &train.dataset)?;
    notes.iter().for_each(output::note);
    let broken = Arc::new(BrokenImages::new(usize::MAX));
    let batch = args.batch.map_or(detector.config().eval.batch_size, usize::from);
    let how = Detecting {
        detector: &detector,
        ids: &ids,
        collective: &Single,
        batch,
        merging: Merging::default(),
    };
    eval::detect(&how, &train.dataset, (store, &broken))
}

fn detected<'a>(args: &Args, detections: &'a [Detection]) -> Detected<'a> {
    let usual = if args.weights.is_some() { SureChoice::Precision } else { SureChoice::Objectlab };
    let limits = match args.sure.unwrap_or(usual) {
        SureChoice::Objectlab => LimitChoice::Given(Limits::default()),
        SureChoice::Precision => LimitChoice::ByPrecision,
    };
    let origin = if args.out_of_fold { Origin::OutOfFold } else { Origin::Unknown };
    Detected { detections, origin, limits }
}

fn watched(
    parts: &[Part<'_>],
    detected: Option<&Detected<'_>>,
    options: &Options,
    stop: &AtomicBool,
) -> richsem::Result<Examination> {
    let total = parts.iter().filter(|part| part.store.is_some()).map(|p| p.files.len()).sum();
    let counter = Counter::new("reading images", total);
    let progress = |done, total| counter.set(done, total);
    examine(parts, detected, options, &Watch { stop, progress: &progress })
}

fn write(args: &Args, examination: &Examination, parts: &[Part<'_>]) -> Result<()> {
    let mut results: Vec<(&PathBuf, &str, String)> = Vec::new();
    if let Some(file) = &args.html {
        let name = args.data.file_name().unwrap_or(args.data.as_os_str());
        results.push((file, "page", page(&name.to_string_lossy(), examination, parts)?));
    }
    if let Some(file) = &args.json {
        results.push((file, "results", serde_json::to_string_pretty(examination)? + "\n"));
    }
    if let Some(file) = &args.scheme {
        results.push((file, "settings", examination.scheme.toml.clone()));
    }
    for (file, what, text) in results {
        write_atomically(file, |out| Ok(out.write_all(text.as_bytes())?))?;
        output::note(format!("{what}: {}", file.display()));
    }
    Ok(())
}
