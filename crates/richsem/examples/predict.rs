//! Finds objects in images.
//!
//!     cargo run --release --example predict -- RUN|model.safetensors IMAGE…

use richsem::prelude::*;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(weights) = arguments.next() else {
        anyhow::bail!("usage: predict RUN|model.safetensors IMAGE…");
    };
    let detector = Detector::open(weights, DeviceChoice::Auto.resolve()?)?;
    for path in arguments {
        for Prediction { name, score, bbox: Xyxy([x0, y0, x1, y1]), .. } in
            detector.predict(&read_image(&path)?, 0.3)?
        {
            println!("{path}: {name} {score:.2} at {x0:.0} {y0:.0} {x1:.0} {y1:.0}");
        }
    }
    Ok(())
}
