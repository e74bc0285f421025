//! The data directory of the embedded footing: which file is what.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Paths inside one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The usage log.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log.sqlite")
    }

    /// The totals book.
    pub(crate) fn totals(&self) -> PathBuf {
        self.directory.join("totals.sqlite")
    }

    /// The raw book.
    pub(crate) fn raw(&self) -> PathBuf {
        self.directory.join("raw.sqlite")
    }

    /// Snapshots of the remembered ids.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.directory.join("snapshots")
    }

    /// Makes the directory and locks it for this process. The kernel lets go of the
    /// lock when the process ends, however it ends.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        let directory = self.directory.display();
        fs::create_dir_all(&self.directory).with_context(|| format!("data directory {directory} cannot be made"))?;
        let file = File::create(self.directory.join("lock"))
            .with_context(|| format!("data directory {directory} cannot be written"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "data directory {directory} is in use by another odometer process; stop it or choose another --data-dir"
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("data directory {directory} cannot be locked"))
            }
        }
    }
}
