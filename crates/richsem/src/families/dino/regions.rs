//! DINO's queries as regions that the semantic branch may look at.

use tch::{Device, Tensor};

use super::{
    criterion::{Decisions, Supervised, suffix},
    matcher::Pair,
};
use crate::{
    error::Result,
    losses::regions::{RegionSet, Regions, Wanted},
    models::dino::TrainingOutput,
    semantic_branch::RegionFeatures,
    targets::Target,
};

/// One set: a decoder layer's queries, or its denoising queries.
struct Set<'a> {
    suffix: String,
    layer: usize,
    supervised: &'a Supervised,
    /// Denoising queries. Only the positive ones learn (method, part 6): the others are made to be wrong, or
    /// fill up.
    noised: bool,
    /// Its queries within each image's: first and count.
    queries: (i64, i64),
}

/// The queries as the class head sees them in the last layer, or in all; of the denoising queries the
/// positive ones.
///
/// # Errors
/// What libtorch refuses.
pub fn regions(
    output: &TrainingOutput,
    targets: &[Target],
    decisions: &Decisions,
    wanted: Wanted,
) -> Result<Regions> {
    let device = output.region_features.device();
    let (_, images, queries, dim) = output.region_features.size4()?;
    let sets = sets(output, decisions, wanted)?;
    // The first box of each image among the batch's.
    let mut first_target = vec![0i64];
    first_target.extend(targets.iter().scan(0, |sum, t| {
        *sum += t.boxes.len() as i64;
        Some(*sum)
    }));
    // Few images have such queries: the transfer is rare.
    let unused = match &output.unused {
        Some(unused) if wanted.unmatched => {
            Vec::<bool>::try_from(unused.to_device(Device::Cpu).flatten(0, -1))?
        }
        _ => Vec::new(),
    };
    let index = |values: &[i64]| torch_ext::upload(&Tensor::from_slice(values), device);
    // A region is an image's first query, which the host knows, and a query, which it may not.
    let (mut first, mut query) = (Vec::new(), Vec::new());
    let (mut image_of, mut boxes) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for Set { suffix, layer, supervised, noised, queries: (from, count) } in sets {
        let before = first.len();
        let region = |image: i64| (layer as i64 * images + image) * queries + from;
        let all = wanted.unmatched && !noised;
        if all {
            let used = |image: i64, query: i64| {
                !unused.get((image * count + query) as usize).is_some_and(|unused| *unused)
            };
            let mut known = Vec::new();
            for image in 0..images {
                known.extend((0..count).filter(|query| used(image, *query)));
                image_of.resize(before + known.len(), image);
                first.resize(before + known.len(), region(image));
            }
            query.push(index(&known));
        } else {
            let matching = &supervised.matching;
            // A set's pairs are neighbours.
            let of_layer = |pair: &&Pair| pair.set == layer as i64;
            let start = matching.pairs.iter().take_while(|pair| !of_layer(pair)).count();
            for pair in matching.pairs.iter().filter(of_layer) {
                first.push(region(pair.image));
                image_of.push(pair.image);
                boxes.push(first_target[pair.image as usize] + pair.target);
            }
            let count = (first.len() - before) as i64;
            query.push(matching.query.narrow(0, start as i64, count));
        }
        let count = first.len() - before;
        found.push(RegionSet {
            suffix,
            count,
            matched: !all,
            normalizer: if all { count as f64 } else { supervised.normalizer },
            classes: supervised.classes.as_ref().map(|classes| classes.get(layer as i64)),
        });
    }
    Ok(Regions {
        features: RegionFeatures(output.region_features.reshape([-1, dim])),
        boxes: output.input_references.detach().view([-1, 4]),
        rows: index(&first) + Tensor::cat(&query, 0),
        images: image_of,
        targets: boxes,
        sets: found,
    })
}

fn sets<'a>(
    output: &TrainingOutput,
    decisions: &'a Decisions,
    wanted: Wanted,
) -> Result<Vec<Set<'a>>> {
    let (layers, _, queries, _) = output.region_features.size4()?;
    let layers = layers as usize;
    let first = if wanted.every_layer { 0 } else { layers - 1 };
    // Denoising queries and slots come first, also where no image has a box.
    let noised = queries - output.decoder.boxes.size()[2];
    let mut sets = Vec::new();
    for (tag, supervised, span) in [
        ("", Some(&decisions.queries), (noised, queries - noised)),
        ("_dn", decisions.denoising.as_ref(), (0, noised)),
    ] {
        let Some(supervised) = supervised else { continue };
        sets.extend((first..layers).map(|layer| Set {
            suffix: format!("{tag}{}", suffix(layer, layers)),
            layer,
            supervised,
            noised: !tag.is_empty(),
            queries: span,
        }));
    }
    Ok(sets)
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
