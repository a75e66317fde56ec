//! Attention within windows, and which tokens of a shifted window see each other.

use tch::{Device, Kind, Tensor};

use super::super::parts::linear;
use crate::models::{
    layers::Linear,
    parameters::{Init, Scope},
};

/// Added to the logit of a pair that may not see each other.
const HIDDEN: f64 = -100.0;

/// Maps as windows of N = window² tokens, row by row.
///
/// # Shapes
/// `[B, H, W, C]`, sides multiples of the window → `[B, windows, N, C]`
pub(in super::super) fn to_windows(x: &Tensor, window: i64) -> Tensor {
    let [b, h, w, c] = x.size()[..] else { unreachable!("maps are [B, H, W, C]") };
    x.view([b, h / window, window, w / window, window, c]).transpose(2, 3).reshape([
        b,
        h * w / (window * window),
        window * window,
        c,
    ])
}

/// The way back of [`to_windows`], to maps of `[H, W]`.
pub(in super::super) fn from_windows(x: &Tensor, window: i64, [h, w]: [i64; 2]) -> Tensor {
    let [b, _, _, c] = x.size()[..] else { unreachable!("windows are [B, windows, N, C]") };
    x.view([b, h / window, w / window, window, window, c]).transpose(2, 3).reshape([b, h, w, c])
}

/// What is added to the logits of a shifted map's windows: 0 for tokens that see each other, −100 for others.
/// A window at the border holds tokens of up to four sides of the map, which do not see each other.
///
/// With `padding` an image is treated as it would be alone: what lies beyond *its* last window is not seen.
/// (Tokens between the image and the border of its last window are: they are zero, and take part, as they do
/// at the border of the batch.)
///
/// # Shapes
/// `size` `[H, W]` of the maps padded to windows, `padding` `[B, H', W']` of the maps before (true = padding)
/// → `[1 or B, windows, 1, N, N]`
pub(super) fn shift_mask(
    [h, w]: [i64; 2],
    (window, shift): (i64, i64),
    padding: Option<&Tensor>,
    (kind, device): (Kind, Device),
) -> Tensor {
    let regions = |side: i64| {
        let at = Tensor::arange(side, (Kind::Int64, device));
        at.ge(side - window).to_kind(Kind::Int64) + at.ge(side - shift).to_kind(Kind::Int64)
    };
    let region = regions(h).unsqueeze(1) * 3 + regions(w); // [H, W]
    let region = to_windows(&region.view([1, h, w, 1]), window).squeeze_dim(-1); // [1, windows, N]
    let mut apart = region.unsqueeze(-1).ne_tensor(&region.unsqueeze(-2)); // [1, windows, N, N]
    if let Some(padding) = padding {
        let [b, own_h, own_w] = padding.size()[..] else { unreachable!("padding is [B, H, W]") };
        let outside = padding.to_kind(Kind::Uint8);
        let outside = outside.pad([0, w - own_w, 0, h - own_h], "constant", 1.0);
        let windows = outside.view([b, h / window, window, w / window, window]);
        // Windows without a token of the image.
        let empty = windows.amin([2, 4], true).expand_as(&windows).reshape([b, h, w]);
        let empty = empty.roll([-shift, -shift], [1, 2]);
        let empty = to_windows(&empty.unsqueeze(-1), window).squeeze_dim(-1); // [B, windows, N]
        apart = apart.logical_or(&empty.unsqueeze(-2).to_kind(Kind::Bool));
    }
    (apart.to_kind(kind) * HIDDEN).unsqueeze(2)
}

/// For each pair of a window's tokens, the row of the table that is for their offset, `[N²]`.
fn relative_positions(window: i64, device: Device) -> Tensor {
    let tokens = || (0..window).flat_map(|y| (0..window).map(move |x| (y, x)));
    let row = |(y, x): (i64, i64)| (y + window - 1) * (2 * window - 1) + x + window - 1;
    let rows: Vec<i64> = tokens()
        .flat_map(|(y, x)| tokens().map(move |(other_y, other_x)| row((y - other_y, x - other_x))))
        .collect();
    Tensor::from_slice(&rows).to_device(device)
}

