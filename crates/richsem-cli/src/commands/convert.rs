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
    plural::{clause, counted},
    train::RunFolder,
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

The names of its tensors tell what IN is: a detector of this program (a file or a run folder), a
checkpoint of RichSem, DINO or Deformable DETR, a ResNet of torchvision or timm, or a CLIP of OpenAI,
open_clip or Hugging Face. The name of OUT decides the format: .safetensors for this program, .pth for
the official code.

An official checkpoint becomes a detector without what only training needs: the copies of CLIP and the
optimizer are left out. The text table that they stand for is computed and stored. The table on stdout
says what became of the tensors. If a tensor does not fit, nothing is written.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Weights to convert
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write: .safetensors or .pth
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Settings (TOML) for what no tensor tells, as the number of attention heads. The detector keeps
    /// them
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Changes one setting, as model.dino.transformer.nheads=4. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Annotations (COCO or LVIS JSON) that have the classes of an official checkpoint. Default:
    /// those of data.train or data.val in the settings
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Names of parameters that may be missing, unexpected or of another shape, as 'class_embed.*'.
    /// May be given many times
    #[arg(long, value_name = "PATTERN")]
    allow_missing: Vec<String>,
    /// Which weights of the file: a key of a .pth (as ema_model), or the beginning of their names (as
    /// student). Default: the usual keys are tried, and any beginning before known names
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// CLIP's weights. They give the text table if the checkpoint has no CLIP, and the copies of CLIP
    /// in a .pth
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// Tensors that the detector does not hold (safetensors). From an official checkpoint they are
    /// written to this file; on the way back to .pth they are read from it
    #[arg(long, value_name = "FILE")]
    rest: Option<PathBuf>,
    /// Shows what became of every tensor
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Most tensors that are named one by one without `--list`.
const SHOWN: usize = 20;

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.input, "IN", "file or folder")?;
    let input = weights_file(&args.input, "IN")?;
    let form = Form::of(&args.output)?;
    output::check_file(&args.output, "OUT")?;
    let inputs = check_inputs(args, &input)?;
    output::check_apart(&args.output, "OUT", &inputs)?;
    let config = match &args.config {
        Some(file) => Config::load(file, &args.assignments)?,
        None => Config::defaults(&args.assignments)?,
    };
    let source = Source::read(&input, args.key.as_deref())?;
    if let Some(rest) = &args.rest {
        check_rest(rest, args, is_official(&source), &inputs)?;
    }
    let options = options(args, &config, &source)?;
    tell_of_text_table(&source, &options);
    let from_official = is_official(&source);
    let conversion = convert::convert(source, form, &options)?;
    tell(&conversion.report, args.list)?;
    refuse_problems(&conversion.report, &input)?;
    conversion.write(&args.output)?;
    output::note(format!("{}: {}", args.output.display(), size(&args.output)));
    if let Some(rest) = args.rest.as_ref().filter(|_| from_official) {
        conversion.write_rest(rest)?;
        output::note(format!(
            "{}: {}, {} that the detector does not hold",
            rest.display(),
            size(rest),
            counted(conversion.rest.len(), "tensor")
        ));
    }
    Ok(exit::OK)
}

fn is_official(source: &Source) -> bool {
    matches!(source.kind, Kind::Official(_) | Kind::FasterRcnn(_))
}

/// All files that are read, each with the argument that names it.
fn check_inputs<'a>(args: &'a Args, input: &'a Path) -> Result<Vec<(&'a Path, &'a str)>> {
    let mut inputs = vec![(input, "the input")];
    // Of a run all that it keeps.
    inputs.extend(RunFolder::open(&args.input).ok().map(|_| (&*args.input, "the input")));
    for (file, flag) in
        [(&args.config, "--config"), (&args.annotations, "--annotations"), (&args.clip, "--clip")]
    {
        if let Some(file) = file {
            output::check_input_file(file, flag)?;
            inputs.push((file, flag));
        }
    }
    Ok(inputs)
}

/// `--rest` is written when an official checkpoint is read, and read when one is written.
fn check_rest(
    rest: &Path,
    args: &Args,
    from_official: bool,
    inputs: &[(&Path, &str)],
) -> Result<()> {
    if from_official {
        output::check_file(rest, "--rest")?;
        output::check_apart(rest, "--rest", inputs)?;
    } else {
        output::check_input_file(rest, "--rest")?;
    }
    if *rest == args.output {
        return Err(anyhow!("--rest: `{}` is the output, too: give another name", rest.display()));
    }
    Ok(())
}

fn options(args: &Args, config: &Config, source: &Source) -> Result<Options> {
    let from_official = is_official(source);
    Ok(Options {
        config: config.of_detector(),
        seed: config.seed,
        vocabulary: if from_official { vocabulary(args, config)? } else { None },
        allow: Patterns::new(&args.allow_missing, "--allow-missing")?,
        clip: args.clip.clone(),
        rest: args.rest.clone().filter(|_| !from_official),
        // Only the text encoder computes; nothing else is asked for a GPU.
        device: if from_official { args.device.resolve()? } else { Device::Cpu },
    })
}

/// Encoding the prompts of many classes takes long: the user is told before.
fn tell_of_text_table(source: &Source, options: &Options) {
    if let (Kind::Official(Layout { variant: Variant::RichSem, .. }), Some(classes)) =
        (source.kind, &options.vocabulary)
    {
        output::note(format!(
            "text table: encoding {} classes × 81 prompts, unless ~/.cache/richsem/text has them (for \
             LVIS a minute on a GPU, hours without)",
            classes.len()
        ));
    }
}

/// Nothing is written if a tensor does not fit.
fn refuse_problems(report: &Report, input: &Path) -> Result<()> {
    let problems = report.problems().count();
    if problems == 0 {
        return Ok(());
    }
    let line = |p: &Line| format!("\n  {}: {}", p.name, p.fate.detail());
    let shown: String = report.problems().take(SHOWN).map(line).collect();
    let more = problems.saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  … and {more} more (--list)") } else { String::new() };
    Err(anyhow!(
        "{}: {} not fit, so nothing is written:{shown}{more}\n  hint: give the sizes of that model with -c \
         or --set; name what may start anew or be left out with --allow-missing 'PATTERN'",
        input.display(),
        clause(problems, "tensor", ["does", "do"])
    ))
}

/// The classes: those of `--annotations`, or of the data sets in the settings.
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
