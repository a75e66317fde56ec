//! Every setting of a training run: key, type, default, what it does. Made from the types that hold the settings,
//! and from what is written there; for `richsem settings`, docs/settings.md and editors ([`json_schema`]).

mod parse;
mod schema;

use std::{collections::BTreeMap, sync::LazyLock};

use parse::{Field, Item};

use crate::config::Config;

pub use schema::json_schema;

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted key; `*` is a name of the user's choice.
    pub key: String,
    /// Its type, in words.
    pub kind: String,
    /// Its default, as TOML; none where it is absent by default.
    pub default: Option<String>,
    /// What it does, with unit, default and range.
    pub about: String,
    /// The reference's name for it.
    pub reference: Option<String>,
    /// The words that it may be, with what each means; none of another kind.
    pub words: Vec<(String, String)>,
    /// The variant it belongs to, as `kind = "mosaic"`.
    pub of: Option<String>,
}

/// The sources of all types of settings.
const SOURCES: &[&str] = &[
    include_str!("../config/mod.rs"),
    include_str!("../config/train.rs"),
    include_str!("../data/extra/mod.rs"),
    include_str!("../data/extra/mapping.rs"),
    include_str!("../data/formats/hf/boxes.rs"),
    include_str!("../data/image_io/mod.rs"),
    include_str!("../data/sampler.rs"),
    include_str!("../data/transforms.rs"),
    include_str!("../detector/config.rs"),
    include_str!("../losses/config.rs"),
    include_str!("../losses/federated.rs"),
    include_str!("../models/backbone/config.rs"),
    include_str!("../models/backbone/convnext/mod.rs"),
    include_str!("../models/backbone/focalnet/mod.rs"),
    include_str!("../models/backbone/resnet/mod.rs"),
    include_str!("../models/backbone/resnet/norm.rs"),
    include_str!("../models/backbone/swin/mod.rs"),
    include_str!("../models/backbone/vit/mlp.rs"),
    include_str!("../models/backbone/vit/mod.rs"),
    include_str!("../models/backbone/vit/name.rs"),
    include_str!("../models/config.rs"),
    include_str!("../models/dino/denoising.rs"),
    include_str!("../models/dino/config.rs"),
    include_str!("../models/dino/mod.rs"),
    include_str!("../models/dino/transformer/mod.rs"),
    include_str!("../models/faster_rcnn/config.rs"),
    include_str!("../models/padding.rs"),
    include_str!("../models/projection.rs"),
    include_str!("../precision.rs"),
    include_str!("../semantic_branch.rs"),
    include_str!("../targets.rs"),
    include_str!("../teacher/clip/hints.rs"),
    include_str!("../teacher/clip/prompts.rs"),
    include_str!("../teacher/config.rs"),
];

/// All settings, in the order of the sections.
pub fn all() -> &'static [Setting] {
    static ALL: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let mut items = BTreeMap::new();
        SOURCES.iter().for_each(|source| parse::items(source, &mut items));
        let defaults = Config::defaults(&[]).map(|config| config.flat()).unwrap_or_default();
        let mut walk = Walk { items, defaults, settings: Vec::new() };
        walk.of_struct("", "Config", None);
        walk.settings
    });
    &ALL
}

/// The settings that a key names: one, or all of a section. A name that the user has chosen stands for `*`.
#[must_use]
pub fn find(key: &str) -> Vec<&'static Setting> {
    let parts: Vec<&str> = key.split('.').collect();
    let begins = |setting: &&Setting| {
        let mut own = setting.key.split('.');
        parts.iter().all(|part| own.next().is_some_and(|own| own == "*" || own == *part))
    };
    let found: Vec<&Setting> = all().iter().filter(begins).collect();
    let exact = |setting: &&&Setting| setting.key.split('.').count() == parts.len();
    match found.iter().find(exact) {
        // A table with settings of its own in it is shown with them.
        Some(one) if found.len() == 1 => vec![*one],
        _ => found,
    }
}

/// Settings whose keys or descriptions have that word, the likeliest first.
#[must_use]
pub fn search(word: &str) -> Vec<&'static Setting> {
    let word = word.to_lowercase();
    let last = |setting: &Setting| setting.key.rsplit('.').next().unwrap_or_default().to_owned();
    let mut found: Vec<(f64, &Setting)> = all()
        .iter()
        .filter_map(|setting| {
            let alike = strsim::jaro_winkler(&last(setting), word.rsplit('.').next()?);
            let by_reference = setting.reference.as_ref().is_some_and(|name| name.contains(&word));
            let score = if by_reference { 1.0 } else { alike };
            (score > 0.85 || setting.key.contains(&word)).then_some((score, setting))
        })
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, setting)| setting).collect()
}

struct Walk {
    items: BTreeMap<String, Item>,
    defaults: BTreeMap<String, String>,
    settings: Vec<Setting>,
}

impl Walk {
    fn of_struct(&mut self, prefix: &str, name: &str, of: Option<&str>) {
        let Some(item) = self.items.get(name).cloned() else { return };
        for field in &item.fields {
            self.field(prefix, field, of);
        }
    }

