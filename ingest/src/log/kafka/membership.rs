//! One member of a consumer group, only to learn which partitions this node owns.
//! Rebalances go in, events come out; its partitions are paused at once, so it never
//! fetches. Nothing waits inside a rebalance callback: a revoked partition is given
//! back when its owner has drained it and says so. What makes a former owner
//! harmless is not the group but the epoch in the totals book.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{KafkaOptions, REQUEST_TIMEOUT, failed, failed_with, is_passing, millis, mismatch, native, unspun};
use super::closing::Closing;
use super::commit::commit_within;
use super::rebalances::{Rebalance, Rebalances};
use crate::log::LogError;

/// After this without a heartbeat the group goes on without a member. The shortest
/// that brokers allow by default; a member that leaves in order needs none of it.
pub const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(6);
/// How long an owner may take to drain what is revoked before the group goes on
/// without it: a commit to a totals book that is slow or just being restarted.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How often a member asks for rebalances. Bounds how late a revocation is noticed.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a proof may take. Shorter than the drain time-out, so that asking for one
/// does not cost the membership.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// How a group is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// The group's name.
    pub group: String,
    /// After this without a heartbeat the group goes on without the member. Brokers
    /// allow 6 s to 30 min unless configured otherwise.
    pub session_timeout: Duration,
    /// How long [`Membership::poll`] may stay uncalled, and draining may take, before
    /// the group goes on without the member. At least the session time-out.
    pub drain_timeout: Duration,
}

impl GroupOptions {
    /// The group of that name, with default time-outs.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self { group: group.into(), session_timeout: SESSION_TIMEOUT_DEFAULT, drain_timeout: DRAIN_TIMEOUT_DEFAULT }
    }
}

/// What happened to the partitions of a member. Each list is ascending, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// These are the member's own from now on.
    Assigned(Vec<u32>),
    /// These are to be given back: drain them, then call [`Membership::release`].
    Revoked(Vec<u32>),
    /// These may belong to somebody else already: drop what is held of them.
    Lost(Vec<u32>),
}

/// One member of a consumer group. Dropping it leaves the group without draining.
pub struct Membership {
    consumer: Closing<Rebalances>,
    topic: String,
    partitions: u32,
    owned: BTreeSet<u32>,
    /// Revoked, and not released yet.
    draining: Option<Vec<u32>>,
    /// What to commit for owned partitions.
    hints: BTreeMap<u32, u64>,
}

impl Membership {
    pub(super) fn join(options: &KafkaOptions, partitions: u32, group: &GroupOptions) -> Result<Self, LogError> {
        if group.group.is_empty() {
            return Err(mismatch("needs kafka.group, which is empty".to_owned()));
        }
        if group.drain_timeout < group.session_timeout {
            let (drain, session) = (group.drain_timeout, group.session_timeout);
            return Err(mismatch(format!(
                "needs a drain time-out of at least the session time-out, but {drain:?} < {session:?}"
            )));
        }
        let (session_ms, drain_ms) = (millis(group.session_timeout), millis(group.drain_timeout));
        let heartbeat_ms = millis(HEARTBEAT.min(group.session_timeout / 3));
        let fixed = [
            ("group.id", group.group.as_str()),
            ("group.protocol", "classic"),
            // Only partitions that move stop; the others are counted on meanwhile.
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", &session_ms),
            ("heartbeat.interval.ms", &heartbeat_ms),
            ("max.poll.interval.ms", &drain_ms),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // Nothing is read here, so where reading would start does not matter.
            ("auto.offset.reset", "latest"),
        ];
        let config = options.config(&[], &fixed)?;
        let consumer: BaseConsumer<Rebalances> =
            config.create_with_context(Rebalances::default()).map_err(failed("opening a consumer"))?;
        consumer.subscribe(&[&options.topic]).map_err(failed("joining the group"))?;
        Ok(Self {
            consumer: Closing::new(consumer),
            topic: options.topic.clone(),
            partitions,
            owned: BTreeSet::new(),
            draining: None,
            hints: BTreeMap::new(),
        })
    }

    /// The partitions that are this member's own, those being drained included.
    #[must_use]
    pub fn owned(&self) -> &BTreeSet<u32> {
        &self.owned
    }

