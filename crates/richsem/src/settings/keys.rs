//! Dotted keys, and the values at them in nested tables.

use toml::{Table, Value};

/// Changes every value at a dotted key, in which `*` is any name.
pub(super) fn at(table: &mut Table, dotted: &str, change: &mut dyn FnMut(&mut Value)) {
    named_at(table, dotted, String::new(), &mut |_, value| change(value));
}

/// As [`at`], with the keys that the values have, after `before`.
pub(super) fn named_at(
    table: &mut Table,
    dotted: &str,
    before: String,
    change: &mut dyn FnMut(String, &mut Value),
) {
    let (head, rest) = dotted.split_once('.').unwrap_or((dotted, ""));
    for (key, value) in table.iter_mut().filter(|(key, _)| head == "*" || *key == head) {
        let whole = if before.is_empty() { key.clone() } else { format!("{before}.{key}") };
        match value {
            value if rest.is_empty() => change(whole, value),
            Value::Table(inner) => named_at(inner, rest, whole, change),
            _ => {}
        }
    }
}

/// Takes out the value at a dotted key, if there is one.
pub(super) fn remove(table: &mut Table, dotted: &str) {
    drop(take(table, dotted));
}

/// Puts a value at a dotted key; tables on the way are made.
pub(super) fn put(table: &mut Table, dotted: &str, value: Value) {
    match dotted.split_once('.') {
        None => drop(table.insert(dotted.to_owned(), value)),
        Some((head, rest)) => {
            let inner = table.entry(head.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Takes out the value at a dotted key, and gives it.
pub(super) fn take(table: &mut Table, dotted: &str) -> Option<Value> {
    match dotted.split_once('.') {
        None => table.remove(dotted),
        Some((head, rest)) => take(table.get_mut(head)?.as_table_mut()?, rest),
    }
}
