//! `richsem dataset show`.

use std::{
    collections::HashSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::{Result, anyhow};
use richsem::{
    data::{
        convert::refuse_full, dataset::Dataset, formats::Opening, image_io::Orientation,
        image_store::ImageStore,
    },
    draw,
    gallery::{Labels, choose_images, draw_labels},
    plural::{clause, counted},
};

use crate::{
    args::{OrientationArgs, SetArgs, as_flag},
    exit,
    names::Names,
    output,
    parts::{has_groups, of_part},
    progress::{Counter, open_images, open_set},
    signals::Signals,
    table,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem dataset show mine looks
  richsem dataset show train.json looks --images images/ --limit 100
  richsem dataset show data.yaml looks --split val --class mug --class 'tea pot'
  richsem dataset show mine looks --image 000017.jpg

Every label of an image is drawn, with the name of its class; regions of many objects (crowds, groups) and
boxes that do not count are dashed. Boxes without an inside in the image cannot be drawn: they are counted as
unseen. Without --class and --image the images are chosen so that they show all
classes, rare ones first: the same ones each time. A set in parts gets a folder for each part.

Ends with 1 if an image could not be read, else with 0.")]
pub(crate) struct Args {
    /// Set to look at: a file, folder or archive of any known format
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Folder to write to
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Folder or archive of the images. Default: where the annotations have them
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Most images of a part
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only images that show this class, by its name; several times for several classes
    #[arg(long, value_name = "NAME")]
    class: Vec<String>,
    /// Only this image, by its name in the annotations; several times for several images
    #[arg(long, value_name = "NAME", conflicts_with_all = ["class", "limit"])]
    image: Vec<String>,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Replaces files of the same names, if the folder is not empty
    #[arg(long)]
    overwrite: bool,
}

/// Rows that the table of a part shows at most.
const MOST_ROWS: usize = 40;
/// Classes of an image that are named, and images without boxes.
const CLASSES: usize = 3;
const NAMED: usize = 5;

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.data, "DATA", "file, folder or archive")?;
    if let Some(images) = &args.images {
        output::check_input(images, "--images", "folder or archive")?;
    }
    output::check_new_folder(&args.output, "OUT")?;
    refuse_full(&args.output, args.overwrite).map_err(as_flag)?;
    let signals = Signals::catch()?;
    let opening = Opening {
        images: args.images.clone(),
        orientation: args.orientation.get(),
        // What has no sizes need not get them: shares are drawn as well. Only of pixels as they are stored it
        // must be said that they do not fit.
        pixels: args.orientation.get() == Orientation::Stored,
        ..args.set.opening()
    };
    let parts = match opening.split {
        None => Dataset::parts(&args.data, &opening)?,
        Some(_) => Vec::new(),
    };
    let openings: Vec<(Opening, PathBuf)> = if parts.len() < 2 {
        vec![(opening, args.output.clone())]
    } else {
        let of = |part: String| {
            let folder = args.output.join(&part);
            (Opening { split: Some(part), ..opening.clone() }, folder)
        };
        parts.into_iter().map(of).collect()
    };
    let asked = if args.image.is_empty() { &args.class } else { &args.image };
    let mut shown =
        Shown { unknown: asked.iter().map(|_| Some(String::new())).collect(), ..Shown::default() };
    for (opening, folder) in &openings {
        shown.part(args, opening, folder, &signals)?;
        if let Some(exit) = shown.stopped(&signals) {
            return Ok(exit);
        }
    }
    shown.end(args)
}

/// What was done in all parts.
#[derive(Default)]
struct Shown {
    drawn: usize,
    /// Images that could not be read.
    failed: usize,
    /// Of each class or image that was asked for: why no part has it; none if one has.
    unknown: Vec<Option<String>>,
}

