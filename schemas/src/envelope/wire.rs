//! The body's layout. Changing anything here is a new codec number.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};

use crate::limits::DECODE_BYTES_MAX;

pub(super) const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_BYTES_MAX>> =
    config::standard().with_limit::<DECODE_BYTES_MAX>();

/// First bytes that announce a wider integer; smaller ones are the value itself.
pub(super) const U16_FOLLOWS: u8 = 251;
pub(super) const U32_FOLLOWS: u8 = 252;
pub(super) const U64_FOLLOWS: u8 = 253;
/// A number's bytes at most: what announces its width, and the number.
pub(super) const NUMBER_BYTES_MAX: usize = 1 + size_of::<u64>();
pub(super) const SHORT_BYTES_MAX: usize = 1 + size_of::<u16>();

/// An index into the string table plus one; zero is absence.
pub(super) type OptionalString = u16;

/// Everything that several records can share stands once, in a table.
#[derive(Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub(super) struct WireTables<'a> {
    pub(super) strings: Vec<&'a str>,
    pub(super) scopes: Vec<WireScope>,
    /// Sets of (name, value) indices, ascending by name.
    pub(super) dimensions: Vec<Vec<(u16, u16)>>,
    /// What the records' times are relative to, Unix milliseconds.
    pub(super) base_time_ms: i64,
}

/// String indices of what a key shares with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub(super) struct WireScope {
    pub(super) tenant: u16,
    pub(super) source: u16,
    pub(super) meter: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub(super) struct WireRecord<'a> {
    pub(super) scope: u16,
    pub(super) id: WireId<'a>,
    pub(super) quantity: i64,
    /// Offset from the base time; none when the log's time stands in.
    pub(super) time: Option<i64>,
    pub(super) subject: OptionalString,
    /// Index into the dimension sets plus one; zero is none.
    pub(super) dimensions: u16,
    pub(super) reservation: OptionalString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub(super) enum WireId<'a> {
    Text(&'a str),
    Uuid([u8; 16]),
    Emitted,
}
