//! The classes that a detector is asked for.

use std::sync::atomic::{AtomicI64, Ordering};

use tch::Device;

use crate::{
    error::{Error, Result, guarded},
    models::class_head::TextTable,
    vocabulary::Vocabulary,
};

/// Classes, and their text embeddings where a detector compares with text. It never changes: other classes
/// are another set. So what is computed for one set is never taken for another.
#[derive(Debug)]
pub struct ClassSet {
    /// No other set of this process has it.
    id: i64,
    vocabulary: Vocabulary,
    text: Option<TextTable>,
}

impl ClassSet {
    /// `text` holds one row a class, in order: `[C, D_text]`. It is copied to `device`, the detector's. Linear
    /// class heads have none.
    ///
    /// # Errors
    /// No classes; a table of another shape; what libtorch refuses.
    pub fn new(vocabulary: Vocabulary, text: Option<&TextTable>, device: Device) -> Result<Self> {
        static NEXT: AtomicI64 = AtomicI64::new(0);
        if vocabulary.is_empty() {
            return Err(Error::other("the vocabulary has no classes: nothing to detect"));
        }
        if let Some(table) = text
            && (table.rows.dim() != 2 || table.rows.size()[0] != vocabulary.len() as i64)
        {
            let (size, classes) = (table.rows.size(), vocabulary.len());
            return Err(Error::other(format!(
                "a text table of size {size:?} for {classes} classes"
            )));
        }
        let text = guarded(|| {
            let rows = text.map(|table| table.rows.f_to_device(device)).transpose()?;
            Ok(rows.map(|rows| TextTable::new(&rows)))
        })?;
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), vocabulary, text })
    }

    /// The same set once more.
    pub(crate) fn share(&self) -> Self {
        let text = self.text.as_ref().map(|TextTable { rows, normalized }| TextTable {
            rows: rows.shallow_clone(),
            normalized: normalized.shallow_clone(),
        });
        Self { id: self.id, vocabulary: self.vocabulary.clone(), text }
    }

    /// The classes, in order.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Their embeddings, if they are told apart by text.
    #[must_use]
    pub fn text(&self) -> Option<&TextTable> {
        self.text.as_ref()
    }

    /// Part of the key of whatever is kept for these classes.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }
}
