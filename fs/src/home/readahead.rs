//! Reading a large file from front to back: how far it has come, and what is fetched ahead of it.

use std::ops::Range;
use std::time::Duration;

use super::core::Core;
use super::data::contents_mut;
use super::state::State;
use super::types::Ino;

/// Reads from this length on are those of somebody who wants a lot.
const READ_BYTES_MIN: u32 = 512 << 10;
/// So much is fetched ahead: twice what the kernel asks for at a time.
const AHEAD_BYTES: u64 = 8 << 20;
/// After this long nobody needs what was to be fetched ahead.
const TIME_MAX: Duration = Duration::from_secs(5);

/// How far a file is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadAhead {
    /// The end of the reads so far.
    end: u64,
    /// The end of what was fetched ahead.
    fetched: u64,
}

impl ReadAhead {
    /// What to fetch ahead, in pieces as long as the read, now that `read` is read of a file of
    /// `size` bytes. The kernel has several reads on their way, which come in any order.
    fn follow(&mut self, read: &Range<u64>, size: u64) -> Option<Range<u64>> {
        let near = self.end.saturating_sub(AHEAD_BYTES / 2)..=self.end + AHEAD_BYTES;
        let follows = read.start > 0 && self.end > 0 && near.contains(&read.start);
        if !follows {
            *self = Self { end: read.end, fetched: 0 };
            return None;
        }
        self.end = self.end.max(read.end);
        let reach = (self.end + AHEAD_BYTES).min(size);
        let known = (self.end..=self.end + AHEAD_BYTES).contains(&self.fetched);
        let in_step = known && (self.fetched - self.end).is_multiple_of(read.end - read.start);
        let from = if in_step { self.fetched } else { self.end };
        (from < reach).then(|| {
            self.fetched = reach;
            from..reach
        })
    }
}

impl State {
    fn follow(&mut self, ino: Ino, offset: u64, len: u32) -> Option<Range<u64>> {
        let inode = self.inodes.get_mut(&ino).filter(|inode| inode.file.is_some())?;
        let size = inode.attr.size;
        let end = offset.checked_add(u64::from(len)).filter(|end| *end <= size)?;
        contents_mut(inode).readahead.follow(&(offset..end), size)
    }

    /// Nothing was fetched ahead from here on.
    fn not_fetched(&mut self, ino: Ino, from: u64) {
        if let Some(file) = self.inodes.get_mut(&ino).and_then(|inode| inode.file.as_mut()) {
            file.readahead.fetched = file.readahead.fetched.min(from);
        }
    }
}

impl Core {
    /// Fetches ahead what is likely to be read after `len` bytes from `offset`.
    pub fn read_ahead(&self, ino: Ino, offset: u64, len: u32) {
        if len < READ_BYTES_MIN {
            return;
        }
        let Some(next) = self.state.lock().follow(ino, offset, len) else { return };
        let core = self.arc();
        self.runtime.spawn(async move {
            let fetch = core.fetch_pieces(ino, next, u64::from(len));
            let _late = tokio::time::timeout(TIME_MAX, fetch).await;
        });
    }

    async fn fetch_pieces(&self, ino: Ino, range: Range<u64>, step: u64) {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + step);
            let bytes = u32::try_from(end - at).expect("as long as a read");
            let parts = self.run(None, |state| state.read(ino, at, bytes)).await;
            // Whoever reads there hears of what is wrong.
            let Ok(parts) = parts else { return };
            if !matches!(self.reader.fetch_ahead(&self.table, &parts).await, Ok(true)) {
                return self.state.lock().not_fetched(ino, at);
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn read(readahead: &mut ReadAhead, at: u64, size: u64) -> Option<(u64, u64)> {
        let ahead = readahead.follow(&(at * MIB..(at + 1) * MIB), size * MIB);
        ahead.map(|range| (range.start / MIB, range.end / MIB))
    }

    #[test]
    fn who_reads_on_is_followed_in_whatever_order_the_reads_come() {
        let mut readahead = ReadAhead::default();
        assert_eq!(read(&mut readahead, 0, 100), None);
        assert_eq!(read(&mut readahead, 1, 100), Some((2, 10)));
        assert_eq!(read(&mut readahead, 4, 100), Some((10, 13)));
        assert_eq!(read(&mut readahead, 2, 100), None);
        assert_eq!(read(&mut readahead, 3, 100), None);
        assert_eq!(read(&mut readahead, 5, 14), Some((13, 14)));
        assert_eq!(read(&mut readahead, 6, 14), None);
    }

    #[test]
    fn who_jumps_is_not_followed_and_who_changes_step_is_followed_anew() {
        let mut readahead = ReadAhead::default();
        assert_eq!(read(&mut readahead, 50, 100), None);
        assert_eq!(read(&mut readahead, 10, 100), None);
        assert_eq!(read(&mut readahead, 11, 100), Some((12, 20)));
        let odd = readahead.follow(&(12 * MIB..12 * MIB + MIB / 2), 100 * MIB);
        assert_eq!(odd, Some(20 * MIB..20 * MIB + MIB / 2));
        let next = readahead.follow(&(12 * MIB + MIB / 2..13 * MIB + MIB / 2), 100 * MIB);
        assert_eq!(next, Some(20 * MIB + MIB / 2..21 * MIB + MIB / 2));
        let step = readahead.follow(&(13 * MIB + MIB / 2..14 * MIB + MIB / 4), 100 * MIB);
        assert_eq!(step, Some(14 * MIB + MIB / 4..22 * MIB + MIB / 4));
    }
}
