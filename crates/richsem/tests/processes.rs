//! Runs of several processes, played by threads of this one: what they agree on, and that no one is left
//! waiting for another that failed or was told to stop.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use richsem::{
    Error, Result,
    bench::{Workload, random_batch, vocabulary},
    collective::{Collective, PendingMean, Single},
    config::Config,
    losses::terms::StepKey,
    testing::{small_run, write_small_set},
    train::{Learner, NewRun, Observer, Outcome, Start, Worker, train},
};
use tch::{Device, Tensor};

/// Where threads meet: each leaves a value, and takes all of them.
#[derive(Debug)]
struct Meeting<T> {
    state: Mutex<(Vec<Option<T>>, u64)>,
    changed: Condvar,
}

impl<T: Clone> Meeting<T> {
    fn new(world: usize) -> Self {
        Self { state: Mutex::new((vec![None; world], 0)), changed: Condvar::new() }
    }

    /// Of every thread, by rank. One that waits for half a minute is alone.
    fn exchange(&self, rank: usize, value: T) -> Result<Vec<T>> {
        let gone = || Error::other("the other process is gone");
        let mut state = self.state.lock().unwrap();
        // The round before, if someone has not taken its values yet.
        while state.0[rank].is_some() {
            let (next, time) = self.changed.wait_timeout(state, PATIENCE).unwrap();
            state = next;
            if time.timed_out() {
                return Err(gone());
            }
        }
        state.0[rank] = Some(value);
        self.changed.notify_all();
        while state.0.iter().any(Option::is_none) {
            let (next, time) = self.changed.wait_timeout(state, PATIENCE).unwrap();
            state = next;
            if time.timed_out() {
                return Err(gone());
            }
        }
        let all = state.0.iter().flatten().cloned().collect();
        state.1 += 1;
        if state.1 == state.0.len() as u64 {
            // The last one clears the table.
            state.0.iter_mut().for_each(|place| *place = None);
            state.1 = 0;
            self.changed.notify_all();
        } else {
            while state.1 != 0 {
                let (next, time) = self.changed.wait_timeout(state, PATIENCE).unwrap();
                state = next;
                if time.timed_out() {
                    return Err(gone());
                }
            }
        }
        Ok(all)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Thread {
    rank: usize,
    numbers: Arc<Meeting<Vec<f64>>>,
    bytes: Arc<Meeting<Vec<u8>>>,
}

impl Thread {
    fn both() -> [Arc<dyn Collective>; 2] {
        let (numbers, bytes) = (Arc::new(Meeting::new(2)), Arc::new(Meeting::new(2)));
        [0, 1].map(|rank| {
            let (numbers, bytes) = (Arc::clone(&numbers), Arc::clone(&bytes));
            Arc::new(Self { rank, numbers, bytes }) as _
        })
    }

    fn means(&self, values: &[f64]) -> Result<Vec<f64>> {
        let all = self.numbers.exchange(self.rank, values.to_vec())?;
        let mean = |i: usize| all.iter().map(|values| values[i]).sum::<f64>() / all.len() as f64;
        Ok((0..values.len()).map(mean).collect())
    }
}

struct Ready(Vec<f64>);

impl PendingMean for Ready {
    fn wait(self: Box<Self>) -> Result<Vec<f64>> {
        Ok(self.0)
    }
}

impl Collective for Thread {
    fn rank(&self) -> u64 {
        self.rank as u64
    }

    fn world(&self) -> u64 {
        2
    }

    fn begin_mean(&self, values: &[f64]) -> Result<Box<dyn PendingMean>> {
        Ok(Box::new(Ready(self.means(values)?)))
    }

    fn broadcast(&self, bytes: Vec<u8>, root: u64) -> Result<Vec<u8>> {
        Ok(self.bytes.exchange(self.rank, bytes)?.swap_remove(root as usize))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        let all = self.bytes.exchange(self.rank, bytes)?;
        Ok((self.rank == 0).then_some(all))
    }

    fn mean_gradients(&self, buffers: &[Tensor]) -> Result<()> {
        for buffer in buffers {
            let own = Vec::<f32>::try_from(buffer)?.into_iter().map(f64::from).collect::<Vec<_>>();
            let mean = self.means(&own)?;
            buffer.shallow_clone().f_copy_(&Tensor::from_slice(&mean))?;
        }
        Ok(())
    }
}

const CONFIG: &str = "version = 1
[model.dino]
return_interm_indices = [3]
backbone = { name = \"resnet18\", width = 8, layers = [1, 1, 1, 1], frozen_stages = -1 }
denoising = { number = 4 }
[model.dino.transformer]
hidden_dim = 32
nheads = 2
enc_layers = 1
dec_layers = 1
dim_feedforward = 32
num_queries = 6
num_feature_levels = 1
[train]
lr = 1e-3
lr_backbone = 1e-3
clip_max_norm = 0";

/// Two processes of a batch each take the step that one takes on both batches, their gradients averaged:
/// the batches have as many boxes, so that nothing else differs.
#[test]
fn two_processes_are_one_of_twice_the_batch() {
    tch::set_num_threads(1);
    let batch = |boxes| {
        let work =
            Workload { batch: 1, height: 64, width: 64, boxes, classes: 5, warmup: 0, runs: 0 };
        random_batch(&work).unwrap()
    };
    let learner = |collective: Arc<dyn Collective>, accumulate: u64| {
        let mut config = Config::parse(CONFIG, Path::new("test.toml")).unwrap();
        config.train.accumulate = accumulate;
        // Denoising queries are drawn by rank.
        config.model.as_dino_mut().unwrap().denoising.number = 0;
        Learner::new(&config, vocabulary(5), Device::Cpu, collective).unwrap()
    };
    let key = |step| StepKey { seed: 1, micro_step: step };
    // Both batches are the same image: what differs are the processes.
    let mut alone = learner(Arc::new(Single), 2);
    for step in 0..2 {
        alone.backward(&batch(3), key(step)).unwrap();
    }
    alone.update(1.0).unwrap();
    let expected = alone.model.detector.weights();
    let after = |collective: Arc<dyn Collective>| {
        let mut learner = learner(collective, 1);
        learner.backward(&batch(3), key(0)).unwrap();
        learner.update(1.0).unwrap();
        learner.model.detector.weights()
    };
    std::thread::scope(|scope| {
        let both = Thread::both().map(|collective| scope.spawn(move || after(collective)));
        for weights in both.map(|thread| thread.join().unwrap()) {
            for (name, got) in weights {
                let apart = (got - &expected[&name]).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "{name}: {apart}");
            }
        }
    });
}

/// Terms are divided by the mean number of boxes, and what one process alone sees changes both.
#[test]
fn losses_are_divided_by_the_mean_number_of_boxes() {
    tch::set_num_threads(1);
    let loss = |collective: Arc<dyn Collective>, boxes: usize| {
        let mut config = Config::parse(CONFIG, Path::new("test.toml")).unwrap();
        config.model.as_dino_mut().unwrap().denoising.number = 0;
        let learner = Learner::new(&config, vocabulary(5), Device::Cpu, collective).unwrap();
        let work =
            Workload { batch: 1, height: 64, width: 64, boxes, classes: 5, warmup: 0, runs: 0 };
        let batch = random_batch(&work).unwrap();
        let key = StepKey { seed: 1, micro_step: 0 };
        learner.backward(&batch, key).unwrap().loss
    };
    let alone = [2, 4].map(|boxes| loss(Arc::new(Single), boxes));
    let both = std::thread::scope(|scope| {
        let [first, second] = Thread::both();
        let first = scope.spawn(|| loss(first, 2));
        let second = scope.spawn(|| loss(second, 4));
        [first, second].map(|thread| thread.join().unwrap())
    });
    for (i, boxes) in [2.0, 4.0].into_iter().enumerate() {
        let expected = alone[i] * boxes / 3.0;
        assert!((both[i] - expected).abs() < 1e-4 * expected, "{both:?} {alone:?}");
    }
}

/// Told to stop at a batch.
struct StopAt<'a>(usize, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn batch(&mut self, _loss: f64, _images: usize, _row: Option<&richsem::train::TrainRow>) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// Both ranks of a run, each in a folder of its own; rank 1 is told to stop at `stop_at`, or finds its images
/// broken.
fn both(folder: &Path, stop_at: usize, broken: bool) -> [Result<Outcome>; 2] {
    tch::set_num_threads(1);
    let run = |rank: usize, collective: Arc<dyn Collective>| {
        let set = folder.join(format!("set-{rank}"));
        write_small_set(&set).unwrap();
        if broken && rank == 1 {
            let images = set.join("images/train");
            for image in std::fs::read_dir(images).unwrap() {
                std::fs::write(image.unwrap().path(), "no image").unwrap();
            }
        }
        let text = small_run(&set, "epochs = 3\nlr_drop = []\n");
        let config = Config::parse(&text, &folder.join("run.toml")).unwrap();
        let new = NewRun::claim(&folder.join(format!("run-{rank}"))).unwrap();
        let start = Start::New { config: Box::new(config), folder: new };
        let stop = AtomicBool::new(false);
        let worker = Worker { device: Device::Cpu, collective };
        let at = if rank == 1 { stop_at } else { usize::MAX };
        train(start, &worker, &mut StopAt(at, &stop), &stop)
    };
    std::thread::scope(|scope| {
        let [first, second] = Thread::both();
        let first = scope.spawn(|| run(0, first));
        let second = scope.spawn(|| run(1, second));
        [first, second].map(|thread| thread.join().unwrap())
    })
}

#[test]
fn when_one_is_told_to_stop_both_stop_at_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let steps = both(folder.path(), 3, false).map(|outcome| match outcome.unwrap() {
        Outcome::Stopped(step) => step,
        Outcome::Finished { .. } => panic!("it went on to the end"),
    });
    assert!(steps[0] == steps[1] && steps[0] > 0, "{steps:?}");
    // A run of two is no run of one.
    let start = Start::Resume(folder.path().join("run-0"));
    let go = AtomicBool::new(false);
    let alone = Worker::alone(Device::Cpu);
    let error = train(start, &alone, &mut StopAt(usize::MAX, &go), &go).unwrap_err().to_string();
    assert!(error.contains("started with 2 processes, and there is 1 now"), "{error}");
}

#[test]
fn when_one_fails_the_other_is_not_left_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = both(folder.path(), usize::MAX, true)
        .map(|outcome| outcome.map(drop).unwrap_err().to_string());
    assert!(first.contains("another process of this run failed"), "{first}");
    assert!(second.contains("image"), "{second}");
}
