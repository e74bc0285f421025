//! Where the pipeline runs: as a node in this process, as `odometer dev` beside it, or
//! as `odometer serve` on a cluster's parts.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use odometer::{Cells, Config, Node};
use odometer_ingest::emitter::HttpTransport;
use odometer_ingest::log::LogAppender;
use odometer_ingest::log::kafka::KafkaLog;
use reqwest::Client;
use serde::Deserialize;

use super::books::Books;
use super::cluster::Cluster;
use super::{Footing, Via};

/// Takes what the process says beside its output; goes with the data directory.
const STDERR: &str = "stderr.log";
/// A consumer group gives out its partitions within seconds.
const READY_WAIT: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(100);

/// What is to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) footing: Footing,
    pub(crate) via: Via,
    pub(crate) with_raw: bool,
    /// Not before [`Site::serve`]; cluster only.
    pub(crate) starts_later: bool,
    /// The binary, unless it is beside this one.
    pub(crate) odometer: Option<PathBuf>,
}

/// A running pipeline.
pub(crate) enum Site {
    InProcess(Box<Node>),
    Beside(Beside),
    Cluster(Box<OnCluster>),
}

/// A cluster's parts and the one node on them, once it runs.
pub(crate) struct OnCluster {
    cluster: Cluster,
    binary: PathBuf,
    directory: PathBuf,
    /// Where an emitter writes; none where usage goes through the gateway.
    log: Option<KafkaLog>,
    node: Option<Beside>,
}

/// `odometer` as a child process. Killed when it is dropped.
pub(crate) struct Beside {
    process: Child,
    url: String,
    /// Where it answers gRPC, if its configuration says so.
    grpc: Option<String>,
    /// Shown only when something goes wrong.
    stderr: PathBuf,
}

/// How usage gets in and live answers come out.
#[derive(Clone)]
pub(crate) enum Access {
    InProcess {
        appender: Arc<dyn LogAppender>,
        cells: Cells,
    },
    /// With an appender, usage goes straight into the log.
    Http {
        url: String,
        client: Client,
        appender: Option<Arc<dyn LogAppender>>,
    },
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

/// `POST /v1/quota/check`, as far as it matters here.
#[derive(Deserialize)]
struct Decided {
    limits: Vec<DecidedLimit>,
}

#[derive(Deserialize)]
struct DecidedLimit {
    used: String,
}

impl Plan {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        match &self.odometer {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("odometer")),
        }
    }
}

impl Site {
    pub(crate) fn start(plan: &Plan, data_dir: &Path) -> anyhow::Result<Self> {
        if plan.footing == Footing::Cluster {
            return OnCluster::start(plan, data_dir).map(|site| Self::Cluster(Box::new(site)));
        }
        if plan.via == Via::Emitter {
            let config = Config::in_directory(data_dir.to_owned());
            let node = if plan.with_raw { Node::start(&config) } else { Node::start_without_raw_book(&config) };
            return Ok(Self::InProcess(Box::new(node?)));
        }
        let mut command = Command::new(plan.binary()?);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        Beside::start(command, data_dir).map(Self::Beside)
    }

    /// Starts the node of a cluster that was prefilled.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Cluster(site) => site.serve(),
            Self::InProcess(_) | Self::Beside(_) => Ok(()),
        }
    }

    /// The books that it writes.
    pub(crate) fn books(&self, data_dir: &Path) -> Books {
        match self {
            Self::InProcess(_) | Self::Beside(_) => Books::in_directory(data_dir),
            Self::Cluster(site) => site.books(),
        }
    }

    pub(crate) fn access(&self) -> Access {
        match self {
            Self::InProcess(node) => Access::InProcess { appender: node.appender(), cells: node.cells().clone() },
            Self::Beside(beside) => Access::Http { url: beside.url.clone(), client: Client::new(), appender: None },
            Self::Cluster(site) => site.access(),
        }
    }

    /// The process that the pipeline runs in, unless it is this one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::InProcess(_) => None,
            Self::Beside(beside) => Some(beside.pid()),
            Self::Cluster(site) => site.pid(),
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
            Self::Cluster(site) => site.stop(),
        }
    }
}

impl OnCluster {
    pub(crate) fn start(plan: &Plan, data_dir: &Path) -> anyhow::Result<Self> {
        let binary = plan.binary()?;
        let cluster = Cluster::prepare(&binary, data_dir, plan.with_raw)?;
        let log = (plan.via == Via::Emitter).then(|| cluster.log()).transpose()?;
        let mut site = Self { cluster, binary, directory: data_dir.to_owned(), log, node: None };
        if !plan.starts_later {
            site.serve()?;
            site.await_ready()?;
        }
        Ok(site)
    }

