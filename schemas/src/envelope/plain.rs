//! Printable ASCII, eight bytes at a time: what nearly every text is.

const HIGH: u64 = 0x8080_8080_8080_8080;
const LOW_BITS: u64 = !HIGH;
/// Added to seven bits, it sets the eighth from space on.
const FROM_SPACE: u64 = 0x6060_6060_6060_6060;
/// Added to seven bits, it sets the eighth for DEL alone.
const FROM_DEL: u64 = 0x0101_0101_0101_0101;
const WORD: usize = 8;

/// The bytes as text when they are printable ASCII, from space to tilde, and not empty.
#[inline]
#[expect(unsafe_code, reason = "checking UTF-8 once more costs as much as reading the rest of a record")]
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    // SAFETY: every byte is below 0x80, and ASCII is UTF-8.
    is_plain(bytes).then(|| unsafe { std::str::from_utf8_unchecked(bytes) })
}

#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD>();
    if !words.iter().all(|word| is_plain_word(u64::from_le_bytes(*word))) {
        return false;
    }
    match bytes.last_chunk::<WORD>() {
        // The last eight bytes overlap those before, which costs less than a loop.
        Some(last) => is_plain_word(u64::from_le_bytes(*last)),
        None => !rest.is_empty() && rest.iter().all(|byte| matches!(byte, 0x20..=0x7e)),
    }
}

#[inline]
fn is_plain_word(word: u64) -> bool {
    let low = word & LOW_BITS;
    (low + FROM_SPACE) & !(low + FROM_DEL) & !word & HIGH == HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_at_every_place_is_told() {
        for length in 1..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    assert_eq!(text(&bytes).is_some(), matches!(byte, b' '..=b'~'), "{byte} at {at} of {length}");
                }
            }
        }
        assert_eq!(text(b""), None);
    }

    proptest! {
        #[test]
        fn what_is_plain_reads_as_it_stands(written in "[ -~]{1,40}") {
            prop_assert_eq!(text(written.as_bytes()), Some(written.as_str()));
        }
    }
}
