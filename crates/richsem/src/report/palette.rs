//! Checks of the colours: contrast on the page, and that curves, groups and verdicts can be told apart by people who
//! do not see red, green or blue.

use std::collections::HashMap;

use crate::{detections::Verdict, draw::verdict_color};

type Rgb = [f64; 3];

/// Simulations of protanopia, deuteranopia and tritanopia on linear RGB, severity 1: Machado, Oliveira and Fernandes
/// 2009, table 1 of their supplementary material.
const MACHADO: [[[f64; 3]; 3]; 3] = [
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
];

/// Least distance in OKLab between two colours that must be told apart. 0.02 is just noticeable side by side.
const APART: f64 = 0.15;

/// Variables of each `:root` block of the style sheet: light, dark, print.
fn blocks() -> Vec<HashMap<&'static str, Rgb>> {
    let blocks = include_str!("style.css").split(":root {").skip(1);
    let block = |text: &'static str| {
        let inside = text.split('}').next().unwrap_or_default();
        let variable = |line: &'static str| {
            let (name, value) = line.trim().split_once(": ")?;
            Some((name.strip_prefix("--")?, hex(value)))
        };
        inside.split(';').filter_map(variable).collect()
    };
    blocks.map(block).collect()
}

/// Linear RGB of `#rrggbb`.
fn hex(text: &str) -> Rgb {
    [1, 3, 5].map(|at| linear(u8::from_str_radix(&text[at..at + 2], 16).expect("a colour")))
}

fn linear(channel: u8) -> f64 {
    match f64::from(channel) / 255.0 {
        low if low <= 0.04045 => low / 12.92,
        high => ((high + 0.055) / 1.055).powf(2.4),
    }
}

/// Contrast as in WCAG 2.2.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let luminance = |c: Rgb| 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] + 0.05;
    let (a, b) = (luminance(a), luminance(b));
    a.max(b) / a.min(b)
}

fn times(matrix: &[[f64; 3]; 3], c: Rgb) -> Rgb {
    [0, 1, 2].map(|row: usize| (0..3).map(|i| matrix[row][i] * c[i]).sum())
}

/// Björn Ottosson's OKLab.
fn oklab(c: Rgb) -> Rgb {
    let cones = times(
        &[
            [0.412_221_470_8, 0.536_332_536_3, 0.051_445_992_9],
            [0.211_903_498_2, 0.680_699_545_1, 0.107_396_956_6],
            [0.088_302_461_9, 0.281_718_837_6, 0.629_978_700_5],
        ],
        c,
    );
    times(
        &[
            [0.210_454_255_3, 0.793_617_785_0, -0.004_072_046_8],
            [1.977_998_495_1, -2.428_592_205_0, 0.450_593_709_9],
            [0.025_904_037_1, 0.782_771_766_2, -0.808_675_766_0],
        ],
        cones.map(f64::cbrt),
    )
}

/// The least distance of two colours, as everyone sees them.
fn distance(a: Rgb, b: Rgb) -> f64 {
    let apart = |a: Rgb, b: Rgb| {
        let (a, b) = (oklab(a), oklab(b));
        (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt()
    };
    let seen = |matrix: &[[f64; 3]; 3], c: Rgb| times(matrix, c).map(|v| v.clamp(0.0, 1.0));
    let simulated = MACHADO.iter().map(|matrix| apart(seen(matrix, a), seen(matrix, b)));
    simulated.fold(apart(a, b), f64::min)
}

fn assert_apart(what: &str, colors: &[Rgb]) {
    for (i, &a) in colors.iter().enumerate() {
        for (j, &b) in colors.iter().enumerate().skip(i + 1) {
            let apart = distance(a, b);
            assert!(apart > APART, "{what}: colours {i} and {j} are {apart:.3} apart");
        }
    }
}

/// Known values: black on white is 21; OKLab's white is (1, 0, 0); a grey stays itself for everyone.
#[test]
fn the_measures_are_right() {
    let (black, white) = (hex("#000000"), hex("#ffffff"));
    assert!((contrast(black, white) - 21.0).abs() < 1e-9);
    assert!(oklab(white).iter().zip([1.0, 0.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-4));
    let grey = hex("#808080");
    for matrix in &MACHADO {
        assert!(times(matrix, grey).iter().zip(grey).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    // What the two most common forms confuse.
    let (red, green) = (hex("#c04000"), hex("#708000"));
    let plain = (0..3).map(|i| (oklab(red)[i] - oklab(green)[i]).powi(2)).sum::<f64>().sqrt();
    assert!(distance(red, green) < 0.5 * plain && distance(red, green) < APART);
}

#[test]
fn curves_are_told_apart_and_stand_out() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 3, "light, dark, print");
    for (name, block) in ["light", "dark", "print"].iter().zip(&blocks) {
        let curves: Vec<Rgb> = (0..6).map(|i| block[&*format!("s{i}")]).collect();
        assert_apart(name, &curves);
        for (i, &curve) in curves.iter().enumerate() {
            let least = contrast(curve, block["panel"]).min(contrast(curve, block["paper"]));
            assert!(least >= 3.0, "{name}: curve {i} has a contrast of {least:.2}");
        }
        for text in ["ink", "soft", "up", "down"] {
            let least =
                contrast(block[text], block["panel"]).min(contrast(block[text], block["paper"]));
            assert!(least >= 4.5, "{name}: --{text} has a contrast of {least:.2}");
        }
        assert!(distance(block["up"], block["down"]) > APART, "{name}: better and worse");
    }
}

#[test]
fn verdicts_are_told_apart() {
    let colors = Verdict::ALL.map(|verdict| verdict_color(verdict).0.map(linear));
    assert_apart("verdicts", &colors);
}
