//! What the small charts have in common: size, axes and their labels. They are as wide as a phone shows them
//! without making letters small; a wide page has several beside each other.

use std::fmt::Write as _;

use super::axis::{Axis, tick_text};
use crate::report::escape;

pub(super) const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 256.0;
pub(super) const LEFT: f64 = 46.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// The axes of a chart, and the room that it leaves at the right.
pub(super) struct Frame {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) right: f64,
}

impl Frame {
    /// The y of the axis at the bottom.
    pub(super) const FLOOR: f64 = HEIGHT - BOTTOM;
    /// The y of the top of the plot.
    pub(super) const CEILING: f64 = TOP;

    /// The x of the right end of the plot.
    pub(super) fn end(&self) -> f64 {
        WIDTH - self.right
    }

    /// Where in the drawing a point is.
    pub(super) fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (across, up) = (self.end() - LEFT, Self::FLOOR - TOP);
        (LEFT + across * self.x.place(x), Self::FLOOR - up * self.y.place(y))
    }

    /// The start of a drawing.
    pub(super) fn open(title: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(title)
        )
    }

    /// Axes with ticks and words.
    pub(super) fn draw(&self, svg: &mut String, x_label: &str, y_label: &str) {
        self.draw_upwards(svg, y_label);
        let floor = Self::FLOOR;
        for &tick in &self.x.ticks {
            let (px, _) = self.at((tick, self.y.low));
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
                 <text class=\"tick mid\" x=\"{px:.1}\" y=\"{}\">{}</text>",
                floor + 4.0,
                floor + 17.0,
                tick_text(tick)
            );
        }
        self.word_across(svg, x_label);
    }

    /// The axis at the left, and the line at the bottom.
    pub(super) fn draw_upwards(&self, svg: &mut String, y_label: &str) {
        let (end, floor) = (self.end(), Self::FLOOR);
        for &tick in &self.y.ticks {
            let (_, py) = self.at((self.x.low, tick));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\
                 <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                py + 4.0,
                tick_text(tick)
            );
        }
        let log = if self.y.log { ", log scale" } else { "" };
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{floor}\" y2=\"{floor}\"/>\
             <text class=\"label mid\" transform=\"translate(12 {:.1}) rotate(-90)\">{}{log}</text>",
            f64::midpoint(TOP, floor),
            escape(y_label),
        );
    }

    /// The words beneath the axis at the bottom.
    pub(super) fn word_across(&self, svg: &mut String, x_label: &str) {
        let log = if self.x.log { ", log scale" } else { "" };
        let _ = writeln!(
            svg,
            "<text class=\"label mid\" x=\"{:.1}\" y=\"{:.1}\">{}{log}</text>",
            f64::midpoint(LEFT, self.end()),
            HEIGHT - 7.0,
            escape(x_label),
        );
    }
}

/// A chart with its heading and what is beneath it (HTML).
pub(super) fn figure(title: &str, svg: &str, beneath: &str) -> String {
    format!(
        "<figure class=\"chart\"><h3>{}</h3>\n{svg}</svg>\n<figcaption>{beneath}</figcaption></figure>\n",
        escape(title)
    )
}
