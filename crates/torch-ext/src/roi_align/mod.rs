//! RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3), as torchvision and detectron2 compute it:
//! each box is cut into `h·w` bins, each bin is the mean of bilinear reads at regular points.

mod cpu;
pub(crate) mod cuda;

use tch::{Device, Kind, Tensor};

use crate::function::{BackwardArgs, Gradients, custom_function};
use crate::{Error, Result};

const OP: &str = "roi_align";

/// Most maps that boxes can be read from.
const LEVELS: usize = 8;

/// Sizes and settings, checked against each other.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Images, channels, height and width of the features.
    b: i64,
    c: i64,
    height: i64,
    width: i64,
    /// N, boxes of all images together.
    n: i64,
    /// Bins of a box, down and across: (h, w) of the output.
    bins: (i64, i64),
    /// Feature pixels per image pixel.
    scale: f64,
    /// Points of a bin down and across; 0 for as many as it has pixels.
    ratio: i64,
    /// Whether pixel centres lie at half-integers.
    aligned: bool,
}

impl Geometry {
    /// # Errors
    /// Shapes, kinds or devices that disagree.
    fn new(
        features: &Tensor,
        boxes: &Tensor,
        bins: (i64, i64),
        scale: f64,
        (ratio, aligned): (i64, bool),
    ) -> Result<Self> {
        let wrong =
            |argument, expected, got: String| Err(Error::argument(OP, argument, expected, got));
        let &[b, c, height, width] = features.size().as_slice() else {
            return wrong("features", "[B, C, H, W]", format!("{:?}", features.size()));
        };
        let &[n, 5] = boxes.size().as_slice() else {
            return wrong("boxes", "[N, 5]", format!("{:?}", boxes.size()));
        };
        if bins.0 < 1 || bins.1 < 1 {
            return wrong("output_size", "positive (h, w)", format!("{bins:?}"));
        }
        if ratio < 0 {
            return wrong("sampling_ratio", "0 or more", ratio.to_string());
        }
        if boxes.device() != features.device() {
            return wrong("boxes", "where features are", format!("{:?}", boxes.device()));
        }
        let kind = features.kind();
        match (kind, features.device()) {
            (Kind::Double, Device::Cpu) | (Kind::Float | Kind::Half | Kind::BFloat16, _) => {}
            (Kind::Double, _) => {
                return wrong("features", "f32, bf16 or f16 on CUDA", format!("{kind:?}"));
            }
            _ => return wrong("features", "a floating kind", format!("{kind:?}")),
        }
        Ok(Self { b, c, height, width, n, bins, scale, ratio, aligned })
    }
}

/// The boxes of [`roi_align_levels`], and where they are read.
#[derive(Debug, Clone, Copy)]
pub struct LevelBoxes<'a> {
    /// `[N, 5]`, as for [`roi_align`].
    pub boxes: &'a Tensor,
    /// `[N]` i64: number of the map that each box is read from.
    pub levels: &'a Tensor,
    /// `[B, 2]`: height and width of each image in image pixels, where the maps go on beyond it. Its map then ends
    /// after ⌈side · scale⌉ pixels, as it would without padding. None: maps end with their images.
    pub sizes: Option<&'a Tensor>,
}

/// Region features by bilinear reads.
///
/// With `aligned`, a pixel's centre lies at `(i + 0.5, j + 0.5)` (detectron2's ROIAlignV2, the one to use).
/// Without it, boxes are read half a pixel off and are at least one feature pixel large, as in the first
/// Caffe2 version. A box that lies outside reads zeros. With `sampling_ratio` 0 a bin is read at every pixel
/// it covers, so boxes should have been clipped to the image.
///
/// # Shapes
/// - `features`: `[B, C, H, W]`
/// - `boxes`: `[N, 5]`: index of the image, then x0, y0, x1, y1 in image pixels; no gradient
/// - returns `[N, C, h, w]` with `(h, w) = output_size`, in the kind of `features`; on CUDA channels last in memory
///
/// # Errors
/// When shapes, kinds or devices disagree, and on the CPU when a box names an image that is not
/// there (CUDA does not look, to avoid waiting for the device: such a box reads zeros).
pub fn roi_align(
    features: &Tensor,
    boxes: &Tensor,
    output_size: (i64, i64),
    spatial_scale: f64,
    sampling_ratio: i64,
    aligned: bool,
) -> Result<Tensor> {
    let points = (sampling_ratio, aligned);
    let geometry = Geometry::new(features, boxes, output_size, spatial_scale, points)?;
    match features.device() {
        Device::Cpu => on_cpu(geometry, features, boxes, None),
        _ => on_cuda(vec![geometry], &[features.shallow_clone()], [Some(boxes), None, None]),
    }
}

