//! Brings the configured definitions and plans into force: in every partition that this node
//! takes over, unless others came into force there while it was running. Those are
//! newer than its own configuration, so that two nodes with different files never
//! take turns.

use std::collections::BTreeSet;

use odometer_aggregator::Processor;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::quota::{Plan, PlanOrigin};
use odometer_schemas::time::TimeMs;
use odometer_sink::BookError;
use odometer_sink::totals::TotalsBook;

use super::progress::now;
use super::recover::Owned;

pub(crate) struct Announcer {
    wanted: Definitions,
    plans: Vec<Plan>,
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
    pub(crate) fn new(configured: Configured, is_alone: bool, book: &mut dyn TotalsBook) -> Result<Self, BookError> {
        let Configured { definitions: wanted, plans } = configured;
        let mut replaceable = Vec::new();
        for cursor in book.cursors()? {
            let found = book.definitions_at(cursor.partition, cursor.next_offset)?;
            replaceable.extend(found.filter(|definitions| !replaceable.contains(definitions)));
        }
        Ok(Self { wanted, plans, replaceable, started: now(), is_alone, announced: BTreeSet::new() })
    }

    /// The envelopes that a partition needs, which has been counted to its end, in
    /// their order.
    ///
    /// # Errors
    /// When the configured definitions would change what old records mean.
    pub(crate) fn envelopes(&mut self, partition: u32, owned: &Owned) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut envelopes = Vec::from_iter(self.envelope(partition, owned)?);
        envelopes.extend(self.missing_plans(&owned.processor).map(|plan| control(&plan)));
        // An epoch is claimed once, so a record of it is this node's.
        if owned.processor.quota_epoch() < owned.epoch {
            envelopes.push(control(&Control::Owner { epoch: owned.epoch }));
        }
        Ok(envelopes)
    }

    /// Configured plans that are not in force, unless somebody put one of that name.
    fn missing_plans<'a>(&'a self, processor: &'a Processor) -> impl Iterator<Item = Control<'a>> + 'a {
        let is_settled = |plan: &Plan| {
            let in_force = processor.plans().find(|(found, _)| found.name == plan.name);
            in_force.is_some_and(|(found, origin)| origin == PlanOrigin::Api || found == plan)
        };
        let missing = self.plans.iter().filter(move |plan| !is_settled(plan));
        missing.map(|plan| Control::Plan { plan: plan.clone(), origin: PlanOrigin::Config })
    }

    /// The definitions, if they are not in force.
    ///
    /// # Errors
    /// When the configured definitions would change what old records mean.
    fn envelope(&mut self, partition: u32, owned: &Owned) -> anyhow::Result<Option<Vec<u8>>> {
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
        Ok(Some(control(&Control::Definitions(self.wanted.clone()))))
    }
}

/// What a node's configuration says that the log must hold.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) definitions: Definitions,
    pub(crate) plans: Vec<Plan>,
}

fn control(control: &Control) -> Vec<u8> {
    encode_control(control, Origin::default())
}
