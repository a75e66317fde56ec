//! Boxes with their names drawn onto images, images put side by side and saved.

use std::path::Path;

use image::{
    GrayImage, Luma, Rgb, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
    imageops,
};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};

use crate::{Error, Result, boxes::Xyxy, detections::Verdict, error::write_atomically};

/// A box to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Labeled {
    /// In pixels of the image; what is outside of it is cut off.
    pub bbox: Xyxy,
    /// The name of its class, written at the box.
    pub class_name: String,
    /// Decides the colour: the same key has the same colour in every image. For example a category id.
    pub color_key: u64,
    /// Written behind the name; `None` for ground truth.
    pub score: Option<f32>,
    /// Whether the frame is dashed, as that of a region of many objects.
    pub dashed: bool,
}

const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

/// JPEG's quality: no visible loss at labels and lines.
const JPEG_QUALITY: u8 = 92;

/// The colour of a key. Hues step by the golden ratio, so that any few neighbours are far apart;
/// every third is lighter or darker.
#[must_use]
pub fn color(key: u64) -> Rgb<u8> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let hue = (key as f64 * GOLDEN).fract();
    let lightness = [0.5, 0.62, 0.4][(key % 3) as usize];
    let saturation = 0.85;
    // HSL to RGB, by the CSS Color Module's formula.
    let channel = |n: f64| {
        let k = (n + hue * 12.0) % 12.0;
        let a = saturation * f64::min(lightness, 1.0 - lightness);
        let value = lightness - a * f64::max(-1.0, f64::min(k - 3.0, f64::min(9.0 - k, 1.0)));
        (value * 255.0).round() as u8
    };
    Rgb([channel(0.0), channel(8.0), channel(4.0)])
}

/// The colour of true positives, false positives and false negatives: blue, vermilion and yellow. They differ in
/// lightness too, and stay apart for people who do not see red, green or blue.
#[must_use]
pub fn verdict_color(verdict: Verdict) -> Rgb<u8> {
    match verdict {
        Verdict::TruePositive => Rgb([0x0a, 0x84, 0xff]),
        Verdict::FalsePositive => Rgb([0xd5, 0x5e, 0x00]),
        Verdict::FalseNegative => Rgb([0xff, 0xe1, 0x4d]),
    }
}

/// How a box is drawn.
struct Mark {
    bbox: Xyxy,
    name: String,
    /// Stays where the name is cut off.
    suffix: String,
    ink: Rgb<u8>,
    dashed: bool,
    /// Marks with more get the better places, and lie on top.
    rank: f32,
}

impl Mark {
    fn of(label: &Labeled) -> Self {
        Self {
            bbox: label.bbox,
            name: label.class_name.clone(),
            suffix: label.score.map(|score| format!(" {score:.2}")).unwrap_or_default(),
            ink: color(label.color_key),
            dashed: label.dashed,
            rank: label.score.unwrap_or(1.0),
        }
    }
}

/// Draws boxes in the colours of [`verdict_color`]; those of boxes that are not found are dashed. Labels begin with
/// `TP`, `FP` or `FN`.
pub fn draw_judged(image: &mut RgbImage, labels: &[(Labeled, Verdict)]) {
    let marks = labels.iter().map(|(label, verdict)| Mark {
        name: format!("{} {}", verdict.short(), label.class_name),
        ink: verdict_color(*verdict),
        dashed: *verdict == Verdict::FalseNegative,
        ..Mark::of(label)
    });
    draw_marks(image, &marks.collect::<Vec<_>>());
}

/// Draws boxes and labels. Lines and letters are in proportion to the image. Boxes without an inside (in the
/// image) are left out. If labels would cover each other, the one with the higher score gets the better
/// place.
pub fn draw(image: &mut RgbImage, labels: &[Labeled]) {
    draw_marks(image, &labels.iter().map(Mark::of).collect::<Vec<_>>());
}

fn draw_marks(image: &mut RgbImage, marks: &[Mark]) {
    let (width, height) = image.dimensions();
    let side = width.min(height) as f32;
    let line = ((side / 200.0).round() as i64).clamp(2, 16);
    let letters = (side / 36.0).round().clamp(16.0, 96.0) as u32;

    let mut visible: Vec<_> = marks
        .iter()
        .map(|mark| (mark, mark.bbox.clipped(width, height)))
        .filter(|(_, bbox)| !bbox.is_degenerate())
        .collect();
    visible.sort_by(|(a, _), (b, _)| b.rank.total_cmp(&a.rank));
    // All frames first: no line crosses a label. The best score is drawn last, on top.
    for (mark, bbox) in visible.iter().rev() {
        let edges = bbox.0.map(|v| v.round() as i64);
        frame(image, edges, line + 2, BLACK, 0.35);
        if mark.dashed {
            dashed_frame(image, edges, line, mark.ink);
        } else {
            frame(image, edges, line, mark.ink, 1.0);
        }
    }

    let mut taken = Vec::new();
    let mut placed = Vec::new();
    for (mark, bbox) in &visible {
        let room = width.saturating_sub(2 * padding(letters));
        let mask = text_mask(&mark.name, &mark.suffix, letters, room);
        let size = [mask.width() + 2 * padding(letters), mask.height()].map(i64::from);
        let at = place(bbox.0.map(|v| v.round() as i64), size, [width, height], line, &taken);
        taken.push([at[0], at[1], at[0] + size[0], at[1] + size[1]]);
        placed.push((at, size, mask, mark.ink));
    }
    for (at, size, mask, background) in placed.into_iter().rev() {
        fill(image, [at[0], at[1], at[0] + size[0], at[1] + size[1]], background, 0.9);
        let left = at[0] + i64::from(padding(letters));
        blend_mask(image, &mask, left, at[1], readable_on(background));
    }
}

