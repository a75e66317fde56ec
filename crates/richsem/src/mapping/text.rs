//! How near the text embeddings of two vocabularies are.

use rayon::prelude::*;

use super::ClassName;

/// Nearest classes of the other side that make a neighbourhood, and that are proposed.
pub(super) const NEAREST: usize = 5;

/// Similarities of all classes of two vocabularies.
#[derive(Debug)]
pub(super) struct Similarities {
    /// Cosines around the common mean, `[from, to]`, one row after the other.
    cosines: Vec<f32>,
    columns: usize,
    /// The nearest columns of each row, and the nearest rows of each column.
    nearest_to: Vec<Vec<u32>>,
    nearest_from: Vec<Vec<u32>>,
}

/// What the embeddings say of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextEvidence {
    /// Cosine of the two embeddings, after the mean of both vocabularies is taken off; −1 to 1. (As they
    /// are, all text embeddings of CLIP lie near each other.)
    pub cosine: f64,
    /// How much nearer the two are to each other than either is to any other class: cosine − the largest
    /// other cosine of both. Above 0 if each is the other's nearest.
    pub margin: f64,
    /// Place of TO's class among FROM's nearest, and of FROM's among TO's; the first is 1. None beyond 5.
    pub ranks: [Option<u8>; 2],
}

impl Similarities {
    /// None unless every class of both sides has an embedding, all of one width.
    pub(super) fn of(from: &[ClassName<'_>], to: &[ClassName<'_>]) -> Option<Self> {
        let rows: Vec<&[f32]> = from.iter().map(|class| class.text).collect::<Option<_>>()?;
        let columns: Vec<&[f32]> = to.iter().map(|class| class.text).collect::<Option<_>>()?;
        let width = rows.first()?.len();
        if columns.is_empty() || rows.iter().chain(&columns).any(|row| row.len() != width) {
            return None;
        }
        let (rows, columns) = centred(&rows, &columns, width);
        let of_row = |row: &Vec<f32>| columns.iter().map(|c| dot(row, c)).collect::<Vec<f32>>();
        let cosines: Vec<f32> = rows.par_iter().flat_map_iter(of_row).collect();
        let count = columns.len();
        let nearest_to: Vec<_> = cosines.par_chunks(count).map(nearest).collect();
        let column = |c: usize| cosines[c..].iter().step_by(count).copied().collect::<Vec<_>>();
        let nearest_from: Vec<_> =
            (0..count).into_par_iter().map(|c| nearest(&column(c))).collect();
        Some(Self { cosines, columns: count, nearest_to, nearest_from })
    }

    pub(super) fn of_pair(&self, from: usize, to: usize) -> TextEvidence {
        let at = |from: usize, to: usize| f64::from(self.cosines[from * self.columns + to]);
        let other =
            |near: &[u32], than: usize| near.iter().map(|&c| c as usize).find(|&c| c != than);
        let in_row = other(&self.nearest_to[from], to).map(|other| at(from, other));
        let in_column = other(&self.nearest_from[to], from).map(|other| at(other, to));
        let next = in_row.unwrap_or(0.0).max(in_column.unwrap_or(0.0));
        let place = |near: &[u32], wanted: usize| {
            near.iter().position(|&other| other as usize == wanted).map(|at| at as u8 + 1)
        };
        TextEvidence {
            cosine: at(from, to),
            margin: at(from, to) - next,
            ranks: [place(&self.nearest_to[from], to), place(&self.nearest_from[to], from)],
        }
    }

    /// The classes of TO that are nearest to one of FROM, nearest first.
    pub(super) fn nearest_of(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        self.nearest_to[from].iter().map(|&to| to as usize)
    }

    /// The classes of FROM that are nearest to one of TO, nearest first.
    pub(super) fn nearest_to(&self, to: usize) -> impl Iterator<Item = usize> + '_ {
        self.nearest_from[to].iter().map(|&from| from as usize)
    }
}

/// Directions around the mean of all, of length 1 (or 0 where a row is the mean itself).
fn centred(rows: &[&[f32]], columns: &[&[f32]], width: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let unit = |row: Vec<f64>| {
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        row.into_iter().map(|v| v / length).collect::<Vec<f64>>()
    };
    let units = |rows: &[&[f32]]| -> Vec<Vec<f64>> {
        rows.iter().map(|row| unit(row.iter().map(|&v| f64::from(v)).collect())).collect()
    };
    let (rows, columns) = (units(rows), units(columns));
    // Each vocabulary counts as much as the other.
    let mut mean = vec![0.0; width];
    for side in [&rows, &columns] {
        for row in side {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value / (2 * side.len()) as f64;
            }
        }
    }
    let off = |rows: Vec<Vec<f64>>| -> Vec<Vec<f32>> {
        let less = |row: Vec<f64>| row.iter().zip(&mean).map(|(v, m)| v - m).collect();
        rows.into_iter()
            .map(|row| unit(less(row)).into_iter().map(|v| v as f32).collect())
            .collect()
    };
    (off(rows), off(columns))
}

/// In a fixed order of sums, eight side by side: the same everywhere.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

/// Places of the largest values, the largest first, equal ones in order.
fn nearest(values: &[f32]) -> Vec<u32> {
    let mut places: Vec<u32> = (0..values.len() as u32).collect();
    let order =
        |&a: &u32, &b: &u32| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b));
    let kept = NEAREST.min(places.len());
    if kept < places.len() {
        places.select_nth_unstable_by(kept, order);
        places.truncate(kept);
    }
    places.sort_by(order);
    places
}
