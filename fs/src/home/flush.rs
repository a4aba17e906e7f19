//! Flush: captured data is hashed, looked up, compressed, packed into segments and written.
//!
//! Pieces of many files share a segment. Content that the home has already is referenced. What
//! cannot be written stays in memory and is tried again; writers wait, nothing is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, PutMode, PutOptions};
use yadokari_layers::chunk::{self, ChunkHash};
use yadokari_store::{Kind, NotReadSoon, UseReserve};

use super::capture::{Capture, concat};
use super::core::Core;
use super::dirty::Piece;
use super::error::{Error, ErrorKind, Result};
use super::holds::{Hold, RefKey};
use super::key;
use super::maps::HashMap;
use super::mutants::{self, Mutant};
use super::record::{ChunkRecord, Place, decode_chunk_id};
use super::segment::{
    ChunkId, Codec, Entry, Outlook, SEGMENT_BYTES_TARGET, SEGMENT_CHUNKS_TARGET, SegmentBuilder,
    SegmentId,
};
use super::transaction::{Birth, NewSegment};
use super::types::Ino;

/// Segments of one flush that are on their way at the same time.
const SEGMENTS_AT_ONCE: usize = 3;
/// Work on less than this is done where it stands.
const COMPUTE_INLINE_BYTES: usize = 32 << 10;
/// First and longest pause before a segment is tried again.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A piece that must be written.
struct Missing {
    ino: Ino,
    offset: u64,
    piece: Arc<Piece>,
    /// As [`Capture::is_inner`] says.
    inner: bool,
}

/// A piece on its way.
struct Job {
    what: Missing,
    txn: u64,
    plain: Bytes,
    hash: ChunkHash,
}

/// A segment that was packed.
struct Packed {
    id: SegmentId,
    payload: object_store::PutPayload,
    births: Vec<(Arc<Piece>, Birth)>,
}

impl Core {
    /// Takes what is not captured of a file that somebody waits for, and starts writing it.
    /// Gives the captures to wait for: the last one in flight, as they complete in order.
    pub fn capture_for_sync(&self, ino: Ino) -> Option<Arc<Capture>> {
        let (capture, placed) = {
            let mut state = self.state.lock();
            if !state.has_uncommitted_data(ino) {
                return None;
            }
            if !state.fresh.contains_key(&ino) {
                let file = state.inodes.get(&ino)?.file.as_ref()?;
                return file.captures.back().cloned();
            }
            let capture = state.capture(ino, true)?;
            let placed = state.place_small(&capture, &self.holds);
            if placed {
                capture.set_stored();
                state.complete(ino);
            }
            (capture, placed)
        };
        if !placed || !capture.waits.is_empty() {
            self.start_flush(vec![Arc::clone(&capture)]);
        }
        Some(capture)
    }

    /// Writes captures to the store in the background.
    pub fn start_flush(&self, captures: Vec<Arc<Capture>>) {
        if captures.is_empty() {
            return;
        }
        let core = self.arc();
        self.runtime.spawn(async move {
            if let Err(error) = core.flush(&captures).await {
                core.fail(&error);
            }
            // Only now there is room for others.
            drop(captures);
            core.wake.notify_one();
        });
    }

