//! Which node answers for a partition, as the totals book says, and the way there: a
//! question goes over once, and once more where who was asked names its successor.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::forward::{Owner, ROUTE, Reply, TERMS_ROUTE, Told, Word, decode, encode};
use crate::api::books::Books;
use crate::quota::service::QuotaRequest;

/// How long what the book said is believed. A stale owner refuses, so that this bounds
/// only how long questions go astray.
const BELIEVED: Duration = Duration::from_millis(500);
/// Longest wait for the owner's answer: a strict one waits for the log there.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Longest wait for the book: who asks waits for it, and there is an answer without it.
const BOOK_MAX: Duration = Duration::from_secs(1);

/// Why no owner said anything.
#[derive(Debug)]
pub(super) struct Astray(pub(super) String);

pub(super) struct Owners {
    books: Arc<Books>,
    own_url: Arc<str>,
    client: reqwest::Client,
    known: RwLock<Known>,
    /// Decisions that owners were asked for.
    pub(super) asked: AtomicU64,
    /// Those of them that did not come.
    pub(super) astray: AtomicU64,
}

#[derive(Default)]
struct Known {
    read: Option<Instant>,
    /// By partition; none where nobody said.
    owners: Vec<Option<Owner>>,
}

/// The epoch of an owner; zero, which nobody has, where there is none.
fn epoch_of(owner: &Option<Owner>) -> u64 {
    owner.as_ref().map_or(0, |owner| owner.epoch)
}

