//! Brings the configured definitions into force: in every partition that this node
//! takes over, unless others came into force there while it was running. Those are
//! newer than its own configuration, so that two nodes with different files never
//! take turns.

use std::collections::BTreeSet;

use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::time::TimeMs;
use odometer_sink::BookError;
use odometer_sink::totals::TotalsBook;

use super::progress::now;
use super::recover::Owned;

pub(crate) struct Announcer {
    wanted: Definitions,
    /// What was in force when this node started, anywhere.
    replaceable: Vec<Definitions>,
    /// When that was.
    started: TimeMs,
    /// Nobody else announces anything, so whatever is in force is older.
    is_alone: bool,
    announced: BTreeSet<u32>,
}

impl Announcer {
    /// Looks at what is in force now.
    pub(crate) fn new(wanted: Definitions, is_alone: bool, book: &mut dyn TotalsBook) -> Result<Self, BookError> {
        let mut replaceable = Vec::new();
        for cursor in book.cursors()? {
            let found = book.definitions_at(cursor.partition, cursor.next_offset)?;
            replaceable.extend(found.filter(|definitions| !replaceable.contains(definitions)));
        }
        Ok(Self { wanted, replaceable, started: now(), is_alone, announced: BTreeSet::new() })
    }

    /// An announcement did not get into the log.
    pub(crate) fn forget(&mut self, partition: u32) {
        self.announced.remove(&partition);
    }

    /// The envelope that a partition needs, which has been counted to its end.
    ///
    /// # Errors
    /// When the configured definitions would change what old records mean.
    pub(crate) fn envelope(&mut self, partition: u32, owned: &Owned) -> anyhow::Result<Option<Vec<u8>>> {
        let (processor, in_force) = (&owned.processor, owned.processor.definitions());
        if in_force == Some(&self.wanted) {
            return Ok(None);
        }
        let is_seen_older = owned.in_force.since.is_some_and(|since| since < self.started);
        let is_newer = |found: &Definitions| !is_seen_older && !self.replaceable.contains(found);
        if !self.is_alone && (self.announced.contains(&partition) || in_force.is_some_and(is_newer)) {
            tracing::warn!(
                "partition {partition}: definitions that came after this node's start are in force and stay; give this \
                 node the same configuration"
            );
            return Ok(None);
        }
        if let Some(meter) = processor.redefined(&self.wanted) {
            anyhow::bail!(
                "meter `{meter}` has records already; its unit, base_unit, scale and aggregation must \
                 stay as they were. Give the new meaning a new name"
            );
        }
        self.announced.insert(partition);
        Ok(Some(encode_control(&Control::Definitions(self.wanted.clone()), Origin::default())))
    }
}
