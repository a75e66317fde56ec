use image::RgbImage;

use super::*;
use crate::{
    evaluate::{ClassResult, Details, Protocol},
    vocabulary::{CategoryId, Frequency},
};

fn summary(ap: Option<f64>) -> Summary {
    let class = |id: i64, name: &str, frequency, image_count, ap| ClassResult {
        category_id: CategoryId(id),
        name: name.to_owned(),
        frequency,
        image_count,
        instance_count: image_count * 2,
        boxes: 7,
        ap,
        ap50: ap,
    };
    Summary {
        protocol: Protocol::Lvis,
        images: 1234,
        boxes: 5678,
        detections: 99_999,
        metrics: vec![
            ("AP".to_owned(), ap),
            ("AP50".to_owned(), Some(0.5)),
            ("APr".to_owned(), None),
            ("ARs@300".to_owned(), Some(0.25)),
        ],
        per_class: vec![
            class(1, "few", Some(Frequency::Rare), 4, Some(0.1)),
            class(2, "<b>many</b>", Some(Frequency::Frequent), 4000, ap),
            class(3, "none", None, 0, None),
        ],
        intervals: None,
        comparison: None,
        errors: None,
        details: None,
    }
}

fn series(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), short: name.to_owned(), exact: true, points }
}

fn data() -> ReportData {
    ReportData {
        title: "Run <1> & \"more\"".to_owned(),
        notes: vec!["Not <finished>.".to_owned()],
        facts: vec![("config".to_owned(), "</dd><script>alert(1)</script>".to_owned())],
        settings: "lr = \"<1>\"".to_owned(),
        loss: vec![series("total", vec![(0.0, 3.0), (1.0, 2.0)])],
        ap: vec![series("AP", vec![(1.0, 0.1), (2.0, 0.345)])],
        name: "this".to_owned(),
        summary: Some(summary(Some(0.345))),
        others: vec![],
        images: vec![Drawn::one("a 'b'".to_owned(), RgbImage::new(8, 8))],
        ..ReportData::default()
    }
}

#[test]
fn everything_given_is_shown_and_escaped() {
    let page = render(&data()).unwrap();
    for shown in [
        "<title>Run &lt;1&gt; &amp; &quot;more&quot;</title>",
        "<li>Not &lt;finished&gt;.</li>",
        "<pre>lr = &quot;&lt;1&gt;&quot;</pre>",
        "LVIS protocol · 1,234 images · 5,678 boxes of 3 classes · 99,999 detections",
        "&lt;/dd&gt;&lt;script&gt;alert(1)",
        "<span class=\"value\">34.5</span>",
        "<title>AP, epoch 2: 34.5</title>",
        ">AP</text>",
        "average recall, small objects (under 32² pixels), 300 detections an image",
        "&lt;b&gt;many&lt;/b&gt; (frequent): AP 34.5, AP50 34.5, 4,000 training images",
        "data:image/jpeg;base64,/9j/",
        "alt=\"a &#39;b&#39;\"",
    ] {
        assert!(page.contains(shown), "{shown} is missing");
    }
    assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched");
    let many = page.find("&lt;b&gt;many").unwrap();
    assert!(many < page.find(">few").unwrap(), "most training images first");
}

