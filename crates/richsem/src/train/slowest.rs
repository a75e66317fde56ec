//! Which process the others wait for.

/// Batches before anything is said: the first ones start libraries, compile and fill what is read ahead.
const FIRST: u64 = 20;
/// Batches that are looked at together.
const LOOKED_AT: u64 = 20;
/// How much longer than the others' a process's batches may take.
const MOST: f64 = 2.0;

/// Times of each process's own work, by rank: without those that it waited for others.
#[derive(Debug)]
pub(super) struct Slowest {
    batches: u64,
    /// Seconds of its own, and of those that it waited for images.
    work: Vec<[f64; 2]>,
    told: Option<usize>,
}

/// A process that takes much longer than the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slow {
    pub(super) rank: usize,
    /// Seconds of a batch; those of them that it waits for images; those of the others, in the middle.
    seconds: [f64; 3],
}

impl Slowest {
    pub(super) fn new(processes: usize) -> Self {
        Self { batches: 0, work: vec![[0.0; 2]; processes], told: None }
    }

    /// A batch took each process so many seconds of its own, of which it waited so many for images. A process
    /// that takes much longer than the others is told once, and again when another one was.
    pub(super) fn batch(&mut self, work: &[[f64; 2]]) -> Option<Slow> {
        self.batches += 1;
        if self.batches <= FIRST || self.work.len() < 2 {
            return None;
        }
        for (sum, own) in self.work.iter_mut().zip(work) {
            *sum = [sum[0] + own[0], sum[1] + own[1]];
        }
        if !(self.batches - FIRST).is_multiple_of(LOOKED_AT) {
            return None;
        }
        let sums = std::mem::replace(&mut self.work, vec![[0.0; 2]; work.len()]);
        let mut ranks: Vec<usize> = (0..sums.len()).collect();
        ranks.sort_by(|&a, &b| sums[a][0].total_cmp(&sums[b][0]));
        let rank = ranks.pop()?;
        let middle = sums[ranks[ranks.len() / 2]][0];
        if sums[rank][0] <= MOST * middle || self.told == Some(rank) {
            return None;
        }
        self.told = Some(rank);
        let [all, images] = sums[rank];
        Some(Slow { rank, seconds: [all, images, middle].map(|sum| sum / LOOKED_AT as f64) })
    }
}

impl Slow {
    /// What to tell. `host` is the machine that the process runs on.
    pub(super) fn message(&self, host: &str) -> String {
        let [all, images, others] = self.seconds;
        let cause = match images > all / 2.0 {
            true => format!("it waits {images:.2} s of that for images: look at its disk and data.workers"),
            false => "not for images: look at what else runs on its GPU and processors".to_owned(),
        };
        format!(
            "rank {} on {host} takes {all:.2} s a batch where others take {others:.2} s, and all wait for it; {cause}",
            self.rank
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(processes: usize, batches: u64, work: impl Fn(u64, usize) -> [f64; 2]) -> Vec<(u64, Slow)> {
        let mut slowest = Slowest::new(processes);
        let batch = |i| (0..processes).map(|rank| work(i, rank)).collect::<Vec<_>>();
        (1..=batches).filter_map(|i| Some((i, slowest.batch(&batch(i))?))).collect()
    }

    #[test]
    fn a_process_that_takes_ten_times_as_long_is_told_once() {
        let slow = told(4, 500, |_, rank| if rank == 2 { [2.0, 1.9] } else { [0.2, 0.0] });
        assert_eq!(slow.len(), 1);
        let (batch, slow) = slow[0];
        assert_eq!((batch, slow.rank), (FIRST + LOOKED_AT, 2));
        let message = slow.message("b");
        for part in ["rank 2 on b takes 2.00 s", "others take 0.20 s", "1.90 s of that for images"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn of_two_processes_the_slower_one_is_told() {
        let slow = told(2, 40, |_, rank| [if rank == 0 { 1.0 } else { 0.1 }, 0.0]);
        assert_eq!(slow[0].1.rank, 0);
        assert!(slow[0].1.message("a").contains("not for images"));
    }

    #[test]
    fn another_one_is_told_again_and_a_slow_start_is_not() {
        // The first batches of rank 1 compile; rank 3 is slow from batch 100 on, rank 0 from 200 on.
        let slow = told(4, 400, |i, rank| match (i, rank) {
            (..=20, 1) | (101..=200, 3) | (201.., 0) => [5.0, 0.0],
            _ => [1.0, 0.9],
        });
        assert_eq!(slow.iter().map(|(i, slow)| (*i, slow.rank)).collect::<Vec<_>>(), [(120, 3), (220, 0)]);
    }

    #[test]
    fn alone_or_alike_none_is_told() {
        assert!(told(1, 100, |_, _| [9.0, 0.0]).is_empty());
        assert!(told(3, 100, |i, rank| [1.0 + ((i as usize + rank) % 3) as f64 * 0.4, 0.0]).is_empty());
    }
}
