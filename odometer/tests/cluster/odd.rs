//! Log entries of every kind that a log may hold, honest or not, the same in every
//! run: ids that come again with the same and with other content, sequences with gaps,
//! stale epochs, unknown meters, impossible times, wrong partitions, closed periods and
//! bytes that are no envelope.

use odometer_schemas::control::Control;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::partition::partition_of;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::{DAY_MS, TimeMs};

/// Entries in all.
const ENTRIES: u64 = 160;
/// Records of each.
const RECORDS: u64 = 12;
/// Everything that ended before is closed half-way: 2026-02-01T00:00:00Z.
const CLOSED_MS: i64 = 1_769_904_000_000;
const METERS: [&str; 11] = [
    "egress",
    "jobs",
    "free_slots",
    "connections_peak",
    "cpu_load",
    "api_call",
    "llm.prompt_tokens",
    "seats",
    "active_users",
    "no_such_meter",
    "agent_minute",
];

/// Envelopes and the partitions that they go to.
pub(crate) fn odd_entries(partitions: u32) -> Vec<(u32, Vec<u8>)> {
    let mut entries = Vec::new();
    for number in 0..ENTRIES {
        if number == ENTRIES / 2 {
            let close = Control::Close { close_id: "2026-01".into(), through_ms: CLOSED_MS };
            let bytes = encode_control(&close, Origin::default());
            entries.extend((0..partitions).map(|partition| (partition, bytes.clone())));
        }
        let tenant = format!("odd-{}", mixed(number) % 9);
        let own = partition_of(&tenant, partitions);
        // A few in a partition that is not the tenant's.
        let partition = if number % 17 == 3 { (own + 1) % partitions } else { own };
        entries.push((partition, bytes(number, &tenant)));
    }
    entries
}

fn bytes(number: u64, tenant: &str) -> Vec<u8> {
    let mut builder = EnvelopeBuilder::new();
    (0..RECORDS).for_each(|index| builder.push(&record(number, index, tenant)).unwrap());
    let epoch = if number % 13 == 5 { 0 } else { 1 };
    // Some sequences come twice, and some are left out.
    let origin = Origin { source: u128::from(number % 3) + 1, epoch, first_sequence: mixed(number) % 40 * RECORDS };
    let mut sealed = builder.seal(origin);
    let last = sealed.len() - 1;
    match number % 23 {
        7 => sealed.truncate(last),
        11 => sealed[last] ^= 1,
        13 => sealed = b"no envelope \x00\xff".to_vec(),
        17 => sealed[4] = 99,
        19 => sealed.clear(),
        _ => {}
    }
    sealed
}

fn record(number: u64, index: u64, tenant: &str) -> Record {
    let word = mixed(number << 8 | index);
    let time = match word % 16 {
        0 => None,
        1 => Some(TimeMs(4_000_000_000_000)),
        2 => Some(TimeMs(5)),
        3..=6 => Some(TimeMs(CLOSED_MS - 1 - (word % 90).cast_signed() * DAY_MS)),
        _ => Some(TimeMs(CLOSED_MS + (word % 1000).cast_signed() * 60_000)),
    };
    Record {
        tenant: tenant.to_owned(),
        source: format!("source é {}", word % 2),
        // Few ids, so that they come again; of the content little changes with them.
        id: (!word.is_multiple_of(4)).then(|| format!("id-{}", (word >> 8) % 120)),
        meter: METERS[((word >> 16) % METERS.len() as u64) as usize].to_owned(),
        quantity: Quantity(((word >> 20) % 3).cast_signed() * 1_000_000_007 - 1),
        time,
        subject: (!word.is_multiple_of(3)).then(|| format!("user \"{}\"", word % 5)),
        dimensions: vec![("region".to_owned(), ["eu", "us", "日本"][(word % 3) as usize].to_owned())],
        reservation: word.is_multiple_of(7).then(|| "reservation".to_owned()),
    }
}

/// Numbers that look random (Steele and others, `SplitMix64`).
fn mixed(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
