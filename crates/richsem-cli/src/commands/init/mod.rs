//! `richsem init`: settings for a set of images and this machine.

mod beginning;
mod extra;
mod memory;
mod sets;
mod told;
mod trial;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Result, anyhow};
use richsem::{
    config::Config,
    data::{dataset::Dataset, entries},
    doctor::{Examination, Options, Part, Role, Scale, Watch, examine},
    error::write_atomically,
    plural::counted,
    recipe::{Length, Machine, Situation},
    shell::quoted,
    train::{check_vocabularies, learned_by_heart},
};
use tch::Device;
use torch_ext::device_name;

use crate::{
    args::{DeviceArgs, OrientationArgs, SetArgs},
    exit, output, progress,
};
use beginning::beginning;
use extra::Extra;
use memory::Need;
use sets::{Opened, open, open_val};
use told::{places, tell};
use trial::{Images, Trial, trial};

const HELP: &str = "\
Examples:
  richsem init mine                                    a set in two parts, train and val
  richsem init train.json --val val.json --weights resnet50-11ad3fa6.pth
  richsem init mine --weights runs/other               from a detector of other classes
  richsem init mine --minutes 15 -o mine.toml

Looks at the annotations, at the weights and at this machine, times some training steps on random images,
and writes settings for `richsem train`, each below its reason: image sizes, sampler and queries by the set's
numbers (as `richsem doctor --scheme` does), learning rates by what is trained already, batch size by memory
(on the CPU the images' sizes, too, if one alone does not fit), epochs by what such a run needs, or by --minutes. Then it says what to type next.

Nothing is trained, and no image is looked at but a few, to time them: `richsem doctor` finds broken images.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Set to train on: a file or folder of any known format
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Set to evaluate on. Default: the validation part of DATA, if it has one
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// Images of DATA (and of --val): a folder or archive. Default: where the annotations have them
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Images of --val, where they are elsewhere. Default: where its annotations have them, or else --images
    #[arg(long, value_name = "PATH", requires = "val")]
    val_images: Option<PathBuf>,
    /// Weights to start from: a backbone of any kind (`richsem weights` lists some), a run, or a detector's file
    #[arg(long, value_name = "FILE|RUN")]
    weights: Option<PathBuf>,
    /// Classification images: a folder or .tar of class folders
    #[arg(long, value_name = "DATA")]
    extra: Option<PathBuf>,
    /// Longest training time that is wanted, in minutes. Default: 12 on the CPU, as long as needed on a GPU
    #[arg(long, value_name = "N", value_parser = minutes)]
    minutes: Option<f64>,
    /// File to write. Default: NAME.toml, by the name of DATA
    #[arg(short, long, value_name = "FILE.toml")]
    output: Option<PathBuf>,
    /// Replaces the file, if there is one
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    orientation: OrientationArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    /// Where the user says that the images of DATA, or those of the set that it is evaluated on, are.
    fn images_of(&self, role: &str) -> Option<&Path> {
        let own = self.val_images.as_deref().filter(|_| role == "val");
        own.or(self.images.as_deref())
    }
}

/// Minutes of a run on the CPU, where nothing is said.
const CPU_MINUTES: f64 = 12.0;

