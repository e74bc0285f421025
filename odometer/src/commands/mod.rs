//! What a user can ask for, one file a command.

pub(crate) mod dev;
pub(crate) mod migrate;
pub(crate) mod rejects;
pub(crate) mod serve;
mod server;
pub(crate) mod totals;
pub(crate) mod verify;
