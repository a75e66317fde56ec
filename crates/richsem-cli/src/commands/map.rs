//! `richsem map`.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::{Result, anyhow};
use richsem::{
    data::extra::read_mapping,
    error::write_atomically,
    mapping::{
        ClassName, Decision, MappedClass, Mapping, Options,
        learned::{Audit, audit},
        look::{Looked, Looking, look, vocabulary},
        map,
        read::Names,
        review::{Kept, Review, entries_to_json, to_json},
    },
    plural::{clause, counted},
    teacher::{self, TeacherConfig, TeacherText},
};

use crate::{
    args::{DeviceArgs, score},
    exit, output,
    progress::Counter,
    signals::Signals,
    table,
};

const HELP: &str = "\
Examples:
  richsem map challenge-2019-classes.csv lvis_v1_val.json --out map.json --review review.toml
  richsem map imagenet/ lvis_v1_val.json --out map.json
  richsem map names.txt coco.json --from-text names.npy --to-text coco.npy
  richsem map imagenet/ lvis_v1_val.json --teacher RN50.pt --out map.json
  richsem map imagenet/ lvis_v1_val.json --teacher RN50.pt --check map.json --out mended.json

FROM and TO are annotated sets of any format, lists of categories (JSON), OpenImages' CSV of names
(MID,Name), folders or .tars with a folder for each class (by wnid or name), or text files with a class a
line: its name, and after commas its synonyms. A name that has a comma itself is written in a JSON list.

