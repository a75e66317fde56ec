//! The settings as a JSON schema, by which editors complete and check a settings file.

use serde_json::{Map, Value, json};

use super::{Setting, all};

/// Tables that a text may stand for: a set, by its path alone.
const SHORT: [&str; 3] = ["data.train", "data.val", "data.extra.*"];

/// A JSON schema (draft 2020-12) of a settings file. Ranges are not in it: `richsem train` checks them.
#[must_use]
pub fn json_schema() -> Value {
    let mut root = object();
    for setting in all() {
        put(&mut root, &setting.key, setting);
    }
    allow_texts(&mut root, "");
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "richsem: settings of a training run".into();
    root["properties"]["extends"] = json!({
        "type": "string",
        "description": "A settings file that these settings are over, relative to this one, or preset:NAME."
    });
    root["required"] = json!(["version"]);
    root
}

fn object() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn put(table: &mut Value, key: &str, setting: &Setting) {
    let (head, rest) = key.split_once('.').map_or((key, None), |(head, rest)| (head, Some(rest)));
    let place = match head {
        // Names of the user's choice.
        "*" => &mut table["additionalProperties"],
        _ => &mut table["properties"][head],
    };
    if !place.is_object() {
        *place = match rest {
            Some(_) => object(),
            None => Value::Null,
        };
    }
    match rest {
        Some(rest) => put(place, rest, setting),
        None if place.is_null() => *place = leaf(setting),
        // It is there as a table with settings of its own, or for another variant.
        None => {}
    }
}

fn leaf(setting: &Setting) -> Value {
    let mut leaf = kind(&setting.kind);
    if setting.kind == "word" {
        let words: Vec<&str> = setting.words.iter().map(|(word, _)| &**word).collect();
        leaf["enum"] = words.into();
    }
    leaf["description"] = setting.about.clone().into();
    leaf
}

fn kind(kind: &str) -> Value {
    if let Some(of) = kind.strip_prefix("list of ") {
        let of =
            of.trim_end_matches('s').trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        return json!({ "type": "array", "items": self::kind(of) });
    }
    match kind {
        "true or false" => json!({ "type": "boolean" }),
        "number" => json!({ "type": "number" }),
        "whole number" => json!({ "type": "integer" }),
        "table" => object(),
        _ => json!({ "type": "string" }),
    }
}

/// Lets texts stand for the tables of sets.
fn allow_texts(table: &mut Value, prefix: &str) {
    let each = |name: &str, value: &mut Value| {
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        if !value.is_object() {
            return;
        }
        allow_texts(value, &key);
        if SHORT.contains(&&*key) {
            *value = json!({ "anyOf": [{ "type": "string" }, value.take()] });
        }
    };
    if let Some(Value::Object(properties)) = table.get_mut("properties") {
        let properties: &mut Map<String, Value> = properties;
        properties.iter_mut().for_each(|(name, value)| each(name, value));
    }
    if let Some(value) = table.get_mut("additionalProperties") {
        each("*", value);
    }
}
