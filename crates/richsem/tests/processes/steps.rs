//! Steps: what each computes, and all together.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use image::{Rgb, RgbImage};
use richsem::{
    Error, Result,
    collective::{self, Collective, Single},
    config::Config,
    data::batch::Batch,
    losses::terms::StepKey,
    models::{class_head::TextTable, parameters::Role},
    random::{Random, Stream},
    targets::{BoxMatching, Supervision, Target},
    teacher::{DenseMap, SoftLabels, Teacher, TeacherConfig},
    testing::{category, normal, target},
    train::Learner,
    vocabulary::{Category, Vocabulary},
};
use tch::{Device, Kind, Tensor};

use super::as_ranks;

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
