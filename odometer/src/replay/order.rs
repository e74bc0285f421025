//! The rows of a trace, pass after pass: straight from the file, or, where they are
//! due in another order than the file's, sorted in memory.

use odometer_schemas::time::TimeMs;

use super::convert::time_of;
use super::feed::Plan;
use super::map::Slot;
use super::rows::{Row, RowError, Rows, RowsError};

/// Memory that sorted rows may take, in bytes. Enough for several million rows; a
/// larger trace can be sorted once, outside.
const SORTED_BYTES_MAX: usize = 1 << 30;

/// The rows of all passes.
pub(super) struct Passes<'a> {
    plan: &'a Plan,
    row: Row,
    rows: Source,
}

enum Source {
    File(Option<Rows>),
    Sorted { rows: Vec<Result<Row, RowError>>, next: usize, never_present: Vec<Slot> },
}

impl<'a> Passes<'a> {
    /// Passes over the plan's trace, in the order of event times when `sorted`.
    ///
    /// # Errors
    /// When the file cannot be read, or is too large to be sorted in memory.
    pub(super) fn new(plan: &'a Plan, sorted: bool) -> Result<Self, RowsError> {
        let rows = if sorted { sort(plan)? } else { Source::File(None) };
        Ok(Self { plan, row: Row::default(), rows })
    }

    /// Starts the next pass.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn start(&mut self) -> Result<(), RowsError> {
        match &mut self.rows {
            Source::File(rows) => *rows = Some(self.plan.trace.rows(&self.plan.map.layout, &self.plan.map.fields)?),
            Source::Sorted { next, .. } => *next = 0,
        }
        Ok(())
    }

    /// The pass's next row; `None` at its end.
    pub(super) fn next(&mut self) -> Option<Result<&Row, RowsError>> {
        match &mut self.rows {
            Source::File(rows) => match rows.as_mut()?.next(&mut self.row) {
                Ok(true) => Some(Ok(&self.row)),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            },
            Source::Sorted { rows, next, .. } => {
                let row = rows.get(*next)?;
                *next += 1;
                Some(row.as_ref().map_err(|error| error.clone().into()))
            }
        }
    }

    /// Fields that no row of the pass had.
    pub(super) fn never_present(&self) -> Vec<Slot> {
        match &self.rows {
            Source::File(rows) => rows.as_ref().map(Rows::never_present).unwrap_or_default(),
            Source::Sorted { never_present, .. } => never_present.clone(),
        }
    }
}

fn sort(plan: &Plan) -> Result<Source, RowsError> {
    let mut rows = plan.trace.rows(&plan.map.layout, &plan.map.fields)?;
    let mut timed: Vec<(TimeMs, Result<Row, RowError>)> = Vec::new();
    let mut row = Row::default();
    let mut bytes = 0;
    // A row whose time is unknown stays behind the row before it.
    let mut time = TimeMs(i64::MIN);
    loop {
        let read = match rows.next(&mut row) {
            Ok(false) => break,
            Ok(true) => time_of(&plan.map, &row).map(|own| {
                time = own.unwrap_or(time);
                row.clone()
            }),
            Err(RowsError::Row(error)) => Err(error),
            Err(error) => return Err(error),
        };
        bytes += row.memory_bytes();
        if bytes > SORTED_BYTES_MAX {
            return Err(RowsError::Header(format!(
                "is not in the order of its times, and its rows take more than {SORTED_BYTES_MAX} bytes of memory to \
                 sort; sort the file by time, or use --speed max"
            )));
        }
        timed.push((time, read));
    }
    // Rows of one moment stay in the file's order.
    timed.sort_by_key(|(time, _)| *time);
    let never_present = rows.never_present();
    Ok(Source::Sorted { rows: timed.into_iter().map(|(_, row)| row).collect(), next: 0, never_present })
}
