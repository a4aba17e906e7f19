//! Records beside the inodes in memory: of inodes that were evicted, and what scans of the
//! database brought along. A record takes a tenth of what an inode takes, and making an inode of
//! one takes a thousandth of the time that a scan takes.
//!
//! What always holds: a parked record is what the database says. An inode is parked only while it
//! is not in memory itself, names of a directory only while none of them is in memory, and what
//! may be older than an eviction is never parked (see [`super::load`]).

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::ahead::Ahead;
use super::brought::Brought;
use super::maps::SameHash;
use super::mutants::{self, Mutant};
use super::record::InodeRecord;
use super::types::{Attr, Ino};

/// Bytes of records that are kept for each inode that may be in memory, which has about ten
/// times as many. A record has 160.
const INODE_BYTES: usize = 640;
/// Likewise bytes of names.
const NAMES_BYTES: usize = 320;
/// The share of the room for what was used already. The rest is for what was not: what a scan
/// brought along is used once, and has to stay until then.
const HOT: f64 = 0.5;
/// What the cache takes for an entry beside its bytes.
const ENTRY_BYTES: usize = 64;
/// The least and the most rows that a scan brings along.
const AHEAD_MIN: usize = 32;
const AHEAD_MAX: usize = 1024;
/// A scan takes as long as it takes to bring so many rows along, and more where it waits for the
/// store: 20 to 80 us and 1.1 us.
pub const ROWS_OF_A_SCAN: usize = 16;
/// For a row that it brings along a scan goes over so many numbers at most: many may be of files
/// that were removed, of which deletions are left in the tables for a while.
const NUMBERS_OF_A_ROW_MAX: u64 = 64;

/// Rows of a directory: the hash of a bucket, and the bucket. Copies: what a scan gives holds on
/// to the blocks that it read.
pub type Rows = Box<[(u64, Box<[u8]>)]>;

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Ino, Box<[u8]>> for Weight {
    fn weight(&self, _: &Ino, record: &Box<[u8]>) -> u64 {
        (record.len() + ENTRY_BYTES) as u64
    }
}

impl Weighter<Ino, Rows> for Weight {
    fn weight(&self, _: &Ino, rows: &Rows) -> u64 {
        let bytes: usize = rows.iter().map(|(_, row)| row.len() + ENTRY_BYTES).sum();
        (bytes + ENTRY_BYTES) as u64
    }
}

type Parks<T> = Cache<Ino, T, Weight, SameHash>;

/// The parked records of a home.
#[derive(Debug)]
pub struct Parked {
    inodes: Parks<Box<[u8]>>,
    names: Parks<Rows>,
    inodes_max: usize,
    ahead: Ahead,
    /// Inodes whose records scans went over.
    inodes_brought: Brought,
    /// Directories whose names scans went over.
    names_brought: Brought,
}

/// How far a scan should go beyond what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// So many rows more.
    pub rows: usize,
    /// Up to this inode, whose rows and those behind it are in memory.
    pub end: Ino,
}

impl Parked {
    /// Nothing yet, beside at most `inodes_max` inodes in memory.
    #[must_use]
    pub fn new(inodes_max: usize) -> Self {
        fn cache<T>(bytes: usize, each: usize) -> Parks<T>
        where
            Weight: Weighter<Ino, T>,
        {
            let options = OptionsBuilder::new()
                // Room is made as it is needed: most homes are small.
                .estimated_items_capacity(bytes / each / 8)
                .weight_capacity(bytes as u64)
                .hot_allocation(HOT)
                .build()
                .expect("all of it is given");
            let life = DefaultLifecycle::default();
            Cache::with_options(options, Weight, SameHash::default(), life)
        }
        Self {
            inodes: cache(inodes_max * INODE_BYTES, 200),
            names: cache(inodes_max * NAMES_BYTES, 400),
            inodes_max,
            ahead: Ahead::new(AHEAD_MIN, AHEAD_MAX, ROWS_OF_A_SCAN),
            inodes_brought: Brought::default(),
            names_brought: Brought::default(),
        }
    }

