//! Passes over snapshots: what they hold is held, what they refer to is there.
//!
//! Chunks that only snapshots refer to are told by their birth and death, so the main passes
//! need no snapshot to be opened. Then every snapshot is read once, for what it refers to: a
//! missing or damaged chunk hurts files there too.

use std::collections::{BTreeMap, BTreeSet};

use super::PATHS_MAX;
use super::check::{Check, LONG_ROWS, ROWS};
use super::finding::Invariant;
use super::objects::Hurt;
use super::paths::escape;
use super::plan::Fix;
use super::source::{Cursor, View};
use crate::home::error::{Error, ErrorKind, Result};
use crate::home::key;
use crate::home::record::{ChunkRecord, ExtentRecord, InodeRecord, Place, decode_bucket};
use crate::home::snapshot::{HeldTotal, Phase, SnapshotRecord};
use crate::home::types::Ino;

/// Directories above one another in a path; more are a circle.
const DEPTH_MAX: usize = 4096;

/// What the check knows of snapshots.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// By transaction.
    pub all: Vec<(u64, SnapshotRecord)>,
    /// What they hold, counted.
    pub held: HeldTotal,
}

impl Snapshots {
    /// Whether one lies between birth and death.
    #[must_use]
    pub fn hold(&self, birth: u64, death: u64) -> bool {
        let first = self.all.partition_point(|(txn, _)| *txn < birth);
        self.all.get(first).is_some_and(|(txn, _)| *txn < death)
    }
}

impl Check<'_> {
    pub(super) async fn read_snapshots(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::SNAPSHOT);
        let mut cursor = Cursor::new(self.source.view, range, LONG_ROWS);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let record = SnapshotRecord::decode(&value);
            match (key::number_of(&key).filter(|_| key.len() == 9), record) {
                (Some(txn), Ok(record)) => self.snapshots.all.push((txn, record)),
                (_, Err(error)) => {
                    self.unreadable(format_args!("snapshot {key:02x?}"), &error, &[])
                }
                (None, Ok(_)) => {
                    let error = Error::corrupt("a key of a length that its kind does not have");
                    self.unreadable(format_args!("key {key:02x?}"), &error, &[]);
                }
            }
        }
        self.totals.snapshots = self.snapshots.all.len() as u64;
        Ok(())
    }

    /// What is listed as held, against the chunks.
    pub(super) async fn read_held(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::HELD);
        let mut cursor = Cursor::new(self.source.view, range, ROWS);
        while let Some((key, _)) = cursor.next().await? {
            self.step(1);
            let right = match key::held_of(&key) {
                Some((death, id)) => {
                    let value = self.source.view.get(&key::chunk(id)).await?;
                    let record = value.and_then(|value| ChunkRecord::decode(&value).ok());
                    let at = record.filter(|r| r.death == death).and(self.rows.chunk_at(id));
                    let row = at.map(|at| &mut self.rows.chunks[at]).filter(|row| row.held);
                    row.map(|row| row.listed = true).is_some()
                }
                None => false,
            };
            if !right && !self.doubtful {
                let object = format_args!("key {:02x?}", &key[..]).to_string();
                self.find(Invariant::HeldNowhere, object, "", &[]);
                self.fix(Fix::Delete(key::Key::from_slice(&key)));
            }
        }
        for at in 0..self.rows.chunks.len() {
            let row = self.rows.chunks[at];
            if row.held && !row.listed && !self.doubtful {
                self.find(Invariant::HeldUnlisted, format_args!("chunk {}", row.id), "", &[]);
                self.fix(Fix::ListHeld(row.id));
            }
        }
        let is = match self.source.view.get(&key::held_total()).await? {
            Some(value) => HeldTotal::decode(&value).unwrap_or_default(),
            None => HeldTotal::default(),
        };
        let should = self.snapshots.held;
        self.totals.held_bytes = should.bytes;
        if is != should && !self.doubtful {
            let detail = format!("{} bytes, should be {}", is.bytes, should.bytes);
            self.find(Invariant::CounterHeld, "counters", detail, &[]);
            self.fix(Fix::SetHeld(should));
        }
        Ok(())
    }

    /// Reads every snapshot.
    pub(super) async fn walk_snapshots(&mut self, hurt: &Hurt) -> Result<()> {
        let kept = self.source.kept.list().await?;
        for (txn, record) in self.snapshots.all.clone() {
            // What is being made or removed is finished by whoever opens the home next.
            if record.phase != Phase::Made {
                continue;
            }
            let object = format!("snapshot {}", record.name);
            let opened = match kept.iter().any(|(_, id)| *id == record.kept) {
                true => self.source.kept.open(record.kept).await.map(Some),
                false => Ok(None),
            };
            let view = match opened {
                Ok(Some(view)) => view,
                Ok(None) if self.source.in_use && self.is_gone(txn).await? => continue,
                Err(Error(ErrorKind::Unavailable(why))) => return Err(Error::unavailable(why)),
                Ok(None) | Err(_) => {
                    self.find(Invariant::SnapshotMissing, object, "", &[]);
                    self.fix(Fix::Delete(key::snapshot(txn)));
                    continue;
                }
            };
            let walked = self.walk(&record.name, &*view, hurt).await;
            view.done().await;
            match walked {
                Err(_) if self.source.in_use && self.is_gone(txn).await? => {}
                walked => walked?,
            }
        }
        for (name, _) in kept {
            let known = self.snapshots.all.iter();
            let known = known.map(|(txn, _)| SnapshotRecord::kept_name(*txn)).any(|k| k == name);
            if !known && !self.source.in_use && !self.doubtful {
                self.find(Invariant::SnapshotUnknown, format_args!("kept tables {name}"), "", &[]);
                self.fix(Fix::Unkeep(name));
            }
        }
        Ok(())
    }

    /// True when a snapshot was removed since the view was taken.
    async fn is_gone(&self, txn: u64) -> Result<bool> {
        let value = self.source.latest.get(&key::snapshot(txn)).await?;
        let record = value.and_then(|value| SnapshotRecord::decode(&value).ok());
        Ok(record.is_none_or(|record| record.phase == Phase::Going))
    }

    async fn walk(&mut self, name: &str, view: &dyn View, hurt: &Hurt) -> Result<()> {
        let mut wrong: BTreeMap<usize, BTreeSet<Ino>> = BTreeMap::new();
        let mut missing = None;
        let mut inodes = Cursor::new(view, key::range_of_kind(key::INODE), ROWS);
        while let Some((key, value)) = inodes.next().await? {
            self.step(1);
            let Some(ino) = key::ino_of(&key) else { continue };
            match InodeRecord::decode(ino, &value) {
                Ok(record) => {
                    for (_, extent) in record.inline.iter().flatten() {
                        self.walk_extent(name, ino, extent, hurt, &mut wrong, &mut missing);
                    }
                }
                Err(error) => {
                    let object = format!("snapshot {name}, inode {ino}");
                    self.find(Invariant::SnapshotUnreadable, object, &error, &[]);
                }
            }
        }
        let mut extents = Cursor::new(view, key::range_of_kind(key::EXTENT), ROWS);
        while let Some((key, value)) = extents.next().await? {
            self.step(1);
            let Some(ino) = key::ino_of(&key) else { continue };
            let Ok(extent) = ExtentRecord::decode(&value) else { continue };
            self.walk_extent(name, ino, &extent, hurt, &mut wrong, &mut missing);
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let all: BTreeSet<Ino> = wrong.values().flatten().copied().collect();
        let paths = paths_in(view, &all).await?;
        for (draft, inos) in wrong {
            for ino in inos {
                let path = paths.get(&ino).cloned().unwrap_or_else(|| ino.to_string());
                let draft = &mut self.drafts[draft];
                if draft.kept.len() < PATHS_MAX {
                    draft.kept.push(format!("/.snapshots/{name}/{path}"));
                } else {
                    draft.more += 1;
                }
            }
        }
        Ok(())
    }

    fn walk_extent(
        &mut self,
        name: &str,
        ino: Ino,
        extent: &ExtentRecord,
        hurt: &Hurt,
        wrong: &mut BTreeMap<usize, BTreeSet<Ino>>,
        missing: &mut Option<usize>,
    ) {
        let Place::Chunk { id, .. } = extent.place else { return };
        let draft = match self.rows.chunk_at(id) {
            Some(_) => hurt.get(&id).copied(),
            None if self.source.in_use || self.doubtful => None,
            None => {
                if missing.is_none() {
                    let object = format!("snapshot {name}");
                    *missing = self.find(Invariant::SnapshotNowhere, object, id, &[]);
                }
                *missing
            }
        };
        if let Some(draft) = draft {
            wrong.entry(draft).or_default().insert(ino);
        }
    }
}

