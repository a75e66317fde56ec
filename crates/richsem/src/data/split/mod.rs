//! A set in one piece, divided into parts: so that classes are on all sides, and images that belong together
//! on one (`assign`).

mod assign;

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    path::Path,
    sync::atomic::AtomicBool,
};

use regex::Regex;

use self::assign::{Group, assign};
use crate::{
    argument::Argument,
    data::{
        Reading,
        convert::{
            Conversion, ConversionReport, Part, PutImages, Target, refuse_full, write_parts,
        },
        dataset::{AnnotationFormat, Dataset},
        formats,
        reading::until,
    },
    error::{Error, Result},
    plural::counted,
};

/// How to divide a set.
#[derive(Debug, Clone)]
pub struct Division {
    /// The parts, in order, with their shares of the images: positive, their sum 1; or whole numbers, whose sum
    /// is taken as all.
    pub parts: Vec<(String, f64)>,
    /// What images that stay together have in common, by their names: the first group of this pattern, or
    /// all that it matches. An image that it does not match is alone. Default: Roboflow's copies of one
    /// image, by what is before `.rf.`.
    pub group: Option<Regex>,
    /// Other seeds give other parts.
    pub seed: u64,
}

impl Division {
    /// A pattern for `group`.
    ///
    /// # Errors
    /// A text that is no regular expression; why, in one line.
    pub fn pattern(text: &str) -> std::result::Result<Regex, String> {
        Regex::new(text).map_err(|error| {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!(
                "`{}` is no regular expression: {why}",
                text.lines().nth(1).unwrap_or_default().trim()
            )
        })
    }
}

/// What became of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DividedClass {
    /// Its name.
    pub name: String,
    /// Images that show it, in each part.
    pub images: Vec<usize>,
}

/// A set that was divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DivisionReport {
    /// The parts, as [`super::convert`] writes them.
    pub written: ConversionReport,
    /// Each class in each part, the rarest first.
    pub classes: Vec<DividedClass>,
    /// Groups of more than one image, and how many images they have in all.
    pub groups: (usize, usize),
    /// How many names of images the pattern of [`Division::group`] matches, and how many there are; none without
    /// a pattern.
    pub matched: Option<(usize, usize)>,
}

/// The pattern of Roboflow's copies: `name_jpg.rf.0123abc….jpg`.
const ROBOFLOW: &str = r"^(.*)\.rf\.[0-9A-Za-z]+\.[^.]+$";

/// Divides the set at `input`, and writes its parts to the folder `output` as COCO (LVIS, where classes are
/// verified image by image). `how` says how the set is opened, and what becomes of its images: by default links
/// lead to those of a folder, and those of an archive are copied out of it. Its target is not looked at.
/// `progress` is as in [`Dataset::open_with`].
///
/// # Errors
/// A set that has parts already, of which `how.opening.split` names none; fewer than two parts, or shares that
/// are not positive; a part without images; as [`super::convert::convert`].
pub fn divide(
    input: &Path,
    output: &Path,
    division: &Division,
    how: &Conversion,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
) -> Result<DivisionReport> {
    let shares = shares(division)?;
    refuse_full(output, how.overwrite)?;
    let parts = formats::splits(input, &how.opening)?;
    if parts.len() > 1 && how.opening.split.is_none() {
        let problem = format!("the set has parts already: {}", parts.join(", "));
        return Err(Error::invalid(input, "split", problem).with_hint(format!(
            "nothing need be divided then; to divide one of them, name it with {}",
            Argument::Split
        )));
    }
    let set = Dataset::open_with(input, &how.opening, &mut until(stop, progress))?;
    let pattern = match &division.group {
        Some(pattern) => pattern.clone(),
        None => Regex::new(ROBOFLOW).expect("a test uses the pattern"),
    };
    let matched = matched(&set, division)?;
    let members = members(&set, &pattern);
    let groups: Vec<Group> = members.iter().map(|images| group(&set, images)).collect();
    let assigned = assign(&groups, set.vocabulary().len(), &shares, division.seed);
    let mut of_image = vec![0; set.images().len()];
    for (images, &part) in members.iter().zip(&assigned) {
        images.iter().for_each(|&image| of_image[image] = part);
    }
    let mut report = ConversionReport::default();
    report.notes.extend(counted_anew(&set));
    let parts = cut(set, division, &of_image);
    if let Some((name, _)) = parts.iter().find(|(_, set)| set.images().is_empty()) {
        let problem = format!("the part `{name}` would have no images");
        return Err(Error::invalid(input, "parts", problem)
            .with_hint("give it a larger share, or smaller groups"));
    }
    let classes = classes(&parts);
    let several = members.iter().filter(|images| images.len() > 1);
    let groups = several.fold((0, 0), |(n, all), images| (n + 1, all + images.len()));
    let target = match parts[0].1.format() {
        AnnotationFormat::Coco => Target::Coco,
        AnnotationFormat::Lvis => Target::Lvis,
    };
    // Files of their own need no more place: the parts are then found with their images.
    let in_folder = parts[0].1.images_at().is_some_and(Path::is_dir);
    let images = how.images.or(in_folder.then_some(PutImages::Link));
    let how = Conversion { target, images, ..how.clone() };
    let written = write_parts(input, parts, output, &how, report, stop)?;
    Ok(DivisionReport { written, classes, groups, matched })
}