    /// Follows a change of how many inodes may be in memory.
    pub fn resize(&mut self, inodes_max: usize) {
        if inodes_max != self.inodes_max {
            self.inodes_max = inodes_max;
            self.inodes.set_capacity((inodes_max * INODE_BYTES) as u64);
            self.names.set_capacity((inodes_max * NAMES_BYTES) as u64);
        }
    }

    /// Keeps the record of an inode that is not in memory.
    pub fn put(&mut self, ino: Ino, record: &[u8]) {
        self.inodes.insert(ino, record.into());
    }

    /// Likewise, for one that a scan brought along.
    pub fn bring(&mut self, ino: Ino, record: &[u8]) {
        self.ahead.bring(1);
        self.put(ino, record);
    }

    /// Takes the record of an inode that has a name, to put the inode into memory.
    pub fn take(&mut self, ino: Ino) -> Option<InodeRecord> {
        let (_, record) = self.inodes.remove(&ino)?;
        self.ahead.used(1);
        // One that cannot be read is read again from the store, which says what is wrong.
        InodeRecord::decode(ino, &record).ok().filter(|record| record.attr.nlink > 0)
    }

    /// The attributes of an inode that has a name; it stays parked.
    pub fn attr(&mut self, ino: Ino) -> Option<Attr> {
        let record = self.inodes.get(&ino)?;
        self.ahead.used(1);
        let record = InodeRecord::decode(ino, record).ok()?;
        (record.attr.nlink > 0).then_some(record.attr)
    }

    /// Whether there is a record of an inode.
    pub fn has(&self, ino: Ino) -> bool {
        self.inodes.peek(&ino).is_some()
    }

    /// How many records of a listing's next parts to bring along: as many as a scan does at its
    /// beginning, later what leaves room for as many others.
    pub fn listed_max(&self, is_begun: bool) -> usize {
        let most = self.inodes_max;
        if is_begun { most } else { most.min(AHEAD_MAX) }
    }

    /// Forgets the record of an inode that comes into memory another way.
    pub fn forget(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
    }

    /// Keeps all names of a directory of which none is in memory; a scan brought them along.
    pub fn bring_names(&mut self, dir: Ino, rows: Rows) {
        self.ahead.bring(rows.len());
        self.names.insert(dir, rows);
    }

    /// Takes all names of a directory, or forgets them: some come into memory.
    pub fn take_names(&mut self, dir: Ino) -> Option<Rows> {
        let rows = match mutants::is(Mutant::KeepParkedNames) {
            true => self.names.get(&dir)?.clone(),
            false => self.names.remove(&dir)?.1,
        };
        self.ahead.used(rows.len());
        Some(rows)
    }

    /// How far a scan for the records of inodes from `start` should go.
    pub fn reach_of_inodes(&mut self, start: Ino) -> Reach {
        reach(start, self.ahead.amount(), self.inodes_brought.meets(start.0))
    }

    /// Likewise for the names of directories.
    pub fn reach_of_names(&mut self, start: Ino) -> Reach {
        reach(start, self.ahead.amount(), self.names_brought.meets(start.0))
    }

    /// A scan went over the records from `start` to before `end`.
    pub fn went_over_inodes(&mut self, start: Ino, end: Ino) {
        self.inodes_brought.add(start.0, end.0);
    }

    /// A scan went over all names of the directories from `start` to before `end`.
    pub fn went_over_names(&mut self, start: Ino, end: Ino) {
        self.names_brought.add(start.0, end.0);
    }
}

