//! Reads the body's bytes: bincode 2's standard configuration (little-endian
//! varints), by hand, because decoding is on the hot path of every record. A
//! differential test holds it against bincode itself.

use super::plain;
use super::wire::{
    NUMBER_BYTES_MAX, SHORT_BYTES_MAX, U16_FOLLOWS, U32_FOLLOWS, U64_FOLLOWS, WireId, WireRecord, WireScope, WireTables,
};
use crate::limits::{DIMENSIONS_MAX, ENVELOPE_BYTES_MAX, ENVELOPE_RECORDS_MAX, ENVELOPE_STRINGS_MAX, SOURCE_BYTES_MAX};

/// Bytes that are looked at together. Nothing that is read at once is longer: the
/// longest are an id's head with its UUID, and the numbers of a record after its id.
const WINDOW: usize = 32;
const UUID_BYTES: usize = 16;

const _: () = assert!(SHORT_BYTES_MAX + NUMBER_BYTES_MAX + UUID_BYTES <= WINDOW);
const _: () = assert!(NUMBER_BYTES_MAX + 1 + NUMBER_BYTES_MAX + 3 * SHORT_BYTES_MAX <= WINDOW);

/// Walks over a body. `None` means that the bytes are no such thing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether every text so far was neither empty nor anything but printable ASCII.
    is_plain: bool,
}

/// The next bytes, zeros where there are no more; whoever reads too far learns it when
/// the window is left.
struct Window<'w> {
    bytes: &'w [u8; WINDOW],
    at: usize,
}

/// What of an id stands before its text, or instead of one.
enum IdHead {
    Text { bytes: u64 },
    Uuid([u8; UUID_BYTES]),
    Emitted,
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
        let scopes = self.list(ENVELOPE_RECORDS_MAX, |reader| reader.through(|window| window.scope()))?;
        let pair = |reader: &mut Self| reader.through(|window| Some((window.short()?, window.short()?)));
        let dimensions = self.list(ENVELOPE_RECORDS_MAX, |reader| reader.list(DIMENSIONS_MAX, pair))?;
        Some(WireTables { strings, scopes, dimensions, base_time_ms: self.through(|window| window.signed())? })
    }

    #[inline]
    pub(super) fn record(&mut self) -> Option<WireRecord<'a>> {
        let (scope, head) = self.through(|window| Some((window.short()?, window.id_head()?)))?;
        let id = match head {
            IdHead::Uuid(uuid) => WireId::Uuid(uuid),
            IdHead::Emitted => WireId::Emitted,
            IdHead::Text { bytes } => WireId::Text(self.text_of(bytes)?),
        };
        self.through(|window| {
            Some(WireRecord {
                scope,
                id,
                quantity: window.signed()?,
                time: window.optional()?,
                subject: window.short()?,
                dimensions: window.short()?,
                reservation: window.short()?,
            })
        })
    }

    /// A counted list. The capacity is bounded by the bytes that are there: an item
    /// takes at least one.
    fn list<T>(&mut self, items_max: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.through(|window| window.number())?).ok()?;
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
        let bytes = self.through(|window| window.number())?;
        self.text_of(bytes)
    }

    #[inline]
    fn text_of(&mut self, bytes: u64) -> Option<&'a str> {
        let length = usize::try_from(bytes).ok()?;
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

    /// Reads through a window, and goes on behind what was read.
    #[inline(always)]
    fn through<T>(&mut self, read: impl FnOnce(&mut Window<'_>) -> Option<T>) -> Option<T> {
        let padded;
        let bytes = match self.rest.first_chunk() {
            Some(bytes) => bytes,
            None => {
                padded = pad(self.rest);
                &padded
            }
        };
        let mut window = Window { bytes, at: 0 };
        let value = read(&mut window)?;
        self.rest = self.rest.get(window.at..)?;
        Some(value)
    }
}

#[cold]
fn pad(rest: &[u8]) -> [u8; WINDOW] {
    let mut padded = [0; WINDOW];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

impl Window<'_> {
    #[inline(always)]
    fn byte(&mut self) -> u8 {
        // Never beyond: what is read at once is bounded above.
        let byte = self.bytes[self.at % WINDOW];
        self.at += 1;
        byte
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*array)
    }

    /// Unsigned, 16 bits.
    #[inline(always)]
    fn short(&mut self) -> Option<u16> {
        match self.byte() {
            small if small < U16_FOLLOWS => Some(u16::from(small)),
            U16_FOLLOWS => Some(u16::from_le_bytes([self.byte(), self.byte()])),
            _ => None,
        }
    }

    /// Unsigned, 64 bits.
    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        match self.byte() {
            small if small < U16_FOLLOWS => Some(u64::from(small)),
            U16_FOLLOWS => Some(u64::from(u16::from_le_bytes([self.byte(), self.byte()]))),
            U32_FOLLOWS => self.array().map(u32::from_le_bytes).map(u64::from),
            U64_FOLLOWS => self.array().map(u64::from_le_bytes),
            _ => None,
        }
    }

    /// Zigzag: the sign in the lowest bit.
    #[inline(always)]
    fn signed(&mut self) -> Option<i64> {
        let zigzag = self.number()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    #[inline(always)]
    fn optional(&mut self) -> Option<Option<i64>> {
        match self.byte() {
            0 => Some(None),
            1 => self.signed().map(Some),
            _ => None,
        }
    }

    #[inline(always)]
    fn id_head(&mut self) -> Option<IdHead> {
        match self.number()? {
            0 => self.number().map(|bytes| IdHead::Text { bytes }),
            1 => self.array().map(IdHead::Uuid),
            2 => Some(IdHead::Emitted),
            _ => None,
        }
    }

    fn scope(&mut self) -> Option<WireScope> {
        Some(WireScope { tenant: self.short()?, source: self.short()?, meter: self.short()? })
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