    /// Takes part in the group for at most `timeout`, and returns as soon as something
    /// happened. Is to be called at least once per drain time-out, also while draining.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when the topic has grown, [`LogError::Storage`] when the
    /// group cannot be taken part in (retryable). Brokers that are away are waited for.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<GroupEvent>, LogError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            // A message can only be one that was fetched before its partition was paused.
            if let Some(Err(error)) = self.consumer.poll(unspun(left)) {
                check_trouble(error)?;
            }
            let events = self.take_rebalances()?;
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
        }
    }

    fn take_rebalances(&mut self) -> Result<Vec<GroupEvent>, LogError> {
        let mut events = Vec::new();
        loop {
            let Some(rebalance) = self.consumer.context().pop() else { return Ok(events) };
            events.extend(self.take(rebalance)?);
        }
    }

    fn take(&mut self, rebalance: Rebalance) -> Result<Option<GroupEvent>, LogError> {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let list = self.list(&partitions);
                self.consumer.incremental_assign(&list).map_err(failed("taking partitions over"))?;
                self.consumer.pause(&list).map_err(failed("pausing partitions"))?;
                let partitions = self.checked(&partitions)?;
                self.owned.extend(&partitions);
                Ok((!partitions.is_empty()).then_some(GroupEvent::Assigned(partitions)))
            }
            Rebalance::Revoke { partitions, is_lost } => {
                let mut partitions: Vec<u32> = partitions.into_iter().filter_map(|p| u32::try_from(p).ok()).collect();
                partitions.sort_unstable();
                if is_lost || partitions.is_empty() {
                    // What was being drained is lost with the rest.
                    self.draining = None;
                    self.give_back(&partitions)?;
                    return Ok((!partitions.is_empty()).then_some(GroupEvent::Lost(partitions)));
                }
                self.draining = Some(partitions.clone());
                Ok(Some(GroupEvent::Revoked(partitions)))
            }
        }
    }

    /// Gives back what was revoked, once it is drained. Without a revocation it does
    /// nothing.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn release(&mut self) -> Result<(), LogError> {
        match self.draining.take() {
            Some(partitions) => self.give_back(&partitions),
            None => Ok(()),
        }
    }

    fn give_back(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        for partition in partitions {
            self.owned.remove(partition);
            self.hints.remove(partition);
        }
        let list: Vec<i32> = partitions.iter().map(|partition| native(*partition)).collect();
        self.consumer.incremental_unassign(&self.list(&list)).map_err(failed("giving partitions back"))
    }

    /// Remembers the next offset that the totals book needs, for tools that show lag.
    /// It goes to the group with the next [`Membership::prove`]. Ignored for
    /// partitions that are not owned.
    pub fn hint(&mut self, partition: u32, next_offset: u64) {
        if self.owned.contains(&partition) {
            self.hints.insert(partition, next_offset);
        }
    }

    /// Asks the coordinator whether it still knows this member in the generation that
    /// its partitions were assigned in; commits the hints with it. `false` means that
    /// its partitions may belong to somebody else, or that it owns none.
    ///
    /// # Errors
    /// [`LogError::Storage`] when there was no answer (retryable).
    pub fn prove(&mut self) -> Result<bool, LogError> {
        const DOING: &str = "proving the group membership";
        if self.owned.is_empty() || self.is_lost() {
            return Ok(false);
        }
        if self.hints.is_empty() {
            self.recall_hint()?;
        }
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in &self.hints {
            let offset = Offset::Offset(i64::try_from(*next_offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.topic, native(*partition), offset).map_err(failed(DOING))?;
        }
        match commit_within(&self.consumer, &list, PROOF_TIMEOUT) {
            // A member that was just thrown out commits like a stranger, which an empty
            // group allows; hence the second look.
            Ok(()) => Ok(!self.is_lost()),
            Err(error) if error.rdkafka_error_code().is_some_and(is_fenced) => Ok(false),
            Err(error) => Err(failed(DOING)(error)),
        }
    }

    /// Something to commit that changes nothing: what is committed already.
    fn recall_hint(&mut self) -> Result<(), LogError> {
        const DOING: &str = "asking for the group's offsets";
        let owned: Vec<i32> = self.owned.iter().map(|partition| native(*partition)).collect();
        let found = self.consumer.committed_offsets(self.list(&owned), REQUEST_TIMEOUT).map_err(failed(DOING))?;
        for element in found.elements() {
            let Ok(partition) = u32::try_from(element.partition()) else { continue };
            let Offset::Offset(offset) = element.offset() else { continue };
            self.hints.insert(partition, u64::try_from(offset).unwrap_or(0));
        }
        // A group that never committed anything starts with a hint that claims nothing.
        if self.hints.is_empty()
            && let Some(first) = self.owned.first()
        {
            self.hints.insert(*first, 0);
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.consumer.context().has_loss() || self.consumer.assignment_lost()
    }

    /// Leaves the group in order: its partitions go to others at once. What was not
    /// drained before is the caller's to drop.
    pub fn leave(self) {
        // Dropping leaves.
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    /// Partitions ascending, all of them known.
    fn checked(&self, partitions: &[i32]) -> Result<Vec<u32>, LogError> {
        let mut checked = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match u32::try_from(*partition) {
                Ok(partition) if partition < self.partitions => checked.push(partition),
                Ok(_) => {
                    let count = self.partitions;
                    return Err(mismatch(format!(
                        "has grown: partition {partition} was assigned, but it was opened with {count} partitions"
                    )));
                }
                Err(_) => return Err(failed_with("taking partitions over", format!("partition {partition}"))),
            }
        }
        checked.sort_unstable();
        Ok(checked)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // The client waits for an answer to every rebalance before it leaves.
        if let Err(error) = self.release() {
            tracing::debug!(%error, "giving partitions back while leaving the group");
        }
        Rebalances::leave(&self.consumer, &self.topic);
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (topic, owned, draining) = (&self.topic, &self.owned, &self.draining);
        f.debug_struct("Membership")
            .field("topic", topic)
            .field("owned", owned)
            .field("draining", draining)
            .finish_non_exhaustive()
    }
}

/// Whether the error says that the generation has ended for this member.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::FencedInstanceId
            | Code::RebalanceInProgress
            | Code::AssignmentLost
            | Code::Fenced
    )
}

