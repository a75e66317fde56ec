//! How long large data takes to be read, and in how much memory.
//!
//! ```text
//! cargo run --release -p richsem --example large_data -- openimages /tmp/boxes.csv     # 2.2 GB, made if it is not there
//! cargo run --release -p richsem --example large_data -- tar /tmp/nested.tar --bytes 3000
//! cargo run --release -p richsem --example large_data -- eval annotations.json detections.json
//! ```
//!
//! `openimages`: a file of boxes as OpenImages' training set. `tar`: an archive of 1,000 archives of 1,000 files
//! each, indexed twice; the second time counts, when the headers are in memory. `eval`: what intervals and kinds of
//! errors cost beside the metrics (files of LVIS's size: `benches/pytorch/lvis_eval.py` makes some).

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use richsem::{
    data::{dataset::Dataset, formats::Opening, image_io::Orientation, image_store::ImageStore},
    detections,
    error::write_atomically,
    evaluate::Evaluator,
    testing::{resident_mb, write_nested_tar, write_openimages},
};

const INNER: usize = 1000;
const FILES: usize = 1000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["openimages", path] => openimages(Path::new(path)),
        ["tar", path] => tar(Path::new(path), 3000),
        ["tar", path, "--bytes", bytes] => {
            tar(Path::new(path), bytes.parse().context("--bytes takes a number")?)
        }
        ["eval", annotations, detections] => eval(Path::new(annotations), Path::new(detections)),
        other => bail!(
            "expected openimages FILE, tar FILE [--bytes NUMBER], or eval ANNOTATIONS DETECTIONS, got \
             {other:?}"
        ),
    }
}

fn openimages(path: &Path) -> Result<()> {
    if !path.exists() {
        write_atomically(path, |out| Ok(write_openimages(out, 1.0)?))
            .context("writing the file")?;
    }
    let before = resident_mb("VmRSS").unwrap_or_default();
    let begin = Instant::now();
    let opening = Opening { pixels: false, ..Opening::default() };
    let dataset = Dataset::open_as(path, &opening)?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}: {}", path.display(), dataset.report());
    let peak = resident_mb("VmHWM").unwrap_or_default();
    println!("{seconds:.1} s; peak resident {peak:.0} MB, of which {before:.0} MB before");
    Ok(())
}

fn tar(path: &Path, bytes: u64) -> Result<()> {
    if !path.exists() {
        write_nested_tar(path, INNER, FILES, bytes).context("writing the file")?;
    }
    for _ in 0..2 {
        // It would be found again.
        let _ = std::fs::remove_file(format!("{}.richsem-index", path.display()));
        let begin = Instant::now();
        let store = ImageStore::open(path, Orientation::default())?;
        let seconds = begin.elapsed().as_secs_f64();
        let megabytes = std::fs::metadata(path)?.len() as f64 / 1e6;
        let files = (INNER * FILES) as f64;
        println!(
            "{}: {megabytes:.0} MB in {seconds:.2} s, {:.0} MB/s, {:.2} µs a file",
            store.path().display(),
            megabytes / seconds,
            seconds / files * 1e6
        );
    }
    Ok(())
}

fn eval(annotations: &Path, found: &Path) -> Result<()> {
    let told = |what: &str, begin: Instant| {
        let peak = resident_mb("VmHWM").unwrap_or_default();
        println!(
            "{what}: {:.2} s; peak resident so far {peak:.0} MB",
            begin.elapsed().as_secs_f64()
        );
    };
    let begin = Instant::now();
    let evaluator = Evaluator::of(&Dataset::open(annotations)?);
    let found = detections::read(found)?;
    told("reading", begin);
    let begin = Instant::now();
    let plain = evaluator.evaluate(&found)?;
    told("metrics", begin);
    let begin = Instant::now();
    let summary = evaluator.evaluate_with_intervals(&found)?;
    told("metrics with intervals", begin);
    ensure!(summary.metrics == plain.metrics, "the metrics differ");
    let matches = evaluator.matches(&found)?;
    let begin = Instant::now();
    let errors = evaluator.errors(&found, &matches)?;
    told("kinds of errors", begin);
    println!("{} judged; AP50 {:.4}", errors.tide.judged, errors.tide.ap50);
    Ok(())
}
