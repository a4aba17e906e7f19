//! Reading: from places to bytes, through caches, every chunk verified.
//!
//! Chunks are found by their records ([`records`]); one whose segment is gone was moved by the
//! cleaner, and its record is read again. Big chunks that lie next to each other are fetched in
//! one request, verified where they are, and given as one piece; small ones are cut out of windows
//! of the segment, which are fetched ahead ([`segments`]), so that a cold walk over many small
//! files costs a request for hundreds of them.

mod cache;
mod records;
mod segments;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use yadokari_layers::chunk::ChunkHash;

use super::ReadPieces;
use super::data::{Part, Parts};
use super::error::{Error, ErrorKind, Result};
use super::key;
use super::record::{ChunkRecord, Place, decode_small};
use super::segment::{self, ChunkId, SegmentId};
use super::table::Table;
use super::trouble::Troubles;
pub use cache::DataCache;
use records::Records;
use segments::Segments;
use stream::Stream;

/// Chunks stored in less than this are fetched by windows.
const WINDOWED_BYTES_MAX: u32 = 64 << 10;
/// Neighbouring chunks are fetched together up to this.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Requests up to this length that follow one another go by windows too: who reads so little at
/// a time (the kernel, where nobody may raise its read-ahead) waits for each.
const SHORT_BYTES_MAX: u64 = 256 << 10;
/// Ends of requests that the next ones may follow: so many readers are told apart.
const ENDS_MAX: usize = 16;
/// A chunk of at least this that a read takes whole is not kept: the kernel has it.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// A chunk may be moved while it is looked up, but not again and again.
const LOOKS_MAX: usize = 5;
/// Holes and reserved space are served from here.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Reads one home's data.
pub struct Reader {
    home: u64,
    cache: Arc<DataCache>,
    segments: Arc<Segments>,
    stream: Stream,
    records: Records,
    /// Where the last requests for short runs of big chunks ended, newest last.
    ends: Mutex<VecDeque<(SegmentId, u64)>>,
}

/// A chunk's content, as a part of what was fetched with it.
struct Loaded {
    whole: Bytes,
    range: Range<usize>,
}

impl Loaded {
    fn alone(whole: Bytes) -> Self {
        Self { range: 0..whole.len(), whole }
    }
}

