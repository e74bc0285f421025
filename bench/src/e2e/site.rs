//! Where the pipeline runs: as a node in this process, or as `odometer dev` beside it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use odometer::{Cells, Config, Node};
use odometer_ingest::emitter::HttpTransport;
use odometer_ingest::log::LogAppender;
use reqwest::Client;
use serde::Deserialize;

use super::{Args, Via};

/// Takes what the process says beside its output; goes with the data directory.
const STDERR: &str = "stderr.log";

/// A running pipeline.
pub(crate) enum Site {
    InProcess(Box<Node>),
    Beside(Beside),
}

/// `odometer dev` as a child process. Killed when it is dropped.
pub(crate) struct Beside {
    process: Child,
    url: String,
    /// Shown only when something goes wrong.
    stderr: PathBuf,
}

/// How usage gets in and live answers come out.
#[derive(Clone)]
pub(crate) enum Access {
    InProcess { appender: Arc<dyn LogAppender>, cells: Cells },
    Http { url: String, client: Client },
}

/// `GET /v1/tenants/{tenant}/usage`, as far as it matters here.
#[derive(Deserialize)]
struct LiveAnswer {
    usage: Vec<LiveMeter>,
}

#[derive(Deserialize)]
struct LiveMeter {
    records: u64,
}

impl Site {
    pub(crate) fn start(args: &Args, data_dir: &Path) -> anyhow::Result<Self> {
        if args.via == Via::Emitter {
            let config = Config::in_directory(data_dir.to_owned());
            let node = if args.without_raw { Node::start_without_raw_book(&config) } else { Node::start(&config) };
            return Ok(Self::InProcess(Box::new(node?)));
        }
        let binary = match &args.odometer {
            Some(path) => path.clone(),
            None => beside_this_one()?,
        };
        Beside::start(&binary, data_dir).map(Self::Beside)
    }

    pub(crate) fn access(&self) -> Access {
        match self {
            Self::InProcess(node) => Access::InProcess { appender: node.appender(), cells: node.cells().clone() },
            Self::Beside(beside) => Access::Http { url: beside.url.clone(), client: Client::new() },
        }
    }

    /// The process that the pipeline runs in, unless it is this one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::InProcess(_) => None,
            Self::Beside(beside) => Some(beside.process.id()),
        }
    }

    /// Lets it finish what it has, and stops it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::InProcess(node) => match node.drain()?.failure {
                Some(failure) => bail!("the node failed: {failure}"),
                None => Ok(()),
            },
            Self::Beside(beside) => beside.stop(),
        }
    }
}

impl Beside {
    fn start(binary: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        let stderr = data_dir.join(STDERR);
        let mut process = Command::new(binary)
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env("ODOMETER_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("{} cannot be started; build it or give --odometer", binary.display()))?;
        let stdout = process.stdout.take().context("the process has no output")?;
        // Owned from here on, so that it does not outlive an error.
        let mut beside = Self { process, url: String::new(), stderr };
        for line in BufReader::new(stdout).lines() {
            if let Some(url) = line?.strip_prefix("ready: ") {
                url.trim().clone_into(&mut beside.url);
                return Ok(beside);
            }
        }
        bail!("{} ended before it was ready: {}", binary.display(), beside.complaints())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        ensure!(asked.success(), "the process could not be told to stop");
        let status = self.process.wait()?;
        ensure!(status.success(), "odometer ended with {status}: {}", self.complaints());
        Ok(())
    }

    /// What it said beside its output.
    fn complaints(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It has ended already unless the run failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Access {
    /// The gateway's address.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::InProcess { .. } => None,
            Self::Http { url, .. } => Some(url),
        }
    }

    /// A way into the log for an emitter on the current runtime.
    pub(crate) async fn appender(&self) -> anyhow::Result<Arc<dyn LogAppender>> {
        Ok(match self {
            Self::InProcess { appender, .. } => Arc::clone(appender),
            Self::Http { url, .. } => Arc::new(HttpTransport::connect(url).await?),
        })
    }

    /// Records that live usage shows of a tenant.
    pub(crate) async fn live_records(&self, tenant: &str) -> anyhow::Result<u64> {
        match self {
            Self::InProcess { cells, .. } => Ok(cells.of_tenant(tenant).iter().map(|usage| usage.cell.records()).sum()),
            Self::Http { url, client } => {
                let response = client.get(format!("{url}/v1/tenants/{tenant}/usage")).send().await?;
                let answer: LiveAnswer = response.error_for_status()?.json().await?;
                Ok(answer.usage.iter().map(|meter| meter.records).sum())
            }
        }
    }
}

fn beside_this_one() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("odometer"))
}
