//! Points in groups, each group with a colour and a shape: shapes tell them apart without colours.

use std::fmt::Write as _;

use super::{
    LEAST_PERCENT,
    axis::Axis,
    frame::{Frame, figure},
};
use crate::report::escape;

/// Half the size of a mark.
const R: f64 = 3.6;

pub(in crate::report) struct Point {
    /// Number of its group.
    pub(in crate::report) group: usize,
    /// Above 0: the axis is logarithmic.
    pub(in crate::report) x: f64,
    /// In percent.
    pub(in crate::report) y: f64,
    /// Shown when the mouse is over it.
    pub(in crate::report) words: String,
}

pub(in crate::report) struct Scatter<'a> {
    pub(in crate::report) title: &'a str,
    pub(in crate::report) x_label: &'a str,
    pub(in crate::report) y_label: &'a str,
    /// Names of the groups with the number of their colour.
    pub(in crate::report) groups: &'a [(&'a str, usize)],
    pub(in crate::report) points: &'a [Point],
}

impl Scatter<'_> {
    /// `None` without a point.
    pub(in crate::report) fn render(&self) -> Option<String> {
        let xs = super::range(self.points.iter().map(|point| point.x).filter(|&x| x > 0.0))?;
        let most = self.points.iter().map(|point| point.y).fold(LEAST_PERCENT, f64::max);
        let x = Axis::logarithmic(xs.0, xs.1.max(2.0 * xs.0));
        let frame = Frame { x, y: Axis::linear(0.0, most, true), right: 12.0 };
        let mut svg = Frame::open(self.title);
        frame.draw(&mut svg, self.x_label, self.y_label);
        for point in self.points {
            let (x, y) = frame.at((point.x, point.y));
            let (_, color) = self.groups[point.group];
            let _ = writeln!(
                svg,
                "<path class=\"point s{color}\" d=\"{}\"><title>{}</title></path>",
                shape(point.group, x, y),
                escape(&point.words)
            );
        }
        let mut legend = String::from("<ul class=\"legend\">");
        for (number, (name, color)) in self.groups.iter().enumerate() {
            let count = self.points.iter().filter(|point| point.group == number).count();
            if count > 0 {
                let _ = write!(
                    legend,
                    "<li><svg class=\"key\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><path \
                     class=\"point s{color}\" d=\"{}\"/></svg>{} <b>{count}</b></li>",
                    shape(number, 5.0, 5.0),
                    escape(name)
                );
            }
        }
        legend.push_str("</ul>");
        Some(figure(self.title, &svg, &legend))
    }
}

/// The mark of a group: a disc, a square, a triangle, a cross of its own.
fn shape(group: usize, x: f64, y: f64) -> String {
    match group % 4 {
        0 => format!(
            "M{:.1} {y:.1}a{R} {R} 0 1 0 {} 0a{R} {R} 0 1 0 -{} 0Z",
            x - R,
            2.0 * R,
            2.0 * R
        ),
        1 => format!("M{:.1} {:.1}h{s}v{s}h-{s}Z", x - 0.85 * R, y - 0.85 * R, s = 1.7 * R),
        2 => format!("M{x:.1} {:.1}l{R} {h}h-{}Z", y - R, 2.0 * R, h = 1.8 * R),
        _ => format!("M{x:.1} {:.1}l{R} {R}l-{R} {R}l-{R} -{R}Z", y - R),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn groups_differ_in_colour_and_shape() {
        let point = |group, x, y| Point { group, x, y, words: "a<b".to_owned() };
        let points = [point(0, 10.0, 0.01), point(1, 1000.0, 40.0), point(3, 10.0, 0.0)];
        let groups = [("many", 3), ("some", 2), ("few", 1), ("no group", 0)];
        let of = |points: &[Point]| {
            Scatter { title: "T", x_label: "x", y_label: "y", groups: &groups, points }.render()
        };
        let svg = of(&points).unwrap();
        assert!(svg.contains("x, log scale") && svg.contains("<title>a&lt;b</title>"), "{svg}");
        assert_eq!(svg.matches("class=\"point s3\"").count(), 2, "the point and its key");
        assert!(!svg.contains(">few <b>"), "no point of it");
        assert!(of(&points[..1]).unwrap().contains(">1</text>"), "the axis reaches 1 %");
        assert!(of(&[]).is_none());
        let shapes: std::collections::HashSet<_> = (0..4).map(|i| shape(i, 0.0, 0.0)).collect();
        assert_eq!(shapes.len(), 4);
    }
}
