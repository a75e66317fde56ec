//! Before a run: does the teacher recognise what it is about to label? And, where nothing says with
//! which activation it was trained: with which does it see better?

use std::sync::Arc;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{
    Learner,
    labels::label_batch,
    teacher_scales::{Rebuild, told, tried},
};
use crate::{
    config::Config,
    data::{
        batch::{Batch, SourceId},
        interleaved::Interleaved,
        loader::BatchSource,
    },
    error::{Error, Result},
    normalization::Normalization,
    prepared,
    teacher::{
        self, SoftLabels, TeacherConfig, TeacherText,
        clip::{Activation, Hints, PromptSet},
        made_for::MadeFor,
    },
    vocabulary::Vocabulary,
};

/// Boxes after which a share is known well enough (to two or three per cent).
const ENOUGH: usize = 500;
/// Batches that are looked at, at most.
const MOST_BATCHES: usize = 32;

/// How often the teacher's likeliest class is a box's label.
struct Agreement {
    boxes: usize,
    top1: f64,
    top5: f64,
    /// Mean entropy of the soft labels, in nats.
    entropy: f64,
}

/// Asks the teacher about the first training batches, each set of images apart; what it said, in a
/// sentence each. Without a teacher there is nothing to say.
///
/// # Errors
/// The share of an extra set that it labels (without one, of the detection data) is below `least`: the hint has
/// what it is with images half and twice as large, which `rebuild` makes batches of.
pub(super) fn check(
    learner: &Learner,
    (config, batches): (&Config, &Arc<Interleaved>),
    least: f64,
    rebuild: &Rebuild<'_>,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let weights = config.teacher.as_ref().and_then(|t| t.weights.as_deref());
    let made_for = weights.filter(|file| file.is_file()).map(MadeFor::of).transpose()?;
    let made_for = made_for.and_then(|made_for| made_for.describe());
    said.extend(made_for.iter().map(|made_for| format!("teacher: {made_for}")));
    let mut shares = Vec::new();
    let sources = batches.sources();
    let read = learner.batches(Arc::clone(batches) as _);
    for source in sources.ids() {
        let what = sources.describe(source);
        let label = |batch: &Batch| learner.soft_labels(batch);
        let positions = batches.positions_of(source);
        let Some(agreement) = ask(&label, read.as_ref(), positions)? else { continue };
        let Agreement { boxes, top1, top5, entropy } = agreement;
        said.push(format!(
            "teacher on the first batches of {what}: top-1 {:.1} %, top-5 {:.1} %, entropy \
             {entropy:.2} nats ({boxes} boxes)",
            100.0 * top1,
            100.0 * top5
        ));
        shares.push((source, what, top1, boxes));
    }
    // Coarse boxes are what a teacher is for; those of annotators decide where there are none.
    let is_extra = |source: SourceId| source != SourceId::DETECTION;
    let any_extra = shares.iter().any(|(source, ..)| is_extra(*source));
    for (source, what, top1, boxes) in shares {
        if (is_extra(source) || !any_extra) && top1 < least {
            let problem = format!(
                "expected at least {least}, got {top1:.3}: of {boxes} boxes of {what} the teacher \
                 ranks the label first too seldom to learn from it"
            );
            let label = |batch: &Batch| learner.soft_labels(batch);
            let top1 = |config: &Config| {
                let batches = rebuild(config)?;
                let read = learner.batches(Arc::clone(&batches) as _);
                let agreement = ask(&label, read.as_ref(), batches.positions_of(source))?;
                Ok(agreement.map(|agreement| agreement.top1))
            };
            // Labels that are prepared are of one size alone.
            let prepared = config.teacher.as_ref().is_some_and(|t| t.prepared.is_some());
            let tried = if prepared { Vec::new() } else { tried(config, source, &top1)? };
            let made_for = made_for.map(|m| format!(" (it says: {m})")).unwrap_or_default();
            return Err(Error::config("semantic.min_top1", problem).with_hint(
                match told(&tried) {
                    Some(told) => format!("look at the scale first{made_for}: {told}"),
                    None => format!(
                        "look at the scale first{made_for}, then at teacher.text and the mapping of classes"
                    ),
                },
            ));
        }
    }
    Ok(said)
}

