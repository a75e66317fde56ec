//! Whole runs: stopped, gone on with, failed, evaluated.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use richsem::{
    Error, Result,
    checkpoint_io::safetensors,
    collective::{Collective, group::Group},
    config::Config,
    testing::{StopAt, rows_without_speed, small_run, write_small_set},
    train::{MetricsRow, NewRun, Observer, Outcome, Position, RunFolder, Start, Worker, train},
};
use tch::{Device, Tensor};

use super::as_ranks;

/// The ranks of a run in one folder; `stop_at` says at which batch a rank is told to stop.
fn ranks(
    folder: &Path,
    world: u64,
    train: &str,
    stop_at: impl Fn(u64) -> usize + Sync,
) -> Vec<Result<Outcome>> {
    let run = folder.join("run");
    let resumes = run.exists();
    let claimed = Mutex::new(if resumes { None } else { Some(NewRun::claim(&run).unwrap()) });
    as_ranks(world, |group| {
        // Of broken images none is passed over; an epoch has seven steps of two.
        let text = small_run(&folder.join("set"), train)
            .replace("workers = 2", "workers = 2\nmax_broken_images = 0")
            .replace("batch_size = 2", "batch_size = 1")
            .replace("accumulate = 2", "accumulate = 1");
        let config = Box::new(Config::parse(&text, &folder.join("run.toml")).unwrap());
        let start = match group.rank() {
            _ if resumes => Start::Resume(run.clone()),
            0 => Start::New { config, folder: claimed.lock().unwrap().take().unwrap() },
            _ => Start::Beside { config, folder: run.clone() },
        };
        follow(start, &group, stop_at(group.rank()))
    })
}

/// Trains as one rank, and tells the others where it fails.
fn follow(start: Start, group: &Arc<Group>, stop_at: usize) -> Result<Outcome> {
    let stop = AtomicBool::new(false);
    let worker = Worker { device: Device::Cpu, collective: Arc::clone(group) as _ };
    let outcome = train(start, &worker, &mut StopAt(stop_at, &stop), &stop);
    match &outcome {
        Ok(_) => group.leave()?,
        Err(error) => group.fail(&error.to_string()),
    }
    outcome
}

const NEVER: usize = usize::MAX;

fn steps(outcomes: Vec<Result<Outcome>>) -> Vec<u64> {
    let step = |outcome: Result<Outcome>| match outcome.unwrap() {
        Outcome::Stopped(step) => step,
        Outcome::Finished { .. } => panic!("it went on to the end"),
    };
    outcomes.into_iter().map(step).collect()
}

/// What is restored: moments, EMA, weights.
fn state(run: &Path) -> BTreeMap<String, Tensor> {
    let last = run.join("checkpoints/last");
    let (mut tensors, _) = safetensors::read(&last.join("training.safetensors")).unwrap();
    tensors.extend(safetensors::read(&last.join("model.safetensors")).unwrap().0);
    tensors
}

const SHORT: &str = "epochs = 2\nlr_drop = [1]\nlog_every = 1\n";

/// When one is told to stop all stop at the same step, and the run goes on from there as if nothing had been,
/// with as many processes. With another number it goes on at the same place in the epoch, and says so.
#[test]
fn a_run_of_several_stops_as_one_and_resumes_exactly() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [whole, parts] = folders.each_ref().map(|folder| folder.path());
    for folder in [whole, parts] {
        // The folder's name is in the settings, and nowhere else.
        write_small_set(&folder.join("set")).unwrap();
    }
    for outcome in ranks(whole, 2, SHORT, |_| NEVER) {
        assert!(matches!(outcome.unwrap(), Outcome::Finished { .. }));
    }
    let stopped = steps(ranks(parts, 2, SHORT, |rank| if rank == 1 { 3 } else { NEVER }));
    assert!(stopped[0] == stopped[1] && stopped[0] > 0, "{stopped:?}");
    for outcome in ranks(parts, 2, SHORT, |_| NEVER) {
        assert!(matches!(outcome.unwrap(), Outcome::Finished { .. }));
    }
    let [whole, parts] = [whole, parts].map(|folder| folder.join("run"));
    let evaluations = |rows: &[MetricsRow]| rows.iter().filter_map(MetricsRow::eval).count();
    assert!(
        rows_without_speed(&whole).unwrap() == rows_without_speed(&parts).unwrap()
            && evaluations(&rows_without_speed(&whole).unwrap()) == 2
    );
    let expected = state(&whole);
    assert_eq!(expected, state(&parts));
    // What was written is rank 0's alone.
    assert!(!whole.join("ranks").exists());
}

