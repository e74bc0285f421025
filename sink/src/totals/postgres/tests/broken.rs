//! Connections that break, and servers that go and come back.

use super::proxy::{Cut, Proxy};
use super::*;

/// A claimed book behind a proxy.
fn behind_proxy(database: &PgDatabase) -> (Proxy, PgTotals) {
    drop(claimed(database));
    let proxy = Proxy::before(database.address());
    let book = PgTotals::connect(&database.url_through(proxy.port())).unwrap();
    (proxy, book)
}

fn step(offset: u64) -> [OwnedCommit; 1] {
    let totals = vec![total("a", "m", i128::from(offset) + 1)];
    [owned(1, PartitionCommit { totals, ..commit(0, offset, offset + 1) })]
}

fn next_offset(database: &PgDatabase) -> u64 {
    open(database).cursors().unwrap()[0].next_offset
}

#[test]
fn a_commit_whose_answer_is_lost_is_applied_once() {
    let cuts = [
        (Cut::Before("BEGIN"), None),
        (Cut::Before("FOR UPDATE"), Some(0)),
        (Cut::Before("UPDATE partitions"), Some(0)),
        (Cut::AfterAnswer("UPDATE partitions"), Some(0)),
        (Cut::Before("INSERT INTO period_totals"), Some(0)),
        (Cut::AfterAnswer("INSERT INTO period_totals"), Some(0)),
        (Cut::Before("COMMIT\0"), Some(0)),
        (Cut::AfterAnswer("COMMIT\0"), Some(1)),
    ];
    for (cut, offset_after) in cuts {
        let database = PgDatabase::migrated();
        let (proxy, mut book) = behind_proxy(&database);
        proxy.cut(cut);
        let first = book.commit(&step(0));
        assert!(proxy.was_cut(), "{cut:?}");
        match offset_after {
            // Nothing was asked before the connection was lost, so nothing is to be told.
            None => first.unwrap(),
            Some(offset) => {
                let error = first.unwrap_err();
                assert!(error.is_retryable(), "{cut:?}: {error}");
                assert_eq!(next_offset(&database), offset, "{cut:?}");
                book.commit(&step(0)).unwrap();
            }
        }
        assert_eq!(book.totals(&TotalsFilter::default()).unwrap(), [total("a", "m", 1)], "{cut:?}");
        book.commit(&step(1)).unwrap();
        assert_eq!(next_offset(&database), 2, "{cut:?}");
    }
}

#[test]
fn a_claim_whose_answer_is_lost_is_found_by_reading() {
    let database = PgDatabase::migrated();
    let (proxy, mut book) = behind_proxy(&database);
    proxy.cut(Cut::AfterAnswer("COMMIT\0"));
    let claim = |from_epoch| Claim { from_epoch, owner: "me".to_owned(), ..Claim::default() };
    assert!(book.claim(&claim(1)).unwrap_err().is_retryable());
    assert!(matches!(book.claim(&claim(1)), Err(BookError::EpochMoved { wanted: 1, found: 2, .. })));
    assert_eq!(book.cursors().unwrap()[0].owner, "me");
    assert_eq!(book.claim(&claim(2)).unwrap().epoch, 3);
}

#[test]
fn a_successor_decides_about_a_commit_whose_answer_is_lost() {
    for (cut, kept) in [(Cut::Before("COMMIT\0"), 0), (Cut::AfterAnswer("COMMIT\0"), 1)] {
        let database = PgDatabase::migrated();
        let (proxy, mut zombie) = behind_proxy(&database);
        proxy.cut(cut);
        assert!(zombie.commit(&step(0)).unwrap_err().is_retryable());
        let mut successor = open(&database);
        let state = successor.claim(&Claim { from_epoch: 1, ..Claim::default() }).unwrap();
        assert_eq!((state.next_offset, state.totals.len() as u64), (kept, kept), "{cut:?}");
        let answer = zombie.commit(&step(0));
        assert!(matches!(answer, Err(CommitError::Fenced { found_epoch: 2, .. })), "{cut:?}: {answer:?}");
        assert_eq!(successor.cursors().unwrap()[0].next_offset, kept);
    }
}

#[test]
fn a_restarted_server_is_found_again_without_an_error() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    let mut reader = PgTotals::connect_read_only(database.url()).unwrap();
    for offset in 0..3 {
        book.commit(&step(offset)).unwrap();
        database.disconnect_all();
        assert_eq!(reader.cursors().unwrap()[0].next_offset, offset + 1);
    }
}

#[test]
fn while_the_server_is_away_every_error_is_retryable() {
    let database = PgDatabase::migrated();
    let (proxy, mut book) = behind_proxy(&database);
    book.commit(&step(0)).unwrap();
    proxy.down();
    for _ in 0..3 {
        assert!(book.commit(&step(1)).unwrap_err().is_retryable());
        assert!(book.cursors().unwrap_err().is_retryable());
        assert!(PgTotals::connect(&database.url_through(proxy.port())).unwrap_err().is_retryable());
    }
    proxy.up();
    book.commit(&step(1)).unwrap();
    assert_eq!(book.cursors().unwrap()[0].next_offset, 2);
}

#[test]
fn a_handle_may_be_dropped_on_an_asynchronous_thread() {
    let database = PgDatabase::migrated();
    let book = open(&database);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(book) });
}
