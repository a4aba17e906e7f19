//! The cleaner: chunks that still live are moved out of segments that are mostly dead or tiny.
//!
//! A chunk keeps its name; only its record says where it is now. The old object stays until the
//! move is durable and readers that are on their way had their time ([`super::clean`]). Chunks
//! are verified before they are moved, and a segment with a damaged one is left as it is. It
//! runs by itself, a segment at a time, and holds no lock while it reads or writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use yadokari_layers::chunk::ChunkHash;

use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::mutants::{self, Mutant};
use super::record::SegmentRecord;
use super::segment::{
    self, Entry, Footer, FooterError, SEGMENT_BYTES_TARGET, SEGMENT_CHUNKS_TARGET, SegmentBuilder,
    SegmentId, StoredEntry,
};
use super::transaction::{Moved, NewSegment};

/// Segments rest this long after their last change: what dies young dies soon.
const REST: Duration = Duration::from_secs(30);
/// Segments below this are merged with others, unless they have very many chunks.
const TINY_BYTES: u64 = 1 << 20;
/// So many tiny ones are worth a merge.
const TINY_MIN: usize = 8;
/// More chunks than so many make merging dearer than it is worth.
const TINY_CHUNKS_MAX: u32 = 256;

/// Segments that may be worth cleaning.
#[derive(Debug, Default)]
pub struct Candidates {
    noted: Mutex<Noted>,
}

/// Every commit notes some and asks when there is something to do, so that answer is at hand.
#[derive(Debug, Default)]
struct Noted {
    segments: BTreeMap<SegmentId, (SegmentRecord, Instant)>,
    /// The same, those that rested longest first: the tiny ones, and all others.
    tiny: BTreeSet<(Instant, SegmentId)>,
    wasteful: BTreeSet<(Instant, SegmentId)>,
}

impl Noted {
    fn insert(&mut self, id: SegmentId, record: SegmentRecord, since: Instant) {
        self.remove(id);
        self.ages(&record).insert((since, id));
        self.segments.insert(id, (record, since));
    }

    fn remove(&mut self, id: SegmentId) {
        if let Some((record, since)) = self.segments.remove(&id) {
            self.ages(&record).remove(&(since, id));
        }
    }

    fn ages(&mut self, record: &SegmentRecord) -> &mut BTreeSet<(Instant, SegmentId)> {
        if is_tiny(record) { &mut self.tiny } else { &mut self.wasteful }
    }
}

impl Candidates {
    /// Looks at what became of a segment.
    pub fn note(&self, id: SegmentId, record: &SegmentRecord) {
        let mut noted = self.noted.lock();
        let wasteful = record.live_bytes < record.object_bytes / 2;
        if record.live_chunks > 0 && (wasteful || is_tiny(record)) {
            noted.insert(id, *record, Instant::now());
        } else {
            noted.remove(id);
        }
    }

    /// What is worth cleaning now: at most a new segment's worth of living bytes.
    fn take(&self, hurry: bool) -> Vec<(SegmentId, SegmentRecord)> {
        let mut noted = self.noted.lock();
        let now = Instant::now();
        let rested = |since: &Instant| hurry || now.saturating_duration_since(*since) >= REST;
        let all: Vec<(SegmentId, SegmentRecord)> = noted
            .segments
            .iter()
            .filter(|(_, (_, since))| rested(since))
            .map(|(id, (record, _))| (*id, *record))
            .collect();
        let (tiny, wasteful): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, record)| is_tiny(record));
        let tiny = if tiny.len() >= TINY_MIN { tiny } else { Vec::new() };
        // The first one always: what is too large for any company is cleaned alone.
        let (mut bytes, mut chunks) = (0, 0);
        let mut chosen: Vec<(SegmentId, SegmentRecord)> = Vec::new();
        for (id, record) in wasteful.into_iter().chain(tiny) {
            let with = (bytes + record.live_bytes, chunks + record.live_chunks as usize);
            let fits = with.0 <= SEGMENT_BYTES_TARGET && with.1 <= SEGMENT_CHUNKS_TARGET;
            if chosen.is_empty() || fits {
                (bytes, chunks) = with;
                chosen.push((id, record));
            }
        }
        for (id, _) in &chosen {
            noted.remove(*id);
        }
        chosen
    }

    /// One that could not be cleaned is tried again when it has rested.
    fn again(&self, id: SegmentId, record: SegmentRecord) {
        let mut noted = self.noted.lock();
        if !noted.segments.contains_key(&id) {
            noted.insert(id, record, Instant::now());
        }
    }

    /// When there may be something to do.
    pub fn next_visit(&self) -> Option<Duration> {
        let noted = self.noted.lock();
        let enough = noted.tiny.iter().nth(TINY_MIN - 1);
        let (due, _) = noted.wasteful.first().into_iter().chain(enough).min()?;
        Some((*due + REST).saturating_duration_since(Instant::now()))
    }
}

fn is_tiny(record: &SegmentRecord) -> bool {
    record.object_bytes < TINY_BYTES && record.live_chunks <= TINY_CHUNKS_MAX
}