fn minutes(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok().filter(|&m: &f64| m > 0.0 && m.is_finite());
    value.ok_or_else(|| "expected a number above 0".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let file = args.output.clone().unwrap_or_else(|| default_file(&args.data));
    check(args, &file)?;
    let train = open(args, &args.data, "train", file.parent())?;
    let mut val = open_val(args, file.parent())?;
    if let Some(val) = &mut val {
        // As training will.
        let notes = check_vocabularies(train.dataset.vocabulary(), &mut val.dataset)?;
        notes.iter().for_each(output::note);
        let told = learned_by_heart(train.images(), val.images());
        told.iter().for_each(output::warn);
    }
    if val.is_none() {
        output::warn(format!(
            "no validation set: nothing will be evaluated. Another set is --val DATA, and `richsem dataset split {} OUT{}{}` \
             divides this one",
            quoted(&args.data),
            args.set.typed(),
            places(args)
        ));
    }
    let extra = args.extra.as_deref().map(|path| Extra::open(path, &train.dataset)).transpose()?;
    let (beginning, notes) = beginning(args, file.parent())?;
    notes.iter().for_each(output::note);
    let device = args.device.resolve()?;
    let mut situation = Situation {
        places: Vec::new(),
        images: train.dataset.images().len(),
        drawn: train.dataset.images().len(),
        tile: None,
        judged: val.as_ref().map_or(0, |val| val.dataset.images().len()),
        advice: Vec::new(),
        beginning,
        machine: machine(device),
        sizes: Vec::new(),
    };
    // The sizes that objects are compared with are those of the recipe without the set's numbers.
    let base = config(&situation)?;
    let examination = examined(&train, val.as_ref(), &base)?;
    situation.advice.clone_from(&examination.scheme.advice);
    situation.places = vec![train.place.clone()];
    situation.places.extend(val.as_ref().map(|val| val.place.clone()));
    let images = Images { dataset: &train.dataset, store: &train.store };
    output::note("timing some training steps on random images …");
    let mut chosen = config(&situation)?;
    let mut memory = None;
    if device == Device::Cpu
        && let Some(free) = memory::free()
    {
        memory = need(&chosen, images, &examination)?.map(|need| (need, free));
        if let Some((large, free)) = memory
            && let Some(factor) = memory::shrink(large, free)?
        {
            situation.sizes = memory::sizes(&chosen, factor, large, free);
            chosen = config(&situation)?;
            memory = need(&chosen, images, &examination)?.map(|need| (need, free));
        }
    }
    situation.drawn = drawn(&chosen, &train.dataset)?;
    if let Some(extra) = extra {
        let tile = extra::tile(&chosen);
        situation.places.push(extra.place(tile, file.parent())?);
        situation.tile = Some(tile);
    }
    let trial = trial(&chosen, &situation, images, &examination, (device, memory))?;
    let usual = (device == Device::Cpu).then_some(CPU_MINUTES);
    let seconds = args.minutes.or(usual).map(|minutes| 60.0 * minutes);
    let (length, why) = situation.length(trial.batch, trial.pace, seconds);
    let time = situation.time(length, trial.pace);
    let mut recipe = situation.recipe();
    recipe.set_length((trial.batch, &trial.why), length, &why);
    let head = head(args, &situation, &trial, (length, time), device);
    let text = recipe.to_toml(&head);
    // Written is what reads back.
    Config::parse(&text, &file)?;
    write_atomically(&file, |out| Ok(out.write_all(text.as_bytes())?))?;
    tell(args, &file, &situation, &recipe, (trial.batch, length, time), val.as_ref())?;
    for left in &recipe.left_out {
        output::warn(format!(
            "{} = {} is not set, because the weights would not fit then: {}",
            left.key, left.value, left.why
        ));
    }
    let needed = situation.length(trial.batch, trial.pace, None).0.epochs;
    if needed > length.epochs {
        output::warn(format!(
            "so little time is enough for {} of the {needed} epochs that such a run needs: expect little of it. More \
             time: --minutes N",
            length.epochs
        ));
    }
    if let Some(seconds) = seconds.filter(|&seconds| time > 1.1 * seconds) {
        output::warn(format!(
            "one epoch takes longer than the time that was asked for: {}",
            progress::hms(seconds)
        ));
    }
    Ok(exit::OK)
}

/// Images of the first epoch: a sampler may draw some of them several times.
fn drawn(config: &Config, train: &Dataset) -> Result<usize> {
    let entries = entries(train);
    let shown: Vec<_> = entries.iter().map(|entry| entry.labels.as_slice()).collect();
    Ok(config.data.sampler.epoch_order(&shown, config.seed, 0)?.len())
}

/// `mine.toml` for `mine/`, `train.json` and `data.yaml` in it.
fn default_file(data: &Path) -> PathBuf {
    let named = |path: &Path| {
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        stem.map(|stem| stem.to_string_lossy().into_owned())
    };
    let plain = ["train", "data", "instances", "all", "annotations", "dataset"];
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let mut names = absolute.ancestors().filter_map(named);
    let first = names.next().unwrap_or_default();
    let name = match plain.contains(&&*first) {
        true => names.next().unwrap_or(first),
        false => first,
    };
    PathBuf::from(format!("{}.toml", if name.is_empty() { "mine" } else { &name }))
}

/// Refuses what is not there, and a file that could not be written.
fn check(args: &Args, file: &Path) -> Result<()> {
    output::check_input(&args.data, "DATA", "file or folder")?;
    if let Some(weights) = &args.weights {
        output::check_weights(weights, "--weights")?;
    }
    for (path, flag, what) in [
        (&args.val, "--val", "file or folder"),
        (&args.images, "--images", "folder or archive"),
        (&args.val_images, "--val-images", "folder or archive"),
        (&args.extra, "--extra", "folder or archive"),
    ] {
        if let Some(path) = path {
            output::check_input(path, flag, what)?;
        }
    }
    output::check_file(file, "--output")?;
    let inputs = output::given([
        (Some(&args.data), "DATA"),
        (args.val.as_ref(), "--val"),
        (args.extra.as_ref(), "--extra"),
        (args.weights.as_ref(), "--weights"),
    ]);
    output::check_apart(file, "--output", &inputs)?;
    if file.exists() && !args.overwrite {
        return Err(anyhow!(
            "--output: `{}` exists\n  hint: give another name, or pass --overwrite to replace it",
            file.display()
        ));
    }
    Ok(())
}

/// A path as the settings file has it: relative to its folder as it was typed, if that is the working folder.
fn text(path: &Path, folder: Option<&Path>) -> Result<String> {
    let here = folder.is_none_or(|folder| folder.as_os_str().is_empty());
    let path = if here { path.to_owned() } else { std::path::absolute(path)? };
    path.to_str().map(str::to_owned).ok_or_else(|| {
        anyhow!("`{}`: the name is not UTF-8, so the settings cannot hold it", path.display())
    })
}

fn machine(device: Device) -> Machine {
    match device {
        Device::Cpu => Machine::Cpu {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        },
        _ => Machine::Gpu { name: device_name(device) },
    }
}

/// The settings of a situation, without data and weights: for a trial.
fn config(situation: &Situation) -> Result<Config> {
    let recipe = situation.recipe();
    let assignments = recipe.assignments();
    Ok(match recipe.preset {
        Some(preset) => Config::load_preset(preset, &assignments)?,
        None => Config::defaults(&assignments)?,
    })
}

/// What steps of a recipe take on the CPU.
fn need(config: &Config, train: Images<'_>, examination: &Examination) -> Result<Option<Need>> {
    let size = trial::trained_size(config, train)?;
    Ok(memory::need(config, &trial::work(train, examination, (1, size), (0, 1))))
}

/// The numbers of the set, without looking at images.
fn examined(train: &Opened, val: Option<&Opened>, config: &Config) -> Result<Examination> {
    let mut parts = vec![Part::annotated(Role::Train, &train.dataset, None)];
    parts.extend(val.map(|val| Part::annotated(Role::Val, &val.dataset, None)));
    let default = Options::default();
    let queries = config.model.as_dino().map(|dino| dino.transformer.num_queries);
    let options = Options {
        scale: Scale::of(&config.data.augment, &config.data.resize),
        queries: queries.and_then(|n| usize::try_from(n).ok()).unwrap_or(default.queries),
        max_detections: usize::try_from(config.eval.max_detections)
            .unwrap_or(default.max_detections),
        ..default
    };
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, progress: &|_, _| {} };
    Ok(examine(&parts, None, &options, &watch)?)
}

/// What stands above the settings.
fn head(
    args: &Args,
    situation: &Situation,
    trial: &Trial,
    (length, time): (Length, f64),
    device: Device,
) -> String {
    let Length { epochs, steps, .. } = length;
    let mut text = format!(
        "Written by `richsem init {}` (version {}). Every setting may be changed; those left out have the \
         preset's values, or DINO's (`richsem settings` lists them).\n",
        quoted(&args.data),
        env!("CARGO_PKG_VERSION")
    );
    let memory = trial.memory.map(|mib| format!(", {:.1} GiB", mib / 1024.0)).unwrap_or_default();
    text += &format!(
        "{}, {} to evaluate on. {} of {}: about {} on {} ({:.2} s a step of {} of {}×{} pixels{memory}).",
        counted(situation.images, "training image"),
        situation.judged,
        counted(epochs as usize, "epoch"),
        counted(steps as usize, "step"),
        progress::hms(time),
        device_name(device),
        trial.pace.step,
        counted(trial.batch, "image"),
        trial.size[0],
        trial.size[1]
    );
    text
}
