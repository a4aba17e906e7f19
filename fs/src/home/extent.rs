//! The extent map of one file in memory: which bytes are where, what differs from the database.
//!
//! Extents never overlap; what no extent covers is a hole. `saved` says that the database has
//! (or, once the running capture is committed, will have) the extent just so; what was saved
//! and is no more is kept in `removed` until the next capture. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::dirty::{self, Buffer, Grant, Piece, Slices};
use super::record::{ExtentRecord, Place};

/// Extents are read in windows of this size, and no saved extent crosses a multiple of it.
pub const WINDOW_BYTES: u64 = 64 << 20;

/// A range of more windows than this is read whole: it is that of a file with long holes.
const WINDOWS_APART_MAX: u64 = 4096;

/// Where the bytes of an extent are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In the store, or nowhere (reserved).
    Saved(Place),
    /// In memory: not captured yet.
    Dirty {
        /// The buffer.
        buffer: Arc<Buffer>,
        /// The extent's first byte in it.
        at: u32,
    },
    /// In a piece that is on its way to the store, or held there.
    Piece {
        /// The piece.
        piece: Arc<Piece>,
        /// The extent's first byte in it.
        at: u32,
    },
}

impl Source {
    fn skip(&self, bytes: u64) -> Self {
        let by = u32::try_from(bytes);
        match self {
            Self::Saved(Place::Reserved) => Self::Saved(Place::Reserved),
            Self::Saved(Place::Chunk { id, at }) => {
                Self::Saved(Place::Chunk { id: *id, at: at + by.expect("inside a chunk") })
            }
            Self::Saved(Place::Small { id, at }) => {
                Self::Saved(Place::Small { id: *id, at: at + by.expect("inside a small value") })
            }
            Self::Dirty { buffer, at } => {
                Self::Dirty { buffer: Arc::clone(buffer), at: at + by.expect("inside a buffer") }
            }
            Self::Piece { piece, at } => {
                Self::Piece { piece: Arc::clone(piece), at: at + by.expect("inside a piece") }
            }
        }
    }

    /// The durable place, once there is one.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Saved(place) => Some(*place),
            Self::Dirty { .. } => None,
            Self::Piece { piece, at } => piece.place().map(|place| match place {
                Place::Chunk { id, at: base } => Place::Chunk { id, at: base + at },
                Place::Small { id, at: base } => Place::Small { id, at: base + at },
                Place::Reserved => Place::Reserved,
            }),
        }
    }
}

/// `len` bytes of a file.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Bytes, at least 1.
    pub len: u64,
    /// Where they are.
    pub source: Source,
    saved: bool,
}

/// Extents at their offsets, as a capture lists them.
pub type ExtentList = Vec<(u64, u64, Source)>;

/// What a capture takes from a map: enough to bring the database up to this moment.
#[derive(Debug, Default)]
pub struct Captured {
    /// Extents that the database does not have yet.
    pub added: ExtentList,
    /// Extents that it still has.
    pub removed: ExtentList,
    /// New pieces in `added`, with their offsets, that must be written to the store first.
    pub pieces: Vec<(u64, Arc<Piece>)>,
    /// Pieces of other captures that must be placed first.
    pub waits: Vec<Arc<Piece>>,
}

/// The extent map of a file.
#[derive(Debug, Default)]
pub struct ExtentMap {
    map: BTreeMap<u64, Extent>,
    unsaved: BTreeSet<u64>,
    removed: BTreeMap<u64, (u64, Source)>,
    known: BTreeSet<u64>,
    known_from: Option<u64>,
    all_known: bool,
}

impl ExtentMap {
    /// A file that has no extents in the database, or all of them in `inline`.
    #[must_use]
    pub fn complete(inline: &[(u64, ExtentRecord)]) -> Self {
        let mut map = Self { all_known: true, ..Self::default() };
        map.load(inline);
        map
    }