    /// Starts the node.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--roles", self.cluster.roles, "--config"]);
        command.arg(&self.cluster.config);
        self.node = Some(Beside::start(command, &self.directory)?);
        Ok(())
    }

    /// Waits until the node counts every partition.
    pub(crate) fn await_ready(&self) -> anyhow::Result<()> {
        self.node.as_ref().map_or(Ok(()), Beside::await_ready)
    }

    /// Lets the node finish what it has, and stops it; it can be started again.
    pub(crate) fn stop_node(&mut self) -> anyhow::Result<()> {
        self.node.take().map_or(Ok(()), Beside::stop)
    }

    /// Lets the node finish what it has, and stops everything.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.log.take().map_or(Ok(()), KafkaLog::close)?;
        self.stop_node()
    }

    pub(crate) fn access(&self) -> Access {
        Access::Http {
            url: self.node.as_ref().map_or_else(String::new, |node| node.url.clone()),
            client: Client::new(),
            appender: self.log.as_ref().map(KafkaLog::appender),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Beside::pid)
    }

    /// The books that it writes.
    pub(crate) fn books(&self) -> Books {
        Books::Cluster { postgres: self.cluster.postgres_url().to_owned(), clickhouse: self.cluster.clickhouse.clone() }
    }

    /// The processes that work for it in PostgreSQL.
    pub(crate) fn postgres_pids(&self) -> anyhow::Result<Vec<u32>> {
        self.cluster.postgres_pids()
    }
}

impl Beside {
    pub(crate) fn start(mut command: Command, data_dir: &Path) -> anyhow::Result<Self> {
        let stderr = data_dir.join(STDERR);
        let name = command.get_program().to_owned();
        let mut process = command
            .env("ODOMETER_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("{} cannot be started; build it or give --odometer", name.display()))?;
        let stdout = process.stdout.take().context("the process has no output")?;
        // Owned from here on, so that it does not outlive an error.
        let mut beside = Self { process, url: String::new(), grpc: None, stderr };
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(grpc) = line.strip_prefix("grpc: ") {
                beside.grpc = Some(grpc.trim().to_owned());
            }
            if let Some(url) = line.strip_prefix("ready: ") {
                url.trim().clone_into(&mut beside.url);
                return Ok(beside);
            }
        }
        bail!("{} ended before it was ready: {}", name.display(), beside.complaints())
    }

    /// Waits until every partition is counted.
    fn await_ready(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = format!("{}/readyz", self.url);
        let started = Instant::now();
        while !runtime.block_on(reqwest::get(&url))?.status().is_success() {
            ensure!(started.elapsed() < READY_WAIT, "{url} does not answer 200: {}", self.complaints());
            std::thread::sleep(READY_POLL);
        }
        Ok(())
    }

    pub(crate) fn grpc(&self) -> Option<&str> {
        self.grpc.as_deref()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
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
            Self::Http { appender: Some(appender), .. } => Arc::clone(appender),
            Self::Http { url, .. } => Arc::new(HttpTransport::connect(url).await?),
        })
    }

    /// Records that live usage shows of a tenant.
    pub(crate) async fn live_records(&self, tenant: &str) -> anyhow::Result<u64> {
        match self {
            Self::InProcess { cells, .. } => Ok(cells.of_tenant(tenant).iter().map(|usage| usage.cell.records()).sum()),
            Self::Http { url, client, .. } => {
                let response = client.get(format!("{url}/v1/tenants/{tenant}/usage")).send().await?;
                let answer: LiveAnswer = response.error_for_status()?.json().await?;
                Ok(answer.usage.iter().map(|meter| meter.records).sum())
            }
        }
    }

    /// What a check of `tenant` finds used of a meter, in base units; over HTTP only.
    pub(crate) async fn decided_on(&self, tenant: &str, meter: &str) -> anyhow::Result<u64> {
        let Self::Http { url, client, .. } = self else { bail!("nobody is asked for decisions in this process") };
        let body = serde_json::json!({"tenant": tenant, "items": [{"meter": meter, "amount": 0}]});
        let response = client.post(format!("{url}/v1/quota/check")).json(&body).send().await?;
        let decided: Decided = response.error_for_status()?.json().await?;
        let [limit] = decided.limits.as_slice() else { bail!("a check of {meter} looked at other limits") };
        limit.used.parse().context("what is used is a whole number")
    }
}
