//! Agents of one node: their runs within quota, and what a killed process of theirs
//! leaves behind.

use crate::agents_common::{Nodes, a_killed_process_frees_its_slots, hold_if_asked, runtime, the_common_body};
use crate::support::{Process, verify};

#[test]
fn runs_within_quota() {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Process::start(data_dir.path());
    runtime().block_on(async { the_common_body(&Nodes::new(&node.url, &node.url).await).await });
    node.stop();
    let (code, text) = verify(data_dir.path());
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_killed_process_of_agents() {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Process::start(data_dir.path());
    runtime().block_on(async { a_killed_process_frees_its_slots(&Nodes::new(&node.url, &node.url).await).await });
    node.stop();
}

/// Not a test of its own: what the killed process does.
#[test]
fn child() {
    hold_if_asked();
}
