//! What DINO learns: denoising queries, the pass with them, and the terms of every decoder layer.

pub mod criterion;
pub mod matcher;
mod regions;

use tch::{Device, Tensor};

pub use criterion::{Criterion, MatchedTerms, PendingTerms};
pub use regions::regions;

use crate::{
    error::Result,
    losses::{LossConfig, terms::WholeBatch},
    models::{
        class_head::TextTable,
        dino::{
            Dino, DinoConfig, Input, TrainingOutput, TrainingTensors, denoising::DenoisingQueries,
        },
        network::{Images, PassForm},
    },
    random::{Random, Stream},
    targets::Target,
};

/// What a DINO detector learns by.
#[derive(Debug)]
pub struct Objective {
    /// The terms.
    pub criterion: Criterion,
    config: DinoConfig,
    classes: i64,
}

impl Objective {
    /// `image_counts` of the vocabulary's classes drive the federated loss.
    #[must_use]
    pub fn new(config: &DinoConfig, loss: &LossConfig, image_counts: &[u32]) -> Self {
        Self {
            criterion: Criterion::new(loss.clone(), image_counts),
            config: config.clone(),
            classes: image_counts.len() as i64,
        }
    }

    /// See [`super::Objective::prepare`].
    pub(super) fn denoising(
        &self,
        targets: &[Target],
        WholeBatch { key, first_image, most_boxes, .. }: &WholeBatch,
        device: Device,
        common: bool,
    ) -> Option<DenoisingQueries> {
        let config = &self.config.denoising;
        let queries = self.config.transformer.num_queries;
        DenoisingQueries::new(
            targets,
            (config, self.classes),
            *most_boxes,
            |image| {
                let item = first_image + image as u64;
                Random::new(key.seed, Stream::Denoising, key.micro_step, item)
            },
            device,
            |slots| if common { config.common_slots(slots, queries) } else { slots },
        )
    }

    pub(super) fn describe(&self, boxes: usize) -> String {
        let queries = self.config.transformer.num_queries;
        let noised = self.config.denoising.queries(boxes as i64);
        format!("{queries} queries and {noised} denoising queries each")
    }
}

/// The same queries in other tensors: labels, used, references, groups.
pub(super) fn with_tensors(queries: &DenoisingQueries, tensors: &[Tensor]) -> DenoisingQueries {
    let tensor = |i: usize| tensors[i].shallow_clone();
    DenoisingQueries {
        layout: queries.layout,
        labels: tensor(0),
        used: tensor(1),
        references: tensor(2),
        groups: tensor(3),
    }
}

pub(super) fn run(
    network: &Dino,
    images: Images,
    form: PassForm,
    text: Option<&TextTable>,
    denoising: Option<&DenoisingQueries>,
) -> Result<Vec<Tensor>> {
    let few_tokens = form.0 != 0;
    let input = Input {
        text,
        denoising,
        few_tokens,
        draws: images.draws,
        learns: images.learns,
        ..Input::new(images.pixels, images.mask)
    };
    Ok(network.training_tensors(&input)?.into_list())
}

pub(super) fn output(tensors: &[Tensor], denoising: Option<&DenoisingQueries>) -> TrainingOutput {
    TrainingOutput::new(TrainingTensors::from_list(tensors), denoising.map(|dn| dn.layout))
}
