//! Columns in, one block of ClickHouse's Native format out.
//!
//! Why not the client crate's own blocks: they cannot carry dictionaries, so the engine
//! would parse every repeated text of every row and look it up again. A batch knows
//! its texts by number already.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

/// A whole block.
#[derive(Clone, Debug)]
pub(super) struct NativeBlock {
    /// The names of its columns, for the statement.
    pub(super) columns: String,
    pub(super) bytes: Bytes,
}

/// A Native block that is being put together.
pub(super) struct Block {
    body: Vec<u8>,
    names: Vec<&'static str>,
    rows: usize,
}

/// Values of one column.
pub(super) trait Column {
    /// The type that the block states; the engine converts it if the table differs.
    fn data_type(&self) -> &str;
    /// How many values it has.
    fn len(&self) -> usize;
    /// Appends the values as Native has them.
    fn put(&self, out: &mut Vec<u8>);
}

impl Block {
    /// An empty block of `rows` rows, which takes about as many bytes.
    pub(super) fn new(rows: usize, bytes: usize) -> Self {
        // The number of columns is known in the end; up to 127 it takes one byte.
        let mut body = Vec::with_capacity(bytes);
        body.push(0);
        put_length(&mut body, rows);
        Self { body, names: Vec::new(), rows }
    }

    /// Adds a column.
    pub(super) fn column(mut self, name: &'static str, column: &impl Column) -> Self {
        assert_eq!(column.len(), self.rows, "column {name} has as many values as the block has rows");
        put_text(&mut self.body, name.as_bytes());
        put_text(&mut self.body, column.data_type().as_bytes());
        column.put(&mut self.body);
        self.names.push(name);
        self
    }

    /// All columns are there.
    pub(super) fn finish(self) -> NativeBlock {
        let Self { mut body, names, .. } = self;
        body[0] = u8::try_from(names.len()).ok().filter(|columns| *columns < 0x80).expect("a table has few columns");
        NativeBlock { columns: names.join(", "), bytes: body.into() }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Values of `N` bytes, little-endian.
pub(super) struct Numbers<const N: usize> {
    data_type: &'static str,
    bytes: Vec<u8>,
}

impl Numbers<8> {
    /// Milliseconds, as exact as they come: the engine takes the stored form as it is.
    pub(super) fn times(room: usize) -> Self {
        Self::new("DateTime64(3, 'UTC')", room)
    }
}

impl<const N: usize> Numbers<N> {
    /// None yet, with room for so many.
    pub(super) fn new(data_type: &'static str, room: usize) -> Self {
        Self { data_type, bytes: Vec::with_capacity(N * room) }
    }

    /// Adds a value by its little-endian bytes.
    #[inline]
    pub(super) fn push(&mut self, bytes: [u8; N]) {
        self.bytes.extend_from_slice(&bytes);
    }
}

impl<const N: usize> Column for Numbers<N> {
    fn data_type(&self) -> &str {
        self.data_type
    }

    fn len(&self) -> usize {
        self.bytes.len() / N
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// Texts or bytes that mostly differ.
#[derive(Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    values: usize,
}

impl Strings {
    /// None yet, with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { bytes: Vec::with_capacity(room), values: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        put_text(&mut self.bytes, bytes);
        self.values += 1;
    }
}

impl Column for Strings {
    fn data_type(&self) -> &'static str {
        "String"
    }

    fn len(&self) -> usize {
        self.values
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// Texts that repeat: each once, and its number per row.
pub(super) struct Dictionary<'a> {
    data_type: &'static str,
    numbers: HashMap<&'a str, u32, RandomState>,
    texts: Vec<&'a str>,
    rows: Vec<u32>,
    last: Option<(&'a str, u32)>,
}

/// Serialization of LowCardinality: dictionaries are sent with their blocks.
const DICTIONARY_VERSION: u64 = 1;
/// The block brings its own keys, and they are all of its dictionary.
const DICTIONARY_FLAGS: u64 = 0x600;

impl<'a> Dictionary<'a> {
    /// One without rows, with room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self::of_type("LowCardinality(String)", room)
    }

    /// One that takes absent texts too.
    pub(super) fn nullable(room: usize) -> Self {
        Self::of_type("LowCardinality(Nullable(String))", room)
    }

    fn of_type(data_type: &'static str, room: usize) -> Self {
        // Number 0 stands for the type's default: empty or absent.
        Self { data_type, numbers: HashMap::default(), texts: vec![""], rows: Vec::with_capacity(room), last: None }
    }

    #[inline]
    pub(super) fn push(&mut self, text: &'a str) {
        let number = match self.last {
            Some((last, number)) if last == text => number,
            _ => self.number(text),
        };
        self.last = Some((text, number));
        self.rows.push(number);
    }

    #[inline]
    pub(super) fn push_optional(&mut self, text: Option<&'a str>) {
        match text {
            Some(text) => self.push(text),
            None => self.rows.push(0),
        }
    }

    fn number(&mut self, text: &'a str) -> u32 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            u32::try_from(self.texts.len() - 1).expect("a batch has fewer texts than 32 bits count")
        })
    }
}

impl Column for Dictionary<'_> {
    fn data_type(&self) -> &str {
        self.data_type
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn put(&self, out: &mut Vec<u8>) {
        let width_code = match self.texts.len() {
            0..=0x100 => 0_u64,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        out.extend_from_slice(&DICTIONARY_VERSION.to_le_bytes());
        out.extend_from_slice(&(DICTIONARY_FLAGS | width_code).to_le_bytes());
        out.extend_from_slice(&(self.texts.len() as u64).to_le_bytes());
        self.texts.iter().for_each(|text| put_text(out, text.as_bytes()));
        out.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        let numbers = self.rows.iter().map(|number| number.to_le_bytes());
        match width_code {
            0 => out.extend(numbers.map(|[lowest, ..]| lowest)),
            1 => numbers.for_each(|[low, high, ..]| out.extend_from_slice(&[low, high])),
            _ => numbers.for_each(|bytes| out.extend_from_slice(&bytes)),
        }
    }
}
