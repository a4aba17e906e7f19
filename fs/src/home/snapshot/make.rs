//! Making a snapshot.
//!
//! The home is synced, so that the data of all files is in the store. Then the driver commits a
//! transaction that holds the snapshot's own record, and before any other transaction follows
//! has the tables keep that moment. The record comes first: from then on nothing is freed that
//! the snapshot refers to. Operations go on meanwhile; only commits wait.

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Origin, Phase, SnapshotInfo, SnapshotRecord, check_name, info};
use crate::home::Home;
use crate::home::commit::Ledger;
use crate::home::core::Core;
use crate::home::error::{Error, ErrorKind, Result};
use crate::home::key;
use crate::home::mutants::{self, Mutant};
use crate::home::types::Ino;

/// Snapshots of a home, of all origins: what its tables' manifest lists.
pub const SNAPSHOTS_MAX: usize = 1024;

/// A snapshot that the driver shall make.
pub struct Wanted {
    name: String,
    origin: Origin,
    made: oneshot::Sender<(SnapshotInfo, u64)>,
}

impl Home {
    /// Makes a snapshot of the home as it is now, with the data of all files.
    ///
    /// # Errors
    /// `Exists`, `Invalid` or `NameTooLong` for the name, `TooManySnapshots` beyond
    /// [`SNAPSHOTS_MAX`], and those of `sync`. One that took too long may show later, whole.
    pub async fn make_snapshot(&self, name: &str, origin: Origin) -> Result<SnapshotInfo> {
        check_name(name)?;
        let (core, name) = (self.core.arc(), name.to_owned());
        // In a task of its own: a caller that gives up leaves no snapshot half-made.
        let made = self.core.runtime.spawn(async move { core.make_snapshot(name, origin).await });
        made.await.map_err(|_| Error::from(ErrorKind::Closed))?
    }
}

impl Core {
    async fn make_snapshot(&self, name: String, origin: Origin) -> Result<SnapshotInfo> {
        let _turn = self.snapshots.turn.lock().await;
        {
            let inner = self.snapshots.inner.lock();
            if inner.all.iter().any(|(_, record)| record.name == name) {
                return Err(ErrorKind::Exists.into());
            }
            if inner.all.len() >= SNAPSHOTS_MAX {
                return Err(ErrorKind::TooManySnapshots(SNAPSHOTS_MAX).into());
            }
        }
        if !mutants::is(Mutant::SnapshotWithoutSync) {
            self.sync().await?;
        }
        let (made, told) = oneshot::channel();
        *self.snapshots.wanted.lock() = Some(Wanted { name, origin, made });
        self.wake.notify_one();
        let (info, number) = self.patient(self.told(told)).await?;
        self.wait_durable(number).await?;
        self.tell_of_snapshots(None);
        Ok(info)
    }

    async fn told(
        &self,
        told: oneshot::Receiver<(SnapshotInfo, u64)>,
    ) -> Result<(SnapshotInfo, u64)> {
        let mut durable = self.durable.subscribe();
        tokio::select! {
            told = told => told.map_err(|_| ErrorKind::Closed.into()),
            failed = durable.wait_for(|d| d.failed.is_some()) => {
                let error = failed.ok().and_then(|d| d.failed.clone());
                Err(error.unwrap_or_else(|| ErrorKind::Closed.into()))
            }
        }
    }

    /// For the driver, between two commits: makes the snapshot that is wanted, if one is.
    ///
    /// # Errors
    /// As for a commit.
    pub async fn take_snapshot(&self, ledger: &mut Ledger) -> Result<()> {
        let Some(wanted) = self.snapshots.wanted.lock().take() else { return Ok(()) };
        let mut record = SnapshotRecord {
            phase: Phase::Making,
            origin: wanted.origin,
            created: self.now(),
            volume: 0,
            bytes: 0,
            inodes: 0,
            kept: Uuid::nil(),
            name: wanted.name,
            root: Bytes::new(),
        };
        let txn = {
            let mut state = self.state.lock();
            let txn = state.txn.number;
            // As the quota counts: what is removed and not freed yet is none of it.
            record.bytes = state.bytes;
            record.inodes = state.inodes_used;
            state.txn.put(key::snapshot(txn), record.encode());
            // From the next commit on it holds what it refers to.
            self.snapshots.put(txn, record.clone());
            txn
        };
        self.commit_durably(ledger).await?;
        record.kept = self.table.keep(&SnapshotRecord::kept_name(txn)).await?;
        let root = self.table.get(&key::inode(Ino::ROOT)).await?;
        let missing = || Error::corrupt(format_args!("home {}: no root", self.name));
        record.root = root.ok_or_else(missing)?;
        record.phase = Phase::Made;
        let made = info(txn, &record)?;
        let number = self.put_snapshot(txn, record);
        self.table.note_kept(self.snapshots.inner.lock().all.len());
        tracing::info!(home = %self.name, snapshot = made.name, txn, "snapshot made");
        let _gave_up = wanted.made.send((made, number));
        Ok(())
    }

    /// What an earlier daemon was making when it ended: whole, or gone.
    ///
    /// # Errors
    /// What the tables say; to be tried again.
    pub async fn finish_making(&self, before: u64) -> Result<()> {
        for (txn, mut record) in self.snapshots.phase(Phase::Made) {
            // Whoever read it is gone.
            if txn <= before && record.origin == Origin::Export {
                record.phase = Phase::Going;
                self.put_snapshot(txn, record);
                self.tell_of_snapshots(None);
            }
        }
        for (txn, mut record) in self.snapshots.phase(Phase::Making) {
            if txn > before {
                continue;
            }
            // What an export was making has nobody left who reads it.
            let read = record.origin != Origin::Export;
            match self.table.kept(&SnapshotRecord::kept_name(txn)).await?.filter(|_| read) {
                Some(kept) => {
                    let reader = self.table.open_kept(kept).await?;
                    record.root = reader.get(&key::inode(Ino::ROOT)).await?.unwrap_or_default();
                    record.kept = kept;
                    record.phase = Phase::Made;
                    self.put_snapshot(txn, record);
                    reader.close().await?;
                    self.tell_of_snapshots(None);
                }
                None => {
                    record.phase = Phase::Going;
                    self.put_snapshot(txn, record);
                }
            }
        }
        Ok(())
    }
}
