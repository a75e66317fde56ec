//! Finds objects in an image: `own-crate RUN|model.safetensors IMAGE`.

use richsem::prelude::*;

fn main() -> Result<()> {
    let [weights, image] = std::array::from_fn(|i| std::env::args().nth(i + 1).unwrap_or_default());
    let objects = Detector::open(weights, Device::Cpu)?.predict(&read_image(image)?, 0.3)?;
    println!("{} objects with a score of 0.3 or more", objects.len());
    for found in objects {
        println!("{} {:.2} {:?}", found.name, found.score, found.bbox);
    }
    Ok(())
}
