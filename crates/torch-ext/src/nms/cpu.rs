//! Groups run side by side. Within one, each box is compared with those that stay.

use std::collections::BTreeMap;

use rayon::prelude::*;
use tch::Tensor;

use super::OP;
use crate::Result;
use crate::real::{Real, data};

/// A box and its area.
#[derive(Clone, Copy)]
struct Sized<T> {
    corners: [T; 4],
    area: T,
}

impl<T: Real> Sized<T> {
    fn new(of: &[T]) -> Self {
        let corners = [of[0], of[1], of[2], of[3]];
        Self { corners, area: (of[2] - of[0]) * (of[3] - of[1]) }
    }

    fn overlap(&self, other: &Self) -> f64 {
        let ([x0, y0, x1, y1], [u0, v0, u1, v1]) = (self.corners, other.corners);
        let side = |low: T, other_low: T, high: T, other_high: T| {
            let low = if low > other_low { low } else { other_low };
            let high = if high < other_high { high } else { other_high };
            if high > low { high - low } else { T::ZERO }
        };
        let shared = side(x0, u0, x1, u1) * side(y0, v0, y1, v1);
        (shared / (self.area + other.area - shared)).into()
    }
}

/// `boxes` `[N, 4]` contiguous, of kind `T`; of each group at most `largest` are looked at.
pub(super) fn stays<T: Real>(
    boxes: &Tensor,
    groups: &[i64],
    threshold: f64,
    largest: usize,
) -> Result<Vec<bool>> {
    let boxes = data::<T>(OP, boxes)?;
    let mut members: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (at, &group) in groups.iter().enumerate().filter(|&(_, &group)| group >= 0) {
        members.entry(group).or_default().push(at);
    }
    let members: Vec<Vec<usize>> = members.into_values().collect();
    let of_group = |members: &Vec<usize>| {
        let mut kept: Vec<Sized<T>> = Vec::new();
        let mut rows = Vec::new();
        for &at in members.iter().take(largest) {
            let one = Sized::new(&boxes[at * 4..][..4]);
            // NaN, of boxes without area, is no overlap.
            if !kept.iter().any(|other| other.overlap(&one) > threshold) {
                kept.push(one);
                rows.push(at);
            }
        }
        rows
    };
    let kept: Vec<Vec<usize>> = members.par_iter().map(of_group).collect();
    let mut stays = vec![false; groups.len()];
    kept.into_iter().flatten().for_each(|at| stays[at] = true);
    Ok(stays)
}
