//! Times deformable attention against the composition of libtorch's operations: on the CPU with one
//! image of 480×640, on CUDA with two of 800×1216; and non-maximum suppression. Before that it checks
//! every CUDA kernel against its CPU twin on fresh random inputs. Prints tables; exits with 1 when
//! anything disagrees or there is no CUDA device.
//!
//! ```text
//! cargo run --release -p torch-ext --example ops_check -- [--json FILE] [seed]
//! ```
//!
//! `--json FILE` writes the tables' numbers too, for `benches/pytorch/attention.py`.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tch::{Device, Kind, Tensor};
use torch_ext::{
    DeviceChoice, Result, gradients, group_norm, memory, ms_deform_attn, ms_deform_attn_naive, nms,
    reset_peak_memory, roi_align, synchronize,
};

/// libtorch can refuse, and a file can.
type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Op = fn(&Tensor, &[(i64, i64)], &Tensor, &Tensor) -> Result<Tensor>;

/// Levels of 480×640 and 800×1216 images.
const SMALL: &[(i64, i64)] = &[(60, 80), (30, 40), (15, 20), (8, 10)];
const FULL: &[(i64, i64)] = &[(100, 152), (50, 76), (25, 38), (13, 19)];
const KINDS: [(&str, Kind, f64); 3] =
    [("f32", Kind::Float, 5e-5), ("f16", Kind::Half, 3e-3), ("bf16", Kind::BFloat16, 2e-2)];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<bool> {
    let mut words = std::env::args().skip(1);
    let (mut json, mut seed) = (None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = words.next(),
            number => seed = number.parse().ok(),
        }
    }
    println!("{:#?}", torch_ext::report());
    let mut rows = vec![];
    let mut time = |device, images, levels, repeats| -> Outcome<()> {
        rows.extend(time_attention(device, images, levels, repeats)?);
        // After each table: without a GPU the second does not come.
        json.iter().try_for_each(|file| {
            std::fs::write(file, format!("[{}]\n", rows.join(",\n ")))
                .map_err(|error| format!("could not write `{file}`: {error}").into())
        })
    };
    time(Device::Cpu, 1, SMALL, 10)?;
    let device = DeviceChoice::Cuda(None).resolve()?;
    // Fresh inputs in every run; the seed is printed so that a failure can be had again.
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_nanos() as i64 & 0xffff_ffff)
    });
    println!("seed {seed}");
    tch::manual_seed(seed);
    let mut agree = true;
    for (name, kind, tolerance) in KINDS {
        for sizes in [
            [2, 8, 32, 500, 4],
            [1, 8, 32, 1, 4],
            [1, 3, 7, 33, 2],
            [2, 2, 64, 50, 1],
            [1, 4, 256, 20, 4],
            [3, 1, 1, 11, 3],
            [1, 2, 36, 9, 8],
        ] {
            agree &= check_attention(device, name, kind, tolerance, sizes)?;
        }
        agree &= check_roi_align(device, name, kind, tolerance)?;
        for (size, groups) in
            [([2, 256, 100, 152], 32), ([3, 64, 25, 38], 8), ([2, 6, 7, 5], 3), ([2, 520, 9, 9], 1)]
        {
            agree &= check_group_norm(device, name, kind, tolerance, size, groups)?;
        }
    }
    agree &= check_nms(device)?;
    time(device, 2, FULL, 25)?;
    println!("{}", if agree { "all agree" } else { "DISAGREEMENT" });
    Ok(agree)
}

/// Leaves numbers that would stand out in the memory that later tensors are made from.
fn poison(device: Device) {
    for megabytes in [1, 4, 16, 64] {
        drop(Tensor::full([megabytes << 18], 1e30, (Kind::Float, device)));
    }
}

fn row(name: &str, kind: &str, what: &str, difference: f64, tolerance: f64) -> bool {
    // Not a number is no agreement.
    let agrees = difference <= tolerance;
    let verdict = if agrees { "ok" } else { "DISAGREES" };
    println!("{name:<44} {kind:<5} {what:<10} {difference:>9.1e} of {tolerance:.0e}  {verdict}");
    agrees
}

