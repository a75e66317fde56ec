//! Class by class: bars in order of training images (the long tail made visible) and a table.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    ReportData,
    chart::{Axis, LEAST_PERCENT, Point, Scatter, shortened, tick_text},
    escape, group_color, group_name,
    metrics::difference,
    percent, things, thousands,
};
use crate::{
    evaluate::{ClassResult, Summary},
    vocabulary::{ByName, CategoryId, Frequency, Match},
};

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 72.0;
const TOP: f64 = 12.0;
const PLOT: f64 = 240.0;

/// Up to so many classes are named beneath their bars.
const NAMED: usize = 90;

/// A longer name is cut off beneath its bar.
const MOST_LETTERS: usize = 24;

/// A table of up to so many rows is open from the start; a longer one is opened by a click.
const OPEN_ROWS: usize = 60;

pub(super) fn section(data: &ReportData, summary: &Summary) -> String {
    let mut classes: Vec<&ClassResult> = summary.per_class.iter().collect();
    if classes.is_empty() {
        return String::new();
    }
    classes.sort_by(|a, b| b.image_count.cmp(&a.image_count).then_with(|| a.name.cmp(&b.name)));
    let theirs = other_aps(data, &classes);
    scatter(&classes) + &bars(data, &classes, &theirs) + &table(data, &classes, &theirs)
}

fn group(class: &ClassResult) -> &'static str {
    group_name(class.frequency)
}

/// AP against training images: how steep the long tail falls.
fn scatter(classes: &[&ClassResult]) -> String {
    let groups = [Frequency::Frequent, Frequency::Common, Frequency::Rare]
        .map(Some)
        .into_iter()
        .chain([None]);
    let groups: Vec<_> = groups.collect();
    let named = |group: &Option<Frequency>| match group {
        None => ("no group", 0),
        group => (group_name(*group), group_color(*group)),
    };
    let names: Vec<_> = groups.iter().map(named).collect();
    let point = |class: &&ClassResult| {
        let group = groups.iter().position(|group| *group == class.frequency)?;
        Some(Point {
            group,
            x: f64::from(class.image_count.max(1)),
            y: 100.0 * class.ap.or(class.ap50)?,
            words: words(class),
        })
    };
    let points: Vec<Point> = classes.iter().filter_map(point).collect();
    // Under protocols that have no other.
    let y_label =
        if classes.iter().all(|class| class.ap.is_none()) { "AP50 (%)" } else { "AP (%)" };
    let chart = Scatter {
        title: "AP and training images",
        x_label: "training images of a class",
        y_label,
        groups: &names,
        points: &points,
    };
    chart.render().map(|chart| format!("<div class=\"charts\">{chart}</div>\n")).unwrap_or_default()
}

/// A class in words, for whoever points at it.
fn words(class: &ClassResult) -> String {
    let group = match class.frequency {
        Some(_) => format!(" ({})", group(class)),
        None => String::new(),
    };
    format!(
        "{}{group}: AP {}, AP50 {}, {}",
        class.name,
        percent(class.ap),
        percent(class.ap50),
        things(class.image_count as usize, "training image"),
    )
}

fn color_class(class: &ClassResult) -> String {
    format!("s{}", group_color(class.frequency))
}

/// AP of each class in the first of the other runs: of the class of its name there, whatever its id is; if several
/// have the name, of that with its id.
fn other_aps(data: &ReportData, classes: &[&ClassResult]) -> HashMap<CategoryId, f64> {
    let Some(other) = data.others.first() else { return HashMap::new() };
    let theirs = &other.summary.per_class;
    let by_name = ByName::of(theirs.iter().map(|class| class.name.as_str()));
    let matches = by_name.match_all(classes.iter().map(|class| class.name.as_str()));
    let other_ap = |class: &ClassResult, found| match found {
        Match::None => None,
        Match::One(place) => theirs[place].ap,
        Match::Unclear(places) => {
            let mut several = places.into_iter().map(|place| &theirs[place]);
            several.find(|c| c.category_id == class.category_id)?.ap
        }
    };
    let aps = classes.iter().zip(matches);
    aps.filter_map(|(class, found)| Some((class.category_id, other_ap(class, found)?))).collect()
}

/// How classes and values are placed in the chart.
struct Plot {
    /// AP in percent, on the left.
    ap: Axis,
    /// Training images, on the right.
    counts: Axis,
    /// Width of a class in units of the drawing.
    step: f64,
}

