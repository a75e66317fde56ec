//! One file a verb. Each has its `Args` and a `run` that gives the exit code.

pub(crate) mod bench;
pub(crate) mod checks;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod dataset;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod info;
pub(crate) mod init;
pub(crate) mod map;
pub(crate) mod predict;
pub(crate) mod prepare;
pub(crate) mod pretrain_teacher;
pub(crate) mod report;
pub(crate) mod settings;
pub(crate) mod show;
pub(crate) mod split;
pub(crate) mod study;
pub(crate) mod synth;
pub(crate) mod train;
pub(crate) mod weights;