/// Everything that a run says.
#[derive(Default)]
struct Messages(Vec<String>);

impl Observer for Messages {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn another_number_of_processes_goes_on_at_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    write_small_set(&folder.path().join("set")).unwrap();
    let stopped = steps(ranks(folder.path(), 2, SHORT, |rank| if rank == 1 { 3 } else { NEVER }));
    let run = folder.path().join("run");
    let before = Position::of_run(&RunFolder::open(&run).unwrap()).unwrap().unwrap();
    assert_eq!((before.world, before.updates), (2, stopped[0]));
    let go = AtomicBool::new(false);
    let mut messages = Messages::default();
    let alone = Worker::alone(Device::Cpu);
    train(Start::Resume(run.clone()), &alone, &mut messages, &go).unwrap();
    assert!(before.epoch == 0 && before.batch > 0, "{before:?}");
    let told = format!("goes on in epoch 1 at batch {}", before.batch * 2);
    assert!(messages.0.iter().any(|text| text.contains(&told)), "{told}: {:?}", messages.0);
    let after = Position::of_run(&RunFolder::open(&run).unwrap()).unwrap().unwrap();
    assert_eq!((after.world, after.epoch), (1, 2));
}

/// One process reads a broken image that no one may be missing: it says so, and the others say that it was this
/// process.
#[test]
fn when_one_fails_the_others_name_it() {
    let folder = tempfile::tempdir().unwrap();
    write_small_set(&folder.path().join("set")).unwrap();
    let images = folder.path().join("set/images/train");
    let image = std::fs::read_dir(images).unwrap().next().unwrap().unwrap().path();
    std::fs::write(image, "no image").unwrap();
    let errors: Vec<Error> = ranks(folder.path(), 2, SHORT, |_| NEVER)
        .into_iter()
        .map(|outcome| outcome.map(drop).unwrap_err())
        .collect();
    let own = errors.iter().position(|error| !matches!(error, Error::Process { .. })).unwrap();
    let text = errors[own].to_string();
    assert!(text.contains("data.max_broken_images"), "{text}");
    for (rank, error) in errors.iter().enumerate() {
        if let Error::Process { rank: told, problem, .. } = error {
            assert!(rank != own && *told == own as u64 && *problem == text, "{error}");
        }
    }
}

/// A detector is evaluated by all processes together, as by one alone: the same numbers and loss, whether the images
/// divide among them or not, and where there are more processes than batches.
#[test]
fn an_evaluation_is_the_same_by_many() {
    let folder = tempfile::tempdir().unwrap();
    write_small_set(&folder.path().join("set")).unwrap();
    let train = "epochs = 1\nlr_drop = []\neval_loss = true\n";
    let first = ranks(folder.path(), 1, train, |_| NEVER).swap_remove(0).unwrap();
    assert!(matches!(first, Outcome::Finished { summary: Some(_), .. }));
    let run = folder.path().join("run");
    let (file, state) = (run.join("eval/epoch-0001.json"), run.join("checkpoints/last/state.json"));
    let expected = std::fs::read_to_string(&file).unwrap();
    assert!(expected.contains("\"detections\""), "{expected}");
    let evaluated = || {
        rows_without_speed(&run)
            .unwrap()
            .iter()
            .filter_map(MetricsRow::eval)
            .cloned()
            .collect::<Vec<_>>()
    };
    let alone = evaluated();
    assert!(alone.len() == 1 && alone[0].loss.is_some_and(|loss| loss > 0.0), "{alone:?}");
    for world in [2, 3, 7] {
        std::fs::remove_file(&file).unwrap();
        let text = std::fs::read_to_string(&state).unwrap();
        std::fs::write(&state, text.replace("\"pending_eval\": false", "\"pending_eval\": true"))
            .unwrap();
        for (rank, outcome) in ranks(folder.path(), world, train, |_| NEVER).into_iter().enumerate()
        {
            let Outcome::Finished { summary, .. } = outcome.unwrap() else { panic!("it stopped") };
            assert_eq!(summary.is_some(), rank == 0);
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected, "{world}");
        assert_eq!(evaluated(), alone, "{world}");
    }
}
