//! Reads the body's bytes: bincode 2's standard configuration (little-endian
//! varints), by hand, because decoding is on the hot path of every record. A
//! differential test holds it against bincode itself.

use super::plain;
use super::wire::{WireId, WireRecord, WireScope, WireTables};
use crate::limits::{DIMENSIONS_MAX, ENVELOPE_BYTES_MAX, ENVELOPE_RECORDS_MAX, ENVELOPE_STRINGS_MAX, SOURCE_BYTES_MAX};

/// First bytes that announce a wider integer; smaller ones are the value itself.
const U16_FOLLOWS: u8 = 251;
const U32_FOLLOWS: u8 = 252;
const U64_FOLLOWS: u8 = 253;

/// Walks over a body. `None` means that the bytes are no such thing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether every text so far was neither empty nor anything but printable ASCII.
    is_plain: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, is_plain: true }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether every text so far was printable ASCII and not empty: such a text needs no
    /// check but that of its length.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(super) fn tables(&mut self) -> Option<WireTables<'a>> {
        let strings = self.list(ENVELOPE_STRINGS_MAX, Self::text)?;
        let scopes = self.list(ENVELOPE_RECORDS_MAX, Self::scope)?;
        let pair = |reader: &mut Self| Some((reader.u16()?, reader.u16()?));
        let dimensions = self.list(ENVELOPE_RECORDS_MAX, |reader| reader.list(DIMENSIONS_MAX, pair))?;
        Some(WireTables { strings, scopes, dimensions, base_time_ms: self.i64()? })
    }

    #[inline]
    pub(super) fn record(&mut self) -> Option<WireRecord<'a>> {
        Some(WireRecord {
            scope: self.u16()?,
            id: self.id()?,
            quantity: self.i64()?,
            time: self.optional_i64()?,
            subject: self.u16()?,
            dimensions: self.u16()?,
            reservation: self.u16()?,
        })
    }

    fn scope(&mut self) -> Option<WireScope> {
        Some(WireScope { tenant: self.u16()?, source: self.u16()?, meter: self.u16()? })
    }

    #[inline]
    fn id(&mut self) -> Option<WireId<'a>> {
        match self.u64()? {
            0 => self.text().map(WireId::Text),
            1 => self.array().map(WireId::Uuid),
            2 => Some(WireId::Emitted),
            _ => None,
        }
    }

    #[inline]
    fn optional_i64(&mut self) -> Option<Option<i64>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.i64().map(Some),
            _ => None,
        }
    }

    /// A counted list. The capacity is bounded by the bytes that are there: an item
    /// takes at least one.
    fn list<T>(&mut self, items_max: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.u64()?).ok()?;
        if count > items_max.min(self.rest.len()) {
            return None;
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u64()?).ok()?;
        // Nothing in an envelope is longer; the kinds' own limits are checked later.
        if length > SOURCE_BYTES_MAX {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        if let Some(text) = plain::text(bytes) {
            return Some(text);
        }
        self.is_plain = false;
        std::str::from_utf8(bytes).ok()
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        match self.byte()? {
            small if small < U16_FOLLOWS => Some(u16::from(small)),
            U16_FOLLOWS => self.array().map(u16::from_le_bytes),
            _ => None,
        }
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        match self.byte()? {
            small if small < U16_FOLLOWS => Some(u64::from(small)),
            U16_FOLLOWS => self.array().map(u16::from_le_bytes).map(u64::from),
            U32_FOLLOWS => self.array().map(u32::from_le_bytes).map(u64::from),
            U64_FOLLOWS => self.array().map(u64::from_le_bytes),
            _ => None,
        }
    }

    /// Zigzag: the sign in the lowest bit.
    #[inline]
    fn i64(&mut self) -> Option<i64> {
        let zigzag = self.u64()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }
}

const _: () = assert!(ENVELOPE_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use bincode::BorrowDecode;
    use bincode::de::DecoderImpl;
    use bincode::de::read::SliceReader;
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::wire::CONFIG;

    fn by_bincode(bytes: &[u8]) -> (Option<WireTables<'_>>, Option<WireRecord<'_>>) {
        let mut tables = DecoderImpl::new(SliceReader::new(bytes), CONFIG, ());
        let mut record = DecoderImpl::new(SliceReader::new(bytes), CONFIG, ());
        (WireTables::borrow_decode(&mut tables).ok(), WireRecord::borrow_decode(&mut record).ok())
    }

    proptest! {
        /// What bincode wrote is read as it was meant.
        #[test]
        fn encoded_values_read_back(
            scope: u16, text in ".{0,60}", uuid: [u8; 16], quantity: i64, time: Option<i64>, subject: u16,
        ) {
            for id in [WireId::Text(&text), WireId::Uuid(uuid), WireId::Emitted] {
                let record = WireRecord { scope, id, quantity, time, subject, dimensions: scope, reservation: subject };
                let bytes = bincode::encode_to_vec(record, CONFIG).unwrap();
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(reader.record(), Some(record));
                prop_assert!(reader.is_at_end());
            }
        }

        /// Whatever is read from arbitrary bytes, bincode reads the same.
        #[test]
        fn nothing_is_read_that_bincode_would_not(bytes in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..120)) {
            let (tables, record) = by_bincode(&bytes);
            if let Some(read) = Reader::new(&bytes).tables() {
                prop_assert_eq!(Some(read), tables);
            }
            if let Some(read) = Reader::new(&bytes).record() {
                prop_assert_eq!(Some(read), record);
            }
        }
    }
}
