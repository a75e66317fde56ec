//! `richsem synth`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Result;
use richsem::{
    Error,
    shell::quoted,
    synth::{SynthConfig, SynthReport, generate},
    vocabulary::{Category, Frequency},
};

use crate::{args::as_flag, exit, output, progress::Counter, signals::Signals, table};

const HELP: &str = "\
Examples:
  richsem synth shapes
  richsem synth big --classes 200 --train-images 20000 --image-size 256,384 --seed 1
  richsem synth shapes --overwrite

Writes train.json and val.json (LVIS format), images/ and classification/; with --captioned-images
also captions.jsonl and captioned/. README.md says what is in the set and how it was made. The same
command gives the same files, byte for byte.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Folder to write to
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Another seed gives other images of the same classes
    #[arg(long, default_value_t = SynthConfig::default().seed)]
    seed: u64,
    /// Number of classes of the set
    #[arg(long, value_name = "N", default_value_t = SynthConfig::default().classes)]
    classes: usize,
    /// Images of the long-tailed training split
    #[arg(long, value_name = "N", default_value_t = SynthConfig::default().train_images)]
    train_images: usize,
    /// Images of the balanced validation split
    #[arg(long, value_name = "N", default_value_t = SynthConfig::default().val_images)]
    val_images: usize,
    /// Shortest and longest side of an image, in pixels
    #[arg(long, value_name = "MIN,MAX", default_value_t = MinMax::from(SynthConfig::default().image_size))]
    image_size: MinMax<u32>,
    /// Fewest and most objects in an image
    #[arg(long, value_name = "MIN,MAX", default_value_t = MinMax::from(SynthConfig::default().objects_per_image))]
    objects_per_image: MinMax<usize>,
    /// Classification images of each class. 0 means none
    #[arg(long, value_name = "N", default_value_t = SynthConfig::default().classification_per_class)]
    classification_per_class: usize,
    /// Side of the classification and captioned images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = SynthConfig::default().classification_size)]
    classification_size: u32,
    /// Images with captions, to pretrain a teacher on. 0 means none
    #[arg(long, value_name = "N", default_value_t = SynthConfig::default().captioned_images)]
    captioned_images: usize,
    /// Replaces an earlier set in the same folder (and nothing else)
    #[arg(long)]
    overwrite: bool,
}

/// Smallest and largest value of a range, as `160,224`.
#[derive(Debug, Clone, Copy)]
struct MinMax<T>(T, T);

impl<T> From<(T, T)> for MinMax<T> {
    fn from((a, b): (T, T)) -> Self {
        Self(a, b)
    }
}

impl<T: fmt::Display> fmt::Display for MinMax<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.0, self.1)
    }
}

impl<T: FromStr> FromStr for MinMax<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().ok();
        text.split_once(',')
            .and_then(|(a, b)| Some(Self(number(a)?, number(b)?)))
            .ok_or_else(|| "expected two whole numbers with a comma, as 160,224".to_owned())
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let config = SynthConfig {
        seed: args.seed,
        classes: args.classes,
        train_images: args.train_images,
        val_images: args.val_images,
        image_size: (args.image_size.0, args.image_size.1),
        objects_per_image: (args.objects_per_image.0, args.objects_per_image.1),
        classification_per_class: args.classification_per_class,
        classification_size: args.classification_size,
        captioned_images: args.captioned_images,
    };
    output::check_new_folder(&args.output, "OUT")?;
    let counter = Counter::new("drawing", 0);
    let signals = Signals::catch()?;
    let drawn = generate(&config, &args.output, args.overwrite, &signals.stop, &|done, total| {
        counter.set(done, total);
    });
    drop(counter);
    let report = match drawn {
        Err(Error::Stopped) => return Ok(signals.tell_undone(&args.output)),
        drawn => drawn.map_err(as_flag)?,
    };

    show(&report, &args.output)?;
    output::note(format!(
        "{}: {} training, {} validation, {} classification and {} captioned images",
        args.output.display(),
        report.train_images,
        report.val_images,
        report.classification_images,
        report.captioned_images
    ));
    Ok(exit::OK)
}

/// Prints a table of the classes and one of their groups.
fn show(report: &SynthReport, output: &Path) -> Result<()> {
    let categories = report.vocabulary.categories();
    let groups = [Frequency::Frequent, Frequency::Common, Frequency::Rare].map(|group| {
        let of_group =
            || categories.iter().zip(&report.val_instances).filter(|(c, _)| c.frequency == group);
        let train: u32 = of_group().map(|(c, _)| c.instance_count).sum();
        let val: u32 = of_group().map(|(_, val)| val).sum();
        vec![
            table::group_name(group).to_owned(),
            of_group().count().to_string(),
            train.to_string(),
            val.to_string(),
        ]
    });
    let row = |(category, val): &(&Category, &u32)| {
        vec![
            category.id.0.to_string(),
            category.name.clone(),
            category.frequency.letter().to_string(),
            category.image_count.to_string(),
            category.instance_count.to_string(),
            val.to_string(),
        ]
    };
    let columns = ["id", "<class", "<group", "train images", "train boxes", "val boxes"];
    let mut classes: Vec<_> = categories.iter().zip(&report.val_instances).collect();
    let all = classes.len();
    let more = if all > table::MOST_CLASSES {
        classes.sort_by_key(|(category, _)| std::cmp::Reverse(category.instance_count));
        let how = format!("richsem dataset stats {} --per-class", quoted(output));
        format!("\n\n{}", table::more_classes(all - 2 * table::SHOWN, &how))
    } else {
        String::new()
    };
    let ends =
        if more.is_empty() { (&classes[..], &[][..]) } else { table::ends(&classes, table::SHOWN) };
    output::print(format!(
        "{}{more}\n\n{}",
        table::table(&columns, table::with_gap(ends, columns.len(), row)),
        table::table(&["<group", "classes", "train boxes", "val boxes"], groups),
    ))
}
