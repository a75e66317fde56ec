//! Times the backbone alone, ResNet-50 with frozen norms, random weights, bf16: forward, and forward with
//! backward. `benches/pytorch/backbone.py` runs it beside torchvision's.
//!
//! ```text
//! cargo run --release -p richsem --example backbone -- cuda 2 800 1216 20 5 --json FILE
//! ```
//!
//! Device, images, height, width, runs, runs before the clock starts. Launched one by one, not
//! recorded as a CUDA graph: as PyTorch's.

use std::time::Instant;

use anyhow::{Result, bail};
use richsem::models::{
    backbone::{Resnet, ResnetConfig},
    parameters::ParameterStore,
};
use tch::{Device, Kind, Tensor};
use torch_ext::{DeviceChoice, autocast, set_tf32, synchronize};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, numbers @ .., flag, file] = arguments.as_slice() else { bail!("{USAGE}") };
    let numbers: Vec<i64> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    let (&[b, h, w, runs, warmup], "--json") = (numbers.as_slice(), flag.as_str()) else {
        bail!("{USAGE}")
    };
    let device = device.parse::<DeviceChoice>()?.resolve()?;
    set_tf32(true)?;
    let store = ParameterStore::new(device, 0);
    let backbone = Resnet::new(&store.root(), &ResnetConfig::default());
    // As `Batch::normalize` lays a batch out.
    let mut images = Tensor::randn([b, h, w, 3], (Kind::Float, device)).permute([0, 3, 1, 2]);
    if device == Device::Cpu {
        images = images.contiguous();
    }
    let forward = || -> Result<[Tensor; 4]> {
        Ok(autocast(device, Some(Kind::BFloat16), || backbone.forward(&images, None, true))?)
    };
    let timed = |f: &dyn Fn() -> Result<()>| -> Result<f64> {
        let mut times = Vec::new();
        for run in 0..warmup + runs.max(1) {
            synchronize(device)?;
            let start = Instant::now();
            f()?;
            synchronize(device)?;
            if run >= warmup {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    let infer = timed(&|| torch_ext::no_grad(|| forward().map(drop)))?;
    let trainable: Vec<Tensor> = store
        .parameters()
        .into_iter()
        .filter(|p| p.tensor.requires_grad())
        .map(|p| p.tensor)
        .collect();
    let train = timed(&|| {
        let [_, c3, c4, c5] = forward()?;
        let loss = c3.mean(Kind::Float) + c4.mean(Kind::Float) + c5.mean(Kind::Float);
        Tensor::f_run_backward(&[loss], &trainable, false, false)?;
        Ok(())
    })?;
    println!("forward {infer:.1} ms, forward and backward {train:.1} ms");
    fs_err::write(file, format!("{{\"forward_ms\": {infer}, \"both_ms\": {train}}}\n"))?;
    Ok(())
}

const USAGE: &str = "usage: backbone DEVICE IMAGES HEIGHT WIDTH RUNS WARMUP --json FILE";