    /// A file whose extents are in the database and will be loaded window by window.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    fn load(&mut self, saved: &[(u64, ExtentRecord)]) {
        for (offset, record) in saved {
            self.map.entry(*offset).or_insert_with(|| Extent {
                len: record.len,
                source: Source::Saved(record.place),
                saved: true,
            });
        }
    }

    /// Puts windows that were read from the database into the map.
    pub fn load_windows(&mut self, windows: Range<u64>, saved: &[(u64, ExtentRecord)]) {
        let fresh = |offset: &u64| !self.all_known && !self.knows(offset / WINDOW_BYTES);
        let saved: Vec<_> = saved.iter().filter(|(offset, _)| fresh(offset)).copied().collect();
        self.load(&saved);
        if windows.end == u64::MAX {
            self.known_from = Some(self.known_from.map_or(windows.start, |k| k.min(windows.start)));
            self.all_known |= windows.start == 0;
        } else {
            self.known.extend(windows);
        }
    }

    fn knows(&self, window: u64) -> bool {
        self.known_from.is_some_and(|from| window >= from) || self.known.contains(&window)
    }

    /// The windows that must be loaded before everything from `offset` on is known.
    #[must_use]
    pub fn missing_behind(&self, offset: u64) -> Option<Range<u64>> {
        let first = offset / WINDOW_BYTES;
        let known = self.all_known || self.known_from.is_some_and(|from| from <= first);
        (!known).then_some(first..u64::MAX)
    }

    /// Replaces what lies at `offset` by the same bytes in memory, to cut them anew.
    pub fn rewrite(&mut self, offset: u64, bytes: bytes::Bytes, grant: Option<Grant>) {
        let len = bytes.len() as u64;
        self.carve(offset..offset + len);
        let buffer = Buffer::new(bytes, grant);
        self.insert(offset, len, Source::Dirty { buffer, at: 0 });
    }

    /// The windows that must be loaded before `range` can be looked at; at most `max` of them.
    #[must_use]
    pub fn missing(&self, range: &Range<u64>, max: u64) -> Option<Range<u64>> {
        if self.all_known || range.is_empty() {
            return None;
        }
        let (first, last) = (range.start / WINDOW_BYTES, (range.end - 1) / WINDOW_BYTES);
        if self.known_from.is_some_and(|from| from <= first) {
            return None;
        }
        if last - first >= WINDOWS_APART_MAX {
            return Some(first..u64::MAX);
        }
        let start = (first..=last).find(|window| !self.knows(*window))?;
        let mut end = start + 1;
        while end <= last && end - start < max && !self.knows(end) {
            end += 1;
        }
        Some(start..end)
    }

    /// True when all extents of the file are in memory.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.all_known
    }

    /// Extents in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True when nothing waits to be captured.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && self.removed.is_empty()
    }

    /// True when a capture would have something to wait for.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        self.unsaved.iter().any(|k| self.map[k].source.place().is_none())
    }

    /// The extents that overlap `range`, clipped to it: offset, bytes, source.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64, Source)> + '_ {
        self.overlapping(range.clone()).map(move |(start, extent)| {
            let from = start.max(range.start);
            let to = (start + extent.len).min(range.end);
            (from, to - from, extent.source.skip(from - start))
        })
    }

    fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Extent)> + '_ {
        let before = self
            .map
            .range(..range.start)
            .next_back()
            .filter(|(start, extent)| **start + extent.len > range.start && !range.is_empty());
        let first = before.map_or(range.start, |(start, _)| *start);
        let end = range.end.max(first);
        self.map.range(first..end).map(|(start, extent)| (*start, extent))
    }

    /// Bytes of `range` that extents cover.
    #[must_use]
    pub fn covered(&self, range: Range<u64>) -> u64 {
        self.overlapping(range.clone())
            .map(|(start, extent)| (start + extent.len).min(range.end) - start.max(range.start))
            .sum()
    }

    /// The holes of `range`, in order.
    #[must_use]
    pub fn holes(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = range.start;
        for (start, extent) in self.overlapping(range.clone()) {
            if start > at {
                holes.push(at..start);
            }
            at = at.max(start + extent.len);
        }
        if at < range.end {
            holes.push(at..range.end);
        }
        holes
    }

    /// The first byte at or behind `offset` that holds data (reserved space does not).
    #[must_use]
    pub fn next_data(&self, range: Range<u64>) -> Option<u64> {
        self.overlapping(range.clone())
            .find(|(_, extent)| !matches!(extent.source, Source::Saved(Place::Reserved)))
            .map(|(start, _)| start.max(range.start))
    }

    /// The first byte of `range` that holds no data; its end where there is none.
    #[must_use]
    pub fn next_hole(&self, range: Range<u64>) -> u64 {
        let mut at = range.start;
        for (start, extent) in self.overlapping(range.clone()) {
            if start > at || matches!(extent.source, Source::Saved(Place::Reserved)) {
                return at;
            }
            at = start + extent.len;
        }
        at.min(range.end)
    }

    /// Makes `range` a hole; gives the bytes that extents covered there.
    pub fn carve(&mut self, range: Range<u64>) -> u64 {
        let hit: SmallVec<[(u64, u64); 4]> =
            self.overlapping(range.clone()).map(|(start, extent)| (start, extent.len)).collect();
        let mut freed = 0;
        for (start, len) in hit {
            let extent = self.map.remove(&start).expect("just listed");
            let end = start + len;
            freed += end.min(range.end) - start.max(range.start);
            if start < range.start {
                self.put(start, range.start - start, extent.source.clone());
            }
            if end > range.end {
                self.put(range.end, end - range.end, extent.source.skip(range.end - start));
            }
            if extent.saved {
                self.removed.insert(start, (len, extent.source));
            } else if start >= range.start {
                self.unsaved.remove(&start);
            }
        }
        freed
    }

    fn put(&mut self, offset: u64, len: u64, source: Source) {
        self.map.insert(offset, Extent { len, source, saved: false });
        self.unsaved.insert(offset);
    }

    /// Puts bytes into `offset..offset + len`, which must be a hole.
    pub fn insert(&mut self, offset: u64, len: u64, source: Source) {
        debug_assert_eq!(self.covered(offset..offset + len), 0, "extents never overlap");
        self.put(offset, len, source);
    }

    /// Reserves the holes of `range`; gives the bytes.
    pub fn reserve(&mut self, range: Range<u64>) -> u64 {
        let mut reserved = 0;
        for hole in self.holes(range) {
            let mut at = hole.start;
            while at < hole.end {
                let end = hole.end.min((at / WINDOW_BYTES + 1) * WINDOW_BYTES);
                self.put(at, end - at, Source::Saved(Place::Reserved));
                reserved += end - at;
                at = end;
            }
        }
        reserved
    }

    /// The buffer of the dirty extent that ends just at `offset`, for an append in place.
    pub fn tail_buffer(&mut self, offset: u64) -> Option<(&mut Arc<Buffer>, &mut u64)> {
        let (start, extent) = self.map.range_mut(..offset).next_back()?;
        if start + extent.len != offset || extent.saved {
            return None;
        }
        let Extent { len, source: Source::Dirty { buffer, at }, .. } = extent else { return None };
        let filled = buffer.as_ref().as_ref().len() as u64;
        (u64::from(*at) + *len == filled).then_some((buffer, len))
    }

    /// Takes everything that differs from the database. Runs of dirty extents are cut into
    /// pieces by `cut` (a file offset and a length to ranges of the run).
    pub fn capture<I>(&mut self, cut: impl Fn(u64, u64) -> I) -> Captured
    where
        I: Iterator<Item = Range<u64>>,
    {
        let mut captured = Captured {
            removed: std::mem::take(&mut self.removed)
                .into_iter()
                .map(|(offset, (len, source))| (offset, len, source))
                .collect(),
            ..Captured::default()
        };
        let mut run: Vec<(u64, u64, Source)> = Vec::new();
        for offset in std::mem::take(&mut self.unsaved) {
            let extent = &self.map[&offset];
            let (len, source) = (extent.len, extent.source.clone());
            let joins = run.last().is_none_or(|(at, len, _)| at + len == offset);
            let dirty = matches!(source, Source::Dirty { .. });
            if !run.is_empty() && !(dirty && joins) {
                self.freeze(std::mem::take(&mut run), &cut, &mut captured);
            }
            if dirty {
                run.push((offset, len, source));
                continue;
            }
            if let Source::Piece { piece, .. } = &source
                && piece.place().is_none()
            {
                captured.waits.push(Arc::clone(piece));
            }
            self.map.get_mut(&offset).expect("looked up above").saved = true;
            captured.added.push((offset, len, source));
        }
        if !run.is_empty() {
            self.freeze(run, &cut, &mut captured);
        }
        captured
    }

    fn freeze<I>(
        &mut self,
        run: Vec<(u64, u64, Source)>,
        cut: &impl Fn(u64, u64) -> I,
        captured: &mut Captured,
    ) where
        I: Iterator<Item = Range<u64>>,
    {
        let start = run[0].0;
        let total: u64 = run.iter().map(|(_, len, _)| len).sum();
        for (offset, ..) in &run {
            self.map.remove(offset);
        }
        let mut parts = run.into_iter().peekable();
        for range in cut(start, total) {
            let mut slices = Slices::new();
            while let Some((offset, len, Source::Dirty { buffer, at })) = parts.peek() {
                let (from, to) = (range.start.max(*offset), range.end.min(offset + len));
                if from >= to {
                    break;
                }
                let skip = u32::try_from(from - offset).expect("inside a buffer");
                slices.push(dirty::slice(buffer, at + skip, to - from));
                if offset + len > range.end {
                    break;
                }
                parts.next();
            }
            let len = range.end - range.start;
            let piece = Piece::new(u32::try_from(len).expect("a chunk at most"), slices);
            let source = Source::Piece { piece: Arc::clone(&piece), at: 0 };
            self.map.insert(range.start, Extent { len, source: source.clone(), saved: true });
            captured.added.push((range.start, len, source));
            captured.pieces.push((range.start, piece));
        }
    }

    /// Replaces pieces that are placed and saved by their places, letting their holds go.
    pub fn settle(&mut self, captured: &ExtentList) {
        for (offset, len, _) in captured {
            for (_, extent) in self.map.range_mut(*offset..*offset + *len) {
                if extent.saved
                    && let Some(place) = extent.source.place()
                {
                    extent.source = Source::Saved(place);
                }
            }
        }
    }

    /// All extents, in order.
    #[must_use]
    pub fn list(&self) -> ExtentList {
        self.map.iter().map(|(offset, e)| (*offset, e.len, e.source.clone())).collect()
    }

    /// The extents that the database has, whether the file still shows them or not.
    #[must_use]
    pub fn saved(&self) -> ExtentList {
        let shown = self.map.iter().filter(|(_, e)| e.saved);
        let gone = self.removed.iter().map(|(at, (len, source))| (*at, *len, source.clone()));
        shown.map(|(at, e)| (*at, e.len, e.source.clone())).chain(gone).collect()
    }
}