/// The paths of some inodes of a snapshot.
async fn paths_in(view: &dyn View, inos: &BTreeSet<Ino>) -> Result<BTreeMap<Ino, String>> {
    let mut names: BTreeMap<Ino, (Ino, String)> = BTreeMap::new();
    let mut buckets = Cursor::new(view, key::range_of_kind(key::BUCKET), ROWS);
    while let Some((key, value)) = buckets.next().await? {
        let (Some(dir), Ok(bucket)) = (key::ino_of(&key), decode_bucket(&value)) else { continue };
        for entry in bucket.into_iter().filter(|e| inos.contains(&e.ino)) {
            names.entry(entry.ino).or_insert((dir, escape(entry.name.as_bytes())));
        }
    }
    let mut paths = BTreeMap::new();
    for ino in inos {
        let mut parts = Vec::new();
        let mut at = *ino;
        while at != Ino::ROOT && parts.len() < DEPTH_MAX {
            if !names.contains_key(&at) {
                name_dir(view, at, &mut names).await?;
            }
            let Some((dir, name)) = names.get(&at) else { break };
            parts.push(name.clone());
            at = *dir;
        }
        parts.reverse();
        if !parts.is_empty() {
            paths.insert(*ino, parts.join("/"));
        }
    }
    Ok(paths)
}

/// The name of a directory, which knows the one above.
async fn name_dir(
    view: &dyn View,
    dir: Ino,
    names: &mut BTreeMap<Ino, (Ino, String)>,
) -> Result<()> {
    let Some(value) = view.get(&key::inode(dir)).await? else { return Ok(()) };
    let Ok(record) = InodeRecord::decode(dir, &value) else { return Ok(()) };
    let mut buckets = Cursor::new(view, key::range_of(key::BUCKET, record.parent), ROWS);
    while let Some((_, value)) = buckets.next().await? {
        let Ok(bucket) = decode_bucket(&value) else { continue };
        if let Some(entry) = bucket.iter().find(|e| e.ino == dir) {
            names.insert(dir, (record.parent, escape(entry.name.as_bytes())));
            return Ok(());
        }
    }
    Ok(())
}
