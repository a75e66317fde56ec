//! JPEG. Two decoders: `zune-jpeg`, which is fast, where its pixels are right, and `jpeg-decoder` for the
//! rest (see [`Header::decoder`]).

use std::{io::BufRead, path::Path};

use image::RgbImage;
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Format, check_pixels};
use crate::{Error, Result};

const ANEW: &str = "write it anew, as with `djpeg FILE | cjpeg -quality 95 > NEW.jpg`";

/// What the segments before the pixels say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// In pixels, as stored.
    pub(super) width: u32,
    /// In pixels, as stored.
    pub(super) height: u32,
    /// The EXIF segment, from its TIFF header on.
    pub(super) exif: Option<Vec<u8>>,
    /// The frame's marker, `0xC0` to `0xCF`: how its pixels are coded.
    frame: u8,
    /// Bits of a sample.
    precision: u8,
    /// Horizontal and vertical sampling of each component.
    sampling: Vec<[u8; 2]>,
    /// Components in the first scan.
    in_first_scan: u8,
}

impl Header {
    /// Reads up to the first scan.
    ///
    /// # Errors
    /// The file ends before, or a segment is not what it should be.
    pub(super) fn read(reader: impl BufRead, name: &Path) -> Result<Self> {
        let mut bytes = reader.bytes();
        let mut next = || match bytes.next() {
            Some(Ok(byte)) => Ok(byte),
            Some(Err(error)) => Err(Error::Io(error)),
            None => Err(Format::Jpeg.truncated(name)),
        };
        let mut header = Self::default();
        loop {
            // Stray bytes between segments are common, and libjpeg passes over them.
            while next()? != 0xFF {}
            let mut marker = next()?;
            while marker == 0xFF {
                marker = next()?;
            }
            if matches!(marker, 0x00 | 0x01 | 0xD0..=0xD8) {
                continue;
            }
            if marker == 0xD9 {
                return Err(corrupt(name, "it ends before the first scan"));
            }
            let length = usize::from(u16::from_be_bytes([next()?, next()?]));
            let body = (2..length).map(|_| next()).collect::<Result<Vec<u8>>>()?;
            match marker {
                0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    header
                        .take_frame(marker, &body)
                        .ok_or_else(|| corrupt(name, "frame header"))?;
                }
                0xE1 if header.exif.is_none() && body.starts_with(b"Exif\0") => {
                    header.exif = body.get(6..).map(<[u8]>::to_vec);
                }
                0xDA => {
                    header.in_first_scan = body.first().copied().unwrap_or_default();
                    return match header.sampling.is_empty() {
                        true => Err(corrupt(name, "no frame header")),
                        false => Ok(header),
                    };
                }
                _ => {}
            }
        }
    }

    fn take_frame(&mut self, marker: u8, body: &[u8]) -> Option<()> {
        let &[precision, h0, h1, w0, w1, count, ref components @ ..] = body else { return None };
        let (components, _) = components.as_chunks::<3>();
        self.frame = marker;
        self.precision = precision;
        self.height = u32::from(u16::from_be_bytes([h0, h1]));
        self.width = u32::from(u16::from_be_bytes([w0, w1]));
        self.sampling = components.iter().map(|&[_, hv, _]| [hv >> 4, hv & 15]).collect();
        let sampled = self.sampling.iter().flatten().all(|factor| (1..=4).contains(factor));
        (self.sampling.len() == usize::from(count) && count > 0 && sampled).then_some(())
    }

    /// # Errors
    /// For pixels of a kind that is not read: nothing is wrong with such a file.
    fn check_kind(&self, name: &Path) -> Result<()> {
        let kind = match self.frame {
            0xC3 => "lossless coding",
            0xC5..=0xC7 | 0xCD..=0xCF => "hierarchical coding",
            0xC9..=0xCB => "arithmetic coding",
            _ if self.precision != 8 => "samples of other than 8 bits",
            _ => return Ok(()),
        };
        let problem = format!("{kind}, a kind of JPEG that is not read");
        Err(Error::invalid(name, "JPEG", problem).with_hint(ANEW))
    }

    /// Who reads the pixels rightly (tests/fixtures/images/make_jpegs.py has every kind).
    fn decoder(&self) -> Option<Decoder> {
        let one_scan = usize::from(self.in_first_scan) == self.sampling.len();
        let progressive = self.frame == 0xC2;
        let (mut plain, mut finest_first, mut powers) = (true, true, true);
        for axis in [0, 1] {
            let factors = || self.sampling.iter().map(|factors| factors[axis]);
            let finest = factors().max();
            // Every component is sampled at the finest rate or at one alone.
            plain &= factors().all(|factor| factor == 1 || Some(factor) == finest);
            finest_first &= factors().next() == finest;
            powers &= factors().all(|factor| factor != 3);
        }
        // zune-jpeg 0.5.15 gives wrong pixels, without a word, for a baseline file of several scans and
        // where the first component is not the finest; jpeg-decoder 0.3.2 for several scans that are not
        // plain.
        if plain && finest_first && powers && (one_scan || progressive) {
            Some(Decoder::Fast)
        } else if plain || (one_scan && !progressive) {
            Some(Decoder::Thorough)
        } else {
            None
        }
    }
}

