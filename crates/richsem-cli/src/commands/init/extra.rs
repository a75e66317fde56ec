//! Classification images beside the detection images.

use std::path::{Path, PathBuf};

use anyhow::Result;
use richsem::{
    config::Config,
    data::{
        dataset::Dataset,
        extra::{ClassificationSet, ExtraConfig, MappingConfig},
    },
    doctor::scheme::Place,
};

use super::text;
use crate::output;

/// Sides of tiles are multiples of it.
const STEP: u32 = 32;

/// A set whose folders are named by wnid or by class.
pub(super) struct Extra {
    path: PathBuf,
    by: &'static str,
}

impl Extra {
    pub(super) fn open(path: &Path, train: &Dataset) -> Result<Self> {
        let with = |mapping: MappingConfig| {
            let config = ExtraConfig { mapping: Some(mapping), ..ExtraConfig::new(path) };
            ClassificationSet::open(&config, train.vocabulary())
        };
        let (by, set) = match with(MappingConfig::Wnid {}) {
            Ok(set) => ("wnid", set),
            Err(error) => ("name", with(MappingConfig::Name {}).map_err(|_| error)?),
        };
        output::note(format!("{}: {}", path.display(), set.report()));
        Ok(Self { path: path.to_owned(), by })
    }

    /// Its settings.
    pub(super) fn place(&self, tile: u32, folder: Option<&Path>) -> Result<Place> {
        let settings = vec![
            ("images".to_owned(), text(&self.path, folder)?.into()),
            ("mapping.by".to_owned(), self.by.into()),
            ("form.kind".to_owned(), "mosaic".into()),
            ("form.tile".to_owned(), i64::from(tile).into()),
        ];
        Ok(Place { key: "data.extra.extra".to_owned(), settings })
    }
}

/// The side of a tile: a mosaic of two by two is about as large as the largest detection image, as the paper's 640
/// for images of up to 1333 pixels.
pub(super) fn tile(config: &Config) -> u32 {
    (config.data.augment.max_size / 2 / STEP * STEP).max(STEP)
}
