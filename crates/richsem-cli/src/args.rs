//! Arguments that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{
    Error,
    argument::Argument,
    data::{
        formats::{BoxForm, Opening},
        image_io::Orientation,
    },
    detector::{Detector, weights_in},
    merge::{Merging, Tiling},
    plural::counted,
    precision::Precision,
    shell::quoted,
};
use tch::Device;
use torch_ext::{DeviceChoice, device_name};

use crate::output;

/// The device to compute on.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeviceArgs {
    /// Device to compute on: cpu, cuda, cuda:N, or auto (the first GPU, else the CPU)
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device_choice)]
    pub(crate) device: DeviceChoice,
}

/// Most threads of libtorch's operations on the host, if a GPU does the work.
const HOST_THREADS: i32 = 4;

pub(crate) fn device_choice(text: &str) -> Result<DeviceChoice, String> {
    // clap names the flag and the value itself.
    text.parse().map_err(|_| "expected cpu, cuda, cuda:N (as cuda:0) or auto".to_owned())
}

impl DeviceArgs {
    /// The device. If the user named none and there is no GPU, a note says so: computing on the CPU
    /// without noticing costs hours.
    pub(crate) fn resolve(&self) -> Result<Device> {
        let device = self.device.resolve()?;
        if self.device == DeviceChoice::Auto
            && device == Device::Cpu
            && let Err(reason) = DeviceChoice::Cuda(None).resolve()
        {
            let reason = reason.to_string();
            let reason = reason.strip_prefix("device: ").unwrap_or(&reason);
            // The cause alone: on a machine without a GPU this line comes with every command.
            let ends = [";", "\n", ", and its library"];
            let reason =
                ends.iter().fold(reason, |text, end| text.split(end).next().unwrap_or(text));
            output::note(format!("computing on the CPU: {reason} (richsem checks)"));
        }
        if device.is_cuda() && std::env::var_os("OMP_NUM_THREADS").is_none() {
            // Only copies are left to the host. On a large machine one thread for each core would wait for
            // the others, and keep the reading threads waiting.
            tch::set_num_threads(HOST_THREADS.min(tch::get_num_threads()));
        }
        Ok(device)
    }
}

/// An argument of the library, as the command line has it.
pub(crate) fn as_words(argument: Argument) -> String {
    format!("--{}", argument.name().replace('_', "-"))
}

/// Errors of `synth` and `dataset` name settings; on the command line these are flags.
pub(crate) fn as_flag(error: Error) -> Error {
    match error {
        // Without a flag: the problem has what was typed.
        Error::Config { key, problem, hint } if key == "output" => match hint {
            Some(hint) => Error::other(problem).with_hint(hint),
            None => Error::other(problem),
        },
        Error::Config { key, problem, hint } => {
            Error::Config { key: format!("--{}", key.replace('_', "-")), problem, hint }
        }
        other => other,
    }
}

/// Device and precision of a detector.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InferenceArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Numbers to compute in: f32, or bf16, which is faster on a GPU. Default: what the weights file
    /// says, which is eval.precision, or else the precision of its training
    #[arg(long, value_enum, value_name = "f32|bf16", hide_possible_values = true)]
    precision: Option<PrecisionChoice>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PrecisionChoice {
    F32,
    Bf16,
}

/// Loads a detector from a weights file, a checkpoint folder, or a run folder (its best checkpoint,
/// or the last one if none was evaluated).
pub(crate) fn load_detector(weights: &Path, how: &InferenceArgs) -> Result<Detector> {
    load_detector_on(weights, how, how.device.resolve()?)
}

/// The same on a device that was chosen before.
pub(crate) fn load_detector_on(
    weights: &Path,
    how: &InferenceArgs,
    device: Device,
) -> Result<Detector> {
    let file = weights_file(weights, "--weights")?;
    let mut detector = Detector::load(&file, device)?;
    match how.precision {
        None => {}
        Some(PrecisionChoice::F32) => detector.set_precision(Precision::F32),
        Some(PrecisionChoice::Bf16) => detector.set_precision(Precision::Bf16),
    }
    output::note(format!(
        "{}: {}, padding {}, {} on {}",
        file.display(),
        counted(detector.vocabulary().len(), "class"),
        detector.config().model.padding(),
        detector.config().precision().name(),
        device_name(device)
    ));
    Ok(detector)
}

