//! A linear class head's rows for other classes: those of classes with the same name are kept.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Tensor};

use super::init::is_linear;
use crate::{error::Result, vocabulary::Vocabulary};

/// Classes that a message names.
const NAMED: usize = 12;

/// Rows of an official checkpoint's linear class head on COCO: one a category id, from 0 to 90.
const COCO_ROWS: usize = 91;

/// COCO's categories by their ids, from 0; empty where no category has the id. (cocodataset.org; the ids with
/// holes are those of `instances_train2017.json`.)
const COCO: &str = ",person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,\
stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,\
handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,\
tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,\
hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,\
cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush";

/// The classes of a file's rows, in order; empty where a row is of none. `None` if it cannot be known.
/// `rows` is how many rows the file has.
pub(super) fn names(file: Option<&Vocabulary>, rows: usize) -> Option<Vec<String>> {
    match file {
        Some(vocabulary) => Some(vocabulary.categories().iter().map(|c| c.name.clone()).collect()),
        None if rows == COCO_ROWS => Some(COCO.split(',').map(str::to_owned).collect()),
        None => None,
    }
}

/// Pairs of rows, (the file's, one's own), whose classes have the same name: letters' case, spaces, hyphens and
/// underscores do not matter. A name that one side has twice pairs nothing.
fn pairs(file: &[String], own: &[String]) -> Vec<(i64, i64)> {
    let places = |names: &[String]| {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (row, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            places.entry(folded(name)).or_default().push(row);
        }
        places
    };
    let in_file = places(file);
    let own_places = places(own);
    let alone = |rows: Option<&Vec<usize>>| match rows.map(Vec::as_slice) {
        Some([row]) => Some(*row as i64),
        _ => None,
    };
    let paired = own.iter().enumerate().filter_map(|(row, name)| {
        let name = folded(name);
        alone(own_places.get(&name))?;
        Some((alone(in_file.get(&name))?, row as i64))
    });
    paired.collect()
}

fn folded(name: &str) -> String {
    let words = name.split(|c: char| c.is_whitespace() || c == '_' || c == '-');
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Puts one's own rows into `values`, for the file's: those of classes with the same name from the file, the
/// others as they are in `own`. What a user should know of it; none if there is nothing of the kind.
pub(super) fn keep(
    values: &mut BTreeMap<String, Tensor>,
    own: &BTreeMap<String, Tensor>,
    file: Option<&Vocabulary>,
    vocabulary: &Vocabulary,
) -> Result<Option<String>> {
    let linear: Vec<&String> =
        own.keys().filter(|name| is_linear(name) && values.contains_key(*name)).collect();
    let Some(first) = linear.first() else { return Ok(None) };
    let rows = values[*first].size().first().map_or(0, |&n| n as usize);
    let names_there = names(file, rows);
    let names_here: Vec<String> = vocabulary.categories().iter().map(|c| c.name.clone()).collect();
    let pairs = names_there.as_ref().map(|there| pairs(there, &names_here)).unwrap_or_default();
    for name in &linear {
        let (mut new, old) = (own[*name].copy(), &values[*name]);
        let fits = new.size().get(1..) == old.size().get(1..)
            && old.size().first() == Some(&(rows as i64));
        if fits && !pairs.is_empty() {
            let index = |rows: Vec<i64>| Tensor::from_slice(&rows).to_device(new.device());
            let from = index(pairs.iter().map(|pair| pair.0).collect());
            let to = index(pairs.iter().map(|pair| pair.1).collect());
            let old = old.f_to_device(new.device())?.f_to_kind(new.kind())?;
            let kept = old.f_index_select(0, &from)?;
            torch_ext::no_grad(|| new.f_index_copy_(0, &to, &kept).map(drop))?;
        }
        values.insert((*name).clone(), new.to_device(Device::Cpu));
    }
    Ok(Some(told(&pairs, &names_here, file.is_some(), names_there.is_some(), linear.len())))
}

fn told(pairs: &[(i64, i64)], own: &[String], says: bool, known: bool, tensors: usize) -> String {
    let whose = match (says, known) {
        (true, _) => "was trained with other classes",
        (false, true) => {
            "does not say its classes, and its 91 rows are taken as COCO's category ids"
        }
        (false, false) => "does not say which classes its rows are of",
    };
    if pairs.is_empty() {
        return format!(
            "the linear class heads start anew, as does the label embedding, which is their rows: the file \
             {whose}, and no name is the same ({tensors} tensors)"
        );
    }
    let kept: Vec<&str> = pairs.iter().map(|&(_, row)| &*own[row as usize]).collect();
    let anew: Vec<&str> = own.iter().map(|name| &**name).filter(|n| !kept.contains(n)).collect();
    let list = |names: &[&str]| {
        let more = if names.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
    };
    let rest = match anew.len() {
        0 => String::new(),
        n => format!("; {n} start anew: {}", list(&anew)),
    };
    format!(
        "class heads: the file {whose}; {} of {} classes keep their rows, by name: {}{rest}",
        kept.len(),
        own.len(),
        list(&kept)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::category;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn rows_pair_by_name_and_never_by_place() {
        let file = names(&["cat", "Traffic_Light", "", "dog", "dog", "cow"]);
        let own = names(&["cow", "traffic light", "dog", "horse", "CAT", "sheep", "Sheep"]);
        assert_eq!(pairs(&file, &own), [(5, 0), (1, 1), (0, 4)]);
    }

    #[test]
    fn cocos_ids_have_their_holes() {
        let coco = super::names(None, COCO_ROWS).unwrap();
        assert_eq!(coco.len(), COCO_ROWS);
        assert_eq!(coco.iter().filter(|name| !name.is_empty()).count(), 80);
        let at = [(1, "person"), (13, "stop sign"), (44, "bottle"), (67, "dining table")];
        for (id, name) in at.iter().chain(&[(72, "tv"), (84, "book"), (90, "toothbrush")]) {
            assert_eq!(coco[*id], *name);
        }
        assert!(super::names(None, 80).is_none());
    }

    #[test]
    fn kept_rows_are_the_files_and_the_others_ones_own() {
        let name = || "class_embed.0.weight".to_owned();
        let row = |x: f32| Tensor::from_slice(&[x, x + 0.5]).view([1, 2]);
        let table = |xs: &[f32]| Tensor::cat(&xs.iter().map(|&x| row(x)).collect::<Vec<_>>(), 0);
        let categories = |names: &[&str]| {
            let numbered = (1..).zip(names);
            Vocabulary::new(numbered.map(|(id, &name)| category(id, name)).collect())
        };
        let (there, here) = (categories(&["a", "b", "c"]), categories(&["c", "x", "A"]));
        let mut values = BTreeMap::from([(name(), table(&[1.0, 2.0, 3.0]))]);
        let own = BTreeMap::from([(name(), table(&[-1.0, -2.0, -3.0]))]);
        let told = keep(&mut values, &own, Some(&there), &here).unwrap().unwrap();
        assert_eq!(values[&name()], table(&[3.0, -2.0, 1.0]));
        assert!(
            told.contains("2 of 3 classes keep their rows") && told.contains("anew: x"),
            "{told}"
        );
        // Where nothing says which classes they are, all start anew.
        let mut values = BTreeMap::from([(name(), table(&[1.0, 2.0, 3.0]))]);
        let told = keep(&mut values, &own, None, &here).unwrap().unwrap();
        assert_eq!(values[&name()], own[&name()]);
        assert!(told.contains("does not say which classes"), "{told}");
    }
}
