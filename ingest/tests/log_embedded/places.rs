//! The index that is behind by some envelopes.

use super::*;

/// What the reader finds is what it should, from wherever it begins.
fn assert_holds(reader: &mut EmbeddedReader, partition: u32, start: usize, all: &[Vec<u8>]) {
    let bounds = Bounds { start_offset: start as u64, end_offset: all.len() as u64 };
    assert_eq!(reader.bounds(partition).expect("bounds"), bounds);
    for from in start..=all.len() {
        let entries = reader.read(partition, from as u64, usize::MAX).expect("readable");
        let found: Vec<_> = entries.iter().map(|entry| (entry.offset as usize, entry.bytes.to_vec())).collect();
        let due: Vec<_> = (from..).zip(all[from..].to_vec()).collect();
        assert_eq!(found, due);
        let few = reader.read(partition, from as u64, 6).expect("readable");
        assert_eq!(few[..], entries[..entries.len().min(3)], "two bytes each");
    }
}

#[test]
fn envelopes_are_found_whether_the_index_has_them_or_not() {
    const PARTITIONS: usize = 3;
    let mut made = make(Setup { partitions: PARTITIONS as u32, queue_envelopes: 64 });
    let (mut due, mut starts): (Vec<Vec<Vec<u8>>>, _) = (vec![vec![]; PARTITIONS], [0; PARTITIONS]);
    // Often enough for the index to be brought up to date some times.
    for n in 0..300_u16 {
        // The last is left alone at first.
        let partition = usize::from(if n < 100 { n % 5 % 2 } else { n % 3 });
        let appended = append(made.log(), partition as u32, &n.to_le_bytes()).unwrap();
        assert_eq!(appended.offset, due[partition].len() as u64);
        due[partition].push(n.to_le_bytes().to_vec());
        if n % 23 == 7 {
            let below = due[partition].len() - 1 - usize::from(n % 4);
            made.retain(partition as u32, below as u64);
            starts[partition] = below.max(starts[partition]);
        }
        if n % 41 == 40 {
            made.reopen(PARTITIONS as u32).unwrap();
        }
        let mut elsewhere = EmbeddedReader::open_read_only(&made.path()).unwrap();
        for partition in 0..PARTITIONS {
            assert_holds(&mut elsewhere, partition as u32, starts[partition], &due[partition]);
        }
    }
}

/// Envelopes that the index does not have.
fn unplaced(path: &Path) -> usize {
    let count = "SELECT count(*) FROM envelopes WHERE number NOT IN (SELECT number FROM places)";
    Connection::open(path).and_then(|file| file.query_row(count, [], |row| row.get(0))).expect("readable")
}

#[test]
fn the_index_lacks_few_whatever_the_writer_went_through() {
    const LACKS_MAX: usize = 64;
    let mut made = make(Setup { partitions: 16, queue_envelopes: 1024 });
    for n in 0..80_u8 {
        append(made.log(), u32::from(n % 16), &[n]).unwrap();
        made.reopen(16).unwrap();
        assert!(unplaced(&made.path()) < LACKS_MAX);
    }
    for n in 0..150_u8 {
        append(made.log(), u32::from(n % 16), &[n]).unwrap();
        assert!(unplaced(&made.path()) < LACKS_MAX);
    }
    // Some share a commit.
    for group in [30, 40, 50, 1000_u32, 60, 20] {
        let pending: Vec<_> = (0..group).map(|n| made.appender().append(n % 16, vec![7])).collect();
        pending.into_iter().for_each(|pending| assert!(pending.wait_blocking().is_ok()));
        assert!(unplaced(&made.path()) < LACKS_MAX);
    }

    let saboteur = Connection::open(made.path()).unwrap();
    saboteur
        .execute_batch("CREATE TRIGGER full BEFORE INSERT ON places BEGIN SELECT raise(ABORT, 'no space left'); END")
        .unwrap();
    let before = made.log().reader().unwrap().bounds(3).unwrap().end_offset;
    let taken = (0..200).filter(|_| append(made.log(), 3, b"x").is_ok()).count();
    assert!(taken < LACKS_MAX, "then nothing was taken any more");
    saboteur.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(append(made.log(), 3, b"x").unwrap().offset, before + taken as u64);
    assert_eq!(unplaced(&made.path()), 0, "whatever may be missing came with the next");
}

#[test]
fn a_reader_elsewhere_misses_none_while_the_index_is_brought_up_to_date() {
    const ENVELOPES: u64 = 20_000;
    let made = small();
    let mut reader = EmbeddedReader::open_read_only(&made.path()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let appender = made.log().appender();
            for n in 0..ENVELOPES {
                appender.append_unflushed(0, n.to_le_bytes().to_vec()).wait_blocking().unwrap();
            }
        });
        let mut next = 0;
        while next < ENVELOPES {
            for entry in reader.read(0, next, 1000).unwrap() {
                assert_eq!(entry.offset, next);
                next += 1;
            }
        }
    });
}
