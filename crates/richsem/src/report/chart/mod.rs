//! Charts as SVG, with axes, ticks and a legend. Colours come from the page's style, so that they suit light, dark
//! and paper.

mod axis;
mod bars;
mod frame;
mod scatter;

use std::fmt::Write as _;

pub(super) use axis::{Axis, significant, tick_text};
pub(super) use bars::{Bars, Group};
pub(super) use scatter::{Point, Scatter};

use self::{
    axis::range,
    frame::{Frame, figure},
};
use super::escape;

/// Points of one curve that are drawn: more than a screen's pixels in this width add nothing.
const MAX_POINTS: usize = 300;

/// Points of a curve of up to so many have a dot each, which shows its values when the mouse is over it.
const MOST_DOTS: usize = 60;

/// Number of colours for curves in the style sheet. Further curves have these again, dashed.
const COLORS: usize = 6;

/// Values this many times apart are drawn on a logarithmic axis.
const LOG_RATIO: f64 = 25.0;

/// An axis in percent reaches at least this far: what is all but 0 looks like that.
pub(super) const LEAST_PERCENT: f64 = 1.0;

/// Room at the right for the curves' names.
const NAMES: f64 = 84.0;

/// Letters that fit there.
const MOST_LETTERS: usize = 11;

/// Least distance of two names.
const LINE_HEIGHT: f64 = 13.0;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Noisy values: a smoothed curve over the raw one.
    Noisy,
    /// Few exact values: a dot each.
    Dots,
    /// Many exact values.
    Smooth,
}

/// A curve of a chart.
pub(super) struct Line {
    /// In the legend.
    pub(super) name: String,
    /// At the curve's end.
    pub(super) short: String,
    /// Number of its colour.
    pub(super) color: usize,
    pub(super) style: Style,
    /// (x, y), x ascending. Where y is not finite the curve is interrupted.
    pub(super) points: Vec<(f64, f64)>,
    /// What the legend says of it. None: its last value.
    pub(super) value: Option<String>,
}

/// What lies along the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Across {
    /// Steps or epochs: from the first to the last, ticks at whole numbers.
    Whole,
    /// From 0 to the tick behind the last.
    FromZero,
}

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upwards {
    /// Losses: a logarithmic axis where they differ by much, else from 0.
    Loss,
    /// Fractions, shown in percent from 0.
    Percent,
}

pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    /// The first is drawn strongest.
    pub(super) lines: &'a [Line],
    pub(super) across: Across,
    pub(super) upwards: Upwards,
    /// A vertical line, with words.
    pub(super) mark: Option<(f64, String)>,
    /// A sentence beneath.
    pub(super) note: String,
}

