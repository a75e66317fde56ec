//! A run that goes on with other settings: what was changed since its last checkpoint, and what that
//! means for it.

use super::{
    Position,
    checkpoint::{DAMAGED, settings_of},
    run_folder::{RunFolder, SETTINGS},
};
use crate::{
    argument::Argument,
    config::{Config, Difference},
    error::{Error, Result},
};

/// What the change of a setting means to a run that has weights and a place in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The rest of the run has it.
    FromNowOn,
    /// The rest of the run has it, and evaluations before and after do not compare.
    Evaluated,
    /// It is where files are, whose content is compared elsewhere, or how fast the run is.
    Harmless,
    /// It was for the start of the run.
    Past,
    /// The run cannot go on; why.
    Refused(&'static str),
}

const OTHER_MODEL: &str = "the checkpoint's weights are those of another model";
const OTHER_MOMENTS: &str = "the checkpoint holds the moments of the other optimizer";
const OTHER_ORDER: &str = "the run's place in its epoch would be at other images";

/// The first prefix that fits a key decides; what no line names is refused.
const MEANINGS: [(&str, Meaning); 44] = [
    ("version", Meaning::Harmless),
    ("seed", Meaning::Refused(OTHER_ORDER)),
    ("data.train.orientation", Meaning::FromNowOn),
    ("data.train", Meaning::Harmless),
    ("data.val", Meaning::FromNowOn),
    ("data.extra.*.images", Meaning::Harmless),
    ("data.extra.*.info", Meaning::Harmless),
    ("data.extra.*.augment", Meaning::FromNowOn),
    ("data.extra.*.orientation", Meaning::FromNowOn),
    ("data.extra.*.supervision", Meaning::FromNowOn),
    ("data.extra", Meaning::Refused(OTHER_ORDER)),
    ("data.weight", Meaning::Refused(OTHER_ORDER)),
    ("data.batch_size", Meaning::Refused(OTHER_ORDER)),
    ("data.sampler", Meaning::Refused(OTHER_ORDER)),
    ("data.workers", Meaning::Harmless),
    ("data.prefetch", Meaning::Harmless),
    ("data.max_broken_images", Meaning::FromNowOn),
    ("data.pad_multiple", Meaning::FromNowOn),
    ("data.augment", Meaning::FromNowOn),
    ("data.resize", Meaning::Evaluated),
    ("model.*.backbone.weights", Meaning::Past),
    ("model.*.padding", Meaning::Evaluated),
    ("model.*.denoising", Meaning::FromNowOn),
    ("model.*.rpn.pre_nms_test", Meaning::Evaluated),
    ("model.*.rpn.post_nms_test", Meaning::Evaluated),
    ("model.*.roi.score_threshold", Meaning::Evaluated),
    ("model.*.roi.nms", Meaning::Evaluated),
    ("model.class_head.table", Meaning::Harmless),
    ("model", Meaning::Refused(OTHER_MODEL)),
    ("loss", Meaning::FromNowOn),
    // The same file elsewhere: another one is refused by its content.
    ("teacher.weights", Meaning::Harmless),
    ("teacher", Meaning::FromNowOn),
    ("semantic.projection", Meaning::Refused(OTHER_MODEL)),
    ("semantic.min_top1", Meaning::Past),
    ("semantic", Meaning::FromNowOn),
    ("init", Meaning::Past),
    ("train.accumulate", Meaning::Refused(OTHER_ORDER)),
    ("train.optimizer", Meaning::Refused(OTHER_MOMENTS)),
    ("train.precision", Meaning::FromNowOn),
    ("train.cuda_graphs", Meaning::Harmless),
    ("train.cuda_graphs_mib", Meaning::Harmless),
    ("train", Meaning::FromNowOn),
    ("eval.batch_size", Meaning::FromNowOn),
    ("eval", Meaning::Evaluated),
];

