//! Where in a checkpoint's object the tensors are, and what they are called.

use std::collections::BTreeSet;

use super::value::{Fault, Heap, Node, Source, TensorRef, Value};
use crate::argument::Argument;

/// Where state dicts usually are; `blobs` are Caffe2's.
pub(super) const USUAL: [&str; 7] =
    ["state_dict", "model", "model_state_dict", "net", "network", "module", "blobs"];

/// How deep state dicts lie in each other at most: `{"state_dict": {"model": {"net": …}}}`.
const NESTED: usize = 3;

/// How deep, and among how many values, weights are looked for to name their key in a hint.
const DEEPEST_HINT: usize = 6;
const WIDEST_HINT: usize = 1000;

/// How deep values lie within values: TorchScript's deepest are at about 15.
const DEPTH: usize = 64;

/// What lies at or below a value, in the file's order.
pub(super) struct Below<'a> {
    pub(super) read: Vec<(String, &'a TensorRef)>,
    /// Arrays of NumPy's that cannot be tensors, and what they are of.
    pub(super) unread: Vec<(String, &'a str)>,
}

/// Every tensor at or below a value. In a file with PyTorch's tensors, NumPy's single numbers and arrays
/// that cannot be tensors are no weights: Python's own numbers and lists are none, too.
pub(super) fn below(heap: &Heap, value: Value) -> Result<Below<'_>, Fault> {
    let mut walk = Walk {
        heap,
        // A list may hold another one a million times, and that one a third. What is shared is visited
        // each time, so visits are counted.
        visits: 16 * heap.nodes.len() as u64 + 1024,
        budget: heap.budget.clone(),
        arrays_alone: heap.arrays_alone(),
        found: Below { read: Vec::new(), unread: Vec::new() },
    };
    walk.visit(value, &mut String::new(), 0)?;
    Ok(walk.found)
}

struct Walk<'a> {
    heap: &'a Heap,
    visits: u64,
    budget: super::Budget,
    arrays_alone: bool,
    found: Below<'a>,
}

