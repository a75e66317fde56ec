//! `richsem dataset split`.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use richsem::{
    Error,
    data::{
        convert::Target,
        formats::same_split,
        split::{Division, DivisionReport, divide},
    },
    plural::counted,
    shell::quoted,
};

use crate::{
    args::{as_flag, orientation_words},
    exit, output,
    progress::ReadProgress,
    signals::Signals,
    table,
    writing::{WritingArgs, not_carried},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem dataset split all.json mine
  richsem dataset split VOCdevkit/VOC2012 mine --parts train=0.7,val=0.2,test=0.1
  richsem dataset split frames.json mine --group '^(.*)_[0-9]+[.]jpg$'    a video on one side

Classes are divided one by one, the rarest first, so that a class of two images is on both sides. Images of
one group stay together: without --group these are Roboflow's copies of one image (x_jpg.rf.….jpg).
Copies of other kinds: `richsem doctor`. OUT then has train.json and val.json, and links to the images
(of an archive: copies), and is a set in two parts for every verb: --data OUT.")]
pub(crate) struct Args {
    /// Set to divide: a file, folder or archive of any known format
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder to write to
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Parts, each with its share of the images: shares of 1, or whole numbers, as train=8,val=2
    #[arg(long, value_name = "NAME=SHARE,…", default_value = "train=0.8,val=0.2")]
    parts: String,
    /// What names of images that stay together have in common: the part in parentheses
    #[arg(long, value_name = "REGEX")]
    group: Option<String>,
    /// Other seeds give other parts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    how: WritingArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.input, "IN", "file, folder or archive")?;
    if let Some(images) = &args.how.images {
        output::check_input(images, "--images", "folder or archive")?;
    }
    output::check_new_folder(&args.output, "OUT")?;
    let pattern = args
        .group
        .as_deref()
        .map(|text| Division::pattern(text).map_err(|problem| anyhow!("--group: {problem}")));
    let division =
        Division { parts: parts(&args.parts)?, group: pattern.transpose()?, seed: args.seed };
    let how = args.how.conversion(Target::Coco);
    let signals = Signals::catch()?;
    let mut reading = ReadProgress::default();
    let divided = divide(&args.input, &args.output, &division, &how, &signals.stop, &mut |at| {
        reading.set(at);
        ControlFlow::Continue(())
    });
    drop(reading);
    match divided {
        Err(Error::Stopped) => Ok(signals.tell_undone(&args.output)),
        report => {
            output::print(told(&report.map_err(as_flag)?, args))?;
            Ok(exit::OK)
        }
    }
}

/// `train=0.8,val=0.2`.
fn parts(text: &str) -> Result<Vec<(String, f64)>> {
    let part = |part: &str| {
        let (name, share) = part.split_once('=')?;
        Some((name.trim().to_owned(), share.trim().parse().ok()?))
    };
    text.split(',').map(part).collect::<Option<_>>().ok_or_else(|| {
        anyhow!("--parts: expected names with shares, as train=0.8,val=0.2, got `{text}`")
    })
}

fn first_few(names: &[&str]) -> String {
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(10)].join(", "))
}

fn told(report: &DivisionReport, args: &Args) -> String {
    let rows = report.written.splits.iter().map(|part| {
        vec![
            part.name.clone(),
            part.path.display().to_string(),
            part.images.to_string(),
            part.boxes.to_string(),
            part.images_at
                .as_ref()
                .map_or_else(|| table::NOTHING.to_owned(), |place| place.display().to_string()),
        ]
    });
    let mut text = table::table(&["<part", "<written", "images", "boxes", "<images in"], rows);
    if report.written.splits.iter().any(|part| part.images_at.is_none()) {
        text += "\n\nno image was found: say where the images are with --images";
    }
    let names: Vec<&str> = report.written.splits.iter().map(|part| &*part.name).collect();
    let mut columns = vec!["<class"];
    columns.extend(&names);
    let row = |class: &richsem::data::split::DividedClass| {
        let images = class.images.iter().map(ToString::to_string);
        std::iter::once(class.name.clone()).chain(images).collect::<Vec<_>>()
    };
    let shown = report.classes.iter().take(table::SHOWN * 2);
    text += &format!(
        "\n\nimages of each class, the rarest first\n{}",
        table::table(&columns, shown.map(row))
    );
    if report.classes.len() > table::SHOWN * 2 {
        let how = format!("richsem dataset stats {} --per-class", quoted(&args.output));
        let more = table::more_classes(report.classes.len() - table::SHOWN * 2, &how);
        text += &format!("\n{more}");
    }
    if let Some((matched, all)) = report.matched {
        text += &format!("\n\n--group matches {matched} of {}", counted(all, "name"));
    }
    let (groups, images) = report.groups;
    if groups > 0 {
        text += &format!(
            "\n\n{} of {} stayed together",
            counted(groups, "group"),
            counted(images, "image")
        );
    }
    let lacking: Vec<&str> = report
        .classes
        .iter()
        .filter(|class| class.images.contains(&0) && class.images.iter().any(|&n| n > 0))
        .map(|class| &*class.name)
        .collect();
    if !lacking.is_empty() {
        text += &format!(
            "\n\nnot in every part, because too few images (or groups) show them: {} ({})",
            counted(lacking.len(), "class"),
            first_few(&lacking)
        );
    }
    for note in &report.written.notes {
        text += &format!("\n\n{note}");
    }
    text += &format!("\n\n{}", not_carried(&report.written));
    format!("{text}\n\nnext: richsem init {}", next(report, &args.output))
}

/// What `init` takes of the parts that were made: it finds one for training and one for validation by their
/// names. Others are named, the first to train on, the second to evaluate on.
fn next(report: &DivisionReport, output: &Path) -> String {
    let parts = &report.written.splits;
    let are =
        |role: &str| parts.iter().filter(|part| same_split(&part.name, role)).collect::<Vec<_>>();
    let mut text = quoted(output);
    let train = match are("train")[..] {
        [train] => Some(train),
        _ => {
            let first = parts.first();
            text +=
                &first.map(|part| format!(" --split {}", quoted(&part.name))).unwrap_or_default();
            first
        }
    };
    let is_train = |name: &str| train.is_some_and(|train| train.name == name);
    if !matches!(are("val")[..], [val] if !is_train(&val.name))
        && let Some(val) = parts.iter().find(|part| !is_train(&part.name))
    {
        text += &format!(" --val {}", quoted(&val.path));
    }
    if parts.iter().any(|part| part.images_at.is_none()) {
        text += " --images FOLDER";
    }
    text + orientation_words(report.written.orientation)
}
