//! How far the headers of archives are read.

use serde::{Deserialize, Serialize};

use super::{naming::Inner, tally::Tally};

/// Where the indexing stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The archive that is walked.
    pub(super) part: usize,
    /// Position of the next header in its file; none: nothing of it was read.
    pub(super) at: Option<u64>,
    /// The archive in it that is walked, after its own members.
    pub(super) inner: Option<usize>,
    /// The archives in it.
    pub(super) inners: Vec<Inner>,
    /// Whether it has images of its own, outside of the archives in it.
    pub(super) loose: bool,
    /// Files before the archive that is walked.
    pub(super) before: u64,
    /// Bytes whose headers are behind us.
    pub(super) done: u64,
    pub(super) tally: Tally,
}
