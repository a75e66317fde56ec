//! The records of an evaluation, out of the engine's saved state: what it matched, without matching again.
//!
//! The engine's records themselves are not public, and rebuilding them through its public interface matches
//! everything a second time. Its state has a version number that goes up when the layout changes. Of another
//! version nothing is read, and [`super::Evaluator::matches`] takes the long way; a test compares both.

use serde::Deserialize;

use super::class_matches::{AREAS, IGNORED};

/// The only version that is read: hotcoco 1.3's.
const VERSION: u32 = 2;

/// The part of the state's header that is needed here.
#[derive(Deserialize)]
struct Header {
    n_pairs: usize,
    n_scores: usize,
    n_words: usize,
}

/// What was matched of one image and class.
pub(super) struct Record {
    pub(super) image: u32,
    pub(super) class: usize,
    pub(super) scores: Vec<f64>,
    /// As in [`super::class_matches::ClassMatches::flags`].
    pub(super) flags: Vec<[u32; AREAS]>,
    /// Boxes to be found, by size.
    pub(super) boxes: [u32; AREAS],
}

/// All records of a state, in order of images and classes. `None` if it is of another version or layout.
pub(super) fn records(state: &[u8], overlaps: usize) -> Option<Vec<Record>> {
    let (magic, rest) = state.split_at_checked(4)?;
    let (version, rest) = rest.split_at_checked(4)?;
    let (length, rest) = rest.split_at_checked(8)?;
    if magic != b"HCSE" || version != VERSION.to_le_bytes() || 2 * overlaps > 64 {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (header, rest) = rest.split_at_checked(length)?;
    let Header { n_pairs, n_scores, n_words } = serde_json::from_slice(header).ok()?;
    let (pairs, rest) = rest.split_at_checked(24 * (n_pairs + 1))?;
    let (scores, rest) = rest.split_at_checked(8 * n_scores)?;
    let (boxes, words) = rest.split_at_checked(4 * AREAS * n_pairs)?;
    if words.len() != 8 * n_words {
        return None;
    }
    let arenas = Arenas { pairs, scores, boxes, words };
    (0..n_pairs).map(|pair| arenas.record(pair, overlaps)).collect()
}

/// Lists of numbers, one after another: 24 bytes a pair of image and class (their ids, where its scores and
/// its words begin), scores, boxes by pair and size, words of flags.
struct Arenas<'a> {
    pairs: &'a [u8],
    scores: &'a [u8],
    boxes: &'a [u8],
    words: &'a [u8],
}

impl Arenas<'_> {
    fn record(&self, pair: usize, overlaps: usize) -> Option<Record> {
        let image = u64_at(self.pairs, 24 * pair)?;
        let class = u64_at(self.pairs, 24 * pair + 8)?;
        let start = u32_at(self.pairs, 24 * pair + 16)? as usize;
        let end = u32_at(self.pairs, 24 * (pair + 1) + 16)? as usize;
        let first_bit = 64 * u32_at(self.pairs, 24 * pair + 20)? as usize;
        let count = end.checked_sub(start)?;
        let score = |i| u64_at(self.scores, 8 * i).map(f64::from_bits);
        // By size, by detection: a bit for each overlap where it is matched, then where it is ignored.
        let low = (1u64 << overlaps) - 1;
        let flags = |d: usize| {
            let mut flags = [0; AREAS];
            for (area, flags) in flags.iter_mut().enumerate() {
                let bits = self.bits(first_bit + (area * count + d) * 2 * overlaps)?;
                *flags = (bits & low) as u32 | ((bits >> overlaps & low) as u32) << IGNORED;
            }
            Some(flags)
        };
        let mut boxes = [0; AREAS];
        for (area, boxes) in boxes.iter_mut().enumerate() {
            *boxes = u32_at(self.boxes, 4 * (AREAS * pair + area))?;
        }
        Some(Record {
            image: u32::try_from(image).ok()?,
            class: usize::try_from(class).ok()?,
            scores: (start..end).map(score).collect::<Option<_>>()?,
            flags: (0..count).map(flags).collect::<Option<_>>()?,
            boxes,
        })
    }

    /// 64 bits from bit `start` on; those after the end are 0.
    fn bits(&self, start: usize) -> Option<u64> {
        let (word, offset) = (start / 64, start % 64);
        let low = u64_at(self.words, 8 * word)? >> offset;
        let next = u64_at(self.words, 8 * (word + 1)).unwrap_or(0);
        Some(if offset == 0 { low } else { low | next << (64 - offset) })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
