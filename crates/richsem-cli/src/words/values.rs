//! Values and assignments: a yes and a no in words, a device's number, `name=value`, keys with their values, and what
//! others take that is no value here.

use std::{ffi::OsString, path::Path, slice::Iter};

use richsem::settings_reference;

use super::keys;

/// The value of a flag: `--device 0` is `cuda:0`, as elsewhere.
pub(super) fn device(name: &str, value: OsString) -> OsString {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value.to_str() {
        Some(text) if name == "device" && number(text) => format!("cuda:{text}").into(),
        _ => value,
    }
}

pub(super) fn is_negative(word: &str) -> bool {
    word.starts_with('-') && word.parse::<f64>().is_ok()
}

/// Whether a value is a yes or a no in words. `none` may be a folder, `None` is Python's.
pub(super) fn is_word(value: &str) -> bool {
    ["True", "true", "False", "false", "None"].contains(&value) && !Path::new(value).exists()
}

/// Whether a switch is on: it is where it is said, unless its value is a no.
pub(super) fn is_on(value: Option<&str>) -> bool {
    !value.is_some_and(is_no)
}

/// Whether a value is a no, in words or as a number.
pub(super) fn is_no(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["false", "no", "off", "none"].contains(&&*value) || value.parse() == Ok(0.0)
}

/// Numbers in one value: `640,480`, `[640, 480]`, `640x480`. One alone is none.
fn several(value: &str) -> Option<Vec<u32>> {
    let inner = value.trim_matches(|c: char| "[]() ".contains(c));
    let parts: Option<Vec<u32>> = inner
        .split([',', 'x', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect();
    parts.filter(|parts| parts.len() > 1)
}

/// What is said of a value that flags of that name take elsewhere, and not here.
pub(super) fn no_value(verb: &str, name: &str, value: &str, has_gpus: bool) -> Option<String> {
    match name {
        "device" => {
            let devices = several(value.strip_prefix("cuda:").unwrap_or(value))?;
            let listed: Vec<String> = devices.iter().map(ToString::to_string).collect();
            Some(if has_gpus {
                format!(
                    "several GPUs are --gpus {} here (CUDA_VISIBLE_DEVICES={} says which)",
                    devices.len(),
                    listed.join(",")
                )
            } else {
                format!("{verb} uses one device: --device cuda:{}", listed[0])
            })
        }
        "imgsz" => {
            let longer = several(value)?.into_iter().max()?;
            Some(format!("it is one number, the longer side: --imgsz {longer}"))
        }
        "batch" => {
            let share = value.parse::<f64>().is_ok_and(|value| value < 1.0);
            (share || value.eq_ignore_ascii_case("auto")).then(|| match verb {
                "train" => {
                    "it is a number of images; the largest that fits is found by richsem init DATA"
                        .to_owned()
                }
                _ => "it is a number of images, as --batch 4".to_owned(),
            })
        }
        _ => None,
    }
}

/// Takes the yes or no that stands after a switch: `--save True`.
pub(super) fn word_after<'b>(rest: &mut Iter<'b, OsString>) -> Option<&'b str> {
    let word = rest.as_slice().first().and_then(|word| word.to_str());
    let number = |word: &str| is_no(word) && !Path::new(word).exists();
    let found = word.filter(|word| is_word(word) || number(word))?;
    rest.next();
    Some(found)
}

pub(super) fn is_number(word: &OsString) -> bool {
    word.to_str().is_some_and(|word| word.parse::<u32>().is_ok()) && !Path::new(word).exists()
}

/// Whether a word looks like a file, and there is none: nothing else that can stand after a flag.
pub(super) fn is_absent_file(word: &str) -> bool {
    let path = Path::new(word);
    let is_file =
        path.extension().is_some() && !word.starts_with('-') && assignment(word).is_none();
    // A pattern stands for files.
    is_file && !word.contains(['*', '?', '[']) && !path.exists()
}

/// The parts of `name=value`, unless it is a file.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    (is_name && !Path::new(word).exists()).then_some((name, value))
}

/// Whether a word is a key, as `SOLVER.BASE_LR`, of another program or of the settings, and no file.
pub(super) fn is_key(verb: &str, word: &str) -> bool {
    let of_others =
        keys::KEYS.iter().any(|habit| habit.verbs.contains(&verb) && habit.words.contains(&word));
    let own =
        || verb == "train" && word.contains('.') && !settings_reference::find(word).is_empty();
    (of_others || own()) && !Path::new(word).exists()
}

/// Whether a word can be the value of a key that stands before it: no flag, and no assignment.
pub(super) fn is_value(verb: &str, word: Option<&OsString>) -> bool {
    let number = |word: &str| word.parse::<f64>().is_ok();
    word.and_then(|word| word.to_str()).is_some_and(|word| {
        (!word.starts_with('-') || number(word))
            && assignment(word).is_none()
            && !is_key(verb, word)
    })
}
