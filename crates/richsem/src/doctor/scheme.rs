//! What a set's numbers say about how to train on it, as settings that `richsem train` takes.
//!
//! A pure function: [`Numbers`] in, a [`Scheme`] out. Each piece of advice has the number it rests on and
//! where the rule is from; where the numbers say nothing, there is none. Nothing is said of batch size and
//! learning rate: no number of a set decides those.

use std::fmt::Write as _;

use serde::Serialize;
pub use toml::Value;

use super::sizes::{Density, Sizes};
use crate::plural::{among, clause};
use crate::{losses::federated::FederatedConfig, vocabulary::Frequency};

/// Images of a class from which on LVIS counts it as frequent, and does not repeat it: t = 0.001 of 100,170
/// images (arXiv 1908.03195, appendix B.2).
const FREQUENT: f64 = 100.0;

/// Of LVIS v1's 1203 classes 405 are frequent. Elsewhere, too, about this share of the classes is not
/// repeated: in a small set all classes may have few images, and then only the differences matter.
const SHARE_FREQUENT: f64 = 405.0 / 1203.0;

/// Least repeat factor of the rarest class that is worth a sampler.
const LEAST_REPEAT: f64 = 1.4;

/// Share of the classes that an image must say something about for its silence to mean absence.
const ALL_VERIFIED: f64 = 0.99;

/// Steps of the settings: queries in hundreds, sizes in 32 pixels.
const QUERY_STEP: usize = 100;
const SIZE_STEP: usize = 32;

/// Classes that advice names.
const NAMED: usize = 12;

/// A class, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassNumbers {
    /// Its name.
    pub name: String,
    /// Training images that show it.
    pub images: usize,
    /// Extra classification images of it.
    pub extra: usize,
    /// Its group.
    pub frequency: Frequency,
}

/// What is known of a set's place: `data.train`, `data.val` or an extra set, as settings have it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Place {
    /// The key, as `data.train` or `data.extra.imagenet`.
    pub key: String,
    /// The settings below that key, in order: name and value.
    pub settings: Vec<(String, Value)>,
}

/// What a scheme rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Numbers {
    /// Where the data is; copied into the settings.
    pub places: Vec<Place>,
    /// Training images.
    pub images: usize,
    /// The classes.
    pub classes: Vec<ClassNumbers>,
    /// Mean share of the classes that a training image says something about (present, or verified absent);
    /// none where the format shows all classes in every image.
    pub verified: Option<f64>,
    /// How many boxes the training images have.
    pub density: Density,
    /// How large their objects are.
    pub sizes: Sizes,
    /// Most boxes of an image that is evaluated; 0 without a validation part.
    pub most_judged: usize,
    /// Most detections of an image that count in evaluation (`eval.max_detections`).
    pub max_detections: usize,
    /// Whether there are extra classification images.
    pub has_extra: bool,
}

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The setting, as `data.sampler`; empty of advice that is no setting.
    pub key: String,
    /// Its value; none where the default is right, or where it is no setting.
    pub value: Option<Value>,
    /// What and why, with the number it rests on.
    pub why: String,
    /// Where the rule is from.
    pub source: &'static str,
}

/// All advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scheme {
    /// In the order in which it matters.
    pub advice: Vec<Advice>,
    /// As a settings file.
    pub toml: String,
}

/// The scheme of these numbers.
#[must_use]
pub fn scheme(numbers: &Numbers) -> Scheme {
    let all = [
        sampler(numbers),
        verified(numbers),
        extra(numbers),
        queries(numbers),
        detections(numbers),
    ];
    let mut advice: Vec<Advice> = all.into_iter().flatten().collect();
    advice.extend(resolution(numbers));
    let toml = toml(numbers, &advice);
    Scheme { advice, toml }
}

/// A value from TOML's text.
fn value(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("v = {text}")).ok()?;
    table.remove("v")
}

