//! Texts and lists that are short, nearly always: they stand where they are kept, without memory of
//! their own, and without a count of those who have them, which threads would take from
//! each other.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use smallvec::SmallVec;

/// A text that needs no memory of its own up to `N` bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Short<const N: usize>(SmallVec<[u8; N]>);

/// The name of a meter.
pub(crate) type MeterName = Short<24>;

impl<const N: usize> Short<N> {
    /// One text after the other.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut text = SmallVec::new();
        parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        Self(text)
    }
}

impl<const N: usize> From<&str> for Short<N> {
    fn from(text: &str) -> Self {
        Self::of(&[text])
    }
}

impl<const N: usize> Deref for Short<N> {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of texts")
    }
}

impl<const N: usize> PartialEq<str> for Short<N> {
    fn eq(&self, other: &str) -> bool {
        self.0.as_slice() == other.as_bytes()
    }
}

impl<const N: usize> fmt::Debug for Short<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// As any text.
impl<const N: usize> Encode for Short<N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_slice().encode(encoder)
    }
}

impl<const N: usize, Context> Decode<Context> for Short<N> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self::from(&*String::decode(decoder)?))
    }
}

impl<'de, const N: usize, Context> BorrowDecode<'de, Context> for Short<N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self::from(<&str>::borrow_decode(decoder)?))
    }
}

/// A list of one, nearly always, which stands where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Few<T>(SmallVec<[T; 1]>);

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// As any list.
impl<T: Encode + 'static> Encode for Few<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_slice().encode(encoder)
    }
}

impl<Context, T: Decode<Context>> Decode<Context> for Few<T> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Vec::<T>::decode(decoder)?.into_iter().collect())
    }
}

impl<'de, Context, T: BorrowDecode<'de, Context>> BorrowDecode<'de, Context> for Few<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Vec::<T>::borrow_decode(decoder)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{decoded, encoded};
    use super::*;

    #[test]
    fn what_is_stored_is_that_of_any_text_and_list() {
        for text in ["", "a", "long enough for memory of its own", "süß"] {
            let short = Short::<4>::from(text);
            assert_eq!(encoded(&short), encoded(&text.to_owned()));
            assert_eq!(decoded::<Short<4>>(&encoded(&short)), Some(short));
            let list = vec![text.to_owned(); text.len() % 3];
            let few: Few<String> = list.iter().cloned().collect();
            assert_eq!(encoded(&few), encoded(&list));
            assert_eq!(decoded::<Few<String>>(&encoded(&few)), Some(few));
        }
    }
}
