//! `richsem completions`.

use anyhow::Result;
use clap::{
    Command,
    builder::{PossibleValue, PossibleValuesParser},
};
use clap_complete::{Shell, generate};
use richsem::{config::Config, settings_reference, weights};

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
    generate(args.shell, &mut completed(crate::plain_command_line()), "richsem", &mut text);
    crate::output::print(String::from_utf8_lossy(&text).trim_end())?;
    Ok(exit::OK)
}

/// The command line with names where a text of any kind is read, and without verbs that are kept for those who
/// know them.
fn completed(command: Command) -> Command {
    let presets = || Config::presets().iter().map(|preset| preset.name).chain(["list"]);
    let files = || weights::entries().iter().map(|entry| entry.name);
    let settings = || settings_reference::all().iter().map(|setting| setting.key.as_str());
    command
        .mut_subcommand("train", |verb| with(verb, "preset", presets()))
        .mut_subcommand("settings", |verb| with(verb, "key", settings()))
        .mut_subcommand("weights", |verb| {
            verb.mut_subcommand("fetch", |verb| with(verb, "name", files()))
        })
        .mut_subcommand("dataset", |verb| {
            let shown = verb.get_subcommands().filter(|inner| !inner.is_hide_set());
            let about = verb.get_about().cloned().unwrap_or_default();
            Command::new("dataset").about(about).subcommands(shown.cloned())
        })
}

/// Offers these words for an argument.
fn with(verb: Command, arg: &str, words: impl Iterator<Item = &'static str>) -> Command {
    let words: Vec<PossibleValue> = words.map(PossibleValue::new).collect();
    verb.mut_arg(arg, |arg| arg.value_parser(PossibleValuesParser::new(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_offered_in_every_shell_and_hidden_verbs_are_not() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            generate(shell, &mut completed(crate::plain_command_line()), "richsem", &mut text);
            let text = String::from_utf8_lossy(&text);
            let mut words = vec!["finetune_r50", "convert"];
            // Fish's completions have words for flags alone.
            if shell != Shell::Fish {
                words.extend(["resnet50-v2", "train.lr_drop"]);
            }
            for word in words {
                assert!(text.contains(word), "{shell}: {word}");
            }
            assert!(!text.contains("from-voc"), "{shell}");
        }
    }
}
