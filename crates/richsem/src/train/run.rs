//! What a run starts from, where it computes, and how it ends.

use std::{path::PathBuf, sync::Arc};

use tch::Device;

use super::{NewRun, inputs::OpenedSet};
use crate::{
    collective::{Collective, Single},
    config::Config,
    evaluate::Summary,
};

/// A new run, or one to go on with.
#[derive(Debug)]
pub enum Start {
    /// A new run in that folder.
    New {
        /// Its settings.
        config: Box<Config>,
        /// Its folder.
        folder: NewRun,
    },
    /// A new run in a folder that the process of rank 0 has claimed: this is another one.
    Beside {
        /// Its settings.
        config: Box<Config>,
        /// Its folder.
        folder: PathBuf,
    },
    /// The run of that folder, with the settings saved there.
    Resume(PathBuf),
}

impl Start {
    /// A new run with these settings in that folder.
    #[must_use]
    pub fn new(config: Config, folder: NewRun) -> Self {
        Self::New { config: Box::new(config), folder }
    }
}

/// This process's part in a run.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Where it computes.
    pub device: Device,
    /// The processes of the run.
    pub collective: Arc<dyn Collective>,
}

impl Worker {
    /// The only process of its run.
    #[must_use]
    pub fn alone(device: Device) -> Self {
        Self { device, collective: Arc::new(Single) }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs are done, or all before `train.patience` ended the run.
    Finished {
        /// The last evaluation. None without a validation set, and where the run had been finished before.
        summary: Option<Box<Summary>>,
        /// The validation set.
        val: Option<OpenedSet>,
    },
    /// It was asked to stop, and saved everything at this update.
    Stopped(u64),
}
