//! Curves as SVG, with axes, ticks and a legend. Colours come from the page's style, so that
//! they suit light, dark and paper.

use std::fmt::Write as _;

use super::{Series, escape};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Points of one curve that are drawn: more than a screen's pixels in this width add nothing.
const MAX_POINTS: usize = 400;

/// Points of a curve of up to so many have a dot each, which shows its values when the mouse is over it.
const MOST_DOTS: usize = 60;

/// Number of colours for curves in the style sheet.
const COLORS: usize = 8;

/// Values this many times apart are drawn on a logarithmic axis.
const LOG_RATIO: f64 = 25.0;

pub(super) enum Kind {
    /// Noisy: a smoothed curve is drawn over the raw one; a logarithmic axis where terms differ
    /// by much.
    Loss,
    /// Few exact points, fractions shown in percent from zero.
    Percent,
}

pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) series: &'a [Series],
    pub(super) kind: Kind,
}

/// What is drawn of one series.
struct Curve {
    raw: Vec<(f64, f64)>,
    /// The raw points again where nothing is smoothed.
    smooth: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// `None` without a single finite point.
    pub(super) fn render(&self) -> Option<String> {
        let scale = if matches!(self.kind, Kind::Percent) { 100.0 } else { 1.0 };
        let curves: Vec<Curve> = self
            .series
            .iter()
            .map(|series| {
                let raw = thinned(&series.points, scale);
                let smooth = match self.kind {
                    Kind::Loss => smoothed(&raw),
                    Kind::Percent => raw.clone(),
                };
                Curve { raw, smooth }
            })
            .collect();
        let points = self.series.iter().flat_map(|series| &series.points);
        let xs = range(points.filter(|p| p.1.is_finite()).map(|p| p.0))?;
        let ys = range(curves.iter().flat_map(|c| &c.smooth).map(|p| p.1))?;
        let y = match self.kind {
            Kind::Loss if ys.0 > 0.0 && ys.1 / ys.0 > LOG_RATIO => Axis::logarithmic(ys.0, ys.1),
            Kind::Loss | Kind::Percent => Axis::linear(ys.0.min(0.0), ys.1, true),
        };
        let axes = Axes { x: Axis::linear(xs.0, xs.1, false), y };

        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.title)
        );
        self.axes(&mut svg, &axes);
        // The first series comes last, on top.
        for (i, curve) in curves.iter().enumerate().rev() {
            self.curve(&mut svg, i, curve, &axes);
        }
        svg.push_str("</svg>\n");
        Some(format!(
            "<figure class=\"chart\"><h3>{}</h3>\n{svg}<figcaption>{}</figcaption></figure>\n",
            escape(self.title),
            self.legend(&curves)
        ))
    }

    /// Draws the curve of series `i`.
    fn curve(&self, svg: &mut String, i: usize, curve: &Curve, axes: &Axes) {
        let (y, at) = (&axes.y, &|point| axes.at(point));
        let class = format!("s{}", i % COLORS);
        let main = if i == 0 { " main" } else { "" };
        if matches!(self.kind, Kind::Loss) && curve.raw.len() > 2 {
            // Outliers beyond the axis stay at its end.
            let clipped = curve.raw.iter().map(|&(px, py)| (px, py.min(y.high).max(y.low)));
            let _ = writeln!(svg, "<path class=\"raw {class}\" d=\"{}\"/>", path(clipped, at));
        }
        let line = path(curve.smooth.iter().copied(), at);
        let _ = writeln!(svg, "<path class=\"curve {class}{main}\" d=\"{line}\"/>");
        if matches!(self.kind, Kind::Percent) && curve.raw.len() <= MOST_DOTS {
            for &point in curve.raw.iter().filter(|p| p.1.is_finite()) {
                let (cx, cy) = at(point);
                let _ = writeln!(
                    svg,
                    "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2.6\"><title>\
                     {}, {} {}: {:.1}</title></circle>",
                    escape(&self.series[i].name),
                    escape(self.x_label),
                    tick_text(point.0),
                    point.1
                );
            }
        }
    }

    fn axes(&self, svg: &mut String, axes: &Axes) {
        let Axes { x, y } = axes;
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for &tick in &y.ticks {
            let (_, py) = axes.at((x.low, tick));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\
                 <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 7.0,
                py + 4.0,
                tick_text(tick)
            );
        }
        for &tick in &x.ticks {
            let (px, _) = axes.at((tick, y.low));
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text class=\"tick mid\" x=\"{px:.1}\" y=\"{}\">{}</text>",
                bottom + 4.0,
                bottom + 17.0,
                tick_text(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text class=\"label mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"label mid\" transform=\"translate(13 {:.1}) rotate(-90)\">{}{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            escape(self.x_label),
            (TOP + bottom) / 2.0,
            escape(self.y_label),
            if y.log { ", log scale" } else { "" }
        );
    }

    /// Names with the last value of each curve.
    fn legend(&self, curves: &[Curve]) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for (i, (series, curve)) in self.series.iter().zip(curves).enumerate() {
            let last = curve.smooth.iter().rev().find(|p| p.1.is_finite());
            let value = last.map_or_else(
                || "–".to_owned(),
                |p| match self.kind {
                    Kind::Loss => significant(p.1),
                    Kind::Percent => format!("{:.1}", p.1),
                },
            );
            let _ = write!(
                html,
                "<li><i class=\"s{}\"></i>{} <b>{value}</b></li>",
                i % COLORS,
                escape(&series.name)
            );
        }
        html.push_str("</ul>");
        html
    }
}