enum Decoder {
    /// `zune-jpeg`.
    Fast,
    /// `jpeg-decoder`.
    Thorough,
}

/// Reads the pixels, as stored, with the header.
///
/// # Errors
/// Truncated, corrupt, of a kind that is not read, or of too many pixels.
pub(super) fn decode(bytes: &[u8], name: &Path) -> Result<(RgbImage, Header)> {
    let header = Header::read(bytes, name)?;
    check_pixels(header.width, header.height, name)?;
    header.check_kind(name)?;
    if !ends(bytes) {
        return Err(Format::Jpeg.truncated(name));
    }
    let pixels = match header.decoder() {
        Some(Decoder::Fast) => fast(bytes, name)?,
        Some(Decoder::Thorough) => thorough(bytes, name)?,
        None => {
            let sampling = header.sampling.iter().map(|[h, v]| format!("{h}x{v}"));
            let sampling = sampling.collect::<Vec<_>>().join(", ");
            let problem = format!("sampling {sampling} in several scans, a kind that is not read");
            return Err(Error::invalid(name, "JPEG", problem).with_hint(ANEW));
        }
    };
    let image = RgbImage::from_raw(header.width, header.height, pixels)
        .ok_or_else(|| Error::invalid(name, "JPEG", "decoded to a wrong number of bytes"))?;
    Ok((image, header))
}

fn fast(bytes: &[u8], name: &Path) -> Result<Vec<u8>> {
    // Headers are read leniently, as libjpeg does: stray bytes between segments are common.
    let options = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .set_strict_mode(false)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| error(&e, name))?;
    // Strict from here: otherwise a damaged scan becomes grey pixels without a word.
    decoder.set_options(decoder.options().set_strict_mode(true));
    decoder.decode().map_err(|e| error(&e, name))
}

fn thorough(bytes: &[u8], name: &Path) -> Result<Vec<u8>> {
    use jpeg_decoder::{Error as Problem, PixelFormat};
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let pixels = decoder.decode().map_err(|e| match e {
        Problem::Io(_) => Format::Jpeg.truncated(name),
        other => corrupt(name, &other.to_string()),
    })?;
    match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::RGB24) => Ok(pixels),
        Some(PixelFormat::L8) => Ok(pixels.iter().flat_map(|&v| [v; 3]).collect()),
        _ => Err(Error::invalid(name, "JPEG", "CMYK in separate scans, which is not read")
            .with_hint("write it anew, as with `magick FILE -colorspace sRGB NEW.jpg`")),
    }
}

/// True if the picture's end marker is there. What follows it does not matter.
fn ends(bytes: &[u8]) -> bool {
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

fn corrupt(name: &Path, problem: &str) -> Error {
    Error::invalid(name, "JPEG", format!("corrupt: {problem}"))
        .with_hint("copy or download the file again")
}

fn error(error: &DecodeErrors, name: &Path) -> Error {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => Format::Jpeg.truncated(name),
        DecodeErrors::Unsupported(scheme) => {
            Error::invalid(name, "JPEG", format!("unsupported kind: {scheme:?}"))
                .with_hint("save it again as a baseline or progressive JPEG")
        }
        other => corrupt(name, &other.to_string()),
    }
}
