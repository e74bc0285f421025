//! Is this id new? Lane B remembers every caller-made id for the dedupe window;
//! lane A remembers an emitter's own sequence for ever at bytes per source.
//!
//! Lane B: a `Bucket` per stretch of log time, each in shards; the newest
//! bucket's shards are open-addressing `table`s, older ones are frozen one shard
//! at a time into sorted `run`s behind a filter. An id is forgotten with its whole
//! bucket, never earlier than the window promises.

pub(crate) mod bucket;
pub(crate) mod ids;
pub mod marks;
pub(crate) mod run;
pub(crate) mod table;

pub(crate) use ids::{Ids, Seen};
pub use marks::Marks;
