//! The binary on a data directory.

use std::path::Path;

pub(crate) use crate::common::*;

impl Process {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::spawn(&["dev", "--data-dir", data_dir.to_str().unwrap()])
    }
}

/// Runs `verify` and returns its exit code and what it printed.
pub(crate) fn verify(data_dir: &Path) -> (i32, String) {
    verify_at(["--data-dir", data_dir.to_str().unwrap()])
}

/// The totals book's content, summed over periods.
pub(crate) fn totals(data_dir: &Path) -> Totals {
    totals_at(["--data-dir", data_dir.to_str().unwrap()])
}
