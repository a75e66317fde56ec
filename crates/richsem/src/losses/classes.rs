//! Which classes a class loss looks at: those that the federated loss draws, and those that are known to be
//! in an image or absent from it.

use tch::{Device, Tensor};

use super::{
    config::{LossConfig, UnknownClasses},
    federated::Rates,
    terms::WholeBatch,
};
use crate::{
    random::{Random, Stream},
    targets::Target,
};

/// Which classes a class loss looks at.
#[derive(Debug)]
pub struct ClassChoice {
    /// How often the federated loss draws each class; none without a federated loss.
    rates: Option<Rates>,
    unknown: UnknownClasses,
}

impl ClassChoice {
    /// `image_counts` of the vocabulary's classes drive the federated loss.
    #[must_use]
    pub fn new(config: &LossConfig, image_counts: &[u32]) -> Self {
        let rates = config.federated.as_ref().map(|federated| Rates::new(image_counts, federated));
        Self { rates, unknown: config.unknown_classes }
    }

    /// The classes that each set's class terms look at, `[sets, W]` on the host: those of the whole batch come
    /// first, in order, in every set. None: all classes. `first_term` tells the sets of a step apart.
    #[must_use]
    pub fn sample(
        &self,
        WholeBatch { key, present, .. }: &WholeBatch,
        first_term: u64,
        sets: usize,
    ) -> Option<Tensor> {
        let rates = self.rates.as_ref()?;
        let sampled: Vec<Vec<i64>> = (0..sets as u64)
            .map(|set| {
                let item = first_term + set;
                let mut random = Random::new(key.seed, Stream::Federated, key.micro_step, item);
                rates.sample(present, &mut random)
            })
            .collect();
        Some(Tensor::from_slice(&sampled.concat()).view([sets as i64, -1]))
    }

    /// 1 where an unmatched region of a class is wrong for sure, 0 where the class may be there without
    /// a box: unknown, or not exhaustively annotated; `[B, C]` f32. None: it is always wrong.
    #[must_use]
    pub fn known(&self, targets: &[Target], classes: i64, device: Device) -> Option<Tensor> {
        match self.unknown {
            UnknownClasses::Negative => None,
            UnknownClasses::Ignore => {
                let known = Tensor::from_slice(&known_classes(targets, classes as usize));
                Some(torch_ext::upload(&known.view([targets.len() as i64, classes]), device))
            }
        }
    }
}

/// 1 where an unmatched query of a class is wrong for sure, 0 where the class may be there without
/// a box: unknown, or not exhaustively annotated; `[B · C]`.
fn known_classes(targets: &[Target], classes: usize) -> Vec<f32> {
    let mut known = Vec::with_capacity(targets.len() * classes);
    for target in targets {
        let knowledge = &target.knowledge;
        let mut row = vec![0.0; classes];
        for class in knowledge
            .exhaustive
            .iter()
            .chain(&knowledge.present)
            .chain(&knowledge.absent)
            .chain(&target.labels)
        {
            row[class.0 as usize] = 1.0;
        }
        for class in &knowledge.not_exhaustive {
            row[class.0 as usize] = 0.0;
        }
        known.append(&mut row);
    }
    known
}
