//! Ranges of settings. They are wide enough for every use, and narrow enough to refuse typing mistakes,
//! which would otherwise show later: as too little memory, or as numbers that are not finite.

use std::{fmt::Display, ops::RangeInclusive};

use crate::error::{Error, Result};

/// Largest `pad_multiple`, in pixels.
pub(crate) const LARGEST_STEP: u32 = 2048;
/// Images of a batch: 1 to 4096.
pub(crate) const BATCH: RangeInclusive<usize> = 1..=4096;
/// Weights of losses and of matching costs: 0 to 10,000.
pub(crate) const WEIGHT: RangeInclusive<f64> = 0.0..=1e4;
/// Learning rates: 0 to 1.
pub(crate) const RATE: RangeInclusive<f64> = 0.0..=1.0;

/// Refuses a value outside its range. NaN is in no range.
///
/// # Errors
/// [`Error::Config`] with both.
pub(crate) fn within<T: PartialOrd + Display>(
    key: impl Into<String>,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(Error::config(key, format!("expected {least} to {most}, got {value}")))
}
