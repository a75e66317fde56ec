//! What a pickle is read into: plain values, and descriptions of tensors. Nothing is executed to
//! make them. What is no part of weights is not kept.

use std::borrow::Cow;

use tch::Kind;

/// What is wrong with a file, without the file's name.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: String,
    pub(super) hint: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { problem: problem.into(), hint: hint.into() }
    }

    pub(super) fn at(self, path: &std::path::Path, field: &str) -> crate::Error {
        crate::Error::invalid(path, field, self.problem).with_hint(self.hint)
    }
}

/// Nearly every fault is damage.
impl<T: Into<String>> From<T> for Fault {
    fn from(problem: T) -> Self {
        Self::new(problem, "the file is damaged or was cut off on its way: fetch it again")
    }
}

/// How much memory a file may take.
///
/// Weights take about as much memory as their file is long. But a file of a kilobyte can describe a
/// terabyte, by lists of lists or by a stride of 0. So everything made from a file is charged here before
/// it is made. A file that asks for more than four times its own length is refused.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    /// What any file may take: the values of a small file are larger in memory than in it.
    const FLOOR: u64 = 64 << 20;

    pub(super) fn of_file(length: u64) -> Self {
        Self { left: length.saturating_mul(4).max(Self::FLOOR) }
    }

    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Fault> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Fault::new(
                "takes more than four times the file's length in memory",
                "weights take about what their file takes; if they are `expand`ed or deflated, \
                 save them again with torch.save after `.contiguous()`",
            )
        })?;
        Ok(())
    }
}

/// What a Python global stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    /// A dictionary, of nothing or of a list of pairs.
    Dict,
    /// A dictionary: its argument makes missing values.
    DefaultDict,
    /// What its first argument is: a parameter its tensor, a set its list.
    First,
    /// `_rebuild_tensor`, `_rebuild_tensor_v2`: a tensor of a typed storage.
    Tensor,
    /// `_rebuild_tensor_v3`: a tensor that names its own kind.
    TensorV3,
    /// A tensor with attributes: a function and its arguments, attributes left aside.
    FromType,
    Storage(Kind),
    UntypedStorage,
    Dtype(Kind),
    /// Text by its encoding: bytes, at protocol 2.
    Encode,
    /// `bytes`: none, at protocol 2, and otherwise without a use.
    Bytes,
    /// NumPy's: what the numbers of an array are, an array before its state, an array of a buffer, a
    /// number.
    ArrayDtype,
    Array,
    ArrayOfBuffer,
    Scalar,
    /// Something beside weights that checkpoints often hold; made into an object without a use.
    Opaque,
    /// A class of TorchScript: its objects hold parameters.
    Script,
}

/// A value on the pickle's stack or in a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number that no weights are made of.
    Other,
    /// Something with contents, possibly shared: its number in the [`Heap`].
    Node(u32),
}

/// What a [`Value::Node`] of the [`Heap`] is.
#[derive(Debug)]
pub(super) enum Node {
    Str(Box<str>),
    /// Text or bytes as Python 2 wrote them: nothing tells which of the two.
    Old(Box<str>),
    Bytes(Box<[u8]>),
    /// A list, a tuple, a set.
    Items(Vec<Value>),
    /// In the file's order. If a key comes twice, its last value counts.
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(StorageView),
    Tensor(Box<TensorRef>),
    /// What NumPy's numbers are: a code and an order of bytes.
    Dtype {
        code: Box<str>,
        order: char,
    },
    /// An array of NumPy's before its state.
    Array,
    /// An array of numbers of a kind that is not read, as NumPy calls it.
    Unread(String),
    /// An object of TorchScript (`script`), whose state holds its parameters; or of another class,
    /// of which nothing is used.
    Object {
        script: bool,
        state: Value,
    },
}

/// A storage as a persistent id names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageView {
    /// Which of the file's storages.
    pub(super) storage: u32,
    /// `None`: bytes, of whatever kind the tensor says.
    pub(super) kind: Option<Kind>,
    /// First element, and number of elements (bytes, where `kind` is `None`).
    pub(super) start: i64,
    pub(super) length: i64,
}

