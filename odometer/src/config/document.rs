//! A TOML file on its way to a checked type: text in, typed values out, and every
//! error with its file, line, key and fix. Knows no particular configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Largest file that is read, in bytes. Far above any configuration, far below what
/// a wrong path such as a trace could cost.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A parsed file, with values from elsewhere laid over it.
#[derive(Debug)]
pub(crate) struct Document {
    name: String,
    text: String,
    table: Table,
    /// Dotted key to where its value came from instead of the file.
    overlaid: BTreeMap<String, String>,
}

/// What is wrong, where, and how to put it right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct DocumentError {
    /// The file, or the flag or environment variable that the value came from.
    pub(crate) origin: String,
    /// The line in the file, from 1.
    pub(crate) line: Option<usize>,
    /// The dotted key, `meter[2].scale`; empty when the file as a whole is wrong.
    pub(crate) key: String,
    /// What is wrong and what would be right.
    pub(crate) problem: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl Document {
    /// A document without a file: every key is absent.
    pub(crate) fn empty() -> Self {
        Self { name: "defaults".into(), text: String::new(), table: Table::new(), overlaid: BTreeMap::new() }
    }

    /// Reads and parses `file`.
    ///
    /// # Errors
    /// When it cannot be read, is larger than a mebibyte, or is not TOML.
    pub(crate) fn read(file: &Path) -> Result<Self, DocumentError> {
        let name = file.display().to_string();
        let fail = |problem: String| DocumentError { origin: name.clone(), line: None, key: String::new(), problem };
        let bytes = std::fs::metadata(file).map_err(|e| fail(format!("cannot be read: {e}")))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(fail(format!("has {bytes} bytes; a TOML file here has at most {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(file).map_err(|e| fail(format!("cannot be read: {e}")))?;
        Self::parse(&name, text)
    }

    /// Parses `text`, called `name` in errors.
    ///
    /// # Errors
    /// When it is not TOML, with the line.
    pub(crate) fn parse(name: &str, text: String) -> Result<Self, DocumentError> {
        match text.parse::<Table>() {
            Ok(table) => Ok(Self { name: name.into(), text, table, overlaid: BTreeMap::new() }),
            Err(error) => Err(DocumentError {
                origin: name.into(),
                line: error.span().map(|span| line_at(&text, span.start)),
                key: String::new(),
                problem: format!("is not valid TOML: {}", error.message()),
            }),
        }
    }

    /// Sets the dotted `key` to a value that comes from `origin` and wins over the
    /// file's.
    pub(crate) fn overlay(&mut self, key: &str, value: Value, origin: String) {
        let mut table = &mut self.table;
        let mut steps = key.split('.').peekable();
        while let Some(step) = steps.next() {
            if steps.peek().is_none() {
                table.insert(step.into(), value);
                self.overlaid.insert(key.into(), origin);
                return;
            }
            let next = table.entry(step).or_insert_with(|| Value::Table(Table::new()));
            // A scalar where a section belongs is reported when the file is typed.
            let Value::Table(next) = next else { return };
            table = next;
        }
    }

    /// Where the value of `key` comes from: `default`, `file`, a flag or a variable.
    pub(crate) fn origin_of(&self, key: &str) -> &str {
        if let Some(origin) = self.overlaid.get(key) {
            return origin;
        }
        let mut value = None;
        for step in key.split('.') {
            let table = value.map_or(Some(&self.table), Value::as_table);
            value = table.and_then(|table| table.get(step));
            if value.is_none() {
                return "default";
            }
        }
        "file"
    }

    /// The document as `T`.
    ///
    /// # Errors
    /// Names the key whose value is missing, unknown or of the wrong type.
    pub(crate) fn get<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        serde_path_to_error::deserialize(Value::Table(self.table.clone())).map_err(|error| {
            let path = error.path().to_string();
            let key = if path == "." { String::new() } else { path };
            self.wrong(&key, error.inner().message())
        })
    }

    /// The error that says what is wrong with the value of `key`.
    pub(crate) fn wrong(&self, key: &str, problem: &str) -> DocumentError {
        let problem = problem.trim_end().to_owned();
        match self.overlaid.get(key) {
            Some(origin) => DocumentError { origin: origin.clone(), line: None, key: key.into(), problem },
            None => {
                let line = self.line_of(key);
                DocumentError { origin: self.name.clone(), line, key: key.into(), problem }
            }
        }
    }

    /// The line of `key`, or of the innermost section around it that is there.
    fn line_of(&self, key: &str) -> Option<usize> {
        let root = DeTable::parse(&self.text).ok()?;
        let mut line = None;
        let mut table = root.get_ref();
        let mut list: &[Spanned<DeValue<'_>>] = &[];
        for step in key.split(['.', '[']) {
            let value = match step.strip_suffix(']') {
                Some(index) => index.parse().ok().and_then(|index: usize| list.get(index)),
                None => table.iter().find(|(name, _)| name.get_ref() == step).map(|(name, value)| {
                    line = Some(line_at(&self.text, name.span().start));
                    value
                }),
            };
            let Some(value) = value else { break };
            match value.get_ref() {
                DeValue::Table(next) => {
                    if step.ends_with(']') {
                        line = Some(line_at(&self.text, value.span().start));
                    }
                    table = next;
                }
                DeValue::Array(next) => list = next,
                _ => break,
            }
        }
        line
    }
}

/// The line, from 1, that holds byte `at`.
fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors are looked at")]
    struct Root {
        server: Option<Section>,
        #[serde(default)]
        meter: Vec<Section>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        port: u16,
    }

    fn error_of(text: &str) -> String {
        let document = Document::parse("x.toml", text.into());
        document.and_then(|d| d.get::<Root>()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let cases = [
            ("[server]\nport = \n", "x.toml:2: is not valid TOML: "),
            ("[server]\nport = 'a'\n", "x.toml:2: `server.port` invalid type: string \"a\""),
            ("\n[server]\nport = 1\nprot = 2\n", "x.toml:4: `server.prot` unknown field `prot`, expected `port`"),
            ("[server]\n", "x.toml:1: `server` missing field `port`"),
            ("[[meter]]\nport = 1\n[[meter]]\nport = 70000\n", "x.toml:4: `meter[1].port` invalid value"),
            ("sever = 1", "x.toml:1: `sever` unknown field `sever`"),
        ];
        for (text, expected) in cases {
            let error = error_of(text);
            assert!(error.starts_with(expected), "{error}\nshould start with\n{expected}");
        }
    }

    #[test]
    fn what_is_laid_over_wins_and_is_named() {
        let mut document = Document::parse("x.toml", "[server]\nport = 1\n".into()).unwrap();
        assert_eq!(document.origin_of("server.port"), "file");
        assert_eq!(document.origin_of("server.host"), "default");
        document.overlay("server.port", Value::Integer(2), "environment variable PORT".into());
        assert_eq!(document.origin_of("server.port"), "environment variable PORT");
        assert_eq!(document.get::<Root>().unwrap().server.unwrap().port, 2);
        document.overlay("server.port", Value::Integer(-2), "environment variable PORT".into());
        let error = document.get::<Root>().unwrap_err().to_string();
        assert!(error.starts_with("environment variable PORT: `server.port` invalid value"), "{error}");
    }
}
