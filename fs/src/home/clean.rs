//! The end of segments: objects without living chunks are deleted.
//!
//! An object goes only when the transaction that emptied it is durable and readers that looked
//! up a chunk before had time to fetch it; its record goes after the object, so that no crash
//! forgets one. A reader that comes too late anyway looks up its chunk again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::core::Core;
use super::error::Result;
use super::key;
use super::record::SegmentRecord;
use super::segment::{SEGMENT_FOLDER, SegmentId};

/// How long an empty segment stays for readers that are on their way.
const GRACE: Duration = Duration::from_secs(10);
/// Rows per look into the table.
const ROWS: usize = 4096;

/// Empty segments that wait to be deleted.
#[derive(Debug, Default)]
pub struct Graves {
    waiting: Mutex<Vec<(SegmentId, u64, Instant)>>,
    busy: AtomicBool,
}

impl Graves {
    /// Segments that the transactions beside them emptied.
    pub fn extend(&self, empty: Vec<(SegmentId, u64)>) {
        let now = Instant::now();
        self.waiting.lock().extend(empty.into_iter().map(|(id, txn)| (id, txn, now)));
    }

    /// When the next one is due.
    pub fn next_visit(&self) -> Option<Duration> {
        let oldest = self.waiting.lock().iter().map(|(.., since)| *since).min()?;
        Some((oldest + GRACE).saturating_duration_since(Instant::now()))
    }

    /// Deletes what is due, in the background.
    pub fn visit(&self, core: &Arc<Core>) {
        let durable = core.durable.borrow().txn;
        let now = Instant::now();
        let closing = core.closing.load(Ordering::Acquire);
        let due = |(_, txn, since): &(SegmentId, u64, Instant)| {
            !closing && *txn <= durable && now >= *since + GRACE
        };
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(due) || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (due, later): (Vec<_>, Vec<_>) = waiting.drain(..).partition(due);
        *waiting = later;
        drop(waiting);
        let core = Arc::clone(core);
        core.runtime.clone().spawn(async move {
            for (id, txn, _) in due {
                if let Err(error) = core.delete_segment(id).await {
                    tracing::debug!(home = %core.name, ?id, %error, "an empty segment stays for now");
                    core.graves.extend(vec![(id, txn)]);
                }
            }
            core.graves.busy.store(false, Ordering::Release);
            core.wake.notify_one();
        });
    }
}

impl Core {
    /// What the tables say of a segment.
    pub async fn segment_record(&self, id: SegmentId) -> Result<Option<SegmentRecord>> {
        let value = self.table.get(&key::segment(id)).await?;
        Ok(value.map(|value| SegmentRecord::decode(&value)).transpose()?)
    }

    /// Deletes the object of an empty segment, then its record.
    async fn delete_segment(&self, id: SegmentId) -> Result<()> {
        // Nothing brings a chunk into a segment that was empty, except a rescue by hand.
        if self.segment_record(id).await?.is_none_or(|record| record.live_chunks > 0) {
            return Ok(());
        }
        let path = self.path(&id.object_name());
        match self.data.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                return Err(super::Error::unavailable(format_args!("{path}: {error}")));
            }
        }
        let mut state = self.state.lock();
        state.txn.delete(key::segment(id));
        Ok(())
    }

    /// Looks for what an earlier daemon left: segments without living chunks, and objects that
    /// it wrote but did not live to enter into a transaction. `epoch` is that of this writer
    /// when it opened the home: what is older has no writer any more.
    ///
    /// # Errors
    /// What the tables or the store say.
    pub async fn find_graves(&self, epoch: u64) -> Result<()> {
        let known = self.find_empty().await?;
        let folder = self.path(SEGMENT_FOLDER);
        let mut objects = self.data.list(Some(&folder));
        while let Some(object) = objects.next().await {
            let failed = |error| super::Error::unavailable(format_args!("{folder}: {error}"));
            let location = object.map_err(failed)?.location;
            let id = location.filename().and_then(SegmentId::parse);
            let Some(id) = id.filter(|id| id.epoch() < epoch && !known.contains(id)) else {
                continue;
            };
            tracing::info!(home = %self.name, segment = %id, "deleting what no transaction knows");
            match self.data.delete(&location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Segments without living chunks; gives all that have a record.
    async fn find_empty(&self) -> Result<HashSet<SegmentId>> {
        let mut known = HashSet::new();
        let mut range = key::range_of_kind(key::SEGMENT);
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(known) };
            range.start = [last, &[0][..]].concat();
            let mut empty = Vec::new();
            for (key, value) in &rows {
                let Some(id) = key::number_of(key) else { continue };
                known.insert(SegmentId(id));
                let record = SegmentRecord::decode(value)?;
                self.candidates.note(SegmentId(id), &record);
                if record.live_chunks == 0 {
                    empty.push((SegmentId(id), 0));
                }
            }
            self.graves.extend(empty);
        }
    }
}
