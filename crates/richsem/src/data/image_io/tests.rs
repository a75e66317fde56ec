//! Pixels against Pillow, and what is no image.
#![allow(clippy::unwrap_used)]

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    fs_err::read(folder.join(name)).unwrap()
}

/// Mean and largest absolute difference from what Pillow reads (`fixtures/images/make.py`).
fn difference(name: &str) -> (f64, u8) {
    let got = decode_bytes(&fixture(name), Path::new(name), Orientation::Stored).unwrap().image;
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

/// Every sampling, order of scans and spacing of restart markers: Pillow's pixels, or refused by name.
#[test]
fn jpegs_of_every_kind_are_pillows_or_refused() {
    let packed = fixture("jpeg_kinds.tar.gz");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
    let mut files = std::collections::BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(name, bytes);
    }
    let (mut right, mut refused) = (0, 0);
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".jpg")) {
        let sampling = name.split('_').next().unwrap();
        match (decode_bytes(bytes, Path::new(name), Orientation::Exif), sampling) {
            (Ok(_), "other") => panic!("{name} is of a kind that is not read"),
            (Ok(Decoded { image, .. }), _) => {
                let expected = &files[&format!("{sampling}.rgb")];
                assert_eq!(image.as_raw().len(), expected.len(), "{name}");
                let apart = image.as_raw().iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
                let mean = apart.clone().map(f64::from).sum::<f64>() / expected.len() as f64;
                let most = apart.max().unwrap();
                assert!(mean <= 0.5 && most <= 6, "{name}: mean {mean}, max {most}");
                right += 1;
            }
            (Err(error), _) => {
                let text = error.to_string();
                assert!(text.contains("this kind of JPEG is not supported"), "{name}: {text}");
                assert!(!text.contains("corrupt"), "{name}: {text}");
                refused += 1;
            }
        }
    }
    // Refused: 5 of other kinds, and several scans whose sampling has halves of the finest.
    assert_eq!((right, refused), (504, 56));
}

/// Which colours three components are: libjpeg's rules, and pixels that show it.
#[test]
fn colours_are_told_as_libjpeg_tells_them() {
    // YCbCr of JFIF, of one scan and of three.
    let packed = fixture("jpeg_kinds.tar.gz");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
    let of_kind = |name: &str| {
        name == "1x1-1x1-1x1_together_none.jpg" || name == "1x1-1x1-1x1_apart_none.jpg"
    };
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        if !of_kind(&name) {
            continue;
        }
        let mut jfif = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut jfif).unwrap();
        let read =
            |bytes: &[u8]| decode_bytes(bytes, Path::new(&name), Orientation::Exif).unwrap().image;
        let (ycc, after) = (read(&jfif), 2 + 18);
        let adobe = |transform: u8| {
            let mut segment = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0".to_vec();
            segment.push(transform);
            segment
        };
        let with = |before: &[u8], jfif_too: bool| {
            let from = if jfif_too { 2 } else { after };
            [&jfif[..2], before, &jfif[from..]].concat()
        };
        let renamed = |bytes: Vec<u8>| {
            let mut bytes = bytes;
            let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
            for (i, letter) in b"RGB".iter().enumerate() {
                bytes[frame + 10 + 3 * i] = *letter;
            }
            let scans: Vec<_> = bytes
                .windows(2)
                .enumerate()
                .filter(|(_, w)| *w == [0xFF, 0xDA])
                .map(|(i, _)| i)
                .collect();
            for scan in scans {
                for i in 0..usize::from(bytes[scan + 4]) {
                    let at = scan + 5 + 2 * i;
                    bytes[at] = b"RGB"[usize::from(bytes[at]) - 1];
                }
            }
            bytes
        };
        assert_eq!(&jfif[6..10], b"JFIF");
        // Its components as they are.
        let rgb = read(&with(&adobe(0), false));
        assert_ne!(rgb, ycc, "{name}");
        for (what, bytes, expected) in [
            ("nothing", with(b"", false), &ycc),
            ("Adobe's 1", with(&adobe(1), false), &ycc),
            ("JFIF and Adobe's 0", with(&adobe(0), true), &ycc),
            ("JFIF and R, G, B", renamed(jfif.clone()), &ycc),
            ("R, G, B", renamed(with(b"", false)), &rgb),
        ] {
            let got = read(&bytes);
            let apart = got.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(apart <= 4, "{name}, {what}: {apart}");
        }
    }
}

/// A JFIF segment before Adobe's CMYK, as some programs write it, says nothing of the colours.
#[test]
fn cmyk_stays_cmyk_behind_jfif() {
    for name in ["cmyk.jpg", "ycck.jpg"] {
        let plain = fixture(name);
        let jfif = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0";
        let both = [&plain[..2], &jfif[..], &plain[2..]].concat();
        let read =
            |bytes: &[u8]| decode_bytes(bytes, Path::new(name), Orientation::Exif).unwrap().image;
        assert_eq!(read(&both), read(&plain), "{name}");
    }
}

