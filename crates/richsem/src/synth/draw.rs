//! A canvas of floats: how a thing is painted on it, and which pixels the thing covers.

use super::{
    classes::{Rgb, Texture},
    shapes::Outline,
};
use crate::random::Random;
use image::RgbImage;
use std::f32::consts::{PI, TAU};

pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t)
}

/// Uniform in [low, high), single precision.
pub(super) fn range(random: &mut Random, low: f32, high: f32) -> f32 {
    random.range(f64::from(low), f64::from(high)) as f32
}

/// Hue, saturation and value, each in [0, 1].
pub(super) fn from_hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue * 6.0) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// How a thing is filled.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    pub(super) texture: Texture,
    pub(super) primary: Rgb,
    pub(super) secondary: Rgb,
    /// Cosine and sine of the pattern's turn against the shape.
    pub(super) direction: [f32; 2],
    /// Repeats of the pattern per radius of the shape.
    pub(super) repeats: f32,
    /// Shift of the pattern, in radii.
    pub(super) phase: f32,
}

impl Fill {
    /// Colour at a point of the shape; `pixel` is a pixel's width, both in radii.
    fn at(&self, [x, y]: [f32; 2], pixel: f32) -> Rgb {
        let [cos, sin] = self.direction;
        let (u, v) = (x * cos + y * sin + self.phase, y * cos - x * sin + self.phase);
        // A square wave of the pattern with edges one pixel wide.
        let wave = |t: f32| {
            let edge = (PI * self.repeats * pixel).max(1e-3);
            ((t * self.repeats * TAU).sin() / edge).clamp(-1.0, 1.0)
        };
        let amount = match self.texture {
            Texture::Solid => 0.0,
            Texture::Striped => 0.5 + 0.5 * wave(u),
            Texture::Checkered => 0.5 + 0.5 * wave(u) * wave(v),
            Texture::Dotted => {
                let cell = |t: f32| (t * self.repeats).rem_euclid(1.0) - 0.5;
                let from_centre = cell(u).hypot(cell(v)) - 0.3;
                (0.5 - from_centre / (self.repeats * pixel)).clamp(0.0, 1.0)
            }
            Texture::Gradient => ((u - self.phase) * 0.62 + 0.45).clamp(0.0, 1.0),
        };
        mix(self.primary, self.secondary, amount)
    }
}

/// A thing to draw: an object of a class, or clutter.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    pub(super) outline: Outline,
    pub(super) fill: Fill,
    /// Centre in pixels, (x, y).
    pub(super) centre: [f32; 2],
    /// Radius in pixels of the circle that the outline lies in.
    pub(super) radius: f32,
    /// How far the outline is turned, in radians.
    pub(super) angle: f32,
    /// Width grows and height shrinks by this factor.
    pub(super) stretch: f32,
    /// 1 covers what lies below.
    pub(super) opacity: f32,
    /// Direction and strength of the light on it: brightness changes by this much per radius.
    pub(super) light: [f32; 2],
    /// Strength of the soft shadow beside it, 0 for none.
    pub(super) shadow: f32,
}

impl Thing {
    /// First and one-past-last pixel column and row that the thing can touch.
    fn extent(&self, margin: f32) -> [i64; 4] {
        let reach = self.radius * self.stretch.max(1.0 / self.stretch) + margin;
        let [x, y] = self.centre;
        [(x - reach).floor(), (y - reach).floor(), (x + reach).ceil(), (y + reach).ceil()]
            .map(|edge| edge as i64)
    }

    /// The pixels whose centre lies inside the outline.
    pub(super) fn mask(&self, width: u32, height: u32) -> Mask {
        let [x0, y0, x1, y1] = self.extent(1.0);
        let (frame, half_height) = (Frame::of(self), self.outline.half_height());
        let mut mask = Mask { pixels: Vec::new(), whole: 0 };
        for y in y0..y1 {
            for x in x0..x1 {
                let local = frame.local(x as f32, y as f32);
                if local[1].abs() > half_height || self.outline.distance(local) >= 0.0 {
                    continue;
                }
                mask.whole += 1;
                if (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y) {
                    mask.pixels.push((y * i64::from(width) + x) as u32);
                }
            }
        }
        mask
    }
}

/// Turns pixels of the image into a thing's own coordinates.
struct Frame {
    centre: [f32; 2],
    /// Own x and y axes, per pixel.
    x: [f32; 2],
    y: [f32; 2],
}

impl Frame {
    fn of(thing: &Thing) -> Self {
        let (sin, cos) = thing.angle.sin_cos();
        let (x, y) = (thing.radius * thing.stretch, thing.radius / thing.stretch);
        Self { centre: thing.centre, x: [cos / x, sin / x], y: [-sin / y, cos / y] }
    }

