//! The bridge in front of a log that fails: nothing is lost, and no offset moves past
//! what is not stored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use odometer_ingest::gateway::SharedDefinitions;
use odometer_ingest::log::{AppendError, LogAppender, PendingAppend};
use odometer_schemas::definitions::Definitions;

use crate::support::{Ingress, Message, eventually};

/// A log that fails its first appends, in every way that may pass.
struct Shaky {
    inner: Arc<dyn LogAppender>,
    failures_left: AtomicUsize,
}

impl LogAppender for Shaky {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        let left = self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Err(_) => self.inner.append(partition, envelope),
            Ok(left) if left % 3 == 0 => PendingAppend::ready(Err(AppendError::Busy)),
            Ok(left) if left % 3 == 1 => PendingAppend::ready(Err(AppendError::Unavailable("away".to_owned()))),
            Ok(_) => {
                // Stored, but the answer is lost.
                drop(self.inner.append(partition, envelope).wait_blocking());
                PendingAppend::ready(Err(AppendError::Unavailable("no answer".to_owned())))
            }
        }
    }
}

/// A log that has been closed.
struct Closed(u32);

impl LogAppender for Closed {
    fn partitions(&self) -> u32 {
        self.0
    }

    fn append(&self, _: u32, _: Vec<u8>) -> PendingAppend {
        PendingAppend::ready(Err(AppendError::Closed))
    }
}

fn messages(count: usize) -> Vec<Message> {
    (0..count)
        .map(|n| {
            let tenant = n % 5;
            Message::new(format!(r#"{{"id":"id-{n}","tenant":"t{tenant}","meter":"api_call","quantity":1}}"#))
        })
        .collect()
}

fn ids(ingress: &Ingress) -> BTreeSet<String> {
    ingress.records().into_iter().map(|record| record.id.expect("an id")).collect()
}

fn expected(count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("id-{n}")).collect()
}

fn built_in() -> SharedDefinitions {
    SharedDefinitions::new(Definitions::built_in())
}

#[test]
fn a_log_that_fails_for_a_while_gets_everything_in_the_end() {
    let ingress = Ingress::new(2);
    ingress.produce_all(&messages(200));
    let shaky = Shaky { inner: ingress.log.appender(), failures_left: AtomicUsize::new(20) };
    let bridge = ingress.bridge_with(&built_in(), Arc::new(shaky));
    eventually("everything is bridged", || bridge.health().messages == 200);
    let health = bridge.health();
    assert!(health.is_running && !health.is_failing && health.last_error.is_some(), "{health:?}");
    bridge.drain().expect("it drains");
    assert_eq!(ids(&ingress), expected(200));
}

#[test]
fn what_the_log_does_not_take_is_lag() {
    let ingress = Ingress::new(2);
    ingress.produce_all(&messages(60));
    let shaky = Arc::new(Shaky { inner: ingress.log.appender(), failures_left: AtomicUsize::new(usize::MAX) });
    let bridge = ingress.bridge_with(&built_in(), Arc::clone(&shaky) as Arc<dyn LogAppender>);
    eventually("everything is behind", || bridge.health().lag == 60);
    shaky.failures_left.store(0, Ordering::SeqCst);
    eventually("nothing is behind", || bridge.health().lag == 0);
    bridge.drain().expect("it drains");
    assert_eq!(ids(&ingress), expected(60));
    // Another one begins where this one ended.
    let bridge = ingress.bridge();
    ingress.produce_all(&messages(3));
    eventually("the rest is bridged", || bridge.health().messages == 3 && bridge.health().lag == 0);
    bridge.drain().expect("it drains");
}

#[test]
fn a_closed_log_stops_the_bridge_and_the_next_one_reads_again() {
    let ingress = Ingress::new(2);
    ingress.produce_all(&messages(50));
    let bridge = ingress.bridge_with(&built_in(), Arc::new(Closed(3)));
    eventually("it stops", || !bridge.health().is_running);
    let stopped = bridge.drain().expect_err("it says why");
    assert!(stopped.to_string().contains("closed"), "{stopped}");
    let bridge = ingress.bridge();
    eventually("everything is bridged", || bridge.health().messages == 50);
    bridge.drain().expect("it drains");
    assert_eq!(ids(&ingress), expected(50));
}
