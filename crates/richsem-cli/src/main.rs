//! The `richsem` command. Results go to stdout, progress and messages to stderr; [`exit`] has the
//! exit codes. The work is done in the library; here are arguments, tables and words.
#![forbid(unsafe_code)]

mod analysis;
mod args;
mod commands;
mod exit;
mod images;
mod least;
mod names;
mod output;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod pages;
mod parts;
mod progress;
mod ranks;
mod results;
mod shorthand;
mod signals;
mod table;
mod words;
mod writing;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ContextKind};

use commands::{
    bench, checks, completions, convert, dataset, doctor, eval, info, init, map, predict, prepare,
    pretrain_teacher, report, settings, study, synth, train, weights,
};

/// Object detection on long-tailed data: train, evaluate and use detectors
#[derive(Parser)]
#[command(name = "richsem", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write settings for a set of images and this machine, and say what to type next
    Init(init::Args),
    /// Train a detector, or continue a run that was stopped
    Train(train::Args),
    /// Evaluate a detector, or a file of detections, on annotated images
    #[command(visible_alias = "val")]
    Eval(eval::Args),
    /// Find objects in images: writes drawn boxes and JSON
    Predict(predict::Args),
    /// Convert weights: official checkpoints, ResNets, CLIP, and back to the official layout
    Convert(convert::Args),
    /// Show what a file of weights holds
    Info(info::Args),
    /// List public weights, and fetch them
    Weights(weights::Args),
    /// Show a run as one HTML file: metrics, curves, classes, images
    Report(report::Args),
    /// Train variants of the settings with several seeds, and compare them in a table
    Study(study::Args),
    /// Train a small CLIP on captioned images, as a teacher for a domain of your own
    PretrainTeacher(pretrain_teacher::Args),
    /// Label the training images once with the teacher, and keep the labels on disk
    Prepare(prepare::Args),
    /// Draw a long-tailed detection set to try things out on
    Synth(synth::Args),
    /// Look at annotation files, or convert them
    Dataset(dataset::Args),
    /// Find what is wrong with a set of annotated images, and how to train on it
    Doctor(doctor::Args),
    /// Find which class of one vocabulary is which of another
    Map(map::Args),
    /// Show all settings, or what one does
    Settings(settings::Args),
    /// Write completions for a shell
    Completions(completions::Args),
    /// Time training steps and inference
    Bench(bench::Args),
    /// Show what is installed and which devices can be used
    Checks(checks::Args),
}

/// Verbs as `richsem --help` lists them.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Detectors",
        &["init", "train", "eval", "predict", "weights", "convert", "info", "report", "study"],
    ),
    ("Teachers", &["pretrain-teacher", "prepare"]),
    ("Data", &["synth", "dataset", "doctor", "map"]),
    ("This machine and this program", &["checks", "bench", "settings", "completions"]),
];

const EXAMPLES: &str = "\
Examples:
  richsem synth shapes                              a small set to try things out on
  richsem init shapes                               settings for it: shapes.toml
  richsem train -c shapes.toml --run runs/shapes    train
  richsem eval --weights runs/shapes --annotations shapes
  richsem predict holiday.jpg --weights runs/shapes";

/// The command line, as completions need it.
fn plain_command_line() -> clap::Command {
    Cli::command()
}

/// `richsem 0.1.0 (commit 1234567, libtorch 2.11.0)`.
fn version() -> String {
    let libtorch = torch_ext::libtorch_version().unwrap_or("unknown");
    format!(
        "richsem {} (commit {}, libtorch {libtorch})",
        env!("CARGO_PKG_VERSION"),
        env!("RICHSEM_COMMIT")
    )
}

/// Words of a choice are taken in any case: `--to COCO`.
fn in_any_case(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let is_choice = !arg.get_possible_values().is_empty();
            if is_choice { arg.ignore_case(true) } else { arg }
        })
        .mut_subcommands(in_any_case)
}

/// The command line, with the verbs in groups.
fn command_line() -> clap::Command {
    let command = in_any_case(Cli::command());
    let mut text = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        text += &format!("\n{title}:\n");
        for name in names {
            let verb = command.find_subcommand(name).expect("a test finds every name here");
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            text += &format!("  {name:<16} {about}\n");
        }
    }
    text += &format!("\n{EXAMPLES}\n\nOptions:\n{{options}}\n\n{}\n", exit::HELP);
    text += "\nrichsem VERB --help shows all options of a verb.\n";
    command.help_template(text)
}

fn main() -> ExitCode {
    output::set_panic_hook();
    if let Err(error) = signals::outlive_limits() {
        output::error(&error);
        return ExitCode::from(exit::ERROR);
    }
    richsem::argument::set_words(args::as_words);
    let command = command_line();
    let arguments = match words::read(std::env::args_os().collect(), &command) {
        words::Said::Version => {
            let told = output::print(version());
            return ExitCode::from(if told.is_ok() { exit::OK } else { exit::ERROR });
        }
        words::Said::Refused(problem) => {
            output::error(&anyhow::anyhow!(problem));
            return ExitCode::from(exit::COMMAND_LINE);
        }
        words::Said::Arguments(arguments, notes) => {
            notes.iter().for_each(output::note);
            arguments
        }
    };
    // clap writes what is wrong, or the help, and ends with its own code (2, or 0).
    let matches = command.try_get_matches_from(arguments).unwrap_or_else(|mut error| {
        // What was meant is said before (`words`); clap's own tips go by letters alone.
        error.remove(ContextKind::Suggested);
        error.exit()
    });
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = match cli.command {
        Verb::Init(args) => init::run(&args),
        Verb::Train(args) => train::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Predict(args) => predict::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Weights(args) => weights::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Study(args) => study::run(&args),
        Verb::PretrainTeacher(args) => pretrain_teacher::run(&args),
        Verb::Prepare(args) => prepare::run(&args),
        Verb::Synth(args) => synth::run(&args),
        Verb::Dataset(args) => dataset::run(args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Map(args) => map::run(&args),
        Verb::Settings(args) => settings::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Checks(args) => checks::run(&args),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        output::error(&error);
        exit::of(&error)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let command = Cli::command();
        let mut verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        verbs.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(verbs, grouped);
        command_line().debug_assert();
    }
}
