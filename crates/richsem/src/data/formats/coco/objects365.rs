//! Objects365 (v2): names of its classes.
//!
//! Thirteen names are misspelt in the files. They are written right here, as Detic does (the pairs are facts
//! from its `Objects365_names_fix.csv`, Apache-2.0); others (`Noddles`, `Billards`) are as in the files, so
//! that names are those of other work. `A/B` means A or B: these become synonyms.

use crate::data::records::{ClassRecord, Records};

/// Number of classes of v1 and v2.
const CLASSES: usize = 365;

/// Id in v2, the name in the files, and what it should be.
const FIXES: [(i64, &str, &str); 13] = [
    (38, "Moniter/TV", "Monitor/TV"),
    (53, "Bakset", "Basket"),
    (99, "Dinning Table", "Dining Table"),
    (123, "Tea pot", "Teapot"),
    (203, "Extention Cord", "Extension Cord"),
    (229, "Hotair ballon", "Hot air balloon"),
    (290, "Hamimelon", "Hami melon"),
    (292, "Mushroon", "Mushroom"),
    (300, "Tape Measur/ Ruler", "Tape Measure/ Ruler"),
    (308, "Campel", "Camel"),
    (314, "Meat ball", "Meatball"),
    (322, "Buttefly", "Butterfly"),
    (355, "Table Teniis paddle", "Table Tennis paddle"),
];

/// Of this one only the first words are alternatives.
const CUTTING_BOARD: (&str, [&str; 2]) =
    ("Cutting/chopping Board", ["Cutting Board", "chopping Board"]);

/// Puts the names right, if these are the classes of Objects365.
pub(super) fn complete(records: &mut Records) {
    if !is_objects365(&records.classes) {
        return;
    }
    let mut fixed = 0;
    for class in &mut records.classes {
        let fix = FIXES.iter().find(|(id, old, _)| *id == class.id && *old == class.name);
        if let Some((_, old, new)) = fix {
            class.name = (*new).to_owned();
            class.synonyms.push((*old).to_owned());
            fixed += 1;
        }
        class.synonyms.extend(alternatives(&class.name));
    }
    if fixed > 0 {
        records.notes.push(format!(
            "Objects365: misspelt names of classes, put right: {fixed} (as `{}` for `{}`)",
            FIXES[0].2, FIXES[0].1
        ));
    }
}

/// Whether they are: by their number, and three of their names.
fn is_objects365(classes: &[ClassRecord]) -> bool {
    let has = |id, name: &str| classes.iter().any(|c| c.id == id && c.name == name);
    classes.len() == CLASSES
        && has(2, "Sneakers")
        && has(26, "Potted Plant")
        && has(365, "Table Tennis")
}

fn alternatives(name: &str) -> Vec<String> {
    if name == CUTTING_BOARD.0 {
        return CUTTING_BOARD.1.map(str::to_owned).to_vec();
    }
    let parts: Vec<&str> = name.split('/').map(str::trim).collect();
    if parts.len() > 1 { parts.into_iter().map(str::to_owned).collect() } else { Vec::new() }
}