/// The threshold below which classes are repeated, as a share of the images; none where nothing gains by it.
fn sampler(numbers: &Numbers) -> Option<Advice> {
    let mut images: Vec<usize> =
        numbers.classes.iter().map(|class| class.images).filter(|&n| n > 0).collect();
    images.sort_unstable();
    let rarest = *images.first()? as f64;
    let kept = (SHARE_FREQUENT * images.len() as f64).round() as usize;
    let head = images[images.len() - kept.clamp(1, images.len())] as f64;
    let limit = FREQUENT.min(head);
    let repeat = (limit / rarest).sqrt();
    if repeat < LEAST_REPEAT {
        return None;
    }
    let total = numbers.images.max(1) as f64;
    let threshold = rounded(limit / total);
    let repeated = images.iter().filter(|&&n| (n as f64) < threshold * total).count();
    let why = format!(
        "{} in fewer than {limit:.0} of {} images, the rarest in {rarest:.0}: it is \
         shown {repeat:.1} times as often. LVIS's 0.001 would repeat classes in fewer than {:.1} images",
        among(repeated, images.len(), "class", ["is", "are"]),
        numbers.images,
        0.001 * total
    );
    Some(Advice {
        key: "data.sampler".to_owned(),
        value: value(&format!("{{ kind = \"repeat_factor\", threshold = {threshold:?} }}")),
        why,
        source: "arXiv 1908.03195, appendix B.2: r(c) = max(1, sqrt(t / f(c))); 100 images of LVIS's 100,170 \
                 are t = 0.001",
    })
}

/// Two significant digits, at most 1.
fn rounded(share: f64) -> f64 {
    let power = 10f64.powi(1 - share.log10().floor() as i32);
    ((share * power).round() / power).min(1.0)
}

/// Whether silence about a class means that it is absent.
fn verified(numbers: &Numbers) -> Option<Advice> {
    let classes = numbers.classes.len();
    let default = FederatedConfig::default();
    match numbers.verified {
        Some(share) if share < ALL_VERIFIED => {
            let silent = format!(
                "an image says of {:.1} of {classes} classes whether they are in it; the others may be there \
                 without a box",
                share * classes as f64
            );
            Some(if classes > default.classes {
                Advice {
                    key: "loss.federated".to_owned(),
                    value: value(&format!(
                        "{{ classes = {}, power = {:?} }}",
                        default.classes, default.power
                    )),
                    why: silent,
                    source: "arXiv 2201.02605 (Detic): a loss looks at 50 classes, drawn by the root of their \
                             images",
                }
            } else {
                Advice {
                    key: "loss.unknown_classes".to_owned(),
                    value: value("\"ignore\""),
                    why: format!(
                        "{silent}. With {classes} classes a federated loss over {} would look at all of them",
                        default.classes
                    ),
                    source: "arXiv 1908.03195, section 3: a class that is not verified in an image is not \
                             evaluated there",
                }
            })
        }
        Some(share) => Some(absent(format!(
            "no federated loss: an image says of {:.1} % of {classes} classes whether they are in it, so that \
             absence is verified",
            100.0 * share
        ))),
        None if classes > default.classes => Some(absent(format!(
            "no federated loss: the format shows all {classes} classes in every image. Where that is not so, \
             say it in the annotations (neg_category_ids)"
        ))),
        None => None,
    }
}

fn absent(why: String) -> Advice {
    Advice {
        key: String::new(),
        value: None,
        why,
        source: "arXiv 1908.03195, section 3: a federated loss is for sets whose silence means nothing",
    }
}

/// Classes that lack images most, those without extra ones first.
fn extra(numbers: &Numbers) -> Option<Advice> {
    let mut rare: Vec<&ClassNumbers> = numbers
        .classes
        .iter()
        .filter(|c| c.frequency == Frequency::Rare && c.extra < c.images.max(1))
        .collect();
    let all = numbers.classes.iter().filter(|c| c.frequency == Frequency::Rare).count();
    if rare.is_empty() {
        return None;
    }
    // Stable: of equals the first class first.
    rare.sort_by_key(|class| class.images + class.extra);
    let named = rare.iter().take(NAMED).map(|c| format!("{} ({})", c.name, c.images + c.extra));
    let more = if rare.len() > NAMED { ", …" } else { "" };
    let lacking = if numbers.has_extra {
        format!("{} of them have fewer extra images than training images", rare.len())
    } else {
        "classification images of them help most (`data.extra`); --extra says what a set has"
            .to_owned()
    };
    let why = format!(
        "{} rare (at most 10 images). {lacking}: {}{more}",
        among(all, numbers.classes.len(), "class", ["is", "are"]),
        named.collect::<Vec<_>>().join(", ")
    );
    Some(Advice {
        key: String::new(),
        value: None,
        why,
        source: "arXiv 2201.02605 (Detic): +4 to +12 AP on rare and novel classes; arXiv 2310.12152, table 1. \
                 How many images a class needs is not known",
    })
}

