//! Shares of a few classes, as bars: of one set, or of two beside each other.

use std::fmt::Write as _;

use super::{
    LEAST_PERCENT,
    axis::Axis,
    frame::{Frame, figure},
};
use crate::report::{escape, thousands};

/// The bars of one set.
pub(in crate::report) struct Group<'a> {
    pub(in crate::report) name: &'a str,
    pub(in crate::report) counts: &'a [usize],
}

pub(in crate::report) struct Bars<'a> {
    pub(in crate::report) title: &'a str,
    pub(in crate::report) x_label: &'a str,
    /// What is counted.
    pub(in crate::report) what: &'a str,
    /// Beneath the bars.
    pub(in crate::report) classes: &'a [&'a str],
    pub(in crate::report) groups: &'a [Group<'a>],
}

impl Bars<'_> {
    /// `None` where nothing was counted.
    pub(in crate::report) fn render(&self) -> Option<String> {
        let shares = |counts: &[usize]| -> Vec<f64> {
            let total = counts.iter().sum::<usize>().max(1) as f64;
            counts.iter().map(|&count| 100.0 * count as f64 / total).collect()
        };
        let all: Vec<Vec<f64>> = self.groups.iter().map(|group| shares(group.counts)).collect();
        let most = all.iter().flatten().copied().fold(0.0, f64::max);
        if most == 0.0 {
            return None;
        }
        let x = Axis { low: 0.0, high: self.classes.len() as f64, ticks: vec![], log: false };
        let frame = Frame { x, y: Axis::linear(0.0, most.max(LEAST_PERCENT), true), right: 10.0 };
        let mut svg = Frame::open(self.title);
        frame.draw_upwards(&mut svg, &format!("{} (%)", self.what));
        frame.word_across(&mut svg, self.x_label);
        let width = 0.8 / self.groups.len().max(1) as f64;
        for (number, (group, shares)) in self.groups.iter().zip(&all).enumerate() {
            for (i, (&share, &count)) in shares.iter().zip(group.counts).enumerate() {
                let (left, top) = frame.at((i as f64 + 0.1 + number as f64 * width, share));
                let (right, _) = frame.at((i as f64 + 0.1 + (number + 1) as f64 * width, share));
                let _ = writeln!(
                    svg,
                    "<rect class=\"s{number}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                     height=\"{:.1}\"><title>{}, {}: {} ({share:.1} %)</title></rect>",
                    right - left,
                    Frame::FLOOR - top,
                    escape(group.name),
                    escape(self.classes[i]),
                    thousands(count),
                );
            }
        }
        for (i, class) in self.classes.iter().enumerate() {
            let (x, _) = frame.at((i as f64 + 0.5, 0.0));
            let _ = writeln!(
                svg,
                "<text class=\"tick mid\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                Frame::FLOOR + 17.0,
                escape(class)
            );
        }
        let mut legend = String::from("<ul class=\"legend blocks\">");
        for (number, group) in self.groups.iter().enumerate() {
            let total = thousands(group.counts.iter().sum());
            let _ = write!(
                legend,
                "<li><i class=\"s{number}\"></i>{} <b>{total} {}</b></li>",
                escape(group.name),
                escape(self.what)
            );
        }
        legend.push_str("</ul>");
        Some(figure(self.title, &svg, &legend))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_shares_of_their_set() {
        let of = |counts: &[usize]| {
            let groups = [Group { name: "a<b", counts }, Group { name: "val", counts: &[0, 2] }];
            Bars { title: "T", x_label: "x", what: "boxes", classes: &["0", "1+"], groups: &groups }
                .render()
                .unwrap()
        };
        let svg = of(&[3000, 1000]);
        assert!(svg.contains("<title>a&lt;b, 0: 3,000 (75.0 %)</title>"), "{svg}");
        assert!(svg.contains("<title>val, 1+: 2 (100.0 %)</title>"), "{svg}");
        assert!(!of(&[0, 0]).contains("NaN"));
        let none = [Group { name: "none", counts: &[0, 0][..] }];
        let bars = Bars { title: "", x_label: "", what: "", classes: &["", ""], groups: &none };
        assert!(bars.render().is_none());
    }
}
