//! What a teacher sees in the images of each class decides where names do not, and finds wrong entries.
//!
//! The teacher looks at some images of each class of FROM (50 are enough) and says how probable each class
//! of TO is. The mean over a class's images is compared with the mean over all classes: a teacher that
//! sees a class of TO everywhere says nothing by it. This is arithmetic; who runs the teacher is not its
//! matter.

use crate::error::{Error, Result};

/// Most candidates of a class.
pub const MOST: usize = 5;

/// Images of an average class that a class's own are mixed with: a few images say little.
const PSEUDO_IMAGES: f64 = 2.0;

/// Weight of TO's classes for which no name speaks, all together.
const UNNAMED: f64 = 0.05;

/// How fast a mean without a peak turns into "none".
const STEEPNESS: f64 = 2.0;

/// What a teacher saw in images of one class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Number of images.
    pub images: usize,
    /// Mean probability of each class of TO, in its order. Empty without images.
    pub mean: Vec<f64>,
    /// Mean entropy of the images' distributions, in nats.
    pub entropy: f64,
}

impl Seen {
    /// Of one distribution over TO's classes per image (softmax: they sum to 1). None if they differ in
    /// length, or a number is negative or not finite.
    #[must_use]
    pub fn of<'a>(distributions: impl IntoIterator<Item = &'a [f32]>) -> Option<Self> {
        let mut seen = Self::default();
        for distribution in distributions {
            if seen.images == 0 {
                seen.mean = vec![0.0; distribution.len()];
            }
            let valid = distribution.iter().all(|p| p.is_finite() && *p >= 0.0);
            if !valid || distribution.len() != seen.mean.len() {
                return None;
            }
            for (sum, &p) in seen.mean.iter_mut().zip(distribution) {
                let p = f64::from(p);
                *sum += p;
                seen.entropy -= if p > 0.0 { p * p.ln() } else { 0.0 };
            }
            seen.images += 1;
        }
        let images = seen.images.max(1) as f64;
        seen.mean.iter_mut().for_each(|sum| *sum /= images);
        seen.entropy /= images;
        Some(seen)
    }

    /// How clearly one class stands out: the logarithm of the largest mean over the second, less half of
    /// the images' entropy. Above 0, TO probably has the class.
    #[must_use]
    pub fn peak(&self) -> f64 {
        let mut sorted = self.mean.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let margin = match sorted[..] {
            [first, second, ..] if second > 0.0 => (first / second).ln(),
            [first, ..] if first > 0.0 => f64::INFINITY,
            _ => 0.0,
        };
        margin - self.entropy / 2.0
    }
}

/// An entry of a mapping that the images speak against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspect {
    /// Place of the class in FROM.
    pub from: usize,
    /// The class of TO that its images show instead.
    pub better: usize,
    /// Logarithm of how many times more the images speak for `better` than for the entry; above 0.
    pub score: f64,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// The most suspect first.
    pub suspects: Vec<Suspect>,
    /// Places in FROM of classes that are mapped and have no images: nothing is known of them.
    pub unseen: Vec<usize>,
}

/// Looks for wrong entries. `map` has for each class of FROM its classes of TO (none: not audited), `seen`
/// what the teacher saw, in the same order.
///
/// # Errors
/// Lists of different lengths, distributions over different numbers of classes, entries beyond them.
pub fn audit(map: &[Vec<usize>], seen: &[Seen]) -> Result<Audit> {
    let lifts = lifts(seen)?;
    if map.len() != seen.len() {
        let problem = format!("{} entries, and distributions of {}", map.len(), seen.len());
        return Err(Error::other(format!("the mapping has {problem} classes")));
    }
    let mut audit = Audit::default();
    for (from, (entry, lifts)) in map.iter().zip(&lifts).enumerate() {
        if entry.is_empty() {
            continue;
        }
        if lifts.is_empty() {
            audit.unseen.push(from);
            continue;
        }
        if let Some(beyond) = entry.iter().find(|&&to| to >= lifts.len()) {
            let problem = format!("class {beyond} of {}, counted from 0", lifts.len());
            return Err(Error::other(format!("the mapping's entry {from} names {problem}")));
        }
        let given = entry.iter().map(|&to| lifts[to]).fold(0.0, f64::max);
        let others = lifts.iter().enumerate().filter(|(to, _)| !entry.contains(to));
        let better = others.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        if let Some((better, lift)) = better.filter(|(_, lift)| **lift > given) {
            audit.suspects.push(Suspect { from, better, score: (lift / given).ln() });
        }
    }
    audit.suspects.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.from.cmp(&b.from)));
    Ok(audit)
}

