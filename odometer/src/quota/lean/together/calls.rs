//! Writes to several sockets with one system call: io_submit(2), which does at once what a
//! socket that does not block can take, and has been there since Linux 2.5. Where it is
//! refused (a sandbox, no room for one more of its contexts), nobody waits for it. Nothing
//! says here that a broken connection is to send no signal: Rust's runtime ignores SIGPIPE.

use std::io;
use std::os::fd::RawFd;

use libc::{c_long, c_ulong};
use smallvec::SmallVec;

use super::CONNECTIONS_MAX;

/// `IOCB_CMD_PWRITE` of linux/aio_abi.h.
const WRITE: u16 = 1;

/// What this thread has of the system for that, from the first use on.
#[derive(Default)]
pub(super) enum Calls {
    #[default]
    Untried,
    Open(Context),
    Refused,
}

/// An `aio_context_t`. The system gives it back when the process ends, at the latest.
pub(super) struct Context(c_ulong);

/// `struct iocb` of linux/aio_abi.h; what stays zero in one field.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Call {
    data: u64,
    key_and_flags: u64,
    opcode: u16,
    priority: i16,
    to: u32,
    bytes: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    more: u64,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    call: u64,
    result: i64,
    result_2: i64,
}

const _: () = assert!(size_of::<Call>() == 64 && size_of::<Event>() == 32, "as the system has them");

impl Calls {
    #[cfg(test)]
    pub(super) fn refused() -> Self {
        Self::Refused
    }

    /// Whether there is something to write with.
    pub(super) fn are_there(&mut self) -> bool {
        if let Self::Untried = self {
            *self = Context::open().map_or_else(|error| refused(&error), Self::Open);
        }
        matches!(self, Self::Open(_))
    }

    /// Writes each to its socket, which must not block; tells of each that was tried, by its
    /// place, how much was taken. At most [`CONNECTIONS_MAX`].
    pub(super) fn write<'a>(
        &mut self,
        each: impl Iterator<Item = (RawFd, &'a [u8])>,
        told: impl FnMut(usize, io::Result<usize>),
    ) {
        if let Self::Open(context) = self
            && let Err(error) = context.write(each, told)
        {
            *self = refused(&error);
        }
    }
}

fn refused(error: &io::Error) -> Calls {
    tracing::debug!("answers are sent one by one: {error}");
    Calls::Refused
}

#[expect(unsafe_code, reason = "neither the standard library nor rustix has these calls")]
impl Context {
    fn open() -> io::Result<Self> {
        let mut context: c_ulong = 0;
        // SAFETY: the system writes one number to a live one.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, CONNECTIONS_MAX, &raw mut context) })?;
        Ok(Self(context))
    }

    fn write<'a>(
        &self,
        each: impl Iterator<Item = (RawFd, &'a [u8])>,
        told: impl FnMut(usize, io::Result<usize>),
    ) -> io::Result<()> {
        let call = |(at, (to, bytes)): (usize, (RawFd, &[u8]))| Call {
            data: at as u64,
            opcode: WRITE,
            to: to.cast_unsigned(),
            bytes: bytes.as_ptr() as u64,
            length: bytes.len() as u64,
            ..Call::default()
        };
        let mut calls: SmallVec<[Call; CONNECTIONS_MAX]> = each.take(CONNECTIONS_MAX).enumerate().map(call).collect();
        let addresses: SmallVec<[*mut Call; CONNECTIONS_MAX]> = calls.iter_mut().map(std::ptr::from_mut).collect();
        // SAFETY: the system reads so many addresses, and at each a live call, in which it notes
        // a key; what is to be written lives until all of them have ended.
        let begun =
            checked(unsafe { libc::syscall(libc::SYS_io_submit, self.0, addresses.len(), addresses.as_ptr()) })?;
        self.await_all(begun, told)
    }

    /// Waits until so many calls have ended: those to sockets that do not block have.
    fn await_all(&self, begun: usize, mut told: impl FnMut(usize, io::Result<usize>)) -> io::Result<()> {
        let mut silent: SmallVec<[usize; CONNECTIONS_MAX]> = (0..begun).collect();
        while !silent.is_empty() {
            let mut events = [Event::default(); CONNECTIONS_MAX];
            let (least, for_ever) = (silent.len(), std::ptr::null::<libc::timespec>());
            // SAFETY: the system writes at most so many live events.
            let ended = checked(unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, least, least, events.as_mut_ptr(), for_ever)
            });
            let ended = match ended {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // They may have been sent, and must not be sent again.
                Err(error) => {
                    silent.into_iter().for_each(|at| told(at, Err(error.kind().into())));
                    return Err(error);
                }
                Ok(ended) => ended,
            };
            for Event { data, result, .. } in &events[..ended] {
                let at = *data as usize;
                silent.retain(|one| *one != at);
                // What was not taken, for whatever reason, is tried again by whoever has it.
                told(at, Ok(usize::try_from(*result).unwrap_or(0)));
            }
        }
        Ok(())
    }
}

fn checked(returned: c_long) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "neither the standard library nor rustix has these calls")]
impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing that it was given is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
