//! The pages of images that were read last. Writers put up to a thousand rows in one page, which is unpacked as
//! a whole: images that are read in order, or by several threads at once, then come from memory.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use ::parquet::{
    data_type::ByteArray,
    errors::{ParquetError, Result as ParquetResult},
    file::reader::FileReader as _,
};

use super::{bytes_reader, read_some, source::File};

/// Bytes of images that are kept, at most, unless one page alone is larger.
const MOST: usize = 256 << 20;

/// The images of a page.
#[derive(Debug)]
pub(super) struct Page {
    /// Number of the file.
    file: usize,
    /// Its rows in the file.
    rows: Range<usize>,
    images: Vec<Option<ByteArray>>,
    bytes: usize,
}

impl Page {
    /// The image of one of its rows, if it is not null.
    pub(super) fn image(&self, row: usize) -> Option<&[u8]> {
        let image = row.checked_sub(self.rows.start).and_then(|i| self.images.get(i));
        image?.as_ref().map(ByteArray::data)
    }

    /// Unpacks the page that holds a row of a column. `number` is that of the file.
    ///
    /// # Errors
    /// The file is damaged, or has no such row.
    pub(super) fn read(
        file: &File,
        number: usize,
        column: usize,
        row: usize,
    ) -> ParquetResult<Self> {
        let mut before = 0;
        for group in 0..file.reader.num_row_groups() {
            let rows = usize::try_from(file.reader.metadata().row_group(group).num_rows())?;
            if row - before < rows {
                let within = rows_of_page(file, group, column, row - before)?;
                let mut reader = bytes_reader(file, group, column)?;
                let skipped = reader.skip_records(within.start)?;
                let images = read_some(&mut reader, within.len())?.unwrap_or_default();
                if skipped != within.start || images.len() != within.len() {
                    return Err(ParquetError::EOF(format!("row group {group} is too short")));
                }
                let bytes = images.iter().flatten().map(ByteArray::len).sum();
                let rows = before + within.start..before + within.end;
                return Ok(Self { file: number, rows, images, bytes });
            }
            before += rows;
        }
        Err(ParquetError::EOF(format!("no row {row}")))
    }
}

/// The rows of a row group that are in one page with a row. Only headers are read.
fn rows_of_page(
    file: &File,
    group: usize,
    column: usize,
    row: usize,
) -> ParquetResult<Range<usize>> {
    let mut pages = file.reader.get_row_group(group)?.get_column_page_reader(column)?;
    let mut start = 0;
    while let Some(page) = pages.peek_next_page()? {
        // The column is not repeated: a level is a row.
        let rows = if page.is_dict { Some(0) } else { page.num_rows.or(page.num_levels) };
        let rows = rows.ok_or_else(|| ParquetError::General("a page without rows".to_owned()))?;
        if row - start < rows {
            return Ok(start..start + rows);
        }
        start += rows;
        pages.skip_next_page()?;
    }
    Err(ParquetError::EOF(format!("no row {row} in row group {group}")))
}

/// The pages that were read last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pages: Mutex<VecDeque<Arc<Page>>>,
}

impl Recent {
    /// The page that holds a row of a file, if it is here.
    pub(super) fn find(&self, file: usize, row: usize) -> Option<Arc<Page>> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.iter().find(|page| page.file == file && page.rows.contains(&row)).cloned()
    }

    /// Keeps a page, in place of the oldest ones.
    pub(super) fn keep(&self, page: Arc<Page>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have read it meanwhile.
        pages.retain(|other| other.file != page.file || other.rows != page.rows);
        pages.push_back(page);
        let mut bytes: usize = pages.iter().map(|page| page.bytes).sum();
        while bytes > MOST && pages.len() > 1 {
            bytes -= pages.pop_front().map_or(0, |page| page.bytes);
        }
    }
}
