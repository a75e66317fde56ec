//! Scalars and images for TensorBoard: its event files, written without TensorFlow.
//!
//! A file is a sequence of records (length, CRC of the length, bytes, CRC of the bytes: TensorFlow
//! 2.18, `tsl/lib/io/record_writer.cc`), each an `Event` message (`tensorflow/core/util/event.proto`).
//! The few fields needed are encoded by hand.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions};

use image::RgbImage;

use crate::{Result, draw};

/// TensorFlow checks records with CRC-32C (Castagnoli).
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// What the first record of every file says.
const VERSION: &str = "brain.Event:2";

/// Writes one event file. Each session of a run writes its own into the same folder, and
/// TensorBoard shows them as one run.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventWriter {
    /// A new event file in `folder`, which is made if need be. `wall_time` is in seconds since
    /// 1970.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn create(folder: &Path, wall_time: f64) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        // TensorBoard reads a run's files in order of their names, so the time comes first. Two
        // sessions in one second differ in their number.
        let name = format!("events.out.tfevents.{:010}.richsem", wall_time.max(0.0) as u64);
        let mut number = 0;
        let (path, file) = loop {
            let path = folder.join(format!("{name}.{number:03}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(e.into()),
            }
        };
        let mut writer = Self { path, out: BufWriter::new(file) };
        let mut event = Message::default();
        event.double(1, wall_time);
        event.bytes(3, VERSION.as_bytes());
        writer.record(&event.0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Like [`Self::create`], for a run that goes on from `step`. Earlier sessions may have gone on after the
    /// checkpoint: TensorBoard leaves out what they wrote at that step or later.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn resume(folder: &Path, wall_time: f64, step: u64) -> Result<Self> {
        const START: u64 = 1;
        let mut writer = Self::create(folder, wall_time)?;
        let mut session = Message::default();
        session.varint(1, START);
        let mut event = Message::default();
        event.double(1, wall_time);
        event.varint(2, step);
        event.bytes(7, &session.0);
        writer.record(&event.0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Path of the file that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes values at a step, `wall_time` in seconds since 1970. They reach the disk with
    /// [`Self::flush`], or when enough have come together.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f32)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value);
            summary.bytes(1, &entry.0);
        }
        self.summary(step, wall_time, &summary)
    }

    /// Notes an image at a step, as JPEG; `wall_time` and the disk as with [`Self::scalars`]. Images of one tag
    /// are shown with a slider over the steps.
    ///
    /// # Errors
    /// An image without pixels or too large for JPEG; if the file cannot be written.
    pub fn image(&mut self, step: u64, wall_time: f64, tag: &str, image: &RgbImage) -> Result<()> {
        const RGB: u64 = 3;
        let (width, height) = image.dimensions();
        let mut encoded = Message::default();
        encoded.varint(1, height.into());
        encoded.varint(2, width.into());
        encoded.varint(3, RGB);
        encoded.bytes(4, &draw::encode_jpeg(image)?);
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes());
        entry.bytes(4, &encoded.0);
        let mut summary = Message::default();
        summary.bytes(1, &entry.0);
        self.summary(step, wall_time, &summary)
    }

    fn summary(&mut self, step: u64, wall_time: f64, summary: &Message) -> Result<()> {
        let mut event = Message::default();
        event.double(1, wall_time);
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Hands everything to the operating system, for TensorBoard to see.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    fn record(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked_crc(&length).to_le_bytes())?;
        self.out.write_all(event)?;
        self.out.write_all(&masked_crc(event).to_le_bytes())?;
        Ok(())
    }
}

