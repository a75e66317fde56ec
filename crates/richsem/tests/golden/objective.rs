//! The objective as a whole: the gradient of every parameter, and ten optimiser steps.

use std::collections::{BTreeMap, BTreeSet};

use richsem::{
    config::TrainConfig,
    families::dino::regions,
    losses::{semantic::semantic_terms, terms::LossTerms},
    models::{
        dino::TrainingOutput,
        parameters::{Parameter, Role},
    },
    semantic_branch::{SemanticBranch, SemanticConfig},
    targets::{Supervision, Target},
    teacher::SoftLabels,
    train::Optimizer,
};
use tch::{Kind, Tensor};

use crate::{
    losses::{criterion, step},
    support::*,
};

/// All terms and their weighted sum, with the fixture's matching and classes.
fn objective(
    output: &TrainingOutput,
    targets: &[Target],
    facts: &Facts,
    supervision: &Supervision,
    semantic: Option<(&SemanticBranch, SoftLabels)>,
) -> LossTerms {
    let criterion = criterion(facts.classes.is_some());
    let (_, mut decisions) = criterion.forward(output, step(targets, supervision)).unwrap();
    facts.decide(&mut decisions);
    let mut terms = criterion.terms_of(output, targets, supervision, &decisions).unwrap();
    if let Some((branch, soft)) = semantic {
        let mut soft = Some(soft);
        let mut label = |_: &Tensor| Ok(soft.take().unwrap());
        let config = SemanticConfig::default();
        let regions = regions(output, targets, &decisions, config.wanted()).unwrap();
        let more = semantic_terms(&config, branch, &regions, targets, &mut label);
        terms.append(more.unwrap());
    }
    terms
}

fn soft(golden: &Tensors, prefix: &str, kind: Kind) -> SoftLabels {
    let at = |name: &str| golden[&format!("{prefix}soft.{name}")].to_kind(kind);
    SoftLabels { logits: at("logits"), features: at("features") }
}

/// Of all that is trained, and of nothing else: frozen stages, norms and the scale have none.
#[test]
fn gradients_of_all_parameters() {
    for name in ["text", "linear"] {
        let (golden, facts) = (tensors(name), json::<Facts>(name));
        let expected = tensors(&format!("{name}_gradients"));
        // The fixture is in f32. Where a sample lies at the border of two pixels, f32 may see the slope
        // of the other one.
        for (kind, tolerance) in [(Kind::Double, 1e-6), (Kind::Float, 5e-3)] {
            let model = Model::new(name, kind);
            let branch = model.text.as_ref().map(|_| model.branch(&SemanticConfig::default()));
            let output = model.forward(&golden, &facts, "");
            let semantic = branch.as_ref().map(|b| (b, soft(&golden, "", kind)));
            let targets = targets(&golden, "");
            let supervision = Supervision::default();
            let terms = objective(&output, &targets, &facts, &supervision, semantic);
            let total = terms.total.double_value(&[]);
            let exact = kind == Kind::Double;
            close_number("objective", total, facts.total, if exact { 1e-8 } else { 1e-4 });
            terms.total.backward();
            let mut parameters = model.store.parameters();
            parameters.extend(branch.iter().flat_map(|b| b.store().parameters()));
            let trained: Vec<&Parameter> =
                parameters.iter().filter(|p| p.role == Role::Trainable).collect();
            let names: BTreeSet<&String> = trained.iter().map(|p| &p.name).collect();
            assert_eq!(names, expected.keys().collect::<BTreeSet<_>>());
            let largest =
                expected.values().map(|g| g.abs().max().double_value(&[])).fold(0.0, f64::max);
            for p in trained {
                let wanted = &expected[&p.name];
                // The keys' bias cannot matter to a softmax: its gradient is rounding alone.
                if wanted.abs().max().double_value(&[]) > 1e-9 * largest {
                    close(
                        &format!("{name} {:?} {}", kind, p.name),
                        &p.tensor.grad(),
                        wanted,
                        tolerance,
                    );
                }
            }
        }
    }
}

/// Ten steps of the whole objective by the official training loop, detection and extra batches in
/// turn, the latter without box terms but in the encoder's: losses of every layer, their sum, the
/// norm of the whole gradient. The learning rates are five times the paper's, so that every step
/// moves what the next one sees.
#[test]
fn ten_optimiser_steps() {
    let (golden, steps) = (tensors("steps"), json::<Vec<Facts>>("steps"));
    assert_eq!(steps.len(), 10);
    for (kind, tolerance) in [(Kind::Double, 1e-6), (Kind::Float, 1e-3)] {
        let model = Model::new("text", kind);
        let branch = model.branch(&SemanticConfig::default());
        let mut parameters = model.store.parameters();
        parameters.extend(branch.store().parameters());
        let config = TrainConfig {
            lr: 5e-4,
            lr_backbone: 5e-5,
            weight_decay: 1e-4,
            clip_max_norm: 0.1,
            ..TrainConfig::default()
        };
        let mut optimizer = Optimizer::new(parameters, &config).unwrap();
        for (i, facts) in steps.iter().enumerate() {
            let batch = format!("batch.{}.", i % 4);
            let mut inputs: BTreeMap<String, Tensor> = golden
                .iter()
                .filter_map(|(k, v)| Some((k.strip_prefix(&batch)?.to_owned(), v.shallow_clone())))
                .collect();
            let own = format!("{i}.");
            inputs.extend(
                golden.iter().filter_map(|(k, v)| {
                    Some((k.strip_prefix(&own)?.to_owned(), v.shallow_clone()))
                }),
            );
            let supervision = match i % 2 {
                0 => Supervision::default(),
                _ => Supervision {
                    l1: false,
                    giou: false,
                    interm_exempt: true,
                    ..Supervision::default()
                },
            };
            let output = model.forward(&inputs, facts, "");
            let targets = targets(&inputs, "");
            let semantic = Some((&branch, soft(&inputs, "", kind)));
            let terms = objective(&output, &targets, facts, &supervision, semantic);
            let what = format!("{kind:?} step {i}");
            close_terms(&what, &terms.names, &terms.values, &facts.losses, tolerance);
            let total = terms.total.double_value(&[]);
            close_number(&format!("{what}: total"), total, facts.total, tolerance);
            terms.total.backward();
            close_number(
                &format!("{what}: norm"),
                optimizer.clip().unwrap().double_value(&[]),
                facts.norm,
                tolerance,
            );
            optimizer.step(1.0, None).unwrap();
            optimizer.zero_grad();
        }
    }
}
