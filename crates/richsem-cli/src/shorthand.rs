//! Flags for the settings that people change most, as assignments of these settings.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{
    config::Config,
    data::{
        dataset::Dataset,
        formats::{Opening, same_split},
        transforms::{CropConfig, TransformConfig},
    },
    shell::quoted,
};

/// Steps between image sizes, in pixels.
const STEP: u32 = 32;

/// The settings that people change most.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Shorthands {
    /// Set to train on, and, if it has a validation part, to evaluate on: a file or folder of any known
    /// format (sets data.train and data.val)
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    /// Set to evaluate on. Default: the validation part of --data, if it has one (sets data.val)
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// Images of both sets: a folder or archive. Default: where the annotations have them (sets
    /// data.train.images and data.val.images)
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Passes over the training set (sets train.epochs, and moves train.lr_drop in proportion)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: Option<u32>,
    /// Images of a batch (sets data.batch_size)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Option<u16>,
    /// Longer side of the images, in pixels (sets data.resize and the sizes in data.augment)
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=16_384))]
    imgsz: Option<u32>,
    /// Learning rate (sets train.lr, and train.lr_backbone in proportion)
    #[arg(long, value_name = "RATE", value_parser = rate)]
    lr: Option<f64>,
}

fn rate(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    value.ok_or_else(|| "expected a number from 0 to 1, as 0.0002".to_owned())
}

/// A setting that a flag sets, and why it has that value.
struct Set {
    assignment: String,
    why: Option<String>,
}

impl Shorthands {
    /// Whether none is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { data, val, images, epochs, batch, imgsz, lr } = self;
        let sets = [data, val, images].iter().any(|path| path.is_some());
        !(sets || epochs.is_some() || batch.is_some() || imgsz.is_some() || lr.is_some())
    }

    /// The sets, as they are typed for a verb: `init` has the set to train on without a flag.
    pub(crate) fn typed(&self, data: &str) -> String {
        let path = |path: &Option<PathBuf>| path.as_ref().map(quoted);
        let named =
            [("", data, &self.data), (" --val ", "", &self.val), (" --images ", "", &self.images)];
        named
            .into_iter()
            .map(|(flag, otherwise, given)| match path(given) {
                Some(given) => format!("{flag}{given}"),
                None => otherwise.to_owned(),
            })
            .collect()
    }

    /// Reads the settings with the sets of these flags (`load` does, with what is assigned), then with all of
    /// them: the assignments, those of `--set` last, so that they win. What the flags change beside what they
    /// name is told.
    pub(crate) fn apply(
        &self,
        assignments: &[String],
        load: impl Fn(&[String]) -> richsem::Result<Config>,
    ) -> Result<Config> {
        if self.is_empty() {
            return Ok(load(assignments)?);
        }
        let mut all = self.annotated()?;
        // `--set` may say more of a set that only a flag names.
        let config = load(&[&all, assignments].concat())?;
        if let (Some(data), None) = (&self.data, &config.data.val) {
            crate::output::warn(format!(
                "--data: {} has no part for validation, so nothing is evaluated; another set is --val, and \
                 `richsem dataset split` makes two of one",
                data.display()
            ));
        }
        for Set { assignment, why } in self.sets(&config)? {
            let key = assignment.split('=').next().unwrap_or_default().to_owned();
            let named = |other: &String| {
                other.split('=').next().is_some_and(|other| {
                    other.trim() == key || other.trim().starts_with(&format!("{key}."))
                })
            };
            // What `--set` names is not told: it wins.
            if let Some(why) = why.filter(|_| !assignments.iter().any(named)) {
                crate::output::note(format!("{assignment} ({why})"));
            }
            all.push(assignment);
        }
        all.extend_from_slice(assignments);
        Ok(load(&all)?)
    }

    /// The annotations to train and to evaluate on.
    fn annotated(&self) -> Result<Vec<String>> {
        let set = |key: &str, path: String| format!("{key}={}", serde_json::Value::from(path));
        let mut sets = Vec::new();
        if let Some(data) = &self.data {
            let path = text(data, "--data")?;
            sets.push(set("data.train", path.clone()));
            let parts = Dataset::parts(data, &Opening::default())?;
            if self.val.is_none() && parts.iter().any(|part| same_split(part, "val")) {
                sets.push(set("data.val", path));
            }
        }
        if let Some(val) = &self.val {
            sets.push(set("data.val", text(val, "--val")?));
        }
        Ok(sets)
    }

    /// The rest, over settings that have the sets.
    fn sets(&self, config: &Config) -> Result<Vec<Set>> {
        let mut sets = Vec::new();
        let mut set = |key: &str, value: serde_json::Value, why: Option<String>| {
            sets.push(Set { assignment: format!("{key}={value}"), why });
        };
        if let Some(images) = &self.images {
            let path = text(images, "--images")?;
            set("data.train.images", path.clone().into(), None);
            if config.data.val.is_some() {
                set("data.val.images", path.into(), None);
            }
        }
        if let Some(epochs) = self.epochs {
            set("train.epochs", epochs.into(), None);
            let (drops, before) = (&config.train.lr_drop, config.train.epochs);
            let moved = moved(drops, before, epochs.into());
            if moved != *drops {
                let why = format!("--epochs: {drops:?} of {before} epochs until now");
                set("train.lr_drop", moved.into(), Some(why));
            }
        }
        if let Some(batch) = self.batch {
            set("data.batch_size", batch.into(), None);
        }
        if let Some(side) = self.imgsz {
            let resize = format!("{{size={side},max_size={side}}}");
            sets.push(Set { assignment: format!("data.resize={resize}"), why: None });
            let augment = scaled(&config.data.augment, side);
            let why = "--imgsz: from 0.6 of it on, as DETR has it".to_owned();
            sets.push(Set { assignment: format!("data.augment={augment}"), why: Some(why) });
        }
        if let Some(lr) = self.lr {
            let (before, backbone) = (config.train.lr, config.train.lr_backbone);
            sets.push(Set { assignment: format!("train.lr={lr:?}"), why: None });
            if before > 0.0 && backbone > 0.0 && lr != before {
                let moved = (backbone / before * lr).min(1.0);
                let why = format!("--lr: {:.3} of train.lr, as until now", backbone / before);
                let assignment = format!("train.lr_backbone={moved:?}");
                sets.push(Set { assignment, why: Some(why) });
            }
        }
        Ok(sets)
    }
}

