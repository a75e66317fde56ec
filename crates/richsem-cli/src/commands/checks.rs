//! `richsem checks`.

use anyhow::Result;

use torch_ext::device_name;

use crate::{args::DeviceArgs, exit, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem checks
  richsem checks --device cuda    fails, and says why, if there is no usable GPU")]
pub(crate) struct Args {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let report = torch_ext::report();
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "version unknown".to_owned());
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![
        ("richsem".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("libtorch".to_owned(), or_unknown(report.libtorch_version)),
        (
            "  folder".to_owned(),
            or_none(report.libtorch_folder.map(|folder| folder.display().to_string())),
        ),
        ("  CUDA half".to_owned(), report.cuda_half.to_string()),
        ("NVIDIA driver".to_owned(), or_none(report.driver.map(|driver| driver.to_string()))),
        ("NVRTC".to_owned(), report.nvrtc.to_string()),
        (
            "CPU threads".to_owned(),
            format!("libtorch {}, own kernels {}", report.libtorch_threads, report.kernel_threads),
        ),
        ("devices".to_owned(), "cpu".to_owned()),
    ];
    rows.extend(report.devices.iter().map(|device| (String::new(), device.to_string())));
    for kernel in report.kernels {
        rows.push((format!("kernel {}", kernel.name), kernel.state.to_string()));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    for (name, value) in rows {
        output::print(format!("{name:<width$}{value}"))?;
    }
    let device = args.device.device.resolve()?;
    output::print(format!(
        "\n--device {} computes on {}",
        args.device.device,
        device_name(device)
    ))?;
    Ok(exit::OK)
}
