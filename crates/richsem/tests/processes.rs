//! Runs of several processes, played by threads of this one that talk as processes do: that they compute what
//! one computes on as many images, and that no one is left waiting for another that failed or was told to stop.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use image::{Rgb, RgbImage};
use richsem::{
    Error, Result,
    checkpoint_io::safetensors,
    collective::{
        self, Collective, Pace, Single,
        group::{Group, Joining},
        place::Place,
    },
    config::Config,
    data::batch::Batch,
    losses::terms::StepKey,
    models::{class_head::TextTable, parameters::Role},
    random::{Random, Stream},
    targets::{BoxMatching, Supervision, Target},
    teacher::{DenseMap, SoftLabels, Teacher, TeacherConfig},
    testing::{category, normal, rows_without_speed, small_run, target, write_small_set},
    train::{
        Learner, MetricsRow, NewRun, Observer, Outcome, Position, RunFolder, Start, Worker, train,
    },
    vocabulary::{Category, Vocabulary},
};
use tch::{Device, Kind, Tensor};
use torch_ext::Store;

/// The ranks of a run, each a thread of this process. They talk as processes do.
fn as_ranks<T: Send>(world: u64, run: impl Fn(Arc<Group>) -> T + Sync) -> Vec<T> {
    as_patient_ranks(world, PATIENCE, |group| run(group.unwrap()))
}

