//! Can an annotation file of LVIS's size be read in seconds and 300 MB?
//!
//! ```text
//! cargo run --release -p richsem --example lvis_scale             # 1.1 GB in the temporary folder
//! cargo run --release -p richsem --example lvis_scale -- --scale 0.01
//! cargo run --release -p richsem --example lvis_scale -- --load lvis_v1_train.json
//! ```
//!
//! Writes the file, then loads it in a process of its own, so that writing does not count, and
//! fails if that process was ever larger than 300 MB (`VmHWM`, Linux only).

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use richsem::{
    data::dataset::Dataset,
    error::write_atomically,
    testing::{resident_mb, write_lvis},
};

const LIMIT_MB: f64 = 300.0;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => generate_and_load(1.0),
        ["--scale", scale] => generate_and_load(scale.parse().context("--scale takes a number")?),
        ["--load", path] => load(PathBuf::from(path)),
        other => bail!("expected --scale NUMBER or --load FILE, got {other:?}"),
    }
}

fn generate_and_load(scale: f64) -> Result<()> {
    ensure!(scale > 0.0 && scale <= 10.0, "--scale must lie in (0, 10], got {scale}");
    let folder = std::env::temp_dir().join(format!("lvis_scale_{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("lvis.json");
    let begin = Instant::now();
    let result = write_atomically(&path, |out| Ok(write_lvis(out, scale).map(|_| ())?))
        .context("writing the file")
        .and_then(|()| {
            println!("written in {:.1} s", begin.elapsed().as_secs_f64());
            let program = std::env::current_exe()?;
            let status = Command::new(program).arg("--load").arg(&path).status()?;
            ensure!(status.success(), "loading failed");
            Ok(())
        });
    std::fs::remove_dir_all(&folder)?;
    result
}

fn load(path: PathBuf) -> Result<()> {
    let before = resident_mb("VmRSS");
    let begin = Instant::now();
    let dataset = Dataset::open(&path)?;
    let seconds = begin.elapsed().as_secs_f64();
    let megabytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
    println!("{}: {}", path.display(), dataset.report());
    println!("{megabytes:.0} MB in {seconds:.2} s, {:.0} MB/s", megabytes / seconds);
    if let (Some(before), Some(peak)) = (before, resident_mb("VmHWM")) {
        println!("peak resident {peak:.0} MB, of which {before:.0} MB before loading");
        ensure!(peak <= LIMIT_MB, "peak resident {peak:.0} MB is more than {LIMIT_MB} MB");
    }
    Ok(())
}
