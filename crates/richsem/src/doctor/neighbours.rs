//! Pairs of hashes that differ in few bits, without comparing all with all.
//!
//! Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): a hash of 64 bits is four parts of 16. Of two
//! hashes that differ in at most 11 bits one part differs in at most 2. So it is enough to look up, for each
//! part, the 137 values that differ from it in at most 2 bits.

/// Bits of a part.
const PART: u32 = 16;
/// Parts of a hash.
const PARTS: usize = 4;
/// Most bits in which the nearest part of two near hashes differs: that of [`super::look::MOST_BITS`].
const NEAR: u32 = super::look::MOST_BITS / PARTS as u32;

/// Hashes to look up.
pub(super) struct Index {
    hashes: Vec<u64>,
    /// Places of the hashes in the order of each part, and where each of its values begins.
    tables: Vec<(Vec<u32>, Vec<u32>)>,
    /// Changes of a part that are looked up.
    changes: Vec<u16>,
}

impl Index {
    /// Makes tables of at most 2³² hashes.
    pub(super) fn new(hashes: Vec<u64>) -> Self {
        let tables = (0..PARTS).map(|part| table(&hashes, part)).collect();
        let changes = (0..=u16::MAX).filter(|change| change.count_ones() <= NEAR).collect();
        Self { hashes, tables, changes }
    }

    /// Calls `found` with each place from `first` on whose hash differs in at most
    /// [`super::look::MOST_BITS`] bits, in no order that means anything; each place once.
    pub(super) fn near(&self, hash: u64, first: u32, mut found: impl FnMut(u32)) {
        for (part, (places, starts)) in self.tables.iter().enumerate() {
            for change in &self.changes {
                let value = usize::from(part_of(hash, part) ^ change);
                let places = &places[starts[value] as usize..starts[value + 1] as usize];
                let from = places.partition_point(|&place| place < first);
                for &place in &places[from..] {
                    let differing = hash ^ self.hashes[place as usize];
                    let near = differing.count_ones() <= super::look::MOST_BITS;
                    // What an earlier part has found is not told again.
                    let again = || (0..part).any(|p| part_of(differing, p).count_ones() <= NEAR);
                    if near && !again() {
                        found(place);
                    }
                }
            }
        }
    }
}

fn part_of(hash: u64, part: usize) -> u16 {
    (hash >> (PART as usize * part)) as u16
}

/// Places sorted by a part's value, and where each value begins.
fn table(hashes: &[u64], part: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0; (1 << PART) + 1];
    for &hash in hashes {
        starts[usize::from(part_of(hash, part)) + 1] += 1;
    }
    for value in 0..1 << PART {
        starts[value + 1] += starts[value];
    }
    let mut next = starts.clone();
    let mut places = vec![0; hashes.len()];
    for (place, &hash) in (0..).zip(hashes) {
        let next = &mut next[usize::from(part_of(hash, part))];
        places[*next as usize] = place;
        *next += 1;
    }
    (places, starts)
}
