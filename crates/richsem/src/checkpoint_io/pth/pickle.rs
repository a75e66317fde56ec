//! Pickle's stack machine, for the instructions that `torch.save` and TorchScript write (protocols
//! 2 to 5, and those that Python 2 wrote): <https://docs.python.org/3/library/pickletools.html>.
//!
//! Python's own machine calls whatever functions a file names. This one calls none: the few
//! globals of [`super::globals`] stand for what they would make, and all others are refused.

use std::{collections::HashMap, io::Read, path::Path};

use super::{
    arrays, globals,
    input::{Input, text},
    opcode as op,
    value::{Budget, Fault, Heap, Node, Value},
};
use crate::error::Result;

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
    /// The greatest length of the stack so far: the budget was charged for it.
    longest_stack: usize,
    /// The same of the marks.
    most_marks: usize,
    /// Values that the pickle numbers, to use them again.
    memo: HashMap<u32, Value>,
    /// Storages of the heap by the keys that the pickle gives them.
    storages: HashMap<String, u32>,
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
        longest_stack: 0,
        most_marks: 0,
        memo: HashMap::new(),
        storages: HashMap::new(),
    };
    loop {
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok(value),
            Err(fault) => return Err(fault.at(path, &machine.path_of_keys())),
        }
    }
}

/// Charges for a stack that becomes longer than it ever was.
fn charge_growth(longest: &mut usize, length: usize, budget: &mut Budget) -> Result<(), Fault> {
    if length > *longest {
        *longest = length;
        budget.charge(2 * size_of::<Value>() as u64)?;
    }
    Ok(())
}

