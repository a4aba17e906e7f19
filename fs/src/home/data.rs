//! Contents: write, truncate, reserve, punch, clone, seek, and what a read must fetch.
//! Steps over [`State`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::dirty::{self, Buffer, Grant, Piece, Slices};
use super::error::ErrorKind;
use super::extent::{Source, WINDOW_BYTES};
use super::holds::{Holds, RefKey};
use super::mutants::{self, Mutant};
use super::record::Place;
use super::state::{DataPart, Inode, Need, State, Step, Stop};
use super::types::{Change, FILE_BYTES_MAX, Falloc, Ino, Seek, Time, WriteMode};

/// Writes up to this size are copied behind the one before, into one buffer.
const APPEND_BYTES_MAX: usize = 64 << 10;
/// Most bytes that one call clones; callers come back for the rest.
pub const COPY_BYTES_MAX: u64 = 1 << 30;

/// Most bytes that one call reserves: each window of them is an extent.
const RESERVE_BYTES_MAX: u64 = 16 << 40;

/// A part of what a read gives.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory.
    Memory(Bytes),
    /// Zeros: a hole or reserved space.
    Zeros(u64),
    /// Bytes in the store.
    Stored(Place, u64),
}

/// The parts of a read, in order.
pub type Parts = smallvec::SmallVec<[Part; 4]>;

impl State {
    /// Before the first change of a file's data: what the database shows until that is durable.
    pub fn begin_data(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let attr = inode.attr;
        let Some(file) = inode.file.as_mut() else { return };
        if file.durable.is_none() {
            file.durable =
                Some(DataPart { size: attr.size, mtime: attr.mtime, charged: attr.charged });
        }
    }

    /// Before `range` of a file changes: a kept tail that it touches is not the file's any more.
    fn begin_change(&mut self, ino: Ino, range: &Range<u64>) {
        self.begin_data(ino);
        if let Some(file) = self.inodes.get_mut(&ino).and_then(|i| i.file.as_mut())
            && let Some((start, content)) = &file.tail
            && range.start < start + content.len() as u64
            && *start < range.end
            && !mutants::is(Mutant::KeepStaleTail)
        {
            file.tail = None;
        }
    }

