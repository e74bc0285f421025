//! Round trips, golden bytes, and arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::control::Control;
use crate::definitions::Definitions;
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::quantity::Quantity;
use crate::record::Record;
use crate::time::TimeMs;

const ORIGIN: Origin = Origin { source: 0x0102_0304, epoch: 5, first_sequence: 6 };

fn record() -> Record {
    Record {
        tenant: "acme".into(),
        source: "worker-1".into(),
        id: Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff".into()),
        meter: "llm.prompt_tokens".into(),
        quantity: Quantity(-4808),
        time: Some(TimeMs(1_700_158_623_979)),
        subject: Some("user-7".into()),
        dimensions: vec![("model".into(), "m-1".into()), ("region".into(), "eu".into())],
        reservation: None,
    }
}

fn sealed(records: &[Record]) -> Vec<u8> {
    let mut builder = EnvelopeBuilder::new();
    for record in records {
        builder.push(record).unwrap();
    }
    let bound = builder.bytes();
    let bytes = builder.seal(ORIGIN);
    assert!(bytes.len() <= bound, "{} bytes were promised to be at most {bound}", bytes.len());
    bytes
}

fn opened(bytes: &[u8]) -> Vec<Record> {
    match decode(bytes).unwrap() {
        Decoded::Usage(usage) => (0..usage.len()).map(|i| usage.to_owned_record(i)).collect(),
        Decoded::Control(control) => panic!("a control record: {control:?}"),
    }
}

#[test]
fn version_1_is_pinned() {
    let second =
        Record { id: None, time: None, subject: None, dimensions: vec![], reservation: Some("r".into()), ..record() };
    let third = Record { id: Some("plain id".into()), quantity: Quantity(i64::MAX), ..record() };
    let records = [record(), second, third];
    let bytes = sealed(&records);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, GOLDEN_USAGE);
    assert_eq!(opened(&bytes), records);
    let control: String = encode_control(&Control::Tick, ORIGIN).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(control, GOLDEN_TICK);
}

const GOLDEN_USAGE: &str = "4f444f4d010100000403020100000000000000000000000005000000060000000000000003008d0000006a4f4912be07feb1090461636d6508776f726b65722d31116c6c6d2e70726f6d70745f746f6b656e7306757365722d37056d6f64656c036d2d3106726567696f6e026575017201000102010204050607fdd6a1b3b21703000000016f9619ff8b864d01b42d00cf4fc964fffb8f2501000401000002fb8f2500000009000008706c61696e206964fdfeffffffffffffff0100040100";
const GOLDEN_TICK: &str =
    "4f444f4d0101010004030201000000000000000000000000050000000600000000000000010001000000c75d6f0a87ac6a7401";

#[test]
fn definitions_travel_as_control_records() {
    let control = Control::Definitions(Definitions::built_in());
    match decode(&encode_control(&control, ORIGIN)).unwrap() {
        Decoded::Control(found) => assert_eq!(*found, control),
        Decoded::Usage(_) => panic!("not usage"),
    }
}

#[test]
fn quota_operations_are_known_by_their_kind() {
    let quota = encode_control(&Control::Quota { epoch: 300, operations: Vec::new() }, ORIGIN);
    assert!(is_quota(&quota) && !is_quota(&quota[1..]) && !is_quota(&quota[..quota.len() - 1]));
    let close = Control::Close { close_id: "c".into(), through_ms: 7 };
    for other in [close, Control::Tick, Control::Owner { epoch: 7 }] {
        assert!(!is_quota(&encode_control(&other, ORIGIN)), "{other:?}");
    }
    assert!(!is_quota(&sealed(&[record()])));
}

#[test]
fn every_damage_has_its_name() {
    let good = sealed(&[record()]);
    let damaged = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        decode(&bytes).err()
    };
    assert_eq!(damaged(0, b'X'), Some(DecodeError::Magic));
    assert_eq!(damaged(4, 2), Some(DecodeError::Version { found: 2 }));
    assert_eq!(damaged(5, 9), Some(DecodeError::Codec { found: 9 }));
    assert_eq!(damaged(6, 1), Some(DecodeError::Checksum));
    assert_eq!(damaged(good.len() - 1, 0xff), Some(DecodeError::Checksum));
    assert_eq!(decode(&good[..good.len() - 1]).err(), Some(DecodeError::Truncated));
    assert_eq!(decode(&good[..20]).err(), Some(DecodeError::Truncated));
    assert_eq!(decode(&[]).err(), Some(DecodeError::Magic));
    assert_eq!(decode(&[good.as_slice(), &[0]].concat()).err(), Some(DecodeError::TrailingBytes));
    let huge = vec![0; ENVELOPE_BYTES_MAX + 1];
    assert_eq!(decode(&huge).err(), Some(DecodeError::TooLarge { bytes: huge.len() }));
}

