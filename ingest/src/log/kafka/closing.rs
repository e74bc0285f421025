//! A consumer whose closing is bounded. The client closes only once the coordinator
//! has answered what is under way, and waits for that as long as there is none; a node
//! that is told to stop must not.

use std::ops::Deref;
use std::sync::mpsc::channel;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};

/// How long closing may take: far longer than leaving a group that answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A consumer that is closed when this goes.
pub(crate) struct Closing<C: ConsumerContext + 'static>(Option<BaseConsumer<C>>);

impl<C: ConsumerContext + 'static> Closing<C> {
    pub(crate) fn new(consumer: BaseConsumer<C>) -> Self {
        Self(Some(consumer))
    }
}

impl<C: ConsumerContext + 'static> Deref for Closing<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        self.0.as_ref().expect("it is taken only when this goes")
    }
}

impl<C: ConsumerContext + 'static> Drop for Closing<C> {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        let (closed, is_closed) = channel();
        let spawned = std::thread::Builder::new().name("close consumer".to_owned()).spawn(move || {
            drop(consumer);
            // Nobody may be waiting any more.
            let _ = closed.send(());
        });
        // Without a thread the consumer was closed right here.
        if spawned.is_ok() && is_closed.recv_timeout(CLOSE_TIMEOUT).is_err() {
            tracing::warn!("a consumer is still closing: its coordinator does not answer; it is left behind");
        }
    }
}
