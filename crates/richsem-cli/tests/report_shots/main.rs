//! Reports of real runs in a real browser, headless: at the width of a phone, of a screen, and on paper. What is
//! compared are measures that no font changes much. `make report-shots` runs these tests; others do not need a
//! browser. `SHOTS=FOLDER` keeps the screenshots.
#![allow(clippy::unwrap_used)]

#[path = "../util/mod.rs"]
mod util;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use image::RgbImage;
use serde_json::Value;
use util::Dir;

/// CSS pixels of a phone and of a screen.
const WIDTHS: [u32; 2] = [390, 1280];

/// Pixels of what a screenshot shows of a page.
const HEIGHT: u32 = 3000;

/// The browser: `CHROMIUM`, or the first of its usual names on the path.
fn chromium() -> PathBuf {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return named.into();
    }
    let folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let files = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    files.into_iter().find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("no browser: install Debian's package chromium, or set CHROMIUM to one")
    })
}

/// Runs the browser on a page; gives what it prints.
fn browse(dir: &Dir, page: &Path, flags: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", dir.path("profile").display());
    let usual = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--force-color-profile=srgb",
        "--force-device-scale-factor=1",
        "--virtual-time-budget=20000",
        &profile,
    ];
    let run = Command::new(chromium())
        .args(usual)
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// The page in a frame of that width (a window cannot be as narrow as a phone), with a script beside it.
fn framed(dir: &Dir, page: &str, width: u32, height: u32) -> PathBuf {
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    let script = include_str!("measure.js");
    dir.write(
        &format!("framed-{width}.html"),
        format!(
            "<!doctype html><html><head><meta charset=\"utf-8\"><style>body {{ margin: 0 }} iframe {{ \
             border: 0; display: block; width: {width}px; height: {height}px }}</style></head><body>\
             <iframe srcdoc=\"{quoted}\"></iframe><script>{script}</script></body></html>"
        ),
    )
}

