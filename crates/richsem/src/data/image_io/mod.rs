//! Reading pictures: JPEG and PNG to 8-bit RGB, as Pillow's `convert("RGB")` gives it.
//!
//! - The format is told by content; the extension does not matter.
//! - Grey is repeated, palettes are looked up, alpha is dropped (not blended), CMYK and YCCK are
//!   read as Adobe writes them (inverted).
//! - EXIF orientation is ignored: the reference opens pictures without `exif_transpose`, and the
//!   boxes of COCO and LVIS are in the frame of the stored pixels.
//! - A file that ends early is an error, as in Pillow, not a half-grey picture.
//!
//! Deviations: a JPEG whose data hold an impossible code is an error, where Pillow goes on with
//! whatever comes out. 16-bit grey PNG gives the high byte, as 16-bit colour does; Pillow clips it
//! at 255, which turns most such pictures white.

use std::{io::Cursor, path::Path};

use image::{DynamicImage, ImageDecoder as _, RgbImage, codecs::png::PngDecoder};
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{
        bytestream::{ZByteReaderTrait, ZCursor},
        colorspace::ColorSpace,
        options::DecoderOptions,
    },
};

use crate::{Error, Result};

/// Most pixels a picture may have: where Pillow, too, refuses it as a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Reads a picture.
///
/// # Errors
/// The file cannot be read, or see [`decode_bytes`].
pub fn decode(path: &Path) -> Result<RgbImage> {
    decode_bytes(&fs_err::read(path)?, path)
}

/// Decodes a picture in memory. `name` is only for messages.
///
/// # Errors
/// Empty, neither JPEG nor PNG, truncated, corrupt, of an unsupported kind (arithmetic coding,
/// 12 bits), or of more than [`MAX_PIXELS`].
pub fn decode_bytes(bytes: &[u8], name: &Path) -> Result<RgbImage> {
    match Format::of(bytes, name)? {
        Format::Jpeg => decode_jpeg(bytes, name),
        Format::Png => decode_png(bytes, name),
    }
}

/// `[height, width]` of a picture, from its header alone.
///
/// # Errors
/// As [`decode`], for what the header can show.
pub fn size(path: &Path) -> Result<[u32; 2]> {
    use std::io::{BufRead as _, Read as _, Seek as _};
    let mut file = std::io::BufReader::new(fs_err::File::open(path)?);
    let mut start = Vec::new();
    file.by_ref().take(Format::LONGEST_MAGIC).read_to_end(&mut start)?;
    let format = Format::of(&start, path)?;
    file.rewind()?;
    let [width, height] = match format {
        Format::Jpeg => jpeg_header(file, path)?.1,
        Format::Png => {
            file.fill_buf()?;
            let (width, height) = png_header(file, path)?.dimensions();
            [width, height]
        }
    };
    Ok([height, width])
}

#[derive(Clone, Copy)]
enum Format {
    Jpeg,
    Png,
}

impl Format {
    /// Enough of a file's start to recognise it, and to name what it is instead.
    const LONGEST_MAGIC: u64 = 64;

    fn of(bytes: &[u8], name: &Path) -> Result<Self> {
        const AGAIN: &str = "copy or download the file again";
        let invalid = |problem: &str, hint: &str| {
            Err(Error::invalid(name, "image", format!("expected JPEG or PNG, got {problem}"))
                .with_hint(hint))
        };
        match bytes {
            [] => invalid("an empty file", AGAIN),
            [0xFF, 0xD8, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Png),
            [b'<', ..] => invalid("HTML or XML text", "the download gave a web page; repeat it"),
            _ if bytes.starts_with(b"version https://git-lfs") => {
                invalid("a Git LFS pointer", "fetch the contents with `git lfs pull`")
            }
            _ => match image::guess_format(bytes) {
                Ok(other) => invalid(
                    &format!("{other:?}"),
                    "convert it, as with `magick FILE FILE.png`, and name the new file in the \
                     annotations",
                ),
                Err(_) => {
                    let start = bytes.iter().take(8).map(|b| format!("{b:02x}"));
                    let start = start.collect::<Vec<_>>().join(" ");
                    invalid(&format!("bytes that begin with {start}"), AGAIN)
                }
            },
        }
    }