    async fn flush(&self, captures: &[Arc<Capture>]) -> Result<()> {
        let missing = captures.iter().flat_map(|capture| {
            let missing = capture.pieces.iter().filter(|(_, piece)| piece.place().is_none());
            missing.map(move |(offset, piece)| Missing {
                ino: capture.ino,
                offset: *offset,
                piece: Arc::clone(piece),
                inner: capture.is_inner(*offset, piece),
            })
        });
        let groups = in_segments(missing.collect());
        futures::stream::iter(groups)
            .map(|group| self.flush_group(group))
            .buffer_unordered(SEGMENTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        for capture in captures {
            for piece in capture.pieces.iter().map(|(_, p)| p).chain(&capture.waits) {
                piece.wait_placed().await;
            }
            capture.set_stored();
            self.state.lock().complete(capture.ino);
        }
        Ok(())
    }

    async fn flush_group(&self, group: Vec<Missing>) -> Result<()> {
        let bytes: usize = group.iter().map(|missing| missing.piece.len as usize).sum();
        let txn = self.state.lock().txn.number;
        let jobs = self.compute(bytes, move || hash_all(group, txn)).await?;
        let jobs = self.without_known(jobs).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        let id = self.next_segment();
        let packed = self.compute(bytes, move || pack_all(id, jobs)).await?;
        let object_bytes = packed.payload.content_length() as u64;
        if mutants::is(Mutant::CommitBeforeData) {
            self.enter_births(packed.id, object_bytes, packed.births);
            return self.put_segment(packed.id, &packed.payload, false).await;
        }
        self.put_segment(packed.id, &packed.payload, false).await?;
        self.enter_births(packed.id, object_bytes, packed.births);
        Ok(())
    }

    /// New chunks enter the running transaction; their pieces hold them until files refer to them.
    fn enter_births(&self, id: SegmentId, object_bytes: u64, births: Vec<(Arc<Piece>, Birth)>) {
        self.reader.remember_births(births.iter().map(|(_, b)| (b.id, b.record)));
        let mut state = self.state.lock();
        state.txn.segments.push(NewSegment { id, object_bytes });
        state.txn.start();
        for (piece, birth) in births {
            let hold = self.holds.hold(RefKey::Chunk(birth.id));
            piece.set_place(Place::Chunk { id: birth.id, at: 0 }, Some(hold));
            state.txn.births.push(birth);
        }
    }

    /// Places the pieces whose content the home has; gives the others, each content once.
    async fn without_known(&self, jobs: Vec<Job>) -> Result<Vec<Job>> {
        let mut fresh: Vec<Job> = Vec::with_capacity(jobs.len());
        let mut seen: HashMap<ChunkHash, usize> = HashMap::default();
        let mut twins: Vec<(Arc<Piece>, usize)> = Vec::new();
        for job in jobs {
            if job.what.inner {
                fresh.push(job);
                continue;
            }
            if let Some(first) = seen.get(&job.hash) {
                twins.push((job.what.piece, *first));
                continue;
            }
            if let Some((id, hold)) = self.known_chunk(&job).await? {
                job.what.piece.set_place(Place::Chunk { id, at: 0 }, Some(hold));
                continue;
            }
            seen.insert(job.hash, fresh.len());
            fresh.push(job);
        }
        for (piece, first) in twins {
            let original = Arc::clone(&fresh[first].what.piece);
            let holds = Arc::clone(&self.holds);
            self.runtime.spawn(async move {
                let place = original.wait_placed().await;
                let hold = RefKey::of(place).map(|key| holds.hold(key));
                piece.set_place(place, hold);
            });
        }
        Ok(fresh)
    }

    async fn known_chunk(&self, job: &Job) -> Result<Option<(ChunkId, Hold)>> {
        let Some(value) = self.table.get(&key::hash(job.hash.as_bytes())).await? else {
            return Ok(None);
        };
        let id = decode_chunk_id(&value)?;
        // Held first, then looked at: what is there while it is held stays there.
        let Some(hold) = self.holds.hold_living(RefKey::Chunk(id)) else { return Ok(None) };
        let Some(value) = self.table.get(&key::chunk(id)).await? else { return Ok(None) };
        let record = ChunkRecord::decode(&value)?;
        let same = record.hash == *job.hash.as_bytes() && record.plain_bytes == job.what.piece.len;
        Ok(same.then_some((id, hold)))
    }

    /// The name of the next segment: no other writer ever uses it.
    pub fn next_segment(&self) -> SegmentId {
        SegmentId::new(self.table.epoch(), self.segments.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes a segment, however long it takes. One that `frees_space` when it is written may use
    /// the last of a full store.
    pub async fn put_segment(
        &self,
        id: SegmentId,
        payload: &object_store::PutPayload,
        frees_space: bool,
    ) -> Result<()> {
        let path = self.path(&id.object_name());
        let mut pause = RETRY_MIN;
        let mut waiting = None;
        // A name is never used twice, so it is new; one that was tried may be there already.
        let mut next_mode = PutMode::Create;
        loop {
            // A commit that waits for this may be one that frees space.
            let needed = frees_space || self.carrying.load(Ordering::Acquire);
            let options = if needed { UseReserve::put() } else { PutOptions::default() };
            let mode = std::mem::replace(&mut next_mode, PutMode::Overwrite);
            let options = PutOptions { mode, ..NotReadSoon::add_to(options) };
            match self.data.put_opts(&path, payload.clone(), options).await {
                Ok(_) => {
                    self.troubles.store_works();
                    return Ok(());
                }
                Err(error) => {
                    self.troubles.store_fails(&self.name, &path, &error);
                    if yadokari_store::kind(&error) != Kind::NoSpace {
                        waiting = None;
                    } else if waiting.is_none() {
                        waiting = Some(self.troubles.store_is_full());
                    }
                }
            }
            if let Some(error) = self.state.lock().failed.clone() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Runs work on `bytes` of data, off the threads that serve requests where it is long.
    pub async fn compute<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        if bytes <= COMPUTE_INLINE_BYTES || self.shared.config.compute_inline {
            return Ok(work());
        }
        let done = self.shared.computing.run(work).await;
        done.map_err(|_| Error::from(ErrorKind::Closed))
    }
}

/// Distributes pieces over segments: as few as there can be, with much the same bytes in each, so
/// that what is written together is there together.
fn in_segments(pieces: Vec<Missing>) -> Vec<Vec<Missing>> {
    let all: u64 = pieces.iter().map(|missing| u64::from(missing.piece.len)).sum();
    let most = all.div_ceil(all.div_ceil(SEGMENT_BYTES_TARGET).max(1));
    let mut groups: Vec<Vec<Missing>> = Vec::new();
    let (mut bytes, mut chunks) = (u64::MAX, 0);
    for missing in pieces {
        if bytes >= most || chunks >= SEGMENT_CHUNKS_TARGET {
            groups.push(Vec::new());
            (bytes, chunks) = (0, 0);
        }
        bytes += u64::from(missing.piece.len);
        chunks += 1;
        groups.last_mut().expect("pushed above").push(missing);
    }
    groups
}

fn hash_all(group: Vec<Missing>, txn: u64) -> Vec<Job> {
    group
        .into_iter()
        .filter_map(|what| {
            let plain = concat(&what.piece.slices()?);
            let hash = chunk::hash(&plain);
            Some(Job { what, txn, plain, hash })
        })
        .collect()
}

fn pack_all(id: SegmentId, jobs: Vec<Job>) -> Packed {
    let mut builder = SegmentBuilder::new(id);
    let mut births = Vec::with_capacity(jobs.len());
    let mut of_file = (None, Outlook::default());
    for Job { what, txn, plain, hash } in jobs {
        let chunk = builder.next_chunk();
        let plain_bytes = what.piece.len;
        if of_file.0 != Some(what.ino) {
            of_file = (Some(what.ino), Outlook::default());
        }
        let (codec, stored) = match what.inner {
            true => (Codec::Plain, plain),
            false => of_file.1.pack(plain),
        };
        let stored_bytes = u32::try_from(stored.len()).expect("a chunk is small");
        let entry = Entry {
            chunk,
            ino: what.ino,
            offset: what.offset,
            txn,
            codec,
            plain_len: plain_bytes,
            hash,
        };
        let offset = builder.add(entry, stored).at;
        let record = ChunkRecord {
            refs: 0,
            plain_bytes,
            stored_bytes,
            codec,
            segment: id,
            offset,
            birth: 0,
            death: 0,
            hash: *hash.as_bytes(),
            unlisted: what.inner,
        };
        births.push((what.piece, Birth { id: chunk, record }));
    }
    Packed { id, payload: builder.finish(), births }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::dirty::Slices;

    #[test]
    fn segments_of_one_flush_hold_much_the_same() {
        let missing = |len| Missing {
            ino: Ino(7),
            offset: 0,
            piece: Piece::new(len, Slices::new()),
            inner: false,
        };
        let of = |count: usize, len| {
            let groups = in_segments((0..count).map(|_| missing(len)).collect());
            groups.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 1), [0; 0]);
        assert_eq!(of(1, 128 << 10), [1]);
        assert_eq!(of(32, 128 << 10), [32]);
        assert_eq!(of(36, 128 << 10), [18, 18]);
        assert_eq!(of(64, 128 << 10), [32, 32]);
        assert_eq!(of(10_000, 16), [SEGMENT_CHUNKS_TARGET, SEGMENT_CHUNKS_TARGET, 1808]);
    }
}