    /// The middle of a pixel in the outline's coordinates.
    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        let (dx, dy) = (x + 0.5 - self.centre[0], y + 0.5 - self.centre[1]);
        [dx * self.x[0] + dy * self.x[1], dx * self.y[0] + dy * self.y[1]]
    }
}

/// What a thing would cover if nothing lay over it.
#[derive(Debug)]
pub(super) struct Mask {
    /// Positions `y * width + x` of the pixels inside the image.
    pub(super) pixels: Vec<u32>,
    /// Pixels in all, counting those beyond the image's edges.
    pub(super) whole: usize,
}

/// An image in the making, `[H, W]` of [`Rgb`].
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    pub(super) width: u32,
    pub(super) height: u32,
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// An image that starts as `colour(x, y)`.
    pub(super) fn new(width: u32, height: u32, mut colour: impl FnMut(u32, u32) -> Rgb) -> Self {
        let mut pixels = Vec::with_capacity(width as usize * height as usize);
        for y in 0..height {
            pixels.extend((0..width).map(|x| colour(x, y)));
        }
        Self { width, height, pixels }
    }

    /// Draws a thing over what is there.
    pub(super) fn paint(&mut self, thing: &Thing) {
        if thing.shadow > 0.0 {
            let blur = 0.12 * thing.radius + 2.0;
            let offset = 0.1 * thing.radius + 1.0;
            let mut cast = thing.clone();
            cast.centre = thing.centre.map(|c| c + offset);
            self.visit(&cast, blur, |_, distance, below| {
                let amount = thing.shadow * (0.5 - distance / (2.0 * blur)).clamp(0.0, 1.0);
                mix(below, [0.0; 3], amount)
            });
        }
        let pixel = 1.0 / thing.radius;
        self.visit(thing, 1.0, |local, distance, below| {
            let coverage = (0.5 - distance).clamp(0.0, 1.0);
            if coverage == 0.0 {
                return below;
            }
            let light = 1.0 + local[0] * thing.light[0] + local[1] * thing.light[1];
            // A darker rim keeps the shape visible on a ground of its own colour.
            let rim = 1.0 - 0.45 * (1.6 + distance).clamp(0.0, 1.0);
            let colour = thing.fill.at(local, pixel).map(|c| c * light * rim);
            mix(below, colour, coverage * thing.opacity)
        });
    }

    /// Replaces each pixel up to `margin` pixels from a thing by
    /// `colour(local point, distance in pixels, old colour)`.
    fn visit(&mut self, thing: &Thing, margin: f32, colour: impl Fn([f32; 2], f32, Rgb) -> Rgb) {
        let [x0, y0, x1, y1] = thing.extent(margin);
        let frame = Frame::of(thing);
        // Most of a slanted bar's surroundings are far from it.
        let highest = thing.outline.half_height() + 1.2 * margin / thing.radius;
        let clip = |edge: i64, size: u32| edge.clamp(0, i64::from(size)) as usize;
        for y in clip(y0, self.height)..clip(y1, self.height) {
            for x in clip(x0, self.width)..clip(x1, self.width) {
                let local = frame.local(x as f32, y as f32);
                if local[1].abs() > highest {
                    continue;
                }
                let distance = thing.outline.distance(local) * thing.radius;
                let at = y * self.width as usize + x;
                self.pixels[at] = colour(local, distance, self.pixels[at]);
            }
        }
    }

    /// Exposure, tint and sensor noise, then 8 bits a channel.
    pub(super) fn develop(&self, random: &mut Random) -> RgbImage {
        let exposure = range(random, 0.86, 1.08);
        let gain = [0, 1, 2].map(|_| exposure * range(random, 0.95, 1.05));
        // The sum of two uniform numbers, close enough to a bell for sensor noise; two bytes of
        // one draw make one number.
        let strength = range(random, 0.01, 0.04) / 255.0;
        let mut bytes = [0u8; 8];
        let mut next = 8;
        let mut noise = || {
            if next == 8 {
                bytes = random.bits().to_le_bytes();
                next = 0;
            }
            next += 2;
            (f32::from(bytes[next - 2]) + f32::from(bytes[next - 1]) - 255.0) * strength
        };
        let mut image = RgbImage::new(self.width, self.height);
        for (target, colour) in image.pixels_mut().zip(&self.pixels) {
            target.0 = [0, 1, 2].map(|i| {
                let value = (colour[i] * gain[i] + noise()).clamp(0.0, 1.0);
                (value * 255.0).round() as u8
            });
        }
        image
    }
}
