//! Reading: from places to bytes, through caches, every chunk verified.
//!
//! Chunks are found by their records; one whose segment is gone was moved by the cleaner, and
//! its record is read again. Big chunks that lie next to each other are fetched in one request;
//! small ones through windows of the segment, so that a cold walk over many small files costs
//! a request for hundreds of them.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};
use yadokari_layers::chunk::ChunkHash;
use yadokari_store::Kind;

use super::ReadPieces;
use super::data::{Part, Parts};
use super::error::{Error, ErrorKind, Result};
use super::key;
use super::maps::{HashMap, SameHash};
use super::record::{ChunkRecord, Place, decode_small};
use super::segment::{self, ChunkId, SegmentId};
use super::table::Table;
use super::trouble::Troubles;

/// Chunks stored in less than this are fetched by windows.
const WINDOWED_BYTES_MAX: u32 = 64 << 10;
/// A window of a segment.
const WINDOW_BYTES: u64 = 256 << 10;
/// Neighbouring chunks are fetched together up to this.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Chunk records that are kept per home.
const RECORDS_MAX: usize = 16 << 10;
/// First and longest pause before a request is tried again.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A chunk may be moved while it is looked up, but not again and again.
const LOOKS_MAX: usize = 5;
/// Holes and reserved space are served from here.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Weighs what is cached by its bytes.
#[derive(Clone, Debug)]
pub struct ByBytes;

impl<K> Weighter<K, Bytes> for ByBytes {
    fn weight(&self, _key: &K, value: &Bytes) -> u64 {
        value.len() as u64 + 64
    }
}

/// A cache that drops the same things in every run.
fn new_cache<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(
    items: usize,
    weight: u64,
    weighter: W,
) -> Cache<K, V, W, SameHash> {
    Cache::with(items, weight, weighter, SameHash::default(), DefaultLifecycle::default())
}

/// The data caches of all homes of a process. Keys carry the home's number.
#[derive(Debug)]
pub struct DataCache {
    plain: Cache<(u64, ChunkId), Bytes, ByBytes, SameHash>,
    raw: Cache<(u64, SegmentId, u64), Bytes, ByBytes, SameHash>,
}

impl DataCache {
    /// Caches of `bytes` in all.
    #[must_use]
    pub fn new(bytes: u64) -> Arc<Self> {
        let raw = bytes / 4;
        let plain = bytes - raw;
        let items = |b: u64| usize::try_from(b / (16 << 10)).unwrap_or(usize::MAX).max(64);
        Arc::new(Self {
            plain: new_cache(items(plain), plain, ByBytes),
            raw: new_cache(items(raw), raw, ByBytes),
        })
    }
}

/// Reads one home's data.
pub struct Reader {
    home: u64,
    name: String,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
    cache: Arc<DataCache>,
    records: Cache<ChunkId, ChunkRecord, UnitWeighter, SameHash>,
    births: Mutex<HashMap<ChunkId, ChunkRecord>>,
    troubles: Arc<Troubles>,
}

impl Reader {
    /// A reader of the home whose objects lie under `prefix`; `home` is its number in the caches.
    pub fn new(
        home: u64,
        name: String,
        prefix: Path,
        store: Arc<dyn ObjectStore>,
        cache: Arc<DataCache>,
        troubles: Arc<Troubles>,
    ) -> Self {
        let records = new_cache(RECORDS_MAX, RECORDS_MAX as u64, UnitWeighter);
        let births = Mutex::new(HashMap::default());
        Self { home, name, prefix, store, cache, records, births, troubles }
    }

    /// Records of chunks that the database does not show yet.
    pub fn remember_births(&self, births: impl Iterator<Item = (ChunkId, ChunkRecord)>) {
        self.births.lock().extend(births);
    }

    /// The database shows them now.
    pub fn forget_births(&self, births: impl Iterator<Item = ChunkId>) {
        let mut known = self.births.lock();
        for id in births {
            known.remove(&id);
        }
    }

    /// A chunk was freed or moved.
    pub fn forget_chunk(&self, id: ChunkId) {
        self.records.remove(&id);
    }

    /// What needs nothing but memory.
    pub fn try_fetch(&self, parts: &Parts) -> Option<ReadPieces> {
        let mut pieces = ReadPieces::new();
        for part in parts {
            match part {
                Part::Memory(bytes) => pieces.push(bytes.clone()),
                Part::Zeros(len) => push_zeros(&mut pieces, *len),
                Part::Stored(Place::Reserved, len) => push_zeros(&mut pieces, *len),
                Part::Stored(Place::Chunk { id, at }, len) => {
                    let plain = self.cache.plain.get(&(self.home, *id))?;
                    pieces.push(sub(&plain, *at, *len)?);
                }
                Part::Stored(Place::Small { .. }, _) => return None,
            }
        }
        Some(pieces)
    }