type Chunks = BTreeMap<ChunkId, Loaded>;

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
        let segments = Segments::new(home, name, prefix, store, Arc::clone(&cache), troubles);
        let (stream, records) = (Stream::default(), Records::default());
        Self { home, cache, segments, stream, records, ends: Mutex::default() }
    }

    /// Records of chunks that the database does not show yet.
    pub fn remember_births(&self, births: impl Iterator<Item = (ChunkId, ChunkRecord)>) {
        self.records.remember_births(births);
    }

    /// The database shows them now.
    pub fn forget_births(&self, births: impl Iterator<Item = ChunkId>) {
        self.records.forget_births(births);
    }

    /// A chunk was freed or moved.
    pub fn forget_chunk(&self, id: ChunkId) {
        self.records.forget(id);
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
        let mut chunks = Chunks::new();
        // How much of each is asked for.
        let mut missing: BTreeMap<ChunkId, u64> = BTreeMap::new();
        for part in parts {
            if let Part::Stored(Place::Chunk { id, .. }, len) = part {
                match self.cache.plain.get(&(self.home, *id)) {
                    Some(plain) => drop(chunks.insert(*id, Loaded::alone(plain))),
                    None => *missing.entry(*id).or_default() += len,
                }
            }
        }
        if !self.load(table, &missing, &mut chunks).await? {
            return Ok(None);
        }
        let mut pieces = Joined::default();
        for part in parts {
            match part {
                Part::Memory(bytes) => pieces.push(bytes.clone()),
                Part::Zeros(len) => push_zeros(pieces.done(), *len),
                Part::Stored(Place::Reserved, len) => push_zeros(pieces.done(), *len),
                Part::Stored(Place::Chunk { id, at }, len) => {
                    let part = chunks.get(id).filter(|chunk| pieces.push_part(chunk, *at, *len));
                    part.ok_or_else(|| damaged(*id, "too short"))?;
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
        Ok(Some(std::mem::take(pieces.done())))
    }

    /// Fetches those runs of large chunks that a read of these parts will ask for; false where
    /// there is no room for them.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn fetch_ahead(&self, table: &Table, parts: &Parts) -> Result<bool> {
        let mut found: BTreeMap<(SegmentId, u32), (ChunkId, ChunkRecord)> = BTreeMap::new();
        for part in parts {
            if let Part::Stored(Place::Chunk { id, .. }, _) = part
                && !self.cache.plain.contains_key(&(self.home, *id))
                && let Some(record) = self.record(table, *id).await?
            {
                found.insert((record.segment, record.offset), (*id, record));
            }
        }
        let found: Vec<_> = found.into_values().collect();
        for run in runs(&found) {
            let (segment, range) = (run[0].1.segment, range_of(run));
            if are_small(run) || range.end - range.start <= SHORT_BYTES_MAX {
                continue;
            }
            let Some(room) = self.cache.try_hold(range.end - range.start) else {
                return Ok(false);
            };
            self.stream.fetch(&self.segments, segment, range, room);
        }
        Ok(true)
    }

    /// The record of a chunk.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn record(&self, table: &Table, id: ChunkId) -> Result<Option<ChunkRecord>> {
        self.records.get(table, id).await
    }

    async fn load(
        &self,
        table: &Table,
        wanted: &BTreeMap<ChunkId, u64>,
        chunks: &mut Chunks,
    ) -> Result<bool> {
        let mut missing: Vec<ChunkId> = wanted.keys().copied().collect();
        for _ in 0..LOOKS_MAX {
            let mut found: Vec<(ChunkId, ChunkRecord)> = Vec::with_capacity(missing.len());
            for id in &missing {
                let Some(record) = self.record(table, *id).await? else { return Ok(false) };
                found.push((*id, record));
            }
            found.sort_by_key(|(_, r)| (r.segment, r.offset));
            let mut gone = Vec::new();
            for run in runs(&found) {
                match self.load_run(run, wanted, chunks).await {
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
        wanted: &BTreeMap<ChunkId, u64>,
        chunks: &mut Chunks,
    ) -> Result<()> {
        match self.load_run_once(run, wanted, chunks).await {
            // What is kept of the segment, or the way to here, may be at fault.
            Err(Error(ErrorKind::Corrupt(_))) => {
                self.segments.forget(run[0].1.segment, &range_of(run));
                self.stream.forget(run[0].1.segment, &range_of(run));
                self.load_run_once(run, wanted, chunks).await
            }
            done => done,
        }
    }

    async fn load_run_once(
        &self,
        run: &[(ChunkId, ChunkRecord)],
        wanted: &BTreeMap<ChunkId, u64>,
        chunks: &mut Chunks,
    ) -> Result<()> {
        let (segment, range) = (run[0].1.segment, range_of(run));
        let windowed = are_small(run) || self.follows(segment, &range);
        let ahead = match windowed {
            true => None,
            false => self.stream.take(segment, &range).await,
        };
        let is_shared = windowed || ahead.is_some() || run.len() > 1;
        let bytes = match ahead {
            Some(bytes) => bytes,
            None if windowed => self.segments.get_windowed(segment, &range).await?,
            None => self.segments.get(segment, range.clone()).await?,
        };
        for (id, record) in run {
            let from = (u64::from(record.offset) - range.start) as usize;
            let to = from + record.stored_bytes as usize;
            if to > bytes.len() {
                let why = format!("segment {segment} is cut short");
                return Err(damaged(*id, &why));
            }
            let hash = ChunkHash::from(record.hash);
            let stored = bytes.slice(from..to);
            let plain = segment::unpack(record.codec, stored, record.plain_bytes, &hash)
                .map_err(|error| damaged(*id, &format!("in segment {segment}: {error}")))?;
            let is_part = record.codec == segment::Codec::Plain;
            let whole = wanted.get(id).is_some_and(|len| *len >= plain.len() as u64);
            let loaded = match is_part {
                true if whole && plain.len() >= KEPT_BYTES_MAX => {
                    Loaded { whole: bytes.clone(), range: from..to }
                }
                // A copy of its own: a slice would keep everything alive that came along.
                true if is_shared => Loaded::alone(Bytes::copy_from_slice(&plain)),
                _ => Loaded::alone(plain),
            };
            if !whole || loaded.range.len() < KEPT_BYTES_MAX {
                self.cache.plain.insert((self.home, *id), loaded.whole.clone());
            }
            chunks.insert(*id, loaded);
        }
        Ok(())
    }

    /// Whether a short range of big chunks begins where another one ended.
    fn follows(&self, segment: SegmentId, range: &Range<u64>) -> bool {
        if range.end - range.start > SHORT_BYTES_MAX {
            return false;
        }
        let mut ends = self.ends.lock();
        let before = ends.iter().position(|end| *end == (segment, range.start));
        if let Some(at) = before {
            ends.remove(at);
        }
        if ends.len() >= ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back((segment, range.end));
        before.is_some()
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

/// Whether windows are for these chunks.
fn are_small(run: &[(ChunkId, ChunkRecord)]) -> bool {
    run.iter().all(|(_, record)| record.stored_bytes < WINDOWED_BYTES_MAX)
}

/// The bytes of a segment that hold all of a run.
fn range_of(run: &[(ChunkId, ChunkRecord)]) -> Range<u64> {
    let (first, last) = (run[0].1, run[run.len() - 1].1);
    u64::from(first.offset)..u64::from(last.offset) + u64::from(last.stored_bytes)
}

/// Pieces of an answer; chunks that lie next to each other in memory become one.
#[derive(Default)]
struct Joined {
    pieces: ReadPieces,
    last: Option<(Bytes, Range<usize>)>,
}

impl Joined {
    fn push(&mut self, piece: Bytes) {
        self.done().push(piece);
    }

    /// Bytes `at` to `at + len` of a chunk; false where it has fewer.
    fn push_part(&mut self, chunk: &Loaded, at: u32, len: u64) -> bool {
        let from = chunk.range.start + at as usize;
        let Some(to) = usize::try_from(len).ok().and_then(|len| from.checked_add(len)) else {
            return false;
        };
        if to > chunk.range.end {
            return false;
        }
        match &mut self.last {
            Some((whole, range))
                if range.end == from
                    && whole.as_ptr() == chunk.whole.as_ptr()
                    && whole.len() == chunk.whole.len() =>
            {
                range.end = to;
            }
            _ => {
                self.done();
                self.last = Some((chunk.whole.clone(), from..to));
            }
        }
        true
    }

    /// All of them so far.
    fn done(&mut self) -> &mut ReadPieces {
        if let Some((whole, range)) = self.last.take() {
            self.pieces.push(whole.slice(range));
        }
        &mut self.pieces
    }
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
