//! Times the backbone alone, ResNet-50 with frozen norms, random weights, bf16: forward, and forward with
//! backward. `benches/pytorch/backbone.py` runs it beside torchvision's.
//!
//! ```text
//! cargo run --release -p richsem --example backbone -- cuda 2 800 1216 20 5 --json FILE
//! ```
//!
//! Device, images, height, width, runs, runs before the clock starts. Kernels are launched one by one, as PyTorch's;
//! on a GPU then once more recorded as CUDA graphs, as a training runs them.

use std::{cell::RefCell, time::Instant};

use anyhow::{Context as _, Result, bail};
use richsem::models::{
    backbone::{Backbone, BackboneConfig},
    parameters::ParameterStore,
};
use tch::{Device, Kind, Tensor};
use torch_ext::{
    DeviceChoice, GraphPool, autocast, memory, reset_peak_memory, set_tf32, synchronize,
};

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let settings = if arguments.len() == 9 { arguments.pop() } else { None };
    let config = settings.map_or(Ok(BackboneConfig::default()), |text| configured(&text))?;
    let [device, numbers @ .., flag, file] = arguments.as_slice() else { bail!("{USAGE}") };
    let numbers: Vec<i64> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    let (&[b, h, w, runs, warmup], "--json") = (numbers.as_slice(), flag.as_str()) else {
        bail!("{USAGE}")
    };
    let device = device.parse::<DeviceChoice>()?.resolve()?;
    set_tf32(true)?;
    let store = ParameterStore::new(device, 0);
    // Those that DINO takes.
    let backbone = Backbone::new(&store.root(), &config, &[1, 2, 3]);
    // As `Batch::normalize` lays a batch out.
    let mut images = Tensor::randn([b, h, w, 3], (Kind::Float, device)).permute([0, 3, 1, 2]);
    if device == Device::Cpu {
        images = images.contiguous();
    }
    let forward = |images: &Tensor| -> richsem::Result<Vec<Tensor>> {
        autocast(device, Some(Kind::BFloat16), || backbone.forward(images, None, (true, None)))
    };
    let loss = |maps: &[Tensor]| -> Tensor { maps.iter().map(|map| map.mean(Kind::Float)).sum() };
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
    let infer = timed(&|| torch_ext::no_grad(|| Ok(forward(&images).map(drop)?)))?;
    let trainable: Vec<Tensor> = store
        .parameters()
        .into_iter()
        .filter(|p| p.tensor.requires_grad())
        .map(|p| p.tensor)
        .collect();
    reset_peak_memory(device)?;
    let train = timed(&|| {
        Tensor::f_run_backward(&[loss(&forward(&images)?)], &trainable, false, false)?;
        Ok(())
    })?;
    let gib = memory(device).map_or(0.0, |m| m.peak_allocated as f64 / (1u64 << 30) as f64);
    println!(
        "{}: forward {infer:.1} ms, forward and backward {train:.1} ms, {gib:.2} GiB",
        config.describe()
    );
    let mut numbers = format!("\"forward_ms\": {infer}, \"both_ms\": {train}, \"peak_gib\": {gib}");
    if device.is_cuda() {
        // Gradients that a recording adds to must be there.
        loss(&forward(&images)?).f_backward()?;
        let learns = |p: &&Tensor| p.grad().defined();
        let learning: Vec<Tensor> =
            trainable.iter().filter(learns).map(Tensor::shallow_clone).collect();
        let pool = RefCell::new(GraphPool::new(device)?);
        let (alone, none) = ([&images], []);
        let one = pool
            .borrow_mut()
            .record(&alone, &none, |input| torch_ext::no_grad(|| forward(&input[0])))?;
        let both = pool.borrow_mut().record(&alone, &learning, |input| forward(&input[0]))?;
        let infer = timed(&|| Ok(pool.borrow_mut().replay(&one, &alone).map(drop)?))?;
        let train = timed(&|| {
            let mut pool = pool.borrow_mut();
            let replay = pool.replay(&both, &alone)?;
            loss(replay.results()).f_backward()?;
            Ok(replay.backward()?)
        })?;
        println!("recorded: forward {infer:.1} ms, forward and backward {train:.1} ms");
        numbers += &format!(", \"recorded_forward_ms\": {infer}, \"recorded_both_ms\": {train}");
    }
    let numbers = format!("{{{numbers}}}\n");
    fs_err::write(file, numbers)?;
    Ok(())
}

/// Settings written as the inside of an inline table.
fn configured(text: &str) -> Result<BackboneConfig> {
    #[derive(serde::Deserialize)]
    struct Of {
        backbone: BackboneConfig,
    }
    let of: Of = toml::from_str(&format!("backbone = {{ {text} }}")).context(USAGE)?;
    of.backbone.validate("backbone")?;
    Ok(of.backbone)
}

const USAGE: &str =
    "usage: backbone DEVICE IMAGES HEIGHT WIDTH RUNS WARMUP --json FILE ['kind = \"swin\", …']";
