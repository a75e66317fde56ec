//! The training loop and what surrounds it.

mod agree;
mod changes;
mod checkpoint;
mod claim;
mod diagnose;
mod evaluate;
mod init;
pub(crate) mod inputs;
pub(crate) mod labels;
pub(crate) mod learner;
mod lock;
mod model;
pub mod observer;
mod optimizer;
mod pass;
mod record_ahead;
mod run;
mod run_folder;
mod schedule;
mod setup;
mod supply;
pub(crate) mod teacher_check;
mod trainer;

pub use checkpoint::{LogSums, Position};
pub use claim::NewRun;
pub use inputs::{OpenedSet, check_vocabularies};
pub use learner::{BatchLoss, Intermediates, Learner, PendingLoss, PendingUpdate, Prepared};
pub(crate) use lock::lock_folder;
pub use model::TrainingModel;
pub use observer::Observer;
pub use optimizer::Optimizer;
pub use run::{Outcome, Start, Worker};
pub use run_folder::{EvalRow, MetricsRow, RANKS, RunFolder, TrainRow};
pub use schedule::lr_factor;
pub use trainer::{train, train_with_teacher};
