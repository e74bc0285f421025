//! The one binary; all of it is in the library.

use std::ffi::{c_int, c_long};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept, in milliseconds, before the system gets it back. Whoever
/// frees or allocates then gives it back itself, a thread that answers too, and waits each
/// time until every processor knows; mostly it is wanted again within seconds.
const FREED_KEPT_MS: c_long = 10_000;

/// `mi_option_purge_delay` of mimalloc.h, which the crate has no name for.
const PURGE_DELAY: c_int = 15;

fn main() -> ExitCode {
    keep_freed();
    odometer::run()
}

/// What `MIMALLOC_PURGE_DELAY` says in the environment goes before.
#[expect(unsafe_code, reason = "the allocator's own interface")]
fn keep_freed() {
    // SAFETY: no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, FREED_KEPT_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    fn the_option_is_the_one_that_it_is_taken_for() {
        // SAFETY: nobody else sets options.
        let now = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(now(), 1000, "what mimalloc keeps by itself, where MIMALLOC_PURGE_DELAY is not set");
        keep_freed();
        assert_eq!(now(), FREED_KEPT_MS);
    }
}
