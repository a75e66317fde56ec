//! Reads the public tables.

use std::path::Path;

use serde_json::Value;

use crate::{mapping::ClassName, testing::shared};

/// Lines of a CSV file as fields, the header's left out. Quotes as in RFC 4180.
pub(super) fn csv(text: &str) -> Vec<Vec<String>> {
    let line = |line: &str| {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().unwrap().push(c),
            }
        }
        fields
    };
    text.lines().skip(1).map(line).collect()
}

/// Rows of a NumPy file of halves, `[rows, width]` in C order.
pub(super) fn halves(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..length]).into_owned();
    assert!(header.contains("<f2") && header.contains("False"), "{header}");
    let value = |b: &[u8]| half(u16::from_le_bytes([b[0], b[1]]));
    let values: Vec<f32> = bytes[length..].chunks(2).map(value).collect();
    values.chunks(512).map(<[f32]>::to_vec).collect()
}

/// A number of 16 bits (IEEE 754 binary16) that is finite.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let size = match exponent {
        0 => fraction * 2f32.powi(-14),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// The 80 classes of COCO and the 500 of OpenImages' challenge, in the order of their tables of text
/// embeddings, and these.
pub(super) struct Texts {
    pub(super) coco: Vec<Vec<f32>>,
    pub(super) openimages: Vec<Vec<f32>>,
    pub(super) lvis: Vec<Vec<f32>>,
}

impl Texts {
    pub(super) fn read() -> Option<Self> {
        let table = |name: &str| shared(&format!("lvis/{name}_clip_a+cname.npy"));
        Some(Self {
            coco: halves(&table("coco")?),
            openimages: halves(&table("oid")?),
            lvis: halves(&table("lvis_v1")?),
        })
    }
}

/// OpenImages' 500 classes and, for each, the id of LVIS's class that is the same: `Some("")` if there
/// is none, none if the reference leaves the class out.
pub(super) fn openimages() -> Option<(Vec<ClassName<'static>>, Vec<Option<String>>)> {
    let text = std::fs::read_to_string(shared("samples/mapping/oid_lvis_reference.csv")?).unwrap();
    let rows = csv(&text);
    let classes = rows.iter().map(|row| named(&row[0], &row[1])).collect();
    let truth = rows.iter().map(|row| match row[4].as_str() {
        "same" => Some(row[2].clone()),
        "none" => Some(String::new()),
        _ => None,
    });
    Some((classes, truth.collect()))
}

/// LVIS's classes, with synsets if `synsets`.
pub(super) fn lvis(synsets: bool) -> Option<Vec<ClassName<'static>>> {
    let file = shared("lvis/lvis_v1_train_cat_info.json")?;
    let list: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let class = |value: &Value| ClassName {
        id: value["id"].to_string(),
        name: text(&value["name"]),
        synonyms: value["synonyms"].as_array().unwrap().iter().map(text).collect(),
        synset: synsets.then(|| text(&value["synset"])),
        images: value["image_count"].as_u64(),
        frequency: serde_json::from_value(value["frequency"].clone()).ok(),
        ..ClassName::default()
    };
    Some(list.iter().map(class).collect())
}

/// A class of a name alone.
pub(super) fn named(id: &str, name: &str) -> ClassName<'static> {
    ClassName { id: id.to_owned(), name: name.to_owned(), ..ClassName::default() }
}

/// Gives each class a row of a table.
pub(super) fn with_text<'a>(
    classes: Vec<ClassName<'_>>,
    rows: &'a [Vec<f32>],
) -> Vec<ClassName<'a>> {
    assert_eq!(classes.len(), rows.len());
    let owned = classes.into_iter().zip(rows).map(|(class, row)| ClassName {
        id: class.id,
        name: class.name,
        synonyms: class.synonyms,
        synset: class.synset,
        wnid: class.wnid,
        text: Some(row),
        images: class.images,
        frequency: class.frequency,
    });
    owned.collect()
}
