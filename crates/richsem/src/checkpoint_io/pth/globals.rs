//! The Python globals that weights are made of, and what stands for calling them. Every other
//! global is refused by name, wherever in the file it is.

use tch::Kind;

use super::{
    arrays,
    value::{Fault, Global, Heap, Node, Source, Storage, StorageView, TensorRef, Value},
};

/// What a global stands for. Classes of TorchScript are read only where `script` says that the archive
/// is TorchScript's.
pub(super) fn lookup(module: &str, name: &str, script: bool) -> Result<Global, Fault> {
    // Python 2's name.
    let module = if module == "__builtin__" { "builtins" } else { module };
    match known(module, name).or_else(|| storage_or_dtype(module, name)) {
        Some(global) => Ok(global),
        None if script && module.split('.').next() == Some("__torch__") => Ok(Global::Script),
        None => Err(Fault::new(refusal(module, name), refusal_hint(module, name))),
    }
}

/// Functions and classes that are read, and classes of values that are passed over.
fn known(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") | ("builtins", "dict") => Global::Dict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("builtins", "set" | "frozenset" | "list" | "tuple")
        | ("collections", "deque")
        | ("torch", "Size")
        | ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | (
            "torch.jit._pickle",
            "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"
            | "restore_type_tag",
        ) => Global::First,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TensorV3,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::FromType,
        ("torch" | "torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("torch", "device" | "Tensor")
        | ("torch.nn.parameter", "Parameter" | "Buffer")
        | ("argparse", "Namespace")
        // `long`, `unicode` and `xrange`: protocol 2 has Python 2's names.
        | (
            "builtins",
            "int" | "long" | "float" | "complex" | "bool" | "str" | "unicode" | "bytearray"
            | "object" | "range" | "xrange" | "slice",
        )
        | ("datetime", "datetime" | "date" | "time" | "timedelta" | "timezone")
        | ("collections", "Counter")
        | ("pathlib", "PosixPath" | "PurePosixPath" | "WindowsPath" | "PureWindowsPath")
        | ("numpy", "ndarray" | "memmap") => Global::Opaque,
        ("_codecs", "encode") => Global::Encode,
        ("builtins", "bytes") => Global::Bytes,
        ("numpy", "dtype") => Global::ArrayDtype,
        // Of NumPy 1 and 2.
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Array,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Scalar,
        // Arrays at protocol 5.
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::ArrayOfBuffer,
        _ => return None,
    })
}

/// PyTorch's kinds of numbers: `torch.float32` is one, `torch.FloatStorage` a storage of it.
fn storage_or_dtype(module: &str, name: &str) -> Option<Global> {
    if !matches!(module, "torch" | "torch.cuda") {
        return None;
    }
    let kind = match name.strip_suffix("Storage").unwrap_or(name) {
        "Double" | "double" | "float64" => Kind::Double,
        "Float" | "float" | "float32" => Kind::Float,
        "Half" | "half" | "float16" => Kind::Half,
        "BFloat16" | "bfloat16" => Kind::BFloat16,
        "Long" | "long" | "int64" => Kind::Int64,
        "Int" | "int" | "int32" => Kind::Int,
        "Short" | "short" | "int16" => Kind::Int16,
        "Char" | "int8" => Kind::Int8,
        "Byte" | "uint8" => Kind::Uint8,
        "Bool" | "bool" => Kind::Bool,
        _ => return None,
    };
    Some(if name.ends_with("Storage") { Global::Storage(kind) } else { Global::Dtype(kind) })
}

/// What a user can do about a global that is refused.
fn refusal_hint(module: &str, name: &str) -> &'static str {
    match (module, name) {
        ("torch.storage", "_load_from_bytes") => {
            "tensors that pickle.dump wrote: if you trust whoever made the file, load them with \
             pickle.load in Python, and save them with torch.save"
        }
        ("torch" | "torch.cuda", _)
            if name.starts_with(char::is_lowercase) || name.ends_with("Storage") =>
        {
            "tensors are read in f64, f32, f16, bf16, i64, i32, i16, i8, u8 and bool: \
             convert the others before saving"
        }
        _ => WEIGHTS_ONLY,
    }
}

