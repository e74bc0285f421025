//! `GET /v1/owners`: which node decides about which partition, from the totals book. Whoever
//! asks often can ask the owner straight, and is spared the way over another node.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use odometer_sink::totals::PartitionCursor;
use serde::Serialize;

use super::Api;
use super::parameters::Parameters;
use super::problem::Problem;

pub(super) const PARAMETERS: [&str; 1] = ["tenant"];

#[derive(Debug, Serialize)]
pub(crate) struct OwnersAnswer {
    /// How many there are; a tenant's is `(murmur2(tenant) & 0x7fffffff) % partitions`, as
    /// Kafka's producers have it.
    partitions: usize,
    /// Ascending by partition; those that had an owner.
    owners: Vec<Owner>,
}

#[derive(Debug, Serialize)]
struct Owner {
    partition: u32,
    /// Each owner's is larger than that of the one before.
    epoch: u64,
    /// Its `server.public_url`; `None` for an embedded node, which owns all.
    url: Option<String>,
}

/// Answers with every partition, or with a tenant's.
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<OwnersAnswer>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let wanted = parameters.text("tenant")?.map(|tenant| api.cells.partition_of(tenant));
    let cursors = api.books.totals(|book| book.cursors()).await?;
    let cursors = cursors.into_iter().filter(|cursor| wanted.is_none_or(|wanted| wanted == cursor.partition));
    let url = |owner: String| Some(owner).filter(|owner| !owner.is_empty());
    let owners =
        cursors.map(|PartitionCursor { partition, epoch, owner, .. }| Owner { partition, epoch, url: url(owner) });
    Ok(Json(OwnersAnswer { partitions: api.progress.partitions.len(), owners: owners.collect() }))
}
