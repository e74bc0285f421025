//! Several owners of one partition at once.

use std::sync::Barrier;

use super::*;

const OWNERS: usize = 4;
const OFFSETS: u64 = 120;

/// Claims from what it reads, commits one offset at a time until somebody else has
/// claimed, and begins again until everything is counted. Answers its epochs.
fn own(database: &PgDatabase, start: &Barrier) -> Vec<u64> {
    let mut book = open(database);
    let mut epochs = Vec::new();
    start.wait();
    loop {
        let cursor = book.cursors().unwrap().pop().unwrap_or_default();
        if cursor.next_offset == OFFSETS {
            return epochs;
        }
        let state = match book.claim(&Claim { from_epoch: cursor.epoch, ..Claim::default() }) {
            Ok(state) => state,
            Err(BookError::EpochMoved { found, .. }) => {
                assert!(found > cursor.epoch, "an epoch never falls: {found}, {}", cursor.epoch);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        epochs.push(state.epoch);
        let mut quantity = state.totals.first().map_or(0, |row| row.quantity);
        // A few commits each, so that owners take the partition from each other.
        for offset in (state.next_offset..OFFSETS).take(7) {
            quantity += 1;
            let commit = PartitionCommit { totals: vec![total("a", "m", quantity)], ..commit(0, offset, offset + 1) };
            match book.commit(&[owned(state.epoch, commit)]) {
                Ok(()) => {}
                Err(CommitError::Fenced { found_epoch, .. }) => {
                    assert!(found_epoch > state.epoch, "only a newer owner fences");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn one_partition_has_one_owner_at_a_time() {
    let database = PgDatabase::migrated();
    open(&database).identity(&installation()).unwrap();
    let start = Barrier::new(OWNERS);
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let owners: Vec<_> = (0..OWNERS).map(|_| scope.spawn(|| own(&database, &start))).collect();
        owners.into_iter().flat_map(|owner| owner.join().unwrap()).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<_>>(), "every epoch has one owner");
    let snapshot = open(&database).snapshot(&TotalsFilter::default()).unwrap();
    assert_eq!(snapshot.totals, [total("a", "m", i128::from(OFFSETS))]);
    assert_eq!(snapshot.cursors[0].next_offset, OFFSETS);
}

#[test]
fn owners_of_several_partitions_never_wait_for_each_other_in_a_circle() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    for partition in 1..4 {
        book.claim(&Claim { partition, ..Claim::default() }).unwrap();
    }
    // The same commits from both sides, in opposite orders: one applies, one finds it.
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for is_reversed in [false, true] {
            let (database, start) = (&database, &start);
            scope.spawn(move || {
                let mut book = open(database);
                start.wait();
                for offset in 0..50 {
                    let mut commits: Vec<_> = (0..4).map(|p| owned(1, commit(p, offset, offset + 1))).collect();
                    if is_reversed {
                        commits.reverse();
                    }
                    match book.commit(&commits) {
                        // The other side may be further on, never behind.
                        Ok(()) => {}
                        Err(CommitError::Fenced { found_offset, .. }) => assert!(found_offset > offset + 1),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(book.cursors().unwrap().iter().all(|cursor| cursor.next_offset == 50));
}

#[test]
fn a_snapshot_is_of_one_moment() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    let steps = 150;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 0..steps {
                let quantity = i128::from(offset) + 1;
                let totals = vec![total("a", "m", quantity), total("z", "m", quantity)];
                book.commit(&[owned(1, PartitionCommit { totals, ..commit(0, offset, offset + 1) })]).unwrap();
            }
        });
        let mut reader = PgTotals::connect_read_only(database.url()).unwrap();
        loop {
            let snapshot = reader.snapshot(&TotalsFilter::default()).unwrap();
            let next_offset = snapshot.cursors[0].next_offset;
            assert!(snapshot.totals.iter().all(|row| row.quantity == i128::from(next_offset)), "{snapshot:?}");
            if next_offset == steps {
                break;
            }
        }
    });
}
