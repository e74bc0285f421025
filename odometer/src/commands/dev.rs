//! `odometer dev`: the whole pipeline in one process on one data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use super::server::{Server, Surfaces};
use crate::config::{Config, Overrides};
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  odometer dev                                  # http://127.0.0.1:7070, data in ./odometer-data
  odometer dev --demo                           # with lively sample traffic and a live summary
  odometer dev --data-dir /var/lib/odometer --listen 127.0.0.1:8080 --config odometer.toml

Then send usage:
  curl -s http://127.0.0.1:7070/v1/events -H 'content-type: application/json' \\
    -d '{\"id\":\"1\",\"tenant\":\"acme\",\"meter\":\"api_call\",\"quantity\":1}'
  curl -s http://127.0.0.1:7070/v1/tenants/acme/usage

The process prints `ready: http://HOST:PORT` once it serves. Ctrl-C or SIGTERM drains it: everything acknowledged is \
counted and written before it ends.";

/// Run everything in one process: gateway, counting, both books, query API.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the log and both books are kept [default: ./odometer-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,

    /// Address to serve on; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Configuration file (TOML); see examples/odometer.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Add lively sample traffic of several tenants, and a live summary.
    #[arg(long)]
    demo: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let overrides = Overrides { listen: args.listen.clone(), data_dir: args.data_dir.clone(), ..Overrides::default() };
    let config = Config::load(args.config.as_deref(), &overrides)?;
    let server = Server::bind(config.server.listen)?;
    let node = Node::start(&config)?;
    server.run(&config, node, Surfaces { gateway: true, bridge: false, demo: args.demo })
}
