//! JPEG. Two decoders: `zune-jpeg`, which is fast, where its pixels are right, and `jpeg-decoder` for the
//! rest (see [`Header::decoder`]).

use std::{io::BufRead, path::Path};

use image::RgbImage;
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{FileFormat, check_pixels};
use crate::{Error, Result};

/// What the segments before the pixels say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Width in pixels, before any turn.
    pub(super) width: u32,
    /// Height in pixels, before any turn.
    pub(super) height: u32,
    /// The EXIF segment, from its TIFF header on.
    pub(super) exif: Option<Vec<u8>>,
    /// The frame's marker, `0xC0` to `0xCF`: how its pixels are coded.
    frame: u8,
    /// Bits of one sample of one component.
    precision: u8,
    /// Horizontal and vertical sampling of each component.
    sampling: Vec<[u8; 2]>,
    /// Components in the first scan.
    in_first_scan: u8,
    /// The number of each component.
    ids: Vec<u8>,
    /// Whether there is a JFIF segment.
    jfif: bool,
    /// What Adobe's segment says of the colours, if there is one.
    adobe: Option<u8>,
    /// Whether there are restart markers.
    restarts: bool,
}

/// The meaning of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    Grey,
    Rgb,
    Ycc,
    /// CMYK or YCCK, which nothing here tells apart.
    Four,
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
            Some(Err(error)) => Err(error.into()),
            None => Err(FileFormat::Jpeg.truncated(name)),
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
                0xE0 if body.starts_with(b"JFIF\0") => header.jfif = true,
                0xEE if body.starts_with(b"Adobe") => header.adobe = body.get(11).copied(),
                0xDD => header.restarts = body.iter().any(|&byte| byte != 0),
                0xDA => {
                    header.in_first_scan = body.first().copied().unwrap_or_default();
                    if header.sampling.is_empty() {
                        return Err(corrupt(name, "no frame header"));
                    }
                    return Ok(header);
                }
                _ => {}
            }
        }
    }

    fn take_frame(&mut self, marker: u8, body: &[u8]) -> Option<()> {
        let &[precision, h0, h1, w0, w1, count, ref components @ ..] = body else { return None };
        let (components, _) = components.as_chunks::<3>();
        self.ids = components.iter().map(|&[id, _, _]| id).collect();
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
        Err(not_read(
            name,
            match self.frame {
                0xC3 => "lossless coding",
                0xC5..=0xC7 | 0xCD..=0xCF => "hierarchical coding",
                0xC9..=0xCB => "arithmetic coding",
                _ if self.precision != 8 => "samples of other than 8 bits",
                _ if !matches!(self.sampling.len(), 1 | 3 | 4) => {
                    "a number of components other than 1, 3 or 4"
                }
                _ if self.height == 0 => "a height that is given after the pixels (DNL)",
                _ => return Ok(()),
            },
        ))
    }

    /// The meaning of the components, by libjpeg's rules.
    fn colours(&self) -> Colours {
        match (self.sampling.len(), self.adobe) {
            (1, _) => Colours::Grey,
            (3, _) if self.jfif => Colours::Ycc,
            (3, Some(0)) => Colours::Rgb,
            (3, None) if self.ids == *b"RGB" => Colours::Rgb,
            (3, _) => Colours::Ycc,
            _ => Colours::Four,
        }
    }

    /// The decoder that reads the pixels correctly, if there is one (tests/fixtures/images/make_jpegs.py
    /// has every kind). zune-jpeg 0.5.15 silently gives wrong pixels for a baseline file of several scans,
    /// if the first component is not sampled most finely, and for some colours. jpeg-decoder 0.3.2 does so
    /// for several scans whose sampling has halves of the finest.
    fn decoder(&self) -> Option<Decoder> {
        let one_scan = usize::from(self.in_first_scan) == self.sampling.len();
        let progressive = self.frame == 0xC2;
        let (mut no_halves, mut finest_first, mut no_thirds) = (true, true, true);
        for axis in [0, 1] {
            let factors = || self.sampling.iter().map(|factors| factors[axis]);
            let finest = factors().max();
            no_halves &= factors().all(|factor| factor == 1 || Some(factor) == finest);
            finest_first &= factors().next() == finest;
            no_thirds &= factors().all(|factor| factor != 3);
        }
        let colours = self.colours();
        // JFIF's colours are YCbCr, even if the file says something else. zune-jpeg believes the latter.
        let says_rgb = self.adobe == Some(0) || self.ids == *b"RGB";
        let contradicts = self.jfif && colours == Colours::Ycc && says_rgb;
        if no_halves && finest_first && no_thirds && (one_scan || progressive) && !contradicts {
            Some(Decoder::Zune)
        } else if colours != Colours::Four && (no_halves || (one_scan && !progressive)) {
            Some(Decoder::JpegDecoder)
        } else {
            None
        }
    }
}

