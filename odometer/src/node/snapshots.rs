//! Snapshot files: one per partition, replaced atomically. They only make recovery
//! faster, so a missing or damaged one is a warning.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use odometer_aggregator::Snapshot;

fn path(directory: &Path, partition: u32) -> PathBuf {
    directory.join(format!("ids-{partition}.snapshot"))
}

/// Writes beside the old file, makes it durable, then takes its place.
pub(crate) fn write(directory: &Path, partition: u32, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let target = path(directory, partition);
    // The directory may be shared: whoever still writes for an older owner must not
    // write into the same file.
    let temporary = target.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, &target)?;
    File::open(directory)?.sync_all()
}

/// The newest snapshot of a partition, when there is a usable one.
pub(crate) fn read(directory: &Path, partition: u32) -> Option<Snapshot> {
    let path = path(directory, partition);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{} cannot be read, ids are learned from the log: {error}", path.display());
            return None;
        }
    };
    match Snapshot::decode(&bytes) {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            tracing::warn!("{} is unusable, ids are learned from the log: {error}", path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_damaged_snapshot_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path(), 0).is_none());
        write(directory.path(), 0, b"ODSNgarbage").unwrap();
        assert!(read(directory.path(), 0).is_none());
    }
}