/// What is drawn of one line.
struct Curve {
    raw: Vec<(f64, f64)>,
    /// The raw points again where nothing is smoothed.
    smooth: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// `None` without a single finite point.
    pub(super) fn render(&self) -> Option<String> {
        let scale = if self.upwards == Upwards::Percent { 100.0 } else { 1.0 };
        let curves: Vec<Curve> = self
            .lines
            .iter()
            .map(|line| {
                let raw = thinned(&line.points, scale);
                let smooth = if line.style == Style::Noisy { smoothed(&raw) } else { raw.clone() };
                Curve { raw, smooth }
            })
            .collect();
        let points = self.lines.iter().flat_map(|line| &line.points);
        let xs = range(points.filter(|p| p.1.is_finite()).map(|p| p.0))?;
        let ys = range(curves.iter().flat_map(|c| &c.smooth).map(|p| p.1))?;
        let y = match self.upwards {
            Upwards::Loss if ys.0 > 0.0 && ys.1 / ys.0 > LOG_RATIO => Axis::logarithmic(ys.0, ys.1),
            Upwards::Loss => Axis::linear(ys.0.min(0.0), ys.1, true),
            Upwards::Percent => Axis::linear(ys.0.min(0.0), ys.1.max(LEAST_PERCENT), true),
        };
        let x = match self.across {
            Across::Whole => Axis::linear(xs.0, xs.1, false),
            Across::FromZero => Axis::linear(0.0, xs.1, true),
        };
        let frame = Frame { x, y, right: NAMES };

        let mut svg = Frame::open(self.title);
        frame.draw(&mut svg, self.x_label, self.y_label);
        if let Some((at, words)) = &self.mark {
            mark(&mut svg, &frame, *at, words);
        }
        // The first comes last, on top.
        for (i, curve) in curves.iter().enumerate().rev() {
            self.curve(&mut svg, i, curve, &frame);
        }
        self.names(&mut svg, &curves, &frame);
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!("<p>{}</p>", escape(&self.note))
        };
        Some(figure(self.title, &svg, &(self.legend(&curves) + &note)))
    }

    /// Draws the curve of line `i`.
    fn curve(&self, svg: &mut String, i: usize, curve: &Curve, frame: &Frame) {
        let (line, at) = (&self.lines[i], &|point| frame.at(point));
        let class = color_class(line.color);
        let main = if i == 0 { " main" } else { "" };
        if line.style == Style::Noisy && curve.raw.len() > 2 {
            // Outliers beyond the axis stay at its end.
            let clipped =
                curve.raw.iter().map(|&(px, py)| (px, py.min(frame.y.high).max(frame.y.low)));
            let _ = writeln!(svg, "<path class=\"raw {class}\" d=\"{}\"/>", path(clipped, at));
        }
        let drawn = path(curve.smooth.iter().copied(), at);
        let _ = writeln!(svg, "<path class=\"curve {class}{main}\" d=\"{drawn}\"/>");
        if line.style == Style::Dots && curve.raw.len() <= MOST_DOTS {
            for &point in curve.raw.iter().filter(|p| p.1.is_finite()) {
                let (cx, cy) = at(point);
                let _ = writeln!(
                    svg,
                    "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2.6\"><title>\
                     {}, {} {}: {}</title></circle>",
                    escape(&line.name),
                    escape(self.x_label),
                    tick_text(point.0),
                    self.number(point.1)
                );
            }
        }
    }

    /// The name of each curve at its end, moved where two would touch.
    fn names(&self, svg: &mut String, curves: &[Curve], frame: &Frame) {
        let mut ends: Vec<(usize, (f64, f64), f64)> = curves
            .iter()
            .enumerate()
            .filter_map(|(i, curve)| {
                let last = curve.smooth.iter().rev().find(|p| p.1.is_finite())?;
                let end = frame.at(*last);
                Some((i, end, end.1))
            })
            .collect();
        ends.sort_by(|a, b| a.2.total_cmp(&b.2));
        let mut places: Vec<f64> = ends.iter().map(|end| end.2).collect();
        spread(&mut places, Frame::CEILING, Frame::FLOOR);
        let edge = frame.end();
        for ((i, (x, y), _), place) in ends.into_iter().zip(places) {
            let class = color_class(self.lines[i].color);
            let short = shortened(&self.lines[i].short, MOST_LETTERS);
            let _ = writeln!(
                svg,
                "<path class=\"lead {class}\" d=\"M{x:.1} {y:.1}L{edge:.1} {y:.1}L{:.1} {place:.1}\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                edge + 8.0,
                edge + 11.0,
                place + 4.0,
                escape(&short)
            );
        }
    }

    fn number(&self, value: f64) -> String {
        match self.upwards {
            Upwards::Loss => significant(value),
            Upwards::Percent => format!("{value:.1}"),
        }
    }

    /// Names with a value of each curve.
    fn legend(&self, curves: &[Curve]) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for (line, curve) in self.lines.iter().zip(curves) {
            let last = curve.smooth.iter().rev().find(|p| p.1.is_finite());
            let value = line.value.clone();
            let value = value.or_else(|| last.map(|p| self.number(p.1)));
            let _ = write!(
                html,
                "<li><i class=\"{}\"></i>{} <b>{}</b></li>",
                color_class(line.color),
                escape(&line.name),
                value.unwrap_or_else(|| "–".to_owned())
            );
        }
        html.push_str("</ul>");
        html
    }
}

/// The class of a colour in the style sheet.
fn color_class(color: usize) -> String {
    let again = if color >= COLORS { " again" } else { "" };
    format!("s{}{again}", color % COLORS)
}

/// A vertical line with words at its top, on the side where there is more room.
fn mark(svg: &mut String, frame: &Frame, at: f64, words: &str) {
    let (x, _) = frame.at((at, frame.y.low));
    let right = x < f64::midpoint(frame::LEFT, frame.end());
    let (class, beside) = if right { ("", x + 5.0) } else { (" end", x - 5.0) };
    let _ = writeln!(
        svg,
        "<line class=\"best\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\
         <text class=\"name{class}\" x=\"{beside:.1}\" y=\"{}\">{}</text>",
        Frame::CEILING,
        Frame::FLOOR,
        Frame::CEILING + 8.0,
        escape(words)
    );
}

/// Moves ascending places apart, within both ends where there is room.
fn spread(places: &mut [f64], low: f64, high: f64) {
    let mut least = low;
    for place in places.iter_mut() {
        *place = place.max(least);
        least = *place + LINE_HEIGHT;
    }
    let mut most = high;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - LINE_HEIGHT;
    }
}

