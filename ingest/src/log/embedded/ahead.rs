//! Has those pages of the write-ahead log in memory that are written over next. Its frames
//! begin and end in the midst of a page of the file, so the system needs the rest of that
//! page; where it has given the memory to somebody else meanwhile, the writer waits for a disk
//! that is busy with writing: for tenths of a second, every few megabytes.

use std::fs::File;

use super::store::{PAGE_BYTES, Store};

/// A page of the write-ahead log and what is said about it
/// (<https://sqlite.org/fileformat2.html#wal_file_format>).
const FRAME_BYTES: u64 = PAGE_BYTES as u64 + 24;

/// The write-ahead log, to be asked for; none where that is not possible.
#[derive(Debug)]
pub(super) struct Ahead(Option<File>);

impl Ahead {
    pub(super) fn of(store: &Store) -> Self {
        let opened = store.connection.path().map(|path| File::open(format!("{path}-wal")));
        Self(opened.and_then(Result::ok))
    }

    /// Asks for what follows `pages`.
    pub(super) fn ask(&self, pages: u64) {
        if let Some(file) = &self.0 {
            ask(file, pages * FRAME_BYTES);
        }
    }
}

#[cfg(target_os = "linux")]
fn ask(file: &File, from: u64) {
    use std::num::NonZeroU64;

    use rustix::fs::{Advice, fadvise};

    // What is written until the next time, and in half a second in which nobody can ask, with
    // some to spare. To look whether it is there takes a few tenths of a millisecond.
    const AHEAD_BYTES: u64 = 24 * 1024 * 1024;
    // Linux takes no more at once than it reads ahead, this much unless it is told otherwise.
    const STEP: u64 = 128 * 1024;
    for at in (from..from + AHEAD_BYTES).step_by(STEP as usize) {
        // What is not there in time is waited for when it is written.
        let _ = fadvise(file, at, NonZeroU64::new(STEP), Advice::WillNeed);
    }
}

#[cfg(not(target_os = "linux"))]
fn ask(_: &File, _: u64) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{IoSliceMut, Write};
    use std::time::Duration;

    use rustix::fs::{Advice, fadvise};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// Whether what stands there is in memory; none where the file system does not say so.
    /// Where it is not, a few pages from there on are by the next time.
    fn is_at_hand(file: &File, at: u64) -> Option<bool> {
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP) => None,
            read => Some(read == Ok(1)),
        }
    }

    #[test]
    fn what_was_given_away_comes_back() {
        const MIB: u64 = 1024 * 1024;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 40 << 20]).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        // Some file systems live in memory.
        if is_at_hand(&file, 0) == Some(false) {
            Ahead(Some(file.try_clone().unwrap())).ask(17 * MIB / FRAME_BYTES);
            // Farther than it would have come from the file's beginning.
            let came = (26 * MIB..40 * MIB).step_by(256 * 1024).any(|at| {
                std::thread::sleep(Duration::from_millis(100));
                is_at_hand(&file, at) == Some(true)
            });
            assert!(came, "nobody read it");
            assert_eq!(is_at_hand(&file, 10 * MIB), Some(false), "what lies before was not asked for");
        }
        Ahead(None).ask(0);
    }
}
