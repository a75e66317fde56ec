//! 300 small evaluations drawn at random, made of what real files have and evaluators trip over, against
//! the numbers of the official evaluators: `tests/fixtures/evaluation/make.py` draws and evaluates them.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{tests_official::assert_same, *};
use crate::{
    boxes::Xywh,
    data::dataset::Annotation,
    detections,
    targets::LabelKnowledge,
    vocabulary::{CategoryId, ClassIndex},
};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    protocol: Protocol,
    /// COCO's rules leave it unused.
    max_detections: usize,
    metrics: BTreeMap<String, f64>,
    /// AP and AP50 by category id.
    per_class: BTreeMap<i64, (f64, f64)>,
    /// As text: our readers are to see the very numbers that the official ones saw.
    truth: Box<RawValue>,
    found: Box<RawValue>,
}

fn cases() -> Vec<Case> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = fs_err::read(here.join("tests/fixtures/evaluation/random_cases.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str::<Fixture>(&text).unwrap().cases
}

/// Truth and detections of every case, as text.
pub(super) fn texts() -> impl Iterator<Item = (String, String)> {
    cases().into_iter().map(|case| (case.truth.get().to_owned(), case.found.get().to_owned()))
}

fn assert_numbers(name: &str, summary: &Summary, case: &Case) {
    assert_eq!(summary.metrics.len(), case.metrics.len(), "{name}");
    for (metric, value) in &case.metrics {
        assert!(summary.metrics.iter().any(|(n, _)| n == metric), "{name}: no {metric}");
        assert_same(&format!("{name}: {metric}"), summary.get(metric), *value);
    }
    assert_eq!(summary.per_class.len(), case.per_class.len(), "{name}");
    for class in &summary.per_class {
        let (ap, ap50) = case.per_class[&class.category_id.0];
        assert_same(&format!("{name}: AP of {}", class.name), class.ap, ap);
        assert_same(&format!("{name}: AP50 of {}", class.name), class.ap50, ap50);
    }
}

#[test]
fn random_cases_have_the_official_numbers() {
    let cases = cases();
    let of_lvis = cases.iter().filter(|case| case.protocol == Protocol::Lvis).count();
    assert_eq!((cases.len(), of_lvis), (300, 150));
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.json");
    let results = folder.path().join("found.json");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, case) in cases.iter().enumerate() {
        let name = format!("case {i} ({})", case.protocol);
        fs_err::write(&truth, case.truth.get()).unwrap();
        fs_err::write(&results, case.found.get()).unwrap();
        let dataset = Dataset::open(&truth).unwrap();
        let found = detections::read(&results).unwrap();
        // Without a chosen protocol: the file has to tell it.
        let evaluator = Evaluator::of(&dataset).with_max_detections(case.max_detections);
        assert_eq!(evaluator.protocol(), case.protocol, "{name}");
        assert_numbers(&name, &evaluator.evaluate(&found).unwrap(), case);
        for (feature, there) in features(case, &dataset, &found) {
            *counts.entry(feature).or_default() += usize::from(there);
        }
    }
    // Cases that are all alike would prove little.
    for (feature, count) in counts {
        assert!(count > 20, "only {count} cases have {feature}");
    }
}