/// At most that many letters of a text.
pub(super) fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

/// At most [`MAX_POINTS`] points, each the mean of its neighbours. A mean of nothing finite interrupts the
/// curve.
fn thinned(points: &[(f64, f64)], scale: f64) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    points
        .chunks(size)
        .map(|chunk| {
            let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
            let x = mean(chunk.iter().map(|p| p.0).collect());
            (x, scale * mean(chunk.iter().filter(finite).map(|p| p.1).collect()))
        })
        .filter(|p| p.0.is_finite())
        .collect()
}

/// The mean over a window of a twentieth of the curve.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    (0..points.len())
        .map(|i| {
            // At the steep start no further ahead than back, so that it is not flattened; at the
            // flat end all the way back, so that the last value is not a single noisy one.
            let back = reach.min(i);
            let ahead = back.min(points.len() - 1 - i);
            let near = points[i - back..=i + ahead].iter().map(|p| p.1).filter(|y| y.is_finite());
            let (sum, count) = near.fold((0.0, 0), |(sum, n), y| (sum + y, n + 1));
            let here = points[i].1;
            (points[i].0, if here.is_finite() { sum / f64::from(count) } else { here })
        })
        .collect()
}

/// An SVG path through the points, interrupted where one is not finite.
fn path(
    points: impl Iterator<Item = (f64, f64)>,
    at: &impl Fn((f64, f64)) -> (f64, f64),
) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for point in points {
        if point.1.is_finite() {
            let (x, y) = at(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if pen_down { 'L' } else { 'M' });
        }
        pen_down = point.1.is_finite();
    }
    path
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_thinned_smoothed_and_interrupted() {
        let points: Vec<_> = (0..9_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thin = thinned(&points, 1.0);
        assert_eq!(thin.len(), MAX_POINTS);
        assert!(thin.iter().all(|p| (p.1 - 0.5).abs() < 0.05));
        let mut noisy: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        noisy[100].1 = f64::NAN;
        let smooth = smoothed(&noisy);
        assert!(smooth[100].1.is_nan() && smooth[10..90].iter().all(|p| (p.1 - 0.5).abs() < 0.1));
        let line = path(noisy[98..103].iter().copied(), &|p| p);
        assert_eq!(line, "M98.0 0.0L99.0 1.0M101.0 1.0L102.0 0.0");
    }

    fn rendered(points: Vec<(f64, f64)>, upwards: Upwards) -> Option<String> {
        let style = Style::Dots;
        let name = "a<b".to_owned();
        let lines = [Line { short: name.clone(), name, color: 0, style, points, value: None }];
        let across = Across::Whole;
        let chart = Chart {
            title: "T",
            x_label: "x",
            y_label: "y",
            lines: &lines,
            across,
            upwards,
            mark: Some((0.0, "<best>".to_owned())),
            note: String::new(),
        };
        chart.render()
    }

    #[test]
    fn charts_without_points_are_left_out() {
        assert!(rendered(vec![], Upwards::Loss).is_none());
        assert!(rendered(vec![(0.0, f64::NAN), (1.0, f64::INFINITY)], Upwards::Loss).is_none());
        for points in
            [vec![(1.0, 0.0)], vec![(1.0, -2.0), (2.0, 1e9)], vec![(f64::NAN, 1.0), (0.0, 1.0)]]
        {
            for upwards in [Upwards::Loss, Upwards::Percent] {
                let svg = rendered(points.clone(), upwards).unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains(">a&lt;b</text>") && svg.contains("&lt;best&gt;"), "{svg}");
            }
        }
    }

    /// An AP of 0.02 % is not drawn as if it filled the chart.
    #[test]
    fn an_axis_in_percent_reaches_at_least_one() {
        let svg = rendered(vec![(1.0, 0.0001), (2.0, 0.0002)], Upwards::Percent).unwrap();
        assert!(svg.contains(">1</text>") && !svg.contains(">0.02</text>"), "{svg}");
        let svg = rendered(vec![(1.0, 0.1), (2.0, 0.2)], Upwards::Percent).unwrap();
        assert!(svg.contains(">20</text>"));
    }

    #[test]
    fn names_do_not_touch_and_stay_inside() {
        let mut places = [10.0, 11.0, 12.0, 90.0, 95.0];
        spread(&mut places, 10.0, 100.0);
        assert!(
            places.windows(2).all(|pair| pair[1] - pair[0] >= LINE_HEIGHT - 1e-9),
            "{places:?}"
        );
        assert!(places[0] >= 10.0 && places[4] <= 100.0);
        assert_eq!(shortened("validation set", 11), "validation…");
        assert_eq!(shortened("validation", 11), "validation");
    }
}
