//! Files as they come: line ends, quotes, compression, and rows that make no sense.

use std::io::Write;
use std::path::PathBuf;

use super::{ROW_BYTES_MAX, Row, RowsError, Trace};
use crate::replay::map::{Format, Layout, Slot};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn csv() -> Layout {
    Layout { format: Format::Csv, columns: None, delimiter: b',' }
}

fn jsonl() -> Layout {
    Layout { format: Format::Jsonl, columns: None, delimiter: b',' }
}

/// Every row as `number:line:a|b`, or its error.
fn read(path: &std::path::Path, layout: &Layout, fields: &[&str]) -> Vec<String> {
    let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
    let trace = Trace::find(path).unwrap();
    let mut rows = match trace.rows(layout, &fields) {
        Ok(rows) => rows,
        Err(error) => return vec![error.to_string()],
    };
    let mut row = Row::default();
    let mut read = Vec::new();
    loop {
        match rows.next(&mut row) {
            Ok(true) => {
                let cells: Vec<&str> = (0..fields.len()).map(|slot| row.cell(Slot(slot))).collect();
                read.push(format!("{}:{}:{}", row.number, row.line, cells.join("|")));
            }
            Ok(false) => return read,
            Err(RowsError::Row(error)) => read.push(error.to_string()),
            Err(error) => {
                read.push(format!("{:#}", anyhow::Error::from(error)));
                return read;
            }
        }
    }
}

