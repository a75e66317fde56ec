//! Images that are there more than once, in one part or in two: the same file, the same image encoded
//! anew, or copies that Roboflow made of one source.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use super::{
    Examined, Options, Role, Watch,
    finding::{Example, Finding, Level, Shown, counted, percent},
    images::Seen,
    look::Likeness,
    neighbours::Index,
    structure::same_files,
};
use crate::error::{Result, unless_stopped};

/// Most images that one is compared with. Only of very many images that look nearly the same, as frames
/// of a fixed camera, more are near.
const MOST_COMPARED: usize = 4096;

/// An image: its part and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    part: usize,
    image: usize,
}

/// How an image is another one's copy.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Byte by byte, or the same file.
    Exact,
    /// It looks the same.
    Alike(Likeness),
}

impl Kind {
    fn words(self) -> String {
        match self {
            Self::Exact => "the same file".to_owned(),
            Self::Alike(Likeness { correlation, mirrored }) => {
                let mirrored = if mirrored { ", mirrored" } else { "" };
                // Never a rounded 1: the files differ.
                format!(
                    "alike (correlation {:.3}{mirrored})",
                    (1000.0 * correlation).floor() / 1000.0
                )
            }
        }
    }

    /// Better kinds are larger.
    fn rank(self) -> f64 {
        match self {
            Self::Exact => 2.0,
            Self::Alike(likeness) => likeness.correlation,
        }
    }
}

/// All images by what they look like.
struct Copies {
    /// Images of the same bytes, in order; every image is in one group.
    groups: Vec<Vec<At>>,
    /// The group of each image, by part and position; none for one that was not read.
    group_of: Vec<Vec<Option<u32>>>,
    /// Groups that look like a group, both ways, ascending.
    alike: Vec<Vec<(u32, Likeness)>>,
    /// Images with too little in them to compare.
    plain: usize,
    /// Images that have more neighbours than are compared.
    cut: usize,
}

/// Copies within each part and between each two, and Roboflow's groups.
pub(super) fn check(
    examined: &Examined<'_>,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Vec<Finding>> {
    let copies = Copies::find(examined, watch)?;
    let mut findings = Vec::new();
    let count = examined.parts.len();
    for b in 0..count {
        for a in 0..b {
            findings.extend(between(examined, &copies, (a, b), options));
            findings.extend(sources_between(examined, (a, b), options));
        }
        findings.extend(within(examined, &copies, b, options));
        findings.extend(sources_within(examined, b));
    }
    for (code, count, what) in [
        (
            "plain_images",
            copies.plain,
            "too little in them to be compared with others by their looks",
        ),
        ("not_all_compared", copies.cut, "so many near neighbours that not all were compared"),
    ] {
        if count > 0 {
            let text = format!("{} {what}", counted(count, "image has", "images have"));
            findings.push(Finding::new(code, Level::Note, "all", count, text));
        }
    }
    Ok(findings)
}

impl Copies {
    fn find(examined: &Examined<'_>, watch: &Watch<'_>) -> Result<Self> {
        let mut read: Vec<(&Seen, At)> = Vec::new();
        for (part, of_part) in examined.images.iter().enumerate() {
            let seen = of_part.iter().enumerate();
            read.extend(seen.filter_map(|(image, p)| Some((p.seen()?, At { part, image }))));
        }
        read.sort_by_key(|(seen, at)| (seen.bytes, *at));
        let mut firsts: Vec<(&Seen, Vec<At>)> = Vec::new();
        for (seen, at) in read {
            match firsts.last_mut() {
                Some((last, group)) if last.bytes == seen.bytes => group.push(at),
                _ => firsts.push((seen, vec![at])),
            }
        }
        // By their first image, so that nothing depends on what the bytes hash to.
        firsts.sort_by_key(|(_, group)| group[0]);
        let mut group_of: Vec<Vec<Option<u32>>> =
            examined.images.iter().map(|of_part| vec![None; of_part.len()]).collect();
        for (number, (_, group)) in (0..).zip(&firsts) {
            group.iter().for_each(|at| group_of[at.part][at.image] = Some(number));
        }
        let looks: Vec<&Seen> = firsts.iter().map(|(seen, _)| *seen).collect();
        let plain: Vec<bool> = looks.iter().map(|seen| seen.look.is_plain()).collect();
        let (pairs, cut) = alike(&looks, &plain, watch)?;
        let mut alike = vec![Vec::new(); firsts.len()];
        for (a, b, likeness) in pairs {
            alike[a as usize].push((b, likeness));
            alike[b as usize].push((a, likeness));
        }
        alike.iter_mut().for_each(|list| list.sort_by_key(|(group, _)| *group));
        let plain = firsts.iter().zip(&plain).filter(|(_, plain)| **plain);
        let plain = plain.map(|((_, group), _)| group.len()).sum();
        let groups = firsts.into_iter().map(|(_, group)| group).collect();
        Ok(Self { groups, group_of, alike, plain, cut })
    }

