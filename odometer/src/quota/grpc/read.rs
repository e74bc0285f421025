//! Batches of checks, read where they lie: a message's bytes come in, what is asked goes
//! out without a copy. Only messages as everybody writes them are read here; what is
//! unusual or wrong is left to the generated code, so that both mean the same.

use prost::{DecodeError, Message};

use super::BATCH_CHECKS_MAX;
use super::proto::quota as wire;
use crate::quota::service::Ask;
use crate::quota::validate::one_item;

/// Keys of fields: number and wire type.
const VARINT_1: u8 = 0x08;
const VARINT_2: u8 = 0x10;
const VARINT_3: u8 = 0x18;
const BYTES_1: u8 = 0x0a;
const BYTES_2: u8 = 0x12;
const BYTES_3: u8 = 0x1a;
/// Bytes of a varint that cannot be too large for 64 bits.
const VARINT_BYTES_MAX: usize = 9;

/// A `CheckBatch`.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    pub(super) tag: u64,
    pub(super) with_answers: bool,
    /// One for each check: what it asks, if that is valid and of one item.
    pub(super) asks: Vec<Option<Ask<'a>>>,
    /// One for each check.
    pub(super) checks: Vec<Check<'a>>,
}

/// One check of a batch.
#[derive(Debug)]
pub(super) enum Check<'a> {
    /// Known to be a message.
    Bytes(&'a [u8]),
    Message(Box<wire::CheckRequest>),
}

impl Check<'_> {
    /// # Errors
    /// None: its bytes were read before.
    pub(super) fn into_message(self) -> Result<wire::CheckRequest, DecodeError> {
        match self {
            Self::Bytes(bytes) => wire::CheckRequest::decode(bytes),
            Self::Message(message) => Ok(*message),
        }
    }
}

impl<'a> Batch<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// Those of the generated code.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match Self::usual(bytes) {
            Some(batch) => Ok(batch),
            None => wire::CheckBatch::decode(bytes).map(Self::of_message),
        }
    }

    fn of_message(message: wire::CheckBatch) -> Self {
        let wire::CheckBatch { tag, checks, with_answers } = message;
        let asks = vec![None; checks.len()];
        let checks = checks.into_iter().map(|check| Check::Message(Box::new(check))).collect();
        Self { tag, with_answers, asks, checks }
    }

    /// `None` for a message that is not as everybody writes it, or too long.
    fn usual(mut bytes: &'a [u8]) -> Option<Self> {
        let mut batch = Self::default();
        let (mut tag, mut with_answers) = (None, None);
        while let Some(key) = next(&mut bytes) {
            match key {
                VARINT_1 if tag.is_none() => tag = Some(varint(&mut bytes)?),
                VARINT_3 if with_answers.is_none() => with_answers = Some(varint(&mut bytes)? != 0),
                BYTES_2 if batch.checks.len() < BATCH_CHECKS_MAX => batch.push(field(&mut bytes)?)?,
                _ => return None,
            }
        }
        Some(Self { tag: tag.unwrap_or_default(), with_answers: with_answers.unwrap_or_default(), ..batch })
    }

    fn push(&mut self, bytes: &'a [u8]) -> Option<()> {
        let ask = ask(bytes);
        let check = match ask {
            Some(_) => Check::Bytes(bytes),
            None => Check::Message(Box::new(wire::CheckRequest::decode(bytes).ok()?)),
        };
        if self.checks.is_empty() {
            self.asks.reserve(BATCH_CHECKS_MAX);
            self.checks.reserve(BATCH_CHECKS_MAX);
        }
        self.asks.push(ask);
        self.checks.push(check);
        Some(())
    }
}

/// What a `CheckRequest` asks, if it asks for one item, in base units, and is valid.
fn ask(mut bytes: &[u8]) -> Option<Ask<'_>> {
    let (mut who, mut item) = (None, None);
    while let Some(key) = next(&mut bytes) {
        match key {
            BYTES_1 if who.is_none() => who = Some(field(&mut bytes)?),
            BYTES_2 if item.is_none() => item = Some(field(&mut bytes)?),
            _ => return None,
        }
    }
    let (tenant, within) = who_of(who?)?;
    let (meter, amount) = item_of(item?)?;
    one_item(tenant, within, meter).ok()?;
    Some(Ask { tenant, meter, amount })
}

/// A `Who`: the tenant, and the subject and key within it.
fn who_of(mut bytes: &[u8]) -> Option<(&str, (Option<&str>, Option<&str>))> {
    let (mut tenant, mut subject, mut key) = (None, None, None);
    while let Some(field_key) = next(&mut bytes) {
        match field_key {
            BYTES_1 if tenant.is_none() => tenant = Some(text(&mut bytes)?),
            BYTES_2 if subject.is_none() => subject = Some(text(&mut bytes)?),
            BYTES_3 if key.is_none() => key = Some(text(&mut bytes)?),
            _ => return None,
        }
    }
    Some((tenant?, (some(subject), some(key))))
}

/// An empty name is none.
fn some(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// An `Item` in base units.
fn item_of(mut bytes: &[u8]) -> Option<(&str, u64)> {
    let (mut meter, mut amount) = (None, None);
    while let Some(key) = next(&mut bytes) {
        match key {
            BYTES_1 if meter.is_none() => meter = Some(text(&mut bytes)?),
            VARINT_2 if amount.is_none() => amount = Some(varint(&mut bytes)?),
            _ => return None,
        }
    }
    Some((meter?, amount?))
}

#[inline]
fn next(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..VARINT_BYTES_MAX {
        let byte = next(bytes)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[inline]
fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

#[inline]
fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(field(bytes)?).ok()
}
