//! The bytes of a pickle, read one after the other and never beyond the end.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::value::Fault;

/// A file, or a part of one, read from its start.
pub(super) struct Input<R> {
    reader: BufReader<R>,
    pub(super) position: u64,
    pub(super) length: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, length: u64) -> Self {
        Self { reader: BufReader::new(reader), position: 0, length }
    }

    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Fault> {
        if count > self.length.saturating_sub(self.position) {
            return Err(self.cut_off());
        }
        // Not more than the file has, which is real.
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.reader.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.cut_off(),
            _ => Fault::from(format!("could not be read: {e}")),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn cut_off(&self) -> Fault {
        format!("ends at byte {} of the pickle, before it is complete", self.length).into()
    }

    /// An integer of `N` bytes, the lowest first.
    pub(super) fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        Ok(self.array::<N>()?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// The text up to the end of a line.
    pub(super) fn line(&mut self) -> Result<String, Fault> {
        let mut line = Vec::new();
        loop {
            match self.array::<1>()? {
                [b'\n'] => return text(line),
                _ if line.len() == 1024 => return Err("a line of more than 1024 bytes".into()),
                [byte] => line.push(byte),
            }
        }
    }
}

impl<R: Seek> Input<R> {
    pub(super) fn skip(&mut self, count: u64) -> Result<(), Fault> {
        self.position += count;
        self.reader
            .seek(SeekFrom::Start(self.position))
            .map_err(|e| Fault::from(format!("could not be read: {e}")))?;
        Ok(())
    }
}

pub(super) fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| "text that is not UTF-8".into())
}
