//! Which boxes of an image learn: drawn by the one source of randomness, without a wait for the device.

use tch::{Kind, Tensor};

use crate::{
    losses::terms::StepKey,
    random::{Random, Stream},
};

/// What boxes are drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Draw {
    /// Anchors, in the first stage.
    Anchors,
    /// Boxes of the second.
    Rois,
}

/// One number for each of N boxes of an image, uniform in [0, 1): `[N]` f32, on the host. They depend on the run's
/// seed, the step, the image's place in the whole batch and what they are for.
pub(super) fn draws(key: StepKey, image: u64, what: Draw, count: i64) -> Tensor {
    let item = image * 2 + what as u64;
    let mut random = Random::new(key.seed, Stream::Regions, key.micro_step, item);
    let values: Vec<f32> = (0..count).map(|_| random.uniform() as f32).collect();
    Tensor::from_slice(&values)
}

/// Largest number of objects' boxes among `total` that learn.
pub(super) fn most_positive(total: i64, share: f64) -> i64 {
    (total as f64 * share) as i64
}

/// At most `most` of an image's candidates, those of the largest draws; and how many there are. With `less` so many
/// fewer.
///
/// # Shapes
/// `candidates` `[…, N]` bool, `draws` `[…, N]`, `less` `[…]` → `[…, N]` bool, `[…]` f32
pub(super) fn chosen(
    candidates: &Tensor,
    draws: &Tensor,
    most: i64,
    less: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let count = boxes(candidates).min(most);
    let scores = draws.masked_fill(&candidates.logical_not(), -1.0);
    let (values, at) = scores.topk(count, -1, true, true);
    let mut taken = values.ge(0.0);
    if let Some(less) = less {
        let rank = Tensor::arange(count, (Kind::Float, draws.device()));
        taken = taken.logical_and(&rank.lt_tensor(&(most as f64 - less).unsqueeze(-1)));
    }
    let number = taken.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    (candidates.zeros_like().scatter(-1, &at, &taken), number)
}

/// N of `[…, N]`.
fn boxes(of: &Tensor) -> i64 {
    of.size().last().copied().unwrap_or(0)
}

/// The places of the boxes that learn: of the positive ones at most `most_positive`, then negative ones, up to
/// `total` together; and which of the places hold such a box, where there are fewer.
///
/// # Shapes
/// `positive`, `negative` `[…, N]` bool, `draws` `[…, N]` → `[…, P]` i64, `[…, P]` bool, with P = min(N, `total`)
pub(super) fn places(
    (positive, negative): (&Tensor, &Tensor),
    draws: &Tensor,
    total: i64,
    most_positive: i64,
) -> (Tensor, Tensor) {
    let (positive, _) = chosen(positive, draws, most_positive, None);
    // Positive ones lie in [2, 3), negative ones in [0, 1), others below.
    let negative = draws.masked_fill(&negative.logical_not(), -1.0);
    let order = (draws + 2.0).where_self(&positive, &negative);
    let (values, at) = order.topk(boxes(&order).min(total), -1, true, true);
    (at, values.ge(0.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: StepKey = StepKey { seed: 3, micro_step: 7 };

    fn bools(of: &[u8]) -> Tensor {
        Tensor::from_slice(of).to_kind(Kind::Bool)
    }

    fn count(of: &Tensor) -> i64 {
        of.sum(Kind::Int64).int64_value(&[])
    }

    #[test]
    fn a_draw_depends_on_its_key_alone() {
        let of = |key, image, what| draws(key, image, what, 5);
        let base = of(KEY, 1, Draw::Rois);
        assert_eq!(base, of(KEY, 1, Draw::Rois));
        // More boxes do not change the first draws.
        assert_eq!(base, draws(KEY, 1, Draw::Rois, 9).narrow(0, 0, 5));
        for other in [
            of(KEY, 2, Draw::Rois),
            of(KEY, 1, Draw::Anchors),
            of(StepKey { micro_step: 8, ..KEY }, 1, Draw::Rois),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn at_most_so_many_candidates_and_no_others() {
        let draws = Tensor::from_slice(&[0.9f32, 0.1, 0.5, 0.7, 0.3]);
        let candidates = bools(&[1, 1, 1, 0, 1]);
        let (got, number) = chosen(&candidates, &draws, 2, None);
        assert_eq!((got, number.double_value(&[])), (bools(&[1, 0, 1, 0, 0]), 2.0));
        let less = Tensor::from(3f32);
        let (got, _) = chosen(&candidates, &draws, 4, Some(&less));
        assert_eq!(got, bools(&[1, 0, 0, 0, 0]));
        assert_eq!(count(&chosen(&candidates, &draws, 9, None).0), 4);
        assert_eq!(count(&chosen(&bools(&[0; 5]), &draws, 9, None).0), 0);
    }

    #[test]
    fn positive_places_first_and_negative_ones_fill_up() {
        let draws = Tensor::from_slice(&[0.9f32, 0.1, 0.5, 0.7, 0.3]);
        let (positive, negative) = (bools(&[1, 1, 1, 0, 0]), bools(&[0, 0, 0, 1, 1]));
        let of = |total, most| {
            let (at, valid) = places((&positive, &negative), &draws, total, most);
            (Vec::<i64>::try_from(at).unwrap(), count(&valid))
        };
        assert_eq!(of(3, 2), (vec![0, 2, 3], 3));
        // Fewer than places: one positive was not drawn, and is no negative for it.
        let (at, valid) = of(5, 2);
        assert_eq!((&at[..4], valid), (&[0, 2, 3, 4][..], 4));
        assert_eq!(of(2, 0), (vec![3, 4], 2));
        assert_eq!(most_positive(512, 0.25), 128);
    }
}