/// Two images beside each other, each under its heading, with a caption beneath.
#[must_use]
pub fn side_by_side(left: (&str, &RgbImage), right: (&str, &RgbImage), caption: &str) -> RgbImage {
    const GAP: u32 = 8;
    const PAPER: Rgb<u8> = Rgb([250, 250, 250]);
    const INK: Rgb<u8> = Rgb([40, 40, 40]);
    let (a, b) = (left.1, right.1);
    let tallest = a.height().max(b.height());
    let letters = (tallest as f32 / 30.0).round().clamp(16.0, 64.0) as u32;
    let strip = letters + letters / 2;
    let width = a.width() + b.width() + 3 * GAP;
    let below = if caption.is_empty() { GAP } else { strip };
    let mut page = RgbImage::from_pixel(width, strip + tallest + below, PAPER);
    let mut x = GAP;
    for (heading, image) in [left, right] {
        imageops::replace(&mut page, image, i64::from(x), i64::from(strip));
        let mask = text_mask(heading, "", letters, image.width());
        blend_mask(&mut page, &mask, i64::from(x), i64::from(letters / 4), INK);
        x += image.width() + GAP;
    }
    let mask = text_mask(caption, "", letters, width - 2 * GAP);
    let top = strip + tallest + letters / 4;
    blend_mask(&mut page, &mask, i64::from(GAP), i64::from(top), INK);
    page
}

/// Writes an image as JPEG or PNG, by the file's extension. The file is either wholly there or
/// not at all.
///
/// # Errors
/// For another extension, an image without pixels or beyond the format's size, or if the file
/// cannot be written.
pub fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let bytes = match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => encode_jpeg(image),
        "png" => encode_png(image),
        _ => {
            return Err(Error::other(format!(
                "{}: expected the extension .jpg, .jpeg or .png, got `{extension}`",
                path.display()
            )));
        }
    };
    let bytes = bytes.map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
    write_atomically(path, |out| Ok(out.write_all(&bytes)?))
}

/// The image as a JPEG file.
///
/// # Errors
/// For an image without pixels, or a side beyond 65,535.
pub fn encode_jpeg(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    encode(image, encoder)?;
    Ok(bytes)
}

