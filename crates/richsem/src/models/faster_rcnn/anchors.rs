//! Anchors: the boxes that proposals start from, a few at each cell of each level.

use tch::{Device, Kind, Tensor};

/// The anchors of a cell at (0, 0): one for each ratio (height over width), of the area `size`², in the order of
/// the ratios; `rounded` to whole pixels as torchvision has it.
pub(super) fn cell_anchors(size: f64, ratios: &[f64], rounded: bool) -> Vec<[f64; 4]> {
    let anchor = |&ratio: &f64| {
        let (half_w, half_h) = (size / ratio.sqrt() / 2.0, size * ratio.sqrt() / 2.0);
        let corners = [-half_w, -half_h, half_w, half_h];
        // Halves to the even number, as PyTorch rounds.
        if rounded { corners.map(|x| (x as f32).round_ties_even().into()) } else { corners }
    };
    ratios.iter().map(anchor).collect()
}

/// The anchors of a level. Cell (x, y) has its anchors around (x · stride, y · stride): at the cell's corner, not
/// at its middle. The order is y, x, anchor.
///
/// # Shapes
/// K cell anchors; (h, w) of the map, strides down and across → `[h · w · K, 4]`, x0, y0, x1, y1
pub(super) fn level_anchors(
    cells: &[[f64; 4]],
    (h, w): (i64, i64),
    stride: (f64, f64),
    (kind, device): (Kind, Device),
) -> Tensor {
    let ys = Tensor::arange(h, (kind, device)) * stride.0;
    let xs = Tensor::arange(w, (kind, device)) * stride.1;
    let (ys, xs) = (ys.view([h, 1]).expand([h, w], false), xs.view([1, w]).expand([h, w], false));
    let corner = Tensor::stack(&[&xs, &ys, &xs, &ys], -1).view([h, w, 1, 4]);
    let count = cells.len() as i64;
    let cells = torch_ext::constant(&cells.concat(), &[count, 4], (kind, device));
    (corner + cells).view([h * w * count, 4])
}

/// Which anchors stand at a cell of their image, and not in its padding.
///
/// # Shapes
/// `[A, 4]`, `sizes` `[B, 2]`: height and width of each image → `[B, A]` bool
pub(crate) fn in_image(anchors: &Tensor, sizes: &Tensor) -> Tensor {
    let middles = (anchors.narrow(1, 0, 2) + anchors.narrow(1, 2, 2)) / 2.0;
    // Cells and sides are whole pixels, and the sums above are rounded.
    let ends = sizes.flip([1i64]).to_kind(middles.kind()) - 0.5;
    middles.unsqueeze(0).lt_tensor(&ends.unsqueeze(1)).all_dim(-1, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of stride 4: unrounded, offset 0, order y, x, ratio. torchvision's 32-pixel anchors of ratio 0.5 are
    /// [−23, −11, 23, 11] (`AnchorGenerator.generate_anchors`).
    #[test]
    fn anchors_lie_at_the_corners_of_cells() {
        let exact = cell_anchors(32.0, &[0.5, 1.0, 2.0], false);
        let w = 32.0 * 2f64.sqrt() / 2.0;
        assert!((exact[0][2] - w).abs() < 1e-12 && (exact[0][3] - w / 2.0).abs() < 1e-12);
        assert_eq!(exact[1], [-16.0, -16.0, 16.0, 16.0]);
        let rounded = cell_anchors(32.0, &[0.5, 1.0, 2.0], true);
        assert_eq!(rounded[0], [-23.0, -11.0, 23.0, 11.0]);
        assert_eq!(rounded[2], [-11.0, -23.0, 11.0, 23.0]);
        let anchors = level_anchors(&exact, (2, 3), (4.0, 4.0), (Kind::Double, Device::Cpu));
        assert_eq!(anchors.size(), [18, 4]);
        // Row 1, column 2, ratio 1.
        let at = Vec::<f64>::try_from(anchors.get((3 + 2) * 3 + 1)).unwrap();
        assert_eq!(at, [8.0 - 16.0, 4.0 - 16.0, 8.0 + 16.0, 4.0 + 16.0]);
    }
}
