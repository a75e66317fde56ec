//! Backbones and CLIPs: the same tensors under the names that this program reads them by.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use super::{Conversion, Fate, Form, Kind, Product, Report, Source};
use crate::{
    checkpoint_io::{
        backbones::{self, Layout, Sorted},
        fit::{Fit, Mismatch, Patterns},
        safetensors::Metadata,
    },
    error::{Error, Result, guarded},
    models::{
        backbone::{Backbone, Resnet, ResnetConfig, ResnetName},
        parameters::ParameterStore,
    },
    teacher::clip::{self, Hints},
};

/// Checks that a backbone or a CLIP is whole, and leaves out what is no part of it.
pub(super) fn convert(source: Source, form: Form) -> Result<Conversion> {
    let output = match form {
        Form::Safetensors => "safetensors",
        Form::Pth => "a .pth",
    };
    let mut report = Report::new(source.describe(), format!("the same weights as {output}"));
    report.add_beside(&source.beside);
    let (tensors, rest, metadata) = match source.kind {
        Kind::Resnet(backbone) => {
            let (tensors, rest) = backbone_alone(source, backbone, &mut report)?;
            (tensors, rest, Metadata::new())
        }
        Kind::Backbone(layout) => {
            let (tensors, rest) = published(source, layout, &mut report)?;
            (tensors, rest, Metadata::new())
        }
        _ => clip_alone(source, form, &mut report)?,
    };
    let product = Product::Tensors { tensors, metadata, key: None };
    Ok(Conversion { report, rest, form, product })
}

type Tensors = BTreeMap<String, Tensor>;

fn backbone_alone(
    source: Source,
    name: ResnetName,
    report: &mut Report,
) -> Result<(Tensors, Tensors)> {
    let (mut taken, mut rest) = (Tensors::new(), Tensors::new());
    for (name, tensor) in source.tensors {
        let why = if name.ends_with("num_batches_tracked") {
            "counts batches"
        } else if ["fc.", "head.", "attnpool."].iter().any(|p| name.starts_with(p)) {
            "the classifier of images"
        } else {
            taken.insert(name, tensor);
            continue;
        };
        report.add(name.clone(), tensor.numel(), Fate::Left(why.into()));
        rest.insert(name, tensor);
    }
    let first = taken.get("layer1.0.conv1.weight");
    let width = first.and_then(|t| t.size().first().copied()).unwrap_or(0);
    let blocks = |stage: usize| {
        let prefix = format!("layer{stage}.");
        let numbers = taken.keys().filter_map(|k| k.strip_prefix(&prefix)?.split('.').next());
        numbers.collect::<std::collections::BTreeSet<_>>().len() as i64
    };
    let layers = (1..=4).map(blocks).collect();
    let config = ResnetConfig { name, width, layers, ..ResnetConfig::default() };
    config.validate("backbone").map_err(|problem| {
        let problem = format!("no sizes of a ResNet follow from them: {problem}");
        Error::invalid(&source.path, "weights", problem)
            .with_hint("the file is damaged, or of another network")
    })?;
    let store = guarded(|| {
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let _ = Resnet::new(&store.root(), &config);
        Ok(store)
    })?;
    let fit = Fit::of(&store, &taken, &Patterns::default());
    // Says if a value is not finite.
    fit.load(&store, &taken, &source.path)?;
    let mut problems: BTreeMap<&str, &Mismatch> =
        fit.mismatches.iter().map(|m| (m.name(), m)).collect();
    for (name, tensor) in &taken {
        let fate = match problems.remove(name.as_str()) {
            Some(mismatch) => Fate::Problem(mismatch.to_string()),
            None => Fate::Taken,
        };
        report.add(name.clone(), tensor.numel(), fate);
    }
    for (name, mismatch) in problems {
        report.add(name, 0, Fate::Problem(mismatch.to_string()));
    }
    if config.layers != name.blocks() {
        report
            .notes
            .push(format!("model.dino.backbone.layers = {:?} where it is used", config.layers));
    }
    Ok((taken, rest))
}

