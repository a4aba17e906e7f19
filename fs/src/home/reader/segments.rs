//! Bytes of segments: a range as it is, or cut out of windows that are kept, with the windows
//! behind them fetched ahead.
//!
//! What was written together lies together, so who reads one small file mostly reads the next
//! ones soon: windows are fetched ahead in requests of their own, more of them while they are
//! used ([`Ahead`]). What always holds: nobody waits for a window that was not asked for, an
//! error of fetching ahead is nobody's error, and what is fetched ahead at a time is bounded.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use yadokari_store::Kind;

use super::super::ahead::Ahead;
use super::super::error::{Error, ErrorKind, Result};
use super::super::maps::HashMap;
use super::super::segment::SegmentId;
use super::super::trouble::Troubles;
use super::JoinPath;
use super::cache::DataCache;

/// A window of a segment.
pub const WINDOW_BYTES: u64 = 256 << 10;
/// The most windows that are fetched ahead of where somebody reads.
const AHEAD_MAX: usize = 16;
/// Fetching ahead goes on while one window of so many is used.
const WINDOWS_WORTH: usize = 4;
/// From so many on a segment's windows are fetched ahead from the first look into it.
const AHEAD_TRUSTED: usize = 4;
/// Windows of one request that fetches ahead.
const FLIGHT_WINDOWS_MAX: u64 = 8;
/// Windows that were fetched ahead and not used yet, as far as they are counted.
const FRESH_MAX: usize = 1024;
/// Segments whose length is known.
const ENDS_MAX: usize = 1024;
/// Who needs a window that is being fetched ahead waits so long before fetching it again.
const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(1);
/// First and longest pause before a request is tried again.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A request that fetches ahead, for those who wait for it.
type Flight = Shared<BoxFuture<'static, ()>>;

/// The segments of one home. `home` is its number in the caches.
pub struct Segments {
    home: u64,
    name: String,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
    cache: Arc<DataCache>,
    troubles: Arc<Troubles>,
    course: Mutex<Course>,
}

/// How far reading has come, and what is fetched ahead of it.
struct Course {
    ahead: Ahead,
    flying: HashMap<(SegmentId, u64), Flight>,
    fresh: BTreeSet<(SegmentId, u64)>,
    last: Option<(SegmentId, u64)>,
    /// The first window behind a segment's end, where that is known.
    ends: HashMap<SegmentId, u64>,
}

impl Segments {
    /// The segments of the home `name` whose objects lie under `prefix`.
    pub fn new(
        home: u64,
        name: String,
        prefix: Path,
        store: Arc<dyn ObjectStore>,
        cache: Arc<DataCache>,
        troubles: Arc<Troubles>,
    ) -> Arc<Self> {
        let course = Mutex::new(Course::new(Ahead::new(1, AHEAD_MAX, WINDOWS_WORTH)));
        Arc::new(Self { home, name, prefix, store, cache, troubles, course })
    }