    fn data_changed(&mut self, ino: Ino, freed: u64, taken: u64, bytes: u64, now: Time) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.attr.charged = (inode.attr.charged + taken).saturating_sub(freed);
            inode.attr.mtime = now;
            inode.attr.ctime = now;
        }
        self.charge(freed, taken);
        self.note_fresh(ino, Instant::now(), bytes);
        self.announce(Change::Inode { ino, data: true });
    }

    /// Writes `data`; gives how many bytes the quota let in.
    pub fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &Bytes,
        mode: WriteMode,
        grant: &mut Option<Grant>,
        now: Time,
    ) -> Step<u32> {
        self.check()?;
        let size = self.file(ino)?.attr.size;
        let offset = if mode.append { size } else { offset };
        let wanted = data.len() as u64;
        if offset >= FILE_BYTES_MAX && wanted > 0 {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let range = offset..offset + wanted.min(FILE_BYTES_MAX.saturating_sub(offset));
        let extents = &contents(self.file_range(ino, &range)?).extents;
        let covered = extents.covered(range.clone());
        let room = self.quota.bytes.saturating_sub(self.bytes);
        let len = range.end - range.start;
        let len = if len - covered <= room { len } else { self.fitting(ino, &range, room)? };
        if len == 0 && wanted > 0 {
            return Err(ErrorKind::OverQuota.into());
        }
        if self.has_priv(ino, mode.kill)? {
            self.kill_priv(ino, mode.kill);
        }
        if len == 0 {
            return Ok(0);
        }
        self.begin_change(ino, &(offset..offset + len));
        let data = data.slice(..usize::try_from(len).expect("a part of a buffer in memory"));
        let inode = self.file(ino)?;
        let (freed, taken) = put_data(inode, offset, data, grant);
        inode.attr.size = inode.attr.size.max(offset + len);
        self.data_changed(ino, freed, taken, len, now);
        Ok(u32::try_from(len).expect("writes are short"))
    }

    /// How much of the front of `range` can be written with `room` bytes of quota.
    fn fitting(&mut self, ino: Ino, range: &Range<u64>, mut room: u64) -> Step<u64> {
        let extents = &contents(self.file(ino)?).extents;
        for hole in extents.holes(range.clone()) {
            let bytes = hole.end - hole.start;
            if bytes > room {
                return Ok(hole.start + room - range.start);
            }
            room -= bytes;
        }
        Ok(range.end - range.start)
    }

    /// New size: cuts off, or adds a hole.
    pub fn truncate(&mut self, ino: Ino, size: u64, now: Time) -> Step<()> {
        self.check()?;
        if size > FILE_BYTES_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        // Reserved space may lie behind the end of the file; all of it goes.
        let cut = size..u64::MAX - WINDOW_BYTES;
        if let Some(windows) = contents(self.file(ino)?).extents.missing_behind(size) {
            return Err(Stop::Need(Need::Extents(ino, windows)));
        }
        self.begin_change(ino, &cut);
        let inode = self.file(ino)?;
        let freed = contents_mut(inode).extents.carve(cut);
        inode.attr.size = size;
        self.data_changed(ino, freed, 0, 0, now);
        Ok(())
    }

    /// Reserves, punches, zeroes.
    pub fn fallocate(
        &mut self,
        ino: Ino,
        what: Falloc,
        offset: u64,
        len: u64,
        now: Time,
    ) -> Step<()> {
        self.check()?;
        if len == 0 {
            return Err(ErrorKind::Invalid.into());
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX);
        let Some(end) = end else { return Err(ErrorKind::FileTooLarge.into()) };
        if what != Falloc::PunchHole && len > RESERVE_BYTES_MAX {
            return Err(ErrorKind::NoSpace.into());
        }
        let inode = self.file_range(ino, &(offset..end))?;
        let covered = contents(inode).extents.covered(offset..end);
        let keep_size = match what {
            Falloc::PunchHole => true,
            Falloc::Allocate { keep_size } | Falloc::ZeroRange { keep_size } => {
                self.check_quota(len - covered, 0)?;
                keep_size
            }
        };
        self.begin_change(ino, &(offset..end));
        let inode = self.file(ino)?;
        let extents = &mut contents_mut(inode).extents;
        let (freed, taken) = match what {
            Falloc::Allocate { .. } => (0, extents.reserve(offset..end)),
            Falloc::PunchHole => (extents.carve(offset..end), 0),
            Falloc::ZeroRange { .. } => (extents.carve(offset..end), extents.reserve(offset..end)),
        };
        if !keep_size {
            inode.attr.size = inode.attr.size.max(end);
        }
        self.data_changed(ino, freed, taken, 0, now);
        Ok(())
    }

    /// The next data or hole.
    pub fn seek(&mut self, ino: Ino, offset: u64, whence: Seek) -> Step<u64> {
        let size = self.file(ino)?.attr.size;
        if offset >= size {
            return Err(ErrorKind::NoData.into());
        }
        let mut from = offset;
        let mut windows = 1_u64;
        while from < size {
            // The answer is mostly near; where it is not, a few steps reach any end.
            let to = (from / WINDOW_BYTES + windows).saturating_mul(WINDOW_BYTES).min(size);
            windows = windows.saturating_mul(2);
            let extents = &contents(self.file_range(ino, &(from..to))?).extents;
            match whence {
                Seek::Data => {
                    if let Some(at) = extents.next_data(from..to) {
                        return Ok(at);
                    }
                }
                Seek::Hole => {
                    let at = extents.next_hole(from..to);
                    if at < to {
                        return Ok(at);
                    }
                }
            }
            from = to;
        }
        match whence {
            Seek::Data => Err(ErrorKind::NoData.into()),
            Seek::Hole => Ok(size),
        }
    }

    /// Clones a range without copying data.
    pub fn copy_range(
        &mut self,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        holds: &Arc<Holds>,
        now: Time,
    ) -> Step<u64> {
        self.check()?;
        let size = self.file(from.0)?.attr.size;
        let len = len.min(size.saturating_sub(from.1)).min(COPY_BYTES_MAX);
        self.file(to.0)?;
        if len == 0 {
            return Ok(0);
        }
        let Some(end) = to.1.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX) else {
            return Err(ErrorKind::FileTooLarge.into());
        };
        let source = from.1..from.1 + len;
        if from.0 == to.0 && source.start < end && to.1 < source.end {
            return Err(ErrorKind::Invalid.into());
        }
        let parts: Vec<_> =
            contents(self.file_range(from.0, &source)?).extents.pieces(source).collect();
        let covered = contents(self.file_range(to.0, &(to.1..end))?).extents.covered(to.1..end);
        let taken: u64 = parts.iter().map(|(_, len, _)| len).sum();
        let taken = if mutants::is(Mutant::MiscountClone) { 0 } else { taken };
        self.check_quota(taken.saturating_sub(covered), 0)?;
        self.begin_change(to.0, &(to.1..end));
        let inode = self.file(to.0)?;
        let extents = &mut contents_mut(inode).extents;
        let freed = extents.carve(to.1..end);
        let mut dirty = 0;
        for (at, bytes, source) in parts {
            dirty += u64::from(matches!(source, Source::Dirty { .. })) * bytes;
            let mut done = 0;
            while done < bytes {
                // No extent crosses a window of its new file.
                let at = to.1 + (at - from.1) + done;
                let part = (bytes - done).min((at / WINDOW_BYTES + 1) * WINDOW_BYTES - at);
                extents.insert(at, part, share(&source, done, part, holds));
                done += part;
            }
        }
        inode.attr.size = inode.attr.size.max(end);
        self.data_changed(to.0, freed, taken, dirty, now);
        Ok(len)
    }

    /// What a read of `range` must give, clipped to the file's size.
    pub fn read(&mut self, ino: Ino, offset: u64, len: u32) -> Step<Parts> {
        let size = self.file(ino)?.attr.size;
        let range = offset.min(size)..offset.saturating_add(u64::from(len)).min(size);
        if range.is_empty() {
            return Ok(Parts::new());
        }
        let mut parts = parts_of(contents(self.file_range(ino, &range)?), range);
        for part in &mut parts {
            if let Part::Stored(Place::Small { id, at }, len) = part
                && let Some(value) = self.unwritten.get(id)
            {
                let at = *at as usize;
                let len = usize::try_from(*len).expect("a small value");
                *part = Part::Memory(value.slice(at..at + len));
            }
        }
        Ok(parts)
    }
}

