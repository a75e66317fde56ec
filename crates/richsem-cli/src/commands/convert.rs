//! `richsem convert`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{
    checkpoint_io::fit::Patterns,
    config::Config,
    convert::{
        self, Fate, Form, Kind, Line, Options, Report, Source,
        dino::keys::{Layout, Variant},
    },
    data::dataset::Dataset,
    vocabulary::Vocabulary,
};
use tch::Device;

use crate::{
    args::{DeviceArgs, weights_file},
    exit, output, table,
};

const HELP: &str = "\
Examples:
  richsem convert checkpoint0023.pth richsem.safetensors --annotations lvis_v1_val.json
  richsem convert checkpoint0011_4scale.pth dino.safetensors --annotations instances_val2017.json
  richsem convert runs/mine official.pth --clip RN50.pt
  richsem convert resnet50_miil_21k.pth r50_21k.safetensors
  richsem convert RN50.pt clip.safetensors

What IN is, its tensors' names say: a detector of this program (or a run's folder), a checkpoint of
RichSem, DINO or Deformable DETR, a ResNet of torchvision's or timm's, a CLIP of OpenAI's,
open_clip's or Hugging Face's. OUT's name says what is made: .safetensors is what this program reads,
.pth what the official code does.

An official checkpoint becomes a slim detector: CLIP's copies, the optimizer and what only training
uses are left out, and the text table that they stand for is computed and stored. The table on stdout
says what became of what; where anything does not fit, nothing is written.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Weights to convert
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write: .safetensors or .pth
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Settings for what no shape tells, as attention heads; a detector keeps them
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Changes one setting, as model.dino.transformer.nheads=4; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Annotations (COCO or LVIS JSON) with the classes of an official checkpoint; else those of
    /// the settings' data.train or data.val
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Parameters that may be missing or of another shape, and keys that may be unexpected, as
    /// 'class_embed.*'; may be given many times
    #[arg(long, value_name = "PATTERN")]
    allow_missing: Vec<String>,
    /// Which weights of the file: a key of a .pth, as ema_model, or what their names begin with, as
    /// student; unless given, the usual places and whatever is before known names
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// CLIP's weights: makes the text table where the checkpoint has no CLIP, and the copies in a
    /// .pth
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// Of an official checkpoint: also writes what the detector does not hold, as safetensors. On
    /// the way back: puts it in again
    #[arg(long, value_name = "FILE")]
    rest: Option<PathBuf>,
    /// Shows what became of every tensor
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Tensors named one by one, unless all are asked for.
const SHOWN: usize = 20;

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.input, "IN", "file or folder")?;
    let input = weights_file(&args.input, "IN")?;
    let form = Form::of(&args.output)?;
    output::check_file(&args.output, "OUT")?;
    let mut inputs: Vec<(&Path, &str)> = vec![(&input, "IN")];
    for (file, flag) in
        [(&args.config, "--config"), (&args.annotations, "--annotations"), (&args.clip, "--clip")]
    {
        if let Some(file) = file {
            output::check_input_file(file, flag)?;
            inputs.push((file, flag));
        }
    }
    output::check_apart(&args.output, "OUT", &inputs)?;
    let config = match &args.config {
        Some(file) => Config::load(file, &args.assignments)?,
        None => Config::defaults(&args.assignments)?,
    };
    let source = Source::read(&input, args.key.as_deref())?;
    let from_official = matches!(source.kind, Kind::Official(_));
    if let Some(rest) = &args.rest {
        match from_official {
            true => {
                output::check_file(rest, "--rest")?;
                output::check_apart(rest, "--rest", &inputs)?;
            }
            false => output::check_input_file(rest, "--rest")?,
        }
        if *rest == args.output {
            return Err(anyhow!("--rest: `{}` is OUT: give another name", rest.display()));
        }
    }
    let vocabulary = if from_official { vocabulary(args, &config)? } else { None };
    let options = Options {
        config: config.of_detector(),
        seed: config.seed,
        vocabulary,
        allow: Patterns::new(&args.allow_missing, "--allow-missing")?,
        clip: args.clip.clone(),
        rest: args.rest.clone().filter(|_| !from_official),
        // Only the text encoder computes; nothing else is asked for a GPU.
        device: if from_official { args.device.resolve()? } else { Device::Cpu },
    };
    if let (Kind::Official(Layout { variant: Variant::RichSem, .. }), Some(classes)) =
        (source.kind, &options.vocabulary)
    {
        output::note(format!(
            "text table: {} classes × 81 prompts, unless ~/.cache/richsem/text has them (LVIS takes \
             a minute on a GPU, hours without)",
            classes.len()
        ));
    }
    let conversion = convert::convert(source, form, &options)?;
    tell(&conversion.report, args.list)?;
    let problems = conversion.report.problems().count();
    if problems > 0 {
        let line = |p: &Line| format!("\n  {}: {}", p.name, p.fate.detail());
        let shown: String = conversion.report.problems().take(SHOWN).map(line).collect();
        let more = problems.saturating_sub(SHOWN);
        let more =
            if more > 0 { format!("\n  … and {more} more (--list)") } else { String::new() };
        return Err(anyhow!(
            "{}: {problems} tensors do not fit, so nothing is written:{shown}{more}\n  hint: -c or \
             --set with the sizes of that model; --allow-missing 'PATTERN' for what may start anew or \
             be left out",
            input.display()
        ));
    }
    conversion.write(&args.output)?;
    output::note(format!("{}: {}", args.output.display(), size(&args.output)));
    if let Some(rest) = args.rest.as_ref().filter(|_| from_official) {
        conversion.write_rest(rest)?;
        output::note(format!(
            "{}: {}, the {} tensors that the detector does not hold",
            rest.display(),
            size(rest),
            conversion.rest.len()
        ));
    }
    Ok(exit::OK)
}

