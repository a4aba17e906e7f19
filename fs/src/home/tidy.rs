//! Tidying: small values are packed into segments, and blocks of a file that lie in many pieces
//! become one chunk.
//!
//! A block is read and, unless it changed meanwhile, put back as data to be written; it then
//! takes the way of all data. The file shows the same bytes, times and charge throughout, in
//! memory and, as captures are, after any crash.
//!
//! Blocks that were written piece by piece, as logs are, become one chunk as soon as the file is
//! left alone. Blocks that were overwritten in places, as databases are, only when they lie in
//! more than a few pieces: the rewriting must not cost much more than the writing did.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::time::{Duration, Instant};
use yadokari_layers::chunk::CHUNK_BYTES;

use super::core::Core;
use super::data::{Part, Parts, contents, contents_mut, parts_of};
use super::error::{Error, ErrorKind, Result};
use super::maps::HashMap;
use super::record::Place;
use super::state::{Need, State, Step, Stop};
use super::types::Ino;

/// Files are left alone this long before they are tidied; small values are packed after this.
pub const REST: Duration = Duration::from_secs(15);
/// An overwritten block is left in up to this many pieces.
const PIECES_MAX: usize = 8;
/// Blocks of one file that are remembered; beyond it all of its blocks are looked at.
const BLOCKS_MAX: usize = 4096;

/// What is to be tidied of one file.
#[derive(Debug)]
pub struct Untidy {
    since: Instant,
    /// Which blocks; `None`: all.
    blocks: Option<BTreeSet<u64>>,
}

/// What is to be tidied of all files. Every turn of the driver asks when, so the answer is at hand.
#[derive(Debug, Default)]
pub struct UntidyFiles {
    files: HashMap<Ino, Untidy>,
    /// The same files, those that have waited longest first.
    ages: BTreeSet<(Instant, Ino)>,
}

impl UntidyFiles {
    /// A block of a file lies in pieces; `None`: any of them may.
    pub fn note(&mut self, ino: Ino, block: Option<u64>) {
        let untidy = match self.files.entry(ino) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let since = Instant::now();
                self.ages.insert((since, ino));
                vacant.insert(Untidy { since, blocks: Some(BTreeSet::new()) })
            }
        };
        match (&mut untidy.blocks, block) {
            (Some(blocks), Some(block)) if blocks.len() < BLOCKS_MAX => {
                blocks.insert(block);
            }
            (blocks, _) => *blocks = None,
        }
    }

    /// Nothing of this file is to be tidied.
    pub fn remove(&mut self, ino: Ino) -> Option<Untidy> {
        let untidy = self.files.remove(&ino)?;
        self.ages.remove(&(untidy.since, ino));
        Some(untidy)
    }

    /// When the next file has rested, seen from `now`.
    pub fn next_visit(&self, now: Instant) -> Option<Duration> {
        let (since, _) = self.ages.first()?;
        Some(REST.saturating_sub(now.saturating_duration_since(*since)))
    }

    /// The next file that has rested, or the next one in a hurry.
    fn next(&mut self, now: Instant, hurry: bool) -> Option<(Ino, Untidy)> {
        if !hurry && !self.next_visit(now)?.is_zero() {
            return None;
        }
        let (_, ino) = *self.ages.first()?;
        self.remove(ino).map(|untidy| (ino, untidy))
    }

    /// It could not be tidied now.
    fn again(&mut self, ino: Ino, untidy: Untidy) {
        if let Entry::Vacant(vacant) = self.files.entry(ino) {
            self.ages.insert((untidy.since, ino));
            vacant.insert(untidy);
        }
    }
}

impl State {
    /// Notes that a block of a file lies in pieces.
    pub fn note_untidy(&mut self, ino: Ino, offset: u64) {
        self.untidy.note(ino, Some(offset / CHUNK_BYTES));
    }

    /// The blocks of a file that have extents: of a file with long holes few.
    fn all_blocks(&mut self, ino: Ino) -> Step<BTreeSet<u64>> {
        let extents = &contents(self.file(ino)?).extents;
        if let Some(windows) = extents.missing_behind(0) {
            return Err(Stop::Need(Need::Extents(ino, windows)));
        }
        let stored =
            extents.list().into_iter().filter(|(.., s)| s.place() != Some(Place::Reserved));
        Ok(stored.map(|(offset, ..)| offset / CHUNK_BYTES).collect())
    }

    /// The parts of a block that should be one piece each: ranges, and what they consist of.
    fn untidy_runs(&mut self, ino: Ino, block: &Range<u64>) -> Step<Vec<(Range<u64>, Parts)>> {
        let size = self.file(ino)?.attr.size;
        let range = block.start..block.end.min(size.max(block.start));
        let file = contents(self.file_range(ino, &range)?);
        let mut runs: Vec<(Range<u64>, Vec<Place>)> = Vec::new();
        for (at, len, source) in file.extents.pieces(range) {
            // What is on its way is not touched; it will be noted again.
            let Some(place) = source.place() else { return Ok(Vec::new()) };
            match runs.last_mut() {
                _ if place == Place::Reserved => {}
                Some((run, places)) if run.end == at => {
                    run.end = at + len;
                    places.push(place);
                }
                _ => runs.push((at..at + len, vec![place])),
            }
        }
        runs.retain(|(_, places)| {
            let appended = places.iter().all(|place| match place {
                Place::Chunk { at, .. } | Place::Small { at, .. } => *at == 0,
                Place::Reserved => false,
            });
            let small = places.iter().any(|place| matches!(place, Place::Small { .. }));
            small || places.len() > PIECES_MAX || (places.len() > 1 && appended)
        });
        Ok(runs.into_iter().map(|(run, _)| (run.clone(), parts_of(file, run))).collect())
    }
}

