//! A trace file in, rows of the map's fields out: one after the other, compressed or
//! not, in bounded memory. Knows nothing of what a row means.

mod csv;
mod jsonl;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::map::{Format, Layout, Slot};

/// Longest row, in bytes. Far above any trace's; it keeps a quote that is never
/// closed from taking the whole file into memory.
pub(super) const ROW_BYTES_MAX: usize = 1 << 20;
/// Read buffer before and after inflating: large enough that system calls vanish.
const BUFFER_BYTES: usize = 128 * 1024;

/// One row: the texts of the map's fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number, from 1. Header and blank lines are no rows.
    pub(super) number: u64,
    /// The line that it starts on, from 1.
    pub(super) line: u64,
    text: String,
    cells: Vec<Range<usize>>,
}

impl Row {
    /// The field's text: empty when the row has none.
    pub(super) fn cell(&self, slot: Slot) -> &str {
        self.cells.get(slot.0).and_then(|range| self.text.get(range.clone())).unwrap_or_default()
    }

    /// Bytes of memory that the row takes, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.cells.len() * size_of::<Range<usize>>()
    }

    fn start(&mut self, number: u64, line: u64, slots: usize) {
        self.number = number;
        self.line = line;
        self.text.clear();
        self.cells.clear();
        self.cells.resize(slots, 0..0);
    }

    fn set(&mut self, slot: usize, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        if let Some(cell) = self.cells.get_mut(slot) {
            *cell = start..self.text.len();
        }
    }
}

/// One row that makes no sense; the rows after it can still be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row} (line {line}): {}{problem}", if field.is_empty() { String::new() } else { format!("field `{field}` ") })]
pub(super) struct RowError {
    /// The row's number.
    pub(super) row: u64,
    /// The line that it starts on.
    pub(super) line: u64,
    /// The field, when it is one's fault.
    pub(super) field: String,
    /// What is wrong and what would be right.
    pub(super) problem: String,
}

/// Why reading cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    /// This row only.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The file does not have what the map uses.
    #[error("{0}")]
    Header(String),
    /// The file cannot be read.
    #[error("cannot be read")]
    Read(#[from] io::Error),
}

/// A trace file and how it is laid out: opened once per pass.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    /// Bytes of the file, as it is stored.
    pub(super) file_bytes: u64,
    /// Bytes of the file that all passes together have read.
    pub(super) read_bytes: Arc<AtomicU64>,
}

/// The rows of one pass.
pub(super) enum Rows {
    /// Comma-separated values.
    Csv(Box<csv::CsvRows>),
    /// JSON lines.
    Jsonl(Box<jsonl::JsonlRows>),
}

impl Trace {
    /// Looks at the file.
    ///
    /// # Errors
    /// When there is no such file.
    pub(super) fn find(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(Self { path: path.into(), file_bytes: metadata.len(), read_bytes: Arc::default() })
    }

    /// Starts at the first row.
    ///
    /// # Errors
    /// When the file cannot be read, or has no column that the map uses.
    pub(super) fn rows(&self, layout: &Layout, fields: &[String]) -> Result<Rows, RowsError> {
        let input = self.inflated()?;
        Ok(match layout.format {
            Format::Csv => Rows::Csv(Box::new(csv::CsvRows::new(input, layout, fields)?)),
            Format::Jsonl => Rows::Jsonl(Box::new(jsonl::JsonlRows::new(input, fields))),
        })
    }

    /// The file's bytes, inflated as its name says.
    fn inflated(&self) -> io::Result<Box<dyn Read + Send>> {
        let file = Counted { file: File::open(&self.path)?, read_bytes: Arc::clone(&self.read_bytes) };
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let extension = self.path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        Ok(match extension {
            "zst" | "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
            "gz" => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            _ => Box::new(file),
        })
    }
}

impl Rows {
    /// Reads the next row into `row`; `false` at the end.
    ///
    /// # Errors
    /// After [`RowsError::Row`] the next call reads on.
    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, RowsError> {
        match self {
            Self::Csv(rows) => rows.next(row),
            Self::Jsonl(rows) => rows.next(row),
        }
    }

    /// Fields that no row so far has had. CSV has checked them against its header.
    pub(super) fn never_present(&self) -> Vec<Slot> {
        match self {
            Self::Csv(_) => Vec::new(),
            Self::Jsonl(rows) => rows.never_present(),
        }
    }
}

/// A file that counts what is read from it.
struct Counted {
    file: File,
    read_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        // A progress display reads it; nothing depends on its order.
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// What is wrong with a row as a whole.
fn row_error(row: &Row, field: &str, problem: String) -> RowsError {
    RowsError::Row(RowError { row: row.number, line: row.line, field: field.into(), problem })
}
