//! Boxes that are nearly the same: of two classes, of which one must be wrong unless an object may have both;
//! or of one class, annotated twice.

use std::collections::BTreeMap;

use super::{
    Examined, Options,
    finding::{Example, Finding, Level, Marked, Shown, counted},
};
use crate::{
    boxes::Xywh,
    data::dataset::{Annotation, Dataset},
    vocabulary::ClassIndex,
};

/// Least intersection over union of boxes that are the same: ObjectLab's (arXiv 2309.00832).
pub(super) const SAME_BOX: f64 = 0.95;

/// Most pairs of classes that are named.
const NAMED: usize = 5;

/// Two annotations of one image with nearly the same box, the earlier in the file first.
struct Pair<'a>(&'a Annotation, &'a Annotation);

pub(super) fn check(examined: &Examined<'_>, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, part) in examined.parts.iter().enumerate() {
        let Some(dataset) = part.dataset else { continue };
        let (mut different, mut same) = (Vec::new(), Vec::new());
        for image in 0..dataset.images().len() {
            for pair in pairs(dataset.annotations_of(image)) {
                let list = if pair.0.class == pair.1.class { &mut same } else { &mut different };
                list.push(pair);
            }
        }
        if !different.is_empty() {
            let text = format!(
                "{} the same box with two classes (IoU from {SAME_BOX}): {}",
                counted(different.len(), "pair of annotations has", "pairs of annotations have"),
                confused(dataset, &different)
            );
            let first = different.iter().take(options.examples);
            findings.push(
                Finding::new("two_classes", Level::Look, part.name(), different.len(), text)
                    .advise("keep the right one, unless an object may have both classes")
                    .with(first.map(|pair| example(dataset, at, pair)).collect()),
            );
        }
        if !same.is_empty() {
            let text = format!(
                "{} nearly the same box and class (IoU from {SAME_BOX}), but not to the digit",
                counted(same.len(), "pair of annotations has", "pairs of annotations have")
            );
            let first = same.iter().take(options.examples);
            findings.push(
                Finding::new("near_duplicates", Level::Look, part.name(), same.len(), text)
                    .advise("remove one of each: the other counts as missed")
                    .with(first.map(|pair| example(dataset, at, pair)).collect()),
            );
        }
    }
    findings
}

/// Pairs of an image that are nearly the same, crowds left out; same boxes of one class to the digit too,
/// which reading has counted.
fn pairs(annotations: &[Annotation]) -> Vec<Pair<'_>> {
    let mut order: Vec<&Annotation> =
        annotations.iter().filter(|a| !a.crowd && a.bbox.0[2] > 0.0 && a.bbox.0[3] > 0.0).collect();
    order.sort_by(|a, b| a.bbox.0[0].total_cmp(&b.bbox.0[0]));
    let mut found = Vec::new();
    for (i, a) in order.iter().enumerate() {
        let [x, _, w, _] = a.bbox.0;
        // Further right than this the intersection is too small for any width.
        let reach = x + (1.0 - SAME_BOX) * w;
        for b in order[i + 1..].iter().take_while(|b| b.bbox.0[0] <= reach) {
            let repeated = a.class == b.class && a.bbox == b.bbox;
            if !repeated && iou(a.bbox, b.bbox) >= SAME_BOX {
                let (first, second) = if a.id <= b.id { (a, b) } else { (b, a) };
                found.push(Pair(first, second));
            }
        }
    }
    found.sort_by_key(|Pair(a, b)| (a.id, b.id));
    found
}

pub(super) fn iou(a: Xywh, b: Xywh) -> f64 {
    let ([ax, ay, aw, ah], [bx, by, bw, bh]) = (a.0, b.0);
    let width = (ax + aw).min(bx + bw) - ax.max(bx);
    let height = (ay + ah).min(by + bh) - ay.max(by);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let both = width * height;
    both / (aw * ah + bw * bh - both)
}

/// The most frequent pairs of classes, `mug / cup 12, …`.
fn confused(dataset: &Dataset, pairs: &[Pair<'_>]) -> String {
    let mut counts: BTreeMap<[ClassIndex; 2], usize> = BTreeMap::new();
    for Pair(a, b) in pairs {
        let classes = [a.class.min(b.class), a.class.max(b.class)];
        *counts.entry(classes).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    // Stable: of equals the first classes first.
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |class: ClassIndex| &dataset.vocabulary().category(class).name;
    let named = counts.iter().take(NAMED);
    let named = named.map(|([a, b], count)| format!("{} / {} {count}", name(*a), name(*b)));
    let more = if counts.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", named.collect::<Vec<_>>().join(", "))
}

fn example(dataset: &Dataset, part: usize, Pair(a, b): &Pair<'_>) -> Example {
    let file = &dataset.images()[a.image as usize].file_name;
    let category = |a: &Annotation| dataset.vocabulary().category(a.class);
    let boxes = [*a, *b].map(|annotation| Marked {
        bbox: annotation.bbox.0,
        label: category(annotation).name.clone(),
        category_id: category(annotation).id.0,
        score: None,
    });
    let text = format!(
        "{file}: annotations {} ({}) and {} ({})",
        a.id,
        category(a).name,
        b.id,
        category(b).name
    );
    Example { text, shown: vec![Shown { part, file: file.clone(), boxes: boxes.into() }] }
}
