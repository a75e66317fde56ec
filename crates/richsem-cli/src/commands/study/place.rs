//! Where a run of a study computes: on a device of its own, on several GPUs, or in several processes on the CPU.

use anyhow::{Result, anyhow};
use tch::Cuda;
use torch_ext::{DeviceChoice, device_name};

use crate::args::DeviceArgs;

/// The variable that says which GPUs a process sees.
pub(super) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// What a run is told of where it computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// In messages and results.
    pub(super) name: String,
    /// Options of `train`.
    pub(super) options: [String; 2],
    /// Which GPUs it sees, if not all.
    pub(super) visible: Option<String>,
    /// Processes of a run.
    pub(super) processes: usize,
}

impl Place {
    fn device(name: String) -> Self {
        let options = ["--device".to_owned(), name.clone()];
        Self { name, options, visible: None, processes: 1 }
    }

    fn cpu(processes: u16) -> Self {
        Self {
            name: format!("cpu, {processes} processes"),
            options: ["--processes".to_owned(), processes.to_string()],
            visible: None,
            processes: processes.into(),
        }
    }
}

/// The places of the runs of one time.
///
/// # Errors
/// A device that is not there; fewer GPUs than a run takes.
pub(super) fn places(
    devices: &[DeviceChoice],
    processes: Option<u16>,
    gpus_per_run: Option<u16>,
) -> Result<Vec<Place>> {
    if let Some(processes) = processes {
        return Ok(vec![Place::cpu(processes)]);
    }
    let Some(each) = gpus_per_run else {
        let name = |&device| Ok(device_name(DeviceArgs { device }.resolve()?));
        return devices.iter().map(|device| name(device).map(Place::device)).collect();
    };
    let gpus: Vec<usize> = match devices {
        [DeviceChoice::Auto | DeviceChoice::Cuda(None)] => {
            DeviceChoice::Cuda(None).resolve()?;
            (0..usize::try_from(Cuda::device_count()).unwrap_or(0)).collect()
        }
        list => {
            let index = |&device: &DeviceChoice| match device {
                DeviceChoice::Cuda(Some(index)) => {
                    device.resolve()?;
                    Ok(index)
                }
                _ => Err(anyhow!(
                    "--device: with --gpus-per-run, expected GPUs by number, as cuda:0,cuda:1"
                )),
            };
            list.iter().map(index).collect::<Result<_>>()?
        }
    };
    groups(&gpus, each.into(), std::env::var(VISIBLE).ok().as_deref())
}

/// GPUs, `each` to a run. `visible` is what this process's own variable says.
fn groups(gpus: &[usize], each: usize, visible: Option<&str>) -> Result<Vec<Place>> {
    let visible: Option<Vec<&str>> = visible.map(|list| list.split(',').map(str::trim).collect());
    let of_system = |gpu: &usize| match &visible {
        Some(list) => list.get(*gpu).map_or_else(|| gpu.to_string(), |name| (*name).to_owned()),
        None => gpu.to_string(),
    };
    let places: Vec<Place> = gpus
        .chunks_exact(each)
        .map(|group| Place {
            name: group.iter().map(|gpu| format!("cuda:{gpu}")).collect::<Vec<_>>().join("+"),
            options: ["--gpus".to_owned(), each.to_string()],
            visible: Some(group.iter().map(of_system).collect::<Vec<_>>().join(",")),
            processes: each,
        })
        .collect();
    if places.is_empty() {
        return Err(anyhow!(
            "--gpus-per-run: expected at most {} (the GPUs that there are), got {each}",
            gpus.len()
        ));
    }
    Ok(places)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_gpus_of_its_own() {
        let seen = |gpus: &[usize], each, visible| -> Vec<(String, String)> {
            let places = groups(gpus, each, visible).unwrap();
            places.into_iter().map(|place| (place.name, place.visible.unwrap())).collect()
        };
        let pair = |name: &str, visible: &str| (name.to_owned(), visible.to_owned());
        // A fifth GPU is left over.
        let all = [0, 1, 2, 3, 4];
        assert_eq!(
            seen(&all, 2, None),
            [pair("cuda:0+cuda:1", "0,1"), pair("cuda:2+cuda:3", "2,3")]
        );
        // This process sees some of the machine's.
        assert_eq!(seen(&[0, 1], 1, Some("5, 7")), [pair("cuda:0", "5"), pair("cuda:1", "7")]);
        let error = groups(&[0, 1], 3, None).unwrap_err().to_string();
        assert!(error.contains("at most 2") && error.contains("got 3"), "{error}");
    }
}
