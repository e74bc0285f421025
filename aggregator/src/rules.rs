//! What control records have brought into force in a partition.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::Meter;
use odometer_schemas::period::PeriodRule;
use odometer_schemas::time::{Interval, TimeMs};

/// Changes of one tenant's anchor that are kept. A tenant moves its billing day a few
/// times in its life; beyond this the oldest history falls back to calendar months.
const ANCHOR_CHANGES_MAX: usize = 64;

/// The rules in force. Stored with the totals whenever they change.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Rules {
    pub(crate) definitions: Option<Definitions>,
    /// Meters that were defined once: what their old records mean must not change.
    retired: Vec<Meter>,
    /// Periods that ended at or before it are closed, Unix milliseconds.
    pub(crate) closed_through_ms: Option<i64>,
    anchors: BTreeMap<String, Anchors>,
}

/// The changes of one tenant's anchor, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Anchors(Vec<AnchorChange>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct AnchorChange {
    from_ms: i64,
    anchor_ms: Option<i64>,
}

impl AnchorChange {
    fn rule(self) -> PeriodRule {
        self.anchor_ms.map_or(PeriodRule::CalendarMonth, |ms| PeriodRule::Anchored { anchor: TimeMs(ms) })
    }
}

impl Rules {
    /// Brings definitions into force. A meter that would change what its old records
    /// mean (unit, scale, aggregation) keeps its old definition; the configuration
    /// check refuses such a change before it gets here.
    pub(crate) fn adopt(&mut self, mut next: Definitions) -> &Definitions {
        let past = self.definitions.take().map_or(Vec::new(), |past| past.meters);
        for old in past {
            self.retired.retain(|meter| meter.name != old.name);
            self.retired.push(old);
        }
        for old in &self.retired {
            let changed = next.meters.iter_mut().find(|meter| meter.name == old.name && !old.can_become(meter));
            if let Some(meter) = changed {
                meter.clone_from(old);
            }
        }
        self.definitions.insert(next)
    }
    /// The first meter of `wanted` that would change what its old records mean.
    pub(crate) fn redefined<'a>(&self, wanted: &'a Definitions) -> Option<&'a str> {
        let past = || self.definitions.iter().flat_map(|d| &d.meters).chain(&self.retired);
        let changes = |meter: &&Meter| past().any(|old| old.name == meter.name && !old.can_become(meter));
        wanted.meters.iter().find(changes).map(|meter| meter.name.as_str())
    }

    /// The period of `tenant` that holds `time`.
    pub(crate) fn period_of(&self, tenant: &str, time: TimeMs) -> Interval {
        self.anchors.get(tenant).map_or_else(|| Anchors::default().period_of(time), |anchors| anchors.period_of(time))
    }

    /// The tenants that moved their anchor, and how.
    pub(crate) fn anchors(&self) -> impl Iterator<Item = (&str, &Anchors)> {
        self.anchors.iter().map(|(tenant, anchors)| (tenant.as_str(), anchors))
    }

    /// How a tenant moved its anchor.
    pub(crate) fn anchors_of(&self, tenant: &str) -> Anchors {
        self.anchors.get(tenant).cloned().unwrap_or_default()
    }

    /// A new anchor holds from the end of the period that `latest` is in: the latest
    /// event time that may have been counted by now. A period that has a total keeps
    /// its bounds, or two totals would share one start.
    pub(crate) fn set_anchor(&mut self, tenant: String, anchor_ms: Option<i64>, latest: TimeMs) {
        let from_ms = self.period_of(&tenant, latest).end.0;
        let changes = &mut self.anchors.entry(tenant).or_default().0;
        changes.retain(|change| change.from_ms < from_ms);
        changes.push(AnchorChange { from_ms, anchor_ms });
        if changes.len() > ANCHOR_CHANGES_MAX {
            changes.remove(0);
        }
    }

    pub(crate) fn close(&mut self, through_ms: i64) {
        self.closed_through_ms = self.closed_through_ms.max(Some(through_ms));
    }

    pub(crate) fn is_closed(&self, period: Interval) -> bool {
        self.closed_through_ms.is_some_and(|through_ms| period.end.0 <= through_ms)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard()).expect("writing to memory cannot fail")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rules, used) = bincode::decode_from_slice(bytes, bincode::config::standard()).ok()?;
        (used == bytes.len()).then_some(rules)
    }
}

impl Anchors {
    /// The anchor that was set last; none: calendar months.
    pub(crate) fn newest(&self) -> Option<TimeMs> {
        self.0.last().and_then(|change| change.anchor_ms).map(TimeMs)
    }

    /// The period that holds `time`.
    pub(crate) fn period_of(&self, time: TimeMs) -> Interval {
        let changes = self.0.as_slice();
        let next = changes.partition_point(|change| change.from_ms <= time.0);
        let current = next.checked_sub(1).map(|at| changes[at]);
        let mut period = current.map_or(PeriodRule::CalendarMonth, AnchorChange::rule).period_of(time);
        // The first period under a new anchor begins where the old one ended.
        if let Some(change) = current {
            period.start = period.start.max(TimeMs(change.from_ms));
        }
        if let Some(change) = changes.get(next) {
            period.end = period.end.min(TimeMs(change.from_ms));
        }
        period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TimeMs {
        TimeMs::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn an_anchor_holds_from_the_current_periods_end_and_periods_tile() {
        let mut rules = Rules::default();
        let anchor = at("2026-01-20T00:00:00Z");
        rules.set_anchor("acme".into(), Some(anchor.0), at("2026-03-10T00:00:00Z"));
        let period = |time: &str| {
            let period = rules.period_of("acme", at(time));
            (period.start.to_string(), period.end.to_string())
        };
        let own = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        assert_eq!(period("2026-03-25T00:00:00Z"), own("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"));
        assert_eq!(period("2026-04-05T00:00:00Z"), own("2026-04-01T00:00:00Z", "2026-04-20T00:00:00Z"));
        assert_eq!(period("2026-04-20T00:00:00Z"), own("2026-04-20T00:00:00Z", "2026-05-20T00:00:00Z"));
        assert_eq!(rules.period_of("other", at("2026-04-05T00:00:00Z")).start, at("2026-04-01T00:00:00Z"));
        assert_eq!(Rules::from_bytes(&rules.to_bytes()), Some(rules));
    }

    #[test]
    fn a_meter_keeps_its_meaning_even_after_it_was_gone() {
        let first = Definitions::built_in();
        let mut rules = Rules::default();
        rules.adopt(first.clone());
        rules.adopt(Definitions::with_meters(Vec::new()));
        let mut changed = first.clone();
        changed.meters[0].scale = 3;
        assert_eq!(*rules.adopt(changed), first);
    }

    #[test]
    fn closing_never_goes_back() {
        let mut rules = Rules::default();
        rules.close(at("2026-03-01T00:00:00Z").0);
        rules.close(at("2026-02-01T00:00:00Z").0);
        assert!(rules.is_closed(rules.period_of("a", at("2026-02-10T00:00:00Z"))));
        assert!(!rules.is_closed(rules.period_of("a", at("2026-03-10T00:00:00Z"))));
    }
}
