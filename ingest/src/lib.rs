//! Stage 1: usage in, durable envelopes in the log out.
//!
//! [`emitter`] is the client for agent workers, [`gateway`] the HTTP door, [`bridge`]
//! the door for Kafka producers; all put envelopes through the one seam in [`log`].
//! Nothing here decides about a record beyond whether it may enter the log.

pub mod bridge;
pub mod emitter;
pub mod gateway;
pub mod log;
