//! Where the bytes of a storage or an array lie in a file, and how they are read: some are deflated.

use std::io::Read as _;

use flate2::{Crc, read::DeflateDecoder};
use rawzip::{FileReader, RangeReader, ReaderAt as _};

use super::value::Fault;

/// Bytes of a storage or an array in the file. They are known to lie inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredBytes {
    pub(super) start: u64,
    /// How many bytes of the file they take.
    pub(super) packed: u64,
    /// How many they are when inflated.
    pub(super) bytes: u64,
    pub(super) deflated: bool,
    pub(super) crc: Option<u32>,
    /// How many of the inflated bytes come before the values (a header of NumPy's), and are left out.
    pub(super) skipped: u64,
}

impl StoredBytes {
    pub(super) fn plain(start: u64, bytes: u64) -> Self {
        Self { start, packed: bytes, bytes, deflated: false, crc: None, skipped: 0 }
    }

    /// The same bytes without the first ones.
    pub(super) fn behind(self, skipped: u64) -> Self {
        Self { skipped, ..self }
    }

    /// The first `most` bytes, or all if there are fewer. The checksum is not looked at.
    pub(super) fn head(&self, file: &FileReader, most: u64) -> Result<Vec<u8>, Fault> {
        let packed = RangeReader::new(file, self.start..self.start + self.packed);
        let mut bytes = Vec::new();
        let read = if self.deflated {
            DeflateDecoder::new(packed).take(most).read_to_end(&mut bytes)
        } else {
            packed.take(most).read_to_end(&mut bytes)
        };
        read.map_err(|e| Fault::from(format!("could not be read: {e}")))?;
        Ok(bytes)
    }

    /// Reads all bytes, and compares them with the checksum if the file has one. They take no more memory
    /// than the file's length, or than the budget was charged for.
    pub(super) fn read(&self, file: &FileReader) -> Result<Vec<u8>, Fault> {
        let unreadable = |e: &dyn std::fmt::Display| Fault::from(format!("could not be read: {e}"));
        let mut bytes = Vec::new();
        if self.deflated {
            let packed = RangeReader::new(file, self.start..self.start + self.packed);
            // One more than it should be, to see what does not end.
            let mut unpacked = DeflateDecoder::new(packed).take(self.bytes + 1);
            bytes.reserve_exact(self.bytes as usize);
            unpacked.read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
        } else {
            bytes.resize(self.bytes as usize, 0);
            file.read_exact_at(&mut bytes, self.start).map_err(|e| unreadable(&e))?;
        }
        if bytes.len() as u64 != self.bytes {
            let problem = format!("unpacks to other than the {} bytes it should have", self.bytes);
            return Err(problem.into());
        }
        if let Some(expected) = self.crc {
            let mut crc = Crc::new();
            crc.update(&bytes);
            if crc.sum() != expected {
                let problem = format!("checksum {:08x}, expected {expected:08x}", crc.sum());
                return Err(problem.into());
            }
        }
        bytes.drain(..self.skipped as usize);
        Ok(bytes)
    }
}