    fn field(&mut self, prefix: &str, field: &Field, of: Option<&str>) {
        let key =
            if prefix.is_empty() { field.name.clone() } else { format!("{prefix}.{}", field.name) };
        let name = inner(&field.kind);
        let item = self.items.get(name).cloned().unwrap_or_default();
        if item.variants.iter().any(|variant| variant.holds.is_some()) {
            return match &item.tag {
                Some(tag) => self.kinds(&key, field, tag, &item),
                None => self.families(prefix, field, &item),
            };
        }
        let is_map = field.kind.starts_with("BTreeMap") || field.kind.starts_with("IndexMap");
        let below = if is_map { format!("{key}.*") } else { key.clone() };
        if !item.fields.is_empty() {
            // What is a choice to have, or a set of names, is told as a whole, too.
            if is_map || field.kind.starts_with("Option") {
                self.add(&key, "table".to_owned(), &field.about, Vec::new(), of);
            }
            return self.of_struct(&below, name, of);
        }
        let words: Vec<(String, String)> =
            item.variants.iter().map(|v| (v.word.clone(), v.about.clone())).collect();
        match &item.tag {
            None if words.is_empty() => self.add(&key, kind(&field.kind), &field.about, words, of),
            None => self.add(&key, "word".to_owned(), &field.about, words, of),
            Some(tag) => {
                self.add(&format!("{key}.{tag}"), "word".to_owned(), &field.about, words, of);
                for variant in &item.variants {
                    let of = format!("{tag} = \"{}\"", variant.word);
                    for field in &variant.fields {
                        self.field(&key, field, Some(&of));
                    }
                }
            }
        }
    }

    /// A choice whose settings are beside the key that says which it is.
    fn kinds(&mut self, key: &str, field: &Field, tag: &str, item: &Item) {
        let words = item.variants.iter().map(|v| (v.word.clone(), v.about.clone())).collect();
        self.add(&format!("{key}.{tag}"), "word".to_owned(), &field.about, words, None);
        for variant in &item.variants {
            if let Some(holds) = &variant.holds {
                self.of_struct(key, holds, Some(&format!("{tag} = \"{}\"", variant.word)));
            }
        }
    }

    /// A choice whose settings are in sections of their names, beside the key `kind`.
    fn families(&mut self, prefix: &str, field: &Field, item: &Item) {
        let words = item.variants.iter().map(|v| (v.word.clone(), v.about.clone())).collect();
        self.add(&format!("{prefix}.kind"), "word".to_owned(), &field.about, words, None);
        for variant in &item.variants {
            if let Some(holds) = &variant.holds {
                self.of_struct(&format!("{prefix}.{}", variant.word), holds, None);
            }
        }
    }

    /// Whether the variant that a setting belongs to is the one that is there by default.
    fn is_default(&self, key: &str, of: Option<&str>) -> bool {
        let (Some((tag, word)), Some((section, _))) =
            (of.and_then(|of| of.split_once(" = ")), key.rsplit_once('.'))
        else {
            return true;
        };
        self.defaults.get(&format!("{section}.{tag}")).is_none_or(|default| default == word)
    }

    fn add(
        &mut self,
        key: &str,
        kind: String,
        about: &str,
        words: Vec<(String, String)>,
        of: Option<&str>,
    ) {
        self.settings.push(Setting {
            key: key.to_owned(),
            kind,
            default: self.defaults.get(key).filter(|_| self.is_default(key, of)).cloned(),
            about: about.to_owned(),
            reference: reference(about),
            words,
            of: of.map(str::to_owned),
        });
    }
}

/// The type in `Option<…>`, `Vec<…>` and maps.
fn inner(kind: &str) -> &str {
    for wrapper in ["Option<", "BTreeMap<String, ", "IndexMap<String, "] {
        if let Some(rest) = kind.strip_prefix(wrapper) {
            return inner(rest.strip_suffix('>').unwrap_or(rest));
        }
    }
    // Of `std::path::PathBuf` the name.
    if kind.contains('<') { kind } else { kind.rsplit("::").next().unwrap_or(kind) }
}

/// A type in words.
fn kind(text: &str) -> String {
    let text = inner(text);
    if let Some(rest) = text.strip_prefix("Vec<") {
        let of = kind(rest.trim_end_matches('>'));
        return format!("list of {of}s");
    }
    if let Some((of, count)) = text.strip_prefix('[').and_then(|rest| rest.split_once("; ")) {
        return format!("list of {} {}s", count.trim_end_matches(']'), kind(of));
    }
    match text {
        "bool" => "true or false",
        "f32" | "f64" => "number",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" | "i32" => "whole number",
        "String" => "text",
        "PathBuf" => "path",
        other => other,
    }
    .to_owned()
}

/// The name in "Reference: `name`."
fn reference(about: &str) -> Option<String> {
    let rest = &about[about.find("Reference: ")? + "Reference: ".len()..];
    let end = rest.find(". ").map_or(rest.len(), |end| end);
    Some(rest[..end].trim_end_matches('.').to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
