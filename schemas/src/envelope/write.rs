//! Writes a record's bytes: bincode 2's standard configuration (little-endian
//! varints), by hand, because every record is written once on its way into an envelope.
//! A differential test holds it against bincode itself.

use super::wire::{NUMBER_BYTES_MAX, SHORT_BYTES_MAX, U16_FOLLOWS, U32_FOLLOWS, U64_FOLLOWS, WireId, WireRecord};

/// Bytes that are appended together. Nothing is longer: the longest is a record whose id
/// the emitter makes.
const PIECE_BYTES: usize = 32;

const _: () = assert!(4 * SHORT_BYTES_MAX + 1 + NUMBER_BYTES_MAX + 1 + NUMBER_BYTES_MAX <= PIECE_BYTES);

/// Bytes on their way out.
struct Piece {
    bytes: [u8; PIECE_BYTES],
    at: usize,
}

/// Appends a record.
pub(super) fn put_record(record: &WireRecord<'_>, out: &mut Vec<u8>) {
    let mut piece = Piece { bytes: [0; PIECE_BYTES], at: 0 };
    piece.number(record.scope.into());
    match record.id {
        WireId::Text(text) => {
            piece.put([0]);
            piece.number(text.len() as u64);
            piece.leave(out);
            out.extend_from_slice(text.as_bytes());
        }
        WireId::Uuid(uuid) => {
            piece.put([1]);
            piece.put(uuid);
            piece.leave(out);
        }
        WireId::Emitted => piece.put([2]),
    }
    piece.signed(record.quantity);
    match record.time {
        None => piece.put([0]),
        Some(time) => {
            piece.put([1]);
            piece.signed(time);
        }
    }
    for number in [record.subject, record.dimensions, record.reservation] {
        piece.number(number.into());
    }
    piece.leave(out);
}

impl Piece {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each is in the range of its match arm")]
    fn number(&mut self, number: u64) {
        match number {
            0..=250 => self.put([number as u8]),
            251..=0xffff => {
                self.put([U16_FOLLOWS]);
                self.put((number as u16).to_le_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.put([U32_FOLLOWS]);
                self.put((number as u32).to_le_bytes());
            }
            _ => {
                self.put([U64_FOLLOWS]);
                self.put(number.to_le_bytes());
            }
        }
    }

    /// Signs move into the lowest bit, so that small amounts of either sign are short.
    #[inline]
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    #[inline]
    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.at]);
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::CONFIG;
    use super::*;

    fn any_number() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -300_i64..300, Just(i64::MIN), Just(i64::MAX), -70_000_i64..70_000]
    }

    fn any_short() -> impl Strategy<Value = u16> {
        prop_oneof![any::<u16>(), 0_u16..300, Just(u16::MAX)]
    }

    proptest! {
        #[test]
        fn records_are_written_as_bincode_writes_them(
            shorts in [any_short(), any_short(), any_short(), any_short()],
            quantity in any_number(),
            time in prop::option::of(any_number()),
            text in prop::option::of("\\PC{0,300}"),
            uuid: Option<[u8; 16]>,
        ) {
            let [scope, subject, dimensions, reservation] = shorts;
            let id = match (&text, uuid) {
                (Some(text), _) => WireId::Text(text),
                (None, Some(uuid)) => WireId::Uuid(uuid),
                (None, None) => WireId::Emitted,
            };
            let record = WireRecord { scope, id, quantity, time, subject, dimensions, reservation };
            let mut written = vec![7];
            put_record(&record, &mut written);
            prop_assert_eq!(&written[1..], bincode::encode_to_vec(record, CONFIG).unwrap());
        }
    }
}
