//! What is done to index entries after their operation was acknowledged, in the background.
//!
//! All of it may be lost: an entry that stays as it is costs a listing one question more. So the
//! queue is bounded and what does not fit is dropped, and a store that is closed drops the rest.

use super::cluster::Pool;
use super::format::{Entry, State};
use super::index::Index;
use super::object::{self, Described};
use futures::StreamExt;
use object_store::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;

const QUEUE_MAX: usize = 16 << 10;
/// Entries worked on at once.
const CONCURRENT_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) path: Path,
    /// The entry's value; nothing happens when it has another one by then.
    pub(super) old: Vec<u8>,
    pub(super) to: To,
}

#[derive(Debug)]
pub(super) enum To {
    /// The object is known: what its own put wrote.
    Confirmed(Entry),
    /// Nobody knows the object: ask it. An absent one leaves the entry as it is.
    Verified,
    /// The entry's writer has removed the object.
    Removed,
    /// The entry's grace is over: confirm or remove it, whatever the object says.
    Settled,
}

/// The sending end; when the last one is dropped the work ends.
#[derive(Debug, Clone)]
pub(super) struct Confirmer(mpsc::Sender<Job>);

impl Confirmer {
    /// Starts the work on the current runtime.
    pub(super) fn start(pool: Arc<Pool>, index: Arc<Index>) -> Confirmer {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE_MAX);
        tokio::spawn(async move {
            let stream = futures::stream::poll_fn(move |context| jobs.poll_recv(context));
            let work = |job| async {
                run(&pool, &index, job).await;
            };
            stream.for_each_concurrent(CONCURRENT_MAX, work).await;
        });
        Confirmer(sender)
    }

    pub(super) fn send(&self, job: Job) {
        if let Err(error) = self.0.try_send(job) {
            tracing::debug!(%error, "an index entry stays unconfirmed");
        }
    }
}

/// What an object's entry says when it is confirmed.
pub(super) fn confirmed(described: &Described) -> Entry {
    let Described { description, version } = described;
    let state = State::Confirmed {
        version: *version,
        size: description.size,
        modified: description.modified,
        in_parts: description.in_parts,
    };
    Entry { state, nonce: description.nonce, written: SystemTime::now() }
}

/// Does one job; true when the entry was changed.
pub(super) async fn run(pool: &Arc<Pool>, index: &Index, job: Job) -> bool {
    let Job { path, old, to } = job;
    let new = match &to {
        To::Confirmed(entry) => Some(*entry),
        To::Removed => None,
        To::Verified | To::Settled => match object::describe(pool, &path).await {
            Ok(Some(described)) => Some(confirmed(&described)),
            Ok(None) if matches!(to, To::Settled) => None,
            Ok(None) | Err(_) => return false,
        },
    };
    let done = match new {
        Some(entry) => index.swap(&path, &old, &entry.encode()).await,
        None => index.remove(&path, &old).await,
    };
    done.unwrap_or_else(|error| {
        tracing::debug!(%path, ?error, "an index entry stays as it is");
        false
    })
}
