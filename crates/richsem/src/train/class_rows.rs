//! A linear class head's rows for other classes: those of classes with the same name are kept.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use crate::{
    error::Result,
    vocabulary::{ByName, Match, Vocabulary},
};

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

/// Pairs of rows, (the file's, one's own), whose classes have the same name: as it is written, or else but for letters'
/// case, spaces, hyphens and underscores. A name that one side has twice pairs nothing.
fn pairs(file: &[String], own: &[String]) -> Vec<(i64, i64)> {
    let matches =
        ByName::of(file.iter().map(String::as_str)).match_all(own.iter().map(String::as_str));
    let paired = (0..).zip(matches).filter_map(|(row, found)| match found {
        Match::One(of_file) => Some((of_file as i64, row)),
        Match::None | Match::Unclear(_) => None,
    });
    paired.collect()
}

/// Which parameters have rows of classes.
pub(super) struct Rows<'a> {
    pub(super) is_row: &'a dyn Fn(&String) -> bool,
    /// What messages call them, in the plural.
    pub(super) which: &'static str,
}

/// Puts one's own rows into `values`, for the file's: those of classes with the same name from the file, the
/// others as they are in `own`. A class may have several rows, one after the other, as where boxes are coded for
/// each class; behind those of all classes there may be the background's. What a user should know of it; none if
/// there is nothing of the kind.
pub(super) fn keep(
    values: &mut BTreeMap<String, Tensor>,
    own: &BTreeMap<String, Tensor>,
    (file, vocabulary): (Option<&Vocabulary>, &Vocabulary),
    Rows { is_row, which }: &Rows<'_>,
) -> Result<Option<String>> {
    let linear: Vec<&String> =
        own.keys().filter(|name| is_row(name) && values.contains_key(*name)).collect();
    let Some(first) = linear.first() else { return Ok(None) };
    let rows = values[*first].size().first().map_or(0, |&n| n as usize);
    let names_there = names(file, rows);
    let names_here: Vec<String> = vocabulary.categories().iter().map(|c| c.name.clone()).collect();
    let pairs = names_there.as_ref().map(|there| pairs(there, &names_here)).unwrap_or_default();
    let classes = (names_there.as_ref().map_or(0, Vec::len) as i64, names_here.len() as i64);
    for name in &linear {
        let (mut new, old) = (own[*name].copy(), &values[*name]);
        let count = |of: &Tensor| of.size().first().copied().unwrap_or(0);
        let rows = (count(old), count(&new));
        let fits = new.size().get(1..) == old.size().get(1..);
        if fits && let Some(kept) = kept_rows(&pairs, rows, classes) {
            let index = |rows: Vec<i64>| Tensor::from_slice(&rows).to_device(new.device());
            let (from, to): (Vec<i64>, Vec<i64>) = kept.into_iter().unzip();
            let old = old.f_to_device(new.device())?.f_to_kind(new.kind())?;
            let kept = old.f_index_select(0, &index(from))?;
            let to = index(to);
            torch_ext::no_grad(|| new.f_index_copy_(0, &to, &kept).map(drop))?;
        }
        values.insert((*name).clone(), new.to_device(Device::Cpu));
    }
    Ok(Some(told(
        &pairs,
        &names_here,
        (file.is_some(), names_there.as_ref().map(Vec::len)),
        (which, linear.len()),
    )))
}

/// Pairs of rows of a parameter that has `rows` (in the file, of one's own) for that many `classes`; none if
/// there is nothing to keep, or the two do not have the same number of rows a class.
fn kept_rows(
    pairs: &[(i64, i64)],
    rows: (i64, i64),
    classes: (i64, i64),
) -> Option<Vec<(i64, i64)>> {
    // Rows of a class, and whether the background has one behind them.
    let form = |rows: i64, classes: i64| match (rows - classes, classes) {
        (_, 0) => None,
        (1, _) => Some((1, true)),
        _ => (rows % classes == 0).then(|| (rows / classes, false)),
    };
    let (each, background) =
        form(rows.0, classes.0).filter(|of| form(rows.1, classes.1) == Some(*of))?;
    let of_classes = pairs
        .iter()
        .flat_map(|&(from, to)| (0..each).map(move |i| (from * each + i, to * each + i)));
    let last = background.then_some((rows.0 - 1, rows.1 - 1));
    (!pairs.is_empty()).then(|| of_classes.chain(last).collect())
}

fn told(
    pairs: &[(i64, i64)],
    own: &[String],
    (says, there): (bool, Option<usize>),
    (which, tensors): (&str, usize),
) -> String {
    let whose = match (says, there) {
        (true, Some(there)) if there == pairs.len() && there == own.len() => {
            "was trained with classes of the same names"
        }
        (true, _) => "was trained with other classes",
        (false, Some(_)) => {
            "does not say its classes, and its 91 rows are taken as COCO's category ids"
        }
        (false, None) => "does not say which classes its rows are of",
    };
    if pairs.is_empty() {
        return format!(
            "{which} start anew: the file {whose}, and no name is the same ({tensors} tensors)"
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

    #[test]
    fn what_is_told_says_whether_the_classes_are_others() {
        let own = names(&["cat", "dog"]);
        let of = |pairs: &[(i64, i64)], there| told(pairs, &own, (true, Some(there)), ("rows", 1));
        assert!(of(&[(0, 1), (1, 0)], 2).contains("classes of the same names; 2 of 2"));
        assert!(of(&[(0, 1), (1, 0)], 3).contains("other classes; 2 of 2"));
        assert!(of(&[(0, 1)], 2).contains("other classes; 1 of 2"));
    }

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
        let is_row = |name: &String| name.starts_with("class_embed");
        let rows = Rows { is_row: &is_row, which: "the linear class heads" };
        let told = keep(&mut values, &own, (Some(&there), &here), &rows).unwrap().unwrap();
        assert_eq!(values[&name()], table(&[3.0, -2.0, 1.0]));
        assert!(
            told.contains("2 of 3 classes keep their rows") && told.contains("anew: x"),
            "{told}"
        );
        // Where nothing says which classes they are, all start anew.
        let mut values = BTreeMap::from([(name(), table(&[1.0, 2.0, 3.0]))]);
        let told = keep(&mut values, &own, (None, &here), &rows).unwrap().unwrap();
        assert_eq!(values[&name()], own[&name()]);
        assert!(told.contains("does not say which classes"), "{told}");
    }

    #[test]
    fn a_class_may_have_several_rows_and_the_background_one() {
        // Three classes there, two here; the first here is the third there.
        let pairs = [(2, 0)];
        assert_eq!(kept_rows(&pairs, (4, 3), (3, 2)).unwrap(), [(2, 0), (3, 2)]);
        let boxes: Vec<_> = (0..4).map(|i| (8 + i, i)).collect();
        assert_eq!(kept_rows(&pairs, (12, 8), (3, 2)).unwrap(), boxes);
        assert_eq!(kept_rows(&pairs, (12, 2), (3, 2)), None);
        assert_eq!(kept_rows(&[], (4, 3), (3, 2)), None);
    }
}