impl Owners {
    pub(super) fn new(books: Arc<Books>, own_url: Arc<str>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build().context("no HTTP client can be made")?;
        let (asked, astray) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { books, own_url, client, known: RwLock::default(), asked, astray })
    }

    /// The other node that answers for `partition`.
    pub(super) async fn of(&self, partition: u32) -> Option<Owner> {
        if let Some(known) = self.believed(partition) {
            return known;
        }
        // From before what the book says, which may be slow to say it.
        let asked = Instant::now();
        let cursors = tokio::time::timeout(BOOK_MAX, self.books.totals(|book| book.cursors())).await;
        // Without the book nobody is known, also not from before: it may be long ago.
        let cursors = cursors.ok()?.ok()?;
        let mut owners = vec![None; cursors.iter().map(|cursor| cursor.partition as usize + 1).max()?];
        for cursor in cursors.into_iter().filter(|cursor| !cursor.owner.is_empty()) {
            owners[cursor.partition as usize] = Some(Owner { epoch: cursor.epoch, url: cursor.owner });
        }
        self.replace(Known { read: Some(asked), owners });
        self.believed(partition).flatten()
    }

    /// Takes what the book said, except where something newer is known by now.
    fn replace(&self, mut found: Known) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (found, known) in found.owners.iter_mut().zip(&mut known.owners) {
            if epoch_of(known) > epoch_of(found) {
                *found = known.take();
            }
        }
        found.read = found.read.max(known.read);
        *known = found;
    }

    fn believed(&self, partition: u32) -> Option<Option<Owner>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read.filter(|read| read.elapsed() < BELIEVED)?;
        let owner = known.owners.get(partition as usize).cloned().flatten();
        Some(owner.filter(|owner| *owner.url != *self.own_url))
    }

    /// Believes a node that says who came after it, until the book is read again.
    fn learn(&self, partition: u32, owner: &Owner) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.owners.get_mut(partition as usize)
            && epoch_of(place) < owner.epoch
        {
            *place = Some(owner.clone());
        }
    }

    /// Asks the owner for a decision.
    pub(super) async fn ask(&self, partition: u32, owner: &Owner, request: &QuotaRequest) -> Result<Word, Astray> {
        self.asked.fetch_add(1, Relaxed);
        let said = self.ask_also_its_successor(partition, owner, request).await;
        if said.is_err() {
            self.astray.fetch_add(1, Relaxed);
        }
        said
    }

    async fn ask_also_its_successor(
        &self,
        partition: u32,
        owner: &Owner,
        request: &QuotaRequest,
    ) -> Result<Word, Astray> {
        let mut reply = self.ask_one(owner, request).await?;
        if let Reply::NotOwner { successor: Some(successor) } = &reply
            && successor.epoch > owner.epoch
            && *successor.url != *self.own_url
        {
            self.learn(partition, successor);
            reply = self.ask_one(successor, request).await?;
        }
        match reply {
            Reply::Owner(word) => Ok(word),
            Reply::NotOwner { .. } => Err(Astray(format!("partition {partition} is changing its owner"))),
        }
    }

    async fn ask_one(&self, owner: &Owner, request: &QuotaRequest) -> Result<Reply, Astray> {
        self.post(format!("{}{ROUTE}", owner.url), encode(&(owner.epoch, request))).await
    }

    /// Asks an owner what a tenant of its own was given, and for all plans.
    pub(super) async fn told(&self, owner: &Owner, tenant: &str) -> Result<Told, Astray> {
        self.post(format!("{}{TERMS_ROUTE}", owner.url), tenant.as_bytes().to_vec()).await
    }

    async fn post<T: bincode::Decode<()>>(&self, url: String, body: Vec<u8>) -> Result<T, Astray> {
        let sent = self.client.post(&url).body(body).send().await;
        let answer = sent.map_err(|error| Astray(format!("the owner at {url} does not answer: {error}")))?;
        if !answer.status().is_success() {
            return Err(Astray(format!("the owner at {url} answers {}", answer.status())));
        }
        let bytes = answer.bytes().await.map_err(|error| Astray(format!("the owner's answer broke off: {error}")))?;
        decode(&bytes).ok_or_else(|| Astray(format!("the answer of {url} cannot be read; is it another build?")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Bytes;
    use axum::extract::State;
    use axum::routing::post;
    use odometer_schemas::quota::{Check, Who};

    use super::*;
    use crate::node::files::Files;
    use crate::node::footing::BookPlace;

    const PARTITION: u32 = 1;

    /// A node that answers each question with the next of `replies`, and the epochs that it
    /// was asked in.
    async fn node(replies: Vec<Reply>) -> (String, Arc<Mutex<Vec<u64>>>) {
        type Shared = (Arc<Mutex<Vec<Reply>>>, Arc<Mutex<Vec<u64>>>);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let epochs = Arc::<Mutex<Vec<u64>>>::default();
        let shared: Shared = (Arc::new(Mutex::new(replies)), Arc::clone(&epochs));
        let answer = async |State((replies, epochs)): State<Shared>, body: Bytes| {
            let (epoch, _) = decode::<(u64, QuotaRequest)>(&body).unwrap();
            epochs.lock().unwrap().push(epoch);
            encode(&replies.lock().unwrap().remove(0))
        };
        let router = axum::Router::new().route(ROUTE, post(answer)).with_state(shared);
        tokio::spawn(axum::serve(listener, router).into_future());
        (url, epochs)
    }

    fn owners() -> Owners {
        let nowhere = Files::new(std::path::Path::new("/nowhere"));
        let owners = Owners::new(Arc::new(Books::new(BookPlace::Files(nowhere))), "http://own".into()).unwrap();
        *owners.known.write().unwrap() = Known { read: Some(Instant::now()), owners: vec![None; 2] };
        owners
    }

    fn owner(epoch: u64, url: &str) -> Owner {
        Owner { epoch, url: url.to_owned() }
    }

    fn not_owner(successor: Option<Owner>) -> Reply {
        Reply::NotOwner { successor }
    }

    fn busy() -> Reply {
        Reply::Owner(Word::Unavailable { why: "busy".to_owned() })
    }

    fn question() -> QuotaRequest {
        let who = Who { tenant: "acme".to_owned(), subject: None, key: None };
        QuotaRequest::Check(Check { who, items: Vec::new() })
    }

    #[tokio::test]
    async fn a_stale_owner_s_hint_is_followed_once_and_remembered() {
        let (new, new_epochs) = node(vec![busy(), not_owner(Some(owner(9, "http://nowhere.invalid")))]).await;
        let (old, old_epochs) = node(vec![not_owner(Some(owner(4, &new))), not_owner(Some(owner(4, &new)))]).await;
        let owners = owners();
        let word = owners.ask(PARTITION, &owner(3, &old), &question()).await.unwrap();
        assert!(matches!(word, Word::Unavailable { why } if why == "busy"), "the owner's own word");
        assert_eq!(owners.known.read().unwrap().owners, [None, Some(owner(4, &new))]);
        let Astray(why) = owners.ask(PARTITION, &owner(3, &old), &question()).await.unwrap_err();
        assert_eq!(why, "partition 1 is changing its owner");
        assert_eq!((&*old_epochs.lock().unwrap(), &*new_epochs.lock().unwrap()), (&vec![3, 3], &vec![4, 4]));
        assert_eq!((owners.asked.load(Relaxed), owners.astray.load(Relaxed)), (2, 1));
    }

    #[tokio::test]
    async fn a_hint_that_leads_nowhere_new_is_not_followed() {
        let hints = [None, Some(owner(3, "http://older.invalid")), Some(owner(4, "http://own"))];
        let (url, epochs) = node(hints.clone().map(not_owner).into()).await;
        let owners = owners();
        for _ in &hints {
            let Astray(why) = owners.ask(PARTITION, &owner(3, &url), &question()).await.unwrap_err();
            assert_eq!(why, "partition 1 is changing its owner");
        }
        assert_eq!(*epochs.lock().unwrap(), [3, 3, 3]);
        assert_eq!(owners.known.read().unwrap().owners, [None, None]);
    }

    #[test]
    fn a_book_that_was_slow_takes_nothing_newer_away() {
        let owners = owners();
        owners.learn(PARTITION, &owner(4, "http://new"));
        owners.learn(PARTITION, &owner(3, "http://old"));
        owners
            .replace(Known { read: None, owners: vec![Some(owner(1, "http://first")), Some(owner(3, "http://old"))] });
        let known = owners.known.read().unwrap();
        assert_eq!(known.owners, [Some(owner(1, "http://first")), Some(owner(4, "http://new"))]);
        assert!(known.read.is_some());
    }
}