/// Parses a score, a number from 0 to 1.
pub(crate) fn score(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|score| (0.0..=1.0).contains(score));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The weights file of a path: the file itself, or that of a checkpoint folder or a run folder (its
/// best checkpoint, or the last one if none was evaluated).
pub(crate) fn weights_file(path: &Path, flag: &str) -> Result<PathBuf> {
    weights_in(path).map_err(|error| anyhow!("{}{error}", output::of(flag)))
}

/// Which annotations are meant, where a file or folder leaves it open.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Format of the annotations, where two fit. Default: as recognised
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Part of the set, as train or val, where it has several
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Visual Genome's classes to read: a line each, its other names after commas. Default:
    /// objects_vocab.txt beside the annotations, or else all names that have 50 boxes
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// What the four numbers of a box are, in sets of Hugging Face, which do not say it: xywh, xyxy or cxcywh
    /// (pixels), or one of these with _shares. Default: the only possibility by the boxes themselves
    #[arg(long, value_name = "FORM")]
    boxes: Option<BoxForm>,
}

impl SetArgs {
    /// The list of classes, if one is given.
    pub(crate) fn vocabulary(&self) -> Option<&PathBuf> {
        self.vocabulary.as_ref()
    }

    /// How to open such a set.
    pub(crate) fn opening(&self) -> Opening {
        Opening {
            format: self.format.clone(),
            split: self.split.clone(),
            vocabulary: self.vocabulary.clone(),
            boxes: self.boxes,
            ..Opening::default()
        }
    }

    /// These flags as they are typed, each after a space, but for the part.
    pub(crate) fn typed_of_any_part(&self) -> String {
        let Self { format, split: _, vocabulary, boxes } = self;
        let mut text = String::new();
        if let Some(format) = format {
            text += &format!(" --format {}", quoted(format));
        }
        if let Some(file) = vocabulary {
            text += &format!(" --vocabulary {}", quoted(file));
        }
        if let Some(boxes) = boxes {
            text += &format!(" --boxes {}", boxes.name());
        }
        text
    }

    /// These flags as they are typed, each after a space.
    pub(crate) fn typed(&self) -> String {
        let split = self.split.as_ref().map(|split| format!(" --split {}", quoted(split)));
        format!("{}{}", split.unwrap_or_default(), self.typed_of_any_part())
    }
}

/// What becomes of an image's boxes before they are written or judged.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MergeArgs {
    /// Leaves out boxes that overlap a better one of their class by more than this, 0 to 1. Default: none is
    /// left out
    #[arg(long, value_name = "IOU", value_parser = score)]
    iou: Option<f32>,
    /// Detects also in tiles of this side, in pixels of the image
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=16_384))]
    tiles: Option<u32>,
    /// Share of a tile that the next one has, too: at least as large as the objects are in the tile
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, requires = "tiles", value_parser = overlap)]
    overlap: f32,
}

impl MergeArgs {
    pub(crate) fn get(&self) -> Merging {
        let tiling = self.tiles.map(|side| Tiling { side, overlap: self.overlap });
        Merging { tiling, iou: self.iou }
    }
}

fn overlap(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|share| (0.0..=0.9).contains(share));
    value.ok_or_else(|| "expected a number from 0 to 0.9".to_owned())
}

/// What a command takes to read images that way up, after a space; nothing where it is the default.
pub(crate) fn orientation_words(orientation: Orientation) -> &'static str {
    match orientation {
        Orientation::Exif => "",
        Orientation::Stored => " --orientation stored",
    }
}

/// Which way up images are read.
#[derive(Debug, clap::Args)]
pub(crate) struct OrientationArgs {
    /// Which way up the images are, for the boxes: exif (as viewers show them) or stored (as their pixels
    /// are stored, which the tools of COCO and LVIS read)
    #[arg(
        long,
        value_enum,
        value_name = "exif|stored",
        default_value = "exif",
        hide_possible_values = true
    )]
    orientation: OrientationChoice,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OrientationChoice {
    Exif,
    Stored,
}

impl OrientationArgs {
    pub(crate) fn get(&self) -> Orientation {
        match self.orientation {
            OrientationChoice::Exif => Orientation::Exif,
            OrientationChoice::Stored => Orientation::Stored,
        }
    }
}