impl Shown {
    /// Draws the images of one part.
    fn part(
        &mut self,
        args: &Args,
        opening: &Opening,
        folder: &Path,
        signals: &Signals,
    ) -> Result<()> {
        let dataset = open_set(&args.data, opening)?;
        if let Some(searched) = dataset.searched_folder_of(folder) {
            return Err(anyhow!(
                "OUT: `{}` is in `{}`, where all images are read: those that are drawn would be in the set, too\n  \
                 hint: choose a folder that is not in it",
                folder.display(),
                searched.display()
            ));
        }
        let part = of_part(&dataset);
        let (chosen, of) = self.choose(args, &dataset);
        if chosen.is_empty() {
            output::note(format!("{}{part}: nothing of that is in it", dataset.report().format));
            return Ok(());
        }
        let store = open_store(args, &dataset)?;
        let report = dataset.report();
        let head = match has_groups(&dataset) {
            true => report.to_string(),
            false => report.without_counted_groups().to_string(),
        };
        if self.drawn + self.failed > 0 {
            output::print("")?;
        }
        output::print(format!("{}{part}\n{head}\n", report.format))?;
        let rows = self.draw(&dataset, &store, &chosen, folder, signals)?;
        if !rows.is_empty() {
            let columns = ["<written", "boxes", "crowds", "unseen", "<classes"];
            let more = rows.len().saturating_sub(MOST_ROWS);
            output::print(table::table(&columns, rows.into_iter().take(MOST_ROWS)))?;
            if more > 0 {
                output::print(format!("… and {more} more in {}", folder.display()))?;
            }
        }
        let with = if args.class.is_empty() { "" } else { " with it" };
        let all = format!("{}{with}", counted(of, "image"));
        let shown = match of - chosen.len() {
            0 => all,
            _ => format!("{} of {all} (more: --limit)", chosen.len()),
        };
        output::print(format!("\n{shown}{}", without_boxes(&dataset)))
    }

    /// The images of a part that are drawn, and of how many they are chosen.
    fn choose(&mut self, args: &Args, dataset: &Dataset) -> (Vec<usize>, usize) {
        if args.image.is_empty() {
            let class = |name: &str| dataset.vocabulary().class_named(name);
            let classes = self.known(&args.class, class);
            if classes.is_empty() && !args.class.is_empty() {
                return (Vec::new(), 0);
            }
            let all = choose_images(dataset, &classes, usize::MAX).len();
            return (choose_images(dataset, &classes, args.limit as usize), all);
        }
        let names = dataset.image_names();
        let ids: HashSet<i64> =
            self.known(&args.image, |name| names.id_of(name, None)).into_iter().collect();
        let images = dataset.images().iter().enumerate();
        let named = images.filter(|(_, image)| ids.contains(&image.id));
        let named: Vec<usize> = named.map(|(at, _)| at).collect();
        let all = named.len();
        (named, all)
    }

    /// What this part has of what was asked for.
    fn known<T>(&mut self, asked: &[String], find: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut known = Vec::new();
        for (name, unknown) in asked.iter().zip(&mut self.unknown) {
            match find(name) {
                Ok(found) => {
                    *unknown = None;
                    known.push(found);
                }
                Err(problem) => *unknown = unknown.take().map(|_| problem),
            }
        }
        known
    }

    /// Draws these images; a row for each that could be read.
    fn draw(
        &mut self,
        dataset: &Dataset,
        store: &ImageStore,
        chosen: &[usize],
        folder: &Path,
        signals: &Signals,
    ) -> Result<Vec<Vec<String>>> {
        let place = |&at: &usize| -> (PathBuf, OsString) {
            let path = Path::new(&dataset.images()[at].file_name);
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            (folder, path.file_name().unwrap_or_default().to_owned())
        };
        let names = Names::of(&chosen.iter().map(place).collect::<Vec<_>>());
        for name in &names.all {
            refuse_originals(&folder.join(&name.drawn), store)?;
        }
        let counter = Counter::new("drawing", chosen.len());
        let mut rows = Vec::with_capacity(chosen.len());
        for (done, (&at, name)) in chosen.iter().zip(&names.all).enumerate() {
            if signals.stop.load(Ordering::Relaxed) {
                break;
            }
            counter.set(done, chosen.len());
            let labels = match draw_labels(dataset, store, at) {
                Ok(labels) => labels,
                Err(problem) => {
                    counter.note(&format!("skipped: {problem}"));
                    self.failed += 1;
                    continue;
                }
            };
            let file = folder.join(&name.drawn);
            fs_err::create_dir_all(file.parent().unwrap_or(folder))?;
            draw::save(&labels.image, &file)?;
            self.drawn += 1;
            rows.push(row(&file, &labels));
        }
        Ok(rows)
    }