    /// All parts, from the store where that must be. `None`: a chunk is gone, so what refers to
    /// it must be looked at again.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt`, naming the object.
    pub async fn fetch(&self, table: &Table, parts: &Parts) -> Result<Option<ReadPieces>> {
        let mut chunks: BTreeMap<ChunkId, Bytes> = BTreeMap::new();
        let mut missing = Vec::new();
        for part in parts {
            if let Part::Stored(Place::Chunk { id, .. }, _) = part {
                match self.cache.plain.get(&(self.home, *id)) {
                    Some(plain) => drop(chunks.insert(*id, plain)),
                    None => missing.push(*id),
                }
            }
        }
        if !self.load(table, missing, &mut chunks).await? {
            return Ok(None);
        }
        let mut pieces = ReadPieces::new();
        for part in parts {
            match part {
                Part::Memory(bytes) => pieces.push(bytes.clone()),
                Part::Zeros(len) => push_zeros(&mut pieces, *len),
                Part::Stored(Place::Reserved, len) => push_zeros(&mut pieces, *len),
                Part::Stored(Place::Chunk { id, at }, len) => {
                    let piece = chunks.get(id).and_then(|plain| sub(plain, *at, *len));
                    let Some(piece) = piece else { return Err(damaged(*id, "too short")) };
                    pieces.push(piece);
                }
                Part::Stored(Place::Small { id, at }, len) => {
                    let Some(value) = table.get(&key::small(*id)).await? else { return Ok(None) };
                    let (_, _, data) = decode_small(&value)?;
                    let Some(piece) = sub(&data, *at, *len) else {
                        return Err(Error::corrupt(format_args!("small value {id} is too short")));
                    };
                    pieces.push(piece);
                }
            }
        }
        Ok(Some(pieces))
    }

