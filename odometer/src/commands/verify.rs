//! `odometer verify`: the proof that both books agree.

use std::path::PathBuf;
use std::process::ExitCode;

/// Prove that the totals book and the raw book agree.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "ODOMETER_DATA_DIR", default_value = "./odometer-data")]
    data_dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}: verify is being wired", args.data_dir.display())
}
