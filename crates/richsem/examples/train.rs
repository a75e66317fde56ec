//! Trains with an observer of one's own: it says what the loss is, and stops when told a number of steps.
//!
//!     cargo run --release --example train -- configs/tiny.toml runs/mine STEPS

use std::sync::atomic::Ordering;

use richsem::{prelude::*, train::TrainRow};

/// Watches a run.
struct Watch<'a> {
    steps_left: u64,
    stop: &'a AtomicBool,
}

impl Observer for Watch<'_> {
    fn message(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn batch(&mut self, loss: f64, images: usize, row: Option<&TrainRow>) {
        if let Some(row) = row {
            println!(
                "step {}: loss {:.3}, {:.1} images/s",
                row.step, row.loss, row.images_per_second
            );
        } else {
            println!("{images} images, loss {loss:.3}");
        }
        self.steps_left = self.steps_left.saturating_sub(1);
        if self.steps_left == 0 {
            // It ends after this step, with everything saved; `Start::Resume` goes on from there.
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, folder, steps] = &arguments[..] else {
        anyhow::bail!("usage: train CONFIG RUN STEPS");
    };
    let config = Config::load(config.as_ref(), &[])?;
    let run = NewRun::claim(folder.as_ref())?;
    let worker = Worker::alone(DeviceChoice::Auto.resolve()?);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { steps_left: steps.parse()?, stop: &stop };
    match train(Start::new(config, run), &worker, &mut watch, &stop)? {
        Outcome::Finished { summary, .. } => println!("AP {:?}", summary.and_then(|s| s.get("AP"))),
        Outcome::Stopped(step) => println!("stopped at step {step}, in {folder}"),
    }
    Ok(())
}