/// Multi-head attention within windows, with a bias for each offset and head.
#[derive(Debug)]
pub(super) struct WindowAttention {
    qkv: Linear,
    proj: Linear,
    /// `[(2 window − 1)², heads]`.
    relative_position_bias_table: Tensor,
    /// `[N²]`: rows of the table.
    rows: Tensor,
    heads: i64,
}

impl WindowAttention {
    pub(super) fn new(scope: &Scope, dim: i64, heads: i64, window: i64) -> Self {
        let offsets = 2 * window - 1;
        Self {
            relative_position_bias_table: scope.parameter_without_decay(
                "relative_position_bias_table",
                &[offsets * offsets, heads],
                Init::Normal(0.02),
            ),
            qkv: linear(&scope.sub("qkv"), dim, 3 * dim),
            proj: linear(&scope.sub("proj"), dim, dim),
            rows: relative_positions(window, scope.device()),
            heads,
        }
    }

    /// `mask` is what [`shift_mask`] gives.
    ///
    /// # Shapes
    /// `[B, windows, N, C]` → `[B, windows, N, C]`
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let [b, windows, n, c] = x.size()[..] else {
            unreachable!("windows are [B, windows, N, C]")
        };
        let heads = self.heads;
        let qkv = self.qkv.forward(x).view([b, windows, n, 3, heads, c / heads]);
        let qkv = qkv.permute([3, 0, 1, 4, 2, 5]); // [3, B, windows, heads, N, C / heads]
        let bias = self.relative_position_bias_table.index_select(0, &self.rows);
        let bias = bias.view([n, n, heads]).permute([2, 0, 1]); // [heads, N, N]
        // Where windows differ they count as heads, so that images share one mask.
        let (split, bias) = match mask {
            None => (qkv.flatten(1, 2), bias.unsqueeze(0)),
            Some(mask) => (qkv.flatten(2, 3), (mask + bias).flatten(1, 2)),
        };
        let [q, k, v] = [0, 1, 2].map(|i| split.get(i));
        let bias = bias.to_kind(q.kind());
        let attended =
            Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, None, false);
        let attended = attended.view([b, windows, heads, n, c / heads]).transpose(2, 3);
        self.proj.forward(&attended.reshape([b, windows, n, c]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A window of 2: offsets −1, 0, 1 each way, nine rows; the first token sees the last at (−1, −1), row 0.
    #[test]
    fn rows_of_the_table_go_by_the_offset_from_key_to_query() {
        let rows = Vec::<i64>::try_from(relative_positions(2, Device::Cpu)).unwrap();
        assert_eq!(rows, [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
    }

    #[test]
    fn windows_and_back_are_the_maps() {
        let x = Tensor::arange(2 * 4 * 6 * 3, (Kind::Int64, Device::Cpu)).view([2, 4, 6, 3]);
        let windows = to_windows(&x, 2);
        assert_eq!(windows.size(), [2, 6, 4, 3]);
        // The second window: rows 0 and 1, columns 2 and 3.
        let second = windows.get(0).get(1).select(-1, 0);
        assert_eq!(Vec::<i64>::try_from(second).unwrap(), [6, 9, 24, 27]);
        assert_eq!(from_windows(&windows, 2, [4, 6]), x);
    }

    /// A map of one row of two windows of two, shifted by one. Columns after the shift: 1 2 | 3 0. The last
    /// two are of other sides.
    #[test]
    fn tokens_of_other_sides_do_not_see_each_other() {
        let mask = shift_mask([2, 4], (2, 1), None, (Kind::Float, Device::Cpu));
        assert_eq!(mask.size(), [1, 2, 1, 4, 4]);
        // In both windows the rows are of the two sides; in the second the columns are too.
        let pairs = |window: i64| {
            let seen = mask.get(0).get(window).get(0).eq(0.0).to_kind(Kind::Int64);
            Vec::<i64>::try_from(seen.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64))
                .unwrap()
        };
        assert_eq!((pairs(0), pairs(1)), (vec![2; 4], vec![1; 4]));
    }
}
