//! Lively sample traffic of several tenants, sent over HTTP to the process's own URL
//! as any client would, and a summary in the terminal. Also an example of use: what
//! is sent is in [`traffic`], how in [`send`].

mod send;
mod summary;
mod traffic;

use std::sync::Arc;

use tokio::task::JoinSet;

use self::send::{Sender, Sent};
use self::summary::Summary;
use self::traffic::Tenant;
use crate::node::cells::Cells;
use crate::node::progress::Progress;

/// Sends and shows until it is dropped, which ends all of it at once.
pub(crate) async fn run(url: String, progress: Arc<Progress>, cells: Cells) {
    let sent = Arc::new(Sent::default());
    let sender = match Sender::new(&url, Arc::clone(&sent)) {
        Ok(sender) => sender,
        Err(error) => {
            tracing::error!("the demo cannot send: {error}");
            return;
        }
    };
    // A source of its own: a second demo on the same data makes no duplicates.
    let run = rand::random::<u32>();
    let tenants = traffic::tenants(run);
    let names = tenants.iter().map(Tenant::name).collect();
    let mut tasks = JoinSet::new();
    for tenant in tenants {
        tasks.spawn(play(tenant, sender.clone()));
    }
    // Not a task of its own: once this is dropped, nothing is drawn any more.
    tokio::join!(summary::show(Summary { url, names, progress, cells, sent }), watch(tasks));
}

/// Tells of parts that end, which none should.
async fn watch(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!("a part of the demo ended: {error}");
        }
    }
}

/// One tenant's traffic, beat by beat.
async fn play(mut tenant: Tenant, sender: Sender) {
    let mut beats = tokio::time::interval(tenant.beat());
    // After a pause the demo goes on; it does not catch up.
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        for request in tenant.next(crate::node::progress::now()) {
            sender.send(request).await;
        }
    }
}