/// Any other backbone: under our names, which are the official code's where there is one.
fn published(source: Source, layout: Layout, report: &mut Report) -> Result<(Tensors, Tensors)> {
    let Sorted { tensors, taken, left } = layout.sort(source.tensors);
    let Some(config) = layout.config(&tensors) else {
        let problem = format!("no sizes of {} follow from them", layout.describe());
        return Err(Error::invalid(&source.path, "weights", problem)
            .with_hint("the file is damaged, or of another network"));
    };
    config.validate("backbone").map_err(|problem| {
        let problem = format!("no sizes of {} follow from them: {problem}", layout.describe());
        Error::invalid(&source.path, "weights", problem)
            .with_hint("the file is damaged, or of another network")
    })?;
    let store = guarded(|| {
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let levels: Vec<usize> = (0..config.levels().len()).collect();
        drop(Backbone::new(&store.root(), &config, &levels));
        Ok(store)
    })?;
    let fit = Fit::of(&store, &tensors, &Patterns::default());
    // Says if a value is not finite.
    fit.load(&store, &tensors, &source.path)?;
    let mut problems: BTreeMap<&str, &Mismatch> =
        fit.mismatches.iter().map(|m| (m.name(), m)).collect();
    for (name, (own, count)) in &taken {
        let fate = match problems.get(own.as_str()) {
            Some(mismatch) => Fate::Problem(mismatch.to_string()),
            None if name == own => Fate::Taken,
            None => Fate::TakenAs(format!("as {own}")),
        };
        report.add(name.clone(), *count, fate);
    }
    problems.retain(|name, _| !taken.values().any(|(own, _)| own == name));
    let (new, missing): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|(name, _)| backbones::is_new(name));
    for (name, mismatch) in missing {
        report.add(name, 0, Fate::Problem(mismatch.to_string()));
    }
    if !new.is_empty() {
        let note = "without what only detectors have (norms of the outputs; of vision transformers the pyramid): it \
                    starts anew";
        report.notes.push(note.into());
    }
    report.notes.push(format!("for a backbone that is {}", config.describe()));
    let mut rest = Tensors::new();
    for (name, (why, tensor)) in left {
        report.add(name.clone(), tensor.numel(), Fate::Left(why.into()));
        rest.insert(name, tensor);
    }
    Ok((tensors, rest))
}

fn clip_alone(
    source: Source,
    form: Form,
    report: &mut Report,
) -> Result<(Tensors, Tensors, Metadata)> {
    let before: BTreeMap<String, usize> =
        source.tensors.iter().map(|(name, t)| (name.clone(), t.numel())).collect();
    let mut rest = Tensors::new();
    for (name, tensor) in &source.tensors {
        if clip::is_beside(name) {
            report.add(name.clone(), tensor.numel(), Fate::Left("no weight".into()));
            rest.insert(name.clone(), tensor.shallow_clone());
        }
    }
    let tensors = clip::to_openai(source.tensors, &source.path)?;
    let hints = Hints::of(&source.path, None)?;
    let (_, config, _) = clip::from_weights(&tensors, &hints, &source.path, Device::Cpu)?;
    for (name, tensor) in &tensors {
        let fate = if before.contains_key(name) {
            Fate::Taken
        } else {
            Fate::TakenAs("under OpenAI's name".into())
        };
        report.add(name.clone(), tensor.numel(), fate);
    }
    report.notes.push(format!(
        "images of {} pixels, embeddings of {} numbers{}",
        config.visual.resolution(),
        config.embed_dim,
        if config.text.is_some() { "" } else { ", no text encoder" }
    ));
    if let (Some(activation), Some(by)) = (hints.activation, &hints.source) {
        report.notes.push(format!("activation {} ({by} says so)", activation.name()));
        if form == Form::Pth {
            report.notes.push(format!(
                "a .pth has no place for that: set teacher.activation = \"{}\" where it is used",
                activation.name()
            ));
        }
    }
    Ok((tensors, rest, hints.metadata()))
}
