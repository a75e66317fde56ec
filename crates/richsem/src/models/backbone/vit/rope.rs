//! Rotary positions: a patch's features turn by angles that say where it lies, so that the product of a query and a
//! key depends on the way from one to the other.

use tch::{Device, Kind, Tensor};

use super::VitFamily;

/// Base of DINOv3's periods.
const DINOV3_BASE: f64 = 100.0;
/// Base of EVA-02's frequencies.
const EVA02_BASE: f64 = 10_000.0;
/// Side of the square of patches of EVA-02's pretraining: every map is stretched to it.
const EVA02_SIDE: f64 = 16.0;

/// The turns of the patches of a map.
#[derive(Debug)]
pub(super) struct Rope {
    /// `[h · w, d]`, as is `sin`; d: features of a head.
    cos: Tensor,
    sin: Tensor,
    /// Which two features turn together: neighbours, or those half a head apart.
    neighbours: bool,
}

impl Rope {
    /// Of maps of `[h, w]` patches, whose heads have `d` features, a multiple of four. None: the family has others.
    pub(super) fn new(
        family: VitFamily,
        map: [i64; 2],
        d: i64,
        options: (Kind, Device),
    ) -> Option<Self> {
        // Features of an axis are half of a head's, and each frequency turns two of them.
        let frequency = |base: f64, i: i64| base.powf(-4.0 * i as f64 / d as f64);
        let (neighbours, frequencies): (bool, Vec<f64>) = match family {
            VitFamily::Dinov3 => {
                let turn = |i| std::f64::consts::TAU * frequency(DINOV3_BASE, i);
                (false, (0..d / 4).map(turn).collect())
            }
            VitFamily::Eva02 => (true, (0..d / 4).map(|i| frequency(EVA02_BASE, i)).collect()),
            VitFamily::Vitdet | VitFamily::Dinov2 | VitFamily::Clip => return None,
        };
        let frequencies = torch_ext::constant(&frequencies, &[1, d / 4], options);
        let [h, w] = map;
        let along = |side: i64| {
            let at = Tensor::arange(side, options);
            let at = match neighbours {
                true => at * (EVA02_SIDE / side as f64),
                // Middles of patches, from −1 to 1.
                false => (at + 0.5) * (2.0 / side as f64) - 1.0,
            };
            at.unsqueeze(-1) * &frequencies // [side, d / 4]
        };
        let (rows, columns) = (along(h), along(w));
        // EVA-02: each frequency twice, side by side; DINOv3: all of them, then all again.
        let twice = |angles: Tensor| {
            if neighbours { angles.repeat_interleave_self_int(2, -1, None) } else { angles }
        };
        let rows = twice(rows).unsqueeze(1).expand([h, w, -1], false);
        let columns = twice(columns).unsqueeze(0).expand([h, w, -1], false);
        let angles = Tensor::cat(&[rows, columns], -1).flatten(0, 1);
        let angles = if neighbours { angles } else { angles.repeat([1, 2]) };
        Some(Self { cos: angles.cos(), sin: angles.sin(), neighbours })
    }

    /// The same turns for another owner.
    pub(super) fn share(&self) -> Self {
        let Self { cos, sin, neighbours } = self;
        Self { cos: cos.shallow_clone(), sin: sin.shallow_clone(), neighbours: *neighbours }
    }

    /// Queries or keys, those of patches turned: they are the last ones. In the kind of `x`.
    ///
    /// # Shapes
    /// `[B, heads, N, d]` → `[B, heads, N, d]`
    pub(super) fn turn(&self, x: &Tensor) -> Tensor {
        let (all, patches) = (x.size()[2], self.cos.size()[0]);
        let before = x.narrow(2, 0, all - patches);
        let own = x.narrow(2, all - patches, patches);
        let across = if self.neighbours {
            let pairs = own.unflatten(-1, [-1, 2]);
            Tensor::stack(&[-pairs.select(-1, 1), pairs.select(-1, 0)], -1).flatten(-2, -1)
        } else {
            let halves = own.chunk(2, -1);
            Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1)
        };
        let turned = (&own * &self.cos + across * &self.sin).to_kind(x.kind());
        if all == patches { turned } else { Tensor::cat(&[before, turned], 2) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn angles(rope: &Rope, patch: i64) -> Vec<f64> {
        Vec::try_from(rope.sin.get(patch).atan2(&rope.cos.get(patch))).unwrap()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12),
            "{a:?} {b:?}"
        );
    }

    /// 2 × 4 patches, heads of 8: row 1 is at +0.5, column 0 at −0.75; periods 1 and 100^½ = 10.
    #[test]
    fn dinov3_turns_by_the_middles_of_patches_between_minus_one_and_one() {
        let rope = Rope::new(VitFamily::Dinov3, [2, 4], 8, OPTIONS).unwrap();
        let tau = std::f64::consts::TAU;
        // π and 0.1 π of the row; −1.5 π is 0.5 π of the column.
        let [y, x] = [[0.5 * tau, 0.05 * tau], [0.25 * tau, -0.075 * tau]];
        let sin_cos = |a: f64| a.sin().atan2(a.cos());
        let expected: Vec<f64> = [y, x, y, x].concat().into_iter().map(sin_cos).collect();
        let got: Vec<f64> = angles(&rope, 4);
        for (got, expected) in got.iter().zip(&expected) {
            // π and −π are one angle.
            let off = (got - expected).abs();
            assert!(off < 1e-12 || (off - tau).abs() < 1e-12, "{got} {expected}");
        }
    }

    /// 2 × 8 patches, heads of 8: row 1 is at 8, column 3 at 6; frequencies 1 and 10000^−½ = 0.01.
    #[test]
    fn eva02_stretches_each_axis_to_the_patches_of_its_pretraining() {
        let rope = Rope::new(VitFamily::Eva02, [2, 8], 8, OPTIONS).unwrap();
        let of = |a: f64| a.sin().atan2(a.cos());
        let expected = [8.0, 8.0, 0.08, 0.08, 6.0, 6.0, 0.06, 0.06].map(of);
        close(&angles(&rope, 8 + 3), &expected);
        // In windows of 16 a patch is where it is.
        let window = Rope::new(VitFamily::Eva02, [16, 16], 8, OPTIONS).unwrap();
        close(&angles(&window, 5 * 16 + 2)[..4], &[5.0, 5.0, 0.05, 0.05].map(of));
    }

    /// Products depend on the way between two patches alone, and tokens before the patches do not turn.
    #[test]
    fn what_counts_is_the_way_between_two_patches() {
        for family in [VitFamily::Dinov3, VitFamily::Eva02] {
            let rope = Rope::new(family, [4, 4], 8, OPTIONS).unwrap();
            let q = crate::testing::normal(1, &[8]).to_kind(Kind::Double);
            let k = crate::testing::normal(2, &[8]).to_kind(Kind::Double);
            let everywhere = |x: &Tensor| rope.turn(&x.expand([1, 1, 18, 8], false));
            let (queries, keys) = (everywhere(&q), everywhere(&k));
            let logits = queries.matmul(&keys.transpose(2, 3)).view([18, 18]);
            let at = |i: i64, j: i64| logits.double_value(&[i, j]);
            // Two tokens before the patches; then (y, x) is 2 + 4 y + x: one down and two to the right.
            assert!((at(2, 2 + 6) - at(2 + 5, 2 + 11)).abs() < 1e-12, "{family:?}");
            assert!((at(2, 2 + 6) - at(2, 2 + 7)).abs() > 1e-3, "{family:?}");
            assert_eq!(at(0, 1), (&q * &k).sum(Kind::Double).double_value(&[]));
        }
    }
}
