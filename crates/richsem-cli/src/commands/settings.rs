//! `richsem settings`.

use anyhow::{Result, anyhow};
use richsem::settings_reference::{Setting, all, find, json_schema, search};

use crate::{exit, output, table, words};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  richsem settings                       all settings, a line each
  richsem settings train.lr              one, with its default, range and meaning
  richsem settings data.augment          a section
  richsem settings --schema > richsem.schema.json

A schema is for editors. With taplo (Even Better TOML) write this as the first line of a settings file:
  #:schema richsem.schema.json")]
pub(crate) struct Args {
    /// Setting or section, as train.lr or data
    key: Option<String>,
    /// Writes a JSON schema of settings files
    #[arg(long, conflicts_with = "key")]
    schema: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.schema {
        output::print(format!("{:#}", json_schema()))?;
        return Ok(exit::OK);
    }
    let Some(key) = &args.key else {
        output::print(list(all().iter()))?;
        return Ok(exit::OK);
    };
    match find(key)[..] {
        [] => {
            let near = search(key);
            let named: Vec<&str> = near.iter().take(5).map(|setting| &*setting.key).collect();
            let by_letters = || match named[..] {
                [] => "`richsem settings` lists all".to_owned(),
                _ => format!("did you mean {}?", named.join(", ")),
            };
            let hint = words::setting_hint(key).unwrap_or_else(by_letters);
            Err(anyhow!("there is no setting `{key}`\n  hint: {hint}"))
        }
        [setting] => {
            output::print(one(setting))?;
            Ok(exit::OK)
        }
        ref several => {
            output::print(list(several.iter().copied()))?;
            Ok(exit::OK)
        }
    }
}

fn list<'a>(settings: impl Iterator<Item = &'a Setting>) -> String {
    let rows = settings.map(|setting| {
        let first = setting.about.split(". ").next().unwrap_or_default();
        vec![
            setting.key.clone(),
            setting.default.clone().unwrap_or_else(|| table::NOTHING.to_owned()),
            format!("{}.", first.trim_end_matches('.')),
        ]
    });
    table::table(&["<setting", "<default", "<what"], rows)
}

fn one(setting: &Setting) -> String {
    let default = setting.default.clone().unwrap_or_else(|| "absent".to_owned());
    let mut text = format!("{}\n  type: {}\n  default: {default}\n", setting.key, setting.kind);
    if let Some(of) = &setting.of {
        text += &format!("  only with: {of}\n");
    }
    if let Some(reference) = &setting.reference {
        text += &format!("  in the official code: {reference}\n");
    }
    text += "  since: 0.1.0\n\n";
    text += &wrapped(&setting.about);
    for (word, about) in &setting.words {
        text += &format!("\n  \"{word}\": {about}");
    }
    text
}

/// Lines of about 100 letters.
fn wrapped(text: &str) -> String {
    let (mut lines, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        if length + word.len() > 100 {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
        }
        lines += word;
        length += word.len() + 1;
    }
    lines
}
