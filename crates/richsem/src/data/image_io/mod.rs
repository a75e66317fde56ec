//! Reading images: JPEG, PNG, WebP, BMP, TIFF and GIF to 8-bit RGB, as Pillow's
//! `convert("RGB")` gives it.
//!
//! - The contents decide the format; the extension does not matter.
//! - Grey is repeated, palettes are looked up, alpha is dropped (not blended), CMYK and YCCK are
//!   read as Adobe writes them (inverted).
//! - An image is turned as its EXIF orientation says, as viewers show it, but not with
//!   [`Orientation::Stored`].
//! - Of several images in a file, as an animation's, the first one is read.
//! - A file that ends early is an error, as in Pillow, not a half-grey image.
//!
//! Deviations from Pillow:
//!
//! - An orientation in XMP, in ImageMagick's raw profiles or after a PNG's pixels is not seen. An
//!   orientation that EXIF has as a BYTE is.
//! - A JPEG with an impossible code in its data, or with restart markers out of order, is an error.
//!   Pillow continues with wrong pixels.
//! - 16-bit grey gives the high byte, as 16-bit colour does. Pillow clips it at 255, which turns most
//!   such images white.
//! - A progressive JPEG without its last scans is not smoothed.
//! - If the first frame of a GIF is smaller than its canvas, the rest is black.

mod exif;
pub(in crate::data) mod frames;
mod jpeg;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    io::{BufRead, Cursor, Seek},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, metadata::Orientation as Turn,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, boxes::Xywh, stand_in::stand_in};

/// Most pixels of an image. Pillow, too, refuses larger ones as decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Which way up an image is read. Boxes are relative to the image that way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Turned and mirrored as its EXIF orientation says: as viewers, browsers and most annotation tools
    /// show it (Pillow's `exif_transpose`).
    #[default]
    Exif,
    /// As its pixels are stored: what the official code of COCO, LVIS and RichSem reads. This matters only
    /// for images with an EXIF orientation.
    Stored,
}

/// An image that was read.
#[derive(Debug)]
pub struct Decoded {
    /// The pixels, turned or as stored, as asked for.
    pub image: RgbImage,
    /// Its EXIF orientation, 1 to 8. 1 is upright; images without EXIF have 1.
    pub exif: u8,
}

/// Reads an image.
///
/// # Errors
/// The file cannot be read, or see [`decode_bytes`].
pub fn decode(path: &Path, orientation: Orientation) -> Result<Decoded> {
    decode_bytes(&read(path)?, path, orientation)
}

/// The bytes of an image's file.
///
/// # Errors
/// It is not there, or cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs_err::read(path).map_err(|error| absent(path, error))
}

/// An error of reading an image, in words where there is no such file.
fn absent(path: &Path, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return error.into();
    }
    // A link says more than the file that it names.
    let problem = match path.is_symlink() {
        true => format!("image `{}`: a link to a file that does not exist", path.display()),
        false => format!("image `{}`: there is no such file", path.display()),
    };
    Error::from(std::io::Error::new(error.kind(), problem)).with_hint(
        "annotations name images relative to the folder of --images (data.train.images); `richsem doctor DATA` \
         counts all that are missing",
    )
}

/// Decodes an image in memory. `name` is only for messages.
///
/// # Errors
/// Empty, of no format that is read, truncated, corrupt, of an unsupported kind (arithmetic coding,
/// 12 bits), or of more than [`MAX_PIXELS`].
pub fn decode_bytes(bytes: &[u8], name: &Path, orientation: Orientation) -> Result<Decoded> {
    let (image, turn) = match FileFormat::of(bytes, name)? {
        FileFormat::Jpeg => {
            let (image, header) = jpeg::decode(bytes, name)?;
            (image, turn_of(header.exif.as_deref()))
        }
        FileFormat::Other(format) => decode_other(bytes, format, name)?,
    };
    let image = match orientation {
        Orientation::Exif => turned(image, turn),
        Orientation::Stored => image,
    };
    Ok(Decoded { image, exif: turn.to_exif() })
}

