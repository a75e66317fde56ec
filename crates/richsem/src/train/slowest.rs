//! Which process the others wait for.

use std::time::{Duration, Instant};

use crate::{collective::Collective, error::Result};

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
    /// Of the last batch of this process.
    own: Work,
    work: Vec<Work>,
    found: Option<Slow>,
    told: Option<usize>,
}

/// Seconds of a process's own work, and those of them that it waited for images.
type Work = [f64; 2];

/// A process that takes much longer than the others.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slow {
    rank: usize,
    /// Seconds of a batch; those of them that it waits for images; those of the others, in the middle.
    seconds: [f64; 3],
}

impl Slowest {
    pub(super) fn new(processes: u64) -> Self {
        let work = vec![[0.0; 2]; processes as usize];
        Self { batches: 0, own: [0.0; 2], work, found: None, told: None }
    }

    /// This process worked so many seconds on a batch, of which it waited so many for images.
    pub(super) fn worked(&mut self, seconds: f64, waited_for_images: f64) {
        self.own = [seconds, waited_for_images];
    }

    /// What this process adds to the sums of all, so that each learns the work of each.
    pub(super) fn shares(&self, collective: &dyn Collective) -> Vec<f64> {
        let mut shares = vec![0.0; 2 * self.work.len()];
        let first = 2 * collective.rank() as usize;
        shares[first..first + 2].copy_from_slice(&self.own);
        shares
    }

    /// The sums of all [`Self::shares`] of a batch.
    pub(super) fn batch(&mut self, sums: &[f64]) {
        self.batches += 1;
        if self.batches <= FIRST || self.work.len() < 2 {
            return;
        }
        for (sum, own) in self.work.iter_mut().zip(sums.chunks_exact(2)) {
            *sum = [sum[0] + own[0], sum[1] + own[1]];
        }
        if !(self.batches - FIRST).is_multiple_of(LOOKED_AT) {
            return;
        }
        let processes = self.work.len();
        let sums = std::mem::replace(&mut self.work, vec![[0.0; 2]; processes]);
        let mut ranks: Vec<usize> = (0..processes).collect();
        ranks.sort_by(|&a, &b| sums[a][0].total_cmp(&sums[b][0]));
        let Some(rank) = ranks.pop() else { return };
        let middle = sums[ranks[ranks.len() / 2]][0];
        if sums[rank][0] <= MOST * middle || self.told == Some(rank) {
            return;
        }
        let [all, images] = sums[rank];
        let seconds = [all, images, middle].map(|sum| sum / LOOKED_AT as f64);
        self.found = Some(Slow { rank, seconds });
    }

    /// What to tell of a process that takes much longer than the others: once, and again when another one was told
    /// of. All processes ask at the same place, and find the same.
    ///
    /// # Errors
    /// A process that failed or is gone.
    pub(super) fn message(&mut self, collective: &dyn Collective) -> Result<Option<String>> {
        let Some(slow) = self.found.take() else { return Ok(None) };
        self.told = Some(slow.rank);
        let hosts = collective.exchange(collective.host().as_bytes().to_vec())?;
        let host = hosts.get(slow.rank).map(|host| String::from_utf8_lossy(host));
        Ok(Some(slow.message(&host.unwrap_or_default())))
    }
}

/// The time since the batch before.
#[derive(Debug)]
pub(super) struct Lap {
    start: Instant,
    /// What this process had waited for others by then.
    waited: Duration,
}

impl Lap {
    pub(super) fn start(collective: &dyn Collective) -> Self {
        Self { start: Instant::now(), waited: collective.waited() }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Seconds without those that this process waited for others.
    pub(super) fn worked(&self, collective: &dyn Collective) -> f64 {
        let waited = collective.waited().saturating_sub(self.waited);
        (self.seconds() - waited.as_secs_f64()).max(0.0)
    }
}

impl Slow {
    /// What to tell. `host` is the machine that the process runs on.
    fn message(&self, host: &str) -> String {
        let [all, images, others] = self.seconds;
        let cause = match images > all / 2.0 {
            true => format!(
                "it waits {images:.2} s of that for images: look at its disk and data.workers"
            ),
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

    /// At which batches something is told, and of whom.
    fn told(processes: u64, batches: u64, work: impl Fn(u64, usize) -> Work) -> Vec<(u64, Slow)> {
        let mut slowest = Slowest::new(processes);
        let told = (1..=batches).filter_map(|i| {
            let sums: Vec<f64> = (0..processes as usize).flat_map(|rank| work(i, rank)).collect();
            slowest.batch(&sums);
            let slow = slowest.found.take()?;
            slowest.told = Some(slow.rank);
            Some((i, slow))
        });
        told.collect()
    }

    #[test]
    fn a_process_that_takes_ten_times_as_long_is_told_once() {
        let slow = told(4, 500, |_, rank| if rank == 2 { [2.0, 1.9] } else { [0.2, 0.0] });
        assert_eq!(slow.len(), 1);
        let (batch, slow) = slow[0];
        assert_eq!((batch, slow.rank), (FIRST + LOOKED_AT, 2));
        let message = slow.message("b");
        for part in ["rank 2 on b takes 2.00 s", "others take 0.20 s", "1.90 s of that for images"]
        {
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
        assert_eq!(
            slow.iter().map(|(i, slow)| (*i, slow.rank)).collect::<Vec<_>>(),
            [(120, 3), (220, 0)]
        );
    }

    #[test]
    fn alone_or_alike_none_is_told() {
        assert!(told(1, 100, |_, _| [9.0, 0.0]).is_empty());
        assert!(
            told(3, 100, |i, rank| [1.0 + ((i as usize + rank) % 3) as f64 * 0.4, 0.0]).is_empty()
        );
    }
}