/// Largest difference, in terms of the largest number expected.
fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    let double = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (got, expected) = (double(got), double(expected));
    if got.size() != expected.size() {
        return f64::NAN;
    }
    if got.numel() == 0 {
        return 0.0;
    }
    let scale = expected.abs().max().double_value(&[]).max(1e-30);
    (got - expected).abs().max().double_value(&[]) / scale
}

fn leaf(tensor: &Tensor, device: Device, kind: Kind) -> Tensor {
    tensor.detach().to_kind(kind).to_device(device).set_requires_grad(true)
}

fn check_attention(
    device: Device,
    kind_name: &str,
    kind: Kind,
    tolerance: f64,
    [b, m, d, q, p]: [i64; 5],
) -> Result<bool> {
    let levels: &[(i64, i64)] = &[(25, 38), (13, 19), (7, 10), (1, 1)];
    let s = levels.iter().map(|(h, w)| h * w).sum::<i64>();
    let options = (Kind::Float, Device::Cpu);
    // Rounded once, so that both devices start from the same numbers.
    let value = Tensor::randn([b, s, m, d], options).to_kind(kind);
    let locations = Tensor::rand([b, q, m, 4, p, 2], options) * 1.4 - 0.2;
    let weights = Tensor::randn([b, q, m, 4 * p], options).softmax(-1, None).view([b, q, m, 4, p]);
    let grad = Tensor::randn([b, q, m * d], options).to_kind(kind);
    let run = |device: Device, kind: Kind| -> Result<[Tensor; 4]> {
        let value = leaf(&value, device, kind);
        let locations = leaf(&locations, device, Kind::Float);
        let weights = leaf(&weights, device, Kind::Float);
        poison(device);
        let output = ms_deform_attn(&value, levels, &locations, &weights)?;
        poison(device);
        (&output * grad.to_kind(kind).to_device(device)).sum(Kind::Float).backward();
        Ok([output, value.grad(), locations.grad(), weights.grad()])
    };
    let expected = run(Device::Cpu, Kind::Float)?;
    let got = run(device, kind)?;
    let name = format!("ms_deform_attn B={b} M={m} D={d} Q={q} P={p}");
    let mut agree = true;
    for (i, what) in ["output", "value", "locations", "weights"].into_iter().enumerate() {
        agree &= row(&name, kind_name, what, difference(&got[i], &expected[i]), tolerance);
    }
    Ok(agree)
}

fn check_roi_align(device: Device, kind_name: &str, kind: Kind, tolerance: f64) -> Result<bool> {
    let options = (Kind::Float, Device::Cpu);
    let features = Tensor::randn([2, 17, 50, 76], options).to_kind(kind);
    let corner = Tensor::rand([200, 2], options) * 700.0 - 50.0;
    let size = Tensor::rand([200, 2], options) * 300.0;
    let image = Tensor::randint(2, [200, 1], options);
    let boxes = Tensor::cat(&[image, corner.shallow_clone(), corner + size], 1);
    let mut agree = true;
    for (ratio, aligned) in [(0, true), (2, false)] {
        let run = |device: Device, kind: Kind| -> Result<[Tensor; 2]> {
            let features = leaf(&features, device, kind);
            let boxes = boxes.to_device(device);
            poison(device);
            let output = roi_align(&features, &boxes, (7, 7), 1.0 / 16.0, ratio, aligned)?;
            poison(device);
            output.sum(Kind::Float).backward();
            Ok([output, features.grad()])
        };
        let expected = run(Device::Cpu, Kind::Float)?;
        let got = run(device, kind)?;
        let name = format!("roi_align 200 boxes ratio={ratio} aligned={aligned}");
        for (i, what) in ["output", "features"].into_iter().enumerate() {
            agree &= row(&name, kind_name, what, difference(&got[i], &expected[i]), tolerance);
        }
    }
    Ok(agree)
}

