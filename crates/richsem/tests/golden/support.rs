//! Fixtures as our types.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use richsem::{
    boxes::Cxcywh,
    checkpoint_io::safetensors,
    families::dino::{
        criterion::{Decisions, Supervised},
        matcher::Matching,
    },
    models::{
        backbone::ResnetConfig,
        class_head::{ClassSpace, TextTable},
        dino::{
            Dino, DinoConfig, Input, LayerOutputs, TrainingOutput,
            denoising::{DenoisingLayout, DenoisingQueries},
            transformer::TransformerConfig,
        },
        padding::Padding,
        parameters::ParameterStore,
    },
    semantic_branch::{SemanticBranch, SemanticConfig},
    targets::{LabelKnowledge, Target},
    vocabulary::ClassIndex,
};
use serde::{Deserialize, de::DeserializeOwned};
use tch::{Device, Kind, Tensor};

pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Classes of the fixtures, "none" being one.
pub(crate) const CLASSES: i64 = 8;
/// `image_count` of each.
pub(crate) const IMAGE_COUNTS: [u32; 8] = [0, 40, 9, 400, 3, 25, 1, 120];

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name)
}

pub(crate) fn tensors(name: &str) -> Tensors {
    safetensors::read(&file(&format!("{name}.safetensors"))).unwrap().0
}

