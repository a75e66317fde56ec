//! Reads one VOC annotation file: the XML of an image.

use std::{borrow::Cow, path::Path};

use roxmltree::{Document, Node};

use crate::error::{Error, Result};

/// What an XML file says of its image.
pub(super) struct Annotated {
    /// `<filename>`: often stale, since renaming an image does not rename it here.
    pub(super) file_name: Option<String>,
    /// `<folder>`: the one that the image was in.
    pub(super) folder: Option<String>,
    /// Width and height in pixels; 0 where the file has none.
    pub(super) size: (u32, u32),
    pub(super) objects: Vec<Object>,
}

/// One object, with its numbers as the file has them.
pub(super) struct Object {
    pub(super) name: String,
    /// xmin, ymin, xmax, ymax: from 1, both ends included.
    pub(super) corners: [f64; 4],
    pub(super) difficult: bool,
}

/// Reads the text of `file` (whose path is for messages).
pub(super) fn parse(file: &Path, text: &[u8]) -> Result<Annotated> {
    let text = decoded(file, text)?;
    if text.trim().is_empty() {
        return Err(Error::invalid(file, "XML", "expected <annotation>, got an empty file").with_hint(
            "copy it again; if its image shows nothing, write <annotation></annotation>, or take the file away",
        ));
    }
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = Document::parse_with_options(&text, options).map_err(|e| {
        Error::invalid(file, "XML", format!("broken: {e}"))
            .with_hint("is the file truncated? copy it again, or mend it at that line")
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "annotation" {
        let problem = format!("expected <annotation>, got <{}>", root.tag_name().name());
        return Err(Error::invalid(file, "XML", problem).with_hint("expected Pascal VOC's format"));
    }
    let size = child(root, "size");
    once(file, "", root, &["size"])?;
    size.map_or(Ok(()), |size| once(file, "size.", size, &["width", "height"]))?;
    let side = |name| match size.and_then(|s| text_of(s, name)) {
        None => Ok(0),
        Some(text) => match text.parse::<f64>() {
            Ok(v) if v.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&v) => Ok(v as u32),
            _ => Err(wrong(file, format!("size.{name}"), "a number of pixels", &text)),
        },
    };
    Ok(Annotated {
        file_name: text_of(root, "filename"),
        folder: text_of(root, "folder"),
        size: (side("width")?, side("height")?),
        objects: root
            .children()
            .filter(|n| n.has_tag_name("object"))
            .enumerate()
            .map(|(i, node)| object(file, i, node))
            .collect::<Result<_>>()?,
    })
}

const SIDES: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

fn object(file: &Path, index: usize, node: Node<'_, '_>) -> Result<Object> {
    let at = |field: &str| format!("object[{index}].{field}");
    let missing = |field: &str, expected: &str| {
        Error::invalid(file, at(field), format!("missing; expected {expected}"))
            .with_hint("write it into the file, or take this <object> out of it")
    };
    once(file, &at(""), node, &["name", "bndbox", "difficult"])?;
    let name = text_of(node, "name").ok_or_else(|| missing("name", "the class name"))?;
    // Direct children only: the <part>s of a person have boxes and names of their own.
    let bounds = child(node, "bndbox").ok_or_else(|| missing("bndbox", "a box"))?;
    once(file, &at("bndbox."), bounds, &SIDES)?;
    let mut corners = [0.0; 4];
    for (corner, side) in corners.iter_mut().zip(SIDES) {
        let field = format!("bndbox.{side}");
        let text = text_of(bounds, side).ok_or_else(|| missing(&field, "a number"))?;
        *corner = text
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
            .ok_or_else(|| wrong(file, at(&field), "a finite number", &text))?;
    }
    let difficult = match text_of(node, "difficult").as_deref() {
        None | Some("0" | "false" | "Unspecified") => false,
        Some("1" | "true") => true,
        Some(text) => return Err(wrong(file, at("difficult"), "0 or 1", text)),
    };
    Ok(Object { name, corners, difficult })
}

/// The text in the encoding that it has by its byte order mark, or else says it has; UTF-8 where it says
/// none, as XML has it.
pub(in crate::data) fn decoded<'a>(file: &Path, text: &'a [u8]) -> Result<Cow<'a, str>> {
    let start = String::from_utf8_lossy(&text[..text.len().min(256)]);
    let declared = start
        .strip_prefix("<?xml")
        .and_then(|rest| {
            rest.split_once("?>")?.0.split_once("encoding")?.1.trim_start().strip_prefix('=')
        })
        .map(|value| value.trim_start().trim_matches(['"', '\'']))
        .and_then(|value| value.split(['"', '\'']).next());
    let encoding = match (text, declared) {
        // Without a byte order mark, as XML's appendix F tells them apart.
        ([b'<', 0, b'?', 0, ..], _) => encoding_rs::UTF_16LE,
        ([0, b'<', 0, b'?', ..], _) => encoding_rs::UTF_16BE,
        (_, None) => encoding_rs::UTF_8,
        (_, Some(label)) => {
            let declared = encoding_rs::Encoding::for_label(label.as_bytes()).ok_or_else(|| {
                let problem = format!("says its encoding is `{label}`, which is unknown");
                Error::invalid(file, "XML", problem)
                    .with_hint("save it as UTF-8, and say so in its first line")
            })?;
            // What could be read so far is not in 16 bits, whatever it says.
            if declared.is_ascii_compatible() { declared } else { encoding_rs::UTF_8 }
        }
    };
    // A byte order mark counts more than what the text declares.
    let (decoded, encoding, malformed) = encoding.decode(text);
    if malformed {
        let problem = match declared {
            None => "not UTF-8 text, and it says no other encoding".to_owned(),
            Some(_) => format!("not {} text, which it says it is", encoding.name()),
        };
        return Err(Error::invalid(file, "XML", problem)
            .with_hint("save it as UTF-8, or say its encoding in its first line"));
    }
    Ok(decoded)
}

/// `field` is an object's, or that of the image's size.
fn wrong(file: &Path, field: String, expected: &str, got: &str) -> Error {
    let otherwise = if field.starts_with("size.") {
        "<size> out of it: the image says it"
    } else {
        "this <object> out of it"
    };
    Error::invalid(file, field, format!("expected {expected}, got `{}`", got.escape_debug()))
        .with_hint(format!("correct it in the file, or take {otherwise}"))
}

/// Of two elements of one name none is taken.
fn once(file: &Path, at: &str, node: Node<'_, '_>, names: &[&str]) -> Result<()> {
    for name in names {
        let count = node.children().filter(|n| n.has_tag_name(*name)).count();
        if count > 1 {
            return Err(Error::invalid(
                file,
                format!("{at}{name}"),
                format!("expected one, got {count}"),
            )
            .with_hint("take out those that are not meant"));
        }
    }
    Ok(())
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.has_tag_name(name))
}

/// The trimmed text of a child, if there is any: all of it, a comment may stand in its middle.
fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    let parts = child(node, name)?.children().filter(Node::is_text).filter_map(|n| n.text());
    Some(parts.collect::<String>().trim().to_owned()).filter(|text| !text.is_empty())
}
