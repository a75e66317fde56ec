//! Cuts a file into the records of its long lists, a few megabytes at a time.
//!
//! LVIS's training file is 1.1 GB, nearly all of it polygons that only evaluation ever reads. The
//! file is therefore never held: a chunk is read, the records that are complete in it are handed
//! on as byte ranges, and the incomplete rest moves to the front of the next chunk. Only quotes
//! and braces are looked at here; whether a record is valid JSON is for its parser to say.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use super::TopLevel;
use crate::{
    error::{Error, Result},
    stand_in::{LOOKED_AT, stand_in},
};

/// A record longer than this is a missing quote or brace, not a record; reading on would take the
/// rest of the file into memory.
const LONGEST: usize = 64 << 20;

/// What to do about a file that stops in the middle.
const TRUNCATED: &str = "the file is probably truncated: compare its size with the original's and \
                         download or copy it again";

/// A JSON file whose top level is an object or a list, read front to back once.
pub(crate) struct JsonStream<R> {
    file: PathBuf,
    reader: R,
    /// What was read and is still of interest; `buffer[start..]` is unread.
    buffer: Vec<u8>,
    start: usize,
    /// Where `buffer[0]` is in the file.
    offset: u64,
    chunk: usize,
    /// Top-level keys so far, and where.
    keys: HashMap<String, u64>,
}

/// Some consecutive records of a list, complete.
pub(crate) struct Records<'a> {
    /// Position in the list of the first one.
    pub(crate) first: usize,
    /// Where `bytes[0]` is in the file.
    pub(crate) offset: u64,
    /// The bytes that `spans` index.
    pub(crate) bytes: &'a [u8],
    /// One per record, each an object from `{` to `}`.
    pub(crate) spans: &'a [Range<usize>],
}

/// What may follow at a place inside a list.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    RecordOrEnd,
    Record,
    CommaOrEnd,
}

impl<R: Read> JsonStream<R> {
    /// Reads `chunk` bytes at a time. `file` is for messages.
    pub(crate) fn new(file: &Path, reader: R, chunk: usize) -> Self {
        Self {
            file: file.to_owned(),
            reader,
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            chunk: chunk.max(1),
            keys: HashMap::new(),
        }
    }

