//! Captures: the uncommitted changes of one file's data, taken at one moment.
//!
//! A capture is durable when its pieces are in the store (or travel in the transaction). Only
//! then do its size, time, extents and charge enter a transaction, in the order in which a
//! file's captures were taken. So a file always shows, after a crash, what it was at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::data::{contents, contents_mut};
use super::dirty::{Piece, Slices};
use super::extent::{Captured, ExtentList, Source};
use super::holds::{Holds, RefKey};
use super::key;
use super::mutants::{self, Mutant};
use super::record::{ExtentRecord, INLINE_EXTENTS_MAX, InlineExtents, Place};
use super::state::{DataPart, State};
use super::types::Ino;
use yadokari_layers::chunk;

/// Data of a synced file up to this size per piece travels in the transaction.
pub const SMALL_BYTES_MAX: u32 = 8 << 10;
/// So does a whole file up to this size: one round to the store where there were two. With what
/// else is in its transaction it still is a small object to the stores, of which `file://`
/// journals those up to 64 KiB.
pub const SMALL_FILE_BYTES_MAX: u32 = 48 << 10;
/// At most this much of a home's data lies in small values: the tables write it two or three
/// times over before it is packed.
pub const SMALL_HOME_BYTES_MAX: u64 = 64 << 20;
/// A piece in the middle of a file is kept as it is up to this size.
const INNER_BYTES_MAX: u32 = 16 << 10;
/// Files that keep the unfinished block of their last capture, 128 KiB at most each.
const TAILS_MAX: usize = 32;
/// A synced capture with more pieces than this goes to a segment all the same.
const SMALL_PIECES_MAX: usize = 16;

/// One capture.
#[derive(Debug)]
pub struct Capture {
    /// The file.
    pub ino: Ino,
    /// Pieces that must be written, with their offsets in the file.
    pub pieces: Vec<(u64, Arc<Piece>)>,
    /// Pieces of other captures that must be placed before this one can commit.
    pub waits: Vec<Arc<Piece>>,
    part: DataPart,
    added: ExtentList,
    removed: ExtentList,
    /// All extents of the file, where the inode record holds them (or held them until now).
    whole: Option<ExtentList>,
    was_inline: bool,
    inline: bool,
    stored: AtomicBool,
    done: watch::Sender<bool>,
    _flying: Flying,
}

/// Counts captures that are in memory.
#[derive(Debug)]
struct Flying(Arc<AtomicUsize>);

impl Flying {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Capture {
    /// All pieces are in the store.
    pub fn set_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }

    /// True when a piece is a few bytes in the middle of the file: the place where databases and
    /// disk images are written, again and again. Looking for its content elsewhere and compressing
    /// it costs more than it brings. Where there are more than a few of them in a block, tidying
    /// makes a whole chunk of it when the file rests.
    #[must_use]
    pub fn is_inner(&self, offset: u64, piece: &Piece) -> bool {
        piece.len <= INNER_BYTES_MAX && offset + u64::from(piece.len) < self.part.size
    }

    /// Waits until the capture has entered a transaction (or its file is gone).
    pub async fn wait_done(&self) {
        let mut done = self.done.subscribe();
        let _closed = done.wait_for(|done| *done).await;
    }
}

impl State {
    /// Takes what is not captured of a file. `None`: nothing to take.
    pub fn capture(&mut self, ino: Ino, keep_tail: bool) -> Option<Arc<Capture>> {
        self.fresh.remove(&ino);
        let inode = self.inodes.get_mut(&ino).filter(|i| !i.dead)?;
        let attr = inode.attr;
        let file = inode.file.as_mut()?;
        file.fresh_since = None;
        file.fresh_bytes = 0;
        file.durable?;
        rejoin_tail(file);
        let captured = file.extents.capture(chunk::cut);
        file.tail = if keep_tail { unfinished(&captured) } else { None };
        let has_tail = file.tail.is_some();
        let was_inline = !file.keyed;
        let inline = was_inline && file.extents.len() <= INLINE_EXTENTS_MAX;
        file.keyed = !inline;
        let Captured { added, removed, pieces, waits } = captured;
        let capture = Arc::new(Capture {
            ino,
            pieces,
            waits,
            part: DataPart { size: attr.size, mtime: attr.mtime, charged: attr.charged },
            added,
            removed,
            whole: was_inline.then(|| file.extents.list()),
            was_inline,
            inline,
            stored: AtomicBool::new(false),
            done: watch::Sender::new(false),
            _flying: Flying::one_more(&self.flying),
        });
        file.captures.push_back(Arc::clone(&capture));
        if has_tail {
            self.keep_tail(ino);
        }
        Some(capture)
    }