/// Both directions of a chart.
struct Axes {
    x: Axis,
    y: Axis,
}

impl Axes {
    /// Where in the drawing a point is.
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let right = WIDTH - RIGHT - LEFT;
        let up = HEIGHT - TOP - BOTTOM;
        (LEFT + right * self.x.place(x), HEIGHT - BOTTOM - up * self.y.place(y))
    }
}

/// Values along one direction of a chart.
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<f64>,
    log: bool,
}

impl Axis {
    /// Ticks at 1, 2 or 5 times a power of ten. With `round` (for the y axis) the ends move outwards to ticks.
    /// Without it (for the x axis) the ends stay where the values end, and ticks are whole numbers.
    pub(super) fn linear(low: f64, high: f64, round: bool) -> Self {
        let (mut low, mut high) = (low, high);
        if high - low < 1e-9 * high.abs().max(1e-9) {
            // One value only: room on both sides, none below zero.
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.5 };
            low = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
            high += room;
        }
        let step = if round {
            nice_step((high - low) / 5.0)
        } else {
            // Steps and epochs are whole.
            nice_step((high - low) / 8.0).max(1.0)
        };
        if round {
            (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        }
        let first = (low / step - 1e-6).ceil() as i64;
        let last = (high / step + 1e-6).floor() as i64;
        let ticks = (first..=last).map(|i| i as f64 * step).collect();
        Self { low, high, ticks, log: false }
    }

    /// Ticks at powers of ten, with 2 and 5 times these where few powers fit. Both ends must be positive; they
    /// move outwards to ticks.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        let decades = (high / low).log10();
        let steps: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let candidates = (first..=last).flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)));
        let candidates: Vec<f64> = candidates.collect();
        let low = candidates.iter().copied().rfind(|&t| t <= low).unwrap_or(low);
        let high = candidates.iter().copied().find(|&t| t >= high).unwrap_or(high);
        let ticks = candidates.into_iter().filter(|t| (low..=high).contains(t)).collect();
        Self { low, high, ticks, log: true }
    }

    /// 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|s| s * power >= rough * 0.999).unwrap_or(10.0);
    step * power
}

/// Smallest and largest finite value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
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

/// A tick's number as short as it can be: 12k, 0.05.
pub(super) fn tick_text(value: f64) -> String {
    let shown = |v: f64| {
        let text = format!("{v:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        a if a >= 1e6 => format!("{}M", shown(value / 1e6)),
        a if a >= 1e4 => format!("{}k", shown(value / 1e3)),
        a if a > 0.0 && a < 1e-4 => format!("{value:.0e}"),
        _ => shown(value),
    }
}

/// A number with three significant digits.
fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 2 - value.abs().max(1e-9).log10().floor() as i32;
    format!("{value:.*}", digits.clamp(0, 9) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_that_span_the_values() {
        assert_eq!(Axis::linear(0.0, 43.2, true).ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(Axis::linear(1.0, 12.0, false).ticks, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(Axis::linear(2.0, 4.0, false).ticks, [2.0, 3.0, 4.0]);
        let one = Axis::linear(7.0, 7.0, false);
        assert!(one.low < 7.0 && one.high > 7.0 && one.place(7.0) == 0.5);
        assert_eq!(Axis::linear(0.0, 0.0, true).ticks.first(), Some(&0.0));
        let log = Axis::logarithmic(0.3, 40.0);
        assert_eq!((log.low, log.high), (0.2, 50.0));
        assert!(log.ticks.contains(&1.0) && log.ticks.contains(&10.0));
        assert!((log.place((0.2f64 * 50.0).sqrt()) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.05, 30_000.0, 1_500_000.0, 1500.0, 0.000_01].map(tick_text);
        assert_eq!(texts, ["0", "0.05", "30k", "1.5M", "1500", "1e-5"]);
        assert_eq!(
            [12.345, 0.012_34, 1234.0, 0.0].map(significant),
            ["12.3", "0.0123", "1234", "0"]
        );
    }

    #[test]
    fn curves_are_thinned_smoothed_and_interrupted() {
        let points: Vec<_> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
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

    #[test]
    fn charts_without_points_are_left_out() {
        let chart = |points: Vec<(f64, f64)>, kind| {
            let series = [Series { name: "a<b".to_owned(), points }];
            Chart { title: "T", x_label: "x", y_label: "y", series: &series, kind }.render()
        };
        assert!(chart(vec![], Kind::Loss).is_none());
        assert!(chart(vec![(0.0, f64::NAN), (1.0, f64::INFINITY)], Kind::Loss).is_none());
        for points in
            [vec![(1.0, 0.0)], vec![(1.0, -2.0), (2.0, 1e9)], vec![(f64::NAN, 1.0), (0.0, 1.0)]]
        {
            for kind in [Kind::Loss, Kind::Percent] {
                let svg = chart(points.clone(), kind).unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains("a&lt;b"));
            }
        }
    }
}
