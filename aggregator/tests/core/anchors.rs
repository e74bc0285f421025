//! A tenant's periods change under usage that is already counted.

use odometer_aggregator::{LiveState, Processor};
use odometer_schemas::commit::PartitionState;
use odometer_schemas::control::Control;
use odometer_schemas::envelope::Origin;
use odometer_schemas::log::LogEntry;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

use crate::support::{Message, OPTIONS, definitions};

fn at(text: &str) -> TimeMs {
    TimeMs::parse_rfc3339(text).unwrap()
}

fn usage(id: &str, time: &str) -> Message {
    let record = Record {
        tenant: "a".into(),
        source: "s".into(),
        id: Some(id.into()),
        meter: "sum".into(),
        quantity: Quantity(1),
        time: Some(at(time)),
        subject: None,
        dimensions: vec![],
        reservation: None,
    };
    Message::Usage { origin: Origin::default(), records: vec![record] }
}

/// Usage of April is counted two minutes before April begins; then the tenant's
/// anchor moves. April must stay one total.
#[test]
fn a_period_with_usage_keeps_its_bounds() {
    let anchor = Control::Anchor { tenant: "a".into(), anchor_ms: Some(at("2026-01-20T00:00:00Z").0) };
    let log = [
        ("2026-03-31T23:58:00Z", Message::Control(Control::Definitions(definitions()))),
        ("2026-03-31T23:58:00Z", usage("1", "2026-04-01T00:01:00Z")),
        ("2026-03-31T23:58:30Z", Message::Control(anchor)),
        // Usage of March in between: April's total has to be found again.
        ("2026-03-31T23:59:00Z", usage("3", "2026-03-31T23:59:00Z")),
        ("2026-04-01T00:02:00Z", usage("2", "2026-04-01T00:02:00Z")),
    ];
    let mut processor = Processor::restore(OPTIONS, &PartitionState::default(), None, LiveState::default()).unwrap();
    for (offset, (append_time, message)) in log.into_iter().enumerate() {
        let entry = LogEntry {
            partition: 0,
            offset: offset as u64,
            append_time: at(append_time),
            bytes: message.bytes().into(),
        };
        processor.handle(&entry).unwrap();
    }
    let totals = processor.poll_commit().unwrap().totals;
    let found: Vec<_> = totals.iter().map(|total| (total.records, TimeMs(total.period_end_ms))).collect();
    assert_eq!(found, [(1, at("2026-04-01T00:00:00Z")), (2, at("2026-05-01T00:00:00Z"))]);
}
