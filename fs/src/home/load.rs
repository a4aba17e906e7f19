//! Loads: what an operation needs, from the tables into the state.
//!
//! A load that an eviction overlaps is done again, because what it read may be older than what
//! was evicted; what is in the state already is never replaced. Scans bring rows along that are
//! likely to be asked for next; they are parked as they are.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::extent::WINDOW_BYTES;
use super::key;
use super::record::{Bucket, ExtentRecord, InodeRecord, decode_bucket};
use super::state::{DIR_ROWS, Inode, Need, Slot, State};
use super::types::Ino;

/// Numbers with at most this gap are read in one scan.
const INO_GAP_MAX: u64 = 16;
/// Numbers of one scan: what lies between is in memory for a moment too.
const RUN_NUMBERS_MAX: u64 = 4096;
/// Names of a directory that a listing brings at once after the first [`DIR_ROWS`].
const MORE_DIR_ROWS: usize = 4 * DIR_ROWS;
/// Rows that lie between those of a listing are kept where all together are not more.
const BETWEEN_MAX: usize = 2048;
/// Rows per scan of extents.
const ROWS: usize = 16 << 10;

impl Core {
    /// Brings what `need` names into the state.
    ///
    /// # Errors
    /// `Stale` for an inode that is not there, or what the tables say.
    pub async fn load(&self, need: &Need) -> Result<()> {
        match need {
            Need::Inodes(list) => self.load_inodes(list, &[]).await,
            Need::Listed(list, next) => match self.load_inodes(list, next).await {
                // The damage may be where only the next parts are.
                Err(Error(ErrorKind::Corrupt(_))) => self.load_inodes(list, &[]).await,
                loaded => loaded,
            },
            Need::Bucket(dir, hash) => {
                let (dir, hash) = (*dir, *hash);
                if self.unpark_names(dir) {
                    return Ok(());
                }
                let evictions = self.evictions();
                let value = self.table.get(&key::bucket(dir, hash)).await?;
                let saved = value.is_some();
                let bucket = value.map_or(Ok(Bucket::new()), |v| decode_bucket(&v))?;
                self.insert(evictions, |state| {
                    state.parked.take_names(dir);
                    if let Some(names) = state.inodes.get_mut(&dir).and_then(|i| i.dir.as_mut()) {
                        let before = names.buckets.len();
                        names.buckets.entry(hash).or_insert(Slot { bucket, saved });
                        state.names += names.buckets.len() - before;
                    }
                });
                Ok(())
            }
            Need::Dir(dir, from) => self.load_dir(*dir, *from).await,
            Need::Extents(ino, windows) => self.load_extents(*ino, windows.clone()).await,
            Need::Xattrs(ino) => self.load_xattrs(*ino).await,
        }
    }

    fn evictions(&self) -> u64 {
        self.state.lock().evictions
    }

    /// Puts what was read into the state, unless something was evicted since `evictions`: then
    /// the operation starts again and asks again.
    fn insert(&self, evictions: u64, put: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        if state.evictions != evictions {
            return;
        }
        put(&mut state);
        self.evict_if_crowded(&mut state);
    }

