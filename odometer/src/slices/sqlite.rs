//! Lets others in while SQLite works for a thread that asked for it: a commit or a
//! checkpoint is thousands of rows or pages in one call that takes tens of milliseconds.
//! SQLite shows two places in between: the system call that writes a page
//! (`xSetSystemCall`, <https://sqlite.org/c3ref/vfs.html>), and every so many steps of the
//! machine that runs its statements (<https://sqlite.org/c3ref/progress_handler.html>).

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::time::{Duration, Instant};

use rusqlite::ffi::{self, sqlite3_vfs_find};

use super::TURN;

/// Between places that lie further apart whoever works has slept, or was not let in.
const APART: Duration = Duration::from_micros(500);
/// Steps of a statement between two looks at the clock: some microseconds where rows are
/// written, some tens where each is an envelope that is read.
const STEPS: c_int = 25;
/// Bytes that a thread writes, whatever the file, after which the file that it writes is sent
/// on its way to the disk. Else it all goes at the flush, tens of megabytes at once, and
/// another file's flush waits beside it.
const SENT_BYTES: usize = 256 * 1024;

thread_local! {
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
    /// When this thread began to work, and when it was last seen.
    static WORKING: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
    /// Bytes written since a file was last sent.
    static UNSENT: Cell<usize> = const { Cell::new(0) };
}

/// Has the calling thread give way while SQLite works for it: nobody waits for that.
pub(super) fn give_way_in_sqlite() {
    GIVES_WAY.set(true);
}

// The bundled SQLite writes at places of 64 bits, whatever the system's own type has.
const _: () = assert!(size_of::<libc::off_t>() == size_of::<i64>());

/// Makes [`give_way_in_sqlite`] possible. To be called before anybody uses SQLite.
#[expect(unsafe_code, reason = "SQLite's own interface")]
pub(crate) fn look_into_sqlite() {
    type Pwrite = unsafe extern "C" fn(c_int, *const c_void, usize, libc::off_t) -> isize;
    let ours: Pwrite = pwrite;
    // SAFETY: SQLite casts it back to the type of pwrite(2), which it has.
    let ours = unsafe { std::mem::transmute::<Pwrite, unsafe extern "C" fn()>(ours) };
    // SAFETY: the default file system lives as long as the process, and nobody else uses
    // it yet.
    let set = unsafe {
        let files = sqlite3_vfs_find(std::ptr::null());
        let set = files.as_ref().and_then(|files| files.xSetSystemCall);
        set.map(|set| set(files, c"pwrite".as_ptr(), Some(ours)))
    };
    // SAFETY: a function of the type that it names, which stays where it is.
    let watched = unsafe { ffi::sqlite3_auto_extension(Some(opened)) };
    if (set, watched) != (Some(ffi::SQLITE_OK), ffi::SQLITE_OK) {
        tracing::debug!("SQLite works without giving way: {set:?}, {watched}");
    }
}

/// Watches a connection that was opened. Whether it was is of no concern to who opens it.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn opened(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the connection is open, and the function needs nothing that could end before it.
    unsafe { ffi::sqlite3_progress_handler(connection, STEPS, Some(stepped), std::ptr::null_mut()) };
    ffi::SQLITE_OK
}

#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn stepped(_: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    if GIVES_WAY.get() {
        give_way();
    }
    GO_ON
}

#[expect(unsafe_code, reason = "stands in for a system call")]
unsafe extern "C" fn pwrite(file: c_int, bytes: *const c_void, length: usize, offset: libc::off_t) -> isize {
    let gives_way = GIVES_WAY.get();
    if gives_way {
        give_way();
    }
    // SAFETY: as it was called.
    let written = unsafe { libc::pwrite(file, bytes, length, offset) };
    // Else SQLite wants to know why.
    if gives_way && let Ok(bytes @ 1..) = usize::try_from(written) {
        send(file, bytes);
    }
    written
}

fn give_way() {
    let now = Instant::now();
    let began = match WORKING.get() {
        Some((began, last)) if now.duration_since(last) < APART => began,
        _ => now,
    };
    if now.duration_since(began) < TURN {
        return WORKING.set(Some((began, now)));
    }
    std::thread::yield_now();
    WORKING.set(None);
}

/// Counts what was written, and has the system begin to write `file` to the disk now and
/// then. Whatever comes of that, a flush follows where one is needed.
#[expect(unsafe_code, reason = "neither the standard library nor rustix has this call")]
fn send(file: c_int, bytes: usize) {
    let unsent = UNSENT.get() + bytes;
    let is_due = unsent >= SENT_BYTES;
    UNSENT.set(if is_due { 0 } else { unsent });
    if is_due {
        // To the end of the file.
        const ALL: libc::off64_t = 0;
        // SAFETY: touches no memory of this process.
        unsafe { libc::sync_file_range(file, 0, ALL, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn who_gives_way_reads_and_writes_the_same() {
        look_into_sqlite();
        give_way_in_sqlite();
        // Is set to what was written since the last was sent, or to none.
        const NONE: usize = SENT_BYTES * 9;
        UNSENT.set(NONE);
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("rows.sqlite")).unwrap();
        connection.execute_batch("CREATE TABLE rows (number INTEGER, bytes BLOB)").unwrap();
        let fill = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 9999)
                    INSERT INTO rows SELECT n, zeroblob(100) FROM numbers";
        assert_eq!(connection.execute(fill, []), Ok(9999));
        assert_ne!(UNSENT.get(), NONE, "what is written is counted");
        let before = Instant::now().checked_sub(APART).map(|long_ago| (long_ago, long_ago));
        WORKING.set(before);
        let sum = connection.query_row("SELECT sum(number + length(bytes)) FROM rows", [], |row| row.get(0));
        assert_eq!(sum, Ok(9999 * 10_000 / 2 + 9999 * 100));
        assert_ne!(WORKING.get(), before, "reading is seen, too");
    }
}