    /// Looks at the beginning: before it, a list's first bracket or an object's, nothing but white space
    /// and a byte order mark may stand. Enters the object; a list is entered by [`Self::records`].
    pub(crate) fn open(&mut self, expected: &TopLevel) -> Result<()> {
        while self.unread().len() < LOOKED_AT && self.fill()? {}
        if let Some((what, hint)) = stand_in(self.unread()) {
            return Err(self.invalid("top level", format!("this is {what}")).with_hint(hint));
        }
        let unusable = match self.unread() {
            [] => Some(("the file is empty", TRUNCATED)),
            [0x1f, 0x8b, ..] => Some((
                "this is a gzip archive within a gzip archive",
                "unpack it once: gunzip FILE",
            )),
            [b'P', b'K', 3, 4, ..] => {
                Some(("this is a zip archive, not JSON", "unpack it: unzip FILE"))
            }
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
                Some(("this is UTF-32 text, not UTF-8", "save it as UTF-8"))
            }
            // With a mark, or without one: JSON begins with two characters of one byte.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, 1..=255, ..] => {
                Some(("this is UTF-16 text, not UTF-8", "save it as UTF-8"))
            }
            [b'B', b'Z', b'h', ..] => {
                Some(("this is a bzip2 archive, not JSON", "unpack it: bunzip2 FILE"))
            }
            [0xfd, b'7', b'z', b'X', ..] => {
                Some(("this is an xz archive, not JSON", "unpack it: unxz FILE"))
            }
            _ => None,
        };
        if let Some((problem, hint)) = unusable {
            return Err(self.invalid("top level", problem).with_hint(hint));
        }
        if self.unread().starts_with(b"\xef\xbb\xbf") {
            self.start += 3;
        }
        match self.peek()? {
            Some(bracket) if bracket == expected.bracket => {
                self.start += usize::from(bracket == b'{');
                Ok(())
            }
            None => Err(self.invalid("top level", "the file holds only white space")),
            Some(bracket) => {
                let error = self.unexpected("top level", expected.expected)?;
                let words = [&b"null"[..], b"true", b"false"];
                let is_value = matches!(bracket, b'"' | b'-' | b'0'..=b'9')
                    || words.iter().any(|word| self.unread().starts_with(word));
                Err(error.with_hint(match bracket {
                    b'{' | b'[' => expected.other,
                    _ if is_value => "the file holds a single value: is it another file?",
                    _ => "the file is not JSON",
                }))
            }
        }
    }

    /// Goes to the next top-level key; `None` after the last. The value must then be consumed,
    /// by [`Self::records`] or [`Self::skip_value`].
    pub(crate) fn next_key(&mut self) -> Result<Option<String>> {
        match self.peek()? {
            Some(b'}') => {
                self.start += 1;
                return self.end().map(|()| None);
            }
            Some(b',') if !self.keys.is_empty() => {
                self.start += 1;
                self.peek()?;
            }
            _ if self.keys.is_empty() => {}
            _ => return Err(self.unexpected("top level", "`,` or `}`")?),
        }
        if self.peek()? != Some(b'"') {
            return Err(self.unexpected("top level", "a key in double quotes")?);
        }
        let at = self.position();
        let length = loop {
            if let Some(length) = string_end(self.unread()) {
                break length;
            }
            if self.unread().len() > LONGEST || !self.fill()? {
                return Err(self.truncated("top level", "inside a key"));
            }
        };
        let text = &self.unread()[..length];
        let key: String = serde_json::from_slice(text).map_err(|e| {
            self.invalid("top level", format!("the key at byte {at} is not valid JSON: {e}"))
        })?;
        self.start += length;
        if self.peek()? != Some(b':') {
            return Err(self.unexpected(&key, "`:` after the key")?);
        }
        self.start += 1;
        if let Some(before) = self.keys.insert(key.clone(), at) {
            let problem = format!("occurs twice, at bytes {before} and {at}");
            return Err(self
                .invalid(&key, problem)
                .with_hint("keep one of them, or merge the two"));
        }
        Ok(Some(key))
    }

    /// After the last bracket nothing may follow.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => {
                let problem = format!("unexpected text at byte {}, after its end", self.position());
                Err(self
                    .invalid("top level", problem)
                    .with_hint("are two files joined in this one? one object or list is expected"))
            }
        }
    }

    /// Hands the records of the list at hand to `each`, in order, some at a time. `list` is its key,
    /// empty where the file is the list.
    pub(crate) fn records(
        &mut self,
        list: &str,
        mut each: impl FnMut(&Records<'_>) -> Result<()>,
    ) -> Result<()> {
        let whole = if list.is_empty() { "top level" } else { list };
        if self.peek()? != Some(b'[') {
            return Err(self.unexpected(whole, "a list of objects")?);
        }
        self.start += 1;
        let mut first = 0;
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut next = Next::RecordOrEnd;
        loop {
            let mut record_open = false;
            self.skip_space();
            match (next, self.unread().first()) {
                (_, None) => {}
                (Next::RecordOrEnd | Next::CommaOrEnd, Some(b']')) => {
                    self.hand_over(&mut first, &mut spans, &mut each)?;
                    self.start += 1;
                    return Ok(());
                }
                (Next::CommaOrEnd, Some(b',')) => {
                    self.start += 1;
                    next = Next::Record;
                    continue;
                }
                (Next::RecordOrEnd | Next::Record, Some(b'{')) => {
                    if let Some(length) = object_end(self.unread()) {
                        spans.push(self.start..self.start + length);
                        self.start += length;
                        next = Next::CommaOrEnd;
                        continue;
                    }
                    record_open = true;
                }
                (Next::CommaOrEnd, Some(_)) => {
                    // Records before it may hold the earlier, truer mistake.
                    self.hand_over(&mut first, &mut spans, &mut each)?;
                    let place = format!("{list}[{}]", first - 1);
                    return Err(self.unexpected(&place, "`,` or `]` after the record")?);
                }
                (Next::RecordOrEnd | Next::Record, Some(_)) => {
                    self.hand_over(&mut first, &mut spans, &mut each)?;
                    return Err(self.unexpected(&format!("{list}[{first}]"), "an object")?);
                }
            }
            // The chunk is used up. Reading on moves the bytes that the spans point into.
            self.hand_over(&mut first, &mut spans, &mut each)?;
            let place = format!("{list}[{first}]");
            if self.unread().len() > LONGEST {
                let at = self.position();
                let problem = format!("begins at byte {at} and has no end within 64 MiB");
                return Err(self
                    .invalid(&place, problem)
                    .with_hint("a quote or brace is missing in or before this record"));
            }
            let record_at = self.position();
            if !self.fill()? {
                return Err(if record_open {
                    self.truncated(
                        &place,
                        &format!("inside the record that begins at byte {record_at}"),
                    )
                } else {
                    self.truncated(whole, &format!("after {first} records, before the list's `]`"))
                });
            }
        }
    }

    fn hand_over(
        &self,
        first: &mut usize,
        spans: &mut Vec<Range<usize>>,
        each: &mut impl FnMut(&Records<'_>) -> Result<()>,
    ) -> Result<()> {
        if !spans.is_empty() {
            each(&Records { first: *first, offset: self.offset, bytes: &self.buffer, spans })?;
            *first += spans.len();
            spans.clear();
        }
        Ok(())
    }

    /// Passes over a value of any kind without keeping it.
    pub(crate) fn skip_value(&mut self, key: &str) -> Result<()> {
        self.value(key, &mut |_| ())
    }

    /// Gives `keep` the bytes of a value of any kind, in order.
    pub(crate) fn value(&mut self, key: &str, keep: &mut impl FnMut(u8)) -> Result<()> {
        if matches!(self.peek()?, None | Some(b',' | b'}' | b']' | b':')) {
            return Err(self.unexpected(key, "a value")?);
        }
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        loop {
            while let Some(&byte) = self.buffer.get(self.start) {
                if in_string {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_string = false,
                        _ => {}
                    }
                } else {
                    match byte {
                        b'"' => in_string = true,
                        b'[' | b'{' => depth += 1,
                        // The end of a number or word: not part of it.
                        b']' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => {
                            return Ok(());
                        }
                        b']' | b'}' => depth -= 1,
                        _ => {}
                    }
                }
                keep(byte);
                self.start += 1;
                if depth == 0 && !in_string && matches!(byte, b'"' | b']' | b'}') {
                    return Ok(());
                }
            }
            if !self.fill()? {
                return Err(self.truncated(key, "inside its value"));
            }
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn position(&self) -> u64 {
        self.offset + self.start as u64
    }

    /// Drops what was consumed and reads one more chunk; false at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..self.start);
        self.offset += self.start as u64;
        self.start = 0;
        // Doubling keeps a record of many chunks linear, although it is scanned from its start.
        let want = self.chunk.max(self.buffer.len());
        self.buffer.reserve_exact(want);
        let mut more = self.reader.by_ref().take(want as u64);
        let got = more.read_to_end(&mut self.buffer).map_err(|error| match error.kind() {
            // Only of what is packed.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => self
                .invalid("top level", format!("the gzip archive is damaged or cut off: {error}"))
                .with_hint(TRUNCATED),
            _ => error.into(),
        })?;
        Ok(got > 0)
    }

    fn skip_space(&mut self) {
        let space = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\n' | b'\r');
        self.start += self.unread().iter().take_while(space).count();
    }

    /// The next byte that is not white space, not consumed.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            self.skip_space();
            if let Some(&byte) = self.unread().first() {
                return Ok(Some(byte));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn invalid(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::invalid(&self.file, field, problem)
    }

    fn truncated(&self, field: &str, place: &str) -> Error {
        let end = self.offset + self.buffer.len() as u64;
        self.invalid(field, format!("the file ends at byte {end}, {place}")).with_hint(TRUNCATED)
    }

    /// The error that says what is here instead of what was expected.
    fn unexpected(&mut self, field: &str, expected: &str) -> Result<Error> {
        let Some(byte) = self.peek()? else {
            return Ok(self.truncated(field, &format!("where {expected} was expected")));
        };
        let got = match byte {
            b'{' => "an object".to_owned(),
            b'[' => "a list".to_owned(),
            b'"' => "a string".to_owned(),
            b'-' | b'0'..=b'9' => "a number".to_owned(),
            b'n' => "null".to_owned(),
            b't' | b'f' => "a boolean".to_owned(),
            b',' | b'}' | b']' | b':' => format!("`{}`", byte as char),
            _ => format!("`{}`", byte.escape_ascii()),
        };
        Ok(self
            .invalid(field, format!("expected {expected}, got {got} at byte {}", self.position())))
    }
}

/// Length of the object that `bytes` begin with, if its last brace is among them.
fn object_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        at += memchr::memchr3(b'"', b'{', b'}', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => at += string_end(&bytes[at..])?,
            b'{' => {
                depth += 1;
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
    }
}

/// Length of the string that `bytes` begin with, both quotes included.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
