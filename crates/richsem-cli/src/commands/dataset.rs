//! `richsem dataset stats` and `richsem dataset convert`; `split` is in [`super::split`], `show` in [`super::show`].

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::Result;
use richsem::{
    Error,
    data::{
        convert::{self, Conversion, ConversionReport, Target},
        dataset::Dataset,
        formats::{Opening, Unit},
    },
    plural::counted,
    vocabulary::{Category, Frequency},
};

use super::{show, split};
use crate::{
    args::{SetArgs, as_flag},
    exit, output,
    parts::{has_groups, of_part},
    progress::{ReadProgress, open_set},
    signals::Signals,
    table,
    writing::{WritingArgs, not_carried},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem dataset stats train.json
  richsem dataset show train.json looks
  richsem dataset convert VOCdevkit/VOC2012 voc --to coco
  richsem dataset split all.json mine")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check an annotation file and count what is in it
    Stats(StatsArgs),
    /// Draw the boxes of a set on its images: are they right?
    Show(show::Args),
    /// Write a set of any known format as COCO, LVIS or YOLO
    Convert(ConvertArgs),
    /// Divide a set into training and validation
    Split(split::Args),
    /// As `convert IN OUT --format voc --to coco`
    #[command(hide = true)]
    FromVoc(FromVocArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  richsem dataset stats train.json")]
struct StatsArgs {
    /// Annotations: a file or folder of any known format
    annotations: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Shows every class, however many there are
    #[arg(long)]
    per_class: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem dataset convert VOCdevkit/VOC2012 voc --to coco
  richsem dataset convert bccd.tar bccd --to coco
  richsem dataset convert mine mine-lvis --to lvis --put-images copy
  richsem dataset convert mine mine-yolo --to yolo --split train

Writes all parts of the set into OUT, with the same class ids: OUT/<part>.json for COCO and LVIS. What the
new format has no place for is counted. Nothing is written if there is an error.")]
struct ConvertArgs {
    /// Set to read: a file, folder or archive of any known format
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder to write to
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format to write
    #[arg(long, value_enum, value_name = "coco|lvis|yolo", hide_possible_values = true)]
    to: To,
    #[command(flatten)]
    how: WritingArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum To {
    Coco,
    Lvis,
    Yolo,
}

impl ConvertArgs {
    fn conversion(&self) -> Conversion {
        self.how.conversion(match self.to {
            To::Coco => Target::Coco,
            To::Lvis => Target::Lvis,
            To::Yolo => Target::Yolo,
        })
    }
}

#[derive(Debug, clap::Args)]
struct FromVocArgs {
    /// Folder or .tar with Annotations/, JPEGImages/ and ImageSets/
    input: PathBuf,
    /// Folder to write to
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Replaces files of the same names, if the folder is not empty
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    match args.command {
        Verb::Stats(args) => stats(&args),
        Verb::Convert(args) => {
            output::check_input(&args.input, "IN", "file, folder or archive")?;
            if let Some(images) = &args.how.images {
                output::check_input(images, "--images", "folder or archive")?;
            }
            converted(&args.input, &args.output, &args.conversion())
        }
        Verb::FromVoc(args) => from_voc(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Split(args) => split::run(&args),
    }
}

/// VOC alone, and COCO's JSON, as before sets of all formats could be converted.
fn from_voc(args: &FromVocArgs) -> Result<u8> {
    output::check_input(&args.input, "INPUT", "folder or archive")?;
    output::note(
        "`dataset from-voc IN OUT` is now `dataset convert IN OUT --to coco`; training and evaluation take \
         such a set without converting it, too",
    );
    let opening = Opening { format: Some("voc".to_owned()), ..Opening::default() };
    let how = Conversion { opening, overwrite: args.overwrite, ..Conversion::to(Target::Coco) };
    converted(&args.input, &args.output, &how)
}

fn converted(input: &Path, out: &Path, how: &Conversion) -> Result<u8> {
    output::check_new_folder(out, "OUT")?;
    let signals = Signals::catch()?;
    let mut reading = ReadProgress::default();
    let converted = convert::convert(input, out, how, &signals.stop, &mut |at| {
        reading.set(at);
        ControlFlow::Continue(())
    });
    drop(reading);
    match converted {
        Err(Error::Stopped) => return Ok(signals.tell_undone(out)),
        report => output::print(conversion(&report.map_err(as_flag)?))?,
    }
    Ok(exit::OK)
}

/// What was written, what was met, and what was lost.
fn conversion(report: &ConversionReport) -> String {
    let rows = report.splits.iter().map(|split| {
        vec![
            split.path.display().to_string(),
            split.images.to_string(),
            split.boxes.to_string(),
            split.crowds.to_string(),
            split
                .images_at
                .as_ref()
                .map_or_else(|| table::NOTHING.to_owned(), |place| place.display().to_string()),
        ]
    });
    let columns = ["<written", "images", "boxes", "crowd regions", "<images in"];
    let mut text = table::table(&columns, rows);
    for split in &report.splits {
        text += &format!("\n\n{} as read ({}): {}", split.name, split.read.format, split.read);
    }
    text += &format!("\n\n{}", counted(report.classes.len(), "class"));
    for note in &report.notes {
        text += &format!("\n  {note}");
    }
    format!("{text}\n\n{}", not_carried(report))
}

fn stats(args: &StatsArgs) -> Result<u8> {
    output::check_input(&args.annotations, "ANNOTATIONS", "file or folder")?;
    let opening = Opening { pixels: false, ..args.set.opening() };
    let parts = match &opening.split {
        None => Dataset::parts(&args.annotations, &opening)?,
        Some(_) => Vec::new(),
    };
    if parts.len() < 2 {
        return stats_of(args, &opening);
    }
    for (number, part) in parts.into_iter().enumerate() {
        if number > 0 {
            output::print("")?;
        }
        stats_of(args, &Opening { split: Some(part), ..opening.clone() })?;
    }
    Ok(exit::OK)
}

fn stats_of(args: &StatsArgs, opening: &Opening) -> Result<u8> {
    let dataset = open_set(&args.annotations, opening)?;
    let counts = counts(&dataset);
    let report = dataset.report();
    let head = format!("{}{}", report.format, of_part(&dataset));
    let head = match has_groups(&dataset) {
        true => format!("{head}\n{report}\n\n{}", groups(&dataset, &counts)),
        false => format!("{head}\n{}", report.without_counted_groups()),
    };
    let (sizes, classes) = (sizes(&dataset), classes(&dataset, &counts, args.per_class));
    output::print(format!("{head}\n\n{sizes}\n\n{classes}"))?;
    Ok(exit::OK)
}

/// Images that show a class, and its boxes, in this file.
#[derive(Clone, Copy, Default)]
struct Count {
    images: usize,
    boxes: usize,
}

/// Counts by class index. The counts in the file may be those of another split.
fn counts(dataset: &Dataset) -> Vec<Count> {
    let mut counts = vec![Count::default(); dataset.vocabulary().len()];
    let mut last_image = vec![u32::MAX; counts.len()];
    for annotation in dataset.annotations() {
        let class = annotation.class.0 as usize;
        counts[class].boxes += 1;
        if last_image[class] != annotation.image {
            last_image[class] = annotation.image;
            counts[class].images += 1;
        }
    }
    counts
}

fn groups(dataset: &Dataset, counts: &[Count]) -> String {
    let total: usize = counts.iter().map(|c| c.boxes).sum();
    let groups = [
        (Frequency::Frequent, "over 100"),
        (Frequency::Common, "11 to 100"),
        (Frequency::Rare, "1 to 10"),
    ];
    let rows = groups.map(|(group, images)| {
        let of_group = || {
            let classes = dataset.vocabulary().categories().iter().zip(counts);
            classes.filter(move |(c, _)| c.frequency == group)
        };
        let boxes: usize = of_group().map(|(_, count)| count.boxes).sum();
        vec![
            table::group_name(group).to_owned(),
            images.to_owned(),
            of_group().count().to_string(),
            of_group().filter(|(_, count)| count.boxes == 0).count().to_string(),
            boxes.to_string(),
            share(boxes, total),
        ]
    });
    let columns =
        ["<group", "training images", "classes", "without boxes here", "boxes", "% of boxes"];
    table::table(&columns, rows)
}

fn share(part: usize, total: usize) -> String {
    table::percent((total > 0).then(|| part as f64 / total as f64))
}

/// Objects by COCO's size groups, and how many boxes an image has.
fn sizes(dataset: &Dataset) -> String {
    let annotations = dataset.annotations();
    let images = dataset.images().len();
    let most = (0..images).map(|i| dataset.annotations_of(i).len()).max().unwrap_or(0);
    let mean = annotations.len() as f64 / images.max(1) as f64;
    let an_image = format!("{mean:.1} boxes an image on average, {most} at most");
    if dataset.unit() == Unit::Shares {
        return format!("{an_image}; boxes are shares of the images, whose sizes were not read");
    }
    let within = |least: f64, below: f64| {
        annotations.iter().filter(|a| (least..below).contains(&a.area)).count()
    };
    let sizes = [
        ("small", "below 32²", within(0.0, 1024.0)),
        ("medium", "32² to 96²", within(1024.0, 9216.0)),
        ("large", "from 96²", within(9216.0, f64::INFINITY)),
    ];
    let rows = sizes.map(|(name, area, boxes)| {
        vec![name.into(), area.into(), boxes.to_string(), share(boxes, annotations.len())]
    });
    format!(
        "{}\n\n{an_image}",
        table::table(&["<size", "<area in pixels", "boxes", "% of boxes"], rows)
    )
}

fn classes(dataset: &Dataset, counts: &[Count], all: bool) -> String {
    let mut classes: Vec<(&Category, Count)> =
        dataset.vocabulary().categories().iter().zip(counts.iter().copied()).collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(count.boxes));
    let columns = ["id", "<class", "<group", "images", "boxes"];
    let groups = has_groups(dataset);
    let row = |(category, count): &(&Category, Count)| {
        vec![
            category.id.0.to_string(),
            category.name.clone(),
            table::group_letter(groups.then_some(category.frequency)),
            count.images.to_string(),
            count.boxes.to_string(),
        ]
    };
    if all || classes.len() <= table::MOST_CLASSES {
        return table::table(&columns, classes.iter().map(row));
    }
    let rows = table::with_gap(table::ends(&classes, table::SHOWN), columns.len(), row);
    let more = table::more_classes(classes.len() - 2 * table::SHOWN, "--per-class");
    format!("{}\n\n{more}", table::table(&columns, rows))
}