/// A path for the settings, from the root.
fn text(path: &Path, flag: &str) -> Result<String> {
    crate::output::check_input(path, flag, "file or folder")?;
    let absolute = std::path::absolute(path)?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| {
        anyhow!(
            "{flag}: `{}`: the name is not UTF-8, so the settings cannot hold it",
            path.display()
        )
    })
}

/// Drops of the learning rate at the same shares of another number of epochs; those that were never reached
/// stay out of reach. In very few epochs there is no place for one between the first epoch and the end.
fn moved(drops: &[u64], before: u64, epochs: u64) -> Vec<u64> {
    let at = |drop: u64| (drop as f64 * epochs as f64 / before.max(1) as f64).round() as u64;
    let fits = |&(drop, moved): &(u64, u64)| drop >= before || (1..epochs).contains(&moved);
    let both = drops.iter().map(|&drop| (drop, at(drop)));
    let mut moved: Vec<u64> = both.filter(fits).map(|(_, moved)| moved).collect();
    moved.dedup();
    moved
}

/// The sizes of `augment` for images of that longer side: shorter sides from 0.6 of it on, crops in the
/// proportions of DETR's.
fn scaled(augment: &TransformConfig, side: u32) -> String {
    let of = |share: f64| ((share * f64::from(side)).round() as u32).max(1);
    let first = of(0.6).next_multiple_of(STEP).min(side);
    let mut scales: Vec<u32> = (first..=side).step_by(STEP as usize).collect();
    if scales.last() != Some(&side) {
        scales.push(side);
    }
    let default = CropConfig::default();
    let largest = 800.0;
    let share = |pixels: u32| of(f64::from(pixels) / largest);
    let resize: Vec<u32> = default.resize.iter().map(|&pixels| share(pixels)).collect();
    format!(
        "{{flip={:?},scales={scales:?},max_size={side},crop={{probability={:?},resize={resize:?},min={},max={}}}}}",
        augment.flip,
        augment.crop.probability,
        share(default.min),
        share(default.max)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn applied(flags: &Shorthands, set: &[&str]) -> Config {
        let set: Vec<String> = set.iter().map(|&s| s.to_owned()).collect();
        flags.apply(&set, |assignments| Config::load_preset("tiny", assignments)).unwrap()
    }

    #[test]
    fn a_flag_moves_what_depends_on_it_and_set_wins() {
        let flags = Shorthands {
            epochs: Some(60),
            batch: Some(4),
            imgsz: Some(320),
            lr: Some(1e-3),
            ..Shorthands::default()
        };
        let config = applied(&flags, &[]);
        // tiny.toml: 18 epochs, drop at 15, both rates 5e-4.
        assert_eq!((config.train.epochs, &*config.train.lr_drop), (60, &[50][..]));
        assert_eq!((config.train.lr, config.train.lr_backbone), (1e-3, 1e-3));
        assert_eq!(config.data.batch_size, 4);
        assert_eq!((config.data.resize.size, config.data.resize.max_size), (320, 320));
        let augment = &config.data.augment;
        assert_eq!((&*augment.scales, augment.max_size), (&[192, 224, 256, 288, 320][..], 320));
        assert_eq!((&*augment.crop.resize, augment.crop.min), (&[160, 200, 240][..], 154));
        let config = applied(&flags, &["train.lr_drop=[58]", "train.lr_backbone=0.0001"]);
        assert_eq!((&*config.train.lr_drop, config.train.lr_backbone), (&[58][..], 1e-4));
        assert_eq!(config.train.epochs, 60);
    }

    /// Three flags are all that a set in pieces needs.
    #[test]
    fn the_sets_and_their_images_have_flags() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        for name in ["train.json", "val.json"] {
            let text = r#"{"images": [], "annotations": [], "categories": []}"#;
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("imgs")).unwrap();
        let images = |config: &Config| {
            let of = |set: &Option<richsem::config::SplitConfig>| {
                set.as_ref().map(|set| set.images.clone())
            };
            (of(&config.data.train), of(&config.data.val))
        };
        let (data, val) = (path("train.json"), path("val.json"));
        let flags = Shorthands { data, val, images: path("imgs"), ..Shorthands::default() };
        let config = applied(&flags, &[]);
        assert_eq!(config.data.val.as_ref().map(|set| &set.annotations), path("val.json").as_ref());
        assert_eq!(images(&config), (Some(path("imgs")), Some(path("imgs"))));
        // What is said of one alone wins.
        let config = applied(&flags, &["data.val.images=elsewhere"]);
        assert!(images(&config).1.unwrap().unwrap().ends_with("elsewhere"));
        // Without a set to evaluate on none comes to be.
        let flags = Shorthands { val: None, ..flags };
        assert_eq!(images(&applied(&flags, &[])), (Some(path("imgs")), None));
        assert_eq!(
            Shorthands { images: Some("my imgs".into()), ..Shorthands::default() }.typed("DATA"),
            "DATA --images 'my imgs'"
        );
    }

    #[test]
    fn every_size_gives_settings_that_hold() {
        for imgsz in [32, 33, 100, 640, 1280, 16_384] {
            applied(&Shorthands { imgsz: Some(imgsz), ..Shorthands::default() }, &[]);
        }
        assert_eq!(moved(&[12, 30], 24, 3), [2, 4]);
        assert_eq!(moved(&[20], 24, 3), [0; 0], "at the end it is none");
        assert_eq!(moved(&[1, 2], 24, 3), [0; 0], "nor at the start");
        assert_eq!(moved(&[15], 18, 1), [0; 0]);
    }
}
