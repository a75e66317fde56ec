use image::RgbImage;

use super::*;
use crate::{
    evaluate::{ClassResult, Protocol},
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
    }
}

fn data() -> ReportData {
    ReportData {
        title: "Run <1> & \"more\"".to_owned(),
        notes: vec!["Not <finished>.".to_owned()],
        facts: vec![("config".to_owned(), "</dd><script>alert(1)</script>".to_owned())],
        settings: "lr = \"<1>\"".to_owned(),
        loss: vec![Series { name: "total".to_owned(), points: vec![(0.0, 3.0), (1.0, 2.0)] }],
        ap: vec![Series { name: "AP".to_owned(), points: vec![(1.0, 0.1), (2.0, 0.345)] }],
        name: "this".to_owned(),
        summary: Some(summary(Some(0.345))),
        others: vec![],
        images: vec![Drawn { caption: "a 'b'".to_owned(), image: RgbImage::new(8, 8) }],
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

/// Tags are closed in the order they were opened, `"` and `<` occur only as they may.
#[test]
fn the_page_is_well_formed() {
    let mut data = data();
    data.others = vec![NamedSummary { name: "a<b".to_owned(), summary: summary(None) }];
    let page = render(&data).unwrap();
    let start = page.find("<body>").unwrap();
    let end = page.find("<script>").unwrap();
    // HTML's own void elements closed, the rest must be XML.
    let body = page[start..end].replace("alt=\"a &#39;b&#39;\">", "/>") + "</body>";
    roxmltree::Document::parse(&body).unwrap();
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
        ap: vec![Series { name: "AP".to_owned(), points: vec![(1.0, f64::NAN)] }],
        summary: Some(empty),
        images: vec![],
        ..data()
    };
    let page = render(&data).unwrap();
    for heading in ["Training", "Classes", "Images", "Run"] {
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
    data.images[0].image = RgbImage::new(0, 0);
    assert!(write(&folder.path().join("b.html"), &data).is_err());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn certainty_and_errors_are_shown_where_they_are_known() {
    use crate::evaluate::{
        Comparison, Errors, Intervals,
        errors::{Bin, Calibration, ErrorKind, Fixed, Pooled, Tide, TideError},
        intervals::{Difference, MetricInterval},
    };
    assert!(!render(&data()).unwrap().contains("section id=\"certainty\""));
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
    let known = Summary {
        intervals: Some(Intervals { groups: 50, metrics: vec![metric], per_class: vec![] }),
        comparison: Some(Comparison {
            with: "<other>.json".to_owned(),
            groups: 50,
            metrics: vec![difference],
            per_class: vec![],
        }),
        errors: Some(errors),
        ..summary(Some(0.345))
    };
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