fn measured(dir: &Dir, page: &str, width: u32) -> Value {
    let file = framed(dir, page, width, 800);
    let dump = browse(dir, &file, &["--window-size=1400,900", "--dump-dom"]);
    let start = dump.find("data-measured=\"").unwrap_or_else(|| panic!("nothing measured: {dump}"));
    let value = &dump[start + 15..];
    serde_json::from_str(&decoded(&value[..value.find('"').unwrap()])).unwrap()
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let code = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(code, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// What the page looks like, `width` by [`HEIGHT`] pixels from its top.
fn shot(dir: &Dir, name: &str, page: &str, width: u32) -> RgbImage {
    let file = framed(dir, page, width, HEIGHT);
    let png = dir.path(&format!("{name}-{width}.png"));
    let screenshot = format!("--screenshot={}", png.display());
    browse(dir, &file, &[&format!("--window-size={},{HEIGHT}", width.max(600)), &screenshot]);
    if let Some(folder) = std::env::var_os("SHOTS") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(&png, Path::new(&folder).join(png.file_name().unwrap())).unwrap();
    }
    let image = image::open(&png).unwrap().to_rgb8();
    assert!(image.width() >= width && image.height() >= HEIGHT / 2, "{:?}", image.dimensions());
    image::imageops::crop_imm(&image, 0, 0, width, image.height()).to_image()
}

/// Share of the pixels that are not as the page's corner is.
fn share_drawn(image: &RgbImage) -> f64 {
    let paper = image.get_pixel(0, 0).0;
    let drawn =
        |pixel: &&image::Rgb<u8>| pixel.0.iter().zip(paper).any(|(a, b)| a.abs_diff(b) > 12);
    image.pixels().filter(drawn).count() as f64 / f64::from(image.width() * image.height())
}

fn check(dir: &Dir, name: &str, page: &str, sections: &[&str], charts: u64) {
    for width in WIDTHS {
        let found = measured(dir, page, width);
        let what = format!("{name} at {width} pixels: {found:#}");
        assert_eq!(found["width"], width, "{what}");
        assert_eq!(found["document"], width, "the page is wider than the window: {what}");
        for empty in ["beyond", "clipped", "outside", "touching", "nameless", "unfilled", "loaded"]
        {
            assert_eq!(found[empty].as_array().map(Vec::len), Some(0), "{empty}: {what}");
        }
        assert_eq!(found["sections"], serde_json::json!(sections), "{what}");
        assert_eq!(found["charts"], charts, "{what}");
        assert_eq!(found["broken"], 0, "{what}");
        if charts > 0 {
            let smallest = found["smallest"].as_f64().unwrap();
            assert!(smallest >= 9.0, "letters of {smallest} pixels: {what}");
        }
        let height = found["height"].as_f64().unwrap();
        assert!((1000.0..40_000.0).contains(&height), "{what}");

        let image = shot(dir, name, page, width);
        let share = share_drawn(&image);
        assert!((0.02..0.75).contains(&share), "{share} of {name} is drawn at {width} pixels");
        // Nothing lies on the page's right edge.
        let edge = image::imageops::crop_imm(&image, width - 4, 0, 4, image.height()).to_image();
        assert!(share_drawn(&edge) < 0.001, "{name}: the right edge at {width} pixels");
        // No screen of it is blank.
        let tall = image.height().min(height as u32);
        for top in (0..tall.saturating_sub(800)).step_by(400) {
            let part = image::imageops::crop_imm(&image, 0, top, width, 800).to_image();
            assert!(share_drawn(&part) > 0.005, "{name}: blank from {top} on at {width} pixels");
        }
    }
    let file = dir.write(&format!("{name}.html"), page);
    let pdf = dir.path(&format!("{name}.pdf"));
    browse(dir, &file, &["--no-pdf-header-footer", &format!("--print-to-pdf={}", pdf.display())]);
    let bytes = std::fs::read(&pdf).unwrap();
    let count = |object: &[u8]| bytes.windows(object.len()).filter(|w| *w == object).count();
    let pages = count(b"/Type /Page") - count(b"/Type /Pages");
    assert!((1..=40).contains(&pages), "{name}: {pages} printed pages");
}

#[test]
#[ignore = "needs a browser: make report-shots"]
fn the_report_of_a_run_is_readable_on_a_phone_a_screen_and_paper() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let more =
        ["--set", "train.eval_loss=true", "--set", "train.epochs=3", "--set", "train.log_every=2"];
    dir.command(&[&train[..], &more].concat()).ok();
    let copy = Command::new("cp").args(["-r", "run", "other"]).current_dir(dir.path("")).status();
    assert!(copy.unwrap().success());
    let report = ["report", "run", "--compare", "other", "--device", "cpu", "--output", "r.html"];
    dir.command(&report).ok();
    let sections = [
        "results",
        "certainty",
        "threshold",
        "mistakes",
        "training",
        "labels",
        "classes",
        "images",
        "run",
    ];
    // Three of thresholds, loss and AP, two of labels, two of classes.
    check(&dir, "run", &dir.text("r.html"), &sections, 9);
}

#[test]
#[ignore = "needs a browser: make report-shots"]
fn the_report_of_an_evaluation_is_readable_on_a_phone_a_screen_and_paper() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    dir.command(&train).ok();
    let eval =
        ["eval", "--weights", "run", "--annotations", "set/val.json", "--images", "set/images"];
    let more = ["--errors", "--report", "e.html", "--device", "cpu"];
    dir.command(&[&eval[..], &more].concat()).ok();
    let sections = ["results", "certainty", "threshold", "errors", "mistakes", "classes", "run"];
    check(&dir, "eval", &dir.text("e.html"), &sections, 5);
}

#[test]
#[ignore = "needs a browser: make report-shots"]
fn the_page_of_an_examination_is_readable_on_a_phone_a_screen_and_paper() {
    let dir = Dir::with_data();
    // Something to show, with a long name.
    let leak = "train/a_file_that_was_copied_from_the_images_of_val_and_has_a_long_name.jpg";
    dir.write(&format!("set/images/{leak}"), dir.read("set/images/val/000001.jpg"));
    let mut train = dir.json("set/train.json");
    let image = serde_json::json!({"id": 99, "file_name": leak});
    train["images"].as_array_mut().unwrap().push(image);
    dir.write("set/train.json", train.to_string());
    let doctor = ["doctor", "set/train.json", "--val", "set/val.json", "--images", "set/images"];
    dir.command(&[&doctor[..], &["--html", "d.html"]].concat()).exits(1);
    // What is folded is as wide as the rest.
    let page = dir.text("d.html").replace("<details>", "<details open>");
    let sections = ["problems", "scheme", "classes", "sizes", "notes"];
    check(&dir, "doctor", &page, &sections, 0);
}
