//! NumPy's arrays in a pickle: what the calls and states that NumPy writes stand for. Their values lie in
//! the pickle itself; they are as bytes (or, at protocol 2, as text with a character for each byte).

use tch::Kind;

use super::value::{Fault, Heap, Node, Source, Storage, StorageView, TensorRef, Value};
use crate::checkpoint_io::array::{Values, strides};

/// Longer than any code of numbers (`f4`, `c16`).
const LONGEST_CODE: usize = 16;

fn wrong() -> Fault {
    "an array that is not described as NumPy does it".into()
}

/// `numpy.dtype(code, …)`: its order of bytes comes with its state.
pub(super) fn dtype(heap: &mut Heap, code: Value) -> Result<Value, Fault> {
    // What is no text is a class of somebody's, and none of numbers.
    let code = heap.text(code).filter(|code| code.len() <= LONGEST_CODE).unwrap_or_default();
    let code = code.into();
    heap.add(Node::Dtype { code, order: '=' })
}

/// A dtype's state: `(version, order, …)`.
pub(super) fn set_dtype(heap: &mut Heap, dtype: Value, state: Value) -> Result<(), Fault> {
    let order =
        heap.items(state).and_then(|items| items.get(1)).and_then(|&order| heap.text(order));
    let order = order.and_then(|order| order.chars().next()).ok_or_else(wrong)?;
    match heap.node_mut(dtype) {
        Some(Node::Dtype { order: its, .. }) => *its = order,
        _ => return Err(wrong()),
    }
    Ok(())
}

/// An array's state: `(version, shape, dtype, fortran, values)`; very old ones have no version.
pub(super) fn set_array(heap: &mut Heap, array: Value, state: Value) -> Result<(), Fault> {
    let (shape, dtype, fortran, values) = match *heap.items(state).ok_or_else(wrong)? {
        [_, shape, dtype, fortran, values] | [shape, dtype, fortran, values] => {
            (shape, dtype, fortran, values)
        }
        _ => return Err(wrong()),
    };
    let fortran = match fortran {
        Value::Bool(fortran) => fortran,
        Value::Int(fortran) => fortran != 0,
        _ => return Err(wrong()),
    };
    let shape = numbers(heap, shape)?;
    let stride = strides(&shape, fortran).ok_or_else(wrong)?;
    let extent = Extent { size: shape, stride };
    let node = array_of(heap, values, dtype, extent, Source::Array(values))?;
    *heap.node_mut(array).ok_or_else(wrong)? = node;
    Ok(())
}

/// `_frombuffer(buffer, dtype, shape, order[, axes])`: an array at protocol 5. In the order `K` the
/// shape is that of memory, and the axes then change places.
pub(super) fn from_buffer(heap: &mut Heap, arguments: &[Value]) -> Result<Value, Fault> {
    let (values, dtype, shape, order, axes) = match *arguments {
        [values, dtype, shape, order] => (values, dtype, shape, order, Value::None),
        [values, dtype, shape, order, axes] => (values, dtype, shape, order, axes),
        _ => return Err(wrong()),
    };
    // One side may stand alone.
    let shape = match shape {
        Value::Int(side) => vec![side],
        _ => numbers(heap, shape)?,
    };
    let order = heap.text(order);
    let stride = strides(&shape, order == Some("F")).ok_or_else(wrong)?;
    let extent = match (order, axes) {
        (Some("C" | "F" | "A"), _) | (Some("K"), Value::None) => Extent { size: shape, stride },
        (Some("K"), axes) => {
            let axes = numbers(heap, axes)?;
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            if !sorted.into_iter().eq(0..shape.len() as i64) {
                return Err(wrong());
            }
            let moved = |sides: &[i64]| axes.iter().map(|&axis| sides[axis as usize]).collect();
            Extent { size: moved(&shape), stride: moved(&stride) }
        }
        _ => return Err(wrong()),
    };
    let node = array_of(heap, values, dtype, extent, Source::Array(values))?;
    heap.add(node)
}

/// `scalar(dtype, value)`: one number, as an array without sides.
pub(super) fn scalar(heap: &mut Heap, dtype: Value, value: Value) -> Result<Value, Fault> {
    let extent = Extent { size: Vec::new(), stride: Vec::new() };
    let node = array_of(heap, value, dtype, extent, Source::Scalar(value))?;
    heap.add(node)
}

fn numbers(heap: &Heap, value: Value) -> Result<Vec<i64>, Fault> {
    let items = heap.items(value).ok_or_else(wrong)?;
    // More sides than there can be are refused by the tensor.
    let number = |item: &Value| match item {
        Value::Int(number) => Ok(*number),
        _ => Err(wrong()),
    };
    items.iter().take(65).map(number).collect()
}

/// How the values of an array lie in its storage.
pub(super) struct Extent {
    pub(super) size: Vec<i64>,
    /// In values, from one to the next of each index.
    pub(super) stride: Vec<i64>,
}

fn array_of(
    heap: &mut Heap,
    values: Value,
    dtype: Value,
    extent: Extent,
    source: Source,
) -> Result<Node, Fault> {
    let Some(Node::Dtype { code, order }) = heap.node(dtype) else { return Err(wrong()) };
    let (kind, swapped) = match Values::of(*order, code) {
        Values::Numbers { kind, swapped } => (kind, swapped),
        Values::Unread(name) => return Ok(Node::Unread(name)),
        Values::Others => return Ok(Node::Object { script: false, state: Value::None }),
    };
    let bytes = length(heap, values)?;
    of_numbers(heap, source, (kind, swapped), bytes, extent)
}

/// An array of numbers that fills a storage of so many bytes.
pub(super) fn of_numbers(
    heap: &mut Heap,
    source: Source,
    (kind, swapped): (Kind, bool),
    bytes: u64,
    Extent { size, stride }: Extent,
) -> Result<Node, Fault> {
    let width = kind.elt_size_in_bytes() as u64;
    let view = StorageView {
        storage: u32::try_from(heap.storages.len()).map_err(|_| wrong())?,
        kind: Some(kind),
        start: 0,
        length: (bytes / width) as i64,
    };
    let tensor = TensorRef::new(view, kind, 0, size, stride)?;
    if tensor.numel() as u64 * width != bytes {
        let problem = format!("an array of size {:?} of {kind:?} in {bytes} bytes", tensor.size);
        return Err(problem.into());
    }
    heap.budget.charge(bytes + 256)?;
    heap.storages.push(Storage { source, kind: Some(kind), bytes, swapped });
    Ok(Node::Tensor(Box::new(tensor)))
}

/// How many bytes a value stands for: bytes, or text with a character for each byte.
fn length(heap: &Heap, values: Value) -> Result<u64, Fault> {
    let count = match heap.node(values) {
        Some(Node::Bytes(bytes)) => bytes.len(),
        Some(Node::Old(text)) => text.len(),
        Some(Node::Str(text)) if text.chars().all(|c| u32::from(c) < 256) => text.chars().count(),
        _ => return Err(wrong()),
    };
    Ok(count as u64)
}

/// The bytes of a value that [`length`] knows.
pub(super) fn bytes(heap: &Heap, values: Value) -> Result<Vec<u8>, Fault> {
    Ok(match heap.node(values) {
        Some(Node::Bytes(bytes)) => bytes.to_vec(),
        Some(Node::Old(text)) => text.as_bytes().to_vec(),
        Some(Node::Str(text)) => {
            let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
            bytes.collect::<Result<_, _>>().map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    })
}
