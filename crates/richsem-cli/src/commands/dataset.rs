//! `richsem dataset stats` and `richsem dataset from-voc`.

use std::path::PathBuf;

use anyhow::Result;
use richsem::{
    Error,
    data::{dataset::Dataset, formats::Opening, voc},
    vocabulary::{Category, Frequency},
};

use crate::{
    args::{SetArgs, as_flag},
    exit, output,
    signals::Signals,
    table,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem dataset stats train.json
  richsem dataset from-voc VOCdevkit/VOC2012 voc")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check an annotation file and count what is in it
    Stats(StatsArgs),
    /// Convert a Pascal VOC set to COCO JSON
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
  richsem dataset from-voc VOCdevkit/VOC2012 voc
  richsem dataset from-voc bccd.tar bccd

Writes OUT/<set>.json for each image set, and for an archive also OUT/images/. Boxes become [x, y,
width, height], counted from 0. Difficult objects become crowd regions, which training leaves out.")]
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
        Verb::FromVoc(args) => from_voc(&args),
    }
}

fn from_voc(args: &FromVocArgs) -> Result<u8> {
    output::check_input(&args.input, "INPUT", "folder or archive")?;
    output::check_new_folder(&args.output, "OUT")?;
    let signals = Signals::catch()?;
    match voc::convert(&args.input, &args.output, args.overwrite, &signals.stop) {
        Err(Error::Stopped) => return Ok(signals.tell_undone(&args.output)),
        report => output::print(report.map_err(as_flag)?)?,
    }
    Ok(exit::OK)
}

fn stats(args: &StatsArgs) -> Result<u8> {
    output::check_input(&args.annotations, "ANNOTATIONS", "file or folder")?;
    let opening = Opening { pixels: false, ..args.set.opening() };
    let dataset = Dataset::open_as(&args.annotations, &opening)?;
    let counts = counts(&dataset);
    output::print(format!(
        "{}\n\n{}\n\n{}\n\n{}",
        dataset.report(),
        groups(&dataset, &counts),
        sizes(&dataset),
        classes(&dataset, &counts, args.per_class)
    ))?;
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
    let images = dataset.images().len();
    let most = (0..images).map(|i| dataset.annotations_of(i).len()).max().unwrap_or(0);
    let mean = annotations.len() as f64 / images.max(1) as f64;
    format!(
        "{}\n\n{mean:.1} boxes an image on average, {most} at most",
        table::table(&["<size", "<area in pixels", "boxes", "% of boxes"], rows)
    )
}

fn classes(dataset: &Dataset, counts: &[Count], all: bool) -> String {
    let mut classes: Vec<(&Category, Count)> =
        dataset.vocabulary().categories().iter().zip(counts.iter().copied()).collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(count.boxes));
    let columns = ["id", "<class", "<group", "images", "boxes"];
    let row = |(category, count): &(&Category, Count)| {
        vec![
            category.id.0.to_string(),
            category.name.clone(),
            category.frequency.letter().to_string(),
            count.images.to_string(),
            count.boxes.to_string(),
        ]
    };
    if all || classes.len() <= table::MOST_CLASSES {
        return table::table(&columns, classes.iter().map(row));
    }
    let rows = table::with_gap(table::ends(&classes, table::SHOWN), columns.len(), row);
    format!("{}\n\n(all classes: --per-class)", table::table(&columns, rows))
}
