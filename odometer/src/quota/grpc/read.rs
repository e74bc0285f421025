//! Batches of checks, read where they lie: a message's bytes come in, what is asked goes
//! out without a copy. Only messages as everybody writes them are read here; what is
//! unusual or wrong is left to the generated code, so that both mean the same.

use prost::{DecodeError, Message};

use super::BATCH_CHECKS_MAX;
use super::proto::quota as wire;
use crate::quota::service::Ask;
use crate::quota::validate::{Within, one_item};

/// Keys of fields: number and wire type.
const VARINT_1: u8 = 0x08;
const VARINT_2: u8 = 0x10;
const VARINT_3: u8 = 0x18;
const BYTES_1: u8 = 0x0a;
const BYTES_2: u8 = 0x12;
const BYTES_3: u8 = 0x1a;
/// Bytes of a varint that cannot be too large for 64 bits.
const VARINT_BYTES_MAX: usize = 9;

/// Bytes of a check in a batch, with names of one letter: so much room is made.
const CHECK_BYTES_MIN: usize = 14;

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
        let checks = (bytes.len() / CHECK_BYTES_MIN).min(BATCH_CHECKS_MAX);
        let mut batch =
            Self { asks: Vec::with_capacity(checks), checks: Vec::with_capacity(checks), ..Self::default() };
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
fn who_of(mut bytes: &[u8]) -> Option<(&str, Within<'_>)> {
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

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::{Check as Asked, Item};
    use proptest::prelude::*;

    use super::super::convert::IntoRequest;
    use super::*;
    use crate::config::Config;
    use crate::quota::meters::Meters;
    use crate::quota::service::QuotaRequest;
    use crate::quota::validate::validate;
    use wire::item::Amount;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![8 => "[a-c]{1,3}", 1 => Just(String::new()), 1 => "é{60,70}", 1 => "x{120,260}"]
    }

    fn amount() -> impl Strategy<Value = Option<Amount>> {
        prop_oneof![
            8 => any::<u64>().prop_map(|amount| Some(Amount::BaseUnits(amount))),
            1 => "[0-9.]{0,3}".prop_map(|text| Some(Amount::Decimal(text))),
            1 => Just(None),
        ]
    }

    fn item() -> impl Strategy<Value = wire::Item> {
        (name(), amount()).prop_map(|(meter, amount)| wire::Item { meter, amount })
    }

    fn who() -> impl Strategy<Value = wire::Who> {
        (name(), name(), name()).prop_map(|(tenant, subject, key)| wire::Who { tenant, subject, key })
    }

    fn check() -> impl Strategy<Value = wire::CheckRequest> {
        let items = prop_oneof![4 => prop::collection::vec(item(), 1), 1 => prop::collection::vec(item(), 0..4)];
        (prop::option::weighted(0.9, who()), items).prop_map(|(who, items)| wire::CheckRequest { who, items })
    }

    fn batch() -> impl Strategy<Value = Vec<u8>> {
        let batch = (any::<u64>(), prop::collection::vec(check(), 0..6), any::<bool>());
        batch.prop_map(|(tag, checks, with_answers)| wire::CheckBatch { tag, checks, with_answers }.encode_to_vec())
    }

    /// Messages as they are, after one another, cut, with other bytes in them, and none.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let changed = (batch(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4));
        prop_oneof![
            batch(),
            (batch(), batch()).prop_map(|(first, second)| [first, second].concat()),
            (batch(), any::<prop::sample::Index>()).prop_map(|(bytes, at)| bytes[..at.index(bytes.len() + 1)].to_vec()),
            changed.prop_map(|(mut bytes, changes)| {
                for (at, byte) in changes.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                bytes
            }),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    /// What a check asks, the long way.
    fn asked(message: wire::CheckRequest) -> Option<(String, Item)> {
        let request = message.into_request(&Meters::new(&Config::default().meters)).ok()?;
        validate(&request).ok()?;
        let QuotaRequest::Check(Asked { who, items }) = request else { return None };
        let [item] = <[Item; 1]>::try_from(items).ok()?;
        Some((who.tenant, item))
    }

    proptest! {
        #[test]
        fn whatever_comes_means_what_the_generated_code_reads(bytes in bytes()) {
            match (Batch::read(&bytes), wire::CheckBatch::decode(bytes.as_slice())) {
                (Ok(read), Ok(message)) => {
                    prop_assert_eq!((read.tag, read.with_answers), (message.tag, message.with_answers));
                    let asks = read.asks.clone();
                    let checks: Result<Vec<_>, _> = read.checks.into_iter().map(Check::into_message).collect();
                    prop_assert_eq!(&checks.unwrap(), &message.checks);
                    prop_assert_eq!(asks.len(), message.checks.len());
                    for (ask, check) in asks.into_iter().zip(message.checks) {
                        let Some(Ask { tenant, meter, amount }) = ask else { continue };
                        let expected = Some((tenant.to_owned(), Item { meter: meter.to_owned(), amount }));
                        prop_assert_eq!(asked(check), expected);
                    }
                }
                (Err(error), Err(expected)) => prop_assert_eq!(error.to_string(), expected.to_string()),
                (read, decoded) => prop_assert!(false, "{read:?}, but {decoded:?}"),
            }
        }
    }

    #[test]
    fn usual_checks_are_read_where_they_lie() {
        let who =
            |subject: &str| Some(wire::Who { tenant: "acme".into(), subject: subject.into(), ..Default::default() });
        let item = |amount| vec![wire::Item { meter: "api_call".into(), amount: Some(amount) }];
        let check = |subject, amount| wire::CheckRequest { who: who(subject), items: item(amount) };
        let checks = vec![
            check("", Amount::BaseUnits(0)),
            check("user", Amount::BaseUnits(u64::from(u32::MAX))),
            check("", Amount::Decimal("1".into())),
        ];
        let bytes = wire::CheckBatch { tag: 300, checks, with_answers: true }.encode_to_vec();
        let batch = Batch::read(&bytes).unwrap();
        assert_eq!((batch.tag, batch.with_answers), (300, true));
        let ask = |amount| Some(Ask { tenant: "acme", meter: "api_call", amount });
        assert_eq!(batch.asks, [ask(0), ask(u32::MAX.into()), None]);
        let is_bytes: Vec<_> = batch.checks.iter().map(|check| matches!(check, Check::Bytes(_))).collect();
        assert_eq!(is_bytes, [true, true, false]);
    }
}
