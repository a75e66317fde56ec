//! Where the teacher is right too seldom: how right it would be with smaller and larger images.

use std::sync::Arc;

use crate::{
    config::Config,
    data::{
        batch::SourceId, extra::FormConfig, interleaved::Interleaved, transforms::TransformConfig,
    },
    error::Result,
};

/// Factors on the sizes that are tried, the present one first.
const FACTORS: [f64; 3] = [1.0, 0.5, 2.0];

/// A size, and how often the teacher's likeliest class is the label there.
pub(super) struct Tried {
    /// The setting and its value, as `tile 320`.
    pub(super) size: String,
    pub(super) top1: f64,
}

/// Tries half and twice the size of the images of a source, beside the present one. `ask` gives the share of
/// batches made with other settings; sizes that the settings do not allow are left out.
pub(super) fn tried(
    config: &Config,
    source: SourceId,
    ask: &dyn Fn(&Config) -> Result<Option<f64>>,
) -> Result<Vec<Tried>> {
    let mut tried = Vec::new();
    for factor in FACTORS {
        let Some((config, size)) = at(config, source, factor) else { continue };
        if config.validate().is_ok()
            && let Some(top1) = ask(&config)?
        {
            tried.push(Tried { size, top1 });
        }
    }
    Ok(tried)
}

/// As a hint: the table, and what to set.
pub(super) fn told(tried: &[Tried]) -> Option<String> {
    let best = tried.iter().max_by(|a, b| a.top1.total_cmp(&b.top1))?;
    let row = |tried: &Tried| format!("{}: top-1 {:.1} %", tried.size, 100.0 * tried.top1);
    let rows: Vec<String> = tried.iter().map(row).collect();
    // The present one is the first.
    let advice = match best.size == tried[0].size {
        true => {
            "no other size is better: look at teacher.text and the mapping of classes".to_owned()
        }
        false => format!("{} is the best of these", best.size),
    };
    Some(format!("by size, {}; {advice}", rows.join(", ")))
}

/// The settings with the images of a source that much larger, and what to call it.
fn at(config: &Config, source: SourceId, factor: f64) -> Option<(Config, String)> {
    let mut config = config.clone();
    let of = |side: u32| ((f64::from(side) * factor).round() as u32).max(2);
    let default = config.data.augment.clone();
    let size = match source.0.checked_sub(1) {
        None => {
            scale(&mut config.data.augment, of);
            format!("data.augment.scales = {:?}", config.data.augment.scales)
        }
        Some(extra) => {
            let (name, _) = config.data.extra_sets().nth(extra)?;
            let name = name.clone();
            let extra = config.data.extra.get_mut(&name)?;
            let augment = extra.augment.get_or_insert(default);
            scale(augment, of);
            match &mut extra.form {
                FormConfig::Mosaic { tile } => {
                    *tile = of(*tile);
                    format!("data.extra.{name}.form.tile = {tile}")
                }
                FormConfig::Single {} => {
                    format!("data.extra.{name}.augment.scales = {:?}", augment.scales)
                }
            }
        }
    };
    Some((config, size))
}

fn scale(augment: &mut TransformConfig, of: impl Fn(u32) -> u32) {
    let crop = &mut augment.crop;
    for side in augment.scales.iter_mut().chain(&mut crop.resize) {
        *side = of(*side);
    }
    for side in [&mut augment.max_size, &mut crop.min, &mut crop.max] {
        *side = of(*side);
    }
}

/// Batches of other settings.
pub(super) type Rebuild<'a> = dyn Fn(&Config) -> Result<Arc<Interleaved>> + 'a;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn three_sizes_are_tried_and_the_best_is_named() {
        let config = Config::load_preset("richsem_r50", &[]).unwrap();
        let seen = std::cell::RefCell::new(Vec::new());
        let ask = |config: &Config| {
            let FormConfig::Mosaic { tile } = config.data.extra["imagenet"].form else {
                return Ok(None);
            };
            let scales = &config.data.extra["imagenet"].augment.as_ref().unwrap().scales;
            seen.borrow_mut().push((tile, scales[0]));
            Ok(Some(1.0 / f64::from(tile)))
        };
        let tried = tried(&config, SourceId(1), &ask).unwrap();
        assert_eq!(*seen.borrow(), [(640, 480), (320, 240), (1280, 960)]);
        let told = told(&tried).unwrap();
        assert!(told.contains("data.extra.imagenet.form.tile = 320 is the best"), "{told}");
        assert!(told.contains("tile = 1280: top-1 0.1 %"), "{told}");
        let detection = tried_detection(&config);
        assert!(detection.contains("no other size is better"), "{detection}");
    }

    fn tried_detection(config: &Config) -> String {
        let tried = tried(config, SourceId::DETECTION, &|_| Ok(Some(0.2))).unwrap();
        told(&tried[..1]).unwrap()
    }
}