/// Ten groups of 2,000 proposals, as two images have them in training, and 4,096 detections of 1,203 classes: the
/// same boxes as on the host, and how long it takes.
fn check_nms(device: Device) -> Result<bool> {
    let mut agree = true;
    for (name, kind) in [("f32", Kind::Float), ("f64", Kind::Double)] {
        for (count, groups, threshold) in [(20_000, 10, 0.7), (4096, 1203, 0.5)] {
            let options = (kind, Device::Cpu);
            let corner = Tensor::rand([count, 2], options) * 1000.0;
            let size = Tensor::rand([count, 2], options) * 200.0;
            let boxes = Tensor::cat(&[corner.shallow_clone(), corner + size], 1);
            let groups = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(groups);
            let largest = groups.eq(0).sum(Kind::Int64).int64_value(&[]);
            let expected = nms(&boxes, &groups, threshold, largest)?;
            let (boxes, groups) = (boxes.to_device(device), groups.to_device(device));
            let mut times = vec![];
            let mut got = expected.shallow_clone();
            for _ in 0..25 {
                poison(device);
                synchronize(device)?;
                let start = Instant::now();
                got = nms(&boxes, &groups, threshold, largest)?;
                synchronize(device)?;
                times.push(start.elapsed().as_secs_f64());
            }
            let case = format!("nms {count} boxes, groups of {largest}");
            let wrong = difference(&got.to_kind(kind), &expected.to_kind(kind));
            agree &= row(&case, name, "stays", wrong, 0.0);
            println!("{case}, {name}: {:.3} ms", median(times) * 1e3);
        }
    }
    Ok(agree)
}

fn check_group_norm(
    device: Device,
    kind_name: &str,
    kind: Kind,
    tolerance: f64,
    size: [i64; 4],
    groups: i64,
) -> Result<bool> {
    let [b, c, h, w] = size;
    let options = (Kind::Float, Device::Cpu);
    // Rounded once, so that both devices start from the same numbers.
    let x = (Tensor::randn(size, options) * 2.0 + 3.0).to_kind(kind);
    let grad = Tensor::randn(size, options).to_kind(kind);
    let (weight, bias) = (Tensor::randn([c], options), Tensor::randn([c], options));
    let padding = Tensor::zeros([b, h, w], (Kind::Bool, Device::Cpu));
    let _ = padding.get(0).narrow(0, h * 2 / 3, h - h * 2 / 3).fill_(1.0);
    let _ = padding.get(1).narrow(1, w / 2, w - w / 2).fill_(1.0);
    let mut agree = true;
    for padding in [None, Some(&padding)] {
        let run = |device: Device, kind: Kind| -> Result<[Tensor; 4]> {
            let x = leaf(&x, device, kind);
            let weight = leaf(&weight, device, Kind::Float);
            let bias = leaf(&bias, device, Kind::Float);
            let padding = padding.map(|padding| padding.to_device(device));
            poison(device);
            let output = group_norm(&x, groups, &weight, &bias, 1e-5, padding.as_ref())?;
            poison(device);
            (&output * grad.to_kind(kind).to_device(device)).sum(Kind::Float).backward();
            Ok([output, x.grad(), weight.grad(), bias.grad()])
        };
        let expected = run(Device::Cpu, Kind::Float)?;
        let got = run(device, kind)?;
        let padded = if padding.is_some() { " padded" } else { "" };
        let name = format!("group_norm {size:?} G={groups}{padded}");
        for (i, what) in ["output", "x", "weight", "bias"].into_iter().enumerate() {
            agree &= row(&name, kind_name, what, difference(&got[i], &expected[i]), tolerance);
        }
    }
    Ok(agree)
}

/// Centres of the pixels of every level, as an encoder's queries have them: `[1, S, 1, 1, 1, 2]`.
fn reference_points(levels: &[(i64, i64)], device: Device) -> Tensor {
    let mut points = vec![];
    for &(h, w) in levels {
        for y in 0..h {
            points.extend(
                (0..w).flat_map(|x| [(x as f32 + 0.5) / w as f32, (y as f32 + 0.5) / h as f32]),
            );
        }
    }
    Tensor::from_slice(&points).view([1, -1, 1, 1, 1, 2]).to_device(device)
}

