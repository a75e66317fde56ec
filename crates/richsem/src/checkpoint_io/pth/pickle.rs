//! Pickle's stack machine, for the instructions that `torch.save` and TorchScript write (protocols
//! 2 to 5, and those that Python 2 wrote): <https://docs.python.org/3/library/pickletools.html>.
//!
//! Python's own machine calls whatever functions a file names. This one calls none: the few
//! globals of [`super::globals`] stand for what they would make, and all others are refused.

use std::{
    collections::HashMap,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use super::{
    arrays, globals,
    value::{Fault, Heap, Node, Value},
};
use crate::error::Result;

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

    fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        Ok(self.array::<N>()?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// What precedes a line's end.
    fn line(&mut self) -> Result<String, Fault> {
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

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| "text that is not UTF-8".into())
}

/// Text as Python 2 wrote it: any bytes.
fn old_text(bytes: Vec<u8>) -> Node {
    match String::from_utf8(bytes) {
        Ok(text) => Node::Old(text.into()),
        Err(e) => {
            let text: String = e.into_bytes().into_iter().map(char::from).collect();
            Node::Str(text.into())
        }
    }
}

struct Machine<'a, R> {
    input: &'a mut Input<R>,
    heap: &'a mut Heap,
    /// Whether classes of TorchScript may come.
    script: bool,
    stack: Vec<Value>,
    /// Where in the stack the marks lie.
    marks: Vec<usize>,
    /// How long each of the two was at most, which is what was charged for.
    high: [usize; 2],
    memo: HashMap<u32, Value>,
    by_key: HashMap<String, u32>,
}

/// Reads one pickle and leaves `input` behind it.
///
/// # Errors
/// A file that is cut off, damaged, or asks for a global that is not read; the field is the path of
/// keys that led there.
pub(super) fn read<R: Read>(
    input: &mut Input<R>,
    heap: &mut Heap,
    script: bool,
    path: &Path,
) -> Result<Value> {
    let mut machine = Machine {
        input,
        heap,
        script,
        stack: Vec::new(),
        marks: Vec::new(),
        high: [0; 2],
        memo: HashMap::new(),
        by_key: HashMap::new(),
    };
    loop {
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok(value),
            Err(fault) => return Err(fault.at(path, &machine.place())),
        }
    }
}