fn check_trouble(error: KafkaError) -> Result<(), LogError> {
    match error.rdkafka_error_code() {
        Some(code) if is_passing(code) => Ok(()),
        // Nothing is read here, so a lost place is no loss.
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Ok(()),
        _ => Err(failed("taking part in the group")(error)),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("usage", 2, 1).unwrap();
        cluster
    }

    fn options(cluster: &MockCluster<'_, DefaultProducerContext>) -> KafkaOptions {
        KafkaOptions {
            brokers: cluster.bootstrap_servers(),
            topic: "usage".to_owned(),
            client_id: "test".to_owned(),
            properties: Vec::new(),
        }
    }

    fn owner(cluster: &MockCluster<'_, DefaultProducerContext>) -> Membership {
        let options = options(cluster);
        let mut member = Membership::join(&options, 2, &GroupOptions::new("owners")).unwrap();
        while member.owned().len() < 2 {
            member.poll(Duration::from_millis(100)).unwrap();
        }
        member
    }

    #[test]
    fn a_coordinator_that_is_away_proves_nothing_and_holds_up_nobody() {
        let cluster = cluster();
        let mut member = owner(&cluster);
        assert!(member.prove().unwrap());
        cluster.broker_down(1).unwrap();
        assert!(!member.prove().is_ok_and(|is_known| is_known));
        member.poll(Duration::from_millis(10)).unwrap();
        member.leave();
    }

    #[test]
    fn leaving_waits_for_no_owner() {
        let cluster = cluster();
        let mut one = owner(&cluster);
        let options = options(&cluster);
        let mut two = Membership::join(&options, 2, &GroupOptions::new("owners")).unwrap();
        // The first is asked for a partition, and leaves instead of giving it back.
        while one.poll(Duration::from_millis(50)).unwrap().is_empty() {
            two.poll(Duration::from_millis(50)).unwrap();
        }
        one.leave();
        while two.owned().len() < 2 {
            two.poll(Duration::from_millis(100)).unwrap();
        }
    }

    #[test]
    fn options_that_contradict_themselves_are_named() {
        let cluster = cluster();
        let options = options(&cluster);
        let short = GroupOptions { drain_timeout: Duration::from_secs(1), ..GroupOptions::new("owners") };
        for (group, named) in [(short, "drain time-out"), (GroupOptions::new(""), "kafka.group")] {
            let refused = Membership::join(&options, 2, &group).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
