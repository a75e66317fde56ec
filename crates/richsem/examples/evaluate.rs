//! Compares two files of detections on the same annotations, class by class.
//!
//!     cargo run --release --example evaluate -- val.json a.json b.json

use std::collections::BTreeMap;

use richsem::{data::dataset::Dataset, detections, prelude::*};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [annotations, first, second] = &arguments[..] else {
        anyhow::bail!("usage: evaluate ANNOTATIONS DETECTIONS DETECTIONS");
    };
    // The annotations are read once.
    let evaluator = Evaluator::of(&Dataset::open(annotations.as_ref())?);
    let evaluate = |file: &String| evaluator.evaluate(&detections::read(file.as_ref())?);
    let (a, b) = (evaluate(first)?, evaluate(second)?);
    println!("by the {} protocol", evaluator.protocol());
    for (name, value) in &a.metrics {
        println!("{name:>5} {:>7} {:>7}", percent(*value), percent(b.get(name)));
    }
    let of = |summary: &Summary| -> BTreeMap<String, f64> {
        let classes = summary.per_class.iter();
        classes.filter_map(|class| Some((class.name.clone(), class.ap?))).collect()
    };
    let (a, b) = (of(&a), of(&b));
    for (name, ap) in &b {
        let gain = ap - a.get(name).copied().unwrap_or_default();
        if gain.abs() > 0.05 {
            println!("{name}: {:+.1}", 100.0 * gain);
        }
    }
    Ok(())
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1}", 100.0 * value))
}
