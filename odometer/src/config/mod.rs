//! The configuration file.

pub(crate) mod document;
pub(crate) mod duration;
