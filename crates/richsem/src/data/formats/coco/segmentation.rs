//! The box of an annotation that has only an outline: polygons, or a mask in run-length encoding.

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a segmentation must be to have a box.
const EXPECTED: &str =
    "polygons [[x, y, x, y, …], …] or a mask {\"counts\": …, \"size\": [height, width]}";

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Mask { counts: Counts, size: [u32; 2] },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Numbers(Vec<u64>),
    Packed(String),
}

/// The smallest box `[x, y, width, height]` around a segmentation, as pycocotools has it: of polygons the
/// extremes of their points, of a mask whole pixels. None if nothing is drawn.
///
/// # Errors
/// Why it is no segmentation, in words.
pub(super) fn bbox(raw: &RawValue) -> Result<Option<[f64; 4]>, String> {
    let parsed = serde_json::from_str(raw.get()).map_err(|_| format!("expected {EXPECTED}"))?;
    match parsed {
        Segmentation::Polygons(polygons) => {
            if let Some(odd) = polygons.iter().find(|points| points.len() % 2 == 1) {
                return Err(format!("expected pairs of x and y, got {} numbers", odd.len()));
            }
            Ok(of_points(polygons.iter().flat_map(|p| p.chunks_exact(2).map(|p| [p[0], p[1]]))))
        }
        Segmentation::Mask { counts: Counts::Numbers(counts), size } => of_runs(&counts, size),
        Segmentation::Mask { counts: Counts::Packed(text), size } => {
            of_runs(&unpacked(&text)?, size)
        }
    }
}

/// The smallest box around points; none without points.
pub(in crate::data::formats) fn of_points(
    points: impl Iterator<Item = [f64; 2]>,
) -> Option<[f64; 4]> {
    let around = points.fold(None, |around, [x, y]| {
        let [x0, y0, x1, y1] = around.unwrap_or([x, y, x, y]);
        Some([x.min(x0), y.min(y0), x.max(x1), y.max(y1)])
    });
    around.map(|[x0, y0, x1, y1]: [f64; 4]| [x0, y0, x1 - x0, y1 - y0])
}

/// The box of a mask: lengths of runs, down the columns from left to right, the first of them outside.
fn of_runs(counts: &[u64], [height, width]: [u32; 2]) -> Result<Option<[f64; 4]>, String> {
    let (height, pixels) = (u64::from(height), u64::from(height) * u64::from(width));
    let mut at = 0u64;
    let mut around: Option<[u64; 4]> = None;
    for (i, &length) in counts.iter().enumerate() {
        let (from, to) = (at, at.saturating_add(length));
        if to > pixels {
            return Err(format!("the mask's runs are longer than its {pixels} pixels"));
        }
        at = to;
        if i % 2 == 0 || length == 0 {
            continue;
        }
        let (left, right) = (from / height, (to - 1) / height);
        let (top, bottom) =
            if left == right { (from % height, (to - 1) % height) } else { (0, height - 1) };
        let [x0, y0, x1, y1] = around.unwrap_or([left, top, right, bottom]);
        around = Some([left.min(x0), top.min(y0), right.max(x1), bottom.max(y1)]);
    }
    if at != pixels {
        return Err(format!("the mask's runs cover {at} of its {pixels} pixels"));
    }
    Ok(around.map(|[x0, y0, x1, y1]| [x0, y0, x1 - x0 + 1, y1 - y0 + 1].map(|v| v as f64)))
}

/// COCO's text of run lengths: five bits a character, the lowest first, the sixth where more follow. From the
/// fourth run on, it is the difference to the run before the last.
fn unpacked(text: &str) -> Result<Vec<u64>, String> {
    let broken = || "the mask's packed `counts` are broken".to_owned();
    let mut counts: Vec<u64> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(first) = bytes.next() {
        let (mut value, mut shift, mut byte) = (0i64, 0, first);
        loop {
            let bits = i64::from(byte.checked_sub(48).filter(|b| *b < 64).ok_or_else(broken)?);
            if shift > 50 {
                return Err(broken());
            }
            value |= (bits & 31) << shift;
            shift += 5;
            if bits & 32 == 0 {
                // The sign.
                value |= if bits & 16 == 0 { 0 } else { -1 << shift };
                break;
            }
            byte = bytes.next().ok_or_else(broken)?;
        }
        let before = counts.len().checked_sub(2).filter(|_| counts.len() > 2);
        let before = before.map_or(0, |at| counts[at] as i64);
        let run = value.checked_add(before).and_then(|run| u64::try_from(run).ok());
        counts.push(run.ok_or_else(broken)?);
    }
    Ok(counts)
}

/// The box around a box that is turned around its middle by some degrees.
pub(in crate::data::formats) fn turned([x, y, w, h]: [f64; 4], degrees: f64) -> [f64; 4] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (width, height) = (w * cos.abs() + h * sin.abs(), w * sin.abs() + h * cos.abs());
    [x + (w - width) / 2.0, y + (h - height) / 2.0, width, height]
}
