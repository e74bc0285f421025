//! CSV in, rows out: with or without a header line, any line end, with or without a
//! final newline.

use std::io::{self, Read};

use ::csv::{ByteRecord, Reader, ReaderBuilder, Terminator};

use super::{BUFFER_BYTES, ROW_BYTES_MAX, Row, RowsError, row_error};
use crate::replay::map::Layout;

/// The rows of a CSV file.
pub(in crate::replay) struct CsvRows {
    reader: Reader<Metered<Box<dyn Read + Send>>>,
    record: ByteRecord,
    /// The column of each slot.
    columns: Vec<usize>,
    fields: Vec<String>,
    /// Cells that every row must have.
    width: usize,
    rows: u64,
}

impl CsvRows {
    pub(super) fn new(input: Box<dyn Read + Send>, layout: &Layout, fields: &[String]) -> Result<Self, RowsError> {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            // Rows of another width are reported with their number instead.
            .flexible(true)
            .delimiter(layout.delimiter)
            .terminator(Terminator::CRLF)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Metered { input, left: ROW_BYTES_MAX });
        let header = match &layout.columns {
            Some(columns) => columns.clone(),
            None => read_header(&mut reader)?,
        };
        let columns = fields.iter().map(|field| column_of(field, &header)).collect::<Result<_, _>>()?;
        Ok(Self { reader, record: ByteRecord::new(), columns, fields: fields.to_vec(), width: header.len(), rows: 0 })
    }

    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, RowsError> {
        if !read_record(&mut self.reader, &mut self.record)? {
            return Ok(false);
        }
        self.rows += 1;
        let line = self.record.position().map_or(0, ::csv::Position::line);
        row.start(self.rows, line, self.columns.len());
        if self.record.len() != self.width {
            let problem = format!("has {} cells where the file has {} columns", self.record.len(), self.width);
            return Err(row_error(row, "", problem));
        }
        for (slot, column) in self.columns.iter().enumerate() {
            let bytes = self.record.get(*column).unwrap_or_default();
            match str::from_utf8(bytes) {
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

fn read_header(reader: &mut Reader<Metered<Box<dyn Read + Send>>>) -> Result<Vec<String>, RowsError> {
    let mut record = ByteRecord::new();
    if !read_record(reader, &mut record)? {
        return Err(RowsError::Header("is empty: it has not even a header line".into()));
    }
    Ok(record.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
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

fn read_record(reader: &mut Reader<Metered<Box<dyn Read + Send>>>, record: &mut ByteRecord) -> Result<bool, RowsError> {
    // What is buffered already was paid for by the rows before.
    reader.get_mut().left = ROW_BYTES_MAX;
    reader.read_byte_record(record).map_err(|error| match error.into_kind() {
        ::csv::ErrorKind::Io(error) => RowsError::Read(error),
        other => RowsError::Read(io::Error::other(format!("{other:?}"))),
    })
}

/// Input that runs dry with an error when one row takes too much of it.
struct Metered<R> {
    input: R,
    left: usize,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!("a row is longer than {ROW_BYTES_MAX} bytes; is a quote left open?")));
        }
        let length = buffer.len().min(self.left);
        let bytes = self.input.read(buffer.get_mut(..length).unwrap_or_default())?;
        self.left -= bytes;
        Ok(bytes)
    }
}