impl<R: Read> Machine<'_, R> {
    /// Runs one instruction. Returns the pickle's value if it was the last one.
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        let [code] = self.input.array()?;
        match code {
            op::STOP => return self.pop().map(Some),
            op::PROTO => self.check_protocol()?,
            op::FRAME => {
                self.input.array::<8>()?;
            }
            op::MARK => self.mark()?,
            op::POP => {
                self.pop()?;
            }
            op::POP_MARK => {
                self.pop_mark()?;
            }
            op::DICT | op::APPEND | op::APPENDS | op::ADDITEMS | op::SETITEM | op::SETITEMS => {
                self.fill_container(code)?;
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.memoize(code)?,
            op::BUILD => self.build()?,
            code => {
                let value = self.value(code)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    /// The value that an instruction puts on the stack.
    fn value(&mut self, code: u8) -> Result<Value, Fault> {
        match code {
            op::DUP => self.top(),
            op::NONE => Ok(Value::None),
            op::NEWTRUE => Ok(Value::Bool(true)),
            op::NEWFALSE => Ok(Value::Bool(false)),
            op::BININT => Ok(Value::Int(i64::from(i32::from_le_bytes(self.input.array()?)))),
            op::BININT1 => Ok(Value::Int(self.input.number::<1>()? as i64)),
            op::BININT2 => Ok(Value::Int(self.input.number::<2>()? as i64)),
            op::BINFLOAT => self.input.array::<8>().map(|_| Value::Other),
            op::LONG1 => self.long::<1>(),
            op::LONG4 => self.long::<4>(),
            op::INT | op::LONG | op::FLOAT => self.number_in_text(code),
            op::BINUNICODE => self.text::<4>(),
            op::SHORT_BINUNICODE => self.text::<1>(),
            op::BINUNICODE8 => self.text::<8>(),
            op::BINSTRING => self.old_text::<4>(),
            op::SHORT_BINSTRING => self.old_text::<1>(),
            op::BINBYTES => self.bytes::<4>(),
            op::SHORT_BINBYTES => self.bytes::<1>(),
            op::BINBYTES8 | op::BYTEARRAY8 => self.bytes::<8>(),
            op::EMPTY_TUPLE | op::EMPTY_LIST | op::EMPTY_SET => {
                self.heap.add(Node::Items(Vec::new()))
            }
            op::EMPTY_DICT => self.heap.add(Node::Dict(Vec::new())),
            op::TUPLE | op::LIST | op::FROZENSET => {
                let items = self.pop_mark()?;
                self.heap.add(Node::Items(items))
            }
            op::TUPLE1 => self.tuple::<1>(),
            op::TUPLE2 => self.tuple::<2>(),
            op::TUPLE3 => self.tuple::<3>(),
            op::GET => self.recall_line(),
            op::BINGET => self.recall::<1>(),
            op::LONG_BINGET => self.recall::<4>(),
            op::GLOBAL => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let global = globals::lookup(&module, &name, self.script)?;
                self.heap.add(Node::Global(global))
            }
            op::STACK_GLOBAL => self.global_from_stack(),
            op::REDUCE | op::NEWOBJ => self.call(),
            op::BINPERSID => {
                let id = self.pop()?;
                globals::storage(self.heap, &mut self.storages, id)
            }
            code => {
                Err(format!("instruction {code:#04x}, which weights do not need, or damage").into())
            }
        }
    }

    fn check_protocol(&mut self) -> Result<(), Fault> {
        let [version] = self.input.array()?;
        if version > 5 {
            return Err(format!("pickle protocol {version}, expected 2 to 5").into());
        }
        Ok(())
    }

    /// Marks the top of the stack: the start of a container's items.
    fn mark(&mut self) -> Result<(), Fault> {
        charge_growth(&mut self.most_marks, self.marks.len() + 1, &mut self.heap.budget)?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        charge_growth(&mut self.longest_stack, self.stack.len() + 1, &mut self.heap.budget)?;
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

    /// An integer of any length; more than 64 bits are no size of a tensor.
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

    /// A number of the lines that Python 2 wrote.
    fn number_in_text(&mut self, code: u8) -> Result<Value, Fault> {
        Ok(match (code, self.input.line()?.trim_end_matches('L')) {
            (op::INT, "00") => Value::Bool(false),
            (op::INT, "01") => Value::Bool(true),
            (op::FLOAT, _) => Value::Other,
            (_, line) => line.parse().map_or(Value::Other, Value::Int),
        })
    }

    fn text<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let text = text(self.input.bytes(length)?)?;
        self.heap.add(Node::Str(text.into()))
    }

    fn old_text<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let bytes = self.input.bytes(length)?;
        self.heap.add(old_text(bytes))
    }

    fn bytes<const N: usize>(&mut self) -> Result<Value, Fault> {
        let length = self.input.number::<N>()?;
        let bytes = self.input.bytes(length)?;
        self.heap.add(Node::Bytes(bytes.into()))
    }

    /// A tuple of the `N` values on top.
    fn tuple<const N: usize>(&mut self) -> Result<Value, Fault> {
        let mut items = vec![Value::None; N];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.heap.add(Node::Items(items))
    }

    /// Adds what lies on top to the list, set or dictionary below it.
    fn fill_container(&mut self, code: u8) -> Result<(), Fault> {
        match code {
            op::APPEND => {
                let item = self.pop()?;
                self.append(&[item])
            }
            op::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            op::DICT => {
                let items = self.pop_mark()?;
                let dict = self.heap.add(Node::Dict(Vec::new()))?;
                self.push(dict)?;
                self.set_items(&items)
            }
            op::SETITEMS => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            _ => {
                let items = self.pop_mark()?;
                self.append(&items)
            }
        }
    }

    fn append(&mut self, more: &[Value]) -> Result<(), Fault> {
        let list = self.top()?;
        self.heap.budget.charge(2 * size_of_val(more) as u64)?;
        match self.heap.node_mut(list) {
            Some(Node::Items(items)) => items.extend(more),
            _ => return Err("items of something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, more: &[Value]) -> Result<(), Fault> {
        let dict = self.top()?;
        self.heap.budget.charge(2 * size_of_val(more) as u64)?;
        let pairs = more.chunks_exact(2);
        match self.heap.node_mut(dict) {
            Some(Node::Dict(items)) if pairs.remainder().is_empty() => {
                items.extend(pairs.map(|p| (p[0], p[1])));
            }
            _ => return Err("pairs of something that is no dictionary".into()),
        }
        Ok(())
    }

    fn global_from_stack(&mut self) -> Result<Value, Fault> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |value| self.heap.text(value).ok_or("a global without a name");
        let global = globals::lookup(text(module)?, text(name)?, self.script)?;
        self.heap.add(Node::Global(global))
    }

    fn call(&mut self) -> Result<Value, Fault> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Some(&Node::Global(global)) = self.heap.node(function) else {
            return Err("a call of something that is no function".into());
        };
        globals::call(self.heap, global, arguments)
    }

    /// Gives an object its state.
    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let object = self.top()?;
        match self.heap.node_mut(object) {
            Some(Node::Array) => arrays::set_array(self.heap, object, state),
            Some(Node::Dtype { .. }) => arrays::set_dtype(self.heap, object, state),
            Some(Node::Object { state: its, .. }) => {
                *its = state;
                Ok(())
            }
            // Attributes, as the versions that a state dict has: they are no weights.
            Some(
                Node::Dict(_) | Node::Tensor(_) | Node::Items(_) | Node::Bytes(_) | Node::Unread(_),
            ) => Ok(()),
            _ => Err("a state of something that has none".into()),
        }
    }

    /// Numbers the value on top.
    fn memoize(&mut self, code: u8) -> Result<(), Fault> {
        let index = match code {
            op::PUT => self.input.line()?.parse().map_err(|_| "an unreadable memo")?,
            op::BINPUT => self.input.number::<1>()? as u32,
            op::LONG_BINPUT => self.input.number::<4>()? as u32,
            _ => self.memo.len() as u32,
        };
        let top = self.top()?;
        if self.memo.insert(index, top).is_none() {
            self.heap.budget.charge(64)?;
        }
        Ok(())
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
    fn path_of_keys(&self) -> String {
        let dict = |at: usize| matches!(self.heap.node(self.stack[at]), Some(Node::Dict(_)));
        let text = |at: usize| self.heap.text(self.stack[at]);
        let mut keys = Vec::new();
        let ends = self.marks.iter().copied().chain([self.stack.len()]);
        let mut start = 0;
        for end in ends {
            // Behind the mark that follows a dictionary, keys and values take turns.
            let key = if start > 0 && dict(start - 1) {
                (start..end).step_by(2).rev().find_map(text)
            } else {
                (start + 1..end).filter(|&at| dict(at - 1)).find_map(text)
            };
            keys.extend(key);
            start = end;
        }
        if keys.is_empty() {
            return "pickle".to_owned();
        }
        // A hostile key may be a gigabyte.
        keys.join(".").chars().take(256).collect()
    }
}
