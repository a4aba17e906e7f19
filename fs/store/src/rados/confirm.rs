//! What is done to index entries after their operation was acknowledged, in the background.
//!
//! All of it may be lost: an entry that stays as it is costs a listing one question more. So the
//! queue is bounded and what does not fit is dropped, and a store that is closed drops the rest.
//! Nobody waits for it either, so what comes in a moment is gathered, and entries of one shard are
//! changed by one request.

use super::cluster::Pool;
use super::format::{self, Entry, State};
use super::index::{Change, Index};
use super::object::{self, Described};
use futures::stream::{self, StreamExt};
use object_store::path::Path;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

const QUEUE_MAX: usize = 16 << 10;
/// Requests under way at once.
const CONCURRENT_MAX: usize = 64;
/// What comes within this time is gathered.
const GATHER_TIME: Duration = Duration::from_millis(100);
/// Entries that one request changes.
const CHANGES_MAX: usize = 64;

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
            let mut gathered = Vec::new();
            while jobs.recv_many(&mut gathered, QUEUE_MAX).await > 0 {
                if !jobs.is_closed() {
                    tokio::time::sleep(GATHER_TIME).await;
                }
                while let Ok(job) = jobs.try_recv() {
                    gathered.push(job);
                }
                run_all(&pool, &index, gathered.drain(..)).await;
            }
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

/// Work for one request, or for one after the other.
enum Work {
    Together(u8, Vec<Change>),
    Alone(Job),
}

async fn run_all(pool: &Arc<Pool>, index: &Index, jobs: impl Iterator<Item = Job>) {
    let work = stream::iter(divide(jobs)).map(|work| async move {
        match work {
            Work::Together(shard, changes) => change(index, shard, changes).await,
            Work::Alone(job) => {
                run(pool, index, job).await;
            }
        }
    });
    work.buffer_unordered(CONCURRENT_MAX).collect::<()>().await;
}

fn divide(jobs: impl Iterator<Item = Job>) -> Vec<Work> {
    let mut work = Vec::new();
    let mut shards: BTreeMap<u8, BTreeMap<Path, Change>> = BTreeMap::new();
    for Job { path, old, to } in jobs {
        let new = match to {
            To::Confirmed(entry) => Some(entry),
            To::Removed => None,
            to @ (To::Verified | To::Settled) => {
                work.push(Work::Alone(Job { path, old, to }));
                continue;
            }
        };
        let shard = format::shard_of(&path);
        let changes = shards.entry(shard).or_default();
        // What comes later for an entry knows a later value of it.
        changes.insert(path.clone(), Change { path, old, new });
        if changes.len() == CHANGES_MAX {
            let changes = std::mem::take(changes).into_values().collect();
            work.push(Work::Together(shard, changes));
        }
    }
    let rest = shards.into_iter().filter(|(_, changes)| !changes.is_empty());
    work.extend(
        rest.map(|(shard, changes)| Work::Together(shard, changes.into_values().collect())),
    );
    work
}

/// Changes entries of one shard together, or each by itself where one has another value by now.
async fn change(index: &Index, shard: u8, changes: Vec<Change>) {
    match index.change_all(shard, &changes).await {
        Ok(true) => return,
        Ok(false) if changes.len() > 1 => {}
        Ok(false) | Err(_) => {
            tracing::debug!(shard, entries = changes.len(), "index entries stay as they are");
            return;
        }
    }
    for one in changes {
        change_one(index, one).await;
    }
}

async fn change_one(index: &Index, change: Change) -> bool {
    let Change { path, old, new } = change;
    let done = match new {
        Some(entry) => index.swap(&path, &old, &entry.encode()).await,
        None => index.remove(&path, &old).await,
    };
    done.unwrap_or_else(|error| {
        tracing::debug!(%path, ?error, "an index entry stays as it is");
        false
    })
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
    change_one(index, Change { path, old, new }).await
}

#[cfg(test)]
mod tests;
