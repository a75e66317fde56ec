//! One image: ground, clutter, objects that may hide parts of each other, and what of each
//! object is left to see.

use super::{
    classes::{Class, Rgb, Texture},
    draw::{Canvas, Fill, Mask, Thing, from_hsv, mix, range},
    shapes::Outline,
};
use crate::{boxes::Xywh, random::Random};
use image::RgbImage;
use std::f32::consts::{PI, TAU};

/// An object shows at least this part of itself; the rest is hidden by others or by the border.
const LEAST_VISIBLE: f64 = 0.4;
/// The box of what is visible is at least this wide and high, in pixels.
const LEAST_SIDE: u32 = 8;
/// Places tried for one object before it is given up.
const ATTEMPTS: usize = 40;

/// An object that an image is to show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Position of its class in the vocabulary.
    pub(super) class: usize,
    /// Least and greatest diameter in pixels of the circle around it.
    pub(super) diameter: (f32, f32),
    /// Where its centre may lie: 0 the middle of the image, 1 all of it.
    pub(super) spread: f32,
}

/// An object as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) class: usize,
    /// Tight box of the visible pixels.
    pub(super) bbox: Xywh,
    /// Number of visible pixels.
    pub(super) area: u32,
}

/// Draws the wanted objects, the first ones with the best chance to find a place, and reports
/// those that found one. Whatever is drawn of a class is reported: no object is left unlabelled.
pub(super) fn compose(
    random: &mut Random,
    (width, height): (u32, u32),
    wanted: &[Wanted],
    classes: &[Class],
) -> (RgbImage, Vec<Seen>) {
    let mut canvas = ground(random, width, height);
    for _ in 0..random.between(8, 20) {
        canvas.paint(&clutter(random, width, height, classes));
    }
    let mut stage = Stage { width, height, placed: Vec::new() };
    for &wanted in wanted {
        // Below or above those already there: rare classes, placed first, are not always hidden.
        for attempt in 0..ATTEMPTS {
            let depth = random.below(stage.placed.len() + 1);
            // The longer the search, the smaller the object.
            let (low, high) = wanted.diameter;
            let high = high + (low - high) * attempt as f32 / ATTEMPTS as f32;
            let wanted = Wanted { diameter: (low, high), ..wanted };
            let thing = object(random, width, height, wanted, &classes[wanted.class]);
            if stage.place(depth, thing, Some(wanted.class)) {
                break;
            }
        }
    }
    // Things of no class in front.
    for _ in 0..random.below(4) {
        let thing = Thing { opacity: 1.0, ..clutter(random, width, height, classes) };
        stage.place(stage.placed.len(), thing, None);
    }
    for item in &stage.placed {
        canvas.paint(&item.thing);
    }
    let seen = stage
        .placed
        .iter()
        .zip(stage.visible())
        .filter_map(|(item, visible)| {
            let ([x0, y0, x1, y1], class) = (visible.corners, item.class?);
            let bbox = Xywh([x0, y0, x1 - x0, y1 - y0].map(f64::from));
            Some(Seen { class, bbox, area: visible.area })
        })
        .collect();
    (canvas.develop(random), seen)
}

struct Item {
    thing: Thing,
    mask: Mask,
    class: Option<usize>,
}

/// The part of an item that nothing hides.
#[derive(Clone, Copy)]
struct Visible {
    area: u32,
    /// First column and row, one past the last column and row.
    corners: [u32; 4],
}

/// What has found its place so far, from the rearmost to the foremost.
struct Stage {
    width: u32,
    height: u32,
    placed: Vec<Item>,
}

