//! Runs of large chunks that are fetched before they are asked for.
//!
//! Who reads a large file from front to back waits for the store, then for the chunks to be
//! verified, then for the kernel, each in its turn. Fetched ahead, the store works meanwhile.
//! What always holds: what is here was asked of the store once and is verified by whoever takes
//! it; nobody gets an error of fetching ahead; what is held is bounded over all homes
//! ([`DataCache::try_hold`]), and what nobody takes is let go after a while.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::super::segment::SegmentId;
use super::segments::Segments;

/// What was fetched and is not taken is let go after this.
const REST: Duration = Duration::from_secs(2);
/// Who takes a run that is on its way waits so long before fetching it again.
const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(1);

type Flight = Shared<BoxFuture<'static, Option<Bytes>>>;

/// The runs of one home.
#[derive(Debug, Default)]
pub struct Stream {
    runs: Arc<Mutex<Vec<Run>>>,
    count: AtomicU64,
}

#[derive(Debug)]
struct Run {
    number: u64,
    segment: SegmentId,
    range: Range<u64>,
    flight: Flight,
    /// Until nobody holds the bytes for somebody else any more, here or on their way.
    _room: Arc<OwnedSemaphorePermit>,
}

impl Stream {
    /// Fetches a run, to be kept in `room`.
    pub fn fetch(
        &self,
        segments: &Arc<Segments>,
        segment: SegmentId,
        range: Range<u64>,
        room: OwnedSemaphorePermit,
    ) {
        let mut runs = self.runs.lock();
        if runs.iter().any(|run| run.segment == segment && run.range == range) {
            return;
        }
        let (segments, wanted) = (Arc::clone(segments), range.clone());
        let (room, on_the_way) = {
            let room = Arc::new(room);
            (Arc::clone(&room), room)
        };
        let task = async move {
            let bytes = segments.try_get(segment, wanted).await;
            drop(on_the_way);
            bytes
        };
        let flight = tokio::spawn(task).map(|done| done.ok().flatten()).boxed().shared();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        runs.push(Run { number, segment, range, flight: flight.clone(), _room: room });
        let runs = Arc::downgrade(&self.runs);
        tokio::spawn(async move {
            drop(flight.await);
            tokio::time::sleep(REST).await;
            if let Some(runs) = runs.upgrade() {
                runs.lock().retain(|run| run.number != number);
            }
        });
    }

    /// Lets go what covers a part of these bytes: something in them is not what was written.
    pub fn forget(&self, segment: SegmentId, range: &Range<u64>) {
        self.runs.lock().retain(|run| {
            run.segment != segment || run.range.end <= range.start || range.end <= run.range.start
        });
    }

    /// These bytes of a segment, if they were fetched ahead or are on their way.
    pub async fn take(&self, segment: SegmentId, range: &Range<u64>) -> Option<Bytes> {
        let (flight, start) = {
            let mut runs = self.runs.lock();
            let at = runs.iter().position(|run| {
                run.segment == segment
                    && run.range.start <= range.start
                    && range.end <= run.range.end
            })?;
            let found = (runs[at].flight.clone(), runs[at].range.start);
            if runs[at].range.end == range.end {
                runs.swap_remove(at);
            }
            found
        };
        let bytes = tokio::time::timeout(FLIGHT_WAIT_MAX, flight).await.ok()??;
        let from = usize::try_from(range.start - start).ok()?;
        let to = usize::try_from(range.end - start).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }
}
