//! `richsem info`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{args::weights_file, exit, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem info runs/mine
  richsem info checkpoint0023.pth

The line `padding` says what the padding of an image may change of its result (images of a batch are
padded to one size). masked: nothing. official: what it changes in the official code; this is so for
all detectors that were trained by that code, or before there was a choice. A run that starts from
these weights does the same, unless model.dino.padding is set.")]
pub(crate) struct Args {
    /// Weights to look at: a file, or a run folder (its best checkpoint)
    #[arg(value_name = "FILE|RUN")]
    weights: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.weights, "FILE|RUN", "file or folder")?;
    let file = weights_file(&args.weights, "FILE|RUN")?;
    for (name, value) in richsem::info::info(&file)? {
        output::print(format!("{name:<28}{value}"))?;
    }
    Ok(exit::OK)
}