fn reach(start: Ino, rows: usize, meets: u64) -> Reach {
    let end = start.0.saturating_add(rows as u64 * NUMBERS_OF_A_ROW_MAX);
    Reach { rows, end: Ino(end.min(meets)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::types::{Kind, Time};

    fn record(ino: u64, nlink: u32) -> Vec<u8> {
        let time = Time::default();
        let attr = Attr {
            ino: Ino(ino),
            kind: Kind::File,
            perm: 0o644,
            nlink,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 7 * ino,
            charged: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        let record = InodeRecord {
            attr,
            parent: Ino(0),
            entries: 0,
            xattr_bytes: 0,
            xattrs: 0,
            target: bytes::Bytes::new(),
            inline: None,
        };
        record.encode()
    }

    #[test]
    fn what_is_taken_is_not_parked_any_more() {
        let mut parked = Parked::new(1000);
        parked.put(Ino(7), &record(7, 1));
        assert_eq!(parked.attr(Ino(7)).map(|attr| attr.size), Some(49));
        assert_eq!(parked.take(Ino(7)).map(|record| record.attr.size), Some(49));
        assert!(parked.take(Ino(7)).is_none() && parked.attr(Ino(7)).is_none());
        parked.bring_names(Ino(3), Box::new([(1, Box::new([0]))]));
        assert_eq!(parked.take_names(Ino(3)).map(|rows| rows.len()), Some(1));
        assert!(parked.take_names(Ino(3)).is_none());
    }

    #[test]
    fn what_has_no_name_or_cannot_be_read_is_asked_of_the_store() {
        let mut parked = Parked::new(1000);
        parked.put(Ino(7), &record(7, 0));
        parked.put(Ino(8), b"no record");
        for ino in [Ino(7), Ino(8)] {
            assert!(parked.attr(ino).is_none() && parked.take(ino).is_none());
        }
    }

    #[test]
    fn scans_bring_more_along_while_it_is_used_and_less_while_it_is_not() {
        let mut parked = Parked::new(20_000);
        assert_eq!(parked.ahead.amount(), AHEAD_MIN);
        let mut next = 0;
        for _ in 0..20 {
            for _ in 0..parked.ahead.amount() {
                parked.bring(Ino(next), &record(next, 1));
                next += 1;
            }
            assert!((next - 16..next).all(|ino| parked.attr(Ino(ino)).is_some()));
            (next - 300.min(next)..next).for_each(|ino| drop(parked.take(Ino(ino))));
        }
        assert_eq!(parked.ahead.amount(), AHEAD_MAX);
        for _ in 0..40 {
            for _ in 0..parked.ahead.amount() {
                parked.bring(Ino(next), &record(next, 1));
                next += 1;
            }
        }
        assert_eq!(parked.ahead.amount(), AHEAD_MIN);
    }

    #[test]
    fn a_walk_in_any_order_goes_over_every_row_about_once() {
        const INODES: u64 = 20_000;
        let mut parked = Parked::new(INODES as usize);
        let (mut rows, mut scans) = (0, 0);
        // Directories of twenty, here and there.
        for dir in (0..INODES / 20).map(|n| n * 389 % (INODES / 20)) {
            for ino in dir * 20..(dir + 1) * 20 {
                if parked.attr(Ino(ino)).is_some() {
                    continue;
                }
                let Reach { rows: more, end } = parked.reach_of_inodes(Ino(ino));
                let to = end.0.min(INODES).min(ino + 1 + more as u64);
                (ino..to).for_each(|ino| parked.bring(Ino(ino), &record(ino, 1)));
                parked.went_over_inodes(Ino(ino), Ino(to));
                rows += to - ino;
                scans += 1;
            }
        }
        assert_eq!(rows, INODES);
        assert!(scans < 100, "{scans}");
    }

    #[test]
    fn what_is_brought_along_for_a_listing_stays_until_it_is_shown() {
        let mut parked = Parked::new(2000);
        let mut next = 0;
        for _ in 0..10 {
            let most = parked.listed_max(true) as u64;
            (next..next + most).for_each(|ino| parked.bring(Ino(ino), &record(ino, 1)));
            assert!((next..next + most).all(|ino| parked.attr(Ino(ino)).is_some()));
            next += most;
        }
    }

    #[test]
    fn records_take_no_more_than_their_room() {
        let mut parked = Parked::new(100);
        for ino in 0..10_000 {
            parked.put(Ino(ino), &record(ino, 1));
        }
        assert!(parked.inodes.weight() <= 100 * INODE_BYTES as u64);
        parked.resize(10);
        assert!(parked.inodes.weight() <= 10 * INODE_BYTES as u64);
    }
}
