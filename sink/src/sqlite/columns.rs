//! A result row in, checked values out. A value that does not fit is named by
//! table, key and column; nothing is ever coerced.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::error::BookError;

/// One result row whose first `key_columns` columns are the key that errors name.
pub(crate) struct Columns<'a> {
    pub(crate) table: &'static str,
    pub(crate) key_columns: usize,
    pub(crate) row: &'a Row<'a>,
}

impl<'a> Columns<'a> {
    pub(crate) fn value(&self, index: usize) -> Result<ValueRef<'a>, BookError> {
        self.row.get_ref(index).map_err(|e| self.corrupt(index, format!("cannot be read: {e}")))
    }

    pub(crate) fn text(&self, index: usize) -> Result<&'a str, BookError> {
        match self.value(index)? {
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| self.corrupt(index, "is not UTF-8".to_owned()))
            }
            other => Err(self.corrupt(index, format!("is {}, not text", other.data_type()))),
        }
    }

    pub(crate) fn optional_text(&self, index: usize) -> Result<Option<&'a str>, BookError> {
        if self.value(index)? == ValueRef::Null { Ok(None) } else { self.text(index).map(Some) }
    }

    pub(crate) fn blob(&self, index: usize) -> Result<&'a [u8], BookError> {
        match self.value(index)? {
            ValueRef::Blob(bytes) => Ok(bytes),
            other => Err(self.corrupt(index, format!("is {}, not a blob", other.data_type()))),
        }
    }

    pub(crate) fn integer(&self, index: usize) -> Result<i64, BookError> {
        match self.value(index)? {
            ValueRef::Integer(value) => Ok(value),
            other => Err(self.corrupt(index, format!("is {}, not an integer", other.data_type()))),
        }
    }

    /// An integer that must fit a narrower or unsigned type.
    pub(crate) fn fitting<T: TryFrom<i64>>(&self, index: usize) -> Result<T, BookError> {
        let value = self.integer(index)?;
        T::try_from(value).map_err(|_| self.corrupt(index, format!("holds {value}, which is out of range")))
    }

    /// Text that must parse.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, index: usize) -> Result<T, BookError> {
        let text = self.text(index)?;
        text.parse().map_err(|e| self.corrupt(index, format!("holds {text:?}: {e}")))
    }

    /// Text that `read` must take.
    pub(crate) fn read<T>(&self, index: usize, read: impl Fn(&str) -> Option<T>) -> Result<T, BookError> {
        let text = self.text(index)?;
        read(text).ok_or_else(|| self.corrupt(index, format!("holds {text:?}, which does not parse")))
    }

    pub(crate) fn corrupt(&self, index: usize, problem: String) -> BookError {
        let column = self.row.as_ref().column_name(index).unwrap_or("?").to_owned();
        BookError::Corrupt { table: self.table, key: self.key(), column, problem }
    }

    fn key(&self) -> String {
        let part = |index| match self.row.get_ref(index) {
            Ok(ValueRef::Integer(value)) => value.to_string(),
            Ok(ValueRef::Text(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => "?".to_owned(),
        };
        let parts: Vec<String> = (0..self.key_columns).map(part).collect();
        format!("({})", parts.join(", "))
    }
}