/// Curves, confusions and mistakes of the three classes.
fn details() -> Details {
    use crate::evaluate::details::{
        Confusion, ConfusionCell, OperatingPoint, OverScores, PrecisionRecall,
    };
    let (rare, frequent) = (Some(Frequency::Rare), Some(Frequency::Frequent));
    let curve = |group, overlap| PrecisionRecall {
        group,
        overlap,
        precision: (0..101).map(|i| 1.0 - f64::from(i) / 100.0).collect(),
    };
    let point = |score: f64| OperatingPoint {
        score,
        precision: score,
        recall: 1.0 - score,
        f1: 2.0 * score * (1.0 - score),
    };
    let over = |group| OverScores {
        group,
        boxes: 7,
        points: (0..=80).map(|i| point(f64::from(i) / 100.0)).collect(),
        best: Some(point(0.5)),
    };
    let cell = |truth: Option<i64>, found: Option<i64>, count| ConfusionCell {
        truth: truth.map(CategoryId),
        found: found.map(CategoryId),
        count,
    };
    Details {
        score: 0.5,
        precision_recall: vec![
            curve(None, 0.5),
            curve(None, 0.75),
            curve(rare, 0.5),
            curve(frequent, 0.5),
        ],
        over_scores: vec![over(None), over(rare), over(frequent)],
        confusion: Confusion {
            cells: vec![
                cell(Some(2), Some(2), 3000),
                cell(Some(2), None, 900),
                cell(None, Some(2), 800),
                cell(Some(2), Some(1), 100),
                cell(Some(1), Some(1), 1),
            ],
            left_out: 0,
        },
        misses: vec![],
        false_alarms: vec![],
    }
}

/// A page with all that a page can show.
fn full() -> ReportData {
    use crate::{data::label_statistics::LabelStatistics, train::Labels};
    let mut data = data();
    data.summary = Some(Summary { details: Some(details()), ..known(summary(Some(0.345))) });
    let other = Summary { details: Some(details()), ..summary(None) };
    data.others = vec![NamedSummary { name: "a<b".to_owned(), summary: other }];
    let counted = LabelStatistics {
        images: 10,
        boxes: 30,
        classes: 3,
        boxes_per_image: [1, 2, 3, 2, 1, 1, 0, 0],
        sides: [0, 1, 2, 3, 10, 10, 3, 1],
    };
    data.labels = Some(Labels { train: counted.clone(), val: Some(counted) });
    let drawn = || Drawn::one("worst <b>".to_owned(), RgbImage::new(8, 8));
    (data.misses, data.false_alarms) = (vec![drawn()], vec![drawn(), drawn()]);
    let views = ["ground truth", "prediction"].map(|view| (view.to_owned(), RgbImage::new(8, 8)));
    data.images.push(Drawn { caption: "two".to_owned(), views: views.into() });
    data
}

/// What the standard allows where: of the elements that pages here have. An element that is not listed is a
/// mistake; so is a child that its parent does not allow.
fn allowed(parent: &str, child: &str) -> bool {
    const FLOW: &[&str] = &[
        "p", "div", "ul", "dl", "table", "figure", "h1", "h2", "h3", "section", "header", "footer",
        "details", "pre", "svg", "img", "span", "b", "i", "code", "output", "main",
    ];
    const PHRASING: &[&str] = &["span", "b", "i", "code", "output", "svg", "img"];
    let any = |of: &[&[&str]]| of.iter().any(|of| of.contains(&child));
    match parent {
        "body" | "main" | "section" | "figcaption" | "li" | "dd" | "td" => any(&[FLOW]),
        // No heading or section inside.
        "header" | "footer" => any(&[&["h1"], &["p"], PHRASING]),
        "div" => any(&[FLOW, &["dt", "dd"]]),
        "figure" => any(&[FLOW, &["figcaption"]]),
        "details" => any(&[FLOW, &["summary"]]),
        "ul" => child == "li",
        "dl" => any(&[&["dt", "dd", "div"]]),
        "table" => any(&[&["caption", "thead", "tbody"]]),
        "thead" | "tbody" => child == "tr",
        "tr" => any(&[&["th", "td"]]),
        "p" | "h1" | "h2" | "h3" | "span" | "b" | "i" | "code" | "output" | "summary" | "dt"
        | "th" | "pre" | "caption" => any(&[PHRASING]),
        "svg" | "g" => any(&[&["g", "path", "line", "rect", "circle", "text", "title"]]),
        "path" | "rect" | "circle" => child == "title",
        _ => false,
    }
}

