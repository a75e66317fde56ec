//! What the labels are like that a run learned from and was evaluated on.

use super::{
    chart::{Bars, Group},
    escape, things,
};
use crate::{data::label_statistics::LabelStatistics, train::Labels};

pub(super) fn section(labels: &Labels) -> String {
    let sets: Vec<(&str, &LabelStatistics)> = [("training", &labels.train)]
        .into_iter()
        .chain(labels.val.as_ref().map(|val| ("validation", val)))
        .collect();
    let mut lead = String::from("<p>");
    for (name, set) in &sets {
        let mean = set.boxes as f64 / set.images.max(1) as f64;
        lead.push_str(&escape(&format!(
            "{name}: {}, {} of {}, {mean:.1} an image. ",
            things(set.images, "image"),
            things(set.boxes, "box"),
            things(set.classes, "class"),
        )));
    }
    let lead = format!("{}</p>\n", lead.trim_end());
    let groups = |counts: fn(&LabelStatistics) -> &[usize; 8]| -> Vec<Group<'_>> {
        sets.iter().map(|&(name, set)| Group { name, counts: counts(set) }).collect()
    };
    let images = groups(|set| &set.boxes_per_image);
    let sides = groups(|set| &set.sides);
    let charts = [
        Bars {
            title: "Boxes in an image",
            x_label: "boxes",
            what: "images",
            classes: &["0", "1", "2", "3–4", "5–8", "9–16", "17–32", "33–"],
            groups: &images,
        },
        Bars {
            title: "Size of boxes",
            x_label: "root of the area, in pixels of the file",
            what: "boxes",
            classes: &["<8", "8–", "16–", "32–", "64–", "128–", "256–", "512–"],
            groups: &sides,
        },
    ];
    let charts: String = charts.iter().filter_map(Bars::render).collect();
    format!("{lead}<div class=\"charts\">{charts}</div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_of_a_chart_reads_as_a_negative_number() {
        let set = LabelStatistics { boxes_per_image: [1; 8], sides: [1; 8], ..Default::default() };
        let html = section(&Labels { train: set, val: None });
        assert!(html.contains(">9–16<") && html.contains(">17–32<"), "{html}");
        assert!(!html.contains(">–"), "{html}");
    }
}