impl Stage {
    /// Puts a thing at a depth, unless that hides too much of it or of another object.
    fn place(&mut self, depth: usize, thing: Thing, class: Option<usize>) -> bool {
        let mask = thing.mask(self.width, self.height);
        self.placed.insert(depth, Item { thing, mask, class });
        let fits = self.placed.iter().zip(self.visible()).all(|(item, visible)| {
            let [x0, y0, x1, y1] = visible.corners;
            item.class.is_none()
                || f64::from(visible.area) >= LEAST_VISIBLE * item.mask.whole as f64
                    && x1.saturating_sub(x0) >= LEAST_SIDE
                    && y1.saturating_sub(y0) >= LEAST_SIDE
        });
        if !fits {
            self.placed.remove(depth);
        }
        fits
    }

    /// By item, what can be seen of it.
    fn visible(&self) -> Vec<Visible> {
        let mut owner = vec![0u16; self.width as usize * self.height as usize];
        for (item, number) in self.placed.iter().zip(1..) {
            for &pixel in &item.mask.pixels {
                owner[pixel as usize] = number;
            }
        }
        let look = |(item, number): (&Item, u16)| {
            let mut visible = Visible { area: 0, corners: [u32::MAX, u32::MAX, 0, 0] };
            for &pixel in item.mask.pixels.iter().filter(|&&p| owner[p as usize] == number) {
                let (x, y) = (pixel % self.width, pixel / self.width);
                let [x0, y0, x1, y1] = visible.corners;
                visible.area += 1;
                visible.corners = [x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)];
            }
            visible
        };
        self.placed.iter().zip(1..).map(look).collect()
    }
}

/// An object of a class somewhere in the image.
fn object(random: &mut Random, width: u32, height: u32, wanted: Wanted, class: &Class) -> Thing {
    let (low, high) = wanted.diameter;
    // Sizes are even on a logarithmic scale.
    let radius = low * (high / low).powf(range(random, 0.0, 1.0)) / 2.0;
    let mut centre = |size: u32| {
        let half = size as f32 / 2.0;
        // At most a fifth of the diameter reaches over the border.
        let reach = (half - 0.6 * radius).max(0.0) * wanted.spread;
        half + reach * range(random, -1.0, 1.0)
    };
    let centre = [centre(width), centre(height)];
    let brightness = range(random, 0.86, 1.1);
    let mut vary = |colour: Rgb| colour.map(|c| c * brightness * range(random, 0.96, 1.04));
    let (primary, secondary) = (vary(class.colour.primary), vary(class.colour.secondary));
    // Small objects show few repeats, so that each is still some pixels wide.
    let finest = (radius / 5.5).clamp(1.8, 3.0);
    Thing {
        outline: Outline::of(class.shape),
        fill: Fill {
            texture: class.texture,
            primary,
            secondary,
            direction: direction(random),
            repeats: match class.texture {
                // Checks alternate in both directions: half as many repeats look as fine.
                Texture::Checkered => range(random, 1.3, finest * 0.75),
                _ => range(random, 1.6, finest),
            },
            phase: range(random, 0.0, 1.0),
        },
        centre,
        radius,
        angle: range(random, 0.0, TAU),
        stretch: range(random, 0.92, 1.08),
        opacity: 1.0,
        light: [range(random, -0.08, 0.08), range(random, -0.08, 0.08)],
        shadow: if random.chance(0.6) { range(random, 0.15, 0.5) } else { 0.0 },
    }
}