impl Core {
    /// Moves living chunks out of segments that are not worth their space.
    ///
    /// # Errors
    /// What the store or the tables say; nothing is lost, it is tried again later.
    pub async fn sweep(&self, hurry: bool) -> Result<()> {
        loop {
            if self.closing.load(Ordering::Acquire) {
                return Ok(());
            }
            let chosen = self.candidates.take(hurry);
            if chosen.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.move_living(&chosen).await {
                for (id, record) in chosen {
                    self.candidates.again(id, record);
                }
                return Err(error);
            }
        }
    }

    /// Moves what lives in the chosen segments into a new one, durably.
    async fn move_living(&self, chosen: &[(SegmentId, SegmentRecord)]) -> Result<()> {
        let id = self.next_segment();
        let mut builder = SegmentBuilder::new(id);
        let mut moved = Vec::new();
        for &(old, record) in chosen {
            match self.living(old).await {
                Ok(living) => {
                    for (stored, bytes) in living {
                        let offset = builder.add(stored.entry, bytes).at
                            + u32::from(mutants::is(Mutant::MisplaceMovedChunk));
                        moved.push(Moved { id: stored.entry.chunk, from: old, to: id, offset });
                    }
                }
                // It died while it waited for its turn.
                Err(_) if self.segment_record(old).await?.is_none_or(|r| r.live_chunks == 0) => {}
                Err(error) => {
                    tracing::warn!(home = %self.name, segment = %old, %error, "not cleaned");
                    if matches!(error.kind(), ErrorKind::Unavailable(_)) {
                        self.candidates.again(old, record);
                    }
                }
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        let payload = builder.finish();
        self.put_segment(id, &payload, true).await?;
        let number = {
            let mut state = self.state.lock();
            let object_bytes = payload.content_length() as u64;
            state.txn.segments.push(NewSegment { id, object_bytes });
            state.txn.moved.extend(moved);
            state.txn.start();
            state.txn.number
        };
        self.wait_durable(number).await
    }

    /// The chunks that live in a segment, verified, as stored.
    async fn living(&self, id: SegmentId) -> Result<Vec<(StoredEntry, Bytes)>> {
        let path = self.path(&id.object_name());
        let failed = |error| Error::unavailable(format_args!("{path}: {error}"));
        let object = self.data.get(&path).await.map_err(failed)?;
        let object = object.bytes().await.map_err(failed)?;
        let footer = footer_of(&object)
            .map_err(|error| Error::corrupt(format_args!("segment {id}: {error}")))?;
        let mut living = Vec::new();
        for stored in footer.entries {
            let Entry { chunk, .. } = stored.entry;
            let Some(record) = self.reader.record(&self.table, chunk).await? else { continue };
            if record.segment != id || record.offset != stored.place.at {
                continue;
            }
            let from = stored.place.at as usize;
            let bytes = object.slice(from..from + stored.place.len as usize);
            let hash = ChunkHash::from(record.hash);
            segment::unpack(record.codec, bytes.clone(), record.plain_bytes, &hash)?;
            living.push((stored, bytes));
        }
        Ok(living)
    }
}

fn footer_of(object: &Bytes) -> std::result::Result<Footer, FooterError> {
    segment::read_footer(object.len() as u64, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(object_bytes: u64, live_bytes: u64) -> SegmentRecord {
        SegmentRecord { object_bytes, live_bytes, live_chunks: 1, birth: 1 }
    }

    fn note(candidates: &Candidates, id: u64, object_mib: u64, live_mib: u64) {
        candidates.note(SegmentId(id), &record(object_mib << 20, live_mib << 20));
    }

    fn taken(candidates: &Candidates) -> Vec<u64> {
        candidates.take(true).into_iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn a_candidate_that_does_not_fit_holds_none_of_the_others_up() {
        let candidates = Candidates::default();
        note(&candidates, 1, 10, 1);
        note(&candidates, 2, 20, 4);
        note(&candidates, 3, 10, 2);
        assert_eq!(taken(&candidates), [1, 3]);
        assert_eq!(taken(&candidates), [2]);
        assert_eq!(taken(&candidates), [0_u64; 0]);
    }

    #[test]
    fn a_merge_takes_no_more_chunks_than_a_transaction_bears() {
        let candidates = Candidates::default();
        let tiny = |live_chunks| SegmentRecord { live_chunks, ..record(100_000, 50_000) };
        for id in 0..64 {
            candidates.note(SegmentId(id), &tiny(200));
        }
        assert_eq!(taken(&candidates).len(), SEGMENT_CHUNKS_TARGET / 200);
        // Small, with very many chunks: it stays as it is until half of it is dead.
        let candidates = Candidates::default();
        for id in 0..64 {
            candidates.note(SegmentId(id), &tiny(TINY_CHUNKS_MAX + 1));
        }
        assert!(taken(&candidates).is_empty());
    }

    #[test]
    fn a_candidate_that_is_larger_than_a_segment_is_cleaned_alone() {
        let candidates = Candidates::default();
        note(&candidates, 1, 40, 19);
        note(&candidates, 2, 10, 1);
        assert_eq!(taken(&candidates), [1]);
        assert_eq!(taken(&candidates), [2]);
    }
}
