//! 120 small evaluations drawn at random, made of what the protocol trips over, against the numbers of the
//! original evaluator: `tests/fixtures/evaluation/open_images.py` draws and evaluates them.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use serde::Deserialize;

use super::*;
use crate::data::openimages::{Hierarchy, Names};

#[derive(Deserialize)]
struct Fixture {
    classes: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    hierarchy: serde_json::Value,
    boxes: Vec<(String, String, [f64; 4], u8)>,
    labels: Vec<(String, String, u8)>,
    found: Vec<(String, String, f64, [f64; 4])>,
    expected: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    map: Option<f64>,
    ap: Vec<Option<f64>>,
    num_gt: Vec<usize>,
}

fn fixture() -> Fixture {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = fs_err::read(here.join("tests/fixtures/evaluation/open_images.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A case with numbers for names.
struct Numbered {
    boxes: Vec<TrueBox>,
    labels: Vec<VerifiedLabel>,
    found: Vec<ScoredBox>,
    relations: Relations,
}

impl Numbered {
    fn new(case: &Case, classes: &Names) -> Self {
        let image = |name: &str| u32::from_str_radix(name, 16).unwrap();
        let class = |mid: &str| classes.position(mid).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), case.hierarchy.to_string()).unwrap();
        let boxes = case.boxes.iter().map(|(i, mid, bbox, group)| TrueBox {
            image: image(i),
            class: class(mid),
            bbox: *bbox,
            group_of: *group == 1,
        });
        let labels = case.labels.iter().map(|(i, mid, present)| VerifiedLabel {
            image: image(i),
            class: class(mid),
            present: *present == 1,
        });
        let found = case.found.iter().map(|(i, mid, score, bbox)| ScoredBox {
            image: image(i),
            class: class(mid),
            score: *score,
            bbox: *bbox,
        });
        Self {
            boxes: boxes.collect(),
            labels: labels.collect(),
            found: found.collect(),
            relations: Hierarchy::open(file.path()).unwrap().over(classes),
        }
    }

    fn measure(&self, rules: Rules) -> OpenImagesSummary {
        let truth = Truth { boxes: &self.boxes, labels: &self.labels };
        evaluate(truth, &self.found, &self.relations, rules).unwrap()
    }
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (a, b) => a == b,
    }
}

#[test]
fn random_cases_come_out() {
    let fixture = fixture();
    let classes: Names = fixture.classes.iter().map(String::as_str).collect();
    let variants = [
        ("challenge", Rules::CHALLENGE),
        ("expanded", Rules::EXPANDED),
        ("flat", Rules::FLAT),
        ("ignored", Rules { groups: Groups::Ignored, ..Rules::CHALLENGE }),
        ("v2", Rules::V2),
    ];
    let (mut reasons, mut differing) = (NotCounted::default(), [0; 5]);
    for (i, case) in fixture.cases.iter().enumerate() {
        let numbered = Numbered::new(case, &classes);
        for (v, (variant, rules)) in variants.iter().enumerate() {
            let summary = numbered.measure(*rules);
            let expected = &case.expected[*variant];
            let aps: Vec<_> = summary.classes.iter().map(|class| class.ap).collect();
            for (class, (ap, expected)) in std::iter::zip(&aps, &expected.ap).enumerate() {
                assert!(same(*ap, *expected), "{i} {variant} {class}: {ap:?}, not {expected:?}");
            }
            let num_gt: Vec<usize> = summary.classes.iter().map(|class| class.num_gt).collect();
            assert_eq!(num_gt, expected.num_gt, "{i} {variant}");
            assert!(same(summary.map, expected.map), "{i} {variant}: {:?}", summary.map);
            reasons += summary.not_counted;
            let first = case.expected["challenge"].map;
            differing[v] += usize::from(!same(summary.map, first));
        }
    }
    // The cases have what they are for.
    assert_eq!(fixture.cases.len(), 120);
    let NotCounted { unjudged, without_area, low_score, beyond_limit, in_groups } = reasons;
    assert!([unjudged, without_area, low_score, in_groups].iter().all(|&n| n > 20), "{reasons:?}");
    assert_eq!(beyond_limit, 0);
    assert!(differing[1..].iter().all(|&n| n > 20), "{differing:?}");
}

/// A list in another order, the same for a seed.
fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut keyed: Vec<(u64, T)> = items
        .iter()
        .map(|item| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state, item.clone())
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, item)| item).collect()
}

#[test]
fn numbers_depend_neither_on_the_order_of_records_nor_on_threads() {
    let fixture = fixture();
    let classes: Names = fixture.classes.iter().map(String::as_str).collect();
    let pools = [1, 2, 5]
        .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let mut moved = 0;
    for (i, case) in fixture.cases.iter().enumerate() {
        let mut numbered = Numbered::new(case, &classes);
        // Ties: between a detection and its twin.
        let twins: Vec<ScoredBox> = numbered.found.iter().step_by(3).copied().collect();
        numbered.found.extend(twins);
        let (boxes, found) = (numbered.boxes.clone(), numbered.found.clone());
        for rules in [Rules::CHALLENGE, Rules::EXPANDED, Rules::V2] {
            numbered.found = found.clone();
            numbered.boxes = boxes.clone();
            let first = numbered.measure(rules);
            for (seed, pool) in (0..10).zip(pools.iter().cycle()) {
                numbered.found = shuffled(&found, seed * 1000 + i as u64);
                // Of equal overlaps, the first box of an image counts: that order stays.
                numbered.boxes = boxes.clone();
                numbered
                    .boxes
                    .sort_by_key(|truth| truth.image.wrapping_mul(seed as u32 * 2 + 3) % 7);
                numbered.labels = shuffled(&numbered.labels, seed);
                moved += usize::from(numbered.found != found);
                assert_eq!(pool.install(|| numbered.measure(rules)), first, "case {i}");
            }
        }
    }
    assert!(moved > 3000);
}
