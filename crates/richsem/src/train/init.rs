//! Where a new run's weights come from: a whole detector's, a backbone's, or the initial values.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{Learner, class_rows};
use crate::{
    argument::Argument,
    checkpoint_io::{
        backbones::{LoadedBackbone, load_backbone},
        fit::{Fit, Patterns},
    },
    config::{Config, InitConfig},
    convert::{self, Initial},
    error::Result,
    models::config::FamilyConfig,
    semantic_branch::SemanticBranch,
    vocabulary::Vocabulary,
};

/// Prefix of the parameters that only training has.
const BRANCH: &str = "semantic_branch.";
/// What a linear class head's parameters start with; its rows are the label embedding, too.
const LINEAR: [&str; 2] = ["class_embed.0.", "transformer.enc_out_class_embed."];

/// What a new run starts from, if not from initial values: read before the model is made, whose padding
/// it decides where the settings do not.
///
/// # Errors
/// A file that cannot be read or is of another kind.
pub(super) fn read(config: &mut Config) -> Result<Option<Initial>> {
    let initial = config.init.as_ref().map(|init| convert::initial(&init.weights)).transpose()?;
    let of_weights = initial.as_ref().map(|initial| initial.padding);
    let padding = config.model.padding_setting().or(of_weights);
    config.model.set_padding(Some(padding.unwrap_or_else(|| config.model.padding())));
    Ok(initial)
}

/// Gives a new learner the weights that the settings name. What a user should know of it.
///
/// # Errors
/// A file that cannot be read or is of another kind; every difference that is not allowed.
pub(super) fn start(
    config: &Config,
    initial: Option<Initial>,
    learner: &mut Learner,
) -> Result<Vec<String>> {
    let mut messages = Vec::new();
    let whole_detector = config.init.as_ref().zip(initial);
    match (whole_detector, config.model.backbone().weights()) {
        (Some((init, initial)), backbone) => {
            messages = whole(init, initial, learner)?;
            if backbone.is_some() {
                let other = config.model.family_key("backbone.weights");
                messages.push(format!("the backbone is that of init.weights, not that of {other}"));
            }
        }
        (None, Some(path)) => {
            let store = learner.model.detector.store();
            let LoadedBackbone { what, prefix, anew } =
                load_backbone(store, config.model.backbone(), path)?;
            let below = match &*prefix {
                "" => String::new(),
                prefix => format!(", what is below `{prefix}` there"),
            };
            messages.push(format!("backbone from {}: {what}{below}", path.display()));
            if !anew.is_empty() {
                messages.push(format!("norms of its outputs start anew: {}", anew.join(", ")));
            }
        }
        (None, None) => return Ok(messages),
    }
    // The EMA starts at the loaded weights.
    learner.optimizer.reset_ema();
    Ok(messages)
}

fn whole(init: &InitConfig, initial: Initial, learner: &Learner) -> Result<Vec<String>> {
    let path = &init.weights;
    let Initial { mut values, vocabulary, what, .. } = initial;
    let mut messages = vec![format!("weights from {}: {what}", path.display())];
    let detector = &learner.model.detector;
    let branch = take_branch(&mut values);
    if detector.classes().text().is_none()
        && !same_classes(vocabulary.as_ref(), detector.vocabulary())
    {
        let own = detector.weights();
        let (is_row, which) = rows_of_classes(&detector.config().model.family);
        let file = vocabulary.as_ref();
        let rows = class_rows::Rows { is_row: &is_row, which };
        messages.extend(class_rows::keep(&mut values, &own, (file, detector.vocabulary()), &rows)?);
    }
    let patterns = Patterns::new(&init.allow_missing, "init.allow_missing")?;
    let fit = Fit::of(detector.store(), &values, &patterns);
    fit.check(
        path,
        &format!(
            "[model] must be as it was for these weights; {} 'PATTERN' lets parameters start anew \
             (class_embed.* and transformer.enc_out_class_embed.* are the class heads)",
            Argument::AllowMissing
        ),
    )?;
    fit.load(detector.store(), &values, path)?;
    messages
        .extend(fit.allowed.iter().map(|m| format!("allowed, starts anew or is left out: {m}")));
    if let Some(own) = &learner.model.semantic_branch {
        messages.push(start_branch(own, &branch, learner));
    }
    Ok(messages)
}

/// Whether a parameter has a row for each class.
type IsRow = Box<dyn Fn(&String) -> bool>;

/// Which parameters have a row for each class, and what is said where these start anew.
fn rows_of_classes(family: &FamilyConfig) -> (IsRow, &'static str) {
    match family {
        FamilyConfig::Dino(_) => (
            Box::new(|name| LINEAR.iter().any(|prefix| name.starts_with(prefix))),
            "the linear class heads, and the label embedding, which is their rows,",
        ),
        FamilyConfig::FasterRcnn(rcnn) => {
            let agnostic = rcnn.roi.class_agnostic;
            (
                Box::new(move |name| {
                    name.contains(".cls_score.")
                        || !agnostic && name.contains("predictor.bbox_pred.")
                }),
                "the rows of each class in the box predictors",
            )
        }
    }
}

/// The parameters of a semantic branch, apart from the detector's.
fn take_branch(values: &mut BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut branch = values.split_off(BRANCH);
    // What comes after them in the alphabet is the detector's again.
    let after: Vec<String> = branch.keys().filter(|k| !k.starts_with(BRANCH)).cloned().collect();
    values.extend(after.into_iter().filter_map(|name| branch.remove_entry(&name)));
    branch
}

/// The branch goes on where the file's stood, or starts as the class head's projection does.
fn start_branch(
    own: &SemanticBranch,
    given: &BTreeMap<String, Tensor>,
    learner: &Learner,
) -> String {
    let fit = Fit::of(own.store(), given, &Patterns::default());
    if !given.is_empty()
        && fit.mismatches.is_empty()
        && fit.load(own.store(), given, "init.weights".as_ref()).is_ok()
    {
        return "the semantic branch goes on from the file's".into();
    }
    own.start_as(learner.model.detector.network().class_projection());
    "the semantic branch starts as the class head's projection, where they have the same form"
        .into()
}

fn same_classes(file: Option<&Vocabulary>, own: &Vocabulary) -> bool {
    file.is_some_and(|file| {
        let names = |v: &Vocabulary| -> Vec<(i64, String)> {
            v.categories().iter().map(|c| (c.id.0, c.name.clone())).collect()
        };
        names(file) == names(own)
    })
}