impl Walk<'_> {
    fn visit(&mut self, value: Value, name: &mut String, depth: usize) -> Result<(), Fault> {
        let Some(node) = self.heap.node(value) else { return Ok(()) };
        let tangled = || Fault::from("values lie too deep within each other, or in a circle");
        self.visits = self.visits.checked_sub(1).ok_or_else(tangled)?;
        if depth > DEPTH {
            return Err(tangled());
        }
        match node {
            Node::Tensor(tensor) => {
                let source = &self.heap.storages[tensor.storage as usize].source;
                if matches!(source, Source::Scalar(_)) && !self.arrays_alone {
                    return Ok(());
                }
                // Twice: here and among the tensors.
                self.budget.charge(2 * (size_of::<String>() + 64 + name.len()) as u64)?;
                self.found.read.push((name.clone(), tensor));
            }
            Node::Unread(of) if self.arrays_alone => {
                self.budget.charge((size_of::<String>() + 64 + name.len()) as u64)?;
                self.found.unread.push((name.clone(), of));
            }
            Node::Dict(items) => {
                for &(key, value) in items {
                    self.child(key, value, name, depth)?;
                }
            }
            Node::Items(items) => {
                for (i, &value) in items.iter().enumerate() {
                    self.child(Value::Int(i as i64), value, name, depth)?;
                }
            }
            // Parameters, buffers and modules; lists of tensors are none of them.
            &Node::Object { script: true, state } => {
                if let Some(Node::Dict(items)) = self.heap.node(state) {
                    for &(key, value) in items {
                        if let Some(Node::Tensor(_) | Node::Object { script: true, .. }) =
                            self.heap.node(value)
                        {
                            self.child(key, value, name, depth)?;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn child(
        &mut self,
        key: Value,
        value: Value,
        name: &mut String,
        depth: usize,
    ) -> Result<(), Fault> {
        let Value::Node(_) = value else { return Ok(()) };
        let length = name.len();
        if depth > 0 {
            name.push('.');
        }
        match key {
            Value::Int(key) => name.push_str(&key.to_string()),
            _ => match self.heap.text(key) {
                Some(key) => name.push_str(key),
                // A key that is no name.
                None => name.push('?'),
            },
        }
        self.visit(value, name, depth + 1)?;
        name.truncate(length);
        Ok(())
    }
}

/// The value under a dotted key; parts of it may have dots themselves.
pub(super) fn at(heap: &Heap, root: Value, key: &str) -> Result<Value, Fault> {
    let missing = || {
        let has = keys(heap, root);
        Fault::new(format!("not in this file, which has {has}"), "give one of its keys")
    };
    let mut value = root;
    let mut rest = key;
    for _ in 0..DEPTH {
        let dict = match heap.node(value) {
            Some(&Node::Object { script: true, state }) => state,
            _ => value,
        };
        if let Some(found) = heap.lookup(dict, rest) {
            return Ok(found);
        }
        let mut heads = rest.match_indices('.').map(|(i, _)| rest.split_at(i));
        let found = heads.find_map(|(head, tail)| Some((heap.lookup(dict, head)?, &tail[1..])));
        (value, rest) = found.ok_or_else(missing)?;
    }
    Err(missing())
}

/// The state dict of a file, in one of the usual places.
pub(super) fn usual(heap: &Heap, root: Value) -> Result<Value, Fault> {
    if let Some(Node::Object { script: true, .. }) = heap.node(root) {
        return Ok(root);
    }
    let candidates = below_usual_keys(heap, root);
    if let [(first, one), others @ ..] = &candidates[..] {
        refuse_twins(heap, (first, *one), others)?;
        return Ok(*one);
    }
    // At the top, arrays beside PyTorch's tensors are a history of losses, or the like.
    if holds_weights(heap, root, heap.arrays_alone()) {
        return Ok(root);
    }
    let problem = format!("not in any of the usual places; the file has {}", keys(heap, root));
    let hint = match unusual_key(heap, root) {
        Some(key) => format!("take what is meant: `richsem convert` with {} {key}", Argument::Key),
        None => "save the state dict alone: torch.save(model.state_dict(), \"weights.pth\"), or arrays of \
                 numbers: numpy.savez(\"weights.npz\", **arrays)"
            .to_owned(),
    };
    Err(Fault::new(problem, hint))
}

/// Whether a value is a dictionary with a weight directly in it. NumPy's arrays count as weights only where
/// `arrays` says so.
fn holds_weights(heap: &Heap, value: Value, arrays: bool) -> bool {
    let is_weight = |value: Value| match heap.node(value) {
        Some(Node::Tensor(tensor)) => match heap.storages[tensor.storage as usize].source {
            Source::File(_) => true,
            Source::Member | Source::Array(_) => arrays,
            Source::Scalar(_) => false,
        },
        Some(Node::Unread(_)) => arrays,
        _ => false,
    };
    match heap.node(value) {
        Some(Node::Dict(items)) => items.iter().any(|&(_, value)| is_weight(value)),
        _ => false,
    }
}

/// Dictionaries with weights below the usual keys, with their dotted keys: those nearest to the top first,
/// then in the order of [`USUAL`].
fn below_usual_keys(heap: &Heap, root: Value) -> Vec<(String, Value)> {
    // What holds no tensors itself may hold what does: `{"state_dict": {"model": …}}`.
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut level = vec![(String::new(), root)];
    for _ in 0..NESTED {
        let mut deeper = Vec::new();
        for (above, value) in level {
            for key in USUAL {
                let Some(inner) = heap.lookup(value, key) else { continue };
                let path = format!("{above}{key}");
                if holds_weights(heap, inner, true) {
                    found.push((path, inner));
                } else {
                    deeper.push((path + ".", inner));
                }
            }
        }
        level = deeper;
    }
    found
}

/// Refuses a file with two models of the same names: nothing tells which one is meant.
fn refuse_twins(
    heap: &Heap,
    (first, one): (&str, Value),
    others: &[(String, Value)],
) -> Result<(), Fault> {
    let names = |value: Value| -> Result<BTreeSet<String>, Fault> {
        Ok(below(heap, value)?.read.into_iter().map(|(name, _)| name).collect())
    };
    let own = if others.is_empty() { BTreeSet::new() } else { names(one)? };
    for (key, other) in others {
        if names(*other)? == own {
            return Err(Fault::new(
                format!("two models of the same names: at `{first}` and at `{key}`"),
                format!("take one out: `richsem convert` with {} {first}", Argument::Key),
            ));
        }
    }
    Ok(())
}

/// The dotted key of the dictionary with weights that is nearest to the top, for a hint.
fn unusual_key(heap: &Heap, root: Value) -> Option<String> {
    let values = |value: Value| match heap.node(value) {
        Some(Node::Dict(items)) => &items[..],
        _ => &[],
    };
    let below = |(above, value): &(String, Value)| -> Vec<(String, Value)> {
        let items = values(*value).iter().take(WIDEST_HINT);
        let named = items.filter_map(|&(key, value)| Some((heap.text(key)?, value)));
        let dot = if above.is_empty() { "" } else { "." };
        named.map(|(key, value)| (format!("{above}{dot}{key}"), value)).collect()
    };
    let has_weights =
        |(_, value): &&(String, Value)| holds_weights(heap, *value, heap.arrays_alone());
    let mut level = vec![(String::new(), root)];
    for _ in 0..DEEPEST_HINT {
        if let Some((key, _)) = level.iter().find(has_weights) {
            return Some(key.clone());
        }
        level = level.iter().flat_map(below).take(WIDEST_HINT).collect();
    }
    None
}

/// What a file has at its top, for messages.
fn keys(heap: &Heap, root: Value) -> String {
    match heap.node(root) {
        Some(Node::Dict(items)) => {
            let mut keys: Vec<String> = items
                .iter()
                .take(20)
                .map(|&(key, _)| match heap.text(key) {
                    Some(key) => format!("`{}`", key.chars().take(60).collect::<String>()),
                    None => "a key that is no text".to_owned(),
                })
                .collect();
            if items.len() > keys.len() {
                keys.push("more".to_owned());
            }
            if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") }
        }
        Some(Node::Tensor(_)) => "a single tensor".to_owned(),
        Some(Node::Items(_)) => "a list".to_owned(),
        Some(Node::Object { .. }) => "an object".to_owned(),
        _ => "no weights".to_owned(),
    }
}