    /// The exit code if a signal came; what was drawn stays.
    fn stopped(&self, signals: &Signals) -> Option<u8> {
        signals.received()?;
        output::note(format!("stopped: {} drawn until then", counted(self.drawn, "image")));
        Some(signals.exit_code())
    }

    fn end(self, args: &Args) -> Result<u8> {
        if self.drawn > 0 {
            let out = args.output.display();
            output::note(format!("{} drawn into {out}", counted(self.drawn, "image")));
        }
        let flag = if args.image.is_empty() { "--class" } else { "--image" };
        let unknown: Vec<String> = self.unknown.into_iter().flatten().collect();
        if !unknown.is_empty() {
            return Err(anyhow!("{flag}: {}", unknown.join("; ")));
        }
        if self.failed > 0 {
            let (failed, of) = (self.failed, counted(self.drawn + self.failed, "image"));
            return Err(anyhow!("{failed} of {of} could not be read (named above)"));
        }
        if self.drawn == 0 {
            return Err(anyhow!("--class: no image shows {}", args.class.join(" or ")));
        }
        Ok(exit::OK)
    }
}

/// The images of the set.
fn open_store(args: &Args, dataset: &Dataset) -> Result<ImageStore> {
    let place = dataset.images_in(args.images.as_deref());
    let Some(place) = place else {
        return Err(anyhow!(
            "--images: missing, and the images are not near the annotations\n  hint: give the folder or archive \
             that file names in the annotations are relative to"
        ));
    };
    let store = open_images(place, args.orientation.get())?;
    let names = dataset.images().iter().map(|image| image.file_name.as_str());
    match store.holds_none_of(names) {
        None => Ok(store),
        Some(problem) => Err(anyhow!(
            "--images: {problem}\n  hint: give the folder or archive that file names in the annotations are \
             relative to"
        )),
    }
}

/// Refuses to draw over an image of the set, be it another one.
fn refuse_originals(file: &Path, store: &ImageStore) -> Result<()> {
    let (Ok(place), Ok(images)) = (file.canonicalize(), store.path().canonicalize()) else {
        return Ok(()); // nothing is there
    };
    let name = place.strip_prefix(images).ok().and_then(Path::to_str);
    if name.is_some_and(|name| store.contains(name)) {
        return Err(anyhow!(
            "`{}` is an image of the set and would be overwritten\n  hint: choose another folder",
            file.display()
        ));
    }
    Ok(())
}

fn row(file: &Path, labels: &Labels) -> Vec<String> {
    let classes = labels.classes.iter().map(|(name, boxes)| format!("{name} {boxes}"));
    let mut classes: Vec<String> = classes.collect();
    if classes.len() > CLASSES {
        let more = classes.split_off(CLASSES).len();
        classes.push(format!("{more} more"));
    }
    let words = if classes.is_empty() { "no boxes".to_owned() } else { classes.join(", ") };
    let number = |count: usize| match count {
        0 => table::NOTHING.to_owned(),
        count => count.to_string(),
    };
    vec![
        file.display().to_string(),
        labels.boxes.to_string(),
        number(labels.crowds),
        number(labels.unseen),
        words,
    ]
}

/// Images that have no boxes, if there are any.
fn without_boxes(dataset: &Dataset) -> String {
    let images = dataset.images().iter().enumerate();
    let without = images.filter(|(at, _)| dataset.annotations_of(*at).is_empty());
    let names: Vec<&str> = without.map(|(_, image)| image.file_name.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!(
        "\n{} no boxes: {}{more}",
        clause(names.len(), "image", ["has", "have"]),
        names[..names.len().min(NAMED)].join(", ")
    )
}