Classes are compared by id, name, synonyms, WordNet 3.0 and, if both sides have them, text embeddings.
What is sure enough is mapped. The rest is for you: --review writes a file with at most five candidates a
class; write your decisions there and run the command again. OUT is for training: mapping = { by = \"file\",
path = \"map.json\" }.

With --teacher, a CLIP looks at some images of each class of FROM, which are folders then. What it sees
decides between senses of a word, and whether TO has the class at all. --check looks for wrong entries of a
mapping instead, and --out writes it with them mended.";

/// Images of a class from which on a teacher is seldom wrong about it (docs/richsem.md).
const ENOUGH: usize = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Classes to map
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Classes to map them to
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Writes the mapping (JSON). Classes that are open are left out
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Classes for you to decide (TOML). If the file is there, its decisions count, and stay in it
    #[arg(long, value_name = "FILE")]
    review: Option<PathBuf>,
    /// Text embeddings of FROM: a row a class (.npy or .safetensors)
    #[arg(long, value_name = "FILE", requires = "to_text")]
    from_text: Option<PathBuf>,
    /// Text embeddings of TO, of the same encoder
    /// (With --teacher, of its own: instead of its text encoder)
    #[arg(long, value_name = "FILE")]
    to_text: Option<PathBuf>,
    /// A CLIP that looks at images of each class of FROM: its weights
    #[arg(long, value_name = "FILE", conflicts_with = "from_text")]
    teacher: Option<PathBuf>,
    /// Looks for wrong entries of this mapping, by what the teacher sees (JSON or TOML, as training reads it)
    #[arg(long, value_name = "FILE", requires = "teacher", conflicts_with_all = ["review", "narrower", "threshold"])]
    check: Option<PathBuf>,
    /// Images of each class that the teacher looks at
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..), requires = "teacher")]
    images: u16,
    /// Pixels of the longer side of what it looks at: take what it was trained at
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = clap::value_parser!(u16).range(32..=2048), requires = "teacher")]
    size: u16,
    #[command(flatten)]
    device: DeviceArgs,
    /// Confidence from which on a class is mapped without asking, 0 to 1. Default: 0.5
    #[arg(long, value_name = "CONFIDENCE", value_parser = score)]
    threshold: Option<f32>,
    /// Maps a class to the nearest one that it is a kind of, if TO has no equal. Only where both sides
    /// say their WordNet senses
    #[arg(long)]
    narrower: bool,
    /// Shows all classes, however many there are
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    check(args)?;
    let (from, to) = read(args)?;
    for names in [&from, &to] {
        output::note(format!("{}: {}", names.path().display(), names.notes.join("; ")));
    }
    // Before the teacher looks, which may take long.
    let entries = args.check.as_deref().map(|file| entries(file, &from, &to)).transpose()?;
    let looked =
        args.teacher.as_deref().map(|weights| ask(args, weights, &from, &to)).transpose()?;
    if let (Some(entries), Some(looked)) = (entries, &looked) {
        return check_entries(args, entries, (&from, &to), looked);
    }
    let (from, to) = (from.classes(), to.classes());
    let mut options = Options { narrower: args.narrower, ..Options::default() };
    if let Some(threshold) = args.threshold {
        options.threshold = f64::from(threshold);
    }
    let mut mapping = map(&from, &to, &options);
    if let Some(looked) = &looked {
        mapping.see(&looked.seen, &options)?;
    }
    if let Some(path) = &args.review {
        let (review, kept) = Review::read(path)?.apply(path, &mut mapping, &from, &to)?;
        review.write(path)?;
        tell_kept(path, &kept);
    }
    if let Some(path) = &args.out {
        let text = to_json(&mapping, &from, &to);
        write_atomically(path, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    print(args, &mapping, &from, &to)?;
    Ok(exit::OK)
}

fn check(args: &Args) -> Result<()> {
    output::check_input(&args.from, "FROM", "file or folder")?;
    output::check_input(&args.to, "TO", "file or folder")?;
    let mut inputs: Vec<(&Path, &str)> =
        vec![(&args.from, "the first vocabulary"), (&args.to, "the second vocabulary")];
    if args.to_text.is_some() && args.from_text.is_none() && args.teacher.is_none() {
        return Err(anyhow!(
            "--to-text: given without --from-text\n  hint: embeddings are compared: give both, or --teacher"
        ));
    }
    for (file, flag) in [
        (&args.from_text, "--from-text"),
        (&args.to_text, "--to-text"),
        (&args.teacher, "--teacher"),
        (&args.check, "--check"),
    ] {
        if let Some(file) = file {
            output::check_input_file(file, flag)?;
            inputs.push((file, flag));
        }
    }
    for (file, flag) in [(&args.out, "--out"), (&args.review, "--review")] {
        if let Some(file) = file {
            output::check_file(file, flag)?;
            output::check_apart(file, flag, &inputs)?;
        }
    }
    if args.out.is_some() && args.out == args.review {
        return Err(anyhow!("--review: this is the file of --out\n  hint: give another name"));
    }
    Ok(())
}

fn read(args: &Args) -> Result<(Names, Names)> {
    let (mut from, mut to) = (Names::read(&args.from)?, Names::read(&args.to)?);
    if let (Some(from_text), Some(to_text)) = (&args.from_text, &args.to_text) {
        from.read_text(from_text)?;
        to.read_text(to_text)?;
        if let (Some(a), Some(b)) = (from.text_width(), to.text_width())
            && a != b
        {
            return Err(anyhow!(
                "--to-text: embeddings of {b} numbers, those of --from-text have {a}\n  hint: both must \
                 be of the same text encoder"
            ));
        }
    }
    Ok((from, to))
}

/// What a teacher sees in the images of each class of FROM.
fn ask(args: &Args, weights: &Path, from: &Names, to: &Names) -> Result<Looked> {
    let text = args
        .to_text
        .clone()
        .map_or_else(TeacherText::default, |table| TeacherText::Table { table });
    let store = from.images()?;
    let config = TeacherConfig::of(weights, text);
    let device = args.device.resolve()?;
    let teacher = teacher::open(&config, &vocabulary(to), device)?;
    let how = Looking { device, size: u32::from(args.size), images: usize::from(args.images) };
    let signals = Signals::catch()?;
    let total = from.classes().len();
    let counter = Counter::new("looking at classes", total);
    let looked = look(from, &store, teacher.as_ref(), &how, &mut |done| {
        counter.set(done, total);
        if signals.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    drop(counter);
    let looked = looked?;
    output::note(format!("{}: {}", weights.display(), teacher.describe()));
    if let Some(assumed) = config.assumed_activation()? {
        output::warn(format!("{}: {assumed}", weights.display()));
    }
    let few = looked.seen.iter().filter(|seen| (1..ENOUGH).contains(&seen.images)).count();
    if few > 0 {
        output::warn(format!(
            "of {} the teacher saw fewer than {ENOUGH} images: what it says there is unsure",
            counted(few, "class")
        ));
    }
    if looked.unread > 0 {
        output::warn(format!(
            "{} could not be read, left out: {}",
            counted(looked.unread, "image"),
            looked.why.join("; ")
        ));
    }
    Ok(looked)
}

/// The entries of a mapping: places in TO, by class of FROM.
fn entries(file: &Path, from: &Names, to: &Names) -> Result<Vec<Vec<usize>>> {
    let classes = from.classes();
    let folders: Vec<&str> = classes.iter().map(|class| class.id.as_str()).collect();
    let entries = read_mapping(file, &vocabulary(to), &folders)?;
    let entries: Vec<Vec<usize>> =
        entries.iter().map(|entry| entry.iter().map(|class| class.0 as usize).collect()).collect();
    let without = entries.iter().filter(|entry| entry.is_empty()).count();
    if without == entries.len() {
        return Err(anyhow!(
            "--check: {}: no class of {} has an entry\n  hint: its keys are ids or names of FROM's classes, as {}",
            file.display(),
            from.path().display(),
            folders.first().copied().unwrap_or_default()
        ));
    }
    if without > 0 {
        output::note(format!(
            "{}: {} no entry",
            file.display(),
            clause(without, "class", ["has", "have"])
        ));
    }
    Ok(entries)
}

/// Shows the entries of a mapping that the images speak against, and writes it with them mended.
fn check_entries(
    args: &Args,
    mut entries: Vec<Vec<usize>>,
    (from, to): (&Names, &Names),
    looked: &Looked,
) -> Result<u8> {
    let from = from.classes();
    let Audit { suspects, unseen } = audit(&entries, &looked.seen)?;
    let to = to.classes();
    let named = |places: &[usize]| -> String {
        let names: Vec<&str> = places.iter().map(|&place| to[place].name.as_str()).collect();
        names.join(", ")
    };
    let rows = suspects.iter().map(|suspect| {
        let class = &from[suspect.from];
        vec![
            class.id.clone(),
            class.name.clone(),
            named(&entries[suspect.from]),
            to[suspect.better].name.clone(),
            format!("{:.1}x", suspect.score.exp()),
        ]
    });
    let checked = entries.iter().filter(|entry| !entry.is_empty()).count() - unseen.len();
    let title = format!("<{} of {checked} entries look wrong", suspects.len());
    output::print(table::table(
        &["id", &title, "<entry", "<its images show", "more probable"],
        rows,
    ))?;
    if !unseen.is_empty() {
        output::warn(format!(
            "{} without images, of which nothing is known",
            counted(unseen.len(), "mapped class")
        ));
    }
    if let Some(path) = &args.out {
        for suspect in &suspects {
            entries[suspect.from] = vec![suspect.better];
        }
        let all = entries.into_iter().map(Some);
        let text = entries_to_json(all, &from, &to);
        write_atomically(path, |out| Ok(out.write_all(text.as_bytes())?))?;
        output::note(format!("mended: {}", path.display()));
    }
    Ok(exit::OK)
}

/// What became of earlier decisions.
fn tell_kept(path: &Path, kept: &Kept) {
    let path = path.display();
    output::note(format!("{path}: {} decided, {} open", kept.decided, kept.open));
    for change in &kept.changed {
        output::warn(format!("{path}: other candidates than before: {change}"));
    }
    for gone in &kept.gone {
        output::warn(format!(
            "{path}: FROM has no class {gone}: its decision is kept without effect"
        ));
    }
}

fn print(
    args: &Args,
    mapping: &Mapping,
    from: &[ClassName<'_>],
    to: &[ClassName<'_>],
) -> Result<()> {
    let count = |is: fn(Decision) -> bool| {
        mapping.classes.iter().filter(|class| is(class.decision)).count().to_string()
    };
    let rows = [
        ("the same", count(|d| matches!(d, Decision::Same(_)))),
        ("a kind of one", count(|d| matches!(d, Decision::Narrower(_)))),
        ("open, to be decided", count(|d| d == Decision::Review)),
        ("none", count(|d| d == Decision::None)),
    ];
    let rows = rows.map(|(what, count)| vec![what.to_owned(), count]);
    let title = format!("<{} classes in {}", from.len(), args.to.display());
    output::print(table::table(&[&title, "classes"], rows))?;
    print_classes(args, mapping, from, to)?;
    print_unmapped(args, mapping, to)?;
    let without: Vec<&str> = from
        .iter()
        .zip(&mapping.classes)
        .filter(|(_, class)| class.decision == Decision::None)
        .map(|(class, _)| &*class.name)
        .collect();
    if !without.is_empty() && !args.list {
        let shown = &without[..without.len().min(table::SHOWN)];
        let more = if without.len() > shown.len() { ", …" } else { "" };
        output::note(format!(
            "none for {}{more} (--list shows the nearest of each; a line in the file of --review maps it all the same)",
            shown.join(", ")
        ));
    }
    let open = mapping.classes.iter().any(|class| class.decision == Decision::Review);
    if open && args.review.is_none() {
        output::note("classes are open: --review FILE.toml writes them down for you to decide");
    }
    Ok(())
}

/// The open classes, the least sure first; with `--list` all classes.
fn print_classes(
    args: &Args,
    mapping: &Mapping,
    from: &[ClassName<'_>],
    to: &[ClassName<'_>],
) -> Result<()> {
    let shown: Vec<(&ClassName<'_>, &MappedClass)> = from
        .iter()
        .zip(&mapping.classes)
        .filter(|(_, class)| args.list || class.decision == Decision::Review)
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    let columns = ["id", "<class", "<becomes", "<nearest", "confidence", "<evidence"];
    let row = |(class, mapped): &(&ClassName<'_>, &MappedClass)| {
        let becomes = match mapped.decision {
            Decision::Same(place) | Decision::Narrower(place) => to[place].name.clone(),
            Decision::Review => "?".to_owned(),
            Decision::None => table::NOTHING.to_owned(),
        };
        let nearest = mapped.candidates.first();
        let of = |text: &dyn Fn(&richsem::mapping::Candidate) -> String| {
            nearest.map_or_else(|| table::NOTHING.to_owned(), text)
        };
        vec![
            class.id.clone(),
            class.name.clone(),
            becomes,
            of(&|c| format!("{} ({})", to[c.to].name, c.relation.word())),
            of(&|c| format!("{:.2}", c.confidence)),
            of(&|c| c.evidence.to_string()),
        ]
    };
    let text = if args.list || shown.len() <= table::MOST_CLASSES {
        table::table(&columns, shown.iter().map(row))
    } else {
        let rows = table::with_gap(table::ends(&shown, table::SHOWN), columns.len(), row);
        let more = table::more_classes(shown.len() - 2 * table::SHOWN, "--list");
        format!("{}\n\n{more}", table::table(&columns, rows))
    };
    output::print(format!("\n{text}"))
}

/// Classes of TO that nothing is mapped to, rare ones first.
fn print_unmapped(args: &Args, mapping: &Mapping, to: &[ClassName<'_>]) -> Result<()> {
    let places = mapping.unmapped(to);
    if places.is_empty() {
        return Ok(());
    }
    let shown = if args.list { places.len() } else { table::SHOWN.min(places.len()) };
    let rows = places[..shown].iter().map(|&place| {
        let class = &to[place];
        let images = class.images.map_or_else(|| table::NOTHING.to_owned(), |n| n.to_string());
        vec![class.id.clone(), class.name.clone(), table::group_letter(class.frequency), images]
    });
    let title = format!("<{} classes that nothing is mapped to", places.len());
    let text = table::table(&["id", &title, "<group", "train images"], rows);
    let more = match places.len() - shown {
        0 => String::new(),
        more => format!("\n\n{}", table::more_classes(more, "--list")),
    };
    output::print(format!("\n{text}{more}"))
}