/// Settles `teacher.activation` where the settings leave it open: as the weights or the settings
/// beside them say, or as a trial on the first of the `batches` shows. What was found out, in a
/// sentence.
///
/// # Errors
/// What keeps teacher or images from being read.
pub(crate) fn settle_activation(
    config: &mut Config,
    vocabulary: &Vocabulary,
    device: Device,
    batches: &dyn Fn() -> Result<Arc<Interleaved>>,
) -> Result<Option<String>> {
    let normalization = config.model.normalization();
    if !config.needs_teacher() {
        return Ok(None);
    }
    let Some(teacher) = config.teacher.as_mut().filter(|t| t.activation.is_none()) else {
        return Ok(None);
    };
    if let Some(folder) = &teacher.prepared {
        teacher.activation = Some(prepared::activation(folder)?);
        return Ok(None);
    }
    let hints = Hints::of(teacher.weights()?, None)?;
    if let (Some(activation), Some(by)) = (hints.activation, &hints.source) {
        teacher.activation = Some(activation);
        return Ok(Some(format!("teacher.activation = \"{}\": {by} says so", activation.name())));
    }
    if !teacher.has_transformers()? {
        teacher.activation = Some(Activation::default());
        return Ok(None);
    }
    let batches = batches()?;
    let place = (device, &normalization);
    let [quick, gelu] = [Activation::QuickGelu, Activation::Gelu];
    let (in_quick, boxes) = try_activation(teacher, quick, vocabulary, place, &batches)?;
    let (in_gelu, _) = try_activation(teacher, gelu, vocabulary, place, &batches)?;
    // Two standard errors of a share: less is chance, and the more usual one is taken.
    let clear = (in_gelu - in_quick).abs() > 1.0 / f64::max(boxes as f64, 1.0).sqrt();
    let taken = if clear && in_gelu > in_quick { gelu } else { quick };
    teacher.activation = Some(taken);
    let doubt = match clear {
        true => "",
        false => ": no clear difference; set it if you know better",
    };
    Ok(Some(format!(
        "teacher.activation = \"{}\": nothing says with which the weights were trained; the teacher \
         ranks the label of {boxes} boxes first in {:.1} % with {}, in {:.1} % with {}{doubt}",
        taken.name(),
        100.0 * in_quick,
        quick.name(),
        100.0 * in_gelu,
        gelu.name()
    )))
}

/// The share of the first boxes of every source whose label a teacher of that activation ranks first, and
/// their number.
fn try_activation(
    teacher: &TeacherConfig,
    activation: Activation,
    vocabulary: &Vocabulary,
    (device, normalization): (Device, &Normalization),
    batches: &Interleaved,
) -> Result<(f64, usize)> {
    let mut config = TeacherConfig { activation: Some(activation), ..teacher.clone() };
    if let TeacherText::Prompts { .. } = config.text {
        // One prompt tells as much here as eighty.
        let templates = vec!["a photo of a {}.".to_owned()];
        config.text = TeacherText::Prompts { set: PromptSet::Own, templates };
    }
    let open = teacher::open(&config, vocabulary, device)?;
    let label = |batch: &Batch| label_batch(open.as_ref(), batch, device, normalization).map(Some);
    let (mut right, mut boxes) = (0.0, 0);
    for source in batches.sources().ids() {
        if let Some(agreement) = ask(&label, batches, batches.positions_of(source))? {
            right += agreement.top1 * agreement.boxes as f64;
            boxes += agreement.boxes;
        }
    }
    Ok((right / boxes.max(1) as f64, boxes))
}

fn ask(
    label: &dyn Fn(&Batch) -> Result<Option<SoftLabels>>,
    batches: &dyn BatchSource,
    positions: impl Iterator<Item = u64>,
) -> Result<Option<Agreement>> {
    let positions: Vec<u64> = positions.take(MOST_BATCHES).collect();
    let (mut boxes, mut top1, mut top5, mut entropy) = (0usize, 0.0, 0.0, 0.0);
    // A few at a time: reading is what takes time, and most runs need no more than some batches.
    for positions in positions.chunks(4) {
        let read: Vec<Result<Batch>> = positions.par_iter().map(|&p| batches.build(p)).collect();
        for batch in read {
            let batch = batch?;
            if !batch.supervision.semantic {
                return Ok(None);
            }
            let Some(soft) = label(&batch)? else { return Ok(None) };
            let labels: Vec<i64> = batch
                .targets
                .iter()
                .flat_map(|t| t.labels.iter().map(|c| i64::from(c.0)))
                .collect();
            if labels.is_empty() {
                continue;
            }
            let count = labels.len();
            let labels = Tensor::from_slice(&labels).to_device(soft.logits.device()).unsqueeze(1);
            let classes = soft.logits.size()[1];
            let (_, best) = soft.logits.topk(classes.min(5), -1, true, true);
            let hits = best.eq_tensor(&labels).to_kind(Kind::Float); // [N, 5]
            let log = soft.logits.log_softmax(-1, Kind::Float);
            let sums = Tensor::stack(
                &[
                    hits.select(1, 0).sum(Kind::Float),
                    hits.sum(Kind::Float),
                    -(log.exp() * log).sum(Kind::Float),
                ],
                0,
            );
            let sums = Vec::<f32>::try_from(sums.to_device(Device::Cpu))?;
            boxes += count;
            top1 += f64::from(sums[0]);
            top5 += f64::from(sums[1]);
            entropy += f64::from(sums[2]);
        }
        if boxes >= ENOUGH {
            break;
        }
    }
    let n = boxes as f64;
    Ok((boxes > 0).then(|| Agreement {
        boxes,
        top1: top1 / n,
        top5: top5 / n,
        entropy: entropy / n,
    }))
}
