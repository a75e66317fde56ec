//! `richsem info`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{args::weights_file, exit, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem info runs/mine
  richsem info checkpoint0023.pth

padding says what an image's padding, and so its batch mates, may change of its result: masked: nothing;
official: what it changes in the official code, as for all that was trained by it or before there was a
choice. A run that starts from these weights does likewise, unless model.dino.padding is set.")]
pub(crate) struct Args {
    /// Weights: a file, or a run folder (its best checkpoint)
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
