//! What a format has no place for.

/// Things of one kind that a set has and the new format cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The part of the set; empty if it is said of all of it.
    pub part: String,
    /// What they are, in the plural, as `crowd regions`.
    pub what: String,
    /// How many of them.
    pub count: usize,
    /// What became of them, as `written as boxes`; empty where the first words say it.
    pub instead: String,
}

/// What was not carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotCarried {
    lost: Vec<Lost>,
}

impl NotCarried {
    /// Notes things of one kind, unless there are none.
    pub fn add(
        &mut self,
        part: &str,
        what: impl Into<String>,
        count: usize,
        instead: impl Into<String>,
    ) {
        if count > 0 {
            let (part, what, instead) = (part.to_owned(), what.into(), instead.into());
            self.lost.push(Lost { part, what, count, instead });
        }
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