/// A CRC over data that holds CRCs is weak; TensorFlow rotates it and adds a constant.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer being written: fields by number.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The records of a file, framing and both CRCs checked.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs_err::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        let crc = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(masked_crc(&rest[..8]), crc(&rest[8..12]));
            let event = &rest[12..12 + length];
            assert_eq!(masked_crc(event), crc(&rest[12 + length..16 + length]));
            records.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        records
    }

    /// The CRC-32C of RFC 3720, B.4; the masked one of the Python package `tensorboard` 2.21.
    #[test]
    fn the_crc_is_tensorflows() {
        assert_eq!(CRC.checksum(&[0; 32]), 0x8a91_36aa);
        let bytes: Vec<u8> = (0..32).collect();
        assert_eq!(CRC.checksum(&bytes), 0x46dd_794e);
        assert_eq!(masked_crc(b"foo"), 0xfebe8a61);
    }

    /// The bytes that the Python package `tensorboard` 2.21 writes for the same events.
    #[test]
    fn events_are_encoded_as_protocol_buffers() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 1.5).unwrap();
        writer.scalars(300, 2.5, &[("loss/class", 0.5), ("é", -1.0)]).unwrap();
        writer.flush().unwrap();
        let records = records(writer.path());
        assert_eq!(records.len(), 2);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&records[0]), "09000000000000f83f1a0d627261696e2e4576656e743a32");
        assert_eq!(
            hex(&records[1]),
            "09000000000000044010ac022a1e0a110a0a6c6f73732f636c617373150000003f0a090a02c3a9150000\
             80bf"
        );
    }

    /// Fields by number, in order: what a varint is, or the bytes of a message. Written apart from the encoder.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut fields = Vec::new();
        while let Some((&key, rest)) = bytes.split_first() {
            bytes = rest;
            let length = match key & 7 {
                0 => {
                    fields.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = bytes.split_at(length);
            fields.push((key >> 3, value.to_vec()));
            bytes = rest;
        }
        fields
    }

    /// Numbers of the fields as in TensorFlow's `summary.proto`: `Summary.value` 1, `Value.tag` 1, `Value.image`
    /// 4, `Image.height` 1, `width` 2, `colorspace` 3, `encoded_image_string` 4.
    #[test]
    fn an_image_is_a_jpeg_with_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 1.5).unwrap();
        let image = RgbImage::from_pixel(300, 20, image::Rgb([200, 40, 90]));
        writer.image(7, 2.5, "eval_images/a", &image).unwrap();
        assert!(writer.image(7, 2.5, "none", &RgbImage::new(0, 0)).is_err());
        writer.flush().unwrap();
        let event = fields(&records(writer.path())[1]);
        assert_eq!(event[1], (2, 7u64.to_le_bytes().to_vec()));
        let value = fields(&fields(&event[2].1)[0].1);
        assert_eq!((event[2].0, value[0].clone()), (5, (1, b"eval_images/a".to_vec())));
        let encoded = fields(&value[1].1);
        let number = |at: usize| u64::from_le_bytes(encoded[at].1[..].try_into().unwrap());
        assert_eq!((value[1].0, [number(0), number(1), number(2)]), (4, [20, 300, 3]));
        let decoded = image::load_from_memory(&encoded[3].1).unwrap().to_rgb8();
        assert_eq!(decoded.dimensions(), (300, 20));
        let pixel = decoded.get_pixel(150, 10).0;
        assert!(pixel.iter().zip([200, 40, 90]).all(|(a, b)| a.abs_diff(b) < 8), "{pixel:?}");
    }

    #[test]
    fn each_session_writes_its_own_file_in_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("run/events");
        let mut paths = Vec::new();
        for _ in 0..3 {
            paths.push(EventWriter::create(&below, 1_700_000_000.25).unwrap().path().to_owned());
        }
        let resumed = EventWriter::resume(&below, 1_700_000_001.0, 40).unwrap();
        paths.push(resumed.path().to_owned());
        assert!(paths.is_sorted());
        assert_eq!(fs_err::read_dir(&below).unwrap().count(), 4);
        assert!(paths[0].to_str().unwrap().contains("tfevents.1700000000."));
        let start = records(resumed.path()).pop().unwrap();
        assert_eq!(start[9..], [0x10, 40, 0x3a, 2, 0x08, 1], "step 40, session started");
    }

    #[test]
    fn a_file_in_the_folders_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        fs_err::write(&file, "").unwrap();
        assert!(EventWriter::create(&file, 0.0).unwrap_err().to_string().contains("events"));
    }
}
