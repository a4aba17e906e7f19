//! Removing snapshots, and freeing what only they held.
//!
//! The record says first that the snapshot goes, and is the last thing to go: whatever happens in
//! between, who opens the home next goes on. A removed snapshot held those chunks that died
//! between it and the next one; they are listed by their death, so that only these are looked at.

use std::time::Duration;

use super::{Phase, SnapshotRecord};
use crate::home::Home;
use crate::home::core::Core;
use crate::home::error::{Error, ErrorKind, Result};
use crate::home::holds::RefKey;
use crate::home::key;
use crate::home::mutants::{self, Mutant};

/// Chunks that one transaction looks at.
const ROWS: usize = 1024;
/// Pause before a removal that failed goes on.
const AGAIN: Duration = Duration::from_secs(10);

impl Home {
    /// Removes a snapshot and frees what only it held.
    ///
    /// # Errors
    /// `NotFound`, and those of `sync`: then it goes on in the background.
    pub async fn remove_snapshot(&self, name: &str) -> Result<()> {
        let (core, name) = (self.core.arc(), name.to_owned());
        let removed = self.core.runtime.spawn(async move { core.remove_snapshot(&name).await });
        removed.await.map_err(|_| Error::from(ErrorKind::Closed))?
    }
}

impl Core {
    async fn remove_snapshot(&self, name: &str) -> Result<()> {
        let _turn = self.snapshots.turn.lock().await;
        let made = self.snapshots.phase(Phase::Made);
        let found = made.into_iter().find(|(_, record)| record.name == name);
        let (txn, record) = found.ok_or(ErrorKind::NotFound)?;
        let record = SnapshotRecord { phase: Phase::Going, ..record };
        let number = self.put_snapshot(txn, record.clone());
        self.tell_of_snapshots(Some(name));
        tracing::info!(home = %self.name, snapshot = name, txn, "snapshot removed");
        self.wait_durable(number).await?;
        let finished = self.finish_removal(txn, record).await;
        if finished.is_err() {
            self.finish_later();
        }
        finished
    }

    /// Goes on in the background, until it works or the home ends.
    fn finish_later(&self) {
        let me = self.me.clone();
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let Some(core) = me.upgrade() else { return };
                if core.finish_removals().await.is_ok() || core.state.lock().failed.is_some() {
                    return;
                }
            }
        });
    }

    /// Goes on with what an earlier daemon, or an earlier try, left half-way.
    ///
    /// # Errors
    /// What the tables say; to be tried again.
    pub async fn finish_removals(&self) -> Result<()> {
        let _turn = self.snapshots.turn.lock().await;
        for (txn, record) in self.snapshots.phase(Phase::Going) {
            let number = self.put_snapshot(txn, record.clone());
            self.wait_durable(number).await?;
            self.finish_removal(txn, record).await?;
        }
        Ok(())
    }

    /// The rest, once it is durable that the snapshot goes.
    async fn finish_removal(&self, txn: u64, record: SnapshotRecord) -> Result<()> {
        self.patient(self.table.unkeep(&SnapshotRecord::kept_name(txn))).await?;
        let next = {
            let inner = self.snapshots.inner.lock();
            inner.all.iter().map(|(t, _)| *t).find(|t| *t > txn).unwrap_or(u64::MAX - 1)
        };
        // From here on it holds nothing; its record stays until all of it is free.
        self.snapshots.take(txn);
        if let Err(error) = self.free_held(txn + 1, next).await {
            self.snapshots.put(txn, record);
            return Err(error);
        }
        let number = {
            let mut state = self.state.lock();
            state.txn.delete(key::snapshot(txn));
            state.txn.number
        };
        self.table.note_kept(self.snapshots.inner.lock().all.len());
        self.wait_durable(number).await?;
        self.collect_soon();
        Ok(())
    }

    /// Looks again at the chunks that died from transaction `first` to `last`.
    async fn free_held(&self, first: u64, last: u64) -> Result<()> {
        // A commit that is under way may list more, for the sake of the removed one.
        let number = {
            let mut state = self.state.lock();
            state.txn.start();
            state.txn.number
        };
        self.wait_durable(number).await?;
        let start = [&[key::HELD][..], &first.to_be_bytes()].concat();
        let end = [&[key::HELD][..], &(last + 1).to_be_bytes()].concat();
        let mut range = start..end;
        if mutants::is(Mutant::KeepWhatWasHeld) {
            return Ok(());
        }
        loop {
            let rows = self.patient(self.table.scan(range.clone(), ROWS)).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range.start = [last, &[0][..]].concat();
            let number = {
                let mut state = self.state.lock();
                for (_, chunk) in rows.iter().filter_map(|(key, _)| key::held_of(key)) {
                    state.txn.refs.entry(RefKey::Chunk(chunk)).or_insert(0);
                }
                state.txn.start();
                state.txn.number
            };
            // One batch at a time: the transaction stays small and memory bounded.
            self.wait_durable(number).await?;
        }
    }

    /// Gives the tables that the removed one kept back to the store.
    fn collect_soon(&self) {
        let me = self.me.clone();
        self.runtime.spawn(async move {
            if let Some(core) = me.upgrade() {
                core.table.collect().await;
            }
        });
    }
}
