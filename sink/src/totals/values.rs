//! Values that every totals book stores in one form, so that a row means the same in
//! each of them.

use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Decoded, Origin, decode, encode_control};

/// A watermark's bitmap as little-endian words.
pub(super) fn bytes_of_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Reads [`bytes_of_words`]; the error says what is wrong with the bytes.
pub(super) fn words_of_bytes(bytes: &[u8]) -> Result<Vec<u64>, String> {
    match bytes.as_chunks::<8>() {
        (words, []) => Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect()),
        _ => Err("is not a whole number of words".to_owned()),
    }
}

/// Definitions as a control envelope: its own frame carries version and checksum.
pub(super) fn bytes_of_definitions(definitions: &Definitions) -> Vec<u8> {
    encode_control(&Control::Definitions(definitions.clone()), Origin::default())
}

/// Reads [`bytes_of_definitions`]; the error says what is wrong with the bytes.
pub(super) fn definitions_of_bytes(bytes: &[u8]) -> Result<Definitions, String> {
    match decode(bytes) {
        Ok(Decoded::Control(control)) => match *control {
            Control::Definitions(definitions) => Ok(definitions),
            _ => Err("holds another control record".to_owned()),
        },
        Ok(Decoded::Usage(_)) => Err("holds usage".to_owned()),
        Err(error) => Err(format!("does not decode: {error}")),
    }
}
