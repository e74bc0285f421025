//! Stage 1: usage in, durable envelopes in the log out.
//!
//! [`emitter`] is the client for agent workers, [`gateway`] the HTTP door; both put
//! envelopes through the one seam in [`log`]. Nothing here decides about a record
//! beyond whether it may enter the log.

pub mod emitter;
pub mod gateway;
pub mod log;