/// The image as a PNG file.
///
/// # Errors
/// For an image without pixels.
pub fn encode_png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(image, PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

fn encode(image: &RgbImage, encoder: impl image::ImageEncoder) -> Result<()> {
    let (width, height) = image.dimensions();
    let refused = |why: String| Error::other(format!("an image of {width}×{height}: {why}"));
    if width == 0 || height == 0 {
        return Err(refused("nothing to write".to_owned()));
    }
    image.write_with_encoder(encoder).map_err(|e| refused(e.to_string()))
}

/// Space left and right of a label's text.
fn padding(letters: u32) -> u32 {
    letters / 4
}

/// The top left corner of a label of size `[w, h]` at a box. It is the first of these places that covers no
/// other label: above the box, inside at the top, beneath it, inside at the bottom, each at the left end and
/// at the right one. The label stays inside the image.
fn place(
    [x0, y0, x1, y1]: [i64; 4],
    [w, h]: [i64; 2],
    image: [u32; 2],
    line: i64,
    taken: &[[i64; 4]],
) -> [i64; 2] {
    let [width, height] = image.map(i64::from);
    let half = line / 2;
    let inside = |[x, y]: [i64; 2]| [x.min(width - w).max(0), y.min(height - h).max(0)];
    let (left, right) = (x0 - half, x1 + half - w);
    let above = y0 - half - h;
    let rows = [above, y0 + half, y1 + half, y1 - half - h];
    let candidates = rows.into_iter().filter(|&y| y >= 0 && y + h <= height);
    let mut candidates = candidates.flat_map(|y| [inside([left, y]), inside([right, y])]);
    let free = |&[x, y]: &[i64; 2]| {
        taken.iter().all(|&[l, t, r, b]| x >= r || x + w <= l || y >= b || y + h <= t)
    };
    let first = candidates.clone().next();
    candidates.find(free).or(first).unwrap_or_else(|| inside([left, above]))
}

/// A text as coverage (0 to 255), about `height` high and at most `max_width` wide. A name that is too long
/// loses its end, and the suffix stays. Letters that the font lacks become question marks.
fn text_mask(name: &str, suffix: &str, height: u32, max_width: u32) -> GrayImage {
    let size = match height {
        0..18 => RasterHeight::Size16,
        18..22 => RasterHeight::Size20,
        22..28 => RasterHeight::Size24,
        _ => RasterHeight::Size32,
    };
    let glyph = |letter| get_raster(letter, FontWeight::Bold, size);
    let (Some(unknown), raster) = (glyph('?'), size.val() as u32) else {
        return GrayImage::new(0, height);
    };
    let advance = unknown.width() as u32;
    // The largest letters of the font are 32 high; for more they are scaled up.
    let scale = if height > 36 { height as f32 / raster as f32 } else { 1.0 };
    let room = (max_width as f32 / (advance as f32 * scale)) as usize;
    let text = shortened(name, suffix, room);
    let mut mask = GrayImage::new(text.chars().count() as u32 * advance, raster);
    for (i, letter) in (0..).zip(text.chars()) {
        for (y, row) in (0..).zip(glyph(letter).unwrap_or(unknown).rows()) {
            for (x, &coverage) in (0..).zip(row) {
                mask.put_pixel(i * advance + x, y, Luma([coverage]));
            }
        }
    }
    if scale == 1.0 || mask.width() == 0 {
        return mask;
    }
    let wide = (mask.width() as f32 * scale) as u32;
    imageops::resize(&mask, wide, height, imageops::FilterType::CatmullRom)
}

/// Name and suffix in at most `room` letters.
fn shortened(name: &str, suffix: &str, room: usize) -> String {
    let (length, rest) = (name.chars().count(), suffix.chars().count());
    if length + rest <= room {
        return format!("{name}{suffix}");
    }
    let kept: String = name.chars().take(room.saturating_sub(rest + 2)).collect();
    format!("{kept}..{suffix}").chars().take(room).collect()
}

/// Black or white, whichever contrasts more (relative luminance as in WCAG 2.2).
fn readable_on(background: Rgb<u8>) -> Rgb<u8> {
    let linear = |channel: u8| (f64::from(channel) / 255.0).powf(2.2);
    let [r, g, b] = background.0.map(linear);
    let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    // Contrast with black is (l + .05) / .05, with white 1.05 / (l + .05).
    if (luminance + 0.05).powi(2) > 0.05 * 1.05 { BLACK } else { WHITE }
}

/// A rectangle's outline, `line` wide and centred on its edges.
fn frame(image: &mut RgbImage, [x0, y0, x1, y1]: [i64; 4], line: i64, ink: Rgb<u8>, alpha: f32) {
    let (out, inner) = (line / 2, line - line / 2);
    let (left, right, top, bottom) = (x0 - out, x1 + out, y0 - out, y1 + out);
    if right - left <= 2 * line || bottom - top <= 2 * line {
        return fill(image, [left, top, right, bottom], ink, alpha);
    }
    fill(image, [left, top, right, y0 + inner], ink, alpha);
    fill(image, [left, y1 - inner, right, bottom], ink, alpha);
    fill(image, [left, y0 + inner, x0 + inner, y1 - inner], ink, alpha);
    fill(image, [x1 - inner, y0 + inner, right, y1 - inner], ink, alpha);
}

/// A rectangle's outline in dashes, `line` wide, over what is beneath.
fn dashed_frame(image: &mut RgbImage, [x0, y0, x1, y1]: [i64; 4], line: i64, ink: Rgb<u8>) {
    let (out, inner, dash) = (line / 2, line - line / 2, 4 * line);
    for at in (x0..x1).step_by(2 * dash as usize) {
        for y in [y0, y1] {
            fill(image, [at, y - out, (at + dash).min(x1), y + inner], ink, 1.0);
        }
    }
    for at in (y0..y1).step_by(2 * dash as usize) {
        for x in [x0, x1] {
            fill(image, [x - out, at, x + inner, (at + dash).min(y1)], ink, 1.0);
        }
    }
}

/// The part of a rectangle inside the image.
fn fill(image: &mut RgbImage, [x0, y0, x1, y1]: [i64; 4], ink: Rgb<u8>, alpha: f32) {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    for y in y0.clamp(0, height)..y1.clamp(0, height) {
        for x in x0.clamp(0, width)..x1.clamp(0, width) {
            blend(image.get_pixel_mut(x as u32, y as u32), ink, alpha);
        }
    }
}

/// Ink wherever the mask covers, its top left at (`left`, `top`).
fn blend_mask(image: &mut RgbImage, mask: &GrayImage, left: i64, top: i64, ink: Rgb<u8>) {
    for (x, y, Luma([coverage])) in mask.enumerate_pixels() {
        let (Ok(x), Ok(y)) =
            (u32::try_from(left + i64::from(x)), u32::try_from(top + i64::from(y)))
        else {
            continue;
        };
        if let Some(pixel) = image.get_pixel_mut_checked(x, y) {
            blend(pixel, ink, f32::from(*coverage) / 255.0);
        }
    }
}

fn blend(pixel: &mut Rgb<u8>, ink: Rgb<u8>, alpha: f32) {
    for (old, new) in pixel.0.iter_mut().zip(ink.0) {
        *old = (f32::from(*old) * (1.0 - alpha) + f32::from(new) * alpha).round() as u8;
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