/// The classes: of the flag's file, or the settings'.
fn vocabulary(args: &Args, config: &Config) -> Result<Option<Vocabulary>> {
    let of_settings = config.data.train.as_ref().or(config.data.val.as_ref());
    let file = args.annotations.as_ref().or(of_settings.map(|split| &split.annotations));
    let Some(file) = file else { return Ok(None) };
    output::check_input_file(file, "--annotations")?;
    Ok(Some(Dataset::open(file)?.vocabulary().clone()))
}

fn tell(report: &Report, list: bool) -> Result<()> {
    output::print(format!("{} → {}\n", report.input, report.output))?;
    let rows = report.summary().into_iter().map(|(part, fate, tensors, values)| {
        vec![part, fate, tensors.to_string(), grouped(values)]
    });
    output::print(table::table(&["<part", "<what became of it", "tensors", "values"], rows))?;
    if list {
        let rows = report
            .lines
            .iter()
            .map(|line| vec![line.name.clone(), grouped(line.values), line.fate.detail()]);
        output::print(format!(
            "\n{}",
            table::table(&["<name", "values", "<what became of it"], rows)
        ))?;
    } else {
        let mut few = report.lines.iter().filter(|line| {
            matches!(line.fate, Fate::TakenAs(_) | Fate::Allowed(_) | Fate::Problem(_))
        });
        let shown: Vec<String> = few
            .by_ref()
            .take(SHOWN)
            .map(|line| format!("{}: {}", line.name, line.fate.detail()))
            .collect();
        if !shown.is_empty() {
            let more = few.count();
            let more =
                if more > 0 { format!("\n… and {more} more (--list)") } else { String::new() };
            output::print(format!("\n{}{more}", shown.join("\n")))?;
        }
    }
    for note in &report.notes {
        output::print(format!("\nnote: {note}"))?;
    }
    Ok(())
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(path: &Path) -> String {
    let bytes = path.metadata().map_or(0, |about| about.len());
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_come_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (47_123_456, "47,123,456")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
