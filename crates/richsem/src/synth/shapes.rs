//! Outlines as signed distances: negative inside, positive outside, zero on the edge, so that
//! anti-aliasing, rims and soft shadows all come from one number per pixel.
//!
//! Every outline lies in the unit circle; y points down, as in images. The polygon and heart
//! distances follow Inigo Quilez, "2D distance functions" (MIT), iquilezles.org.

use crate::random::Random;
use std::f32::consts::TAU;

/// The shapes that classes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Arrow,
    Circle,
    Crescent,
    Cross,
    Diamond,
    Flower,
    Heart,
    Pentagon,
    Ring,
    Square,
    Star,
    Triangle,
}

impl Shape {
    pub(super) const ALL: [Self; 12] = [
        Self::Arrow,
        Self::Circle,
        Self::Crescent,
        Self::Cross,
        Self::Diamond,
        Self::Flower,
        Self::Heart,
        Self::Pentagon,
        Self::Ring,
        Self::Square,
        Self::Star,
        Self::Triangle,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Arrow => "arrow",
            Self::Circle => "circle",
            Self::Crescent => "crescent",
            Self::Cross => "cross",
            Self::Diamond => "diamond",
            Self::Flower => "flower",
            Self::Heart => "heart",
            Self::Pentagon => "pentagon",
            Self::Ring => "ring",
            Self::Square => "square",
            Self::Star => "star",
            Self::Triangle => "triangle",
        }
    }
}

/// Something that can be drawn: a class's shape or a piece of clutter.
#[derive(Debug, Clone)]
pub(super) enum Outline {
    Circle,
    Crescent,
    Flower,
    Heart,
    Ring,
    Polygon(Vec<[f32; 2]>),
}

impl Outline {
    pub(super) fn of(shape: Shape) -> Self {
        match shape {
            Shape::Circle => Self::Circle,
            Shape::Crescent => Self::Crescent,
            Shape::Flower => Self::Flower,
            Shape::Heart => Self::Heart,
            Shape::Ring => Self::Ring,
            Shape::Arrow => Self::Polygon(vec![
                [1.0, 0.0],
                [0.15, 0.8],
                [0.15, 0.3],
                [-0.95, 0.3],
                [-0.95, -0.3],
                [0.15, -0.3],
                [0.15, -0.8],
            ]),
            Shape::Cross => {
                let (a, l) = (0.3, 0.95);
                Self::Polygon(vec![
                    [a, a],
                    [a, l],
                    [-a, l],
                    [-a, a],
                    [-l, a],
                    [-l, -a],
                    [-a, -a],
                    [-a, -l],
                    [a, -l],
                    [a, -a],
                    [l, -a],
                    [l, a],
                ])
            }
            // A square turned by 45 degrees is still a square: a diamond has to be slim.
            Shape::Diamond => {
                Self::Polygon(vec![[0.0, -1.0], [0.56, 0.0], [0.0, 1.0], [-0.56, 0.0]])
            }
            Shape::Pentagon => Self::Polygon(around(5, |_| 1.0)),
            Shape::Square => Self::Polygon(around(4, |_| 1.0)),
            Shape::Star => Self::Polygon(around(10, |i| if i % 2 == 0 { 1.0 } else { 0.42 })),
            Shape::Triangle => Self::Polygon(around(3, |_| 1.0)),
        }
    }

    /// A straight bar of the given half width, 2 long.
    pub(super) fn bar(half_width: f32) -> Self {
        let w = half_width;
        Self::Polygon(vec![[-1.0, -w], [1.0, -w], [1.0, w], [-1.0, w]])
    }

    /// A rounded lump without corners.
    pub(super) fn blob(random: &mut Random) -> Self {
        let phase = [0, 1, 2].map(|_| random.range(0.0, f64::from(TAU)) as f32);
        let squash = random.range(0.45, 1.0) as f32;
        let mut points = around(20, |i| {
            let t = i as f32 / 20.0 * TAU;
            let waves = (t * 2.0 + phase[0]).sin() * 0.12
                + (t * 3.0 + phase[1]).sin() * 0.1
                + (t * 5.0 + phase[2]).sin() * 0.05;
            0.72 + waves
        });
        for point in &mut points {
            point[1] *= squash;
        }
        Self::Polygon(points)
    }

    /// A splinter with 5 to 7 corners and no symmetry, unlike any class.
    pub(super) fn shard(random: &mut Random) -> Self {
        let corners = random.between(5, 7);
        let reach: Vec<f32> = (0..corners).map(|_| random.range(0.25, 1.0) as f32).collect();
        let squash = random.range(0.4, 0.9) as f32;
        let mut points = around(corners, |i| reach[i]);
        for point in &mut points {
            point[1] *= squash;
        }
        Self::Polygon(points)
    }