enum Decoder {
    /// The faster one, `zune-jpeg`.
    Zune,
    JpegDecoder,
}

/// Reads the pixels, as stored, with the header.
///
/// # Errors
/// Truncated, corrupt, of a kind that is not read, or of too many pixels.
pub(super) fn decode(bytes: &[u8], name: &Path) -> Result<(RgbImage, Header)> {
    let header = Header::read(bytes, name)?;
    header.check_kind(name)?;
    check_pixels(header.width, header.height, name)?;
    check_scans(bytes, header.restarts, name)?;
    let pixels = match header.decoder() {
        Some(Decoder::Zune) => zune(bytes, name)?,
        Some(Decoder::JpegDecoder) => jpeg_decoder(bytes, header.colours(), name)?,
        None => {
            let sampling = header.sampling.iter().map(|[h, v]| format!("{h}x{v}"));
            let sampling = sampling.collect::<Vec<_>>().join(", ");
            return Err(not_read(name, &format!("components with the sampling {sampling}")));
        }
    };
    let image = RgbImage::from_raw(header.width, header.height, pixels)
        .ok_or_else(|| Error::invalid(name, "JPEG", "decoded to a wrong number of bytes"))?;
    Ok((image, header))
}

fn zune(bytes: &[u8], name: &Path) -> Result<Vec<u8>> {
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

fn jpeg_decoder(bytes: &[u8], colours: Colours, name: &Path) -> Result<Vec<u8>> {
    use ::jpeg_decoder::{ColorTransform, Decoder, Error as Problem};
    let mut decoder = Decoder::new(bytes);
    decoder.set_color_transform(match colours {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::Rgb => ColorTransform::RGB,
        Colours::Ycc => ColorTransform::YCbCr,
        Colours::Four => ColorTransform::Unknown,
    });
    let pixels = decoder.decode().map_err(|e| match e {
        Problem::Io(_) => FileFormat::Jpeg.truncated(name),
        Problem::Unsupported(what) => not_read(name, &format!("{what:?}")),
        other => corrupt(name, &other.to_string()),
    })?;
    Ok(match colours {
        Colours::Grey => pixels.iter().flat_map(|&v| [v; 3]).collect(),
        _ => pixels,
    })
}

/// Checks what the decoders do not: that the image's end marker is there (what follows it does not
/// matter), and that restart markers are in order (if not, all pixels after them are in a wrong place).
fn check_scans(bytes: &[u8], restarts: bool, name: &Path) -> Result<()> {
    const EOI: u8 = 0xD9;
    if bytes.ends_with(&[0xFF, EOI]) && !restarts {
        return Ok(());
    }
    // Walk the segments: thumbnails within them have end markers of their own.
    let (mut at, mut restart) = (2, 0);
    while let Some(offset) = bytes.get(at..).and_then(|rest| memchr::memchr(0xFF, rest)) {
        let marker = at + offset + 1;
        at = match bytes.get(marker) {
            Some(&EOI) => return Ok(()),
            Some(0xFF) => marker, // fill byte: the next 0xFF may be the marker's
            Some(&number @ 0xD0..=0xD7) => {
                if number != 0xD0 + restart {
                    return Err(corrupt(
                        name,
                        "restart markers are out of order: a part is missing",
                    ));
                }
                restart = (restart + 1) % 8;
                marker + 1
            }
            Some(0x00 | 0x01 | 0xD8) => marker + 1, // stuffed or without a body
            Some(0xDC) => {
                return Err(not_read(name, "a height that is given after the pixels (DNL)"));
            }
            Some(&kind) => match bytes.get(marker + 1..marker + 3) {
                Some(&[high, low]) => {
                    restart = if kind == 0xDA { 0 } else { restart };
                    marker + 1 + usize::from(high) * 256 + usize::from(low)
                }
                _ => break,
            },
            None => break,
        };
    }
    Err(FileFormat::Jpeg.truncated(name))
}

/// The error for a kind of JPEG that is not read. The file itself is in order.
fn not_read(name: &Path, what: &str) -> Error {
    Error::invalid(name, "JPEG", format!("{what}: this kind of JPEG is not supported")).with_hint(
        "write a new file with `jpegtran -copy all FILE > NEW.jpg`, or convert it to PNG",
    )
}

fn corrupt(name: &Path, problem: &str) -> Error {
    Error::invalid(name, "JPEG", format!("corrupt: {problem}"))
        .with_hint("copy or download the file again")
}

fn error(error: &DecodeErrors, name: &Path) -> Error {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => FileFormat::Jpeg.truncated(name),
        DecodeErrors::Unsupported(scheme) => not_read(name, &format!("{scheme:?}")),
        other => corrupt(name, &other.to_string()),
    }
}
