//! What a format has no place for.

/// Things of one kind that a set has and the new format cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What they are, in the plural, as `crowd regions`.
    pub what: String,
    /// How many of them.
    pub count: usize,
    /// What became of them, as `written as boxes`.
    pub instead: String,
}

/// What was not carried over from one part of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotCarried {
    lost: Vec<Lost>,
}

impl NotCarried {
    /// Notes things of one kind, unless there are none.
    pub fn add(&mut self, what: impl Into<String>, count: usize, instead: impl Into<String>) {
        if count > 0 {
            self.lost.push(Lost { what: what.into(), count, instead: instead.into() });
        }
    }

    /// Adds what was noted elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.lost.extend(other.lost);
    }

    /// Each kind, in the order in which they were noted.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Whether all was carried over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }
}