    /// Only the last few files keep their tails.
    fn keep_tail(&mut self, ino: Ino) {
        self.tails.push_back(ino);
        if self.tails.len() > TAILS_MAX
            && let Some(oldest) = self.tails.pop_front()
            && oldest != ino
            && let Some(file) = self.inodes.get_mut(&oldest).and_then(|i| i.file.as_mut())
        {
            file.tail = None;
        }
    }

    /// Places a synced capture's pieces in the transaction where they are small enough.
    pub fn place_small(&mut self, capture: &Capture, holds: &Arc<Holds>) -> bool {
        let bytes: u64 = capture.pieces.iter().map(|(_, p)| u64::from(p.len)).sum();
        // Parts of a larger file stay below: packing writes the whole block around them again.
        let whole = bytes == capture.part.size && bytes <= u64::from(SMALL_FILE_BYTES_MAX);
        let piece_max = if whole { SMALL_FILE_BYTES_MAX } else { SMALL_BYTES_MAX };
        let small = capture.pieces.len() <= SMALL_PIECES_MAX
            && capture.pieces.iter().all(|(_, p)| p.len <= piece_max)
            && self.small_bytes + bytes <= SMALL_HOME_BYTES_MAX;
        if !small {
            return false;
        }
        for (_, piece) in &capture.pieces {
            let Some(slices) = piece.slices() else { continue };
            let id = self.counters.next_small;
            self.counters.next_small += 1;
            let value = concat(&slices);
            self.unwritten.insert(id, value.clone());
            self.txn.smalls.insert(id, (capture.ino, value));
            self.txn.start();
            // The capture may have to wait for earlier ones of its file, over a commit or several.
            let hold = holds.hold(RefKey::Small(id));
            piece.set_place(Place::Small { id, at: 0 }, Some(hold));
        }
        self.small_bytes += bytes;
        if bytes > 0 {
            for (offset, _) in &capture.pieces {
                self.note_untidy(capture.ino, *offset);
            }
        }
        true
    }

    /// Enters a file's captures that are stored, oldest first, into the running transaction.
    pub fn complete(&mut self, ino: Ino) {
        loop {
            let Some(inode) = self.inodes.get_mut(&ino) else { return };
            let Some(file) = inode.file.as_mut() else { return };
            let ready = file.captures.front().is_some_and(|c| {
                c.stored.load(Ordering::Acquire) && c.waits.iter().all(|p| p.place().is_some())
            });
            if !ready {
                return;
            }
            let capture = file.captures.pop_front().expect("looked at above");
            let last = file.captures.is_empty() && file.fresh_since.is_none();
            file.durable = if last { None } else { Some(capture.part) };
            self.enter(&capture);
            for (offset, piece) in &capture.pieces {
                if offset % chunk::CHUNK_BYTES != 0 && u64::from(piece.len) < chunk::CHUNK_BYTES {
                    self.note_untidy(ino, *offset);
                }
            }
            self.touch(ino);
            let _nobody_waits = capture.done.send_replace(true);
        }
    }