/// `[height, width]` of an image, from its headers alone.
///
/// # Errors
/// As [`decode`], for what the headers can show.
pub fn size(path: &Path, orientation: Orientation) -> Result<[u32; 2]> {
    size_of(
        std::io::BufReader::new(fs_err::File::open(path).map_err(|error| absent(path, error))?),
        path,
        orientation,
    )
}

/// As [`size`], of an image that is read from elsewhere. `path` is only for messages.
///
/// # Errors
/// As [`size`].
pub fn size_of(
    file: impl BufRead + Seek,
    path: &Path,
    orientation: Orientation,
) -> Result<[u32; 2]> {
    Ok(frame_of(file, path)?.size(orientation))
}

/// The share of a side that boxes may end beyond it: a little beyond is usual.
pub(crate) const SLACK: f64 = 0.05;

/// Whether a box ends within a frame of `[height, width]`, or beyond it by that share of a side at most, rounded up
/// to whole pixels.
pub(crate) fn fits(Xywh([x, y, w, h]): Xywh, [height, width]: [u32; 2], slack: f64) -> bool {
    let most = |side: u32| f64::from(side) + (f64::from(side) * slack).ceil();
    x + w <= most(width) && y + h <= most(height)
}

/// What the headers of an image say of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `[height, width]` of the pixels as they are stored.
    pub(crate) stored: [u32; 2],
    turn: Turn,
}

impl Frame {
    /// Whether the EXIF orientation turns or mirrors the image.
    pub(crate) fn is_turned(self) -> bool {
        self.turn != Turn::NoTransforms
    }

    /// `[height, width]` the way up that images are read.
    pub(crate) fn size(self, orientation: Orientation) -> [u32; 2] {
        let [height, width] = self.stored;
        match orientation {
            Orientation::Exif if turns_sides(self.turn) => [width, height],
            _ => [height, width],
        }
    }

    /// `[height, width]` of the frame that boxes were drawn in, where no annotation says it, and whether they show it:
    /// that of the two frames that they fit into alone. If that is none, it is the way up that images are read.
    pub(crate) fn size_of_boxes(
        self,
        orientation: Orientation,
        boxes: impl Iterator<Item = Xywh> + Clone,
    ) -> ([u32; 2], bool) {
        let fit = |size| boxes.clone().all(|bbox| fits(bbox, size, SLACK));
        let (size, shown) = (self.size(orientation), self.size(Orientation::Exif));
        match (fit(shown), fit(self.stored)) {
            (true, false) if orientation == Orientation::Exif => (shown, true),
            (false, true) => (self.stored, true),
            _ => (size, false),
        }
    }

    /// The same orientation of an image that is stored with another `[height, width]`.
    pub(crate) fn with_stored(self, stored: [u32; 2]) -> Self {
        Self { stored, ..self }
    }

    /// Where a box on the pixels as stored is in the image as viewers show it.
    pub(crate) fn shown(self, Xywh([x, y, w, h]): Xywh) -> Xywh {
        let [height, width] = self.stored.map(f64::from);
        // From the other side.
        let (left, up) = (width - x - w, height - y - h);
        Xywh(match self.turn {
            Turn::NoTransforms => [x, y, w, h],
            Turn::FlipHorizontal => [left, y, w, h],
            Turn::Rotate180 => [left, up, w, h],
            Turn::FlipVertical => [x, up, w, h],
            Turn::Rotate90FlipH => [y, x, h, w],
            Turn::Rotate90 => [up, x, h, w],
            Turn::Rotate270FlipH => [up, left, h, w],
            Turn::Rotate270 => [y, left, h, w],
        })
    }
}

/// The frame of an image, from its headers alone. `path` is only for messages.
///
/// # Errors
/// As [`size`].
pub(crate) fn frame_of(mut file: impl BufRead + Seek, path: &Path) -> Result<Frame> {
    use std::io::Read as _;
    let mut start = Vec::new();
    file.by_ref().take(FileFormat::LONGEST_MAGIC).read_to_end(&mut start)?;
    let format = FileFormat::of(&start, path)?;
    file.rewind()?;
    let (width, height, turn) = match format {
        FileFormat::Jpeg => {
            let header = jpeg::Header::read(file, path)?;
            check_pixels(header.width, header.height, path)?;
            (header.width, header.height, turn_of(header.exif.as_deref()))
        }
        FileFormat::Other(format) => {
            let (decoder, turn) = other_header(file, format, path)?;
            let (width, height) = decoder.dimensions();
            (width, height, turn)
        }
    };
    Ok(Frame { stored: [height, width], turn })
}

