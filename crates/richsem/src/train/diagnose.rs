//! What to say, and keep, when a number is not finite.

use std::{collections::BTreeMap, path::PathBuf};

use tch::{Kind, Tensor};

use super::{Learner, learner::Intermediates, run_folder::write_text};
use crate::{
    checkpoint_io::safetensors,
    data::batch::Batch,
    error::{Error, Result},
};

fn finite(x: &Tensor) -> bool {
    x.isfinite().all().int64_value(&[]) != 0
}

/// Looks for the first tensor that is not finite, in the order in which a step computes them,
/// saves the batch in `folder`, and says all of it.
pub(super) fn non_finite(
    folder: PathBuf,
    step: u64,
    what: &str,
    batch: &Batch,
    learner: &Learner,
    intermediates: &Intermediates,
) -> Error {
    let Learner { model, optimizer, .. } = learner;
    let mut first = model
        .parameters()
        .into_iter()
        .find(|p| !finite(&p.tensor))
        .map(|p| format!("parameter {}", p.name));
    if let Some(output) = &intermediates.output {
        let found = output.named().into_iter().find(|(_, t)| !finite(t));
        let found = found.map(|(name, _)| name.to_owned());
        first = first.or(found);
    }
    let term = intermediates.losses.as_ref().and_then(|l| {
        let values = Vec::<f32>::try_from(l.values.to_kind(Kind::Float)).ok()?;
        let at = values.iter().position(|v| !v.is_finite())?;
        Some(l.names[at].clone())
    });
    first = first.or_else(|| {
        optimizer.first_non_finite_gradient().map(|name| format!("gradient of {name}"))
    });
    let term = term.map_or_else(|| what.to_owned(), |name| format!("{name} is not finite"));
    let first = first.unwrap_or_else(|| "none found: the objective itself overflowed".into());
    let images: Vec<i64> = batch.targets.iter().map(|t| t.image_id).collect();
    let kept = match save(&folder, step, &term, &first, batch) {
        Ok(()) => format!("the batch is in {}", folder.display()),
        Err(error) => format!("the batch could not be saved: {error}"),
    };
    Error::non_finite(format!(
        "step {step}: {term}; first non-finite tensor: {first}; images {images:?}; {kept}"
    ))
    .with_hint(
        "resume with a lower train.lr, with precision = \"f32\", or look at these images' boxes",
    )
}

fn save(folder: &std::path::Path, step: u64, term: &str, first: &str, batch: &Batch) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    let mut tensors = BTreeMap::from([
        ("images".to_owned(), batch.images.contiguous()),
        ("mask".to_owned(), batch.mask.shallow_clone()),
    ]);
    let mut targets = Vec::new();
    for (i, target) in batch.targets.iter().enumerate() {
        let boxes: Vec<f32> = target.boxes.iter().flat_map(|b| b.0).collect();
        let labels: Vec<i64> = target.labels.iter().map(|l| i64::from(l.0)).collect();
        tensors.insert(
            format!("boxes.{i}"),
            Tensor::from_slice(&boxes).view([labels.len() as i64, 4]),
        );
        tensors.insert(format!("labels.{i}"), Tensor::from_slice(&labels));
        targets.push(serde_json::json!({ "image_id": target.image_id, "size": target.size }));
    }
    safetensors::write(&folder.join("batch.safetensors"), &tensors, &safetensors::Metadata::new())?;
    let report = serde_json::json!({
        "step": step, "term": term, "first_non_finite": first, "targets": targets,
    });
    write_text(&folder.join("report.json"), &format!("{report:#}"))
}
