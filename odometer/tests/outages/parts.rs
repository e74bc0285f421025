//! A set of real parts of this test's own, which it may kill.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::Cluster;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The three parts in a folder of their own, removed when dropped.
pub(crate) struct Parts {
    folder: PathBuf,
}

impl Parts {
    pub(crate) fn up() -> Self {
        let parts = Self { folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("outages") };
        std::fs::create_dir_all(&parts.folder).unwrap();
        // What a run that was killed has left behind.
        parts.services(&["down", "--purge"]);
        parts.borrow_packages();
        parts.services(&["up"]);
        parts
    }

    /// Spares downloading again what is installed for the other tests.
    fn borrow_packages(&self) {
        let usual = || Path::new(REPOSITORY).join("dev/.services");
        let packages = std::env::var_os("ODOMETER_SERVICES_DIR").map_or_else(usual, PathBuf::from).join("packages");
        let own = self.folder.join("packages");
        if packages.is_dir() && !own.exists() {
            // As links, so that installing another version here changes nothing there.
            // Without them, `up` installs.
            let _ = Command::new("cp").arg("-al").arg(packages).arg(own).output();
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, part: &str) {
        self.services(&["kill", part]);
    }

    /// Starts a part again, and waits until it answers.
    pub(crate) fn start(&self, part: &str) {
        self.services(&["start", part]);
    }

    /// A cluster on these parts, whose configuration ends with `more`.
    pub(crate) fn cluster(&self, more: &str) -> Cluster {
        let text = self.services(&["config"]) + more;
        Cluster::prepared("odometer".into(), &text, TempDir::new().unwrap(), None)
    }

    fn services(&self, args: &[&str]) -> String {
        let mut services = Command::new(Path::new(REPOSITORY).join("dev/services"));
        let output = services.args(args).env("ODOMETER_SERVICES_DIR", &self.folder).output().unwrap();
        assert!(output.status.success(), "dev/services {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let mut services = Command::new(Path::new(REPOSITORY).join("dev/services"));
        // The next run tries again.
        let _ = services.args(["down", "--purge"]).env("ODOMETER_SERVICES_DIR", &self.folder).output();
    }
}