/// What an EXIF segment says; upright where it says nothing that can be read.
fn turn_of(exif: Option<&[u8]>) -> Turn {
    // Some writers put JPEG's marker before it in other formats, too.
    let exif = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    exif.and_then(exif::orientation).unwrap_or(Turn::NoTransforms)
}

/// Whether width and height change places.
fn turns_sides(turn: Turn) -> bool {
    matches!(turn, Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH)
}

fn turned(image: RgbImage, turn: Turn) -> RgbImage {
    if turn == Turn::NoTransforms {
        return image;
    }
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(turn);
    image.into_rgb8()
}

#[derive(Clone, Copy)]
enum FileFormat {
    Jpeg,
    Other(ImageFormat),
}

impl std::fmt::Display for FileFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Other(ImageFormat::Png) => "PNG",
            Self::Other(ImageFormat::WebP) => "WebP",
            Self::Other(ImageFormat::Bmp) => "BMP",
            Self::Other(ImageFormat::Tiff) => "TIFF",
            Self::Other(ImageFormat::Gif) => "GIF",
            Self::Other(other) => return write!(f, "{other:?}"),
        })
    }
}

/// The name of a kind of file that is recognised by its first bytes, but cannot be read.
fn unread(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] if brand.len() >= 4 => match &brand[..4] {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1" => Some("HEIC"),
            _ => Some("a video or another file in MP4's container"),
        },
        [0, 0, 0, 0x0C, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => {
            Some("JPEG 2000")
        }
        [0xFF, 0x0A, ..] | [0, 0, 0, 0x0C, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [b'8', b'B', b'P', b'S', ..] => Some("a Photoshop document"),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF"),
        _ => None,
    }
}

impl FileFormat {
    /// Enough of a file's start to recognise it, and to name what it is instead.
    const LONGEST_MAGIC: u64 = 64;

    fn of(bytes: &[u8], name: &Path) -> Result<Self> {
        const FETCH_AGAIN: &str = "copy or download the file again";
        let invalid = |problem: &str, hint: &str| {
            let problem = format!("expected JPEG, PNG, WebP, BMP, TIFF or GIF, got {problem}");
            Err(Error::invalid(name, "image", problem).with_hint(hint))
        };
        if let Some((what, hint)) = stand_in(bytes) {
            return invalid(what, hint);
        }
        match bytes {
            [] => invalid("an empty file", FETCH_AGAIN),
            [0xFF, 0xD8, ..] => Ok(Self::Jpeg),
            [b'I', b'I', 0x2B, 0, ..] | [b'M', b'M', 0, 0x2B, ..] => {
                invalid("BigTIFF", "convert it, as with `magick FILE FILE.png`")
            }
            [b'<', ..] => invalid("XML or SVG text", FETCH_AGAIN),
            _ => match image::guess_format(bytes) {
                Ok(format) if format.reading_enabled() => Ok(Self::Other(format)),
                Ok(other) => invalid(
                    &format!("{other:?}"),
                    "convert it, as with `magick FILE FILE.png`, and name the new file in the \
                     annotations",
                ),
                Err(_) if unread(bytes).is_some() => invalid(
                    unread(bytes).unwrap_or_default(),
                    "convert it, as with `magick FILE FILE.png`, and name the new file in the \
                     annotations",
                ),
                Err(_) => {
                    let start = bytes.iter().take(8).map(|b| format!("{b:02x}"));
                    let start = start.collect::<Vec<_>>().join(" ");
                    invalid(
                        &format!("bytes that begin with {start}"),
                        "this is no image, or a damaged copy of one: give another file",
                    )
                }
            },
        }
    }

    fn truncated(self, name: &Path) -> Error {
        let problem = "the file ends before the image does (truncated)";
        Error::invalid(name, self.to_string(), problem).with_hint("copy or download the file again")
    }