/// The shares, their sum 1.
fn shares(division: &Division) -> Result<Vec<f64>> {
    let parts = &division.parts;
    let refuse = |problem: String| {
        Err(Error::config("parts", problem).with_hint("for example train=0.8,val=0.2"))
    };
    if parts.len() < 2 {
        return refuse(format!("expected at least two parts, got {}", parts.len()));
    }
    for (at, (name, share)) in parts.iter().enumerate() {
        let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return refuse(format!("expected a name of letters, digits, _ and -, got `{name}`"));
        }
        if parts[..at].iter().any(|(other, _)| other == name) {
            return refuse(format!("`{name}` is there twice"));
        }
        if !(*share > 0.0 && share.is_finite()) {
            return refuse(format!("expected a share above 0 for `{name}`, got {share}"));
        }
    }
    let sum: f64 = parts.iter().map(|(_, share)| share).sum();
    // Thirds are written as 0.33.
    let is_all = (sum - 1.0).abs() < 0.015 || parts.iter().all(|(_, share)| share.fract() == 0.0);
    if !is_all {
        let sum = (sum * 1e6).round() / 1e6;
        return refuse(format!("expected shares that add up to 1, or whole numbers, got {sum}"));
    }
    Ok(parts.iter().map(|(_, share)| share / sum).collect())
}

/// How many names the pattern matches, if one is given: it must be some.
fn matched(set: &Dataset, division: &Division) -> Result<Option<(usize, usize)>> {
    let Some(pattern) = &division.group else { return Ok(None) };
    let names = || set.images().iter().map(|image| image.file_name.as_str());
    let matched = names().filter(|name| pattern.is_match(name)).count();
    if let (0, Some(first)) = (matched, names().next()) {
        let problem =
            format!("`{pattern}` matches none of the {} names, as `{first}`", set.images().len());
        return Err(Error::config("group", problem).with_hint(
            "write what names of images that stay together have in common, or leave it out",
        ));
    }
    Ok(Some((matched, set.images().len())))
}

/// The images that stay together, each image in one list.
fn members(set: &Dataset, pattern: &Regex) -> Vec<Vec<usize>> {
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (image, record) in set.images().iter().enumerate() {
        let key = pattern.captures(&record.file_name).and_then(|found| {
            let whole = found.get(0);
            found.get(1).or(whole).map(|part| part.as_str())
        });
        match key {
            None => members.push(vec![image]),
            Some(key) => {
                let group = *at.entry(key).or_insert(members.len());
                if group == members.len() {
                    members.push(Vec::new());
                }
                members[group].push(image);
            }
        }
    }
    members
}

fn group(set: &Dataset, images: &[usize]) -> Group {
    let mut shows: BTreeMap<usize, usize> = BTreeMap::new();
    for &image in images {
        for class in set.knowledge(image).present {
            *shows.entry(class.0 as usize).or_default() += 1;
        }
    }
    Group { images: images.len(), shows: shows.into_iter().collect() }
}

/// A note on counts of classes that the file gives: they are those of the whole, and no part's.
fn counted_anew(set: &Dataset) -> Option<String> {
    let classes = set.class_records().iter();
    let given =
        classes.filter(|class| class.image_count.is_some() || class.instance_count.is_some());
    let given = given.count();
    (given > 0).then(|| {
        format!(
            "image_count and instance_count of {} in the file are of the whole set: they are replaced by counts \
             of the boxes, and with them a frequency that follows from them",
            counted(given, "class")
        )
    })
}

fn cut(set: Dataset, division: &Division, of_image: &[usize]) -> Vec<Part> {
    let parts = division.parts.iter().enumerate().map(|(at, (name, _))| {
        let kept: Vec<bool> = of_image.iter().map(|&part| part == at).collect();
        let mut part = set.clone();
        part.keep(&kept, name);
        (name.clone(), part)
    });
    parts.collect()
}

fn classes(parts: &[Part]) -> Vec<DividedClass> {
    let Some((_, first)) = parts.first() else { return Vec::new() };
    let mut classes: Vec<DividedClass> = first
        .vocabulary()
        .categories()
        .iter()
        .enumerate()
        .map(|(class, category)| DividedClass {
            name: category.name.clone(),
            images: parts
                .iter()
                .map(|(_, set)| set.vocabulary().categories()[class].image_count as usize)
                .collect(),
        })
        .collect();
    classes.sort_by_key(|class| class.images.iter().sum::<usize>());
    classes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
