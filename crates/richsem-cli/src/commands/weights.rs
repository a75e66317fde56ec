//! `richsem weights`.

use anyhow::Result;
use richsem::weights::{self, Address, Entry, Fetched, Places};

use crate::{exit, output, table};

const HELP: &str = "\
Examples:
  richsem weights                          the files that are known, and which of them are here
  richsem weights fetch resnet50-v2        prints where the file is, once it is here

Files are fetched by `curl`, with the proxies and certificates of this machine, and kept in
~/.cache/richsem/weights. What has come of a download that broke off is kept, and the next try goes on
with it. A file is compared with the checksum that its publisher states, if there is one; one without is at
least to be a file of weights.

RICHSEM_HOME     a folder instead of ~/.cache/richsem
RICHSEM_MIRROR   a place that has the files by their names, as https://mirror/weights, or a folder
RICHSEM_OFFLINE  if set, nothing is fetched: only what is here already is found";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Have a file here, and print where it is
    #[command(
        after_help = "Example:\n  richsem init mine --weights \"$(richsem weights fetch resnet50-v2)\""
    )]
    Fetch {
        /// Its name, as `richsem weights` lists it
        name: String,
    },
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let places = Places::from_environment()?;
    match &args.command {
        None => list(&places),
        Some(Verb::Fetch { name }) => fetch(name, &places),
    }
}

fn list(places: &Places) -> Result<u8> {
    let unknown = || "unknown".to_owned();
    let mut wrong = Vec::new();
    let mut row = |entry: &Entry| {
        let kept = places.has(entry).then(|| weights::verify(entry, &places.file(entry)));
        let here = match entry.address {
            _ if matches!(kept, Some(Ok(_))) => "here",
            _ if kept.is_some() => "another file",
            Address::Direct(_) => "fetch",
            Address::Page(_) => "by hand",
            Address::Unpublished(_) => "not published",
        };
        if let Some(Err(error)) = kept {
            wrong.push(error);
        }
        vec![
            entry.name.to_owned(),
            entry.what.to_owned(),
            entry.licence.to_owned(),
            entry.mib.map_or_else(unknown, |mib| format!("{mib:.1}")),
            entry.sha256.map_or_else(unknown, |sum| sum[..8].to_owned()),
            here.to_owned(),
        ]
    };
    let columns = ["<name", "<what", "<licence", "MiB", "<SHA-256", "<here"];
    output::print(table::table(&columns, weights::entries().iter().map(&mut row)))?;
    output::print(format!(
        "\nkept in {}\nother ResNets of torchvision and timm, and CLIPs, are read as well: docs/weights.md",
        places.folder.display()
    ))?;
    for error in wrong {
        output::warn(error);
    }
    Ok(exit::OK)
}

fn fetch(name: &str, places: &Places) -> Result<u8> {
    let entry = weights::entry(name)?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let Fetched { file, was_here, verified } = weights::fetch(entry, places, terminal)?;
    let checked = if verified { "its checksum is right" } else { "nobody states its checksum" };
    output::note(format!(
        "{}: {}, {checked}; {} (licence: {})",
        entry.name,
        if was_here { "was here" } else { "fetched" },
        entry.used.setting(),
        entry.licence
    ));
    output::print(file.display())?;
    Ok(exit::OK)
}
