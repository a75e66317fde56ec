//! What verbs take that write a set: how it is read, and what becomes of its images; and what they say of the result.

use std::path::PathBuf;

use richsem::data::{
    convert::{self, Conversion, ConversionReport, PutImages, Target},
    formats::Opening,
};

use crate::{
    args::{OrientationArgs, SetArgs},
    table,
};

/// How a set is read and written.
#[derive(Debug, clap::Args)]
pub(crate) struct WritingArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Folder or archive of the images. Default: where the format has them, or near the annotations
    #[arg(long, value_name = "PATH")]
    pub(crate) images: Option<PathBuf>,
    /// What becomes of the images: keep (they stay where they are), copy, or link (symbolic links). Default:
    /// copy those of an archive; of a folder link where the images must lie beside what is written (YOLO, split),
    /// else keep
    #[arg(long, value_enum, value_name = "keep|copy|link", hide_possible_values = true)]
    put_images: Option<Put>,
    #[command(flatten)]
    orientation: OrientationArgs,
    /// Replaces files of the same names, if the folder is not empty
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Put {
    Keep,
    Copy,
    Link,
}

impl From<Put> for PutImages {
    fn from(put: Put) -> Self {
        match put {
            Put::Keep => Self::Keep,
            Put::Copy => Self::Copy,
            Put::Link => Self::Link,
        }
    }
}

impl WritingArgs {
    pub(crate) fn conversion(&self, target: Target) -> Conversion {
        Conversion {
            target,
            opening: Opening {
                images: self.images.clone(),
                orientation: self.orientation.get(),
                ..self.set.opening()
            },
            images: self.put_images.map(PutImages::from),
            overwrite: self.overwrite,
        }
    }
}

/// What of a set is not in the new files.
pub(crate) fn not_carried(report: &ConversionReport) -> String {
    let lost = report.not_carried.lost().iter();
    let lost: Vec<Vec<String>> = lost
        .map(|lost| {
            let part = if lost.part.is_empty() { "all" } else { &lost.part };
            vec![part.to_owned(), lost.count.to_string(), lost.what.clone(), lost.instead.clone()]
        })
        .collect();
    let text = match (lost.is_empty(), report.fields_counted) {
        (true, true) => "Everything in the set is in the new files.".to_owned(),
        (true, false) => "Everything that was read is in the new files.".to_owned(),
        (false, _) => table::table(&["<part", "count", "<not carried over", "<instead"], lost),
    };
    if report.fields_counted { text } else { format!("{text}\n{}", convert::NEVER_READ) }
}