    /// Bytes of a segment, fewer than `range` where it ends; tried again until the store answers.
    ///
    /// # Errors
    /// `NotFound` when the segment is gone, `Corrupt` when it ends before the range.
    pub async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(segment);
        let mut pause = RETRY_MIN;
        loop {
            match self.store.get_range(&path, range.clone()).await {
                Ok(bytes) => {
                    self.troubles.store_works();
                    return Ok(bytes);
                }
                Err(object_store::Error::NotFound { .. }) => return Err(ErrorKind::NotFound.into()),
                Err(error) => match yadokari_store::kind(&error) {
                    // Shorter than its records say, or not what was written.
                    Kind::Invalid | Kind::Corrupt => {
                        return Err(Error::corrupt(format_args!("{path}: {error}")));
                    }
                    _ => self.troubles.store_fails(&self.name, &path, &error),
                },
            }
            // The caller gives up after the configured time.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Likewise, given up where the store says no: for what may be wanted later.
    pub async fn try_get(&self, segment: SegmentId, range: Range<u64>) -> Option<Bytes> {
        self.store.get_range(&self.path(segment), range).await.ok()
    }

    /// Likewise, by way of the windows that are kept.
    ///
    /// # Errors
    /// As [`Segments::get`].
    pub async fn get_windowed(
        self: &Arc<Self>,
        segment: SegmentId,
        range: &Range<u64>,
    ) -> Result<Bytes> {
        let windows = windows_of(range);
        if let Some(bytes) = self.kept(segment, range) {
            self.go_ahead(segment, windows.end - 1);
            return Ok(bytes);
        }
        let flights: Vec<Flight> = {
            let course = self.course.lock();
            windows.clone().filter_map(|w| course.flying.get(&(segment, w)).cloned()).collect()
        };
        for flight in flights {
            let _late = tokio::time::timeout(FLIGHT_WAIT_MAX, flight).await;
        }
        let bytes = match self.kept(segment, range) {
            Some(bytes) => bytes,
            None => self.fetch(segment, range, windows.clone()).await?,
        };
        self.go_ahead(segment, windows.end - 1);
        Ok(bytes)
    }

    /// Fetches windows, but for the first ones where those are kept, and cuts `range` out.
    async fn fetch(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        windows: Range<u64>,
    ) -> Result<Bytes> {
        let missing = |window: &u64| !self.cache.raw.contains_key(&(self.home, segment, *window));
        let first = windows.clone().find(missing).unwrap_or(windows.start);
        let base = first * WINDOW_BYTES;
        let bytes = self.get(segment, base..windows.end * WINDOW_BYTES).await?;
        self.keep(segment, &(first..windows.end), &bytes);
        if first == windows.start {
            return Ok(bytes.slice(clip(range.start, base, &bytes)..clip(range.end, base, &bytes)));
        }
        match self.kept(segment, range) {
            Some(bytes) => Ok(bytes),
            // They are gone again: there is very little room.
            None => self.get(segment, range.clone()).await,
        }
    }

    /// Bytes of a segment out of windows that are kept, if all of them are.
    pub fn kept(&self, segment: SegmentId, range: &Range<u64>) -> Option<Bytes> {
        let windows = windows_of(range);
        let part = |window: u64| {
            let bytes = self.cache.raw.get(&(self.home, segment, window))?;
            let base = window * WINDOW_BYTES;
            Some(bytes.slice(clip(range.start, base, &bytes)..clip(range.end, base, &bytes)))
        };
        if windows.end - windows.start == 1 {
            return part(windows.start);
        }
        let parts: Option<Vec<Bytes>> = windows.map(part).collect();
        let mut all = BytesMut::new();
        parts?.iter().for_each(|part| all.extend_from_slice(part));
        Some(all.freeze())
    }

    /// Forgets the windows that cover `range`: something in them is not what was written.
    pub fn forget(&self, segment: SegmentId, range: &Range<u64>) {
        for window in windows_of(range) {
            self.cache.raw.remove(&(self.home, segment, window));
        }
    }

    /// Keeps the windows that `bytes` holds, from the first one's start on; gives how many.
    fn keep(&self, segment: SegmentId, windows: &Range<u64>, bytes: &Bytes) -> u64 {
        let mut kept = 0;
        for (window, from) in windows.clone().zip((0..bytes.len()).step_by(WINDOW_BYTES as usize)) {
            let to = bytes.len().min(from + WINDOW_BYTES as usize);
            // A copy of its own: a slice would keep all windows alive with one.
            let part = match to - from == bytes.len() {
                true => bytes.clone(),
                false => Bytes::copy_from_slice(&bytes[from..to]),
            };
            self.cache.raw.insert((self.home, segment, window), part);
            kept += 1;
        }
        let mut course = self.course.lock();
        if (bytes.len() as u64) < (windows.end - windows.start) * WINDOW_BYTES {
            course.ends_at(segment, windows.start + kept);
        } else if course.ends.get(&segment).is_some_and(|end| *end < windows.end) {
            course.ends.remove(&segment);
        }
        drop(course);
        kept
    }

    /// Fetches what is likely to be asked for after `window`, where it is time to.
    fn go_ahead(self: &Arc<Self>, segment: SegmentId, window: u64) {
        let mut course = self.course.lock();
        if course.last.replace((segment, window)) == Some((segment, window)) {
            return;
        }
        let missing = |window| !self.cache.raw.contains_key(&(self.home, segment, window));
        let Some(run) = course.plan(segment, window, missing) else { return };
        let Some(permit) = self.cache.try_fly() else { return };
        let this = Arc::clone(self);
        let windows = run.clone();
        let task = tokio::spawn(async move {
            this.fly(segment, &windows).await;
            drop(permit);
        });
        let flight: Flight = task.map(drop).boxed().shared();
        for window in run {
            course.flying.insert((segment, window), flight.clone());
        }
    }

    /// One request that fetches ahead.
    async fn fly(&self, segment: SegmentId, windows: &Range<u64>) {
        let range = windows.start * WINDOW_BYTES..windows.end * WINDOW_BYTES;
        let got = self.store.get_range(&self.path(segment), range).await;
        let kept = match &got {
            Ok(bytes) => self.keep(segment, windows, bytes),
            Err(_) => 0,
        };
        let mut course = self.course.lock();
        for window in windows.clone() {
            course.flying.remove(&(segment, window));
        }
        course.ahead.bring(usize::try_from(kept).unwrap_or(0));
        let brought = (windows.start..windows.start + kept).map(|window| (segment, window));
        course.fresh.extend(brought);
        if course.fresh.len() > FRESH_MAX {
            course.fresh.clear();
        }
        if let Err(error) = got {
            tracing::debug!(home = %self.name, %segment, %error, "not fetched ahead");
            // Whatever it was: nothing is fetched from there on until somebody has read there.
            course.ends_at(segment, windows.start);
        }
    }

    fn path(&self, segment: SegmentId) -> Path {
        self.prefix.clone().join_path(&segment.object_name())
    }
}

impl Course {
    fn new(ahead: Ahead) -> Self {
        Self {
            ahead,
            flying: HashMap::default(),
            fresh: BTreeSet::new(),
            last: None,
            ends: HashMap::default(),
        }
    }

