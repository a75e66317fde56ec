//! Decomposed relative positions (arXiv 2112.01526): a token sees another with a bias for the rows and one for the
//! columns between them, each the product of its query with a vector of a table.

use tch::{Kind, Tensor};

use super::super::parts::attend;
use crate::models::parameters::{Init, Scope};

/// Features of a query are filled up to a multiple of this: what fused kernels take.
const FEATURES: i64 = 8;

/// The tables of a block.
#[derive(Debug)]
pub(super) struct RelativePositions {
    /// `[2 side − 1, d]`, as is `columns`; d: features of a head.
    rows: Tensor,
    columns: Tensor,
}

impl RelativePositions {
    /// `side` is that of the maps which the tables are for.
    pub(super) fn new(scope: &Scope, d: i64, side: i64) -> Self {
        let table = |name| scope.parameter(name, &[2 * side - 1, d], Init::Constant(0.0));
        Self { rows: table("rel_pos_h"), columns: table("rel_pos_w") }
    }

    /// What tokens of maps `[h, w]` see of each other. The biases become features of queries and keys: a query's
    /// bias for each row and column, and a one where a key is. The products are the biases, and no matrix of all
    /// pairs is made for them.
    ///
    /// # Shapes
    /// each `[B, heads, h · w, d]` → `[B, heads, h · w, d]`
    pub(super) fn attend(&self, [q, k, v]: [&Tensor; 3], [h, w]: [i64; 2]) -> Tensor {
        let [b, heads, _, d] = q.size()[..] else { unreachable!("queries are [B, heads, N, d]") };
        let (kind, device) = (q.kind(), q.device());
        let of_map = q.reshape([b, heads, h, w, d]);
        let rows = along(&self.rows, h).to_kind(kind);
        let columns = along(&self.columns, w).to_kind(kind);
        let rows = Tensor::einsum("bnhwc,hkc->bnhwk", &[&of_map, &rows], None::<i64>);
        let columns = Tensor::einsum("bnhwc,wkc->bnhwk", &[&of_map, &columns], None::<i64>);
        let scaled = &of_map * (d as f64).powf(-0.5);
        let missing = (FEATURES - (d + h + w) % FEATURES) % FEATURES;
        let q = Tensor::cat(&[scaled, rows.to_kind(kind), columns.to_kind(kind)], -1);
        let q = q.reshape([b, heads, h * w, d + h + w]).constant_pad_nd([0, missing]);
        let one = |side: i64, at: i64| {
            let eye = Tensor::eye(side, (kind, device));
            let shape = if at == 2 { [1, 1, side, 1, side] } else { [1, 1, 1, side, side] };
            eye.view(shape).expand([b, heads, h, w, side], false)
        };
        let k = Tensor::cat(&[k.reshape([b, heads, h, w, d]), one(h, 2), one(w, 3)], -1);
        let k = k.reshape([b, heads, h * w, d + h + w]).constant_pad_nd([0, missing]);
        attend([&q, &k, v], Some(1.0))
    }
}

/// The vectors between each two of `side` places, by query and key; of a table for another side, interpolated.
///
/// # Shapes
/// `[2 s − 1, d]` → `[side, side, d]`
fn along(table: &Tensor, side: i64) -> Tensor {
    let (length, places) = (table.size()[0], 2 * side - 1);
    let kind = if table.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let table = match length == places {
        true => table.shallow_clone(),
        false => {
            let table = table.to_kind(kind).tr().unsqueeze(0);
            table.upsample_linear1d([places], false, None).squeeze_dim(0).tr()
        }
    };
    let at = Tensor::arange(side, (Kind::Int64, table.device()));
    let between = at.unsqueeze(1) - at.unsqueeze(0) + (side - 1);
    table.index_select(0, &between.flatten(0, 1)).view([side, side, -1])
}