/// Parses the body as XML, which is stricter than HTML: every tag closed, in order, attributes quoted and each
/// once, `&` and `<` escaped. Then the rules of the standard that a parser does not check.
fn assert_valid(page: &str) {
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
    let start = page.find("<body>").unwrap();
    let end = page.find("<script>").unwrap();
    // HTML's own void element closed, the rest must be XML.
    let mut body = String::new();
    for (i, part) in page[start..end].split("<img ").enumerate() {
        let close = part.find('>').unwrap();
        let closed = if i == 0 {
            part.to_owned()
        } else {
            format!("<img {}/{}", &part[..close], &part[close..])
        };
        body.push_str(&closed);
    }
    body.push_str("</body>");
    let parsed = roxmltree::Document::parse(&body).unwrap_or_else(|e| panic!("{e} in\n{body}"));
    let mut ids = std::collections::HashSet::new();
    for node in parsed.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        if let Some(parent) = node.parent_element() {
            let parent = parent.tag_name().name();
            assert!(allowed(parent, name), "<{name}> in <{parent}>");
        }
        if let Some(id) = node.attribute("id") {
            assert!(!id.is_empty() && !id.contains(' ') && ids.insert(id.to_owned()), "id {id}");
        }
        match name {
            "img" => {
                let has =
                    |attribute| node.attribute(attribute).is_some_and(|value| !value.is_empty());
                assert!(["src", "alt", "width", "height"].into_iter().all(has), "{node:?}");
            }
            "svg" => {
                let named = node.attribute("aria-label").is_some();
                assert!(
                    named || node.attribute("aria-hidden") == Some("true"),
                    "an image without a name"
                );
            }
            "tr" => {
                // A row has as many cells as the first of its table.
                let cells = |row: roxmltree::Node<'_, '_>| {
                    row.children().filter(|c| c.is_element()).count()
                };
                let table = node.ancestors().find(|n| n.has_tag_name("table")).unwrap();
                let first = table.descendants().find(|n| n.has_tag_name("tr")).unwrap();
                assert_eq!(cells(node), cells(first), "{:?}", node.range());
            }
            "figure" | "section" | "ul" | "tbody" => {
                assert!(node.has_children(), "an empty <{name}>")
            }
            "details" => {
                let first = node.children().find(roxmltree::Node::is_element);
                assert!(first.is_some_and(|first| first.has_tag_name("summary")));
            }
            _ => {}
        }
    }
}

#[test]
fn the_page_is_valid() {
    let bare = ReportData { title: "bare".to_owned(), ..ReportData::default() };
    for data in [data(), full(), bare] {
        assert_valid(&render(&data).unwrap());
    }
}

/// The check above can fail.
#[test]
fn an_invalid_page_is_noticed() {
    let page = render(&data()).unwrap();
    for (from, to) in [
        ("<h2>Results</h2>", "<h2>Results</h2"),
        ("<h2>Results</h2>", "<h2><p>Results</p></h2>"),
        ("alt=", "title="),
        ("id=\"run\"", "id=\"results\""),
        ("Not &lt;finished&gt;.", "Not & finished."),
    ] {
        let broken = page.replace(from, to);
        assert_ne!(broken, page, "{from}");
        assert!(std::panic::catch_unwind(|| assert_valid(&broken)).is_err(), "{to}");
    }
}