impl Plot {
    /// The y of the axis at the bottom.
    const FLOOR: f64 = TOP + PLOT;

    fn new(classes: &[&ClassResult], theirs: &HashMap<CategoryId, f64>) -> Self {
        let own = classes.iter().filter_map(|class| class.ap);
        let best = own.chain(theirs.values().copied()).fold(0.0, f64::max);
        let most = classes.iter().map(|c| c.image_count).max().unwrap_or(1).max(10);
        Self {
            ap: Axis::linear(0.0, (100.0 * best).max(LEAST_PERCENT), true),
            counts: Axis::logarithmic(1.0, f64::from(most)),
            step: (WIDTH - LEFT - RIGHT) / classes.len() as f64,
        }
    }

    /// The left end of a class.
    fn x(&self, i: usize) -> f64 {
        LEFT + i as f64 * self.step
    }

    /// The y of a value.
    fn y(axis: &Axis, value: f64) -> f64 {
        Self::FLOOR - PLOT * axis.place(value)
    }

    fn ticks(&self, svg: &mut String) {
        for &tick in &self.ap.ticks {
            let py = Self::y(&self.ap, tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/><text \
                 class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                py + 4.0,
                tick_text(tick)
            );
        }
        for &tick in self.counts.ticks.iter().filter(|t| t.log10().fract() == 0.0) {
            let (x, py) = (WIDTH - RIGHT + 7.0, Self::y(&self.counts, tick) + 4.0);
            let text = thousands(tick as usize);
            let _ = writeln!(svg, "<text class=\"tick\" x=\"{x}\" y=\"{py:.1}\">{text}</text>");
        }
    }

    /// The training images as an area of steps, behind the bars.
    fn area(&self, svg: &mut String, classes: &[&ClassResult]) {
        let (floor, step) = (Self::FLOOR, self.step);
        let mut area = format!("M{LEFT} {floor}");
        for (i, class) in classes.iter().enumerate() {
            let py = Self::y(&self.counts, f64::from(class.image_count.max(1)));
            let x = self.x(i);
            let _ = write!(area, "L{x:.1} {py:.1}L{:.1} {py:.1}", x + step);
        }
        let _ = writeln!(svg, "<path class=\"tail\" d=\"{area}L{} {floor}Z\"/>", WIDTH - RIGHT);
    }

    /// A class: its bar, a mark for the other run, and the text that hovering over it shows.
    fn bar(&self, svg: &mut String, class: &ClassResult, theirs: Option<&f64>, x: f64) {
        let (floor, step) = (Self::FLOOR, self.step);
        let up = |value: f64| Self::y(&self.ap, 100.0 * value);
        let (left, width) = (x + 0.12 * step, 0.76 * step);
        let top = up(class.ap.unwrap_or(0.0));
        let _ = write!(
            svg,
            "<g><title>{}</title>\
             <rect class=\"hover\" x=\"{x:.2}\" y=\"{TOP}\" width=\"{step:.2}\" height=\"{PLOT}\"/>\
             <rect class=\"{}\" x=\"{left:.2}\" y=\"{top:.1}\" width=\"{width:.2}\" height=\"{:.1}\"/>",
            escape(&words(class)),
            color_class(class),
            floor - top,
        );
        if let Some(&theirs) = theirs {
            let mark = up(theirs);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.2}\" x2=\"{:.2}\" y1=\"{mark:.1}\" y2=\"{mark:.1}\"/>",
                x + step
            );
        }
        svg.push_str("</g>\n");
    }

    /// The name of a class beneath its bar.
    fn name(&self, svg: &mut String, class: &ClassResult, x: f64) {
        let (tx, ty) = (x + self.step / 2.0 + 3.0, Self::FLOOR + 12.0);
        let name = shortened(&class.name, MOST_LETTERS);
        let _ = writeln!(
            svg,
            "<text class=\"tick end\" transform=\"translate({tx:.1} {ty:.1}) rotate(-60)\">{}\
             </text>",
            escape(&name)
        );
    }

    fn labels(svg: &mut String) {
        let floor = Self::FLOOR;
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{floor}\" y2=\"{floor}\"/>\
             <text class=\"label mid\" transform=\"translate(13 {mid}) rotate(-90)\">AP (%)</text>\
             <text class=\"label mid\" transform=\"translate({} {mid}) rotate(90)\">training images, \
             log scale</text>",
            WIDTH - RIGHT,
            WIDTH - 14.0,
            mid = TOP + PLOT / 2.0,
        );
    }
}

