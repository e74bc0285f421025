//! The desk of a node that owns every partition.

use std::time::Instant;

use odometer_schemas::quota::{Check, Who};

use super::*;
use crate::config::Config;

/// Far more than a node takes to take its partitions.
const PATIENCE: Duration = Duration::from_secs(60);

fn question() -> QuotaRequest {
    let who = Who { tenant: "acme".to_owned(), subject: None, key: None };
    QuotaRequest::Check(Check { who, items: Vec::new() })
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_of_a_later_owner_is_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::in_directory(directory.path().to_owned());
    let node = tokio::task::block_in_place(|| Node::start(&config)).unwrap();
    let books = Arc::new(Books::new(node.footing.books()));
    let desk = Desk::open(&node, books, (&config.definitions(), config.plans.clone())).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !node.progress.is_authoritative() {
        assert!(Instant::now() < deadline, "taking the partitions takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let epoch = desk.epoch_here(desk.cells.partition_of("acme")).unwrap();
    for asked in [epoch - 1, epoch] {
        assert!(matches!(desk.decide_for_another(asked, question()).await, Reply::Owner(_)), "in epoch {asked}");
    }
    let later = desk.decide_for_another(epoch + 1, question()).await;
    assert!(matches!(later, Reply::NotOwner { successor: None }), "{later:?}");
    assert_eq!(desk.work().decided_for_nodes, 2);
    desk.close().await;
    assert!(tokio::task::block_in_place(|| node.drain()).unwrap().failure.is_none());
}