/// The same with another patience, and for those that do not come together.
fn as_patient_ranks<T: Send>(
    world: u64,
    patience: Duration,
    run: impl Fn(Result<Arc<Group>>) -> T + Sync,
) -> Vec<T> {
    tch::set_num_threads(1);
    let store = Store::serve(0, PATIENCE).unwrap();
    let rank = &|rank: u64| {
        let place = Place {
            rank,
            world,
            local_rank: rank as usize,
            host: "localhost".to_owned(),
            port: store.port(),
            has_store: true,
            attempt: "0".to_owned(),
        };
        let last_resort = Box::new(|error: &Error| panic!("not ended: {error}"));
        let joining = Joining { program: "test".to_owned(), patience, last_resort };
        run(Group::join(&place, joining))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world).map(|r| scope.spawn(move || rank(r))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const PATIENCE: Duration = Duration::from_secs(60);

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
# A bias before a norm of its own channel has a gradient of nothing but rounding, and AdamW makes that a step of
# lr / 1e-8 times it.
[train]
lr = 1e-4
lr_backbone = 1e-4
clip_max_norm = 0.1";

/// What a teacher might say: a function of the box and of its image's mean colour, in f64.
#[derive(Debug)]
struct Opinion(TextTable);

impl Teacher for Opinion {
    fn encode(&self, images: &Tensor) -> Result<DenseMap> {
        let features =
            images.to_kind(Kind::Double).mean_dim([2i64, 3].as_slice(), true, Kind::Double);
        Ok(DenseMap { features, stride: 64 })
    }

    fn label(&self, map: &DenseMap, boxes: &Tensor) -> Result<SoftLabels> {
        let image = boxes.select(1, 0).to_kind(Kind::Int64);
        let colour = map.features.flatten(1, -1).index_select(0, &image);
        let corners = boxes.narrow(1, 1, 4).to_kind(Kind::Double) / 64.0;
        let seen = Tensor::cat(&[colour, corners], 1);
        let length = seen.norm_scalaropt_dim(2.0, [-1i64], true);
        let features = seen / length;
        let logits =
            features.matmul(&self.0.normalized.to_kind(Kind::Double).transpose(0, 1)) * 4.0;
        Ok(SoftLabels { logits, features })
    }

    fn text(&self) -> &TextTable {
        &self.0
    }

    fn logit_scale(&self) -> f64 {
        4f64.ln()
    }

    fn describe(&self) -> String {
        "an opinion".to_owned()
    }
}

/// How a run of this test learns.
#[derive(Debug, Clone, Copy)]
struct Learns {
    /// Every second batch is one of classification images.
    extra: bool,
    /// With a teacher and a semantic branch.
    semantic: Option<&'static str>,
}

fn images(work: &[(usize, u64)], supervision: &Supervision) -> Batch {
    let samples = work.iter().map(|&(boxes, seed)| {
        let mut random = Random::new(3, Stream::Test, seed, 0);
        let image = RgbImage::from_fn(64, 64, |_, _| Rgb([0; 3].map(|_: u8| random.bits() as u8)));
        let objects: Vec<(u32, [f32; 4])> = (0..boxes)
            .map(|_| {
                let class = random.below(9) as u32;
                (class, [0.4, 0.6, 0.3, 0.4].map(|x| x + random.range(-0.1, 0.1) as f32))
            })
            .collect();
        (image, Target { size: [64, 64], original_size: [64, 64], ..target(&objects) })
    });
    let batch = Batch::collate(samples.collect(), Vec::new(), 32).unwrap();
    Batch { supervision: supervision.clone(), ..batch }
}

/// The loss and the terms of a step, by name.
type Terms = Vec<(String, f64)>;

/// Ten steps in f64 on four images each, `world` processes sharing them: the loss and the terms of each step,
/// and the weights and their EMA at the end.
fn ten_steps(
    learns: Learns,
    collective: Arc<dyn Collective>,
) -> (Vec<Terms>, BTreeMap<String, Tensor>) {
    let semantic = learns.semantic.map_or(String::new(), |settings| {
        format!(
            "[teacher]\nweights = \"none\"\nactivation = \"quick_gelu\"\n[semantic]\n{settings}\n"
        )
    });
    let text = format!(
        "{CONFIG}\n[train.ema]\ndecay = 0.9\n[loss]\nfederated = {{ classes = 6 }}\n{semantic}"
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let table = TextTable::new(&normal(1, &[9, 7]));
    let open = move |_: &TeacherConfig, _: &Vocabulary, _| -> Result<Box<dyn Teacher>> {
        Ok(Box::new(Opinion(TextTable::new(&table.rows))))
    };
    let (rank, world) = (collective.rank() as usize, collective.world() as usize);
    let network = (Device::Cpu, Arc::clone(&collective));
    let classes = counted(9);
    let mut learner = Learner::of_kind(Kind::Double, &config, classes, network, &open).unwrap();
    let mut losses = Vec::new();
    for step in 0..10 {
        // Images of no box, of one and of many; in one step none has any.
        let mut work: Vec<(usize, u64)> =
            (0..4).map(|i| (((step * 3 + i * 5) % 7) as usize, step * 4 + i)).collect();
        if step == 4 {
            work.iter_mut().for_each(|image| image.0 = 0);
        }
        let extra = Supervision {
            interm_exempt: true,
            l1: false,
            assignment: BoxMatching::MaxSize,
            ..Supervision::default()
        };
        let is_extra = learns.extra && step % 2 == 1;
        if is_extra {
            work.iter_mut().for_each(|image| image.0 = 1);
        }
        let supervision = if is_extra { extra } else { Supervision::default() };
        let own = &work[rank * 4 / world..(rank + 1) * 4 / world];
        let batch = images(own, &supervision);
        let loss = learner.backward(&batch, StepKey { seed: 1, micro_step: step }).unwrap();
        let norm = learner.update(1.0).unwrap();
        let mut named = vec![("loss".to_owned(), loss.loss)];
        named.extend(loss.terms);
        let values: Vec<f64> = named.iter().map(|(_, value)| *value).collect();
        let sums = collective::sums(collective.as_ref(), &values).unwrap();
        let mut means: Vec<(String, f64)> = named
            .into_iter()
            .zip(sums)
            .map(|((name, _), sum)| (name, sum / world as f64))
            .collect();
        // Of all processes by itself.
        means.push(("norm".to_owned(), norm));
        losses.push(means);
    }
    let mut weights = learner.optimizer.ema().unwrap();
    let parameters = learner.model.parameters();
    weights.extend(parameters.into_iter().map(|p| (format!("now.{}", p.name), p.tensor)));
    (losses, weights.into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect())
}

/// Two processes of a batch each, and four, compute what one computes on all the images: boxes are counted over
/// all, noise belongs to the image, and classes are drawn for all.
#[test]
fn several_processes_are_one_of_as_many_images() {
    for learns in [
        Learns { extra: false, semantic: None },
        Learns { extra: true, semantic: None },
        Learns { extra: false, semantic: Some("") },
        Learns { extra: true, semantic: Some("federated = true\naux_layers = true") },
        Learns { extra: true, semantic: Some("target_boxes = \"all\"") },
    ] {
        tch::set_num_threads(1);
        let (expected, weights) = ten_steps(learns, Arc::new(Single));
        for world in [2, 4] {
            for (losses, got) in as_ranks(world, |group| ten_steps(learns, group)) {
                for (step, (losses, expected)) in losses.iter().zip(&expected).enumerate() {
                    assert_eq!(losses.len(), expected.len());
                    for ((name, got), (expected_name, expected)) in losses.iter().zip(expected) {
                        let apart = (got - expected).abs() / expected.abs().max(1.0);
                        // The norm is downloaded in f32.
                        let most = if name == "norm" { 1e-6 } else { 1e-12 };
                        assert!(
                            name == expected_name && apart <= most,
                            "{learns:?}, {world}: step {step}: {name} {got}, {expected_name} {expected}"
                        );
                    }
                }
                assert_eq!(got.len(), weights.len());
                for (name, got) in got {
                    let apart = (got - &weights[&name]).abs().max().double_value(&[]);
                    assert!(apart <= 1e-12, "{learns:?}, {world}: {name}: {apart}");
                }
            }
        }
    }
}

/// Classes of which the federated loss draws some more often than others.
fn counted(classes: usize) -> Vocabulary {
    Vocabulary::new(
        (0..classes as i64)
            .map(|id| Category {
                image_count: 1 + id as u32,
                ..category(id, format!("class {id}"))
            })
            .collect(),
    )
}

/// A learner of these settings in f64.
fn learner(text: &str, collective: Arc<dyn Collective>, finite: bool) -> Learner {
    let config = Config::parse(text, Path::new("test.toml")).unwrap();
    let open = move |_: &TeacherConfig, _: &Vocabulary, _| -> Result<Box<dyn Teacher>> {
        let opinion = Opinion(TextTable::new(&normal(1, &[9, 7])));
        Ok(if finite { Box::new(opinion) } else { Box::new(NotFinite(opinion)) })
    };
    let network = (Device::Cpu, collective);
    Learner::of_kind(Kind::Double, &config, counted(9), network, &open).unwrap()
}

/// Says nothing that is a number.
#[derive(Debug)]
struct NotFinite(Opinion);

impl Teacher for NotFinite {
    fn encode(&self, images: &Tensor) -> Result<DenseMap> {
        self.0.encode(images)
    }

    fn label(&self, map: &DenseMap, boxes: &Tensor) -> Result<SoftLabels> {
        let SoftLabels { logits, features } = self.0.label(map, boxes)?;
        Ok(SoftLabels { logits: logits * f64::NAN, features })
    }

    fn text(&self) -> &TextTable {
        self.0.text()
    }

    fn logit_scale(&self) -> f64 {
        self.0.logit_scale()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

const FIRST_STEP: StepKey = StepKey { seed: 1, micro_step: 0 };

/// One process has a loss that is not finite, of its own images alone: it says so itself, before its gradients reach
/// the others, who name it.
#[test]
fn a_number_that_is_not_finite_is_told_by_the_process_that_has_it() {
    let text = format!(
        "{CONFIG}\n[teacher]\nweights = \"none\"\nactivation = \"quick_gelu\"\n[semantic]\n"
    );
    let errors = as_ranks(2, |group| {
        let rank = group.rank();
        let mut learner = learner(&text, Arc::clone(&group) as _, rank == 0);
        let batch = images(&[(2, rank)], &Supervision::default());
        let step = learner.backward(&batch, FIRST_STEP).and_then(|_| learner.update(1.0));
        let error = step.unwrap_err();
        group.fail(&error.to_string());
        error
    });
    assert!(matches!(&errors[1], Error::NonFinite { .. }), "{}", errors[1]);
    let Error::Process { rank: 1, problem, .. } = &errors[0] else { panic!("{}", errors[0]) };
    assert!(problem.contains("the loss is not finite"), "{problem}");
}

/// Each process's batch norms see its own images. Their running statistics are the means over the processes after
/// every update, the same bits in all.
#[test]
fn running_statistics_are_those_of_all() {
    let text = CONFIG.replace("width = 8,", "width = 8, norm = \"batch_norm\",");
    let after_a_step = |collective: Arc<dyn Collective>, rank: u64| -> Vec<(String, Tensor)> {
        let mut learner = learner(&text, collective, true);
        let batch = images(&[(2, rank), (1, 7 + rank)], &Supervision::default());
        learner.backward(&batch, FIRST_STEP).unwrap();
        learner.update(1.0).unwrap();
        let all = learner.model.parameters().into_iter();
        all.filter(|p| p.role == Role::Statistics).map(|p| (p.name, p.tensor.copy())).collect()
    };
    tch::set_num_threads(1);
    let [first, second] = [0, 1].map(|rank| after_a_step(Arc::new(Single), rank));
    let shared = as_ranks(2, |group| {
        let rank = group.rank();
        after_a_step(group, rank)
    });
    assert!(first.len() > 10 && first.iter().any(|(name, _)| name.ends_with("running_var")));
    assert_eq!(shared[0], shared[1]);
    let mut apart = 0.0f64;
    for (((name, own), (_, other)), (shared_name, shared)) in
        first.iter().zip(&second).zip(&shared[0])
    {
        assert_eq!(name, shared_name);
        let expected = (own + other) / 2.0;
        let wrong = (shared - expected).abs().max().double_value(&[]);
        assert!(wrong < 1e-12, "{name}: {wrong}");
        apart = apart.max((own - other).abs().max().double_value(&[]));
    }
    assert!(apart > 1e-6, "the images of both processes have the same statistics");
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
    let train = format!("{SHORT}[data2]\n").replace("[data2]\n", "");
    let errors: Vec<Error> = ranks(folder.path(), 2, &train, |_| NEVER)
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

/// What each of three processes hears when one of them does something else than the others, which exchange a word.
fn heard(patience: Duration, odd: u64, does: impl Fn(&Group) + Sync) -> Vec<(u64, String)> {
    let hear = |group: Result<Arc<Group>>| {
        let group = group.unwrap();
        group.pace(Pace::Steps);
        if group.rank() == odd {
            does(&group);
        }
        match group.exchange(b"a word".to_vec()).unwrap_err() {
            Error::Process { rank, problem, .. } => (rank, problem),
            other => panic!("{other}"),
        }
    };
    as_patient_ranks(3, patience, hear)
}

#[test]
fn a_failure_reaches_all_and_names_its_process() {
    for odd in 0..3 {
        // An error.
        for (rank, problem) in heard(PATIENCE, odd, |group| group.fail("the disk is full")) {
            assert_eq!((rank, problem.as_str()), (odd, "the disk is full"));
        }
        // At work for longer than a step takes.
        let slow = Duration::from_millis(1500);
        let stuck = |_: &Group| std::thread::sleep(3 * slow);
        for (rank, problem) in heard(slow, odd, stuck) {
            assert!(rank == odd && problem.contains("no training step for"), "{rank}: {problem}");
        }
    }
    // At another call. Rank 0 is the one who compares.
    for (rank, problem) in heard(PATIENCE, 2, |group| drop(group.gather(Vec::new()))) {
        assert!(rank == 2 && problem.contains("it is at another call"), "{rank}: {problem}");
    }
}

/// What each has, by rank, for all or for rank 0; sums; the mean of buffers in both kinds, the same bits in all.
#[test]
fn processes_hear_each_other() {
    let heard = as_ranks(3, |group| {
        let rank = group.rank();
        let said = |rank: u64| vec![rank as u8; 100_000 * rank as usize];
        let all: Vec<Vec<u8>> = (0..3).map(said).collect();
        assert_eq!(group.exchange(said(rank)).unwrap(), all);
        assert_eq!(group.gather(said(rank)).unwrap(), (rank == 0).then_some(all));
        let any = collective::any(group.as_ref(), [rank == 2, false]).unwrap();
        assert_eq!(any, [true, false]);
        let sums = collective::sums(group.as_ref(), &[1.0, rank as f64]).unwrap();
        assert_eq!(sums, [3.0, 3.0]);
        let buffers = [normal(rank, &[300_000]), normal(9 + rank, &[7]).to_kind(Kind::Double)];
        group.mean_gradients(&buffers).unwrap();
        group.leave().unwrap();
        buffers
    });
    for (i, kind) in [Kind::Float, Kind::Double].into_iter().enumerate() {
        let of = |rank: u64| match i {
            0 => normal(rank, &[300_000]),
            _ => normal(9 + rank, &[7]).to_kind(Kind::Double),
        };
        let expected = (of(0) + of(1) + of(2)) / 3.0;
        for buffers in &heard {
            assert_eq!(buffers[i].kind(), kind);
            assert_eq!(buffers[i], heard[0][i]);
            let apart = (&buffers[i] - &expected).abs().max().double_value(&[]);
            assert!(apart <= if i == 0 { 1e-6 } else { 1e-15 }, "{apart}");
        }
    }
}
