//! `richsem pretrain-teacher`.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use richsem::{
    Error,
    pretrain::{
        CaptionSet, HeldOut, PretrainConfig, PretrainObserver, PretrainRow, Pretrained, pretrain,
    },
};

use crate::{
    args::DeviceArgs,
    exit, output,
    progress::{self, Counter},
    signals::Signals,
};

const HELP: &str = "\
Examples:
  richsem synth shapes --captioned-images 1200
  richsem pretrain-teacher shapes/captions.jsonl -o teacher.safetensors
  richsem pretrain-teacher train.json --images train/ -o teacher.safetensors \\
      -c configs/pretrain_teacher.toml --set train.steps=20000 --set model.width=32

CAPTIONS is a file with one JSON object on each line:
  {\"image\": \"a/1.jpg\", \"caption\": \"a photo of a cat on a mat.\"}
\"bbox\": [x, y, width, height] may be added; the caption is then about that part of the image.
CAPTIONS may also be a COCO or LVIS file (.json): its boxes get captions with the names of their
classes. The weights have OpenAI's key names for CLIP. Name the file in teacher.weights, and set
teacher.text.templates to prompts that read like the captions. The metrics are written beside the
weights (teacher.metrics.jsonl). Ctrl-C ends without writing.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Captions (one JSON object on each line), or annotations (COCO or LVIS, .json)
    captions: PathBuf,
    /// Folder or .tar of the images. Default: the folder of CAPTIONS
    #[arg(long, value_name = "PLACE")]
    images: Option<PathBuf>,
    /// File to write the weights to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Settings (TOML). The defaults are a model that two CPU cores train in minutes
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Changes one setting, as train.steps=2000. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.captions, "CAPTIONS", "file")?;
    if let Some(images) = &args.images {
        output::check_input(images, "--images", "folder or .tar")?;
    }
    if let Some(config) = &args.config {
        output::check_input_file(config, "--config")?;
    }
    output::check_file(&args.output, "--output")?;
    let extension = args.output.extension().unwrap_or_default();
    if extension != "safetensors" {
        anyhow::bail!(
            "--output: expected a name that ends in .safetensors, got `{}`",
            args.output.display()
        );
    }
    let config = args.config.iter().map(|file| (file.as_path(), "--config"));
    let inputs: Vec<_> = config.chain([(&*args.captions, "CAPTIONS")]).collect();
    let images: Vec<_> = args.images.iter().map(|place| (place.as_path(), "--images")).collect();
    for file in [&args.output, &Pretrained::metrics_path(&args.output)] {
        output::check_apart(file, "--output", &inputs)?;
        output::check_no_images(file, "--output", &images)?;
    }
    let config = PretrainConfig::load(args.config.as_deref(), &args.assignments)?;
    let set = CaptionSet::open(&args.captions, args.images.as_deref(), &config.data.template)?;
    let device = args.device.resolve()?;
    let signals = Signals::catch()?;
    let started = Instant::now();
    let steps = config.train.steps;
    let mut progress =
        PretrainProgress { counter: Counter::new("pretraining", steps as usize), steps };
    let trained = pretrain(&config, &set, device, &mut progress, &signals.stop);
    drop(progress);
    let trained = match trained {
        Err(Error::Stopped) => return Ok(signals.tell_undone(&args.output)),
        trained => trained?,
    };
    trained.save(&args.output)?;
    if let Some(HeldOut { images, captions, top1, chance }) = trained.held_out {
        output::print(format!(
            "held-out images: top-1 {:.1} % of {images}, among {captions} captions (always the \
             most frequent: {:.1} %)",
            100.0 * top1,
            100.0 * chance
        ))?;
    }
    output::note(format!(
        "finished in {}\nweights: {}\nmetrics: {}",
        progress::hms(started.elapsed().as_secs_f64()),
        args.output.display(),
        Pretrained::metrics_path(&args.output).display()
    ));
    Ok(exit::OK)
}

struct PretrainProgress {
    counter: Counter,
    steps: u64,
}

impl PretrainObserver for PretrainProgress {
    fn message(&mut self, text: &str) {
        self.counter.note(text);
    }

    fn step(&mut self, done: u64, row: Option<&PretrainRow>) {
        self.counter.set(done as usize, self.steps as usize);
        if let Some(row) = row {
            self.counter.note(&format!(
                "step {}/{}  loss {:.4}  scale {:.1}  grad norm {:.3}  lr {:.2e}  {:.1} img/s",
                row.step,
                self.steps,
                row.loss,
                row.scale,
                row.grad_norm,
                row.lr,
                row.images_per_second
            ));
        }
    }
}