    /// Images of another or the same part that are copies of this one, of its file first.
    fn of(&self, at: At, part: usize) -> Vec<(At, Kind)> {
        let Some(group) = self.group_of[at.part][at.image] else { return Vec::new() };
        let of_part = |group: u32, kind: Kind| {
            let members = self.groups[group as usize].iter();
            members.filter(move |m| m.part == part && **m != at).map(move |&m| (m, kind))
        };
        let mut found: Vec<(At, Kind)> = of_part(group, Kind::Exact).collect();
        for &(other, likeness) in &self.alike[group as usize] {
            found.extend(of_part(other, Kind::Alike(likeness)));
        }
        found.sort_by(|(a, x), (b, y)| y.rank().total_cmp(&x.rank()).then(a.cmp(b)));
        found
    }
}

/// Pairs of groups that look alike, by their places.
type Pairs = Vec<(u32, u32, Likeness)>;

/// Pairs of looks that are alike, the smaller place first, in order; and how many have too many neighbours.
fn alike(seen: &[&Seen], plain: &[bool], watch: &Watch<'_>) -> Result<(Pairs, usize)> {
    let compared: Vec<u32> = (0..).zip(plain).filter(|(_, p)| !**p).map(|(i, _)| i).collect();
    let look = |place: u32| &seen[compared[place as usize] as usize].look;
    let index = Index::new((0..compared.len() as u32).map(|place| look(place).hash).collect());
    let cut = AtomicUsize::new(0);
    let of_one = |place: u32| {
        unless_stopped(watch.stop)?;
        let own = look(place);
        let mut near = Vec::new();
        for hash in [own.hash, own.mirrored_hash()] {
            index.near(hash, place + 1, |other| near.push(other));
        }
        near.sort_unstable();
        near.dedup();
        if near.len() > MOST_COMPARED {
            cut.fetch_add(1, Ordering::Relaxed);
            near.truncate(MOST_COMPARED);
        }
        let like = |other: u32| Some((place, other, own.likeness(look(other))?));
        Ok(near.into_iter().filter_map(like).collect::<Vec<_>>())
    };
    let found: Vec<Vec<_>> =
        (0..compared.len() as u32).into_par_iter().map(of_one).collect::<Result<_>>()?;
    let pairs = found.into_iter().flatten();
    let pairs = pairs.map(|(a, b, l)| (compared[a as usize], compared[b as usize], l)).collect();
    Ok((pairs, cut.into_inner()))
}

/// Images of the later part that are in the earlier one too.
fn between(
    examined: &Examined<'_>,
    copies: &Copies,
    (a, b): (usize, usize),
    options: &Options,
) -> Option<Finding> {
    let (first, second) = (&examined.parts[a], &examined.parts[b]);
    let mut found: Vec<(At, At, Kind)> = if first.store.is_some() && second.store.is_some() {
        let images = (0..second.files.len()).map(|image| At { part: b, image });
        images
            .filter_map(|at| copies.of(at, a).first().map(|&(other, kind)| (at, other, kind)))
            .collect()
    } else {
        let same = same_files(first, second).into_iter();
        same.map(|(i, j)| (At { part: b, image: j }, At { part: a, image: i }, Kind::Exact))
            .collect()
    };
    let exact = found.iter().filter(|(.., kind)| *kind == Kind::Exact).count();
    let total = found.len();
    // The surest first.
    found.sort_by(|(a, _, x), (b, _, y)| y.rank().total_cmp(&x.rank()).then(a.cmp(b)));
    let text = format!(
        "{} of {} ({}) also in {}: {exact} as the same file, {} that look the same",
        counted(total, "image", "images"),
        second.name(),
        percent(total, second.files.len()),
        first.name(),
        total - exact
    );
    let judged = [first, second].map(|part| matches!(part.role, Role::Val | Role::Test));
    let (level, advice) = match judged {
        [false, false] => (Level::Note, ""),
        [true, true] => (
            Level::Look,
            "take them out of one of the two: what was chosen by the one is not judged anew by the other",
        ),
        _ => (
            Level::Problem,
            "take them out of one of the two: the metrics are of images that were trained on",
        ),
    };
    let examples = found.iter().take(options.examples);
    let examples = examples.map(|&(at, other, kind)| pair(examined, other, at, kind)).collect();
    let parts = format!("{}, {}", first.name(), second.name());
    (total > 0).then(|| {
        Finding::new("copies_between_parts", level, parts, total, text)
            .advise(advice)
            .with(examples)
    })
}

