//! The members of a tar archive, one header after the other: what POSIX's pax, ustar and GNU tar write.
//!
//! Of the crate `tar` only the fields of a header are used: its own walk takes several times as long a member,
//! and archives of small files are walked a million members at a time.

use std::{borrow::Cow, io, os::unix::fs::FileExt as _};

use ::tar::{EntryType, Header, PaxExtensions};

use super::region::{BLOCK, Region, after};

/// Bytes read at a time where headers lie far from each other: a header, and a long name before it.
const FEW: usize = 2048;

/// Bytes read at a time where headers lie near each other.
const MANY: usize = 1 << 16;

/// Headers are near if no more bytes are between them: what is passed over is copied in vain.
const NEAR: u64 = 4096;

/// Longest name, or list of records, that is believed.
const LONGEST: u64 = 1 << 24;

/// The byte of a block of pieces that says whether another follows.
const IS_EXTENDED: usize = 504;

/// A member of an archive.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) kind: EntryType,
    /// As it is written, with what is not UTF-8 replaced.
    pub(super) name: Cow<'a, str>,
    /// What a link leads to, as it is written.
    pub(super) target: Option<String>,
    /// Whether its contents are not all there.
    pub(super) sparse: bool,
    /// Where its contents begin in the file.
    pub(super) offset: u64,
    /// Their length in the archive.
    pub(super) length: u64,
}

/// What a header before a member's own says of it.
#[derive(Default)]
struct Extensions {
    /// GNU's, with a zero at the end.
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

/// The members of an archive in their order.
pub(super) struct Members<'a> {
    region: Region<'a>,
    /// Where the next header is.
    at: u64,
    /// Bytes of the file, and where they begin.
    bytes: Vec<u8>,
    from: u64,
    /// Where the last block was that was asked for.
    last: u64,
}

impl<'a> Members<'a> {
    /// From a header at `at` on, a position in the file.
    pub(super) fn new(region: Region<'a>, at: u64) -> Self {
        Self { region, at, bytes: Vec::new(), from: at, last: at }
    }

    /// The next one; none at the end mark, and where the archive ends without.
    ///
    /// # Errors
    /// The file cannot be read; anything else that is no header, without the system's number.
    pub(super) fn next(&mut self) -> io::Result<Option<Member<'_>>> {
        let mut extensions = Extensions::default();
        loop {
            let at = self.at;
            let block = self.block(at)?.filter(|block| block.iter().any(|byte| *byte != 0));
            let Some(block) = block else {
                return if extensions.any() { Err(damaged()) } else { Ok(None) };
            };
            let header = Header::from_byte_slice(block);
            if header.cksum()? != checksum(block) {
                return Err(damaged());
            }
            let (kind, length) = (header.entry_type(), header.entry_size()?);
            let known = header.as_gnu().is_some() || header.as_ustar().is_some();
            let of = match kind {
                EntryType::GNULongName if known => &mut extensions.long_name,
                EntryType::GNULongLink if known => &mut extensions.long_target,
                EntryType::XHeader if known => &mut extensions.records,
                _ => return self.member(at, &extensions).map(Some),
            };
            if of.is_some() || length > LONGEST {
                return Err(damaged());
            }
            *of = Some(self.contents(at + BLOCK, length)?);
            self.at = after(at + BLOCK, length);
        }
    }

    /// The member whose header is at `at`.
    fn member(&mut self, at: u64, extensions: &Extensions) -> io::Result<Member<'_>> {
        let header = Header::from_byte_slice(self.block(at)?.ok_or_else(damaged)?);
        let (kind, size) = (header.entry_type(), header.entry_size()?);
        let mut offset = at + BLOCK;
        if kind.is_gnu_sparse() {
            let mut more = header.as_gnu().ok_or_else(damaged)?.is_extended();
            // Where the pieces of a sparse file do not fit into its header, blocks follow it.
            while more {
                more = self.block(offset)?.ok_or_else(damaged)?[IS_EXTENDED] == 1;
                offset += BLOCK;
            }
        }
        let length = extensions.record(b"size").and_then(number).unwrap_or(size);
        offset.checked_add(length).ok_or_else(damaged)?;
        self.at = after(offset, length);
        let header = Header::from_byte_slice(self.block(at)?.ok_or_else(damaged)?);
        let is_link = kind.is_hard_link() || kind.is_symlink();
        let target = extensions.target().or_else(|| Some(lossy(&header.link_name_bytes()?)));
        Ok(Member {
            kind,
            name: extensions.name().map_or_else(|| text(header.path_bytes()), Cow::Owned),
            target: target.filter(|_| is_link),
            sparse: kind.is_gnu_sparse() || extensions.is_sparse(),
            offset,
            length,
        })
    }

    /// The block at a position; none where the archive ends.
    fn block(&mut self, at: u64) -> io::Result<Option<&[u8]>> {
        let inside = |from: u64, bytes: &[u8]| {
            at >= from && at.saturating_add(BLOCK) <= from + bytes.len() as u64
        };
        if !inside(self.from, &self.bytes) {
            let near = at >= self.last && at - self.last <= NEAR;
            let left = self.region.end.saturating_sub(at);
            let wanted = left.min(if near { MANY } else { FEW } as u64) as usize;
            self.bytes.resize(wanted, 0);
            self.from = at;
            let read = fill(&self.region, &mut self.bytes, at)?;
            self.bytes.truncate(read);
            if self.bytes.is_empty() {
                return Ok(None);
            }
            if (self.bytes.len() as u64) < BLOCK {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.last = at;
        let start = (at - self.from) as usize;
        Ok(self.bytes.get(start..start + BLOCK as usize))
    }

    /// The contents of a member, whole.
    fn contents(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let left = self.region.end.saturating_sub(at);
        let mut bytes = vec![0; length.min(left) as usize];
        let read = fill(&self.region, &mut bytes, at)?;
        if read as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Extensions {
    fn any(&self) -> bool {
        self.long_name.is_some() || self.long_target.is_some() || self.records.is_some()
    }

    /// The value of a record of that key.
    fn record(&self, key: &[u8]) -> Option<&[u8]> {
        let records = PaxExtensions::new(self.records.as_deref()?);
        let mut records = records.flatten();
        records.find(|record| record.key_bytes() == key).map(|record| record.value_bytes())
    }

    fn name(&self) -> Option<String> {
        let name = self.long_name.as_deref().map(until_zero);
        name.or_else(|| self.record(b"path")).map(lossy)
    }

    fn target(&self) -> Option<String> {
        let target = self.long_target.as_deref().map(until_zero);
        target.or_else(|| self.record(b"linkpath")).map(lossy)
    }

    /// Sparse as PAX writes it: the contents begin with a map.
    fn is_sparse(&self) -> bool {
        let Some(records) = self.records.as_deref() else { return false };
        let mut records = PaxExtensions::new(records).flatten();
        records.any(|record| record.key_bytes().starts_with(b"GNU.sparse."))
    }
}

/// The checksum of a header: with spaces in the place of the checksum.
pub(super) fn checksum(block: &[u8]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// Reads until the bytes are full or the file ends. Nothing moves in the file, so that any number of threads may
/// read it.
fn fill(region: &Region<'_>, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        // The file itself: errors of its wrapper have lost the system's number.
        match region.file.file().read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(&[0]).unwrap_or(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A name as text, without a copy where it is UTF-8 in one piece.
fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(lossy(&bytes)),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}
