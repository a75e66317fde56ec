//! Every setting is in the reference, with what is said of it where it is declared.

use std::path::Path;

use super::*;

fn one(key: &str) -> &'static Setting {
    match find(key)[..] {
        [setting] => setting,
        ref several => panic!("{key}: {several:?}"),
    }
}

/// Of the settings that runs write, none is missing; and each has a description.
#[test]
fn every_setting_is_there() {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo_richsem.toml");
    let all_on =
        ["loss.federated={}", "init.weights=x", "init.allow_missing=[\"a\"]", "train.ema={}"];
    let all_on = all_on.map(str::to_owned);
    let configs = [Config::load(&full, &all_on).unwrap(), Config::defaults(&[]).unwrap()];
    for key in configs.iter().flat_map(|config| config.flat().into_keys()) {
        assert!(!find(&key).is_empty(), "{key} is not in the reference");
    }
    assert!(all().len() > 110, "{}", all().len());
    for setting in all() {
        assert!(setting.about.len() > 10, "{} has no description", setting.key);
        let plain = ["true or false", "number", "whole number", "text", "path", "word", "table"];
        let known = plain.contains(&&*setting.kind) || setting.kind.starts_with("list of ");
        assert!(known, "{}: {}: its type's source is not in SOURCES", setting.key, setting.kind);
    }
}

#[test]
fn a_setting_has_what_its_declaration_says() {
    let lr = one("train.lr");
    assert_eq!((&*lr.kind, lr.default.as_deref()), ("number", Some("0.0001")));
    assert_eq!(lr.reference.as_deref(), Some("`lr`"));
    assert!(lr.about.starts_with("Learning rate of everything but the backbone."));
    let norm = one("model.dino.backbone.norm");
    let words: Vec<&str> = norm.words.iter().map(|(word, _)| &**word).collect();
    assert_eq!(words, ["frozen_bn", "batch_norm", "group_norm"]);
    let threshold = one("data.sampler.threshold");
    assert_eq!(threshold.of.as_deref(), Some("kind = \"repeat_factor\""));
    assert_eq!(one("data.extra.web.images").kind, "path");
    assert_eq!(one("data.augment.scales").kind, "list of whole numbers");
    assert!(find("train").len() > 15);
    assert!(find("trian").is_empty());
    assert_eq!(search("lr_drops")[0].key, "train.lr_drop");
    assert_eq!(search("epoch")[0].key, "train.epochs");
}

#[test]
fn the_schema_has_the_settings() {
    let schema = json_schema();
    let at = |path: &[&str]| path.iter().fold(&schema, |value, key| &value[*key]);
    assert_eq!(at(&["properties", "train", "properties", "lr", "type"]), "number");
    let norm = [
        "properties",
        "model",
        "properties",
        "dino",
        "properties",
        "backbone",
        "properties",
        "norm",
        "enum",
    ];
    assert_eq!(at(&norm)[0], "frozen_bn");
    assert_eq!(at(&["properties", "data", "properties", "train", "anyOf"])[0]["type"], "string");
    let extra = ["properties", "data", "properties", "extra", "additionalProperties", "anyOf"];
    assert_eq!(at(&extra)[1]["properties"]["images"]["type"], "string");
    assert_eq!(at(&["properties", "train", "additionalProperties"]), false);
}

/// docs/settings.md is made of the reference.
#[test]
fn the_page_is_the_reference() {
    let mut page = String::from(
        "# Settings\n\nAll settings of a training run. The page is made from the types that hold them; `richsem \
         settings KEY` shows one, `richsem settings --schema` writes a JSON schema for editors. All are there since \
         version 0.1.0. `*` is a name of your choice. [train.md](train.md) says how settings are given.\n",
    );
    // The settings of a section stand together, in the order in which sections begin.
    let mut sections: Vec<(&str, Vec<&Setting>)> = Vec::new();
    for setting in all() {
        let of = setting.key.rsplit_once('.').map_or("", |(of, _)| of);
        match sections.iter_mut().find(|(name, _)| *name == of) {
            Some((_, settings)) => settings.push(setting),
            None => sections.push((of, vec![setting])),
        }
    }
    for (of, settings) in sections {
        let title = if of.is_empty() { "At the top".to_owned() } else { format!("`[{of}]`") };
        page +=
            &format!("\n## {title}\n\n| setting | type | default | what |\n|---|---|---|---|\n");
        for setting in settings {
            let name = setting.key.rsplit('.').next().unwrap();
            let default =
                setting.default.as_ref().map_or(String::new(), |value| format!("`{value}`"));
            let only = setting.of.as_ref().map_or(String::new(), |of| format!("With `{of}`. "));
            let words: Vec<String> =
                setting.words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let kind = if words.is_empty() { setting.kind.clone() } else { words.join(", ") };
            let about = setting.about.replace('|', "\\|");
            page += &format!("| `{name}` | {kind} | {default} | {only}{about} |\n");
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/settings.md is not the types': UPDATE=1 writes it anew");
}