/// A line, lump or splinter that is of no class, though it may wear the colours and the texture
/// of one.
fn clutter(random: &mut Random, width: u32, height: u32, classes: &[Class]) -> Thing {
    let side = width.min(height) as f32;
    let (outline, radius) = match random.below(5) {
        0 | 1 => {
            let radius = range(random, 0.08, 0.6) * side;
            (Outline::bar(range(random, 0.6, 2.6) / radius), radius)
        }
        2 => (Outline::blob(random), range(random, 0.03, 0.16) * side),
        _ => (Outline::shard(random), range(random, 0.04, 0.16) * side),
    };
    let disguise = if random.chance(0.35) { random.pick(classes).copied() } else { None };
    let (texture, primary, secondary) = match disguise {
        Some(class) => (class.texture, class.colour.primary, class.colour.secondary),
        None => {
            let mut tone = || {
                let (hue, saturation) = (range(random, 0.0, 1.0), range(random, 0.0, 0.8));
                from_hsv(hue, saturation, range(random, 0.15, 0.95))
            };
            let (primary, secondary) = (tone(), tone());
            let texture = if random.chance(0.7) { Texture::Solid } else { Texture::Gradient };
            (texture, primary, secondary)
        }
    };
    Thing {
        outline,
        fill: Fill {
            texture,
            primary,
            secondary,
            direction: direction(random),
            repeats: range(random, 1.2, 2.5),
            phase: range(random, 0.0, 1.0),
        },
        centre: [width, height].map(|size| range(random, -0.02, 1.02) * size as f32),
        radius: radius.max(2.0),
        angle: range(random, 0.0, TAU),
        stretch: 1.0,
        opacity: range(random, 0.45, 1.0),
        light: [0.0, 0.0],
        shadow: if random.chance(0.3) { range(random, 0.1, 0.4) } else { 0.0 },
    }
}

/// Cosine and sine of any angle.
fn direction(random: &mut Random) -> [f32; 2] {
    let (sin, cos) = range(random, 0.0, TAU).sin_cos();
    [cos, sin]
}

/// A ground of a few muted tones that flow into each other, some with soft waves or grain.
fn ground(random: &mut Random, width: u32, height: u32) -> Canvas {
    let (hue, base) = (range(random, 0.0, 1.0), range(random, 0.25, 0.8));
    let tones: Vec<Rgb> = (0..4)
        .map(|_| {
            let hue = (hue + range(random, -0.18, 0.18)).rem_euclid(1.0);
            let value = (base + range(random, -0.2, 0.2)).clamp(0.08, 0.95);
            from_hsv(hue, range(random, 0.03, 0.5), value)
        })
        .collect();
    let coarse = Noise::new(random, 2, 5);
    let other = Noise::new(random, 2, 6);
    let fine = Noise::new(random, 12, 40);
    let grain = range(random, 0.02, 0.12);
    let waves = if random.chance(0.35) { range(random, 0.02, 0.07) } else { 0.0 };
    let (angle, per_side) = (range(random, 0.0, PI), range(random, 5.0, 16.0));
    let (sin, cos) = angle.sin_cos();
    Canvas::new(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let (a, b) = (coarse.at(u, v), other.at(u, v));
        let colour = mix(mix(tones[0], tones[1], a), mix(tones[2], tones[3], a), b);
        let bend = (u * cos + v * sin + 0.15 * a) * per_side * TAU;
        let change = grain * (fine.at(u, v) - 0.5) + waves * bend.sin();
        colour.map(|c| c + change)
    })
}

/// Smooth noise in [0, 1] on the unit square: random values on a grid, blended in between.
struct Noise {
    cells: usize,
    values: Vec<f32>,
}

impl Noise {
    fn new(random: &mut Random, fewest: usize, most: usize) -> Self {
        let cells = random.between(fewest, most);
        let values = (0..(cells + 1) * (cells + 1)).map(|_| range(random, 0.0, 1.0)).collect();
        Self { cells, values }
    }