/// More queries than an image has objects.
fn queries(numbers: &Numbers) -> Option<Advice> {
    let Density { most, queries, beyond, fullest, .. } = &numbers.density;
    if most <= queries {
        return None;
    }
    let wanted = most.next_multiple_of(QUERY_STEP);
    let why = format!(
        "{} more boxes than the detector has queries ({queries}), {fullest} has {most}: an image has no more \
         detections than queries",
        clause(*beyond, "image", ["has", "have"])
    );
    Some(Advice {
        key: "model.dino.transformer.num_queries".to_owned(),
        value: i64::try_from(wanted.min(10_000)).ok().map(Value::Integer),
        why,
        source: "arXiv 2005.12872 (DETR), section 3: N queries, more than objects in an image",
    })
}

/// As many detections as an evaluated image has boxes.
fn detections(numbers: &Numbers) -> Option<Advice> {
    let (most, allowed) = (numbers.most_judged, numbers.max_detections);
    (most > allowed).then(|| Advice {
        key: "eval.max_detections".to_owned(),
        value: i64::try_from(most.next_multiple_of(QUERY_STEP)).ok().map(Value::Integer),
        why: format!(
            "an image of the validation part has {most} boxes, and {allowed} detections of each image count. \
             The protocols of COCO (100) and LVIS (300) have the fewer: say so beside the number"
        ),
        source: "arXiv 2102.01066, section 3: a limit of detections an image lowers the AP of crowded sets",
    })
}

/// A size at which few objects become too small to see.
fn resolution(numbers: &Numbers) -> Vec<Advice> {
    let sizes = &numbers.sizes;
    let Some(size) = sizes.needed else { return Vec::new() };
    let percent = |part: usize| 100.0 * part as f64 / sizes.boxes.max(1) as f64;
    let step = |length: f64| (length / SIZE_STEP as f64).ceil() as u32 * SIZE_STEP as u32;
    let ratio = f64::from(sizes.scale.max_size) / f64::from(sizes.scale.size);
    let max_size = (f64::from(size) * ratio).ceil() as u32;
    let smallest =
        step(f64::from(size) * f64::from(sizes.scale.smallest) / f64::from(sizes.scale.size));
    let scales: Vec<String> =
        (smallest.min(size)..=size).step_by(SIZE_STEP).map(|s| s.to_string()).collect();
    let why = format!(
        "resized to {} pixels, {:.1} % of the boxes that are larger in the file are below 16 pixels ({:.1} % of \
         all are); at {size} fewer than 5 %. Memory and time grow with the square",
        sizes.scale.size,
        percent(sizes.lost),
        percent(sizes.by_side[0])
    );
    let source = "16 pixels are two cells of the detector's finest map (stride 8); arXiv 2005.12872, section \
                  A.4: scales of training up to that of evaluation";
    let advice = |key: &str, text: String, why: &str| Advice {
        key: key.to_owned(),
        value: value(&text),
        why: why.to_owned(),
        source,
    };
    vec![
        advice("data.resize", format!("{{ size = {size}, max_size = {max_size} }}"), &why),
        advice(
            "data.augment",
            format!("{{ scales = [{}], max_size = {max_size} }}", scales.join(", ")),
            &format!("the same sizes in training, {} of them", scales.len()),
        ),
    ]
}

/// The settings, each below the reason for it.
fn toml(numbers: &Numbers, advice: &[Advice]) -> String {
    let mut text = String::from("version = 1\n");
    for place in &numbers.places {
        let _ = write!(text, "\n[{}]\n", place.key);
        for (name, value) in &place.settings {
            let _ = writeln!(text, "{name} = {value}");
        }
    }
    for piece in advice {
        let _ = write!(text, "\n{}", comment(&format!("{} ({})", piece.why, piece.source)));
        let Some(value) = &piece.value else { continue };
        // A table of its own for each: the keys above may stand in the same section.
        if let Value::Table(table) = value {
            let _ = writeln!(text, "[{}]", piece.key);
            for (name, value) in table {
                let _ = writeln!(text, "{name} = {value}");
            }
        } else if let Some((section, name)) = piece.key.rsplit_once('.') {
            let _ = write!(text, "[{section}]\n{name} = {value}\n");
        }
    }
    text
}

/// Lines of at most about 100 letters.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() > 100 {
            let _ = writeln!(lines, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(lines, "{line}");
    lines
}
