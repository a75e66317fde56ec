//! Which classes a batch shows, and of which it is known whether an image shows them.

use crate::targets::Target;

/// Classes with a box in the batch, sorted, each once.
pub(super) fn present_classes(targets: &[Target]) -> Vec<u32> {
    let mut present: Vec<u32> = targets.iter().flat_map(|t| t.labels.iter().map(|c| c.0)).collect();
    present.sort_unstable();
    present.dedup();
    present
}

/// 1 where an unmatched query of a class is wrong for sure, 0 where the class may be there without
/// a box: unknown, or not exhaustively annotated; `[B · C]`.
pub(super) fn known_classes(targets: &[Target], classes: usize) -> Vec<f32> {
    let mut known = Vec::with_capacity(targets.len() * classes);
    for target in targets {
        let knowledge = &target.knowledge;
        let mut row = vec![f32::from(u8::from(knowledge.others_absent)); classes];
        for class in knowledge.present.iter().chain(&knowledge.absent).chain(&target.labels) {
            row[class.0 as usize] = 1.0;
        }
        for class in &knowledge.not_exhaustive {
            row[class.0 as usize] = 0.0;
        }
        known.append(&mut row);
    }
    known
}