#[test]
fn a_missing_part_between_restart_markers_is_an_error() {
    let whole = fixture("restart.jpg");
    let at = |number: u8| whole.windows(2).position(|w| w == [0xFF, 0xD0 + number]).unwrap();
    let cut = [&whole[..at(0)], &whole[at(1)..]].concat();
    let text = decode_bytes(&cut, Path::new("a.jpg"), Orientation::Exif).unwrap_err().to_string();
    assert!(text.contains("a part is missing"), "{text}");
}

/// An image with an EXIF orientation.
fn with_exif(image: &RgbImage, exif: u8, format: &str) -> Vec<u8> {
    use image::{ImageEncoder, codecs};
    fn write(mut encoder: impl ImageEncoder, image: &RgbImage, exif: u8) {
        let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        tiff.extend([exif, 0, 0, 0, 0, 0, 0, 0]);
        encoder.set_exif_metadata(tiff).unwrap();
        let colour = image::ExtendedColorType::Rgb8;
        encoder.write_image(image, image.width(), image.height(), colour).unwrap();
    }
    let mut bytes = Vec::new();
    match format {
        "jpg" => {
            write(codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 98), image, exif);
        }
        "png" => write(codecs::png::PngEncoder::new(&mut bytes), image, exif),
        _ => write(codecs::webp::WebPEncoder::new_lossless(&mut bytes), image, exif),
    }
    bytes
}

pub(crate) fn jpeg_with_exif(image: &RgbImage, exif: u8) -> Vec<u8> {
    with_exif(image, exif, "jpg")
}

/// An image of three colours that every turn moves elsewhere, as 8 files that say how to turn it back.
#[test]
fn every_orientation_is_turned_as_viewers_do() {
    let upright = image::RgbImage::from_fn(24, 16, |x, y| match (x < 8, y < 8) {
        (true, true) => image::Rgb([250, 0, 0]),
        (false, true) => image::Rgb([0, 250, 0]),
        _ => image::Rgb([0, 0, 250]),
    });
    let upright = DynamicImage::ImageRgb8(upright);
    for exif in 1..=8u8 {
        // As the camera held so stores it.
        let stored = match exif {
            1 => upright.clone(),
            2 => upright.fliph(),
            3 => upright.rotate180(),
            4 => upright.flipv(),
            5 => upright.rotate90().fliph(),
            6 => upright.rotate270(),
            7 => upright.rotate270().fliph(),
            _ => upright.rotate90(),
        };
        for format in ["jpg", "png", "webp"] {
            let bytes = with_exif(&stored.to_rgb8(), exif, format);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format!("a.{format}"));
            fs_err::write(&path, bytes).unwrap();
            for (orientation, expected) in
                [(Orientation::Exif, &upright), (Orientation::Stored, &stored)]
            {
                let got = decode(&path, orientation).unwrap();
                let what = format!("{exif} {format} {orientation:?}");
                assert_eq!(got.exif, exif, "{what}");
                assert_eq!(got.image.dimensions(), (expected.width(), expected.height()), "{what}");
                let apart = got.image.iter().zip(expected.as_bytes()).map(|(a, b)| a.abs_diff(*b));
                let mean = apart.map(f64::from).sum::<f64>() / got.image.len() as f64;
                assert!(mean < 3.0, "{what}: {mean}");
                let [height, width] = size(&path, orientation).unwrap();
                assert_eq!((width, height), got.image.dimensions(), "{what}");
            }
        }
    }
}

/// As some cameras write it: not EXIF's SHORT, but a LONG, which viewers take.
#[test]
fn an_orientation_that_is_a_long_turns_the_image() {
    let stored = image::RgbImage::new(24, 16);
    let folder = tempfile::tempdir().unwrap();
    for format in ["jpg", "png", "webp"] {
        let mut bytes = with_exif(&stored, 6, format);
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, 6];
        let at = bytes.windows(9).position(|w| w == entry).unwrap();
        bytes[at + 2] = 4;
        if format == "png" {
            // Its checksum stands behind the segment: length, name, then from `II` on 26 bytes.
            let start = at - 10;
            let checksum = crc32(&bytes[start - 4..start + 26]).to_be_bytes();
            bytes[start + 26..start + 30].copy_from_slice(&checksum);
        }
        let path = folder.path().join(format!("a.{format}"));
        fs_err::write(&path, &bytes).unwrap();
        let got = decode(&path, Orientation::Exif).unwrap();
        assert_eq!((got.exif, got.image.dimensions()), (6, (16, 24)), "{format}");
        assert_eq!(size(&path, Orientation::Exif).unwrap(), [24, 16], "{format}");
        assert_eq!(size(&path, Orientation::Stored).unwrap(), [16, 24], "{format}");
    }
}

