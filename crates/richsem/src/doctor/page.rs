//! An examination as one HTML file, with images of what was found.

use std::fmt::Write as _;

use image::{RgbImage, imageops};

use super::{Examination, Example, Finding, Level, Part, Shown};
use crate::{
    boxes::Xywh,
    draw::{self, Labeled},
    error::Result,
    gallery::Drawn,
    plural::{self},
    report::{self, escape, gallery, section, thousands},
    vocabulary::Frequency,
};

/// Longer side of an image as it is shown, in pixels.
const SIDE: u32 = 400;
/// A small image is enlarged by at most this factor.
const LARGEST_SCALE: f32 = 4.0;

/// The page. `parts` are those that were examined: their images are read again, as many as are shown.
///
/// # Errors
/// Never for an image that cannot be read: its words alone are shown then. What JPEG refuses.
pub fn page(title: &str, examination: &Examination, parts: &[Part<'_>]) -> Result<String> {
    let of_level = |level: Level| -> Result<String> {
        let findings = examination.findings.iter().filter(|finding| finding.level == level);
        findings.map(|finding| one(finding, parts)).collect()
    };
    let lead: Vec<String> = examination
        .parts
        .iter()
        .map(|part| {
            let boxes = if part.boxes > 0 {
                format!(", {} {}", thousands(part.boxes), plural::of(part.boxes, "box"))
            } else {
                String::new()
            };
            let images = plural::of(part.images, "image");
            format!("{}: {} {images}{boxes}", part.name, thousands(part.images))
        })
        .collect();
    let body = [
        section("Problems", &of_level(Level::Problem)?),
        section("To look at", &of_level(Level::Look)?),
        section("Scheme", &scheme(examination)),
        section("Classes", &(groups(examination) + &classes(examination))),
        section("Sizes", &sizes(examination)),
        section("Notes", &of_level(Level::Note)?),
    ];
    let lead = escape(&lead.join(" · "));
    Ok(report::page(&format!("{title}: examined"), &lead, &body.concat(), ""))
}

fn one(finding: &Finding, parts: &[Part<'_>]) -> Result<String> {
    let (mut drawn, mut words) = (Vec::new(), String::new());
    for example in &finding.examples {
        match image_of(example, parts) {
            Some(image) => drawn.push(Drawn::one(example.text.clone(), image)),
            None => {
                let _ = write!(words, "<li>{}</li>", escape(&example.text));
            }
        }
    }
    let advice = escape(&finding.advice);
    let advice =
        if advice.is_empty() { advice } else { format!("<p class=\"lead\">{advice}</p>\n") };
    let words = if words.is_empty() {
        words
    } else {
        format!("<details><summary>The first</summary><ul>{words}</ul></details>\n")
    };
    Ok(format!(
        "<h3>{}: {}</h3>\n{advice}{words}{}",
        escape(&finding.part),
        escape(&finding.text),
        gallery(&drawn)?
    ))
}

/// The images of an example, beside each other if there are two; none if one cannot be read.
fn image_of(example: &Example, parts: &[Part<'_>]) -> Option<RgbImage> {
    let mut images = Vec::new();
    for shown in &example.shown {
        images.push((label(shown, parts), one_image(shown, parts)?));
    }
    match images.as_slice() {
        [(_, image)] => Some(image.clone()),
        [(a, left), (b, right)] => Some(draw::side_by_side((a, left), (b, right), "")),
        _ => None,
    }
}

fn label(shown: &Shown, parts: &[Part<'_>]) -> String {
    format!("{}: {}", parts[shown.part].name(), shown.file)
}

fn one_image(shown: &Shown, parts: &[Part<'_>]) -> Option<RgbImage> {
    let image = parts.get(shown.part)?.store?.image(&shown.file).ok()?;
    let (width, height) = image.dimensions();
    let scale = (SIDE as f32 / width.max(height).max(1) as f32).min(LARGEST_SCALE);
    let [w, h] = [width, height].map(|side| ((side as f32 * scale).round() as u32).max(1));
    let mut image = imageops::resize(&image, w, h, imageops::FilterType::Triangle);
    let labels: Vec<Labeled> = shown
        .boxes
        .iter()
        .map(|marked| {
            let mut bbox = Xywh(marked.bbox).to_xyxy();
            bbox.0 = bbox.0.map(|v| v * scale);
            // A detection has another colour than a label of the same class.
            let shift = u64::from(marked.score.is_some());
            Labeled {
                bbox,
                class_name: marked.label.clone(),
                color_key: 2 * marked.category_id.unsigned_abs() + shift,
                score: marked.score.map(|score| score as f32),
                dashed: false,
            }
        })
        .collect();
    draw::draw(&mut image, &labels);
    Some(image)
}

fn scheme(examination: &Examination) -> String {
    let mut html = String::new();
    for advice in &examination.scheme.advice {
        let setting = match &advice.value {
            Some(value) => {
                format!("<code>{}</code>", escape(&format!("{} = {value}", advice.key)))
            }
            None => String::new(),
        };
        let _ = writeln!(
            html,
            "<tr><td>{setting}</td><td>{}</td><td>{}</td></tr>",
            escape(&advice.why),
            escape(advice.source)
        );
    }
    if html.is_empty() {
        return "<p>The numbers of this set speak for the default settings.</p>\n".to_owned();
    }
    format!(
        "<table class=\"stacked\"><thead><tr><th>setting</th><th>why</th><th>source</th></tr></thead><tbody>\n{html}</tbody>\
         </table>\n<details><summary>As a settings file</summary><pre>{}</pre></details>\n",
        escape(&examination.scheme.toml)
    )
}

/// A table: columns that start with `<` are flush left.
fn table(columns: &[String], rows: &[Vec<String>], class: &str) -> String {
    let side = |column: &String| if column.starts_with('<') { "" } else { " class=\"num\"" };
    let mut html = format!("<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for column in columns {
        let _ = write!(html, "<th{}>{}</th>", side(column), escape(column.trim_start_matches('<')));
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (cell, column) in row.iter().zip(columns) {
            let _ = write!(html, "<td{}>{}</td>", side(column), escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn group_name(frequency: Frequency) -> &'static str {
    match frequency {
        Frequency::Rare => "rare",
        Frequency::Common => "common",
        Frequency::Frequent => "frequent",
    }
}

/// Names of columns, the same two for each part.
fn columns(first: &[&str], examination: &Examination, each: [&str; 2]) -> Vec<String> {
    let mut columns: Vec<String> = first.iter().map(|&name| name.to_owned()).collect();
    for part in &examination.parts {
        columns.extend(each.map(|what| format!("{}: {what}", part.name)));
    }
    columns
}

fn groups(examination: &Examination) -> String {
    let columns = columns(&["<group", "classes"], examination, ["classes seen", "boxes"]);
    let rows = examination.groups.iter().map(|group| {
        let mut row = vec![group_name(group.frequency).to_owned(), thousands(group.classes)];
        for (seen, boxes) in group.seen.iter().zip(&group.boxes) {
            row.extend([thousands(*seen), thousands(*boxes)]);
        }
        row
    });
    table(&columns, &rows.collect::<Vec<_>>(), "")
}

fn classes(examination: &Examination) -> String {
    let columns = columns(&["<class", "<group"], examination, ["images", "boxes"]);
    let rows = examination.classes.iter().map(|class| {
        let mut row = vec![class.name.clone(), group_name(class.frequency).to_owned()];
        for (images, boxes) in class.images.iter().zip(&class.boxes) {
            row.extend([thousands(*images), thousands(*boxes)]);
        }
        row
    });
    let rows: Vec<_> = rows.collect();
    let all = table(&columns, &rows, "sortable");
    format!(
        "<details><summary>All {}</summary>\n{all}</details>\n",
        plural::counted(rows.len(), "class")
    )
}

fn sizes(examination: &Examination) -> String {
    let (sizes, density) = (&examination.sizes, &examination.density);
    let columns = ["<boxes", "below 16 px", "16 to 32", "32 to 96", "from 96"].map(str::to_owned);
    let share = |counts: &[usize; 4]| {
        let total = counts.iter().sum::<usize>().max(1) as f64;
        counts.map(|count| format!("{:.1} %", 100.0 * count as f64 / total))
    };
    let row = |name: &str, counts: &[usize; 4]| {
        let total = counts.iter().sum::<usize>();
        let mut row = vec![format!("{name} ({})", thousands(total))];
        row.extend(share(counts));
        row
    };
    let mut rows = vec![row("all", &sizes.by_side)];
    for (name, counts) in ["rare", "common", "frequent"].iter().zip(&sizes.by_group) {
        if counts.iter().sum::<usize>() > 0 {
            rows.push(row(name, counts));
        }
    }
    format!(
        "<p class=\"lead\">Sides of the training part's boxes (root of the area) once images are resized to \
         {} pixels, at most {}. The images' median shorter side is {} pixels. An image has {:.1} boxes on \
         average, 99 % of the images at most {}, the fullest {}.</p>\n{}",
        sizes.scale.size,
        sizes.scale.max_size,
        sizes.median_side,
        density.mean,
        density.p99,
        density.most,
        table(&columns, &rows, "")
    )
}
