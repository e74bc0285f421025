//! `odometer rejects`: what was refused, kept whole, looked at and sent again. In a
//! cluster these are the dead letters of the bridge; of a data directory, what the raw
//! book holds as rejected.

mod book;
mod letters;
mod replayer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use crate::config::{Config, Overrides};

const EXAMPLES: &str = "\
Examples:
  odometer rejects list --config cluster.toml             # the dead letters of the ingress topic
  odometer rejects show 0/17 --config cluster.toml        # partition/offset, as listed
  odometer rejects replay 0/17 2/4 --config cluster.toml  # once what was wrong is mended
  odometer rejects replay --all --config cluster.toml
  odometer rejects list --data-dir ./odometer-data        # of `odometer dev`, running or stopped

A dead letter is a message of which at least one event was refused; its other events are counted. Replaying sends the \
whole message to the ingress topic again, with its key and headers: what was counted is a duplicate then, what was \
refused is counted if it is good now, else it comes back as a new letter. Letters stay until retention removes them.";

const REPLAY_NOTES: &str = "\
Examples:
  odometer rejects replay 0/17 2/4 --config cluster.toml
  odometer rejects replay --all --config cluster.toml --json

Replaying twice is harmless: ids count once. A letter of which something may have been counted longer ago than the \
dedupe window is left out, and said so, because its good events would count again; look at it with `show`, and send \
the refused events alone.

What a data directory holds as rejected cannot be replayed: see the message.

Exit codes: 0 all of them were sent; 1 some were not, each is named.";

/// List, show and send again what was refused.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what was refused, oldest first within each partition.
    List {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,

        #[command(flatten)]
        common: Common,
    },
    /// Show one of them whole.
    Show {
        /// Its place, as `list` shows it.
        place: String,

        #[command(flatten)]
        common: Common,
    },
    /// Send messages to the ingress topic again.
    #[command(after_help = REPLAY_NOTES)]
    Replay {
        /// Their places, as `list` shows them.
        #[arg(value_name = "PLACE", required_unless_present = "all", conflicts_with = "all")]
        places: Vec<String>,

        /// All that are there now.
        #[arg(long)]
        all: bool,

        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The cluster that this file describes.
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir", conflicts_with = "data_dir")]
    config: Option<PathBuf>,

    /// The data directory of `odometer dev`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One of them in a list.
struct Listed {
    row: [String; COLUMNS],
    json: Value,
}

const COLUMNS: usize = 5;

/// What `list` found.
struct List {
    header: [&'static str; COLUMNS],
    listed: Vec<Listed>,
    has_more: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::List { limit, common } => {
            let list = match place(common)? {
                Place::Cluster(config) => letters::list(&config, *limit)?,
                Place::Files(data_dir) => book::list(&data_dir, *limit)?,
            };
            print_list(list, common.json)?;
        }
        Verb::Show { place: wanted, common } => {
            let shown = match place(common)? {
                Place::Cluster(config) => letters::show(&config, wanted)?,
                Place::Files(data_dir) => book::show(&data_dir, wanted)?,
            };
            print_one(&shown, common.json)?;
        }
        Verb::Replay { places, all, common } => match place(common)? {
            Place::Cluster(config) => return replayer::run(&config, (!all).then_some(places), common.json),
            Place::Files(_) => bail!(
                "what the log of a data directory holds as rejected cannot be sent again: an entry that cannot be \
                 decoded tells no usage, and the verdict on a record stands; send the usage again, corrected, to \
                 POST /v1/events, with the same id: the id of a rejected record is not taken"
            ),
        },
    }
    Ok(ExitCode::SUCCESS)
}

enum Place {
    Cluster(Box<Config>),
    Files(PathBuf),
}

fn place(common: &Common) -> anyhow::Result<Place> {
    match (&common.config, &common.data_dir) {
        (Some(file), _) => Ok(Place::Cluster(Box::new(Config::load(Some(file), &Overrides::default())?))),
        (None, data_dir) => Ok(Place::Files(data_dir.as_deref().unwrap_or(Path::new("./odometer-data")).to_owned())),
    }
}

fn print_list(list: List, json: bool) -> anyhow::Result<()> {
    let List { header, listed, has_more } = list;
    if json {
        let all: Vec<Value> = listed.into_iter().map(|listed| listed.json).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if listed.is_empty() {
        println!("nothing was refused");
    } else {
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(listed.into_iter().map(|listed| listed.row.map(|cell| printable(&cell, false))));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [place, at, count, from] = [0, 1, 2, 3].map(width);
        for [p, a, c, f, reason] in &rows {
            println!("{p:place$}  {a:at$}  {c:>count$}  {f:from$}  {reason}");
        }
    }
    if has_more {
        eprintln!("there are more: raise --limit");
    }
    Ok(())
}

/// The members of the object, one a line; the body last.
fn print_one(shown: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(shown)?);
        return Ok(());
    }
    for (name, value) in shown.as_object().into_iter().flatten().filter(|(name, _)| *name != "body") {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        println!("{name}: {}", printable(&text, false));
    }
    if let Some(body) = shown["body"].as_str() {
        println!("\n{}", printable(body, true));
    }
    Ok(())
}

/// Foreign text for a terminal, which must not take it for commands.
fn printable(text: &str, lines: bool) -> String {
    let safe = |c: char| if c.is_control() && !(lines && c == '\n') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(safe).collect()
}