/// Pixels of the formats that lose nothing; animations give their first frame.
#[test]
fn other_formats_are_read() {
    let image = image::RgbImage::from_fn(21, 13, |x, y| {
        image::Rgb([(x / 7 * 80) as u8, (y / 5 * 80) as u8, 40])
    });
    for format in [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif] {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(image.clone()).write_to(&mut bytes, format).unwrap();
        let mut bytes = bytes.into_inner();
        let name = Path::new("a.image");
        let got = decode_bytes(&bytes, name, Orientation::Exif).unwrap().image;
        assert_eq!(got, image, "{format:?}");
        bytes.truncate(bytes.len() / 2);
        let text = decode_bytes(&bytes, name, Orientation::Exif).unwrap_err().to_string();
        assert!(text.contains("a.image: ") && text.contains("hint: "), "{format:?}: {text}");
    }
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for frame in [image.clone(), image::RgbImage::new(21, 13)] {
        let frame = DynamicImage::ImageRgb8(frame).into_rgba8();
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    assert_eq!(decode_bytes(&bytes, Path::new("a.gif"), Orientation::Exif).unwrap().image, image);
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
        assert_eq!(size(&path, Orientation::Exif).unwrap(), expected, "{name}");
        assert!(decode(&path, Orientation::Exif).is_err(), "{name}");
    }
}

#[test]
fn the_extension_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.jpg");
    fs_err::write(&path, fixture("rgb.png")).unwrap();
    assert_eq!(decode(&path, Orientation::Exif).unwrap().image.dimensions(), (37, 29));
}

#[test]
fn bytes_after_the_end_marker_are_harmless_and_before_it_none_may_lack() {
    let whole = fixture("baseline_420.jpg");
    let name = Path::new("a.jpg");
    let expected = decode_bytes(&whole, name, Orientation::Exif).unwrap().image;
    let mut longer = whole.clone();
    longer.extend_from_slice(b"appended \xFF\xD8 rubbish");
    assert_eq!(decode_bytes(&longer, name, Orientation::Exif).unwrap().image, expected);
    for file in ["baseline_420.jpg", "progressive.jpg", "exif_orientation_6.jpg"] {
        let whole = fixture(file);
        for length in 2..whole.len() {
            let text =
                decode_bytes(&whole[..length], name, Orientation::Exif).unwrap_err().to_string();
            assert!(text.starts_with("a.jpg: "), "{text}");
        }
        let text = decode_bytes(&whole[..whole.len() - 1], name, Orientation::Exif)
            .unwrap_err()
            .to_string();
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
        let text =
            decode_bytes(&bytes, Path::new("a.jpg"), Orientation::Exif).unwrap_err().to_string();
        assert!(text.contains("a.jpg: JPEG: corrupt"), "{text}");
    }
}

#[test]
fn truncated_png_is_an_error() {
    let whole = fixture("rgb.png");
    for length in [8, 20, 60, whole.len() / 2, whole.len() - 40] {
        let text = decode_bytes(&whole[..length], Path::new("a.png"), Orientation::Exif)
            .unwrap_err()
            .to_string();
        assert!(text.contains("truncated"), "{length}: {text}");
    }
}

#[test]
fn what_is_not_a_image_is_named() {
    let cases: [(&[u8], &str); 9] = [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "got HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "got JPEG 2000"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"DDS \x7c\0\0\0", "Dds"),
        (b"hello", "68 65 6c 6c 6f"),
    ];
    for (bytes, expected) in cases {
        let text =
            decode_bytes(bytes, Path::new("dir/x.jpg"), Orientation::Exif).unwrap_err().to_string();
        assert!(text.starts_with("dir/x.jpg: image: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn bombs_are_refused_before_they_are_allocated() {
    // A JPEG's frame header says 65,535 x 65,535.
    let mut bytes = fixture("baseline_444.jpg");
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].fill(0xFF);
    let text = decode_bytes(&bytes, Path::new("b.jpg"), Orientation::Exif).unwrap_err().to_string();
    assert!(text.contains("65535 x 65535"), "{text}");
    // A PNG's header says 100,000 x 100,000 (its checksum made to fit).
    let mut bytes = fixture("rgb.png");
    bytes[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&100_000u32.to_be_bytes());
    let checksum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&checksum);
    let text = decode_bytes(&bytes, Path::new("b.png"), Orientation::Exif).unwrap_err().to_string();
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
    for name in ["baseline_420.jpg", "progressive.jpg", "restart.jpg", "cmyk.jpg", "rgb16.png"] {
        let whole = fixture(name);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..random.between(1, 4) {
                let at = random.below(bytes.len());
                bytes[at] = random.bits() as u8;
            }
            // Whether it is still an image is not the question here.
            let _ = decode_bytes(&bytes, Path::new(name), Orientation::Exif);
        }
    }
}