/// Lines that say what was changed since the last checkpoint; none before the first.
///
/// # Errors
/// Changes with which the run cannot go on; all are named.
pub(super) fn since_checkpoint(run: &RunFolder, config: &Config) -> Result<Vec<String>> {
    let Some(position) = Position::of_run(run)? else { return Ok(Vec::new()) };
    let file = settings_of(&run.file("checkpoints/last"));
    if !file.is_file() {
        let message = "the checkpoint, of an earlier release, does not say its settings: what was changed \
                       since cannot be told";
        return Ok(vec![message.to_owned()]);
    }
    let before = Config::parse_saved(&crate::error::read_text(&file)?, &file)
        .map_err(|error| error.with_hint(DAMAGED))?;
    let mut messages = Vec::new();
    let mut refused: Option<(Difference, &str)> = None;
    let branch = |config: &Config| config.semantic_branch().is_some();
    if branch(&before) != branch(config) {
        let [first, second] =
            [&before, config].map(|c| if branch(c) { "a branch" } else { "no branch" }.to_owned());
        let key = "semantic.weight".to_owned();
        refused = Some((Difference { key, first, second }, OTHER_MODEL));
    }
    for change in before.differences(config) {
        let Difference { key, first, second } = &change;
        let meaning = meaning(key);
        let what = match meaning {
            Meaning::Harmless => continue,
            Meaning::FromNowOn if key == "train.epochs" => {
                match config.train.epochs <= position.epoch && !position.pending_eval {
                    true => "nothing is left to train",
                    false => "the run's new length",
                }
            }
            Meaning::FromNowOn => "from now on",
            Meaning::Evaluated => {
                "from now on; AP before and after do not compare, nor does `best` know it"
            }
            Meaning::Past => "without effect: it was for the start of the run",
            Meaning::Refused(why) => why,
        };
        messages.push(format!("changed since the checkpoint: {key}: {first} -> {second} ({what})"));
        if let Meaning::Refused(why) = meaning
            && refused.is_none()
        {
            refused = Some((change, why));
        }
    }
    match refused {
        None => Ok(messages),
        Some((change, why)) => {
            let own = format!("changed since the checkpoint: {}: ", change.key);
            messages.retain(|line| !line.starts_with(&own));
            Err(refusal(run, &change, why, &messages))
        }
    }
}

fn refusal(run: &RunFolder, change: &Difference, why: &str, others: &[String]) -> Error {
    let Difference { key, first, second } = change;
    let mut problem = format!("it was {first} until the checkpoint and is {second} now: {why}");
    for other in others {
        problem += &format!("\n  {other}");
    }
    let hint = match why {
        OTHER_MODEL => "put it back, or begin a new run".to_owned(),
        _ => format!(
            "put it back, or begin a new run from these weights with {} {}",
            Argument::Init,
            run.path().display()
        ),
    };
    Error::invalid(&run.file(SETTINGS), key, problem).with_hint(hint)
}

fn meaning(key: &str) -> Meaning {
    listed(key).unwrap_or(Meaning::Refused(OTHER_MODEL))
}

fn listed(key: &str) -> Option<Meaning> {
    let fits = |pattern: &str| {
        let mut parts = key.split('.');
        pattern.split('.').all(|wanted| parts.next().is_some_and(|p| wanted == "*" || wanted == p))
    };
    MEANINGS.iter().find(|(pattern, _)| fits(pattern)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of every setting there is, someone has thought what its change means.
    #[test]
    fn every_setting_has_a_meaning() {
        let file = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
            Config::load(&path, &["loss.federated={}".to_owned()]).unwrap()
        };
        let (full, bare) = (file("demo_richsem.toml"), Config::defaults(&[]).unwrap());
        let mut keys: Vec<String> =
            full.differences(&bare).into_iter().map(|change| change.key).collect();
        keys.extend(bare.flat().into_keys());
        assert!(keys.len() > 80, "{keys:?}");
        for key in keys {
            assert!(listed(&key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_nearest_line_decides() {
        for (key, expected) in [
            ("train.lr", Meaning::FromNowOn),
            ("train.accumulate", Meaning::Refused(OTHER_ORDER)),
            ("data.extra.web.images", Meaning::Harmless),
            ("data.extra.web.weight", Meaning::Refused(OTHER_ORDER)),
            ("data.extra.web.augment.flip", Meaning::FromNowOn),
            ("model.dino.transformer.num_queries", Meaning::Refused(OTHER_MODEL)),
            ("model.dino.denoising.number", Meaning::FromNowOn),
            ("model.faster_rcnn.roi.nms", Meaning::Evaluated),
            ("model.faster_rcnn.rpn.nms", Meaning::Refused(OTHER_MODEL)),
            ("data.trainer", Meaning::Refused(OTHER_MODEL)),
        ] {
            assert_eq!(meaning(key), expected, "{key}");
        }
    }
}