const WEIGHTS_ONLY: &str = "save the weights alone, in Python: \
    c = torch.load(file, weights_only=False); \
    torch.save({\"model\": c[\"model\"]}, \"weights.pth\") where they are under \"model\"; of a \
    whole model, model.state_dict()";

fn refusal(module: &str, name: &str) -> String {
    format!(
        "the file asks for `{module}.{name}`, which is none of the globals that weights are made \
         of; nothing in a file is executed"
    )
}

/// What calling a global makes.
pub(super) fn call(heap: &mut Heap, global: Global, arguments: Value) -> Result<Value, Fault> {
    let arguments = heap.items(arguments).ok_or("a call without a tuple of arguments")?;
    if arguments.len() > 16 {
        return Err("a call with more than 16 arguments".into());
    }
    let arguments = arguments.to_vec();
    let argument = |i: usize| {
        arguments.get(i).copied().ok_or_else(|| Fault::from("a call with too few arguments"))
    };
    match global {
        Global::Dict => dict(heap, arguments.first().copied()),
        Global::DefaultDict => heap.add(Node::Dict(Vec::new())),
        Global::First => match arguments.first() {
            Some(&first) => Ok(first),
            None => heap.add(Node::Items(Vec::new())),
        },
        Global::Tensor | Global::TensorV3 => {
            let kind = match global {
                Global::TensorV3 => match heap.node(argument(6)?) {
                    Some(Node::Global(Global::Dtype(kind))) => Some(*kind),
                    _ => return Err("a tensor without a kind".into()),
                },
                _ => None,
            };
            check_bits(heap, arguments.get(if kind.is_some() { 7 } else { 6 }).copied())?;
            tensor(heap, argument(0)?, kind, argument(1)?, argument(2)?, argument(3)?)
        }
        Global::FromType => {
            // Not itself: no file shall choose how deep this goes.
            match heap.node(argument(0)?) {
                Some(&Node::Global(
                    inner @ (Global::Tensor | Global::TensorV3 | Global::First),
                )) => call(heap, inner, argument(2)?),
                _ => Err("a tensor of a class that is not read".into()),
            }
        }
        Global::Encode => {
            let encoding = arguments.get(1).and_then(|&name| heap.text(name));
            match encoding.map(str::to_ascii_lowercase).as_deref() {
                // Each character is a byte.
                Some("latin1" | "latin-1" | "iso-8859-1") => argument(0),
                _ => heap.add(Node::Object { script: false, state: Value::None }),
            }
        }
        Global::Bytes if arguments.is_empty() => heap.add(Node::Bytes(Box::default())),
        Global::ArrayDtype => arrays::dtype(heap, argument(0)?),
        Global::Array => heap.add(Node::Array),
        Global::ArrayOfBuffer => arrays::from_buffer(heap, &arguments),
        Global::Scalar => arrays::scalar(heap, argument(0)?, argument(1)?),
        Global::Bytes | Global::Opaque => {
            heap.add(Node::Object { script: false, state: Value::None })
        }
        Global::Script => heap.add(Node::Object { script: true, state: Value::None }),
        Global::Storage(_) | Global::UntypedStorage | Global::Dtype(_) => {
            Err("a call of something that is no function".into())
        }
    }
}

/// Refuses a tensor with bits that negate or conjugate its values when they are used.
fn check_bits(heap: &Heap, bits: Option<Value>) -> Result<(), Fault> {
    let Some(bits) = bits else { return Ok(()) };
    let no_bits = matches!(heap.node(bits), Some(Node::Dict(bits)) if bits.is_empty());
    if no_bits || bits == Value::None {
        return Ok(());
    }
    Err(Fault::new(
        "a tensor whose values are negated or conjugated when they are used",
        "save it after `.resolve_neg().resolve_conj()`",
    ))
}

fn dict(heap: &mut Heap, pairs: Option<Value>) -> Result<Value, Fault> {
    let Some(pairs) = pairs else { return heap.add(Node::Dict(Vec::new())) };
    let wrong = || Fault::from("a dictionary of something else than pairs");
    let pairs = heap.items(pairs).ok_or_else(wrong)?;
    let pair = |&pair: &Value| match heap.items(pair) {
        Some(&[key, value]) => Ok((key, value)),
        _ => Err(wrong()),
    };
    let pairs = pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    heap.add(Node::Dict(pairs))
}