    /// The windows to fetch now that somebody reads in `window`.
    fn plan(
        &mut self,
        segment: SegmentId,
        window: u64,
        missing: impl Fn(u64) -> bool,
    ) -> Option<Range<u64>> {
        if self.fresh.remove(&(segment, window)) {
            self.ahead.used(1);
        }
        let amount = self.ahead.amount();
        let follows = window > 0 && !missing(window - 1);
        if !follows && window > 0 && amount < AHEAD_TRUSTED {
            return None;
        }
        let amount = amount as u64;
        let end = self.ends.get(&segment).copied().unwrap_or(u64::MAX).min(window + 1 + amount);
        let wanted = |at: &u64| missing(*at) && !self.flying.contains_key(&(segment, *at));
        let start = (window + 1..end).find(wanted)?;
        // Not one by one, but when half of what was fetched ahead is used up.
        if start > window + 1 + amount / 2 {
            return None;
        }
        let most = end.min(start + FLIGHT_WINDOWS_MAX);
        let stop = (start + 1..most).find(|at| !wanted(at)).unwrap_or(most);
        Some(start..stop)
    }

    fn ends_at(&mut self, segment: SegmentId, window: u64) {
        if self.ends.len() >= ENDS_MAX {
            self.ends.clear();
        }
        self.ends.insert(segment, window);
    }
}

/// The windows that cover a range of a segment.
fn windows_of(range: &Range<u64>) -> Range<u64> {
    range.start / WINDOW_BYTES..(range.end.max(range.start + 1) - 1) / WINDOW_BYTES + 1
}

/// Where byte `at` is in `bytes`, which begin at byte `base`: an end of them where it is outside.
fn clip(at: u64, base: u64, bytes: &Bytes) -> usize {
    usize::try_from(at.saturating_sub(base)).map_or(bytes.len(), |at| at.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(7);

    fn course(amount: usize) -> Course {
        Course::new(Ahead::new(amount, AHEAD_MAX.max(amount), WINDOWS_WORTH))
    }

    #[test]
    fn windows_are_fetched_behind_those_that_are_there_and_not_behind_the_end() {
        let none = |_| true;
        assert_eq!(course(1).plan(SEGMENT, 0, none), Some(1..2));
        // Nobody knows yet whether it goes on from here.
        assert_eq!(course(1).plan(SEGMENT, 9, none), None);
        assert_eq!(course(8).plan(SEGMENT, 9, none), Some(10..18));
        assert_eq!(course(16).plan(SEGMENT, 9, none), Some(10..18));
        assert_eq!(course(8).plan(SEGMENT, 9, |window| window > 12), Some(13..18));
        // More than half of it is still there.
        assert_eq!(course(8).plan(SEGMENT, 9, |window| window > 15), None);
        assert_eq!(course(8).plan(SEGMENT, 9, |window| window != 12), Some(10..12));
        let mut short = course(8);
        short.ends_at(SEGMENT, 11);
        assert_eq!(short.plan(SEGMENT, 9, none), Some(10..11));
        assert_eq!(short.plan(SEGMENT, 10, none), None);
    }
}