    fn enter(&mut self, capture: &Capture) {
        let ino = capture.ino;
        let keyed_before = !capture.was_inline;
        for (offset, _, source) in &capture.removed {
            if let Some(place) = source.place()
                && !mutants::is(Mutant::ForgetRelease)
            {
                self.txn.count(place, -1);
            }
            if keyed_before {
                self.txn.delete(key::extent(ino, *offset));
            }
        }
        for (offset, len, source) in &capture.added {
            let Some(place) = source.place() else { continue };
            let own = || capture.pieces.iter().any(|(at, _)| at == offset);
            if !mutants::is(Mutant::ForgetReference) || own() {
                self.txn.count(place, 1);
            }
            if keyed_before {
                let record = ExtentRecord { len: *len, place };
                self.txn.put(key::extent(ino, *offset), record.encode());
            }
            if let Source::Piece { piece, .. } = source {
                self.txn.pieces.push(Arc::clone(piece));
            }
        }
        let inline = self.enter_whole(capture);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            let file = contents_mut(inode);
            file.inline = inline;
            file.extents.settle(&capture.added);
        }
    }

    /// The extents of a file that the inode record holds, or held and holds no longer.
    fn enter_whole(&mut self, capture: &Capture) -> Option<InlineExtents> {
        let whole = capture.whole.as_ref()?;
        let mut inline = InlineExtents::new();
        for (offset, len, source) in whole {
            let Some(place) = source.place() else { continue };
            let record = ExtentRecord { len: *len, place };
            if capture.inline {
                inline.push((*offset, record));
            } else {
                self.txn.put(key::extent(capture.ino, *offset), record.encode());
            }
        }
        capture.inline.then_some(inline)
    }

    /// Files whose data can be committed without writing anything to the store first.
    pub fn capture_without_data(&mut self) -> Vec<Arc<Capture>> {
        let ready: Vec<Ino> = self
            .fresh
            .keys()
            .copied()
            .filter(|ino| {
                self.inodes.get(ino).is_some_and(|inode| {
                    inode
                        .file
                        .as_ref()
                        .is_some_and(|f| f.captures.is_empty() && !f.extents.needs_store())
                })
            })
            .collect();
        ready.into_iter().filter_map(|ino| self.capture(ino, false)).collect()
    }

    /// True when a file's data is not all in a transaction yet.
    pub fn has_uncommitted_data(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| {
            !inode.dead && inode.file.is_some() && contents(inode).durable.is_some()
        })
    }
}

/// Puts the kept tail of the last capture in front of what continues it, where that fills the
/// block: then the block becomes one chunk, as if it had been written in one go.
fn rejoin_tail(file: &mut super::state::File) {
    let Some((start, content)) = file.tail.take() else { return };
    let end = start + content.len() as u64;
    let Some(block) = chunk::cut(start, chunk::CHUNK_BYTES).next() else { return };
    let parts: Vec<_> = file.extents.pieces(start..block.end).collect();
    let untouched = parts.first().is_some_and(|(at, len, source)| {
        *at == start && at + len == end && !matches!(source, Source::Dirty { .. })
    });
    let mut reach = end;
    for (at, len, source) in parts.iter().skip(1) {
        if *at != reach || !matches!(source, Source::Dirty { .. }) {
            break;
        }
        reach = at + len;
    }
    // Doubling keeps the cost of writing again within what was written.
    let pays = reach == block.end || reach - end >= end - start;
    if untouched && reach > end && pays {
        file.extents.rewrite(start, content, None);
    }
}

/// The unfinished block at the end of what was captured.
fn unfinished(captured: &Captured) -> Option<(u64, Bytes)> {
    let (offset, piece) = captured.pieces.last()?;
    let block = chunk::cut(*offset, chunk::CHUNK_BYTES).next()?;
    if offset + u64::from(piece.len) >= block.end {
        return None;
    }
    piece.slices().map(|slices| (*offset, concat(&slices)))
}

/// One slice of several.
#[must_use]
pub fn concat(slices: &Slices) -> Bytes {
    match slices.as_slice() {
        [one] => one.clone(),
        several => {
            let mut all = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
            for slice in several {
                all.extend_from_slice(slice);
            }
            all.freeze()
        }
    }
}