fn tensor(
    heap: &mut Heap,
    storage: Value,
    kind: Option<Kind>,
    offset: Value,
    size: Value,
    stride: Value,
) -> Result<Value, Fault> {
    let Some(&Node::Storage(view)) = heap.node(storage) else {
        return Err("a tensor without a storage".into());
    };
    let Value::Int(offset) = offset else { return Err("a tensor without an offset".into()) };
    let numbers = |value: Value| -> Result<Vec<i64>, Fault> {
        let number = |&item: &Value| match item {
            Value::Int(number) => Ok(number),
            _ => Err("a size or stride that is no integer".into()),
        };
        let items = heap.items(value).ok_or("a tensor without a size or strides")?;
        // More sides than libtorch has are refused by the tensor.
        items.iter().take(65).map(number).collect()
    };
    let (size, stride) = (numbers(size)?, numbers(stride)?);
    let kind = match (view.kind, kind) {
        (Some(a), Some(b)) if a != b => {
            return Err(format!("a tensor of {b:?} in a storage of {a:?}").into());
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) => return Err("a tensor without a kind".into()),
    };
    let tensor = TensorRef::new(view, kind, offset, size, stride)?;
    heap.budget.charge(tensor.numel() as u64 * kind.elt_size_in_bytes() as u64)?;
    heap.add(Node::Tensor(Box::new(tensor)))
}

/// What a persistent id stands for: `("storage", type, key, device, numel[, view])`.
pub(super) fn storage(
    heap: &mut Heap,
    by_key: &mut std::collections::HashMap<String, u32>,
    id: Value,
) -> Result<Value, Fault> {
    let wrong = || Fault::from("a storage that is not described as PyTorch does it");
    let (class, key, numel, view) = match *heap.items(id).ok_or_else(wrong)? {
        [tag, class, key, _, numel] if heap.text(tag) == Some("storage") => {
            (class, key, numel, Value::None)
        }
        [tag, class, key, _, numel, view] if heap.text(tag) == Some("storage") => {
            (class, key, numel, view)
        }
        _ => return Err(wrong()),
    };
    let kind = match heap.node(class) {
        Some(Node::Global(Global::Storage(kind))) => Some(*kind),
        Some(Node::Global(Global::UntypedStorage)) => None,
        _ => return Err(wrong()),
    };
    let (Some(key), Value::Int(numel @ 0..)) = (heap.text(key), numel) else {
        return Err(wrong());
    };
    let width = kind.map_or(1, |k| k.elt_size_in_bytes()) as u64;
    let bytes = (numel as u64).checked_mul(width).ok_or_else(wrong)?;
    let number = match by_key.get(key) {
        Some(&number) => {
            let first = &heap.storages[number as usize];
            if (first.kind, first.bytes) != (kind, bytes) {
                return Err(format!(
                    "storage {key} as {bytes} bytes of {kind:?}, after {} of {:?}",
                    first.bytes, first.kind
                )
                .into());
            }
            number
        }
        None => {
            let key = key.to_owned();
            heap.budget.charge(256 + 2 * key.len() as u64)?;
            let number = u32::try_from(heap.storages.len()).map_err(|_| wrong())?;
            let source = Source::File(key.clone());
            heap.storages.push(Storage { source, kind, bytes, swapped: false });
            by_key.insert(key, number);
            number
        }
    };
    // Before PyTorch 0.4: (key, first element, number of elements) of a part of the storage.
    let (start, length) = match heap.items(view) {
        Some(&[_, Value::Int(start @ 0..), Value::Int(length @ 0..)])
            if kind.is_some() && start.checked_add(length).is_some_and(|end| end <= numel) =>
        {
            (start, length)
        }
        None if view == Value::None => (0, numel),
        _ => return Err(wrong()),
    };
    heap.add(Node::Storage(StorageView { storage: number, kind, start, length }))
}