    fn at(&self, u: f32, v: f32) -> f32 {
        let split = |t: f32| {
            let scaled = t * self.cells as f32;
            let cell = (scaled as usize).min(self.cells - 1);
            let t = scaled - cell as f32;
            (cell, t * t * (3.0 - 2.0 * t))
        };
        let ((i, s), (j, t)) = (split(u), split(v));
        let value = |i: usize, j: usize| self.values[j * (self.cells + 1) + i];
        let row = |j: usize| value(i, j) + (value(i + 1, j) - value(i, j)) * s;
        row(j) + (row(j + 1) - row(j)) * t
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn disc(x: f32, y: f32, radius: f32) -> Thing {
        let (classes, _) = crate::synth::classes::vocabulary(1);
        let mut random = Random::new(0, Stream::Test, 0, 0);
        let wanted = Wanted { class: 0, diameter: (30.0, 30.0), spread: 0.0 };
        let thing = object(&mut random, 100, 100, wanted, &classes[0]);
        let outline = Outline::Circle;
        Thing { outline, centre: [x, y], radius, stretch: 1.0, ..thing }
    }

    #[test]
    fn boxes_are_tight_around_what_is_visible() {
        let mut stage = Stage { width: 100, height: 100, placed: Vec::new() };
        assert!(stage.place(0, disc(40.0, 50.0, 20.0), Some(0)));
        // Radius 0.95 * 20 = 19: columns 21 to 58.
        assert_eq!(stage.visible()[0].corners, [21, 31, 59, 69]);
        let whole = stage.visible()[0].area;
        // π 19² = 1134; a digital disc of that size is off by some pixels.
        assert!(whole.abs_diff(1134) < 12, "{whole}");

        // A disc in front hides the right end; behind, it hides nothing.
        assert!(stage.place(1, disc(65.0, 50.0, 20.0), Some(1)));
        let [left, right] = [stage.visible()[0], stage.visible()[1]];
        assert!(left.area < whole && right.area == whole);
        assert_eq!(left.corners[0], 21);
        // The circles cross at x = 52.5, the middle of column 52, which so is the right one's.
        assert_eq!((left.corners[2], right.corners), (52, [46, 31, 84, 69]));
    }

    #[test]
    fn a_place_that_hides_too_much_is_refused_and_leaves_no_trace() {
        let mut stage = Stage { width: 100, height: 100, placed: Vec::new() };
        assert!(stage.place(0, disc(50.0, 50.0, 15.0), Some(0)));
        assert!(!stage.place(1, disc(52.0, 50.0, 20.0), Some(1)), "hides the first");
        assert!(!stage.place(1, disc(52.0, 50.0, 20.0), None), "clutter may not hide it either");
        assert!(!stage.place(0, disc(50.0, 50.0, 10.0), Some(1)), "hidden behind the first");
        assert!(!stage.place(1, disc(-10.0, 50.0, 20.0), Some(1)), "beyond the border");
        assert!(!stage.place(1, disc(50.0, 90.0, 3.6), Some(1)), "less than 8 pixels");
        assert_eq!(stage.placed.len(), 1);
        assert!(stage.place(0, disc(50.0, 50.0, 10.0), None), "hidden clutter is no loss");
    }

    #[test]
    fn the_image_changes_where_the_box_says() {
        let (classes, _) = crate::synth::classes::vocabulary(40);
        for (item, class) in classes.iter().enumerate() {
            let mut random = Random::new(3, Stream::Test, 0, item as u64);
            let wanted = Wanted { class: item, diameter: (26.0, 90.0), spread: 1.0 };
            let without = ground(&mut random, 160, 160);
            let thing = Thing { shadow: 0.0, ..object(&mut random, 160, 160, wanted, class) };
            let mut with = without.clone();
            with.paint(&thing);
            let mut stage = Stage { width: 160, height: 160, placed: Vec::new() };
            assert!(stage.place(0, thing, Some(item)));
            let reported = stage.visible()[0].corners;

            let noise = Random::new(0, Stream::Test, 2, 0);
            let [without, with] = [without, with].map(|canvas| canvas.develop(&mut noise.clone()));
            let mut changed = [u32::MAX, u32::MAX, 0, 0];
            for (x, y, pixel) in with.enumerate_pixels() {
                if pixel != without.get_pixel(x, y) {
                    let [x0, y0, x1, y1] = changed;
                    changed = [x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)];
                }
            }
            // Up to soft edges and tips thinner than a pixel, which are not counted as inside.
            for (found, corner) in changed.into_iter().zip(reported) {
                assert!(found.abs_diff(corner) <= 2, "{class:?}: {changed:?} {reported:?}");
            }
        }
    }
}