/// As [`roi_align`], of maps of several sizes: each box is read from one of them. On CUDA the host does not look at
/// the levels.
///
/// # Shapes
/// - `maps`: one to eight of `[B, C, H_l, W_l]`, as many `spatial_scales`
/// - returns `[N, C, h, w]`
///
/// # Errors
/// As [`roi_align`]; on the CPU also when a box names a map that is not there (on CUDA such a box reads zeros).
pub fn roi_align_levels(
    maps: &[Tensor],
    LevelBoxes { boxes, levels, sizes }: LevelBoxes<'_>,
    output_size: (i64, i64),
    spatial_scales: &[f64],
    sampling_ratio: i64,
    aligned: bool,
) -> Result<Tensor> {
    let wrong = |argument, expected, got: String| Err(Error::argument(OP, argument, expected, got));
    let Some(first) = maps.first().filter(|_| maps.len() <= LEVELS) else {
        return wrong("maps", "1 to 8 maps", maps.len().to_string());
    };
    if spatial_scales.len() != maps.len() {
        let expected = format!("{}, one for each map", maps.len());
        let got = spatial_scales.len().to_string();
        return Err(Error::argument(OP, "spatial_scales", expected, got));
    }
    let geometries = maps.iter().zip(spatial_scales).map(|(map, &scale)| {
        Geometry::new(map, boxes, output_size, scale, (sampling_ratio, aligned))
    });
    let geometries = geometries.collect::<Result<Vec<_>>>()?;
    let same = |map: &Tensor| (map.size()[..2].to_vec(), map.kind(), map.device());
    if let Some(other) = maps.iter().find(|map| same(map) != same(first)) {
        let expected = format!("all [B, C] {:?} {:?}", same(first).0, first.kind());
        return Err(Error::argument(OP, "maps", expected, format!("{:?}", same(other))));
    }
    let device = boxes.device();
    let n = boxes.size()[0];
    if levels.size() != [n] || levels.kind() != Kind::Int64 || levels.device() != device {
        let got = format!("{:?} {:?} on {:?}", levels.size(), levels.kind(), levels.device());
        return Err(Error::argument(OP, "levels", format!("[{n}] Int64 on {device:?}"), got));
    }
    let images = geometries[0].b;
    if let Some(sizes) = sizes
        && (sizes.size() != [images, 2] || sizes.device() != device)
    {
        let got = format!("{:?} on {:?}", sizes.size(), sizes.device());
        return Err(Error::argument(OP, "sizes", format!("[{images}, 2] on {device:?}"), got));
    }
    if device != Device::Cpu {
        return on_cuda(geometries, maps, [Some(boxes), Some(levels), sizes]);
    }
    let levels = Vec::<i64>::try_from(levels.f_contiguous()?)?;
    if let Some(&level) = levels.iter().find(|&&level| level < 0 || level >= maps.len() as i64) {
        let expected = format!("below {}", maps.len());
        return Err(Error::argument(OP, "levels", expected, level.to_string()));
    }
    let rows = |level: usize| -> Vec<i64> {
        (0i64..).zip(&levels).filter(|&(_, &of)| of == level as i64).map(|(row, _)| row).collect()
    };
    let mut pooled = Vec::with_capacity(maps.len());
    let mut places = vec![0i64; levels.len()];
    let mut before = 0;
    for (level, (map, &geometry)) in maps.iter().zip(&geometries).enumerate() {
        let rows = rows(level);
        (before..).zip(&rows).for_each(|(place, &row)| places[row as usize] = place);
        before += rows.len() as i64;
        let own = boxes.f_index_select(0, &Tensor::from_slice(&rows))?;
        pooled.push(on_cpu(Geometry { n: rows.len() as i64, ..geometry }, map, &own, sizes)?);
    }
    Ok(Tensor::f_cat(&pooled, 0)?.f_index_select(0, &Tensor::from_slice(&places))?)
}

fn on_cpu(
    geometry: Geometry,
    features: &Tensor,
    boxes: &Tensor,
    sizes: Option<&Tensor>,
) -> Result<Tensor> {
    let kind = features.kind();
    let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    // The conversion lies outside the function, where libtorch differentiates it.
    let features = features.f_to_kind(wide)?.f_contiguous()?;
    let boxes = boxes.detach().f_to_kind(wide)?.f_contiguous()?;
    let ends = cpu::Ends::new(&geometry, sizes)?;
    let output = custom_function(
        OP,
        &[&features],
        &[&boxes],
        || match wide {
            Kind::Double => cpu::forward::<f64>(geometry, &features, &boxes, &ends),
            _ => cpu::forward::<f32>(geometry, &features, &boxes, &ends),
        },
        {
            let ends = ends.clone();
            move |args: &BackwardArgs<'_>| -> Result<Gradients> {
                let (boxes, grad) = (&args.saved[0], args.grad.f_contiguous()?);
                let grad = match grad.kind() {
                    Kind::Double => cpu::backward::<f64>(geometry, &grad, boxes, &ends)?,
                    _ => cpu::backward::<f32>(geometry, &grad, boxes, &ends)?,
                };
                Ok(vec![Some(grad)])
            }
        },
    )?;
    Ok(output.f_to_kind(kind)?)
}

/// `of`: boxes, levels, sizes; what is left out comes last.
fn on_cuda(geometries: Vec<Geometry>, maps: &[Tensor], of: [Option<&Tensor>; 3]) -> Result<Tensor> {
    // Channels last, outside the function, where libtorch differentiates it.
    let maps = maps.iter().map(|map| Ok(map.f_permute([0, 2, 3, 1])?.f_contiguous()?));
    let maps = maps.collect::<Result<Vec<_>>>()?;
    let of = of.into_iter().flatten().map(|tensor| {
        let kind = if tensor.kind() == Kind::Int64 { Kind::Int64 } else { Kind::Float };
        Ok(tensor.detach().f_to_kind(kind)?.f_contiguous()?)
    });
    let of = of.collect::<Result<Vec<_>>>()?;
    let output = custom_function(
        OP,
        &maps.iter().collect::<Vec<_>>(),
        &of.iter().collect::<Vec<_>>(),
        || cuda::forward(&geometries, &maps, cuda::Boxes::new(&of)),
        {
            let geometries = geometries.clone();
            move |args: &BackwardArgs<'_>| -> Result<Gradients> {
                let grads = cuda::backward(&geometries, args.grad, cuda::Boxes::new(args.saved))?;
                Ok(grads.into_iter().map(Some).collect())
            }
        },
    )?;
    Ok(output.f_permute([0, 3, 1, 2])?)
}