/// Probabilities of a class's counterparts by names and images together.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// Places in TO with their probabilities, the most probable first, at most five.
    pub classes: Vec<(usize, f64)>,
    /// Probability that TO has no such class.
    pub none: f64,
}

/// Puts together what names say (`priors`: for each class of FROM, candidates' places in TO and
/// confidences) and what the teacher saw. Without images, names alone count.
///
/// # Errors
/// As [`audit`].
pub fn combine(priors: &[Vec<(usize, f64)>], seen: &[Seen]) -> Result<Vec<Posterior>> {
    let lifts = lifts(seen)?;
    if priors.len() != seen.len() {
        let problem = format!("{} classes, and distributions of {}", priors.len(), seen.len());
        return Err(Error::other(format!("the candidates are of {problem}")));
    }
    let both = priors.iter().zip(seen).zip(&lifts);
    both.map(|((prior, seen), lifts)| posterior(prior, seen, lifts)).collect()
}

fn posterior(prior: &[(usize, f64)], seen: &Seen, lifts: &[f64]) -> Result<Posterior> {
    let open = (1.0 - prior.iter().map(|(_, p)| p).sum::<f64>()).max(0.0);
    let mut classes: Vec<(usize, f64)> = prior.to_vec();
    let mut none = open.max(1e-6);
    if !lifts.is_empty() {
        let each = UNNAMED / lifts.len() as f64;
        let mut weights = vec![each; lifts.len()];
        for &(to, p) in prior {
            let problem = || Error::other(format!("candidate {to} is beyond the distributions"));
            *weights.get_mut(to).ok_or_else(problem)? += p;
        }
        // Where nothing stands out, "none" is as likely as the class that the images show most.
        let most = lifts.iter().copied().fold(0.0, f64::max);
        none *= most * (-STEEPNESS * seen.peak()).exp().min(1.0);
        classes = weights.iter().zip(lifts).map(|(w, lift)| w * lift).enumerate().collect();
    }
    let sum = none + classes.iter().map(|(_, weight)| weight).sum::<f64>();
    classes.iter_mut().for_each(|(_, weight)| *weight /= sum);
    classes.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    classes.truncate(MOST);
    Ok(Posterior { classes, none: none / sum })
}

/// How many times more probable each class of TO is in the images of each class of FROM than on average.
/// Empty where there are no images.
pub(super) fn lifts(seen: &[Seen]) -> Result<Vec<Vec<f64>>> {
    let with_images = || seen.iter().filter(|seen| seen.images > 0);
    let width = with_images().map(|seen| seen.mean.len()).next().unwrap_or(0);
    if let Some(other) = with_images().find(|seen| seen.mean.len() != width) {
        let problem = format!("{width} and {}", other.mean.len());
        return Err(Error::other(format!(
            "distributions over different numbers of classes: {problem}"
        )));
    }
    // One class more that shows all alike: an average over few classes is their own.
    let mut average = vec![1.0 / width.max(1) as f64; width];
    for seen in with_images() {
        for (sum, p) in average.iter_mut().zip(&seen.mean) {
            *sum += p;
        }
    }
    let count = (with_images().count() + 1) as f64;
    average.iter_mut().for_each(|sum| *sum /= count);
    let of = |seen: &Seen| -> Vec<f64> {
        let images = seen.images as f64;
        let pairs = seen.mean.iter().zip(&average);
        let mixed = |(p, a): (&f64, &f64)| {
            (images * p + PSEUDO_IMAGES * a) / ((images + PSEUDO_IMAGES) * a)
        };
        pairs.map(mixed).collect()
    };
    Ok(seen.iter().map(of).collect())
}