/// Where a tensor's values lie; checked against its storage.
#[derive(Debug)]
pub(super) struct TensorRef {
    pub(super) storage: u32,
    pub(super) kind: Kind,
    /// In elements, as the strides are.
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

impl TensorRef {
    /// Checks that the tensor's values lie inside its storage, and that its size fits into 64 bits.
    pub(super) fn new(
        view: StorageView,
        kind: Kind,
        offset: i64,
        size: Vec<i64>,
        stride: Vec<i64>,
    ) -> Result<Self, Fault> {
        let width = kind.elt_size_in_bytes() as i64;
        let (start, length) = match view.kind {
            Some(_) => (view.start, view.length),
            // Only whole storages are untyped.
            None => (0, view.length / width),
        };
        let this = Self { storage: view.storage, kind, offset, size, stride };
        let what = || format!("a tensor of size {:?} and strides {:?}", this.size, this.stride);
        let sides = this.size.len() == this.stride.len() && this.size.len() <= 64;
        if !sides || this.size.iter().chain(&this.stride).any(|&n| n < 0) {
            return Err(format!("{}, which cannot be", what()).into());
        }
        // An empty tensor must not hide a product that overflows, either.
        let bytes = this.size.iter().try_fold(width, |n, &side| n.checked_mul(side.max(1)));
        let last = || {
            let steps = this.size.iter().zip(&this.stride);
            steps.into_iter().try_fold(offset, |n, (&side, &stride)| {
                n.checked_add((side - 1).max(0).checked_mul(stride)?)
            })
        };
        let last = last().filter(|_| bytes.is_some());
        let inside = if this.size.contains(&0) {
            bytes.is_some()
        } else {
            last.is_some_and(|last| last < length)
        };
        if !inside || offset < 0 {
            let problem = format!("{} from element {offset} of a storage of {length}", what());
            return Err(problem.into());
        }
        // An empty tensor may start anywhere.
        Ok(Self { offset: offset.saturating_add(start), ..this })
    }

    pub(super) fn numel(&self) -> i64 {
        self.size.iter().product()
    }

    /// Values one after the other, the last index fastest.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut next = 1;
        self.size.iter().zip(&self.stride).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == next;
            next *= side;
            fits
        })
    }
}

/// Where the bytes of a storage are.
#[derive(Debug)]
pub(super) enum Source {
    /// In the file, under that name: those of PyTorch's tensors.
    File(String),
    /// In a member of an archive of NumPy's.
    Member,
    /// In the pickle: those of an array of NumPy's.
    Array(Value),
    /// Those of one number of NumPy's.
    Scalar(Value),
}

/// One of the file's storages.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) source: Source,
    pub(super) kind: Option<Kind>,
    /// Its length as the pickle has it. A file in which it is another is refused.
    pub(super) bytes: u64,
    /// The highest byte of each number first.
    pub(super) swapped: bool,
}

/// Everything with contents that a pickle made.
#[derive(Debug)]
pub(super) struct Heap {
    pub(super) nodes: Vec<Node>,
    pub(super) storages: Vec<Storage>,
    pub(super) budget: Budget,
}

impl Heap {
    pub(super) fn new(budget: Budget) -> Self {
        Self { nodes: Vec::new(), storages: Vec::new(), budget }
    }

    pub(super) fn add(&mut self, node: Node) -> Result<Value, Fault> {
        // Twice: a vector that grows keeps room for as much again.
        let mut bytes = 2 * size_of::<Node>();
        bytes += match &node {
            Node::Str(text) | Node::Old(text) | Node::Dtype { code: text, .. } => text.len(),
            Node::Bytes(bytes) => bytes.len(),
            Node::Unread(name) => name.len(),
            Node::Items(items) => size_of_val(&items[..]),
            Node::Dict(items) => size_of_val(&items[..]),
            Node::Tensor(t) => size_of::<TensorRef>() + 16 * t.size.len(),
            _ => 0,
        };
        self.budget.charge(bytes as u64)?;
        let number = u32::try_from(self.nodes.len()).map_err(|_| "too many values")?;
        self.nodes.push(node);
        Ok(Value::Node(number))
    }

    pub(super) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(number) => self.nodes.get(number as usize),
            _ => None,
        }
    }

    pub(super) fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        match value {
            Value::Node(number) => self.nodes.get_mut(number as usize),
            _ => None,
        }
    }

    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match self.node(value) {
            Some(Node::Str(text) | Node::Old(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::Items(items)) => Some(items),
            _ => None,
        }
    }

    /// What a dictionary holds under a name.
    pub(super) fn lookup(&self, dict: Value, key: &str) -> Option<Value> {
        let Some(Node::Dict(items)) = self.node(dict) else { return None };
        items.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|&(_, v)| v)
    }

    /// Whether all tensors are NumPy's: then these are the weights, and otherwise something beside them.
    pub(super) fn arrays_alone(&self) -> bool {
        !self.storages.iter().any(|storage| matches!(storage.source, Source::File(_)))
    }
}