    fn truncated(self, name: &Path) -> Error {
        let kind = match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        };
        Error::invalid(name, kind, "the file ends before the picture does (truncated)")
            .with_hint("copy or download the file again")
    }
}

/// Refuses what would take unreasonable memory, before anything of that size is allocated.
fn check_pixels(width: u32, height: u32, name: &Path) -> Result<()> {
    if width == 0 || height == 0 {
        let problem = format!("expected at least one pixel, got {width} x {height}");
        return Err(Error::invalid(name, "image", problem));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let problem = format!("{width} x {height} is more than {MAX_PIXELS} pixels");
        return Err(Error::invalid(name, "image", problem)
            .with_hint("scale the picture and its boxes down, or leave it out"));
    }
    Ok(())
}

// ---- JPEG ----

/// The decoder after its header, and `[width, height]`.
fn jpeg_header<R: ZByteReaderTrait>(reader: R, name: &Path) -> Result<(JpegDecoder<R>, [u32; 2])> {
    // Headers are read leniently, as libjpeg does: stray bytes between segments are common.
    let options = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .set_strict_mode(false)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(reader, options);
    decoder.decode_headers().map_err(|e| jpeg_error(&e, name))?;
    let Some((width, height)) = decoder.dimensions() else {
        return Err(Error::invalid(name, "JPEG", "no frame header"));
    };
    let size = [width as u32, height as u32]; // at most 65,535 each
    check_pixels(size[0], size[1], name)?;
    Ok((decoder, size))
}

fn decode_jpeg(bytes: &[u8], name: &Path) -> Result<RgbImage> {
    let (mut decoder, [width, height]) = jpeg_header(ZCursor::new(bytes), name)?;
    if !jpeg_ends(bytes) {
        return Err(Format::Jpeg.truncated(name));
    }
    // Strict from here: otherwise a damaged scan becomes grey pixels without a word.
    decoder.set_options(decoder.options().set_strict_mode(true));
    let mut pixels = vec![0; width as usize * height as usize * 3];
    decoder.decode_into(&mut pixels).map_err(|e| jpeg_error(&e, name))?;
    RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| Error::invalid(name, "JPEG", "decoded to a wrong number of bytes"))
}

/// True if the picture's end marker is there. What follows it does not matter.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const EOI: u8 = 0xD9;
    if bytes.ends_with(&[0xFF, EOI]) {
        return true;
    }
    // Walk the segments: thumbnails within them have end markers of their own.
    let mut at = 2;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) {
        let marker = at + offset + 1;
        at = match bytes.get(marker) {
            Some(&EOI) => return true,
            Some(0xFF) => marker, // fill byte: the next 0xFF may be the marker's
            Some(0x00 | 0x01 | 0xD0..=0xD8) => marker + 1, // stuffed or without a body
            Some(_) => match bytes.get(marker + 1..marker + 3) {
                Some(&[high, low]) => marker + 1 + usize::from(high) * 256 + usize::from(low),
                _ => return false,
            },
            None => return false,
        };
    }
    false
}

fn jpeg_error(error: &DecodeErrors, name: &Path) -> Error {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => Format::Jpeg.truncated(name),
        DecodeErrors::Unsupported(scheme) => {
            Error::invalid(name, "JPEG", format!("unsupported kind: {scheme:?}"))
                .with_hint("save it again as a baseline or progressive JPEG")
        }
        other => Error::invalid(name, "JPEG", format!("corrupt: {other}"))
            .with_hint("copy or download the file again"),
    }
}

// ---- PNG ----

fn png_header<R: std::io::BufRead + std::io::Seek>(
    reader: R,
    name: &Path,
) -> Result<PngDecoder<R>> {
    // The limits' 512 MiB bound metadata; the pixels are bounded by `check_pixels`.
    let decoder = PngDecoder::with_limits(reader, image::Limits::default())
        .map_err(|e| png_error(&e, name))?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, name)?;
    Ok(decoder)
}

