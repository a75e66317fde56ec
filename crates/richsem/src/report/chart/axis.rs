//! Values along one direction of a chart, and how they are written.

/// Values along one direction of a chart.
pub(in crate::report) struct Axis {
    pub(in crate::report) low: f64,
    pub(in crate::report) high: f64,
    pub(in crate::report) ticks: Vec<f64>,
    pub(super) log: bool,
}

impl Axis {
    /// Ticks at 1, 2 or 5 times a power of ten. With `round` (for the y axis) the ends move outwards to ticks.
    /// Without it (for the x axis) the ends stay where the values end, and ticks are whole numbers.
    pub(in crate::report) fn linear(low: f64, high: f64, round: bool) -> Self {
        let (mut low, mut high) = (low, high);
        if high - low < 1e-9 * high.abs().max(1e-9) {
            // One value only: room on both sides, none below zero.
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.5 };
            low = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
            high += room;
        }
        let step = if round {
            nice_step((high - low) / 5.0)
        } else {
            // Steps and epochs are whole.
            nice_step((high - low) / 6.0).max(1.0)
        };
        if round {
            (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        }
        let first = (low / step - 1e-6).ceil() as i64;
        let last = (high / step + 1e-6).floor() as i64;
        let ticks = (first..=last).map(|i| i as f64 * step).collect();
        Self { low, high, ticks, log: false }
    }

    /// Ticks at powers of ten, with 2 and 5 times these where few powers fit. Both ends must be positive; they
    /// move outwards to ticks.
    pub(in crate::report) fn logarithmic(low: f64, high: f64) -> Self {
        let decades = (high / low).log10();
        let steps: &[f64] = match decades {
            d if d > 4.0 => &[1.0],
            d if d > 2.0 => &[1.0, 3.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let candidates = (first..=last).flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)));
        let candidates: Vec<f64> = candidates.collect();
        let low = candidates.iter().copied().rfind(|&t| t <= low).unwrap_or(low);
        let high = candidates.iter().copied().find(|&t| t >= high).unwrap_or(high);
        let ticks = candidates.into_iter().filter(|t| (low..=high).contains(t)).collect();
        Self { low, high, ticks, log: true }
    }

    /// 0 at the low end, 1 at the high one.
    pub(in crate::report) fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|s| s * power >= rough * 0.999).unwrap_or(10.0);
    step * power
}

/// Smallest and largest finite value.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// A tick's number as short as it can be: 12k, 0.05.
pub(in crate::report) fn tick_text(value: f64) -> String {
    let shown = |v: f64| {
        let text = format!("{v:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        a if a >= 1e6 => format!("{}M", shown(value / 1e6)),
        a if a >= 1e4 => format!("{}k", shown(value / 1e3)),
        a if a > 0.0 && a < 1e-4 => format!("{value:.0e}"),
        _ => shown(value),
    }
}

/// A number with three significant digits.
pub(in crate::report) fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 2 - value.abs().max(1e-9).log10().floor() as i32;
    format!("{value:.*}", digits.clamp(0, 9) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_that_span_the_values() {
        assert_eq!(Axis::linear(0.0, 43.2, true).ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(Axis::linear(1.0, 12.0, false).ticks, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(Axis::linear(2.0, 4.0, false).ticks, [2.0, 3.0, 4.0]);
        let one = Axis::linear(7.0, 7.0, false);
        assert!(one.low < 7.0 && one.high > 7.0 && one.place(7.0) == 0.5);
        assert_eq!(Axis::linear(0.0, 0.0, true).ticks.first(), Some(&0.0));
        let log = Axis::logarithmic(0.3, 40.0);
        assert!(log.low <= 0.3 && log.high >= 40.0);
        assert!(log.ticks.contains(&1.0) && log.ticks.contains(&10.0));
        assert!((log.place((log.low * log.high).sqrt()) - 0.5).abs() < 1e-12);
        assert_eq!(Axis::logarithmic(0.3, 4.0).ticks, [0.2, 0.5, 1.0, 2.0, 5.0]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.05, 30_000.0, 1_500_000.0, 1500.0, 0.000_01].map(tick_text);
        assert_eq!(texts, ["0", "0.05", "30k", "1.5M", "1500", "1e-5"]);
        assert_eq!(
            [12.345, 0.012_34, 1234.0, 0.0].map(significant),
            ["12.3", "0.0123", "1234", "0"]
        );
    }
}
