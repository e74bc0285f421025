//! `odometer serve`: one node on Kafka, PostgreSQL and ClickHouse.

use std::path::PathBuf;
use std::process::ExitCode;

use super::server::{Server, Surfaces};
use crate::config::{Config, Overrides};
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  odometer migrate --config examples/cluster.toml         # once: topic, tables
  odometer serve --config examples/cluster.toml
  odometer serve --config odometer.toml --roles gateway   # takes usage, counts nothing
  odometer serve --config odometer.toml --roles bridge    # the same from the ingress topic
  odometer serve --config odometer.toml --roles aggregator,raw --listen 127.0.0.1:7071

Nodes with the same [kafka] section share its partitions: start another one and it takes its part, stop one and the \
others go on. Partitions are spread by a consumer group, and what makes two owners of one impossible is the epoch in \
the totals book.

Roles: gateway takes usage over HTTP; bridge takes what any producer puts into the topic `bridge.ingress_topic`, and \
puts what it refuses into `bridge.dead_letter_topic` (see `odometer rejects`); aggregator counts; raw writes the raw \
book. Every process answers questions from the books.

The process prints `ready: http://HOST:PORT` once it takes requests; GET /readyz tells when all partitions that were \
given to it are recovered. It waits a minute for each part that does not answer at the start, and for ever afterwards.

Ctrl-C or SIGTERM drains it: open requests are finished, what was counted is committed, and its partitions go to \
others. Metrics and live answers of a partition are those of the node that counts it; the others send you there (307).";

/// Run one node of a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Configuration file (TOML); see examples/cluster.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Some of gateway, bridge, aggregator and raw [default: all]
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,

    /// Address to serve on; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let overrides = Overrides { listen: args.listen.clone(), roles: args.roles.clone(), ..Overrides::default() };
    let config = Config::load(Some(&args.config), &overrides)?;
    let roles = config.cluster.roles;
    let server = Server::bind(config.server.listen)?;
    let public_url = match config.cluster.public_url.as_str() {
        "" => server.url.clone(),
        url => url.to_owned(),
    };
    let node = Node::serve(&config, &public_url)?;
    eprintln!("serving {roles} as {public_url}");
    server.run(&config, node, Surfaces { gateway: roles.gateway, bridge: roles.bridge, demo: false })
}
