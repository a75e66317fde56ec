//! What a step needs to know of the batches of all processes.

use crate::{
    collective::{self, Collective},
    data::batch::Batch,
    error::{Error, Result},
    losses::terms::{StepKey, WholeBatch},
};

/// The batches of all processes, taken as one.
///
/// # Errors
/// A process that failed or is gone, or is at another batch.
pub(super) fn whole_of_all(
    collective: &dyn Collective,
    batch: &Batch,
    key: StepKey,
) -> Result<WholeBatch> {
    let own = WholeBatch::of(key, &batch.targets);
    if collective.world() == 1 {
        return Ok(own);
    }
    let head = [key.micro_step, batch.len() as u64, own.most_boxes as u64];
    let mut bytes: Vec<u8> = head.into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.extend(own.present.iter().flat_map(|class| class.to_le_bytes()));
    let rank = collective.rank() as usize;
    let mut whole = own;
    for (other, bytes) in collective.exchange(bytes)?.into_iter().enumerate() {
        let (head, present) = bytes.split_at_checked(24).unwrap_or_default();
        let (head, _) = head.as_chunks::<8>();
        let head: Vec<u64> = head.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let &[micro_step, images, most] = &*head else {
            return Err(out_of_step(other));
        };
        if micro_step != key.micro_step {
            return Err(out_of_step(other));
        }
        if other < rank {
            whole.first_image += images;
        }
        whole.most_boxes = whole.most_boxes.max(most as usize);
        let (present, _) = present.as_chunks::<4>();
        whole.present.extend(present.iter().map(|class| u32::from_le_bytes(*class)));
    }
    whole.present.sort_unstable();
    whole.present.dedup();
    Ok(whole)
}

/// Of a process at another batch than this one: a bug.
fn out_of_step(rank: usize) -> Error {
    Error::other(format!("rank {rank} is at another batch"))
}

/// What sums are divided by: the mean over the processes, whose sum is at least 1.
///
/// # Errors
/// A process that failed or is gone.
pub(super) fn mean_of_all(collective: &dyn Collective, own: f64) -> Result<f64> {
    let sum = collective::sums(collective, &[own])?[0];
    Ok(sum.max(1.0) / collective.world() as f64)
}
