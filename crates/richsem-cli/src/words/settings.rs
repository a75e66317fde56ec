//! Settings by the names that others have for them: for `richsem settings NAME`.

use super::{Answer, habit};

/// Flags of `train`, and the settings that they change.
pub(super) const CHANGED: &[(&str, &str)] = &[
    ("lr", "train.lr (flag --lr)"),
    ("batch", "data.batch_size (flag --batch)"),
    ("epochs", "train.epochs (flag --epochs)"),
    ("imgsz", "data.resize and data.augment (flag --imgsz sets both)"),
    ("data", "data.train and data.val (flag --data sets both)"),
    ("val", "data.val (flag --val)"),
    ("images", "data.train.images and data.val.images (flag --images sets both)"),
    ("init", "init.weights (flag --init)"),
    ("allow-missing", "init.allow_missing (flag --allow-missing)"),
];

/// What a name of another program, or a flag of `train`, is among the settings.
pub(crate) fn hint(name: &str) -> Option<String> {
    let of_flag = |flag: &str| CHANGED.iter().find(|(own, _)| *own == flag).map(|(_, is)| *is);
    let name = name.trim_start_matches('-');
    if let Some(is) = of_flag(&name.to_ascii_lowercase().replace('_', "-")) {
        return Some(format!("it is {is} here"));
    }
    let flag = name.replace('_', "-").to_ascii_lowercase();
    let command = crate::command_line();
    let train = command.find_subcommand("train")?;
    if train.get_arguments().any(|arg| arg.get_long() == Some(&flag)) {
        return Some(format!("it is no setting, but a flag: richsem train --{flag}"));
    }
    // `BASE_LR` alone, as people say it.
    let with_section = format!("SOLVER.{name}");
    let habit = habit("train", name).or_else(|| habit("train", &with_section))?;
    Some(match habit.answer {
        Answer::Set(key) => format!("it is {key} here"),
        Answer::Flag(flag) => match of_flag(flag.trim_start_matches('-')) {
            Some(is) => format!("it is {is} here"),
            None => format!("it is no setting, but a flag: richsem train {flag}"),
        },
        Answer::Switch(arguments) => format!("it is {} here", arguments.join(" ")),
        Answer::Says(what) | Answer::Lacks(what) => what.to_owned(),
        Answer::Argument => return None,
    })
}
