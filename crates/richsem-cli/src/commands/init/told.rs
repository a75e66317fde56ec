//! What `init` says at its end: what was chosen, and what to type next.

use std::path::{Path, PathBuf};

use anyhow::Result;
use richsem::{
    plural::counted,
    recipe::{Beginning, Length, Recipe, Situation},
    shell::quoted,
};

use super::{Args, sets::Opened};
use crate::{args::orientation_words, output, progress, table};

/// Where the images are and which way up, as it was typed, each after a space.
pub(super) fn places(args: &Args) -> String {
    flag("--images", args.images.as_deref()) + orientation_words(args.orientation.get())
}

/// A flag with its path after a space, if it was typed.
fn flag(name: &str, path: Option<&Path>) -> String {
    path.map(|path| format!(" {name} {}", quoted(path))).unwrap_or_default()
}

/// The folder of the run, which is not there yet: `train` does not write into another run.
fn free_run(file: &Path) -> PathBuf {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let first = Path::new("runs").join(&*name);
    let more = (2..1000).map(|n| Path::new("runs").join(format!("{name}-{n}")));
    std::iter::once(first.clone()).chain(more).find(|run| !run.exists()).unwrap_or(first)
}

pub(super) fn tell(
    args: &Args,
    file: &Path,
    situation: &Situation,
    recipe: &Recipe,
    (batch, length, time): (usize, Length, f64),
    val: Option<&Opened>,
) -> Result<()> {
    let run = quoted(free_run(file));
    let start = match &situation.beginning {
        Beginning::Scratch => "from scratch".to_owned(),
        Beginning::Backbone { backbone, .. } => format!("from a trained {}", backbone.describe()),
        Beginning::Detector { .. } => "from a detector".to_owned(),
        Beginning::Official { .. } => "from DINO's checkpoint on COCO".to_owned(),
    };
    let rate = |key: &str| {
        let choice = recipe.choices.iter().find(|choice| choice.key == key);
        choice.map(|choice| choice.value.to_string()).unwrap_or_default()
    };
    let rows = vec![
        vec!["settings".to_owned(), file.display().to_string()],
        vec!["start".to_owned(), start],
        vec!["preset".to_owned(), recipe.preset.unwrap_or("none: DINO's defaults").to_owned()],
        vec![
            "rates".to_owned(),
            format!("{}, backbone {}", rate("train.lr"), rate("train.lr_backbone")),
        ],
        vec![
            "length".to_owned(),
            format!(
                "{} of {}, {} each",
                counted(length.epochs as usize, "epoch"),
                counted(length.steps as usize, "step"),
                counted(batch, "image")
            ),
        ],
        vec!["time".to_owned(), format!("about {}", progress::hms(time))],
    ];
    output::print(table::table(&["<what", "<chosen"], rows))?;
    let (places, orientation) = (places(args), orientation_words(args.orientation.get()));
    let (eval, also) = match val {
        None => (String::new(), String::new()),
        Some(val) => {
            let on = quoted(val.dataset.path());
            let how = match &args.val {
                Some(_) => String::new(),
                None => args.set.typed_of_any_part(),
            };
            let images = flag("--images", args.images_of("val"));
            let eval = format!(
                "\n  richsem eval --weights {run} --annotations {on}{how}{images}{orientation} --per-class"
            );
            let also = flag("--val", args.val.as_deref());
            (eval, also + &flag("--val-images", args.val_images.as_deref()))
        }
    };
    output::print(format!(
        "\nNext:\n  richsem train -c {} --run {run}{eval}\n  richsem predict IMAGE --weights {run} \
         --output found{orientation}",
        quoted(file),
    ))?;
    output::note(format!(
        "Faults in the set: richsem doctor {}{}{also}{places}",
        quoted(&args.data),
        args.set.typed()
    ));
    Ok(())
}