    fn error(self, error: &image::ImageError, name: &Path) -> Error {
        use image::ImageError;
        match error {
            ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.truncated(name)
            }
            ImageError::Unsupported(e) => {
                let problem = format!("this kind is not supported: {e}");
                Error::invalid(name, self.to_string(), problem)
                    .with_hint("convert it, as with `magick FILE FILE.png`")
            }
            ImageError::Limits(_) => {
                Error::invalid(name, self.to_string(), format!("too large: {error}"))
                    .with_hint("scale the image and its boxes down, or leave it out")
            }
            other => Error::invalid(name, self.to_string(), format!("corrupt: {other}"))
                .with_hint("copy or download the file again"),
        }
    }
}

/// Refuses sizes that need unreasonable memory, before memory of that size is allocated.
fn check_pixels(width: u32, height: u32, name: &Path) -> Result<()> {
    if width == 0 || height == 0 {
        let problem = format!("expected at least one pixel, got {width} x {height}");
        return Err(Error::invalid(name, "image", problem));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let problem = format!("{width} x {height} is more than {MAX_PIXELS} pixels");
        return Err(Error::invalid(name, "image", problem)
            .with_hint("scale the image and its boxes down, or leave it out"));
    }
    Ok(())
}

/// The decoder after its headers, and how the image is turned.
fn other_header<'a, R: BufRead + Seek + 'a>(
    reader: R,
    format: ImageFormat,
    name: &Path,
) -> Result<(impl ImageDecoder + 'a, Turn)> {
    let mut reader = ImageReader::with_format(reader, format);
    // The pixels are bounded by `check_pixels`; what else there is, by the limits' 512 MiB.
    reader.limits(image::Limits::default());
    let error = |e| FileFormat::Other(format).error(&e, name);
    let mut decoder = reader.into_decoder().map_err(error)?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, name)?;
    let turn = match decoder.exif_metadata() {
        Ok(Some(exif)) => turn_of(Some(&exif)),
        // TIFF's own tag.
        _ => decoder.orientation().unwrap_or(Turn::NoTransforms),
    };
    Ok((decoder, turn))
}

fn decode_other(bytes: &[u8], format: ImageFormat, name: &Path) -> Result<(RgbImage, Turn)> {
    let (decoder, turn) = other_header(Cursor::new(bytes), format, name)?;
    let error = |e| FileFormat::Other(format).error(&e, name);
    let image = DynamicImage::from_decoder(decoder).map_err(error)?;
    let (width, height) = (image.width(), image.height());
    let pixels = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok((rgb, turn)),
        DynamicImage::ImageLuma8(p) => to_rgb::<1, _>(&p, |v| v),
        DynamicImage::ImageLumaA8(p) => to_rgb::<2, _>(&p, |v| v),
        DynamicImage::ImageRgba8(p) => to_rgb::<4, _>(&p, |v| v),
        DynamicImage::ImageLuma16(p) => to_rgb::<1, _>(&p, high_byte),
        DynamicImage::ImageLumaA16(p) => to_rgb::<2, _>(&p, high_byte),
        DynamicImage::ImageRgb16(p) => to_rgb::<3, _>(&p, high_byte),
        DynamicImage::ImageRgba16(p) => to_rgb::<4, _>(&p, high_byte),
        other => {
            let problem = format!("unsupported pixels {:?}", other.color());
            return Err(Error::invalid(name, FileFormat::Other(format).to_string(), problem)
                .with_hint("convert it, as with `magick FILE FILE.png`"));
        }
    };
    let image = RgbImage::from_raw(width, height, pixels).ok_or_else(|| {
        let problem = "decoded to a wrong number of bytes";
        Error::invalid(name, FileFormat::Other(format).to_string(), problem)
    })?;
    Ok((image, turn))
}

/// Samples of N channels (grey, grey and alpha, colour, colour and alpha) to RGB, without alpha.
fn to_rgb<const N: usize, T: Copy>(samples: &[T], to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<N>();
    let channels = if N < 3 { [0; 3] } else { [0, 1, 2] };
    pixels.iter().flat_map(|pixel| channels.map(|c| to_u8(pixel[c]))).collect()
}

fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}
