//! The classes: every one is a texture, a colour and a shape, so that each shares two of its
//! three attributes with others and must be told apart by the third.

use super::shapes::Shape;
use crate::random::{Random, Stream};

/// Red, green, blue in [0, 1].
pub(super) type Rgb = [f32; 3];

/// How the inside of a shape is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texture {
    Solid,
    Striped,
    Checkered,
    Dotted,
    Gradient,
}

impl Texture {
    pub(super) const ALL: [Self; 5] =
        [Self::Solid, Self::Striped, Self::Checkered, Self::Dotted, Self::Gradient];

    fn name(self) -> &'static str {
        match self {
            Self::Solid => "solid",
            Self::Striped => "striped",
            Self::Checkered => "checkered",
            Self::Dotted => "dotted",
            Self::Gradient => "gradient",
        }
    }
}

/// A named colour and the one its stripes, checks and dots alternate with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Colour {
    name: &'static str,
    pub(super) primary: Rgb,
    pub(super) secondary: Rgb,
}

const LIGHT: Rgb = [0.96, 0.95, 0.92];
const DARK: Rgb = [0.11, 0.11, 0.14];

const COLOURS: [Colour; 10] = [
    Colour { name: "red", primary: [0.85, 0.12, 0.13], secondary: LIGHT },
    Colour { name: "orange", primary: [0.98, 0.53, 0.08], secondary: DARK },
    Colour { name: "yellow", primary: [0.98, 0.87, 0.16], secondary: DARK },
    Colour { name: "green", primary: [0.14, 0.62, 0.22], secondary: LIGHT },
    Colour { name: "cyan", primary: [0.16, 0.82, 0.88], secondary: DARK },
    Colour { name: "blue", primary: [0.13, 0.28, 0.85], secondary: LIGHT },
    Colour { name: "purple", primary: [0.50, 0.16, 0.68], secondary: LIGHT },
    Colour { name: "pink", primary: [0.98, 0.52, 0.72], secondary: DARK },
    Colour { name: "brown", primary: [0.45, 0.26, 0.11], secondary: LIGHT },
    Colour { name: "white", primary: [0.95, 0.95, 0.95], secondary: DARK },
];

/// How many classes there can be.
pub(super) const MAX_CLASSES: usize = Texture::ALL.len() * COLOURS.len() * Shape::ALL.len();

/// One class of the set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Class {
    pub(super) texture: Texture,
    pub(super) colour: Colour,
    pub(super) shape: Shape,
}

impl Class {
    /// The name in annotation files, as `striped_red_star`.
    pub(super) fn name(&self) -> String {
        format!("{}_{}_{}", self.texture.name(), self.colour.name, self.shape.name())
    }

    /// A sentence for the annotation file.
    pub(super) fn definition(&self) -> String {
        let article = if self.colour.name == "orange" { "an" } else { "a" };
        let (colour, shape) = (self.colour.name, self.shape.name());
        match self.texture {
            Texture::Solid => format!("{article} {colour} {shape} of one plain tone"),
            Texture::Striped => format!("{article} {colour} {shape} with stripes"),
            Texture::Checkered => format!("{article} {colour} {shape} with checks"),
            Texture::Dotted => format!("{article} {colour} {shape} with dots"),
            Texture::Gradient => format!("{article} {colour} {shape} fading to another tone"),
        }
    }
}

/// Category id of the class at a position: from 1, with every seventh number left out. A program that takes
/// ids for positions then fails.
pub(super) fn category_id(position: usize) -> i64 {
    (position + 1 + position / 6) as i64
}

/// `count` classes in alphabetical order, and for each its rank by frequency (0 = most frequent).
///
/// Both depend on `count` alone: the seed of a set changes its images, not its classes, so that
/// a detector trained on one set can be evaluated on another. Half of the classes use attributes
/// as evenly as they can be; each other one differs from an earlier one in a single attribute.
pub(super) fn vocabulary(count: usize) -> (Vec<Class>, Vec<usize>) {
    let mut random = Random::new(0, Stream::Synth, super::step::VOCABULARY, count as u64);
    let mut pool: Vec<[usize; 3]> = (0..MAX_CLASSES)
        .map(|i| {
            let (rest, shape) = (i / Shape::ALL.len(), i % Shape::ALL.len());
            [rest / COLOURS.len(), rest % COLOURS.len(), shape]
        })
        .collect();
    random.shuffle(&mut pool);
    let mut used = [[0usize; 16]; 3];
    let mut chosen: Vec<[usize; 3]> = Vec::with_capacity(count);
    for turn in 0..count.min(MAX_CLASSES) {
        let rival = if turn % 2 == 1 { random.pick(&chosen).copied() } else { None };
        let cost = |combination: &[usize; 3]| {
            let differing = rival.map_or(1, |r| (0..3).filter(|&a| r[a] != combination[a]).count());
            let use_so_far: usize = (0..3).map(|a| used[a][combination[a]]).sum();
            (differing, use_so_far)
        };
        let best = pool.iter().enumerate().min_by_key(|(_, c)| cost(c)).map_or(0, |(i, _)| i);
        let combination = pool.remove(best);
        for (attribute, value) in combination.into_iter().enumerate() {
            used[attribute][value] += 1;
        }
        chosen.push(combination);
    }
    let mut classes: Vec<Class> = chosen
        .into_iter()
        .map(|[texture, colour, shape]| Class {
            texture: Texture::ALL[texture],
            colour: COLOURS[colour],
            shape: Shape::ALL[shape],
        })
        .collect();
    classes.sort_by_key(Class::name);
    let mut ranks: Vec<usize> = (0..classes.len()).collect();
    random.shuffle(&mut ranks);
    (classes, ranks)
}