    /// Brings the inodes of `list`, and the records of those of `next` that are there.
    async fn load_inodes(&self, list: &[Ino], next: &[Ino]) -> Result<()> {
        let evictions = self.evictions();
        let mut wanted = [list, next].concat();
        wanted.sort_unstable();
        let mut found: Vec<(Ino, Bytes)> = Vec::with_capacity(wanted.len());
        let is_wanted = |ino: &Ino| wanted.binary_search(ino).is_ok();
        let mut keeps_between = true;
        let mut went_over = None;
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            let near = |pair: &[Ino]| {
                pair[1].0 - pair[0].0 <= INO_GAP_MAX && pair[1].0 - first.0 < RUN_NUMBERS_MAX
            };
            let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let (run, behind) = rest.split_at(len);
            rest = behind;
            let end = Ino(run[run.len() - 1].0 + 1);
            let own = key::inode(*first).to_vec()..key::inode(end).to_vec();
            let rows = if rest.is_empty() {
                let reach = self.state.lock().parked.reach_of_inodes(*first);
                let limit = reach.end.min(Ino::MAX).max(end);
                let range = own.start.clone()..key::inode(limit).to_vec();
                let run_rows = usize::try_from(end.0 - first.0).unwrap_or(usize::MAX);
                let rows_max = run_rows.saturating_add(1).max(reach.rows);
                let (rows, whole) = self.scan_ahead(range, rows_max, own, usize::MAX).await?;
                let last = rows.last().and_then(|(key, _)| key::ino_of(key));
                let to = last.map_or(end, |last| if whole { limit } else { Ino(last.0 + 1) });
                went_over = Some((*first, to));
                rows
            } else {
                self.table.scan(own, usize::MAX).await?
            };
            let rows = rows.into_iter().filter_map(|(k, v)| Some((key::ino_of(&k)?, v)));
            found.extend(rows.filter(|(ino, _)| keeps_between || is_wanted(ino)));
            if keeps_between && !next.is_empty() && found.len() > BETWEEN_MAX {
                keeps_between = false;
                found.retain(|(ino, _)| is_wanted(ino));
            }
        }
        let asked = |ino: &Ino| list.binary_search(ino).is_ok();
        let mut inodes = Vec::with_capacity(list.len());
        for (ino, value) in found.iter().filter(|(ino, _)| asked(ino)) {
            inodes.push(Inode::from_record(InodeRecord::decode(*ino, value)?));
        }
        let known = |ino: &Ino| inodes.binary_search_by_key(ino, |i| i.attr.ino).is_ok();
        let missing = list.iter().find(|ino| !known(ino)).copied();
        let mut gone = None;
        self.insert(evictions, |state| {
            if let Some(ino) = missing
                && !state.inodes.contains_key(&ino)
            {
                gone = Some(ino);
            }
            for inode in inodes {
                if inode.attr.nlink > 0 {
                    state.parked.forget(inode.attr.ino);
                    state.inodes.entry(inode.attr.ino).or_insert_with(|| Box::new(inode));
                }
            }
            for (ino, value) in &found {
                if !asked(ino) && !state.inodes.contains_key(ino) {
                    state.parked.bring(*ino, value);
                }
            }
            if let Some((from, to)) = went_over.filter(|_| keeps_between) {
                state.parked.went_over_inodes(from, to);
            }
        });
        match gone {
            Some(ino) => {
                tracing::debug!(home = %self.name, %ino, "asked for an inode that is gone");
                Err(ErrorKind::Stale.into())
            }
            None => Ok(()),
        }
    }

    /// Scans `range`, which goes beyond what is asked for; only `own`, which does not, where that
    /// meets damage. Tells whether there were no more rows.
    async fn scan_ahead(
        &self,
        range: Range<Vec<u8>>,
        rows_max: usize,
        own: Range<Vec<u8>>,
        own_rows_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool)> {
        let (rows, rows_max) = match self.table.scan(range, rows_max).await {
            Err(Error(ErrorKind::Corrupt(_))) => {
                (self.table.scan(own, own_rows_max).await?, own_rows_max)
            }
            rows => (rows?, rows_max),
        };
        let whole = rows.len() < rows_max;
        Ok((rows, whole))
    }

    /// Names of a directory that an earlier scan brought along.
    fn unpark_names(&self, dir: Ino) -> bool {
        let mut state = self.state.lock();
        let Some(rows) = state.parked.take_names(dir) else { return false };
        let decode = |(hash, row): &(u64, Box<[u8]>)| Ok((*hash, decode_bucket(row)?));
        // What cannot be read is read again from the store, which says what is wrong.
        let Ok(buckets) = rows.iter().map(decode).collect::<Result<Vec<_>>>() else {
            return false;
        };
        state.put_names(dir, 0, u64::MAX, buckets);
        true
    }

    async fn load_dir(&self, dir: Ino, from: u64) -> Result<()> {
        if from == 0 && self.unpark_names(dir) {
            return Ok(());
        }
        let (evictions, entries, reach) = {
            let mut state = self.state.lock();
            let entries = state.inodes.get(&dir).map_or(0, |inode| inode.entries);
            let entries = usize::try_from(entries).unwrap_or(usize::MAX);
            let is_small = from == 0 && entries < DIR_ROWS / 2;
            (state.evictions, entries, is_small.then(|| state.parked.reach_of_names(dir)))
        };
        let own = key::bucket(dir, from).to_vec()..key::range_of(key::BUCKET, dir).end;
        let mut went_over = None;
        let (rows, whole) = match reach {
            Some(reach) => {
                let limit = reach.end.min(Ino::MAX).max(Ino(dir.0 + 1));
                went_over = Some(limit);
                let range = own.start.clone()..key::bucket(limit, 0).to_vec();
                // One more than there should be tells that there are no more.
                let rows_max = entries.saturating_add(1).max(reach.rows);
                self.scan_ahead(range, rows_max, own, DIR_ROWS).await?
            }
            None => {
                let rows_max = if from == 0 { DIR_ROWS } else { MORE_DIR_ROWS };
                let rows = self.table.scan(own, rows_max).await?;
                let whole = rows.len() < rows_max;
                (rows, whole)
            }
        };
        let mut found: Vec<(Ino, u64, Bytes)> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let (Some(of), Some(hash)) = (key::ino_of(&key), key::bucket_hash_of(&key)) else {
                return Err(Error::corrupt(format_args!("home {}: a bucket's key", self.name)));
            };
            found.push((of, hash, value));
        }
        let (own, others) = found.split_at(found.partition_point(|(of, ..)| *of == dir));
        let to = match own.last() {
            Some((_, hash, _)) if !whole && others.is_empty() => hash + 1,
            _ => u64::MAX,
        };
        let decode = |(_, hash, row): &(Ino, u64, Bytes)| Ok((*hash, decode_bucket(row)?));
        let buckets = own.iter().map(decode).collect::<Result<Vec<_>>>()?;
        self.insert(evictions, |state| {
            state.parked.take_names(dir);
            state.put_names(dir, from, to, buckets);
            let last = found.last().map_or(dir, |(of, ..)| *of);
            if let Some(limit) = went_over {
                state.parked.went_over_names(dir, if whole { limit } else { last });
            }
            for names in others.chunk_by(|a, b| a.0 == b.0) {
                let of = names[0].0;
                // The last one may go on behind the rows that were read.
                let is_whole = whole || of != last;
                if is_whole && state.has_no_names(of) {
                    let rows = names.iter().map(|(_, hash, row)| (*hash, row[..].into()));
                    state.parked.bring_names(of, rows.collect());
                }
            }
        });
        Ok(())
    }

    async fn load_extents(&self, ino: Ino, windows: Range<u64>) -> Result<()> {
        let evictions = self.evictions();
        let mut range = key::range_of(key::EXTENT, ino);
        range.start = key::extent(ino, windows.start * WINDOW_BYTES).to_vec();
        if windows.end != u64::MAX {
            range.end = key::extent(ino, windows.end * WINDOW_BYTES).to_vec();
        }
        let mut extents = Vec::new();
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            for (key, value) in &rows {
                if let Some(offset) = key::extent_offset_of(key) {
                    extents.push((offset, ExtentRecord::decode(value)?));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == ROWS => range.start = [last, &[0][..]].concat(),
                _ => break,
            }
        }
        self.insert(evictions, |state| {
            if let Some(file) = state.inodes.get_mut(&ino).and_then(|i| i.file.as_mut()) {
                file.extents.load_windows(windows, &extents);
            }
        });
        Ok(())
    }

    async fn load_xattrs(&self, ino: Ino) -> Result<()> {
        let evictions = self.evictions();
        let rows = self.table.scan(key::range_of(key::XATTR, ino), usize::MAX).await?;
        let mut loaded = BTreeMap::new();
        for (key, value) in rows {
            if value.is_empty() {
                return Err(Error::corrupt(format_args!("home {}: xattr of {ino}", self.name)));
            }
            loaded.insert(key.slice(6..), value.slice(1..));
        }
        self.insert(evictions, |state| state.set_xattrs(ino, loaded));
        Ok(())
    }
}