/// The chart of AP by class: bars, with the training images behind them.
fn bars(data: &ReportData, classes: &[&ClassResult], theirs: &HashMap<CategoryId, f64>) -> String {
    let named = classes.len() <= NAMED;
    let letters =
        classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).min(MOST_LETTERS);
    // Names run downwards at 60°, 12 units high and about 6.8 wide a letter.
    let below = if named { 22.0 + letters as f64 * 5.9 } else { 26.0 };
    let height = TOP + PLOT + below;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"AP by class\">\n"
    );
    let plot = Plot::new(classes, theirs);
    plot.ticks(&mut svg);
    plot.area(&mut svg, classes);
    for (i, class) in classes.iter().enumerate() {
        plot.bar(&mut svg, class, theirs.get(&class.category_id), plot.x(i));
        if named {
            plot.name(&mut svg, class, plot.x(i));
        }
    }
    Plot::labels(&mut svg);
    if !named {
        let _ = writeln!(
            svg,
            "<text class=\"label mid\" x=\"{}\" y=\"{}\">{} classes, most training images first; \
             hover for names</text>",
            WIDTH / 2.0,
            Plot::FLOOR + 18.0,
            thousands(classes.len())
        );
    }
    svg.push_str("</svg>\n");
    format!(
        "<figure class=\"chart wide\"><h3>Average precision by class</h3>\n<div class=\"scroll\">{svg}</div>\
         <figcaption>{}</figcaption></figure>\n",
        legend(data, classes)
    )
}

fn legend(data: &ReportData, classes: &[&ClassResult]) -> String {
    let mut html = String::from("<ul class=\"legend blocks\">");
    for (frequency, name) in [
        (Some(Frequency::Frequent), "frequent"),
        (Some(Frequency::Common), "common"),
        (Some(Frequency::Rare), "rare"),
        (None, "no group"),
    ] {
        let count = classes.iter().filter(|c| c.frequency == frequency).count();
        if let Some(class) = classes.iter().find(|c| c.frequency == frequency) {
            let color = color_class(class);
            let classes = if count == 1 { "class" } else { "classes" };
            let _ =
                write!(html, "<li><i class=\"{color}\"></i>{name} <b>{count} {classes}</b></li>");
        }
    }
    html.push_str("<li><i class=\"tail\"></i>training images</li>");
    if let Some(other) = data.others.first() {
        let _ = write!(html, "<li><i class=\"mark\"></i>{}</li>", escape(&other.name));
    }
    html.push_str("</ul>");
    html
}

fn table(data: &ReportData, classes: &[&ClassResult], theirs: &HashMap<CategoryId, f64>) -> String {
    let open = if classes.len() <= OPEN_ROWS { " open=\"\"" } else { "" };
    let mut html = format!(
        "<details{open}><summary>All {} as a table (click a heading to sort)</summary>\n\
         <div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>class</th><th>group</th>\
         <th class=\"num\">training images</th><th class=\"num\">training boxes</th>\
         <th class=\"num\">boxes here</th><th class=\"num\">AP50</th><th class=\"num\">AP</th>",
        things(classes.len(), "class")
    );
    if let Some(other) = data.others.first() {
        let name = escape(&other.name);
        let _ = write!(html, "<th class=\"num\">AP, {name}</th><th class=\"num\">difference</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for class in classes {
        let _ = write!(
            html,
            "<tr><td>{}</td><td><i class=\"dot {}\"></i>{}</td><td class=\"num\">{}</td>\
             <td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>\
             <td class=\"num\">{}</td>",
            escape(&class.name),
            color_class(class),
            group(class),
            thousands(class.image_count as usize),
            thousands(class.instance_count as usize),
            thousands(class.boxes as usize),
            percent(class.ap50),
            percent(class.ap),
        );
        if !data.others.is_empty() {
            let theirs = theirs.get(&class.category_id).copied();
            let _ = write!(
                html,
                "<td class=\"num\">{}</td>{}",
                percent(theirs),
                difference(class.ap, theirs)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div></details>\n");
    html
}