/// The parts of a range that lies within the file.
pub fn parts_of(file: &super::state::File, range: Range<u64>) -> Parts {
    let mut parts = Parts::new();
    let mut at = range.start;
    for (start, len, source) in file.extents.pieces(range.clone()) {
        if start > at {
            parts.push(Part::Zeros(start - at));
        }
        at = start + len;
        match (&source, source.place()) {
            (_, Some(Place::Reserved)) => parts.push(Part::Zeros(len)),
            (_, Some(place)) => parts.push(Part::Stored(place, len)),
            (Source::Dirty { buffer, at }, None) => {
                parts.push(Part::Memory(dirty::slice(buffer, *at, len)));
            }
            (Source::Piece { piece, at }, None) => push_piece(&mut parts, piece, *at, len),
            (Source::Saved(_), None) => unreachable!("what is saved has a place"),
        }
    }
    if at < range.end {
        parts.push(Part::Zeros(range.end - at));
    }
    parts
}

fn push_piece(parts: &mut Parts, piece: &Piece, at: u32, len: u64) {
    let Some(slices) = piece.slices() else {
        // Placed between the two looks: the place is there now.
        if let Some(place) = (Source::Piece { piece: placeholder(piece), at }).place() {
            parts.push(Part::Stored(place, len));
        }
        return;
    };
    let (mut skip, mut left) = (at as usize, usize::try_from(len).expect("a piece in memory"));
    for slice in slices {
        if skip >= slice.len() {
            skip -= slice.len();
            continue;
        }
        let take = left.min(slice.len() - skip);
        parts.push(Part::Memory(slice.slice(skip..skip + take)));
        skip = 0;
        left -= take;
        if left == 0 {
            break;
        }
    }
}

fn placeholder(piece: &Piece) -> Arc<Piece> {
    let copy = Piece::new(piece.len, Slices::new());
    if let Some(place) = piece.place() {
        copy.set_place(place, None);
    }
    copy
}

/// A source for another file: what is in the store is held until that file's records say so.
fn share(source: &Source, skip: u64, len: u64, holds: &Arc<Holds>) -> Source {
    let skip = u32::try_from(skip);
    match source {
        Source::Saved(Place::Reserved) => Source::Saved(Place::Reserved),
        Source::Saved(place) => {
            let skip = skip.expect("inside a chunk");
            let place = match *place {
                Place::Chunk { id, at } => Place::Chunk { id, at: at + skip },
                Place::Small { id, at } => Place::Small { id, at: at + skip },
                Place::Reserved => Place::Reserved,
            };
            let key = RefKey::of(place).expect("reserved space is matched above");
            let len = u32::try_from(len).expect("a chunk at most");
            Source::Piece { piece: Piece::placed_at(len, place, holds.hold(key)), at: 0 }
        }
        Source::Dirty { buffer, at } => {
            Source::Dirty { buffer: Arc::clone(buffer), at: at + skip.expect("inside a buffer") }
        }
        Source::Piece { piece, at } => {
            Source::Piece { piece: Arc::clone(piece), at: at + skip.expect("inside a piece") }
        }
    }
}

/// Puts bytes into a file; gives what that freed and took of the quota.
fn put_data(inode: &mut Inode, offset: u64, data: Bytes, grant: &mut Option<Grant>) -> (u64, u64) {
    let len = data.len() as u64;
    let extents = &mut contents_mut(inode).extents;
    let freed = extents.carve(offset..offset + len);
    let Some(mut room) = grant.take() else {
        unreachable!("a write comes with its room in memory");
    };
    if data.len() <= APPEND_BYTES_MAX
        && let Some((buffer, extent_len)) = extents.tail_buffer(offset)
    {
        match Buffer::append(buffer, &data, room) {
            Ok(()) => {
                *extent_len += len;
                return (freed, len);
            }
            Err(back) => room = back,
        }
    }
    extents.insert(offset, len, Source::Dirty { buffer: Buffer::new(data, Some(room)), at: 0 });
    (freed, len)
}

/// The contents of what is known to be a file.
pub fn contents(inode: &Inode) -> &super::state::File {
    inode.file.as_ref().expect("files have contents")
}

/// The contents of what is known to be a file.
pub fn contents_mut(inode: &mut Inode) -> &mut super::state::File {
    inode.file.as_mut().expect("files have contents")
}