#[test]
fn thresholds_confusions_and_mistakes_are_shown() {
    let page = render(&full()).unwrap();
    for shown in [
        "with detections of a score of at least 0.50: 50.0 % of them find a box, and 50.0 % of the boxes are found",
        "aria-label=\"Precision and recall\"",
        "all classes, AP50 <b>50.0</b>",
        "a&lt;b, all classes, AP50",
        ">best: 0.50</text>",
        "<td class=\"right\" style=\"--mix:38%\" title=\"75.0 % of the row\">3,000</td>",
        "<td class=\"wrong\" style=\"--mix:11%\" title=\"22.5 % of the row\">900</td>",
        "<tr><td>&lt;b&gt;many&lt;/b&gt;</td><td>few</td><td class=\"num\">100</td></tr>",
        "<h3>Worst misses</h3>",
        "<h3>Worst false alarms</h3>",
        "style=\"background:#0a84ff\"></i><b>TP</b>",
        "training: 10 images, 30 boxes of 3 classes, 3.0 an image.",
        "training images of a class, log scale",
        "alt=\"prediction of two\"",
    ] {
        assert!(page.contains(shown), "{shown} is missing in\n{page}");
    }
    let without = render(&data()).unwrap();
    for heading in ["Threshold", "Mistakes", "Labels"] {
        assert!(!without.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
}

/// Of many classes the matrix has those that are confused most; the others share a row and a column.
#[test]
fn a_large_matrix_is_cut_to_the_most_confused_classes() {
    use crate::evaluate::details::ConfusionCell;
    let mut many = summary(Some(0.3));
    let class = |id: i64| ClassResult {
        category_id: CategoryId(id),
        name: format!("class{id}"),
        ..many.per_class[0].clone()
    };
    many.per_class = (1..=60).map(class).collect();
    let cell = |truth, found, count| ConfusionCell {
        truth: Some(CategoryId(truth)),
        found: Some(CategoryId(found)),
        count,
    };
    let mut details = details();
    details.confusion.cells = vec![cell(55, 56, 9), cell(57, 57, 50), cell(58, 59, 1)];
    details.confusion.left_out = 4;
    many.details = Some(details);
    let page = render(&ReportData { summary: Some(many), ..data() }).unwrap();
    assert!(page.contains("The 20 classes that are confused most, of 60."));
    assert!(page.contains("<th scope=\"row\">other classes</th>"));
    let rows: Vec<usize> = ["class55", "class58"]
        .iter()
        .map(|name| page.find(&format!("<th scope=\"row\">{name}</th>")).unwrap())
        .collect();
    assert!(rows[0] < rows[1], "the most confused first");
    assert!(!page.contains("<th scope=\"row\">class57</th>"), "never confused");
    assert!(page.contains("4 more, in smaller cells, are left out"));
    assert_valid(&page);
}

#[test]
fn another_run_stands_beside_with_the_difference() {
    let mut data = data();
    data.others = vec![NamedSummary { name: "a<b".to_owned(), summary: summary(Some(0.3)) }];
    let page = render(&data).unwrap();
    assert!(page.contains("<th class=\"num\">a&lt;b</th>"));
    assert!(page.contains("<td class=\"num\">30.0</td><td class=\"num up\">+4.5</td>"));
    assert!(!page.contains("class=\"warning\""));
    assert_eq!(page.matches("<line class=\"mark\"").count(), 2, "classes with both values");
    assert_eq!(metrics::difference(Some(0.1), Some(0.2)), "<td class=\"num down\">−10.0</td>");
    assert_eq!(metrics::difference(Some(0.1), Some(0.1004)), "<td class=\"num\">0.0</td>");
    assert_eq!(metrics::difference(Some(0.1), None), "<td class=\"num\">–</td>");

    // Other ids: the same classes by their names. Then another class.
    let classes = &mut data.others[0].summary.per_class;
    let ids: Vec<_> = classes.iter().map(|class| class.category_id).rev().collect();
    classes.iter_mut().zip(ids).for_each(|(class, id)| class.category_id = id);
    assert_eq!(render(&data).unwrap(), page);
    data.others[0].summary.per_class[0].name = "of another set".to_owned();
    let page = render(&data).unwrap();
    assert!(page.contains("evaluated on other classes: "), "{page}");

    data.others[0].summary.images = 10;
    let page = render(&data).unwrap();
    assert!(page.contains("evaluated on 10 images with 5678 boxes, not 1234 with 5678"));
}

#[test]
fn nothing_to_show_is_left_out() {
    let empty = Summary { metrics: vec![], per_class: vec![], ..summary(None) };
    let data = ReportData {
        notes: vec![],
        facts: vec![],
        settings: String::new(),
        loss: vec![],
        ap: vec![series("AP", vec![(1.0, f64::NAN)])],
        summary: Some(empty),
        images: vec![],
        ..data()
    };
    let page = render(&data).unwrap();
    for heading in ["Threshold", "Mistakes", "Training", "Labels", "Classes", "Images", "Run"] {
        assert!(!page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert!(!page.contains("class=\"notes\""));
    // 1203 classes without a single value.
    let mut many = summary(None);
    let class = ClassResult { ap: None, ap50: None, image_count: 0, ..many.per_class[0].clone() };
    many.per_class = vec![class; 1203];
    let page = render(&ReportData { summary: Some(many), ..data.clone() }).unwrap();
    assert!(page.contains("1,203 classes, most training images first"));
    assert!(!page[..page.find("<script>").unwrap()].contains("NaN"));
    assert!(page.contains(">0.6</text>"), "ticks are short");
    // Nothing evaluated at all.
    let page = render(&ReportData { summary: None, ..data }).unwrap();
    assert!(page.contains("<p class=\"lead\">not evaluated</p>") && !page.contains("<h2>"));
}

#[test]
fn the_report_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let mut data = data();
    write(&path, &data).unwrap();
    assert_eq!(fs_err::read_to_string(&path).unwrap(), render(&data).unwrap());
    data.images[0].views[0].1 = RgbImage::new(0, 0);
    assert!(write(&folder.path().join("b.html"), &data).is_err());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
}

/// With intervals, a comparison and kinds of errors.
fn known(plain: Summary) -> Summary {
    use crate::evaluate::{
        Comparison, Errors, Intervals,
        errors::{Bin, Calibration, ErrorKind, Fixed, Pooled, Tide, TideError},
        intervals::{Difference, MetricInterval},
    };
    let metric = MetricInterval {
        name: "APr".to_owned(),
        value: Some(0.123),
        interval: Some([0.101, 0.145]),
        over_classes: None,
        classes: 20,
        boxes: 1045,
    };
    let errors = Errors {
        tide: Tide {
            ap50: 0.5,
            errors: vec![TideError { kind: ErrorKind::Missed, delta_ap: 0.077, count: 4321 }],
            false_positives: 0.02,
            false_negatives: 0.03,
            judged: 9,
        },
        calibration: Some(Calibration {
            ece: 0.0512,
            mce: 0.2,
            bins: vec![Bin { low: 0.9, high: 1.0, score: 0.95, share: 0.75, count: 8 }],
            per_class: vec![Some(0.1), None, None],
        }),
        fixed: Fixed {
            metrics: vec![metric.clone()],
            per_class: vec![None; 3],
            classes_below_limit: 3,
        },
        pooled: Pooled {
            ap: None,
            ap50: None,
            ap_rare: Some(0.333),
            ap_common: None,
            ap_frequent: None,
        },
    };
    let difference = Difference {
        name: "AP".to_owned(),
        first: Some(0.3),
        second: Some(0.32),
        difference: Some(-0.02),
        interval: Some([-0.031, -0.009]),
        over_classes: None,
        classes: 2,
        boxes: 7,
    };
    Summary {
        intervals: Some(Intervals { groups: 50, metrics: vec![metric], per_class: vec![] }),
        comparison: Some(Comparison {
            with: "<other>.json".to_owned(),
            groups: 50,
            metrics: vec![difference],
            per_class: vec![],
        }),
        errors: Some(errors),
        ..plain
    }
}

#[test]
fn certainty_and_errors_are_shown_where_they_are_known() {
    assert!(!render(&data()).unwrap().contains("section id=\"certainty\""));
    let known = known(summary(Some(0.345)));
    let page = render(&ReportData { summary: Some(known), ..data() }).unwrap();
    for shown in [
        "section id=\"certainty\"",
        "10.1 to 14.5",
        "1,045",
        "&lt;other&gt;.json",
        "−3.1 to −0.9",
        "not found",
        "4,321",
        "7.7",
        "33.3",
        "5.1",
        "75.0",
    ] {
        assert!(page.contains(shown), "no {shown} in\n{page}");
    }
}