#[test]
fn a_builder_stops_at_its_limits_and_what_it_sealed_decodes() {
    let wide = Record { dimensions: (0..16).map(|i| (format!("d{i:02}"), format!("{i:0>200}"))).collect(), ..record() };
    let mut builder = EnvelopeBuilder::new();
    let mut n = 0_usize;
    let mut own = wide;
    while builder.push(&own).is_ok() {
        n += 1;
        own.dimensions[0].1 = format!("{n:0>200}");
        own.subject = Some(format!("{n:0>250}"));
        own.id = Some(format!("{n:0>250}"));
    }
    assert_eq!(builder.len(), n);
    assert!((60..512).contains(&n), "{n}");
    let bytes = builder.seal(ORIGIN);
    assert!(bytes.len() > ENVELOPE_BYTES_MAX * 8 / 10, "only {} bytes used", bytes.len());
    assert_eq!(opened(&bytes).len(), n);
    assert!(builder.is_empty());
    let small = Record { dimensions: vec![], ..record() };
    while builder.push(&small).is_ok() {}
    assert_eq!(opened(&builder.seal(ORIGIN)).len(), 512);
}

#[test]
fn the_records_of_an_event_stay_together() {
    let event = vec![record(); 200];
    let mut builder = EnvelopeBuilder::new();
    assert_eq!(builder.push_all(&event), Ok(()));
    assert_eq!(builder.push_all(&event), Ok(()));
    assert_eq!(builder.push_all(&event), Err(EnvelopeFull));
    assert_eq!(builder.len(), 400);
    assert_eq!(opened(&builder.seal(ORIGIN)).len(), 400);
    assert_eq!(builder.push_all(&vec![record(); 513]), Err(EnvelopeFull));
    assert!(builder.is_empty());
}

fn any_record() -> impl Strategy<Value = Record> {
    let text = "[a-zA-Z0-9:/._é-]{1,40}";
    let dimensions = prop::collection::btree_map("[a-z]{1,8}", text, 0..5);
    (
        (text, text, prop::option::of(text), "[a-z._]{1,20}"),
        (any::<i64>(), prop::option::of(946_684_800_000_i64..7_258_118_400_000)),
        (prop::option::of(text), dimensions, prop::option::of(text)),
    )
        .prop_map(|((tenant, source, id, meter), (quantity, time), (subject, dimensions, reservation))| Record {
            tenant,
            source,
            id,
            meter,
            quantity: Quantity(quantity),
            time: time.map(TimeMs),
            subject,
            dimensions: dimensions.into_iter().collect(),
            reservation,
        })
}

proptest! {
    #[test]
    fn what_was_sealed_is_what_opens(records in prop::collection::vec(any_record(), 1..60)) {
        prop_assert_eq!(opened(&sealed(&records)), records);
    }

    /// The same entry point that a fuzzer would use: any bytes, an answer.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decode(&bytes);
    }

    /// Damage behind a valid checksum reaches the body's own checks.
    #[test]
    fn arbitrary_bodies_never_panic(records in prop::collection::vec(any_record(), 1..8), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sealed(&records);
        for (at, value) in hits {
            let at = FRAME_BYTES + at.index(bytes.len() - FRAME_BYTES);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(Decoded::Usage(usage)) = decode(&bytes) {
            for i in 0..usage.len() {
                let _ = usage.to_owned_record(i);
            }
        }
    }
}

/// Makes the checksum right again after damage.
fn reseal(bytes: &mut [u8]) {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    let checksum = xxh3_64_with_seed(&bytes[FRAME_BYTES..], xxh3_64(&bytes[..42])).to_le_bytes();
    bytes[42..FRAME_BYTES].copy_from_slice(&checksum);
}
