//! Arguments that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{Error, data::image_io::Orientation, detector::Detector};
use tch::Device;
use torch_ext::{DeviceChoice, device_name};

use crate::output;

/// Where to compute.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeviceArgs {
    /// cpu, cuda, cuda:N, or auto: the first GPU, else the CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device_choice)]
    pub(crate) device: DeviceChoice,
}

pub(crate) fn device_choice(text: &str) -> Result<DeviceChoice, String> {
    // clap names the flag and the value itself.
    text.parse().map_err(|_| "expected cpu, cuda, cuda:N (as cuda:0) or auto".to_owned())
}

impl DeviceArgs {
    /// The device. Says so when nothing was asked for and there is no GPU: computing on the CPU
    /// unnoticed costs hours.
    pub(crate) fn resolve(&self) -> Result<Device> {
        let device = self.device.resolve()?;
        if self.device == DeviceChoice::Auto
            && device == Device::Cpu
            && let Err(reason) = DeviceChoice::Cuda(None).resolve()
        {
            let reason = reason.to_string();
            let reason = reason.strip_prefix("device: ").unwrap_or(&reason);
            let reason = reason.split(';').next().unwrap_or(reason);
            output::note(format!("computing on the CPU: {reason}"));
        }
        Ok(device)
    }
}

/// Errors of `synth` and `dataset` name settings; on the command line these are flags.
pub(crate) fn as_flag(error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => {
            let key = match key.as_str() {
                "output" => "OUT".to_owned(),
                _ => format!("--{}", key.replace('_', "-")),
            };
            Error::Config { key, problem, hint }
        }
        other => other,
    }
}

/// Loads a detector from a weights file, a checkpoint's folder, or a run folder (its best
/// checkpoint, or the last one where none was evaluated).
pub(crate) fn load_detector(weights: &Path, device: &DeviceArgs) -> Result<Detector> {
    let file = weights_file(weights, "--weights")?;
    let device = device.resolve()?;
    let detector = Detector::load(&file, device)?;
    output::note(format!(
        "{}: {} classes, padding {}, on {}",
        file.display(),
        detector.vocabulary.len(),
        detector.config.model.dino.padding(),
        device_name(device)
    ));
    Ok(detector)
}

/// A score on the command line.
pub(crate) fn score(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|score| (0.0..=1.0).contains(score));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

const WEIGHTS: &str = "model.safetensors";

/// The weights of a file, a checkpoint's folder, or a run's (its best, or its last where none was
/// evaluated).
pub(crate) fn weights_file(path: &Path, flag: &str) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let places = ["checkpoints/best", "checkpoints/last", ""];
    let mut files = places.iter().map(|place| path.join(place).join(WEIGHTS));
    files.find(|file| file.is_file()).ok_or_else(|| {
        anyhow!(
            "{flag}: `{}` holds neither {WEIGHTS} nor checkpoints with one\n  hint: give a \
             .safetensors file, or the folder of a run that has saved a checkpoint",
            path.display()
        )
    })
}

/// Which way up images are read.
#[derive(Debug, clap::Args)]
pub(crate) struct OrientationArgs {
    /// Which way up the images are, for the boxes: exif, as viewers show them, or stored, as their pixels
    /// are stored (which is what the tools of COCO and LVIS read)
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
