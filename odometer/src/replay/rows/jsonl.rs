//! JSON lines in, rows out: one object a line. A field is a member's name, or a path
//! such as `$.usage.tokens`. Numbers keep the text that they have in the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use odometer_schemas::meter::path_steps;
use serde_json::value::RawValue;

use super::{BUFFER_BYTES, ROW_BYTES_MAX, Row, RowsError, row_error};
use crate::replay::map::Slot;

/// The rows of a file of JSON lines.
pub(in crate::replay) struct JsonlRows {
    input: BufReader<Box<dyn Read + Send>>,
    /// The member names that lead to each slot's value.
    paths: Vec<Vec<String>>,
    fields: Vec<String>,
    /// Whether any row had a value there.
    present: Vec<bool>,
    buffer: Vec<u8>,
    lines: u64,
    rows: u64,
}

/// The members of one object. Names may hold escapes, values are left as written.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl JsonlRows {
    pub(super) fn new(input: Box<dyn Read + Send>, fields: &[String]) -> Self {
        let path = |field: &String| match path_steps(field) {
            Some(steps) => steps.into_iter().map(str::to_owned).collect(),
            None => vec![field.clone()],
        };
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            paths: fields.iter().map(path).collect(),
            fields: fields.to_vec(),
            present: vec![false; fields.len()],
            buffer: Vec::new(),
            lines: 0,
            rows: 0,
        }
    }

    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, RowsError> {
        loop {
            self.buffer.clear();
            let limit = ROW_BYTES_MAX as u64 + 1;
            if self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(false);
            }
            self.lines += 1;
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        self.rows += 1;
        row.start(self.rows, self.lines, self.paths.len());
        if self.buffer.len() > ROW_BYTES_MAX {
            self.skip_line()?;
            return Err(row_error(row, "", format!("is longer than {ROW_BYTES_MAX} bytes")));
        }
        // A byte order mark may open the file.
        let bytes = self.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.buffer);
        let members: Members<'_> = serde_json::from_slice(bytes)
            .map_err(|error| row_error(row, "", format!("is not a JSON object: {error}")))?;
        for (slot, path) in self.paths.iter().enumerate() {
            let field = self.fields.get(slot).map_or("", String::as_str);
            let found = scalar_at(&members, path).map_err(|problem| row_error(row, field, problem))?;
            if let Some(text) = found {
                row.set(slot, &text);
                if let Some(present) = self.present.get_mut(slot) {
                    *present = true;
                }
            }
        }
        Ok(true)
    }

    pub(super) fn never_present(&self) -> Vec<Slot> {
        self.present.iter().enumerate().filter(|(_, present)| !**present).map(|(slot, _)| Slot(slot)).collect()
    }

    /// Reads up to the end of a line that is too long to keep.
    fn skip_line(&mut self) -> Result<(), RowsError> {
        if self.buffer.ends_with(b"\n") {
            return Ok(());
        }
        self.input.skip_until(b'\n')?;
        Ok(())
    }
}

/// The text of the scalar at `path`, empty for null; `None` when a member is missing.
fn scalar_at<'a>(members: &Members<'a>, path: &[String]) -> Result<Option<Cow<'a, str>>, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(None) };
    let Some(value) = members.get(first.as_str()) else { return Ok(None) };
    let text = value.get();
    match (text.as_bytes().first(), rest) {
        (Some(b'n'), _) => Ok(Some(Cow::Borrowed(""))),
        (Some(b'{'), [_, ..]) => {
            let inner: Members<'a> = serde_json::from_str(text).map_err(|error| format!("is broken: {error}"))?;
            scalar_at(&inner, rest)
        }
        (_, [next, ..]) => Err(format!("cannot be read: `{first}` has no members, so there is no `{next}` in it")),
        (Some(b'{' | b'['), []) => {
            Err("is an object or a list; name a member inside it with a path such as `$.usage.tokens`".into())
        }
        (Some(b'"'), []) => string(text).map(Some),
        (_, []) => Ok(Some(Cow::Borrowed(text))),
    }
}

/// A JSON string's text.
fn string(text: &str) -> Result<Cow<'_, str>, String> {
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str::<String>(text).map(Cow::Owned).map_err(|error| format!("is broken: {error}")),
    }
}
