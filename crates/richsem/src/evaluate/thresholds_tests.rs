//! By hand, on drawn classes, and files that are wrong.

use super::*;
use crate::{
    evaluate::{Protocol, class_matches::AREAS},
    random::{Random, Stream},
    testing::category,
};

/// Detections of a class, and the boxes that none of them finds.
fn class(id: i64, detections: &[(f64, bool)], missed: usize) -> ClassMatches {
    let hits = detections.iter().filter(|(_, hit)| *hit).count() + missed;
    let mut class = ClassMatches {
        id: CategoryId(id),
        name: format!("class {id}"),
        frequency: None,
        scores: detections.iter().map(|&(score, _)| score).collect(),
        images: (0..detections.len() as u32).collect(),
        flags: detections.iter().map(|&(_, hit)| [u32::from(hit); AREAS]).collect(),
        truths: vec![(0, [hits as u32; AREAS])],
    };
    class.sort();
    class
}

fn matches(classes: Vec<ClassMatches>) -> Matches {
    Matches { protocol: Protocol::Coco, images: 100, overlaps: 1, classes }
}

#[test]
fn the_best_f1_is_in_the_middle_of_two_scores() {
    let best =
        |detections: &[(f64, bool)], missed| Ranked::of(&class(1, detections, missed)).best();
    let (yes, no) = (true, false);
    assert_eq!(best(&[(0.9, yes), (0.8, yes), (0.4, no)], 0), Some(0.6000000000000001));
    // F1: 2/3 at 0.9, 1/2 at 0.7, 4/5 at 0.5.
    assert_eq!(best(&[(0.9, yes), (0.7, no), (0.5, yes), (0.1, no)], 0), Some(0.3));
    // Equal scores are used together or not at all: 2/3 with both is worse than none of 0.9 could be.
    assert_eq!(best(&[(0.9, yes), (0.9, no)], 0), Some(0.9));
    assert_eq!(best(&[(0.9, no)], 1), None);
    assert_eq!(best(&[], 3), None);
}

#[test]
fn a_class_of_one_box_has_nearly_the_global_threshold() {
    let many = class(1, &[&[(0.6, true); 500][..], &[(0.2, false); 500]].concat(), 0);
    let one = class(2, &[(0.05, true)], 0);
    let never = class(3, &[(0.9, false)], 2);
    let thresholds = matches(vec![many, one, never]).thresholds().unwrap();
    let [many, one, never] = &thresholds.classes[..] else { unreachable!() };
    assert!((thresholds.global - 0.4).abs() < 1e-12);
    assert_eq!((many.own, one.own, never.own), (Some(0.4), Some(0.05), None));
    assert_eq!(never.threshold, thresholds.global);
    // Its own would be 0.05.
    assert!((one.threshold - thresholds.global).abs() < 0.06, "{one:?}");
    // logit(0.05) / 11 + logit(0.4) · 10/11
    let expected =
        1.0 / (1.0 + (2.944_438_979_166_44 / 11.0 + 0.405_465_108_108_164 * 10.0 / 11.0f64).exp());
    assert!((one.threshold - expected).abs() < 1e-9, "{one:?}, not {expected}");
    assert!((many.threshold - 0.4).abs() < 1e-12);
    assert!((shrunk(0.05, 0.4, 2000) - 0.05).abs() < 0.002);
}

/// Classes whose scores differ, as those of rare and frequent classes do. Mean F1 on other images.
#[test]
fn shrinking_is_better_than_either_end() {
    let draw = |random: &mut Random, shift: f64, boxes: usize| -> Vec<(f64, bool)> {
        let score = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let mut drawn = Vec::new();
        for _ in 0..boxes {
            drawn.push((score(shift + 1.5 + random.normal()), true));
            for _ in 0..10 {
                drawn.push((score(shift - 1.5 + random.normal()), false));
            }
        }
        drawn
    };
    let sizes = [1, 2, 3, 5, 8, 15, 30, 60];
    let (mut classes, mut others) = (vec![], vec![]);
    for id in 0..800u64 {
        let mut random = Random::new(30, Stream::Test, id, 0);
        let shift = 0.5 * random.normal() - 1.0;
        let boxes = sizes[id as usize % sizes.len()];
        classes.push(class(id as i64, &draw(&mut random, shift, boxes), 0));
        others.push(draw(&mut random, shift, 300));
    }
    let thresholds = matches(classes).thresholds().unwrap();
    let f1 = |choose: &dyn Fn(&ClassThreshold) -> f64| {
        let each = thresholds.classes.iter().zip(&others).map(|(class, other)| {
            let threshold = choose(class);
            let used = other.iter().filter(|(score, _)| *score >= threshold);
            let hits = used.clone().filter(|(_, hit)| *hit).count();
            2.0 * hits as f64 / (used.count() + 300) as f64
        });
        each.sum::<f64>() / others.len() as f64
    };
    let (shrunk, own, global) =
        (f1(&|class| class.threshold), f1(&|class| class.own.unwrap()), f1(&|_| thresholds.global));
    println!("F1 {shrunk:.4}; own {own:.4}, global {global:.4}");
    assert!(shrunk > own + 0.002 && shrunk > global + 0.01, "{shrunk}, own {own}, global {global}");
}

