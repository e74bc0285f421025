//! Membership: partitions move between members, in order and out of order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::{GroupEvent, GroupOptions, Membership};

use crate::support::{Fresh, PATIENCE};

const STEP: Duration = Duration::from_millis(50);

fn group() -> GroupOptions {
    GroupOptions::new("owners")
}

/// A member that releases at once, and what went from it in either way.
struct Member {
    membership: Membership,
    revoked: BTreeSet<u32>,
    lost: BTreeSet<u32>,
}

impl Member {
    fn join(fresh: &Fresh, options: &GroupOptions) -> Self {
        let membership = fresh.log.join(options).expect("the group is joined");
        Self { membership, revoked: BTreeSet::new(), lost: BTreeSet::new() }
    }

    fn step(&mut self) {
        for event in self.membership.poll(STEP).expect("the group answers") {
            match event {
                GroupEvent::Assigned(_) => {}
                GroupEvent::Revoked(partitions) => {
                    self.revoked.extend(partitions);
                    self.membership.release().expect("released");
                }
                GroupEvent::Lost(partitions) => self.lost.extend(partitions),
            }
        }
    }

    fn owned(&self) -> usize {
        self.membership.owned().len()
    }
}

/// Polls all members until `is_done`.
fn poll_until(members: &mut [&mut Member], is_done: impl Fn(&[&mut Member]) -> bool) {
    let started = Instant::now();
    while !is_done(members) {
        assert!(started.elapsed() < PATIENCE, "{:?}", members.iter().map(|m| m.membership.owned()).collect::<Vec<_>>());
        members.iter_mut().for_each(|member| member.step());
    }
}

fn all_owned_once(members: &[&mut Member], partitions: u32) -> bool {
    let owned: Vec<u32> = members.iter().flat_map(|m| m.membership.owned().iter().copied()).collect();
    let distinct: BTreeSet<u32> = owned.iter().copied().collect();
    assert_eq!(owned.len(), distinct.len(), "a partition has two owners: {owned:?}");
    distinct.len() == partitions as usize
}

#[test]
fn partitions_spread_over_members_and_come_back() {
    let fresh = Fresh::new(6);
    let (mut one, mut two, mut three) = (Member::join(&fresh, &group()), None, None);
    poll_until(&mut [&mut one], |m| m[0].owned() == 6);
    assert!(one.membership.prove().expect("an answer"));
    let two = two.get_or_insert_with(|| Member::join(&fresh, &group()));
    assert!(!two.membership.prove().expect("an answer"), "who owns nothing proves nothing");
    poll_until(&mut [&mut one, &mut *two], |m| all_owned_once(m, 6) && m.iter().all(|m| m.owned() == 3));
    let three = three.get_or_insert_with(|| Member::join(&fresh, &group()));
    poll_until(&mut [&mut one, &mut *two, &mut *three], |m| all_owned_once(m, 6) && m.iter().all(|m| m.owned() == 2));
    for member in [&mut one, &mut *two, &mut *three] {
        assert!(member.membership.prove().expect("an answer"));
        assert_eq!(member.lost, BTreeSet::new());
    }
    one.membership.leave();
    poll_until(&mut [&mut *two, &mut *three], |m| all_owned_once(m, 6));
}

#[test]
fn the_group_waits_for_a_release() {
    let fresh = Fresh::new(4);
    let mut one = Member::join(&fresh, &group());
    poll_until(&mut [&mut one], |m| m[0].owned() == 4);
    let mut two = Member::join(&fresh, &group());
    let started = Instant::now();
    let revoked = loop {
        assert!(started.elapsed() < PATIENCE);
        two.step();
        match one.membership.poll(STEP).expect("the group answers").pop() {
            Some(GroupEvent::Revoked(partitions)) => break partitions,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    };
    assert_eq!(revoked.len(), 2);
    // Many times longer than the group would need.
    for _ in 0..40 {
        two.step();
        assert_eq!(two.owned(), 0);
        assert_eq!(one.membership.poll(STEP).expect("the group answers"), []);
        assert_eq!(one.owned(), 4);
    }
    assert!(one.membership.prove().expect("an answer"), "it is still the owner");
    one.membership.hint(revoked[0], 17);
    assert!(one.membership.prove().expect("an answer"));
    one.membership.release().expect("released");
    poll_until(&mut [&mut one, &mut two], |m| all_owned_once(m, 4) && m.iter().all(|m| m.owned() == 2));
    assert_eq!(two.membership.owned(), &revoked.into_iter().collect());
}

#[test]
fn a_member_that_stopped_polling_can_prove_nothing() {
    let fresh = Fresh::new(2);
    let options = GroupOptions { drain_timeout: Duration::from_secs(6), ..group() };
    let mut one = Member::join(&fresh, &options);
    poll_until(&mut [&mut one], |m| m[0].owned() == 2);
    assert!(one.membership.prove().expect("an answer"));
    let mut two = Member::join(&fresh, &options);
    // The first member hangs; the group goes on without it.
    poll_until(&mut [&mut two], |m| m[0].owned() == 2);
    assert!(!one.membership.prove().expect("an answer"), "its partitions have a new owner");
    // What was revoked before it hung was not heard of; the rest is lost.
    poll_until(&mut [&mut one, &mut two], |m| m[0].revoked.len() + m[0].lost.len() == 2);
    assert!(!one.lost.is_empty());
    poll_until(&mut [&mut one, &mut two], |m| all_owned_once(m, 2) && m.iter().all(|m| m.owned() == 1));
    assert!(one.membership.prove().expect("an answer"));
}

#[test]
fn a_member_that_hangs_while_draining_loses_what_it_had() {
    let fresh = Fresh::new(2);
    let options = GroupOptions { drain_timeout: Duration::from_secs(6), ..group() };
    let mut one = Member::join(&fresh, &options);
    poll_until(&mut [&mut one], |m| m[0].owned() == 2);
    let mut two = Member::join(&fresh, &options);
    let started = Instant::now();
    while one.membership.poll(STEP).expect("the group answers").is_empty() {
        assert!(started.elapsed() < PATIENCE);
        two.step();
    }
    // It never releases in time, though it polls on.
    while two.owned() < 2 {
        assert!(started.elapsed() < PATIENCE);
        two.step();
        one.membership.poll(Duration::ZERO).expect("the group answers");
    }
    assert!(!one.membership.prove().expect("an answer"));
    one.membership.release().expect("a late release is harmless");
    poll_until(&mut [&mut one, &mut two], |m| !m[0].lost.is_empty());
    poll_until(&mut [&mut one, &mut two], |m| all_owned_once(m, 2) && m.iter().all(|m| m.owned() == 1));
}