pub(crate) fn json<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(file(&format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Of the largest difference to the largest value expected.
pub(crate) fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let (got, expected) = (got.detach().to_kind(Kind::Double), expected.to_kind(Kind::Double));
    largest(&(got - &expected)) / largest(&expected).max(1e-30)
}

pub(crate) fn close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let difference = difference(got, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: differs by {difference:.3e} of its largest value");
}

pub(crate) fn close_number(what: &str, got: f64, expected: f64, tolerance: f64) {
    let difference = (got - expected).abs() / expected.abs().max(1e-12);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: {got} instead of {expected} ({difference:.3e})");
}

/// Sizes of `reference/golden/small.py`.
pub(crate) fn config() -> DinoConfig {
    DinoConfig {
        backbone: ResnetConfig { width: 4, layers: vec![1; 4], ..ResnetConfig::default() }.into(),
        transformer: TransformerConfig {
            hidden_dim: 32,
            nheads: 4,
            enc_layers: 2,
            dec_layers: 2,
            dim_feedforward: 48,
            num_queries: 12,
            enc_n_points: 3,
            dec_n_points: 2,
            ..TransformerConfig::default()
        },
        padding: Some(Padding::Official),
        ..DinoConfig::default()
    }
}

/// From here on the parameters are f64.
pub(crate) fn in_double(store: &ParameterStore) {
    for mut parameter in store.parameters() {
        let double = parameter.tensor.detach().to_kind(Kind::Double);
        parameter.tensor.set_data(&double);
    }
}

/// A detector with the weights of a fixture.
pub(crate) struct Model {
    pub store: ParameterStore,
    pub dino: Dino,
    pub text: Option<TextTable>,
    pub kind: Kind,
}

/// What belongs to the semantic branch in a weights file.
fn of_branch(name: &str) -> bool {
    name.starts_with("semantic_branch.")
}

impl Model {
    /// `name` is `text` or `linear`; the kind is what it computes in.
    pub(crate) fn new(name: &str, kind: Kind) -> Self {
        let text = tensors(name).remove("text").map(|rows| TextTable::new(&rows.to_kind(kind)));
        let space = match &text {
            Some(table) => ClassSpace::Text(table.dim()),
            None => ClassSpace::Classes(CLASSES),
        };
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let dino = Dino::new(&store, &config(), space).unwrap();
        let mut weights = tensors(&format!("{name}_weights"));
        weights.retain(|name, _| !of_branch(name));
        store.load(&weights, &file(name)).unwrap();
        if kind == Kind::Double {
            in_double(&store);
        }
        Self { store, dino, text, kind }
    }

    /// The semantic branch of `text`, in the same kind.
    pub(crate) fn branch(&self, config: &SemanticConfig) -> SemanticBranch {
        let mut weights = tensors("text_weights");
        let scale = weights["class_embed.logit_scale"].double_value(&[]).exp();
        weights.retain(|name, _| of_branch(name));
        let text = self.text.as_ref().unwrap();
        let branch = SemanticBranch::new(config, 32, text, scale, None, (Device::Cpu, 0)).unwrap();
        branch.store().load(&weights, &file("text_weights")).unwrap();
        if self.kind == Kind::Double {
            in_double(branch.store());
        }
        branch
    }

    pub(crate) fn forward(&self, fixture: &Tensors, facts: &Facts, prefix: &str) -> TrainingOutput {
        let at = |name: &str| &fixture[&format!("{prefix}{name}")];
        let queries = facts.denoising(fixture, prefix, self.kind);
        let images = at("images").to_kind(self.kind);
        let (mask, tokens) = (at("mask"), at("tokens"));
        let input = Input {
            text: self.text.as_ref(),
            denoising: Some(&queries),
            tokens: Some(tokens),
            ..Input::new(&images, mask)
        };
        self.dino.forward_train(&input).unwrap()
    }
}

/// The two targets of a batch.
pub(crate) fn targets(fixture: &Tensors, prefix: &str) -> Vec<Target> {
    let target = |i: i64| {
        let at = |name: &str| &fixture[&format!("{prefix}target.{i}.{name}")];
        let boxes = Vec::<Vec<f32>>::try_from(at("boxes").to_kind(Kind::Float)).unwrap();
        let labels = Vec::<i64>::try_from(at("labels")).unwrap();
        let side = |name: &str| {
            let sides = Vec::<i64>::try_from(at(name)).unwrap();
            [sides[0] as u32, sides[1] as u32]
        };
        Target {
            image_id: i,
            boxes: boxes.into_iter().map(|b| Cxcywh(b.try_into().unwrap())).collect(),
            labels: labels.into_iter().map(|l| ClassIndex(l as u32)).collect(),
            knowledge: LabelKnowledge::default(),
            size: side("size"),
            original_size: side("orig_size"),
            view: None,
            geometry: None,
        }
    };
    vec![target(0), target(1)]
}

/// Pairs of each set of queries, of each image: queries, targets.
type Pairs = Vec<Vec<(Vec<i64>, Vec<i64>)>>;

/// What was drawn and chosen in a training step, and its losses.
#[derive(Debug, Deserialize)]
pub(crate) struct Facts {
    #[serde(default)]
    pub groups: i64,
    #[serde(default)]
    pub most: i64,
    #[serde(default)]
    pub total: f64,
    #[serde(default)]
    pub norm: f64,
    pub losses: BTreeMap<String, f64>,
    pub pairs: Pairs,
    pub classes: Option<Vec<Vec<i64>>>,
    pub noised_classes: Option<Vec<Vec<i64>>>,
    #[serde(default)]
    pub variants: BTreeMap<String, Facts>,
}

impl Facts {
    pub(crate) fn denoising(
        &self,
        fixture: &Tensors,
        prefix: &str,
        kind: Kind,
    ) -> DenoisingQueries {
        let at = |name: &str| &fixture[&format!("{prefix}noised.{name}")];
        let layout = DenoisingLayout::new(self.groups, self.most);
        DenoisingQueries {
            layout,
            labels: at("labels").shallow_clone(),
            used: at("used").to_kind(kind).unsqueeze(-1),
            references: at("references").to_kind(kind),
            groups: layout.groups(),
        }
    }

    pub(crate) fn matching(&self) -> Matching {
        let mut pairs = Vec::new();
        for (set, images) in (0..).zip(&self.pairs) {
            for (image, (queries, targets)) in (0..).zip(images) {
                let own = queries.iter().zip(targets);
                pairs.extend(own.map(|(&query, &target)| [set, image, query, target]));
            }
        }
        pairs.sort_unstable_by_key(|&[set, image, _, target]| [set, image, target]);
        Matching::new(&pairs, Device::Cpu)
    }

    /// Our decisions, with the matching and the federated classes of the fixture in their place.
    pub(crate) fn decide(&self, ours: &mut Decisions) {
        let replace = |own: &mut Supervised, classes: &Option<Vec<Vec<i64>>>| {
            own.classes = classes.as_ref().map(|classes| {
                Tensor::from_slice(&classes.concat()).view([classes.len() as i64, -1])
            });
        };
        ours.queries.matching = self.matching();
        replace(&mut ours.queries, &self.classes);
        replace(ours.denoising.as_mut().unwrap(), &self.noised_classes);
    }
}

/// The outputs that the official code computed, in f64, as ours.
pub(crate) fn official_output(fixture: &Tensors, facts: &Facts) -> TrainingOutput {
    let layers = |prefix: &str| LayerOutputs {
        logits: fixture[&format!("{prefix}logits")].shallow_clone(),
        boxes: fixture[&format!("{prefix}boxes")].shallow_clone(),
    };
    let interm = layers("interm.");
    TrainingOutput {
        decoder: layers(""),
        interm: LayerOutputs {
            logits: interm.logits.unsqueeze(0),
            boxes: interm.boxes.unsqueeze(0),
        },
        denoising: Some((DenoisingLayout::new(facts.groups, facts.most), layers("noised."))),
        matched: None,
        region_features: fixture["hidden"].shallow_clone(),
        input_references: fixture["references"].shallow_clone(),
        unused: None,
    }
}

/// `loss_semantic` is `loss_distill` there.
pub(crate) fn official_name(name: &str) -> String {
    name.replace("loss_semantic", "loss_distill")
}

/// Every term by its name, and no name more or less than expected.
pub(crate) fn close_terms(
    what: &str,
    names: &[String],
    values: &Tensor,
    expected: &BTreeMap<String, f64>,
    tolerance: f64,
) {
    let ours: BTreeSet<String> = names.iter().map(|n| official_name(n)).collect();
    let theirs: BTreeSet<String> = expected.keys().cloned().collect();
    assert_eq!(ours, theirs, "{what}");
    let values = Vec::<f64>::try_from(values.to_kind(Kind::Double)).unwrap();
    for (name, value) in names.iter().zip(values) {
        let expected = expected[&official_name(name)];
        close_number(&format!("{what}: {name}"), value, expected, tolerance);
    }
}
