//! What every benchmark sends: the same made-up usage, so that figures of a stage and
//! of the whole can be laid side by side.

pub mod random;
pub mod traffic;