    /// Nothing of the outline is further than this from its x axis.
    pub(super) fn half_height(&self) -> f32 {
        match self {
            Self::Polygon(points) => points.iter().map(|p| p[1].abs()).fold(0.0, f32::max),
            _ => 1.0,
        }
    }

    /// Distance to the edge, negative inside, in units of the outline's own radius.
    pub(super) fn distance(&self, [x, y]: [f32; 2]) -> f32 {
        let length = x.hypot(y);
        match self {
            Self::Circle => length - 0.95,
            Self::Ring => (length - 0.7).abs() - 0.27,
            Self::Crescent => (length - 0.97).max(0.78 - (x - 0.46).hypot(y)),
            Self::Flower => {
                let angle = y.atan2(x) * 6.0;
                let (radius, slope) = (0.7 + 0.28 * angle.cos(), 1.68 * angle.sin());
                // First-order distance to r(θ); the length has a floor where angles are undefined.
                (length - radius) / (1.0 + (slope / length.max(0.2)).powi(2)).sqrt()
            }
            Self::Heart => heart([x * 0.68, 0.56 - y * 0.68]) / 0.68,
            Self::Polygon(points) => polygon(points, [x, y]),
        }
    }
}

/// `n` points at equal angles, the first at the top, at the given distances from the centre.
fn around(n: usize, radius: impl Fn(usize) -> f32) -> Vec<[f32; 2]> {
    (0..n)
        .map(|i| {
            let (sin, cos) = (i as f32 / n as f32 * TAU).sin_cos();
            [radius(i) * sin, -radius(i) * cos]
        })
        .collect()
}

fn polygon(points: &[[f32; 2]], [x, y]: [f32; 2]) -> f32 {
    let mut squared = f32::INFINITY;
    let mut inside = false;
    let mut previous = points[points.len() - 1];
    for &current in points {
        let (ex, ey) = (previous[0] - current[0], previous[1] - current[1]);
        let (wx, wy) = (x - current[0], y - current[1]);
        let t = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (bx, by) = (wx - ex * t, wy - ey * t);
        squared = squared.min(bx * bx + by * by);
        // Even-odd rule: does this edge cross the ray from the point to the right?
        if (current[1] > y) != (previous[1] > y) && x < current[0] + ex * wy / ey {
            inside = !inside;
        }
        previous = current;
    }
    if inside { -squared.sqrt() } else { squared.sqrt() }
}

/// A heart standing on (0, 0), 1.1 tall, y up.
fn heart([x, y]: [f32; 2]) -> f32 {
    let x = x.abs();
    if x + y > 1.0 {
        return (x - 0.25).hypot(y - 0.75) - std::f32::consts::SQRT_2 / 4.0;
    }
    let along = 0.5 * (x + y).max(0.0);
    x.hypot(y - 1.0).min((x - along).hypot(y - along)) * (x - y).signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_an_inside_and_stays_in_the_unit_circle() {
        for shape in Shape::ALL {
            let outline = Outline::of(shape);
            let mut inside = 0;
            for i in 0..=100 {
                for j in 0..=100 {
                    let p = [i as f32 / 40.0 - 1.25, j as f32 / 40.0 - 1.25];
                    if outline.distance(p) < 0.0 {
                        inside += 1;
                        assert!(p[0].hypot(p[1]) < 1.01, "{shape:?} at {p:?}");
                        assert!(p[1].abs() <= outline.half_height(), "{shape:?} at {p:?}");
                    }
                }
            }
            // At least a sixth of the circle of 1/40² cells: nothing is a sliver.
            assert!(inside > 800, "{shape:?}: {inside}");
        }
    }

    #[test]
    fn distances_grow_by_one_per_unit_across_edges() {
        // The coverage of a pixel is taken from the distance: its slope at the edge must be 1.
        for shape in Shape::ALL {
            let outline = Outline::of(shape);
            let mut slopes = Vec::new();
            for i in 0..=500 {
                for j in 0..=500 {
                    let (x, y) = (i as f32 / 240.0 - 1.04, j as f32 / 240.0 - 1.04);
                    if outline.distance([x, y]).abs() > 0.003 {
                        continue;
                    }
                    let at = |dx: f32, dy: f32| outline.distance([x + dx, y + dy]);
                    let h = 1e-3;
                    let (dx, dy) = (at(h, 0.0) - at(-h, 0.0), at(0.0, h) - at(0.0, -h));
                    slopes.push(dx.hypot(dy) / (2.0 * h));
                }
            }
            // At corners, where two edges meet, there is no slope.
            let good = slopes.iter().filter(|s| (0.85..1.15).contains(*s)).count();
            assert!(slopes.len() > 500, "{shape:?}");
            assert!(good * 100 > slopes.len() * 95, "{shape:?}: {good} of {}", slopes.len());
        }
    }
}
