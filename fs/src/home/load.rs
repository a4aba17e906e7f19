//! Loads: what an operation needs, from the tables into the state.
//!
//! A load that an eviction overlaps is done again, because what it read may be older than what
//! was evicted; what is in the state already is never replaced.

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
/// A single inode brings this many of its neighbours along: its siblings, mostly.
const INO_NEIGHBOURS: usize = 16;
/// Rows per scan of extents.
const ROWS: usize = 16 << 10;

impl Core {
    /// Brings what `need` names into the state.
    ///
    /// # Errors
    /// `Stale` for an inode that is not there, or what the tables say.
    pub async fn load(&self, need: &Need) -> Result<()> {
        match need {
            Need::Inodes(list) => self.load_inodes(list).await,
            Need::Bucket(dir, hash) => {
                let (dir, hash) = (*dir, *hash);
                let evictions = self.evictions();
                let value = self.table.get(&key::bucket(dir, hash)).await?;
                let saved = value.is_some();
                let bucket = value.map_or(Ok(Bucket::new()), |v| decode_bucket(&v))?;
                self.insert(evictions, |state| {
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
        let keep = self.shared.inodes_per_home();
        if state.inodes.len() > keep + keep / 8 || state.has_too_many_names(keep) {
            state.evict(keep);
        }
    }

    async fn load_inodes(&self, list: &[Ino]) -> Result<()> {
        let evictions = self.evictions();
        let mut found: Vec<(Ino, Bytes)> = Vec::with_capacity(list.len());
        let mut rest = list;
        while let Some(first) = rest.first() {
            let near = |pair: &[Ino]| pair[1].0 - pair[0].0 <= INO_GAP_MAX;
            let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let (run, behind) = rest.split_at(len);
            rest = behind;
            let end = Ino(run[run.len() - 1].0 + 1);
            let rows = if list.len() == 1 {
                let range = key::inode(*first).to_vec()..key::inode(Ino::MAX).to_vec();
                self.table.scan(range, INO_NEIGHBOURS).await?
            } else {
                let range = key::inode(*first).to_vec()..key::inode(end).to_vec();
                self.table.scan(range, usize::MAX).await?
            };
            found.extend(rows.into_iter().filter_map(|(k, v)| Some((key::ino_of(&k)?, v))));
        }
        let mut inodes = Vec::with_capacity(found.len());
        for (ino, value) in found {
            inodes.push(Inode::from_record(InodeRecord::decode(ino, &value)?));
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
                    state.inodes.entry(inode.attr.ino).or_insert_with(|| Box::new(inode));
                }
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

    async fn load_dir(&self, dir: Ino, from: u64) -> Result<()> {
        let evictions = self.evictions();
        let end = key::range_of(key::BUCKET, dir).end;
        let rows = self.table.scan(key::bucket(dir, from).to_vec()..end, DIR_ROWS).await?;
        let mut buckets = Vec::with_capacity(rows.len());
        for (key, value) in &rows {
            let hash = key::bucket_hash_of(key).ok_or_else(|| {
                Error::corrupt(format_args!("home {}: a bucket's key", self.name))
            })?;
            buckets.push((hash, decode_bucket(value)?));
        }
        let to = if rows.len() < DIR_ROWS {
            u64::MAX
        } else {
            buckets.last().map_or(u64::MAX, |(hash, _)| hash + 1)
        };
        self.insert(evictions, |state| {
            let Some(names) = state.inodes.get_mut(&dir).and_then(|i| i.dir.as_mut()) else {
                return;
            };
            if names.known_to < from {
                return;
            }
            let before = names.buckets.len();
            for (hash, bucket) in buckets {
                if hash >= names.known_to {
                    names.buckets.entry(hash).or_insert(Slot { bucket, saved: true });
                }
            }
            names.known_to = names.known_to.max(to);
            state.names += names.buckets.len() - before;
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
