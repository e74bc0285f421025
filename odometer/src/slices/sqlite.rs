//! Lets others in while SQLite writes for a thread that asked for it: the pages of a
//! commit or of a checkpoint are thousands, written in one call that takes tens of
//! milliseconds. The only place between two of them that SQLite shows is the system call
//! that writes one (`xSetSystemCall`, <https://sqlite.org/c3ref/vfs.html>).

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use rusqlite::ffi::{self, sqlite3_vfs_find};

use super::TURN;

/// Between writes that lie further apart whoever writes has slept, or was not let in.
const APART: Duration = Duration::from_micros(500);

thread_local! {
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
    /// When this thread began to write, and when it last did.
    static WRITING: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
}

/// Has the calling thread give way while it writes: nobody waits for its commits.
pub(super) fn give_way_in_writes() {
    GIVES_WAY.set(true);
}

// The bundled SQLite writes at places of 64 bits, whatever the system's own type has.
const _: () = assert!(size_of::<libc::off_t>() == size_of::<i64>());

/// Makes [`give_way_in_writes`] possible. To be called before anybody uses SQLite.
#[expect(unsafe_code, reason = "SQLite's own interface")]
pub(crate) fn look_into_writes() {
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
    if set != Some(ffi::SQLITE_OK) {
        tracing::debug!("SQLite writes without giving way: {set:?}");
    }
}

#[expect(unsafe_code, reason = "stands in for a system call")]
unsafe extern "C" fn pwrite(file: c_int, bytes: *const c_void, length: usize, offset: libc::off_t) -> isize {
    if GIVES_WAY.get() {
        give_way();
    }
    // SAFETY: as it was called.
    unsafe { libc::pwrite(file, bytes, length, offset) }
}

fn give_way() {
    let now = Instant::now();
    let began = match WRITING.get() {
        Some((began, last)) if now.duration_since(last) < APART => began,
        _ => now,
    };
    if now.duration_since(began) < TURN {
        return WRITING.set(Some((began, now)));
    }
    std::thread::yield_now();
    WRITING.set(None);
}
