//! `richsem map`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{
    error::write_atomically,
    mapping::{
        ClassName, Decision, MappedClass, Mapping, Options, map,
        read::Names,
        review::{Kept, Review, to_json},
    },
};

use crate::{args::score, exit, output, table};

const HELP: &str = "\
Examples:
  richsem map challenge-2019-classes.csv lvis_v1_val.json --out map.json --review review.toml
  richsem map imagenet/ lvis_v1_val.json --out map.json
  richsem map names.txt coco.json --from-text names.npy --to-text coco.npy

FROM and TO are annotation files (COCO or LVIS JSON), lists of categories (JSON), OpenImages' CSV of names
(MID,Name), folders with a folder for each class (by wnid or name), or text files with a class a line.

Classes are compared by id, name, synonyms, WordNet 3.0 and, if both sides have them, text embeddings.
What is sure enough is mapped. The rest is for you: --review writes a file with at most five candidates a
class; write your decisions there and run the command again. OUT is for training: mapping = { by = \"file\",
path = \"map.json\" }.";

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
    #[arg(long, value_name = "FILE", requires = "from_text")]
    to_text: Option<PathBuf>,
    /// Confidence from which on a class is mapped without asking, 0 to 1. Default: 0.65
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
    let (from, to) = (from.classes(), to.classes());
    let mut options = Options { narrower: args.narrower, ..Options::default() };
    if let Some(threshold) = args.threshold {
        options.threshold = f64::from(threshold);
    }
    let mut mapping = map(&from, &to, &options);
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
    let mut inputs: Vec<(&Path, &str)> = vec![(&args.from, "FROM"), (&args.to, "TO")];
    for (file, flag) in [(&args.from_text, "--from-text"), (&args.to_text, "--to-text")] {
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
        format!("{}\n\n(all classes: --list)", table::table(&columns, rows))
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
    let more = if shown < places.len() { "\n\n(all classes: --list)" } else { "" };
    output::print(format!("\n{text}{more}"))
}