fn decode_png(bytes: &[u8], name: &Path) -> Result<RgbImage> {
    let decoder = png_header(Cursor::new(bytes), name)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| png_error(&e, name))?;
    let (width, height) = (picture.width(), picture.height());
    let pixels = match picture {
        DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
        DynamicImage::ImageLuma8(p) => to_rgb::<1, _>(&p, |v| v),
        DynamicImage::ImageLumaA8(p) => to_rgb::<2, _>(&p, |v| v),
        DynamicImage::ImageRgba8(p) => to_rgb::<4, _>(&p, |v| v),
        DynamicImage::ImageLuma16(p) => to_rgb::<1, _>(&p, high_byte),
        DynamicImage::ImageLumaA16(p) => to_rgb::<2, _>(&p, high_byte),
        DynamicImage::ImageRgb16(p) => to_rgb::<3, _>(&p, high_byte),
        DynamicImage::ImageRgba16(p) => to_rgb::<4, _>(&p, high_byte),
        other => {
            let problem = format!("unsupported pixels {:?}", other.color());
            return Err(Error::invalid(name, "PNG", problem));
        }
    };
    RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| Error::invalid(name, "PNG", "decoded to a wrong number of bytes"))
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

fn png_error(error: &image::ImageError, name: &Path) -> Error {
    match error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Format::Png.truncated(name)
        }
        other => Error::invalid(name, "PNG", format!("corrupt: {other}"))
            .with_hint("copy or download the file again"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
        fs_err::read(folder.join(name)).unwrap()
    }

    /// Mean and largest absolute difference from what Pillow reads (`fixtures/images/make.py`).
    fn difference(name: &str) -> (f64, u8) {
        let got = decode_bytes(&fixture(name), Path::new(name)).unwrap();
        let expected = fixture(&format!("{name}.rgb"));
        assert_eq!(got.as_raw().len(), expected.len(), "{name}");
        let differences = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let sum: f64 = differences.clone().map(f64::from).sum();
        (sum / expected.len() as f64, differences.max().unwrap())
    }

    #[test]
    fn png_pixels_are_pillows() {
        for name in [
            "rgb.png",
            "grey.png",
            "bilevel.png",
            "palette.png",
            "palette_transparent.png",
            "rgba.png",
            "grey_alpha.png",
            "rgb16.png",
            "grey16.png",
        ] {
            assert_eq!(difference(name), (0.0, 0), "{name}");
        }
    }

    #[test]
    fn jpeg_pixels_are_pillows_within_rounding() {
        // libjpeg-turbo and zune-jpeg round the inverse transform and chroma upsampling
        // differently.
        for name in [
            "baseline_444.jpg",
            "baseline_422.jpg",
            "baseline_420.jpg",
            "restart.jpg",
            "progressive.jpg",
            "rgb_coded.jpg",
            "grey.jpg",
            "cmyk.jpg",
            "ycck.jpg",
            "cmyk_without_adobe.jpg",
        ] {
            let (mean, max) = difference(name);
            assert!(mean <= 0.5 && max <= 4, "{name}: mean {mean}, max {max}");
        }
    }

    #[test]
    fn exif_orientation_is_ignored() {
        let name = "exif_orientation_6.jpg";
        let picture = decode_bytes(&fixture(name), Path::new(name)).unwrap();
        assert_eq!(picture.dimensions(), (37, 29), "stored frame, not 29 x 37");
        assert!(difference(name).0 <= 0.5);
    }

    #[test]
    fn size_reads_the_header_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["progressive.jpg", "baseline_420.jpg", "rgb.png", "grey16.png"] {
            let bytes = fixture(name);
            // All headers of these files lie within their first part; the rest is cut away.
            let keep = if name.ends_with("png") { 64 } else { bytes.len() * 9 / 10 };
            let path = folder.path().join(name);
            fs_err::write(&path, &bytes[..keep]).unwrap();
            let expected = if name == "grey16.png" { [11, 13] } else { [29, 37] };
            assert_eq!(size(&path).unwrap(), expected, "{name}");
            assert!(decode(&path).is_err(), "{name}");
        }
    }

    #[test]
    fn the_extension_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.jpg");
        fs_err::write(&path, fixture("rgb.png")).unwrap();
        assert_eq!(decode(&path).unwrap().dimensions(), (37, 29));
    }

    #[test]
    fn bytes_after_the_end_marker_are_harmless_and_before_it_none_may_lack() {
        let whole = fixture("baseline_420.jpg");
        let name = Path::new("a.jpg");
        let expected = decode_bytes(&whole, name).unwrap();
        let mut longer = whole.clone();
        longer.extend_from_slice(b"appended \xFF\xD8 rubbish");
        assert_eq!(decode_bytes(&longer, name).unwrap(), expected);
        for file in ["baseline_420.jpg", "progressive.jpg", "exif_orientation_6.jpg"] {
            let whole = fixture(file);
            for length in 2..whole.len() {
                let text = decode_bytes(&whole[..length], name).unwrap_err().to_string();
                assert!(text.starts_with("a.jpg: "), "{text}");
            }
            let text = decode_bytes(&whole[..whole.len() - 1], name).unwrap_err().to_string();
            assert!(text.contains("truncated") && text.contains("hint: "), "{text}");
        }
    }

    #[test]
    fn a_damaged_scan_is_an_error_rather_than_grey_pixels() {
        for file in ["baseline_444.jpg", "progressive.jpg"] {
            let mut bytes = fixture(file);
            // A run of ones is no Huffman code (0xFF is stuffed with 0x00).
            let middle = bytes.len() - 200;
            bytes[middle..middle + 20].copy_from_slice(&[0xFF, 0x00].repeat(10));
            let text = decode_bytes(&bytes, Path::new("a.jpg")).unwrap_err().to_string();
            assert!(text.contains("a.jpg: JPEG: corrupt"), "{text}");
        }
    }

    #[test]
    fn truncated_png_is_an_error() {
        let whole = fixture("rgb.png");
        for length in [8, 20, 60, whole.len() / 2, whole.len() - 40] {
            let text = decode_bytes(&whole[..length], Path::new("a.png")).unwrap_err().to_string();
            assert!(text.contains("truncated"), "{length}: {text}");
        }
    }

    #[test]
    fn what_is_not_a_picture_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "an empty file"),
            (b"<!DOCTYPE html>", "HTML"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
            (b"GIF89a\x01\0", "Gif"),
            (b"hello", "68 65 6c 6c 6f"),
        ];
        for (bytes, expected) in cases {
            let text = decode_bytes(bytes, Path::new("dir/x.jpg")).unwrap_err().to_string();
            assert!(text.starts_with("dir/x.jpg: image: ") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn bombs_are_refused_before_they_are_allocated() {
        // A JPEG's frame header says 65,535 x 65,535.
        let mut bytes = fixture("baseline_444.jpg");
        let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 9].fill(0xFF);
        let text = decode_bytes(&bytes, Path::new("b.jpg")).unwrap_err().to_string();
        assert!(text.contains("65535 x 65535"), "{text}");
        // A PNG's header says 100,000 x 100,000 (its checksum made to fit).
        let mut bytes = fixture("rgb.png");
        bytes[16..20].copy_from_slice(&100_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&100_000u32.to_be_bytes());
        let checksum = crc32(&bytes[12..29]).to_be_bytes();
        bytes[29..33].copy_from_slice(&checksum);
        let text = decode_bytes(&bytes, Path::new("b.png")).unwrap_err().to_string();
        assert!(text.contains("100000 x 100000"), "{text}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xEDB8_8320 * (c & 1)))
        })
    }

    #[test]
    fn damaged_files_never_panic() {
        use crate::random::{Random, Stream};
        let mut random = Random::new(0, Stream::Test, 0, 0);
        for name in ["baseline_420.jpg", "progressive.jpg", "restart.jpg", "cmyk.jpg", "rgb16.png"]
        {
            let whole = fixture(name);
            for _ in 0..2000 {
                let mut bytes = whole.clone();
                for _ in 0..random.between(1, 4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.bits() as u8;
                }
                // Whether it is still a picture is not the question here.
                let _ = decode_bytes(&bytes, Path::new(name));
            }
        }
    }
}
