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
    /// Shared with the request, which goes on when a run is taken or let go before it came.
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
        let room = Arc::new(room);
        let of_task = Arc::clone(&room);
        let task = async move {
            let _room = of_task;
            segments.try_get(segment, wanted).await
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

#[cfg(test)]
mod tests {
    use super::super::super::trouble::Troubles;
    use super::super::cache::{DataCache, HELD_BYTES_MAX};
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};

    const SEGMENT: SegmentId = SegmentId(7);

    async fn segments(cache: &Arc<DataCache>) -> Arc<Segments> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let object = Path::from(format!("home/{}", SEGMENT.object_name()));
        store.put(&object, vec![5; 1 << 20].into()).await.expect("puts");
        let (prefix, troubles) = (Path::from("home"), Arc::new(Troubles::default()));
        Segments::new(0, "home".into(), prefix, store, Arc::clone(cache), troubles)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_let_go_and_gives_its_room_back() {
        let cache = DataCache::new(1 << 20);
        let (segments, stream) = (segments(&cache).await, Stream::default());
        let room = cache.try_hold(HELD_BYTES_MAX).expect("all of it");
        assert!(cache.try_hold(1).is_none());
        stream.fetch(&segments, SEGMENT, 0..1 << 20, room);
        tokio::time::sleep(REST / 2).await;
        assert!(cache.try_hold(1).is_none(), "it is there for who may come");
        tokio::time::sleep(REST).await;
        assert!(cache.try_hold(HELD_BYTES_MAX).is_some());
        assert_eq!(stream.take(SEGMENT, &(0..1 << 20)).await, None);
    }

    #[tokio::test]
    async fn what_is_taken_to_its_end_is_taken_once_and_what_is_not_there_is_nothing() {
        let cache = DataCache::new(1 << 20);
        let (segments, stream) = (segments(&cache).await, Stream::default());
        let fetch = |segment, range: Range<u64>| {
            let room = cache.try_hold(range.end - range.start).expect("room");
            stream.fetch(&segments, segment, range, room);
        };
        fetch(SEGMENT, 100..1000);
        let part = stream.take(SEGMENT, &(200..300)).await.expect("is there");
        assert_eq!(part, vec![5; 100]);
        assert_eq!(stream.take(SEGMENT, &(900..1001)).await, None);
        assert_eq!(stream.take(SEGMENT, &(900..1000)).await.map(|bytes| bytes.len()), Some(100));
        assert_eq!(stream.take(SEGMENT, &(900..1000)).await, None);
        fetch(SEGMENT, 100..1000);
        stream.forget(SEGMENT, &(999..1001));
        assert_eq!(stream.take(SEGMENT, &(100..1000)).await, None);
        fetch(SegmentId(8), 0..10);
        assert_eq!(stream.take(SegmentId(8), &(0..10)).await, None);
    }
}
