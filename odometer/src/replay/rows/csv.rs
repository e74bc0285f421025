//! CSV in, rows out: with or without a header line, any line end, with or without a
//! final newline.

use std::io::{self, BufRead, BufReader, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{BUFFER_BYTES, ROW_BYTES_MAX, Row, RowsError, row_error};
use crate::replay::map::Layout;

/// Most cells of one row. Far above any table's; it bounds what an odd file costs.
const CELLS_MAX: usize = 16 * 1024;
/// Bytes and cells of a row for which there is room from the start.
const CELLS_BYTES_FIRST: usize = 4 * 1024;
const CELLS_FIRST: usize = 64;

/// The rows of a CSV file.
pub(in crate::replay) struct CsvRows {
    records: Records,
    /// The column of each slot.
    columns: Vec<usize>,
    fields: Vec<String>,
    /// Cells that every row must have.
    width: usize,
    rows: u64,
}

impl CsvRows {
    pub(super) fn new(input: Box<dyn Read + Send>, layout: &Layout, fields: &[String]) -> Result<Self, RowsError> {
        let mut records = Records::new(input, layout.delimiter);
        let header = match &layout.columns {
            Some(columns) => columns.clone(),
            None => header(&mut records)?,
        };
        let columns = fields.iter().map(|field| column_of(field, &header)).collect::<Result<_, _>>()?;
        Ok(Self { records, columns, fields: fields.to_vec(), width: header.len(), rows: 0 })
    }

    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, RowsError> {
        if !self.records.next()? {
            return Ok(false);
        }
        self.rows += 1;
        row.start(self.rows, self.records.line, self.columns.len());
        if self.records.width != self.width {
            let problem = format!("has {} cells where the file has {} columns", self.records.width, self.width);
            return Err(row_error(row, "", problem));
        }
        for (slot, column) in self.columns.iter().enumerate() {
            match str::from_utf8(self.records.cell(*column)) {
                Ok(text) => row.set(slot, text),
                Err(_) => {
                    let field = self.fields.get(slot).map_or("", String::as_str);
                    return Err(row_error(row, field, "is not valid UTF-8".into()));
                }
            }
        }
        Ok(true)
    }
}

fn header(records: &mut Records) -> Result<Vec<String>, RowsError> {
    if !records.next()? {
        return Err(RowsError::Header("is empty: it has not even a header line".into()));
    }
    Ok((0..records.width).map(|column| String::from_utf8_lossy(records.cell(column)).into_owned()).collect())
}

fn column_of(field: &str, header: &[String]) -> Result<usize, RowsError> {
    let mut columns = header.iter().enumerate().filter(|(_, name)| *name == field).map(|(column, _)| column);
    match (columns.next(), columns.next()) {
        (Some(column), None) => Ok(column),
        (None, _) => Err(RowsError::Header(format!(
            "has no column `{field}`; its columns are {}. Correct the map, or give it `columns` when the file has no \
             header line",
            header.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ))),
        (Some(_), Some(_)) => Err(RowsError::Header(format!(
            "has more than one column `{field}`; rename one, or give the map `columns` and remove the header line"
        ))),
    }
}

/// The records of a CSV file, header included, with the line that each starts on.
struct Records {
    input: BufReader<Box<dyn Read + Send>>,
    parser: Reader,
    /// The cells of the current record, one after another.
    cells: Vec<u8>,
    /// Where each cell ends.
    ends: Vec<usize>,
    /// How many cells there are.
    width: usize,
    /// The line that the current record starts on, from 1.
    line: u64,
    /// The line that is read next.
    next_line: u64,
}

impl Records {
    fn new(input: Box<dyn Read + Send>, delimiter: u8) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            cells: vec![0; CELLS_BYTES_FIRST],
            ends: vec![0; CELLS_FIRST],
            width: 0,
            line: 0,
            next_line: 1,
        }
    }

    /// The current record's cell.
    fn cell(&self, column: usize) -> &[u8] {
        let start = column.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(column).and_then(|end| self.cells.get(start..*end)).unwrap_or_default()
    }

    /// Reads the next record; `false` at the end.
    fn next(&mut self) -> io::Result<bool> {
        self.skip_line_ends()?;
        self.line = self.next_line;
        let (mut cells, mut width) = (0, 0);
        loop {
            // Nothing left to read tells the parser that the file is over.
            let input = self.input.fill_buf()?;
            let (room, ends) = (self.cells.get_mut(cells..), self.ends.get_mut(width..));
            let (result, read, written, ended) =
                self.parser.read_record(input, room.unwrap_or_default(), ends.unwrap_or_default());
            self.next_line += line_ends(input.get(..read).unwrap_or_default());
            self.input.consume(read);
            cells += written;
            width += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => grow(&mut self.cells, ROW_BYTES_MAX, "bytes; is a quote left open?")?,
                ReadRecordResult::OutputEndsFull => grow(&mut self.ends, CELLS_MAX, "cells")?,
                ReadRecordResult::Record => {
                    self.width = width;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Passes blank lines, and the second half of a CRLF whose first half ended the
    /// record before, so that the line number is that of the record.
    fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            let input = self.input.fill_buf()?;
            let skipped = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.next_line += line_ends(input.get(..skipped).unwrap_or_default());
            self.input.consume(skipped);
            if skipped == 0 {
                return Ok(());
            }
        }
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Doubles a buffer.
fn grow<T: Default + Clone>(buffer: &mut Vec<T>, most: usize, what: &str) -> io::Result<()> {
    if buffer.len() >= most {
        return Err(io::Error::other(format!("a row has more than {most} {what}")));
    }
    buffer.resize((buffer.len() * 2).min(most), T::default());
    Ok(())
}
