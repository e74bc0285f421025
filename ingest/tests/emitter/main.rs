//! The emitter over real and fake logs.

mod agent_run;
mod delivery;
mod http;
mod limits;
mod logs;
mod quota;
mod quota_http;
mod quota_model;
mod sequences;