#[test]
fn csv_is_read_whatever_its_line_ends_and_quotes() {
    let files = Files::new();
    let cases: [(&[u8], &[&str]); 8] = [
        (b"b,a\r\n2,1\r\n4,3", &["1:2:1|2", "2:3:3|4"]),
        (b"a,b\n1,2\n", &["1:2:1|2"]),
        (b"\xef\xbb\xbfa,b\n1,2\n", &["1:2:1|2"]),
        (b"a,b\n\n\n1,2\n\n", &["1:4:1|2"]),
        (b"a,b\n\"x, \"\"y\"\"\nz\",\n1,2", &["1:2:x, \"y\"\nz|", "2:4:1|2"]),
        (
            b"a,b\n1\n1,2,3\n1,2",
            &[
                "row 1 (line 2): has 1 cells where the file has 2 columns",
                "row 2 (line 3): has 3 cells where the file has 2 columns",
                "3:4:1|2",
            ],
        ),
        (b"a,b\n\xff,2\n1,2", &["row 1 (line 2): field `a` is not valid UTF-8", "2:3:1|2"]),
        (b"a,b\n", &[]),
    ];
    for (bytes, expected) in cases {
        let path = files.write("t.csv", bytes);
        assert_eq!(read(&path, &csv(), &["a", "b"]), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_header_that_lacks_a_column_is_an_error_with_its_names() {
    let files = Files::new();
    let path = files.write("t.csv", b"a,b\n1,2\n");
    assert!(read(&path, &csv(), &["c"])[0].starts_with("has no column `c`; its columns are `a`, `b`. Correct the map"));
    let path = files.write("t.csv", b"a,a\n1,2\n");
    assert!(read(&path, &csv(), &["a"])[0].starts_with("has more than one column `a`"));
    let path = files.write("t.csv", b"");
    assert!(read(&path, &csv(), &["a"])[0].starts_with("is empty"));
}

#[test]
fn a_csv_file_may_have_no_header_and_another_delimiter() {
    let files = Files::new();
    let path = files.write("t.csv", b"1;2\n3;4");
    let layout = Layout { format: Format::Csv, columns: Some(vec!["a".into(), "b".into()]), delimiter: b';' };
    assert_eq!(read(&path, &layout, &["b"]), ["1:1:2", "2:2:4"]);
}

#[test]
fn an_open_quote_does_not_take_the_file_into_memory() {
    let files = Files::new();
    let mut bytes = b"a\n\"".to_vec();
    bytes.resize(4 * ROW_BYTES_MAX, b'x');
    let path = files.write("t.csv", &bytes);
    let read = read(&path, &csv(), &["a"]);
    assert_eq!(read.len(), 1);
    assert!(read[0].contains("is a quote left open?"), "{}", read[0]);
}

#[test]
fn json_lines_keep_numbers_as_they_are_written() {
    let files = Files::new();
    let cases: [(&str, &str); 12] = [
        (r#"{"a": 12345678901234567890.10, "u": {"b": "x"}}"#, "1:1:12345678901234567890.10|x"),
        (r#"{"a": "q\"\u00e4\n", "u": {"b": true}}"#, "1:1:q\"ä\n|true"),
        (r#"{"a": null, "u": {}}"#, "1:1:|"),
        (r#"{"u": null}"#, "1:1:|"),
        (r#"{"\u0061": 1}"#, "1:1:1|"),
        (
            r#"{"a": 1, "u": 5}"#,
            "row 1 (line 1): field `$.u.b` cannot be read: `u` has no members, so there is no `b` in it",
        ),
        (
            r#"{"a": [1]}"#,
            "row 1 (line 1): field `a` is an object or a list; name a member inside it with a path such as `$.usage.tokens`",
        ),
        (
            r#"{"u": {"b": {}}}"#,
            "row 1 (line 1): field `$.u.b` is an object or a list; name a member inside it with a path such as `$.usage.tokens`",
        ),
        ("[1]", "row 1 (line 1): is not a JSON object: "),
        ("{\"a\": 1} x", "row 1 (line 1): is not a JSON object: "),
        ("nonsense", "row 1 (line 1): is not a JSON object: "),
        ("{\"a\": \"\\ud800\"}", "row 1 (line 1): field `a` is broken: "),
    ];
    for (text, expected) in cases {
        let path = files.write("t.jsonl", text.as_bytes());
        let read = read(&path, &jsonl(), &["a", "$.u.b"]);
        assert!(read.len() == 1 && read[0].starts_with(expected), "{text}\n{read:?}\n{expected}");
    }
    let path = files.write("t.jsonl", b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"a\":\xff}\n{\"a\":3}");
    let read = read(&path, &jsonl(), &["a"]);
    assert_eq!((read.len(), read[0].as_str(), read[2].as_str()), (3, "1:1:1", "3:5:3"), "{read:?}");
    assert!(read[1].starts_with("row 2 (line 4): "), "{read:?}");
}

#[test]
fn a_line_that_is_too_long_is_one_bad_row() {
    let files = Files::new();
    let mut bytes = b"{\"a\":\"".to_vec();
    bytes.resize(3 * ROW_BYTES_MAX, b'x');
    bytes.extend_from_slice(b"\"}\n{\"a\":2}\n");
    let path = files.write("t.jsonl", &bytes);
    let read = read(&path, &jsonl(), &["a"]);
    assert_eq!(read, [format!("row 1 (line 1): is longer than {ROW_BYTES_MAX} bytes"), "2:2:2".into()]);
}

#[test]
fn fields_that_no_row_has_are_known() {
    let files = Files::new();
    let path = files.write("t.jsonl", b"{\"a\":1,\"b\":null}\n");
    let trace = Trace::find(&path).unwrap();
    let mut rows = trace.rows(&jsonl(), &["a".into(), "b".into(), "c".into()]).unwrap();
    let mut row = Row::default();
    while rows.next(&mut row).unwrap() {}
    assert_eq!(rows.never_present(), [Slot(2)]);
}

#[test]
fn files_are_inflated_as_their_names_say() {
    let files = Files::new();
    let text = b"a\n1\n2\n";
    let zst = files.write("t.csv.zst", &zstd::bulk::compress(text, 3).unwrap());
    let mut gz = Vec::new();
    // Two members, as `cat a.gz b.gz` makes them.
    for part in [&text[..4], &text[4..]] {
        let mut encoder = flate2::write::GzEncoder::new(&mut gz, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    let gz = files.write("t.csv.gz", &gz);
    for path in [&zst, &gz] {
        assert_eq!(read(path, &csv(), &["a"]), ["1:2:1", "2:3:2"]);
    }
    let mut cut = std::fs::read(&zst).unwrap();
    cut.truncate(cut.len() - 2);
    let cut = files.write("cut.csv.zst", &cut);
    assert!(read(&cut, &csv(), &["a"]).last().unwrap().starts_with("cannot be read: "));
    assert!(Trace::find(&files.0.path().join("none")).is_err());
    assert!(Trace::find(files.0.path()).is_err());
}
