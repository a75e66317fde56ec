//! Before a run: does the teacher recognise what it is about to label?

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::Learner;
use crate::{
    data::{alternation::Alternation, batch::Batch, loader::BatchSource as _},
    error::{Error, Result},
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

/// Asks the teacher about the first training batches, each set of pictures apart; what it said, in a
/// sentence each. Without a teacher there is nothing to say.
///
/// # Errors
/// The share of an extra set that it labels (without one, of the detection data) is below `least`.
pub(super) fn check(
    learner: &Learner,
    row: &Alternation,
    extra_names: &[String],
    least: f64,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let mut shares = Vec::new();
    let sets = std::iter::once((None, "detection data".to_owned())).chain(
        extra_names.iter().enumerate().map(|(i, name)| (Some(i), format!("data.extra.{name}"))),
    );
    for (extra, what) in sets {
        let Some(agreement) = ask(learner, row, extra)? else { continue };
        let Agreement { boxes, top1, top5, entropy } = agreement;
        said.push(format!(
            "teacher on the first batches of {what}: top-1 {:.1} %, top-5 {:.1} %, entropy \
             {entropy:.2} nats ({boxes} boxes)",
            100.0 * top1,
            100.0 * top5
        ));
        shares.push((extra, what, top1, boxes));
    }
    // Coarse boxes are what a teacher is for; those of annotators decide where there are none.
    let any_extra = shares.iter().any(|(extra, ..)| extra.is_some());
    for (extra, what, top1, boxes) in shares {
        if (extra.is_some() || !any_extra) && top1 < least {
            let problem = format!(
                "expected at least {least}, got {top1:.3}: of {boxes} boxes of {what} the teacher \
                 ranks the label first too seldom to learn from it"
            );
            return Err(Error::config("semantic.min_top1", problem).with_hint(
                "look at the scale first (tile and augment of data.extra against the pictures the \
                 teacher was trained on), then at teacher.text and the mapping of classes",
            ));
        }
    }
    Ok(said)
}

fn ask(learner: &Learner, row: &Alternation, extra: Option<usize>) -> Result<Option<Agreement>> {
    let positions: Vec<u64> = row.positions_of(extra).take(MOST_BATCHES).collect();
    let (mut boxes, mut top1, mut top5, mut entropy) = (0usize, 0.0, 0.0, 0.0);
    // A few at a time: reading is what takes time, and most runs need no more than some batches.
    for positions in positions.chunks(4) {
        let batches: Vec<Result<Batch>> = positions.par_iter().map(|&p| row.build(p)).collect();
        for batch in batches {
            let batch = batch?;
            if !batch.supervision.semantic {
                return Ok(None);
            }
            let Some(soft) = learner.soft_labels(&batch)? else { return Ok(None) };
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