/// Prints a table, and returns its rows as JSON.
fn time_attention(
    device: Device,
    b: i64,
    levels: &[(i64, i64)],
    repeats: usize,
) -> Result<Vec<String>> {
    let kinds = [("f32", Kind::Float), ("bf16", Kind::BFloat16)];
    let s = levels.iter().map(|(h, w)| h * w).sum::<i64>();
    let (m, d, l, p) = (8, 32, 4, 4);
    let options = (Kind::Float, device);
    let sizes: Vec<f32> = levels.iter().flat_map(|&(h, w)| [w as f32, h as f32]).collect();
    let sizes = Tensor::from_slice(&sizes).view([1, 1, 1, l, 1, 2]).to_device(device);
    // Encoder: around each query's own pixel. Decoder: 900 queries anywhere.
    let offsets = Tensor::randn([b, s, m, l, p, 2], options) * 2.0 / sizes;
    let near = reference_points(levels, device) + offsets;
    let anywhere = Tensor::rand([b, 900, m, l, p, 2], options);
    let title = format!("{device:?}, B={b} S={s} M=8 D=32");
    println!("\n{title:<36} {:>11} {:>12} {:>10}", "forward ms", "backward ms", "peak MiB");
    let mut rows = vec![];
    for (case, locations) in [("encoder", near), ("decoder", anywhere)] {
        let q = locations.size()[1];
        let locations = locations.set_requires_grad(true);
        let weights = Tensor::randn([b, q, m, l * p], options)
            .softmax(-1, None)
            .view([b, q, m, l, p])
            .set_requires_grad(true);
        for (kind_name, kind) in kinds {
            let value = Tensor::randn([b, s, m, d], options).to_kind(kind).set_requires_grad(true);
            let grad = Tensor::randn([b, q, m * d], options).to_kind(kind);
            let inputs = [&value, &locations, &weights];
            for (name, op) in [("kernel", ms_deform_attn as Op), ("composed", ms_deform_attn_naive)]
            {
                let (forward, backward, mib) = time(device, op, inputs, levels, &grad, repeats)?;
                rows.push(format!(
                    r#"{{"device": "{}", "batch": {b}, "case": "{case}", "queries": {q}, "precision": "{kind_name}", "name": "{name}", "forward_ms": {forward}, "backward_ms": {backward}, "peak_mib": {}}}"#,
                    if device.is_cuda() { "cuda" } else { "cpu" },
                    mib.map_or_else(|| "null".to_owned(), |mib| mib.to_string()),
                ));
                let name = format!("{case} Q={q} {kind_name} {name}");
                let mib = mib.map_or_else(String::new, |mib| format!("{mib:.0}"));
                println!("{name:<36} {forward:>11.3} {backward:>12.3} {mib:>10}");
            }
        }
    }
    println!();
    Ok(rows)
}

/// Forward and backward time in milliseconds, and peak memory beyond the inputs in MiB.
fn time(
    device: Device,
    op: Op,
    inputs: [&Tensor; 3],
    levels: &[(i64, i64)],
    grad: &Tensor,
    repeats: usize,
) -> Result<(f64, f64, Option<f64>)> {
    let (mut forward, mut backward) = (vec![], vec![]);
    if device != Device::Cpu {
        reset_peak_memory(device)?;
    }
    let before = memory(device);
    for _ in 0..repeats {
        let inputs = inputs.map(|input| input.detach().set_requires_grad(true));
        synchronize(device)?;
        let start = Instant::now();
        let output = op(&inputs[0], levels, &inputs[1], &inputs[2])?;
        synchronize(device)?;
        forward.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let grads = gradients(&[output], &[grad.shallow_clone()], &inputs)?;
        synchronize(device)?;
        backward.push(start.elapsed().as_secs_f64());
        drop(grads);
    }
    let peak = memory(device).zip(before).map(|(after, before)| {
        (after.peak_allocated - before.allocated) as f64 / f64::from(1 << 20)
    });
    Ok((median(forward) * 1e3, median(backward) * 1e3, peak))
}

/// Of all but the first three, which warm up.
fn median(mut times: Vec<f64>) -> f64 {
    times.drain(..3);
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
