//! Files of several images: animations and documents. The first one is read.

/// Whether a file has more images than the first one. What is cut off or damaged is not seen: decoding tells.
pub(in crate::data) fn are_several(bytes: &[u8]) -> bool {
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => gif(bytes).is_some(),
        [0x89, b'P', b'N', b'G', ..] => png(bytes).unwrap_or(false),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            b'V',
            b'P',
            b'8',
            b'X',
            ..,
        ] => bytes.get(20).is_some_and(|flags| flags & 0x02 != 0),
        [b'I', b'I', 42, 0, ..] => {
            tiff(bytes, u16::from_le_bytes, u32::from_le_bytes).unwrap_or(false)
        }
        [b'M', b'M', 0, 42, ..] => {
            tiff(bytes, u16::from_be_bytes, u32::from_be_bytes).unwrap_or(false)
        }
        _ => false,
    }
}

/// Something if there is a second image.
fn gif(bytes: &[u8]) -> Option<()> {
    // A table of colours, whose size the flags have.
    let table = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut images = 0;
    loop {
        match bytes.get(at)? {
            0x21 => at += 2,
            0x2c => {
                images += 1;
                if images == 2 {
                    return Some(());
                }
                at += 11 + table(*bytes.get(at + 9)?);
            }
            _ => return None,
        }
        // Blocks with their lengths, up to one of none.
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// Whether the chunk that animations have, before the pixels, says more than one image.
fn png(bytes: &[u8]) -> Option<bool> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut at = 8;
    loop {
        match bytes.get(at + 4..at + 8)? {
            b"acTL" => return Some(word(at + 8)? > 1),
            b"IDAT" | b"IEND" => return Some(false),
            _ => at = at.checked_add(12)?.checked_add(word(at)? as usize)?,
        }
    }
}

/// Whether the first directory names a second one.
fn tiff(bytes: &[u8], short: fn([u8; 2]) -> u16, long: fn([u8; 4]) -> u32) -> Option<bool> {
    let word = |at: usize| Some(long(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let first = word(4)? as usize;
    let count = short(bytes.get(first..first.checked_add(2)?)?.try_into().ok()?);
    Some(word(first + 2 + 12 * usize::from(count))? != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use image::{Delay, Frame, ImageFormat, RgbaImage, codecs::gif::GifEncoder};

    use super::are_several;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(9, 7).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn gif(frames: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = |i: usize| {
            let shade = image::Rgba([i as u8 * 90, 5, 5, 255]);
            Frame::from_parts(
                RgbaImage::from_pixel(9, 7, shade),
                0,
                0,
                Delay::from_numer_denom_ms(9, 1),
            )
        };
        GifEncoder::new(&mut bytes).encode_frames((0..frames).map(frame)).unwrap();
        bytes
    }

    #[test]
    fn files_of_several_images_are_seen_and_others_are_not() {
        use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
        for format in [Bmp, Gif, Jpeg, Png, Tiff, WebP] {
            assert!(!are_several(&encoded(format)), "{format:?}");
        }
        assert!(are_several(&gif(2)) && are_several(&gif(3)) && !are_several(&gif(1)));
        // The chunk of an animation behind the header's 25 bytes.
        let mut png = encoded(Png);
        png.splice(33..33, *b"\0\0\0\x08acTL\0\0\0\x02\0\0\0\0CRC.");
        assert!(are_several(&png));
        let mut webp = b"RIFF....WEBPVP8X\x0a\0\0\0\x02\0\0\0".to_vec();
        assert!(are_several(&webp));
        webp[20] = 0x10;
        assert!(!are_several(&webp));
        let mut tiff = encoded(Tiff);
        let first = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
        let next = first + 2 + 12 * usize::from(tiff[first]);
        tiff[next] = 8;
        assert!(are_several(&tiff));
        // Cut off anywhere: no panic.
        for bytes in [gif(2), png, tiff] {
            let seen = (0..bytes.len()).filter(|&end| are_several(&bytes[..end])).count();
            assert!(seen < bytes.len());
        }
    }
}
