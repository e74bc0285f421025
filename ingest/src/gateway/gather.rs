//! Records in, sealed envelopes of one partition each out. The records of one event
//! always share an envelope, so an event is stored whole or not at all.

use std::collections::BTreeMap;

use odometer_schemas::envelope::{EnvelopeBuilder, EnvelopeFull, Origin};
use odometer_schemas::partition::partition_of;
use odometer_schemas::record::Record;

/// One sealed envelope and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The partition of every tenant in it.
    pub partition: u32,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// Gathers the records of one request, or of several that are appended together.
#[derive(Debug)]
pub(crate) struct Gather {
    partitions: u32,
    open: BTreeMap<u32, Open>,
    /// By number; empty bytes while still open.
    envelopes: Vec<Envelope>,
}

#[derive(Debug)]
struct Open {
    number: usize,
    builder: EnvelopeBuilder,
}

impl Gather {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { partitions, open: BTreeMap::new(), envelopes: Vec::new() }
    }

    /// Adds the records of one event, all of one tenant. Returns the number of the
    /// envelope that holds them.
    ///
    /// # Errors
    /// When they do not fit into one envelope, even an empty one.
    pub(super) fn add(&mut self, records: &[Record]) -> Result<usize, EnvelopeFull> {
        let Some(first) = records.first() else { return Err(EnvelopeFull) };
        let partition = partition_of(&first.tenant, self.partitions);
        if let Some(open) = self.open.get_mut(&partition)
            && open.builder.push_all(records).is_ok()
        {
            return Ok(open.number);
        }
        let mut builder = EnvelopeBuilder::new();
        builder.push_all(records)?;
        let number = self.envelopes.len();
        self.envelopes.push(Envelope { partition, bytes: Vec::new() });
        if let Some(full) = self.open.insert(partition, Open { number, builder }) {
            self.seal(full);
        }
        Ok(number)
    }

    /// All envelopes, by number.
    pub(crate) fn finish(mut self) -> Vec<Envelope> {
        for open in std::mem::take(&mut self.open).into_values() {
            self.seal(open);
        }
        self.envelopes
    }

    fn seal(&mut self, mut open: Open) {
        // The ids are the callers' own, so no emitter's origin is needed.
        self.envelopes[open.number].bytes = open.builder.seal(Origin::default());
    }
}
