//! Whether images come as fast as the device takes them.

/// Batches before anything is said: the first ones start libraries and fill what is read ahead.
const FIRST: u64 = 20;
/// Batches that are looked at.
const LOOKED_AT: u64 = 100;
/// Share of the time that may be spent on waiting for images.
const MOST: f64 = 0.2;

/// The times of the first batches.
#[derive(Debug, Default)]
pub(super) struct Supply {
    batches: u64,
    images: usize,
    seconds: f64,
    /// Of those, spent on waiting for images while the device had nothing to do.
    starved: f64,
}

impl Supply {
    /// A batch took `seconds`, of which the loader was waited for for `waited`, and then the device for
    /// `device`. Once there were enough of them: what to tell, if the loader is too slow.
    pub(super) fn batch(
        &mut self,
        images: usize,
        seconds: f64,
        waited: f64,
        device: f64,
    ) -> Option<String> {
        self.batches += 1;
        if self.batches <= FIRST || self.batches > FIRST + LOOKED_AT {
            return None;
        }
        self.images += images;
        self.seconds += seconds;
        // A device that is still at work when the images have come was not waiting for them.
        if device < 0.1 * waited {
            self.starved += waited;
        }
        if self.batches < FIRST + LOOKED_AT || self.starved <= MOST * self.seconds {
            return None;
        }
        let rate = |seconds: f64| self.images as f64 / seconds.max(1e-9);
        Some(format!(
            "images come too slowly: {:.1} a second, where up to {:.1} could be trained on; more threads \
             (data.workers), a faster disk or smaller image files help",
            rate(self.seconds),
            rate(self.seconds - self.starved)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages_of(seconds: f64, waited: f64, device: f64) -> Vec<(u64, String)> {
        let mut supply = Supply::default();
        let all = (1..=500).map(|i| (i, supply.batch(2, seconds, waited, device)));
        all.filter_map(|(i, message)| Some((i, message?))).collect()
    }

    #[test]
    fn a_loader_that_is_too_slow_is_told_once() {
        // Half of the time goes into waiting.
        let messages = messages_of(0.1, 0.05, 0.0);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].0, FIRST + LOOKED_AT);
        assert!(messages[0].1.contains("20.0 a second, where up to 40.0"), "{}", messages[0].1);
    }

    #[test]
    fn a_loader_that_is_waited_for_while_the_device_works_is_not() {
        assert!(messages_of(0.1, 0.05, 0.04).is_empty());
        assert!(messages_of(0.1, 0.01, 0.0).is_empty());
    }
}