impl<R: Read> Machine<'_, R> {
    /// One instruction; the result, if it was the last.
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        let [code] = self.input.array()?;
        let value = match code {
            // PROTO, FRAME
            0x80 => {
                let [version] = self.input.array()?;
                if version > 5 {
                    return Err(format!("pickle protocol {version}, expected 2 to 5").into());
                }
                return Ok(None);
            }
            0x95 => {
                self.input.array::<8>()?;
                return Ok(None);
            }
            b'.' => {
                let value = self.pop()?;
                return Ok(Some(value));
            }
            b'(' => {
                self.grow(1, self.marks.len() + 1)?;
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            // POP, POP_MARK, DUP
            b'0' => {
                self.pop()?;
                return Ok(None);
            }
            b'1' => {
                self.pop_mark()?;
                return Ok(None);
            }
            b'2' => self.top()?,
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.input.array()?))),
            b'K' => Value::Int(self.input.number::<1>()? as i64),
            b'M' => Value::Int(self.input.number::<2>()? as i64),
            b'G' => {
                self.input.array::<8>()?;
                Value::Other
            }
            // LONG1, LONG4
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            // The lines that Python 2 wrote: INT, LONG, FLOAT
            b'I' | b'L' | b'F' => match (code, self.input.line()?.trim_end_matches('L')) {
                (b'I', "00") => Value::Bool(false),
                (b'I', "01") => Value::Bool(true),
                (b'F', _) => Value::Other,
                (_, line) => line.parse().map_or(Value::Other, Value::Int),
            },
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            // BINSTRING, SHORT_BINSTRING
            b'T' | b'U' => {
                let length =
                    if code == b'T' { self.input.number::<4>() } else { self.input.number::<1>() };
                let bytes = self.input.bytes(length?)?;
                self.heap.add(old_text(bytes))?
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.bytes::<4>()?,
            b'C' => self.bytes::<1>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            b')' | b']' | 0x8f => self.heap.add(Node::Items(Vec::new()))?,
            // TUPLE, LIST, FROZENSET
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.heap.add(Node::Items(items))?
            }
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let mut items = vec![Value::None; usize::from(code - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.heap.add(Node::Items(items))?
            }
            b'}' => self.heap.add(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                let dict = self.heap.add(Node::Dict(Vec::new()))?;
                self.push(dict)?;
                return self.set_items(&items);
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                return self.append(&[item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                return self.append(&items);
            }
            // SETITEM, SETITEMS
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                return self.set_items(&[key, value]);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set_items(&items);
            }
            // GET, BINGET, LONG_BINGET
            b'g' => self.recall_line()?,
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' => {
                let index = self.input.line()?;
                return self.remember(index.parse().map_err(|_| "an unreadable memo")?);
            }
            b'q' => {
                let index = self.input.number::<1>()?;
                return self.remember(index as u32);
            }
            b'r' => {
                let index = self.input.number::<4>()?;
                return self.remember(index as u32);
            }
            0x94 => return self.remember(self.memo.len() as u32),
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let global = globals::lookup(&module, &name, self.script)?;
                self.heap.add(Node::Global(global))?
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| self.heap.text(value).ok_or("a global without a name");
                let global = globals::lookup(text(module)?, text(name)?, self.script)?;
                self.heap.add(Node::Global(global))?
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Some(&Node::Global(global)) = self.heap.node(function) else {
                    return Err("a call of something that is no function".into());
                };
                globals::call(self.heap, global, arguments)?
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                return match self.heap.node_mut(object) {
                    Some(Node::Array) => arrays::set_array(self.heap, object, state).map(|()| None),
                    Some(Node::Dtype { .. }) => {
                        arrays::set_dtype(self.heap, object, state).map(|()| None)
                    }
                    Some(Node::Object { state: its, .. }) => {
                        *its = state;
                        Ok(None)
                    }
                    // Attributes, as the versions that a state dict has: they are no weights.
                    Some(
                        Node::Dict(_)
                        | Node::Tensor(_)
                        | Node::Items(_)
                        | Node::Bytes(_)
                        | Node::Unread(_),
                    ) => Ok(None),
                    _ => Err("a state of something that has none".into()),
                };
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                globals::storage(self.heap, &mut self.by_key, id)?
            }
            code => {
                return Err(format!(
                    "instruction {code:#04x}, which weights do not need, or damage"
                )
                .into());
            }
        };
        self.push(value)?;
        Ok(None)
    }

    /// Charges for what stack (0) or marks (1) grow to.
    fn grow(&mut self, which: usize, length: usize) -> Result<(), Fault> {
        if length > self.high[which] {
            self.high[which] = length;
            self.heap.budget.charge(2 * size_of::<Value>() as u64)?;
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.grow(0, self.stack.len() + 1)?;
        self.stack.push(value);
        Ok(())
    }

    fn top(&self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| "an empty stack".into())
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Everything since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or("a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn long<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let bytes = self.input.bytes(length)?;
        if bytes.len() > 8 {
            return Ok(Value::Other);
        }
        // Two's complement: the highest bit fills what is missing.
        let sign = bytes.last().is_some_and(|&b| b >= 0x80);
        let mut full = [if sign { 0xff } else { 0 }; 8];
        full[..bytes.len()].copy_from_slice(&bytes);
        Ok(Value::Int(i64::from_le_bytes(full)))
    }

    fn text<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let text = text(self.input.bytes(length)?)?;
        self.heap.add(Node::Str(text.into()))
    }

    fn bytes<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let bytes = self.input.bytes(length)?;
        self.heap.add(Node::Bytes(bytes.into()))
    }

    fn append(&mut self, more: &[Value]) -> Result<Option<Value>, Fault> {
        let list = self.top()?;
        self.heap.budget.charge(2 * size_of_val(more) as u64)?;
        match self.heap.node_mut(list) {
            Some(Node::Items(items)) => items.extend(more),
            _ => return Err("items of something that is no list".into()),
        }
        Ok(None)
    }

    fn set_items(&mut self, more: &[Value]) -> Result<Option<Value>, Fault> {
        let dict = self.top()?;
        self.heap.budget.charge(2 * size_of_val(more) as u64)?;
        let pairs = more.chunks_exact(2);
        match self.heap.node_mut(dict) {
            Some(Node::Dict(items)) if pairs.remainder().is_empty() => {
                items.extend(pairs.map(|p| (p[0], p[1])));
            }
            _ => return Err("pairs of something that is no dictionary".into()),
        }
        Ok(None)
    }

    fn remember(&mut self, index: u32) -> Result<Option<Value>, Fault> {
        let top = self.top()?;
        if self.memo.insert(index, top).is_none() {
            self.heap.budget.charge(64)?;
        }
        Ok(None)
    }

    fn recall<const N: usize>(&mut self) -> Result<Value, Fault> {
        let index = self.input.number::<N>()?;
        self.recalled(index as u32)
    }

    fn recall_line(&mut self) -> Result<Value, Fault> {
        let index = self.input.line()?;
        self.recalled(index.parse().map_err(|_| "an unreadable memo")?)
    }

    fn recalled(&self, index: u32) -> Result<Value, Fault> {
        self.memo.get(&index).copied().ok_or_else(|| "a memo that is not there".into())
    }

    /// The keys on the way to what is being read, as far as the stack shows them.
    fn place(&self) -> String {
        let dict = |at: usize| matches!(self.heap.node(self.stack[at]), Some(Node::Dict(_)));
        let text = |at: usize| self.heap.text(self.stack[at]);
        let mut keys = Vec::new();
        let ends = self.marks.iter().copied().chain([self.stack.len()]);
        let mut start = 0;
        for end in ends {
            // Behind the mark that follows a dictionary, keys and values take turns.
            let key = match start > 0 && dict(start - 1) {
                true => (start..end).step_by(2).rev().find_map(text),
                false => (start + 1..end).filter(|&at| dict(at - 1)).find_map(text),
            };
            keys.extend(key);
            start = end;
        }
        match keys.is_empty() {
            true => "pickle".to_owned(),
            // A hostile key may be a gigabyte.
            false => keys.join(".").chars().take(256).collect(),
        }
    }
}
