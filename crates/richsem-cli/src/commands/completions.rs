//! `richsem completions`.

use anyhow::Result;
use clap_complete::{Shell, generate};

use crate::exit;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem completions bash > ~/.local/share/bash-completion/completions/richsem
  richsem completions zsh > ~/.zfunc/_richsem        (with fpath+=~/.zfunc in ~/.zshrc, before compinit)
  richsem completions fish > ~/.config/fish/completions/richsem.fish")]
pub(crate) struct Args {
    /// The shell: bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let mut text = Vec::new();
    generate(args.shell, &mut crate::plain_command_line(), "richsem", &mut text);
    crate::output::print(String::from_utf8_lossy(&text).trim_end())?;
    Ok(exit::OK)
}