/// Images of a part that repeat an earlier one.
fn within(
    examined: &Examined<'_>,
    copies: &Copies,
    at: usize,
    options: &Options,
) -> Option<Finding> {
    let part = &examined.parts[at];
    let source = |image: usize| roboflow_source(&part.files[image]);
    let mut found = Vec::new();
    for image in 0..part.files.len() {
        let own = source(image);
        let earlier = copies.of(At { part: at, image }, at).into_iter().find(|(other, _)| {
            // Copies by Roboflow are counted elsewhere.
            other.image < image && (own.is_none() || source(other.image) != own)
        });
        found.extend(earlier.map(|(other, kind)| (At { part: at, image }, other, kind)));
    }
    let exact = found.iter().filter(|(.., kind)| *kind == Kind::Exact).count();
    let total = found.len();
    found.sort_by(|(a, _, x), (b, _, y)| y.rank().total_cmp(&x.rank()).then(a.cmp(b)));
    let text = format!(
        "{} of {} ({}) an earlier one: {exact} as the same file, {} that look the same",
        counted(total, "image repeats", "images repeat"),
        part.name(),
        percent(total, part.files.len()),
        total - exact
    );
    let examples = found.iter().take(options.examples);
    let examples = examples.map(|&(at, other, kind)| pair(examined, other, at, kind)).collect();
    (total > 0).then(|| {
        Finding::new("copies_within", Level::Look, part.name(), total, text)
            .advise("keep one of each, if they are not meant to count twice")
            .with(examples)
    })
}

fn pair(examined: &Examined<'_>, first: At, second: At, kind: Kind) -> Example {
    let name = |at: At| &*examined.parts[at.part].files[at.image];
    let shown = |at: At| Shown { part: at.part, file: name(at).to_owned(), boxes: Vec::new() };
    let part = |at: At| examined.parts[at.part].name();
    let text = format!(
        "{}/{} and {}/{}: {}",
        part(first),
        name(first),
        part(second),
        name(second),
        kind.words()
    );
    Example { text, shown: vec![shown(first), shown(second)] }
}

/// The image that an image of a Roboflow export was made of: its name before `.rf.`.
fn roboflow_source(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let (source, rest) = name.rsplit_once(".rf.")?;
    let hash = rest.split('.').next().unwrap_or(rest);
    let is_hash = hash.len() >= 8 && hash.chars().all(|c| c.is_ascii_alphanumeric());
    is_hash.then_some(source)
}

/// The images of a part by their source.
fn sources<'a>(examined: &'a Examined<'_>, part: usize) -> HashMap<&'a str, Vec<usize>> {
    let mut sources: HashMap<&str, Vec<usize>> = HashMap::new();
    for (image, file) in examined.parts[part].files.iter().enumerate() {
        if let Some(source) = roboflow_source(file) {
            sources.entry(source).or_default().push(image);
        }
    }
    sources
}

fn sources_between(
    examined: &Examined<'_>,
    (a, b): (usize, usize),
    options: &Options,
) -> Option<Finding> {
    let of_first = sources(examined, a);
    let files = &examined.parts[b].files;
    let found: Vec<(usize, usize)> = (0..files.len())
        .filter_map(|image| Some((of_first.get(roboflow_source(&files[image])?)?[0], image)))
        .collect();
    let (first, second) = (&examined.parts[a], &examined.parts[b]);
    let text = format!(
        "{} of {} ({}) made from the same image as one of {}, by the name before `.rf.`",
        counted(found.len(), "image is", "images are"),
        second.name(),
        percent(found.len(), files.len()),
        first.name()
    );
    let examples = found.iter().take(options.examples).map(|&(i, j)| {
        let (x, y) = (&first.files[i], &second.files[j]);
        let shown = |part, file: &str| Shown { part, file: file.to_owned(), boxes: Vec::new() };
        let text = format!("{}/{x} and {}/{y}", first.name(), second.name());
        Example { text, shown: vec![shown(a, x), shown(b, y)] }
    });
    let parts = format!("{}, {}", first.name(), second.name());
    (!found.is_empty()).then(|| {
        Finding::new("roboflow_between_parts", Level::Problem, parts, found.len(), text)
            .advise("split by source image, before augmentation")
            .with(examples.collect())
    })
}

fn sources_within(examined: &Examined<'_>, at: usize) -> Option<Finding> {
    let of_part = sources(examined, at);
    let images: usize = of_part.values().map(Vec::len).sum();
    let copies = images - of_part.len();
    let text = format!(
        "{images} images of {} are Roboflow's copies of {}, {:.1} of each: counts of images and \
         boxes, and repeat factors, are that much too high",
        examined.parts[at].name(),
        crate::plural::counted(of_part.len(), "image"),
        images as f64 / of_part.len().max(1) as f64
    );
    (copies > 0).then(|| {
        Finding::new("roboflow_copies", Level::Look, examined.parts[at].name(), copies, text)
            .advise("export without augmentation: training augments by itself")
    })
}