/// What can go wrong in an evaluation, and whether it could in this one.
fn features(case: &Case, dataset: &Dataset, found: &[Detection]) -> Vec<(&'static str, bool)> {
    let (coco, lvis) = (case.protocol == Protocol::Coco, case.protocol == Protocol::Lvis);
    let (images, truth, report) = (dataset.images(), dataset.annotations(), dataset.report());
    let classes = dataset.vocabulary().categories();

    let mut of_image: HashMap<i64, usize> = HashMap::new();
    let mut of_class: HashMap<(i64, CategoryId), usize> = HashMap::new();
    for d in found {
        *of_image.entry(d.image_id).or_default() += 1;
        *of_class.entry((d.image_id, d.category_id)).or_default() += 1;
    }
    let most_of_image = of_image.values().copied().max().unwrap_or_default();
    let most_of_class = of_class.values().copied().max().unwrap_or_default();

    // Two detections of one class.
    let twins = |are: fn(&Detection, &Detection) -> bool| {
        found
            .iter()
            .enumerate()
            .any(|(i, d)| found[..i].iter().any(|e| e.category_id == d.category_id && are(e, d)))
    };
    // A detection and a box of its image and class.
    let pair = |is: fn(&Detection, &Annotation) -> bool| {
        found.iter().any(|d| {
            truth.iter().any(|a| {
                d.image_id == images[a.image as usize].id
                    && d.category_id == classes[a.class.0 as usize].id
                    && is(d, a)
            })
        })
    };
    // A detection of a class of which an LVIS image says that.
    let knowledge: HashMap<i64, LabelKnowledge> =
        images.iter().enumerate().map(|(i, image)| (image.id, dataset.knowledge(i))).collect();
    let told = |is: fn(&LabelKnowledge, ClassIndex) -> bool| {
        let class_of = |d: &Detection| dataset.vocabulary().class_of(d.category_id).unwrap();
        lvis && found.iter().any(|d| is(&knowledge[&d.image_id], class_of(d)))
    };
    let shown_and_absent = images
        .iter()
        .any(|image| image.neg_classes.iter().any(|c| knowledge[&image.id].present.contains(c)));
    let evaluated = |names: [&str; 3]| names.iter().all(|name| case.metrics[*name] >= 0.0);

    vec![
        ("equal scores", twins(|a, b| a.score == b.score)),
        ("a detection twice", twins(|a, b| a.image_id == b.image_id && a.bbox == b.bbox)),
        ("a box twice", report.repeated.count > 0),
        ("a detection that is the box", pair(|d, a| d.bbox == a.bbox)),
        ("an IoU on a threshold", pair(on_a_threshold)),
        ("a detection of no area", found.iter().any(|d| area(d.bbox) == 0.0)),
        ("a detection of negative width", found.iter().any(|d| d.bbox.0[2] < 0.0)),
        ("a box of no area in COCO", coco && truth.iter().any(|a| a.area == 0.0)),
        ("a box of no area in LVIS", lvis && truth.iter().any(|a| a.area == 0.0)),
        ("an area of a mask", truth.iter().any(|a| (a.area - area(a.bbox)).abs() > 1.0)),
        ("an area at 32² or 96²", truth.iter().any(|a| parts_sizes(a.area))),
        ("a detection at 32² or 96²", found.iter().any(|d| parts_sizes(area(d.bbox)))),
        ("an area beyond all sizes", truth.iter().any(|a| a.area > 1e10)),
        ("a crowd in COCO", coco && truth.iter().any(|a| a.crowd)),
        ("a crowd in LVIS", lvis && truth.iter().any(|a| a.crowd)),
        ("an ignored box in COCO", coco && truth.iter().any(|a| a.ignore)),
        ("an ignored box in LVIS", lvis && truth.iter().any(|a| a.ignore)),
        ("a negative coordinate", found.iter().any(|d| d.bbox.0[0] < 0.0)),
        ("a box beyond its image", report.clipped.count > 0),
        ("a class without boxes", report.unseen_categories > 0),
        ("an image without boxes", report.images_without_boxes > 0),
        ("an image without detections", of_image.len() < images.len()),
        ("category ids with holes", classes.windows(2).any(|w| w[0].id.0 + 1 < w[1].id.0)),
        ("images in no order", !images.is_sorted_by_key(|image| image.id)),
        ("scores in no order", !found.is_sorted_by(|a, b| a.score >= b.score)),
        ("a score below 0 or above 1", found.iter().any(|d| !(0.0..=1.0).contains(&d.score))),
        ("a class not verified", told(|k, c| !k.present.contains(&c) && !k.absent.contains(&c))),
        ("a class verified absent", told(|k, c| k.absent.contains(&c))),
        ("a class not exhaustive", told(|k, c| k.not_exhaustive.contains(&c))),
        ("a class shown and listed as absent", shown_and_absent),
        ("a listed class that is not in the file", report.removed_listed > 0),
        ("an LVIS image that lists nothing", lvis && report.listing < report.images),
        ("a COCO file with empty lists", coco && report.lists),
        ("more than COCO's 10 detections", coco && most_of_class > 10),
        ("more than COCO's 100 detections", coco && most_of_class > 100),
        ("more than LVIS's 300 detections", lvis && most_of_image > 300),
        ("more than the wanted detections", lvis && most_of_image > case.max_detections),
        ("fewer wanted than 300", lvis && case.max_detections < 300),
        ("every frequency group", lvis && evaluated(["APr", "APc", "APf"])),
        ("frequency groups in COCO", coco && case.metrics.contains_key("APr")),
        ("every size", evaluated(["APs", "APm", "APl"])),
        ("something absent", case.metrics.values().any(|&value| value < 0.0)),
        ("something found", case.metrics["AP"] > 0.2),
    ]
}

fn area(Xywh([_, _, width, height]): Xywh) -> f64 {
    width * height
}

/// Where small ends or large begins, or a hundredth beside.
fn parts_sizes(area: f64) -> bool {
    [1024.0, 9216.0].iter().any(|limit| (area - limit).abs() < 0.011)
}

/// Whether the overlap is 0.50, 0.55, …, 0.95 but for rounding: an evaluator that computes it in another
/// way decides otherwise.
fn on_a_threshold(d: &Detection, a: &Annotation) -> bool {
    let ([x0, y0, w0, h0], [x1, y1, w1, h1]) = (d.bbox.0, a.bbox.0);
    let width = (x0 + w0).min(x1 + w1) - x0.max(x1);
    let height = (y0 + h0).min(y1 + h1) - y0.max(y1);
    let both = width.max(0.0) * height.max(0.0);
    let twentieths = 20.0 * both / (area(d.bbox) + area(a.bbox) - both);
    (9.5..19.5).contains(&twentieths) && (twentieths - twentieths.round()).abs() < 1e-9
}
