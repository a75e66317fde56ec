//! Recorded computations give what they give when they are not recorded, whoever else records. Skipped,
//! with a line that says so, where there is no CUDA device.

#![allow(clippy::unwrap_used)]

mod common;

use common::{close, cuda, seeded};
use tch::{Device, Kind, Tensor};
use torch_ext::{Error, GraphPool, Recording};

/// The same for the same seed.
fn numbers(seed: i64, size: &[i64]) -> Tensor {
    let _held = seeded(seed);
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// A parameter with a gradient to add to, the same for the same seed.
fn parameter(seed: i64, device: Device) -> Tensor {
    let parameter = numbers(seed, &[64, 64]).to_device(device).set_requires_grad(true);
    torch_ext::set_grad(&parameter, &parameter.detach().zeros_like()).unwrap();
    parameter
}

/// Something with much in between: what a recording keeps must survive until its backward pass.
fn network(x: &Tensor, parameter: &Tensor) -> Vec<Tensor> {
    let mut y = x.shallow_clone();
    for _ in 0..6 {
        y = (y.matmul(parameter) * 0.05).tanh();
    }
    vec![y.sum_dim_intlist(1, false, Kind::Float), y]
}

/// The loss of a pass and the gradient of its parameter, which is then zero again.
fn step(results: &[Tensor], parameter: &Tensor, backward: impl FnOnce()) -> (f64, Tensor) {
    let loss = results[0].sin().sum(Kind::Float) + results[1].square().sum(Kind::Float);
    loss.backward();
    backward();
    let grad = parameter.grad().copy();
    let _ = parameter.grad().zero_();
    (loss.double_value(&[]), grad)
}

fn record(pool: &mut GraphPool, x: &Tensor, parameter: &Tensor) -> Recording {
    let trained = [parameter.shallow_clone()];
    pool.record(&[x], &trained, |places| Ok::<_, Error>(network(&places[0], parameter))).unwrap()
}

/// Passes of several sizes, each compared with one that is not recorded.
fn recorded_passes(seed: i64, device: Device) {
    let parameter = parameter(seed, device);
    let input = |rows: i64, key: i64| numbers(key, &[rows, 64]).to_device(device);
    let sizes = [700, 300, 500, 100];
    // Without a recording first: libraries are started by it.
    let expected: Vec<_> = sizes
        .iter()
        .map(|&rows| step(&network(&input(rows, rows), &parameter), &parameter, || {}))
        .collect();
    let mut pool = GraphPool::new(device).unwrap();
    let recordings = sizes.map(|rows| {
        record(&mut pool, &Tensor::zeros([rows, 64], (Kind::Float, device)), &parameter)
    });
    for round in 0..20 {
        let i = (round * 3 + round / 4) % sizes.len();
        let x = input(sizes[i], sizes[i]);
        let replay = pool.replay(&recordings[i], &[&x]).unwrap();
        let results: Vec<Tensor> = replay.results().iter().map(Tensor::shallow_clone).collect();
        let (loss, grad) = step(&results, &parameter, || replay.backward().unwrap());
        let (expected_loss, expected_grad) = &expected[i];
        assert!(
            (loss - expected_loss).abs() < 1e-4 * expected_loss.abs(),
            "{loss} {expected_loss}"
        );
        close("gradient", &grad, &expected_grad.to_device(Device::Cpu), 1e-4);
    }
}

#[test]
fn recordings_of_a_pool_take_turns() {
    let Some(device) = cuda() else { return };
    torch_ext::set_tf32(false).unwrap();
    recorded_passes(1, device);
}

#[test]
fn pools_on_threads_of_their_own_know_nothing_of_each_other() {
    let Some(device) = cuda() else { return };
    torch_ext::set_tf32(false).unwrap();
    std::thread::scope(|scope| {
        for seed in 2..6 {
            scope.spawn(move || recorded_passes(seed, device));
        }
    });
}

/// What a replay gave may be used when pool and recording are gone: its memory is kept.
#[test]
fn results_outlive_their_pool() {
    let Some(device) = cuda() else { return };
    let x = numbers(3, &[400, 64]).to_device(device);
    let (doubled, expected) = (|x: &Tensor| x * 2.0, (&x * 2.0).to_device(Device::Cpu));
    let _ = doubled(&x);
    let mut pool = GraphPool::new(device).unwrap();
    let recording = pool.record(&[&x], &[], |places| Ok::<_, Error>(vec![doubled(&places[0])]));
    let recording = recording.unwrap();
    let result = pool.replay(&recording, &[&x]).unwrap().results()[0].shallow_clone();
    drop(recording);
    drop(pool);
    torch_ext::empty_cache(device).unwrap();
    let others: Vec<_> = (0..50).map(|i| numbers(i, &[400, 64]).to_device(device)).collect();
    close("result", &result, &expected, 1e-6);
    drop(others);
    std::thread::spawn(move || drop(result)).join().unwrap();
}

#[test]
fn what_cannot_be_recorded_or_replayed_is_refused() {
    let Some(device) = cuda() else { return };
    let parameter = parameter(1, device);
    let x = numbers(2, &[50, 64]).to_device(device);
    let _ = step(&network(&x, &parameter), &parameter, || {});
    let (mut pool, mut other) = (GraphPool::new(device).unwrap(), GraphPool::new(device).unwrap());
    let recording = record(&mut pool, &x, &parameter);
    let error = other.replay(&recording, &[&x]).unwrap_err().to_string();
    assert!(error.contains("another pool's"), "{error}");
    let error = pool.replay(&recording, &[&x.narrow(0, 0, 9)]).unwrap_err().to_string();
    assert!(error.contains("[50, 64]") && error.contains("[9, 64]"), "{error}");
    assert!(pool.replay(&recording, &[]).is_err());
    // What fails by itself costs nothing else.
    let failed = pool.record(&[&x], &[], |_| Err(Error::Cuda("not today".into())));
    assert!(failed.unwrap_err().to_string().contains("not today"));
    let twice = pool.record(&[&x], &[], |places| Ok::<_, Error>(vec![&places[0] * 2.0])).unwrap();
    // The host asks for a number: there is none yet.
    let failed = pool.record(&[&x], &[], |places| {
        places[0].f_sum(Kind::Float)?.f_double_value(&[])?;
        Ok::<_, Error>(vec![])
    });
    assert!(failed.is_err());
    // What was there before is as it was.
    let expected = network(&x, &parameter);
    let replay = pool.replay(&recording, &[&x]).unwrap();
    close("result", &replay.results()[1], &expected[1].detach().to_device(Device::Cpu), 1e-5);
    drop(replay);
    let replay = pool.replay(&twice, &[&x]).unwrap();
    close("twice", &replay.results()[0], &(&x * 2.0).to_device(Device::Cpu), 1e-6);
    let error = replay.backward().unwrap_err().to_string();
    assert!(error.contains("backward"), "{error}");
    let error = pool.record(&[&x], &[], |_| Ok::<_, Error>(vec![])).unwrap_err().to_string();
    assert!(error.contains("takes no more"), "{error}");
}
