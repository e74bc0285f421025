//! A result row in, checked values out. A value that does not fit is named by table,
//! key and column; nothing is ever coerced.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Column, Decode, Row, Type};

use crate::error::BookError;

/// A table whose first `key_columns` selected columns are the key that errors name.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) key_columns: usize,
}

/// One result row of a table.
pub(super) struct Columns<'a> {
    pub(super) table: Table,
    pub(super) row: &'a PgRow,
}

impl<'a> Columns<'a> {
    fn value<T: Decode<'a, Postgres> + Type<Postgres>>(&self, index: usize) -> Result<T, BookError> {
        self.row.try_get(index).map_err(|e| self.corrupt(index, format!("cannot be read: {e}")))
    }

    pub(super) fn text(&self, index: usize) -> Result<&'a str, BookError> {
        self.value(index)
    }

    pub(super) fn bytes(&self, index: usize) -> Result<&'a [u8], BookError> {
        self.value(index)
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, BookError> {
        self.value(index)
    }

    /// An integer that must fit a narrower or unsigned type.
    pub(super) fn fitting<T: TryFrom<i64>>(&self, index: usize) -> Result<T, BookError> {
        let value = self.integer(index)?;
        T::try_from(value).map_err(|_| self.corrupt(index, format!("holds {value}, which is out of range")))
    }

    /// Text that must parse.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, index: usize) -> Result<T, BookError> {
        let text = self.text(index)?;
        text.parse().map_err(|e| self.corrupt(index, format!("holds {text:?}: {e}")))
    }

    /// Text that `read` must take.
    pub(super) fn read<T>(&self, index: usize, read: impl Fn(&str) -> Option<T>) -> Result<T, BookError> {
        let text = self.text(index)?;
        read(text).ok_or_else(|| self.corrupt(index, format!("holds {text:?}, which does not parse")))
    }

    pub(super) fn corrupt(&self, index: usize, problem: String) -> BookError {
        let column = self.row.columns().get(index).map_or("?", |column| column.name()).to_owned();
        BookError::Corrupt { table: self.table.name, key: self.key(), column, problem }
    }

    fn key(&self) -> String {
        let part = |index| {
            let integer = || self.row.try_get::<i64, _>(index).map(|value| value.to_string());
            let text = self.row.try_get::<&str, _>(index).map(str::to_owned);
            text.or_else(|_| integer()).unwrap_or_else(|_| "?".to_owned())
        };
        let parts: Vec<String> = (0..self.table.key_columns).map(part).collect();
        format!("({})", parts.join(", "))
    }
}