impl Core {
    /// Tidies the files that have rested.
    ///
    /// # Errors
    /// What reading says; the file stays as it is and is tried again later.
    pub async fn tidy(&self, hurry: bool) -> Result<()> {
        let mut later = Vec::new();
        let tidied = self.tidy_all(hurry, &mut later).await;
        let mut state = self.state.lock();
        for (ino, offset) in later {
            state.note_untidy(ino, offset);
        }
        tidied
    }

    /// Gives what cannot be tidied yet: it is not committed, or was freed meanwhile.
    async fn tidy_all(&self, hurry: bool, later: &mut Vec<(Ino, u64)>) -> Result<()> {
        loop {
            if self.closing.load(Ordering::Acquire) {
                return Ok(());
            }
            let next = self.state.lock().untidy.next(Instant::now(), hurry);
            let Some((ino, untidy)) = next else { return Ok(()) };
            let blocks = match untidy.blocks {
                Some(blocks) => blocks,
                None => match self.run(None, |state| state.all_blocks(ino)).await {
                    Ok(blocks) => blocks,
                    Err(error @ Error(ErrorKind::Unavailable(_))) => {
                        self.state.lock().untidy.again(ino, untidy);
                        return Err(error);
                    }
                    // Removed meanwhile.
                    Err(_) => continue,
                },
            };
            for block in blocks {
                let range = block * CHUNK_BYTES..(block + 1) * CHUNK_BYTES;
                if let Err(error) = self.tidy_block(ino, range, later).await {
                    self.state.lock().note_untidy(ino, block * CHUNK_BYTES);
                    return Err(error);
                }
            }
        }
    }

    async fn tidy_block(
        &self,
        ino: Ino,
        block: Range<u64>,
        later: &mut Vec<(Ino, u64)>,
    ) -> Result<()> {
        let runs = match self.run(None, |state| state.untidy_runs(ino, &block)).await {
            Ok(runs) => runs,
            Err(_) => return Ok(()),
        };
        for (range, parts) in runs {
            let Some(pieces) = self.reader.fetch(&self.table, &parts).await? else {
                later.push((ino, range.start));
                continue;
            };
            let mut bytes = BytesMut::with_capacity(pieces.iter().map(bytes::Bytes::len).sum());
            for piece in &pieces {
                bytes.extend_from_slice(piece);
            }
            // Others' data goes first where memory is tight.
            let room = self.budget.admit(bytes.len() as u64, || self.press());
            let grant = self.patient(async { Ok(room.await) }).await?;
            let mut state = self.state.lock();
            let state = &mut *state;
            let Ok(inode) = state.file(ino) else { return Ok(()) };
            let same = inode.attr.size >= range.end
                && same_places(&parts_of(contents(inode), range.clone()), &parts);
            if !same {
                continue;
            }
            state.begin_data(ino);
            if let Ok(inode) = state.file(ino) {
                contents_mut(inode).extents.rewrite(range.start, bytes.freeze(), Some(grant));
                let len = range.end - range.start;
                state.note_fresh(ino, Instant::now(), len);
            }
        }
        Ok(())
    }
}

/// True when both say that the bytes are in the same places of the store.
fn same_places(a: &Parts, b: &Parts) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Part::Stored(a, x), Part::Stored(b, y)) => a == b && x == y,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_are_tidied_in_the_order_in_which_they_came_to_rest() {
        let mut untidy = UntidyFiles::default();
        untidy.note(Ino(9), Some(3));
        tokio::time::advance(REST / 3).await;
        untidy.note(Ino(5), None);
        untidy.note(Ino(9), Some(4));
        untidy.note(Ino(7), Some(0));
        assert_eq!(untidy.next_visit(Instant::now()), Some(REST - REST / 3));
        assert!(untidy.next(Instant::now(), false).is_none());
        tokio::time::advance(REST - REST / 3).await;
        let (ino, first) = untidy.next(Instant::now(), false).expect("has rested");
        assert_eq!((ino, first.blocks.as_ref().map(BTreeSet::len)), (Ino(9), Some(2)));
        assert!(untidy.next(Instant::now(), false).is_none());
        assert!(untidy.remove(Ino(7)).is_some());
        let (ino, all) = untidy.next(Instant::now(), true).expect("in a hurry");
        assert_eq!((ino, &all.blocks), (Ino(5), &None));
        assert_eq!(untidy.next_visit(Instant::now()), None);
        // One that could not be tidied has waited all the while.
        untidy.note(Ino(5), Some(1));
        untidy.again(Ino(9), first);
        untidy.again(Ino(5), all);
        assert_eq!(untidy.next(Instant::now(), true).map(|(ino, _)| ino), Some(Ino(9)));
        let (_, fresh) = untidy.next(Instant::now(), true).expect("the other");
        assert_eq!(fresh.blocks.map(|blocks| blocks.len()), Some(1));
        assert!(untidy.next(Instant::now(), true).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_file_with_very_many_blocks_all_are_looked_at() {
        let mut untidy = UntidyFiles::default();
        (0..=BLOCKS_MAX as u64).for_each(|block| untidy.note(Ino(2), Some(block)));
        let (_, file) = untidy.next(Instant::now(), true).expect("noted");
        assert!(file.blocks.is_none());
    }
}