fn written() -> Thresholds {
    let one = class(1, &[(0.9, true), (0.3, false)], 0);
    matches(vec![one, class(2, &[(0.4, true), (0.2, false)], 1)]).thresholds().unwrap()
}

#[test]
fn files_read_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thresholds.toml");
    written().write(&path).unwrap();
    assert_eq!(Thresholds::read(&path).unwrap(), written());
    assert!(fs_err::read_to_string(&path).unwrap().starts_with("# Smallest scores"));
}

#[test]
fn files_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thresholds.toml");
    let class = "[[classes]]\nid = 1\nname = \"cat\"\nthreshold = 0.5\n";
    for (text, says) in [
        ("", "TOML: the file is empty\n  hint: `eval --save-thresholds` writes"),
        ("# nothing\n", "version"),
        ("version = 1\nglobal = 0.5\n[[clas", "line 3"),
        ("{\"version\": 1}", "hint:"),
        ("version = 2\nglobal = 0.5\n", "version: 2; expected 1"),
        ("version = 1\nglobal = 1.5\n", "global: 1.5; expected a threshold from 0 to 1"),
        ("version = 1\nglobal = nan\n", "global: NaN"),
        ("version = 1\nglobal = \"a\"\n", "global"),
        ("version = 1\nglobal = 0.5\nother = 1\n", "other"),
        (&format!("version = 1\nglobal = 0.5\n{class}{class}"), "class `cat`: listed twice"),
        (
            &format!("version = 1\nglobal = 0.5\n{}", class.replace("0.5", "-1.0")),
            "class `cat`: -1",
        ),
    ] {
        fs_err::write(&path, text).unwrap();
        let error = Thresholds::read(&path).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("thresholds.toml"), "{text}: {error}");
        assert!(!error.contains("TOML parse error"), "{text}: {error}");
    }
    fs_err::write(&path, b"version = 1\nglobal = 0.5 # \xe4").unwrap();
    let error = Thresholds::read(&path).unwrap_err().to_string();
    assert!(error.contains("UTF-8"), "{error}");
    assert!(Thresholds::read(&folder.path().join("nowhere.toml")).is_err());
}

#[test]
fn classes_are_found_by_name() {
    let mut thresholds = written();
    thresholds.classes[0].name = "cat".to_owned();
    let vocabulary = Vocabulary::new(vec![category(7, "dog"), category(9, "cat")]);
    let of = thresholds.of(&vocabulary);
    assert_eq!(of.of_class, [thresholds.global, thresholds.classes[0].threshold]);
    assert_eq!((of.global, of.unused), (vec!["dog".to_owned()], vec!["class 2".to_owned()]));
    // Two classes of one name: the id tells them apart.
    thresholds.classes[1].name = "cat".to_owned();
    let twins = Vocabulary::new(vec![category(1, "cat"), category(2, "cat")]);
    let each = [thresholds.classes[0].threshold, thresholds.classes[1].threshold];
    assert_eq!(thresholds.of(&twins).of_class, each);
}

#[test]
fn scores_that_are_no_shares_are_refused() {
    let error = matches(vec![class(1, &[(3.5, true)], 0)]).thresholds().unwrap_err().to_string();
    assert!(error.contains("score 3.5") && error.contains("hint:"), "{error}");
    let error = matches(vec![class(1, &[(0.5, false)], 1)]).thresholds().unwrap_err().to_string();
    assert!(error.contains("no detection finds a box"), "{error}");
}