    /// The record of a chunk.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn record(&self, table: &Table, id: ChunkId) -> Result<Option<ChunkRecord>> {
        if let Some(record) = self.births.lock().get(&id) {
            return Ok(Some(*record));
        }
        if let Some(record) = self.records.get(&id) {
            return Ok(Some(record));
        }
        let Some(value) = table.get(&key::chunk(id)).await? else { return Ok(None) };
        let record = ChunkRecord::decode(&value)?;
        self.records.insert(id, record);
        Ok(Some(record))
    }

    async fn load(
        &self,
        table: &Table,
        mut missing: Vec<ChunkId>,
        chunks: &mut BTreeMap<ChunkId, Bytes>,
    ) -> Result<bool> {
        missing.sort_unstable();
        missing.dedup();
        for _ in 0..LOOKS_MAX {
            let mut found: Vec<(ChunkId, ChunkRecord)> = Vec::with_capacity(missing.len());
            for id in &missing {
                let Some(record) = self.record(table, *id).await? else { return Ok(false) };
                found.push((*id, record));
            }
            found.sort_by_key(|(_, r)| (r.segment, r.offset));
            let mut gone = Vec::new();
            for run in runs(&found) {
                match self.load_run(run, chunks).await {
                    Ok(()) => {}
                    Err(Error(ErrorKind::NotFound)) => {
                        for (id, _) in run {
                            self.forget_chunk(*id);
                            gone.push(*id);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if gone.is_empty() {
                return Ok(true);
            }
            missing = gone;
        }
        Err(damaged(missing[0], "its segment is missing"))
    }

    /// Chunks that lie close together in one segment.
    async fn load_run(
        &self,
        run: &[(ChunkId, ChunkRecord)],
        chunks: &mut BTreeMap<ChunkId, Bytes>,
    ) -> Result<()> {
        match self.load_run_once(run, chunks).await {
            // What is kept of the segment, or the way to here, may be at fault.
            Err(Error(ErrorKind::Corrupt(_))) => {
                let (first, last) = (run[0].1, run[run.len() - 1].1);
                let end = u64::from(last.offset) + u64::from(last.stored_bytes);
                for window in u64::from(first.offset) / WINDOW_BYTES..=end / WINDOW_BYTES {
                    self.cache.raw.remove(&(self.home, first.segment, window));
                }
                self.load_run_once(run, chunks).await
            }
            done => done,
        }
    }

    async fn load_run_once(
        &self,
        run: &[(ChunkId, ChunkRecord)],
        chunks: &mut BTreeMap<ChunkId, Bytes>,
    ) -> Result<()> {
        let (first, last) = (run[0].1, run[run.len() - 1].1);
        let range = u64::from(first.offset)..u64::from(last.offset) + u64::from(last.stored_bytes);
        let windowed = run.iter().all(|(_, r)| r.stored_bytes < WINDOWED_BYTES_MAX);
        let (base, bytes) = if windowed {
            self.windows(first.segment, &range).await?
        } else {
            (range.start, self.get(first.segment, range).await?)
        };
        for (id, record) in run {
            let from = usize::try_from(u64::from(record.offset) - base).unwrap_or(usize::MAX);
            let to = from.saturating_add(record.stored_bytes as usize);
            if to > bytes.len() {
                let why = format!("segment {} is cut short", first.segment);
                return Err(damaged(*id, &why));
            }
            let stored = bytes.slice(from..to);
            let hash = ChunkHash::from(record.hash);
            let plain = segment::unpack(record.codec, stored, record.plain_bytes, &hash)
                .map_err(|error| damaged(*id, &format!("in segment {}: {error}", first.segment)))?;
            // A copy of its own: a slice would keep everything alive that came along.
            let plain = match record.codec {
                segment::Codec::Plain if run.len() > 1 || windowed => {
                    Bytes::copy_from_slice(&plain)
                }
                _ => plain,
            };
            self.cache.plain.insert((self.home, *id), plain.clone());
            chunks.insert(*id, plain);
        }
        Ok(())
    }

    /// The windows of a segment that cover `range`: where they begin, and their bytes.
    async fn windows(&self, segment: SegmentId, range: &Range<u64>) -> Result<(u64, Bytes)> {
        let (first, last) = (range.start / WINDOW_BYTES, (range.end - 1) / WINDOW_BYTES);
        let cached = |window| self.cache.raw.get(&(self.home, segment, window));
        let known: Option<Vec<Bytes>> = (first..=last).map(cached).collect();
        let base = first * WINDOW_BYTES;
        if let Some(known) = known {
            return Ok((base, join(&known)));
        }
        let bytes = self.get(segment, base..(last + 1) * WINDOW_BYTES).await?;
        for window in first..=last {
            let from = usize::try_from((window - first) * WINDOW_BYTES).unwrap_or(usize::MAX);
            if from >= bytes.len() {
                break;
            }
            let to = bytes.len().min(from + WINDOW_BYTES as usize);
            // A copy of its own: a slice would keep all windows alive with one.
            let part = Bytes::copy_from_slice(&bytes[from..to]);
            self.cache.raw.insert((self.home, segment, window), part);
        }
        Ok((base, bytes))
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes> {
        let path = self.prefix.clone().join_path(&segment.object_name());
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
}

fn damaged(id: ChunkId, why: &str) -> Error {
    Error::corrupt(format_args!("chunk {id}: {why}"))
}

/// Joins a relative object name to a prefix.
pub trait JoinPath {
    /// `self/name`.
    #[must_use]
    fn join_path(self, name: &str) -> Path;
}

impl JoinPath for Path {
    fn join_path(self, name: &str) -> Path {
        Path::from(format!("{self}/{name}"))
    }
}

/// Cuts sorted chunks into runs that one request fetches.
fn runs(found: &[(ChunkId, ChunkRecord)]) -> impl Iterator<Item = &[(ChunkId, ChunkRecord)]> {
    let mut rest = found;
    std::iter::from_fn(move || {
        let (_, first) = rest.first()?;
        let near = |pair: &[(ChunkId, ChunkRecord)]| {
            let (a, b) = (pair[0].1, pair[1].1);
            let gap = b.offset.saturating_sub(a.offset + a.stored_bytes);
            let whole = u64::from((b.offset + b.stored_bytes).saturating_sub(first.offset));
            a.segment == b.segment && gap <= WINDOWED_BYTES_MAX && whole <= FETCH_BYTES_MAX
        };
        let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (run, behind) = rest.split_at(len);
        rest = behind;
        Some(run)
    })
}

fn sub(plain: &Bytes, at: u32, len: u64) -> Option<Bytes> {
    let from = at as usize;
    let to = from.checked_add(usize::try_from(len).ok()?)?;
    (to <= plain.len()).then(|| plain.slice(from..to))
}

fn push_zeros(pieces: &mut ReadPieces, mut len: u64) {
    while len > 0 {
        let take = len.min(ZEROS.len() as u64);
        let take_len = usize::try_from(take).expect("at most a MiB");
        pieces.push(Bytes::from_static(&ZEROS[..take_len]));
        len -= take;
    }
}

fn join(parts: &[Bytes]) -> Bytes {
    match parts {
        [one] => one.clone(),
        several => {
            let mut all = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
            for part in several {
                all.extend_from_slice(part);
            }
            all.freeze()
        }
    }
}
