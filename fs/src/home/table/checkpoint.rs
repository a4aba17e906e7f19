//! Checkpoints: moments of the tables that stay readable, by a name of ours, until they are
//! dropped. What they need of old tables is not collected meanwhile.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use slatedb::admin::{Admin, AdminBuilder};
use slatedb::config::{CheckpointOptions, CheckpointScope, DbReaderOptions};
use slatedb::{DbReader, DbReaderMode};
use slatedb_common::clock::SystemClock;
use uuid::Uuid;

use super::seal::SealStore;
use super::{Table, TableReader, explain};
use crate::home::error::{Error, ErrorKind, Result};

fn admin(store: &Arc<dyn ObjectStore>, path: &str) -> AdminBuilder<String> {
    AdminBuilder::new(path.to_owned(), Arc::clone(store))
}

async fn list(admin: &Admin, path: &str) -> Result<Vec<(String, Uuid)>> {
    let all = admin.list_checkpoints(None).await.map_err(|error| explain(path, &error))?;
    let ours = all.into_iter().filter(|c| c.expire_time.is_none());
    Ok(ours.filter_map(|c| Some((c.name?, c.id))).collect())
}

/// The checkpoints that tables have: name and number.
///
/// # Errors
/// `Unavailable`, `Corrupt`.
pub async fn checkpoints(store: &Arc<dyn ObjectStore>, path: &str) -> Result<Vec<(String, Uuid)>> {
    list(&admin(&SealStore::over(Arc::clone(store)), path).build(), path).await
}

impl Table {
    fn admin(&self) -> Admin {
        let clock = Arc::clone(&self.inner.clock) as Arc<dyn SystemClock>;
        let admin = admin(&self.inner.store, &self.inner.path).with_system_clock(clock);
        match self.inner.seed {
            Some(seed) => admin.with_seed(seed).build(),
            None => admin.build(),
        }
    }

    /// Keeps everything that was written until now under `name`, or finds it kept already. The
    /// caller sees to it that nothing is written meanwhile.
    ///
    /// # Errors
    /// `Fenced`. Anything else is tried again until it works.
    pub async fn keep(&self, name: &str) -> Result<Uuid> {
        let options = CheckpointOptions { name: Some(name.to_owned()), ..Default::default() };
        let mut again = false;
        loop {
            let db = self.inner.db();
            // An attempt that failed may have been a success whose answer was lost.
            if again && let Some(id) = self.kept(name).await? {
                return Ok(id);
            }
            again = true;
            match db.create_checkpoint(CheckpointScope::All, &options).await {
                Ok(made) => return Ok(made.id),
                Err(error) => self.inner.recover(&db, &error).await?,
            }
            tokio::time::sleep(super::REOPEN_MIN).await;
        }
    }

    /// Everything that is kept: name and number.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn all_kept(&self) -> Result<Vec<(String, Uuid)>> {
        list(&self.admin(), &self.inner.path).await
    }

    /// The number of what is kept under `name`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn kept(&self, name: &str) -> Result<Option<Uuid>> {
        let mut pause = super::REOPEN_MIN;
        loop {
            match self.all_kept().await {
                Ok(all) => return Ok(all.into_iter().find(|(k, _)| k == name).map(|(_, id)| id)),
                Err(error) => self.wait_after(error, &mut pause).await?,
            }
        }
    }

    /// Keeps nothing under `name` any more. Idempotent.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn unkeep(&self, name: &str) -> Result<()> {
        let mut pause = super::REOPEN_MIN;
        loop {
            match self.try_unkeep(name).await {
                Ok(()) => return Ok(()),
                Err(error) => self.wait_after(error, &mut pause).await?,
            }
        }
    }

    async fn try_unkeep(&self, name: &str) -> Result<()> {
        let admin = self.admin();
        for (kept, id) in list(&admin, &self.inner.path).await? {
            if kept == name {
                let deleted = admin.delete_checkpoint(id).await;
                deleted.map_err(|error| explain(&self.inner.path, &error))?;
            }
        }
        Ok(())
    }

    /// Waits before another try; callers give up when their time is over.
    async fn wait_after(&self, error: Error, pause: &mut Duration) -> Result<()> {
        let ErrorKind::Unavailable(why) = error.kind() else { return Err(error) };
        tracing::debug!(tables = %self.inner.path, %why, "tried again");
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(super::REOPEN_MAX);
        Ok(())
    }

    /// Reads what is kept under number `id`, through the caches of these tables.
    ///
    /// # Errors
    /// `Corrupt` where it is not kept, `Unavailable`.
    pub async fn open_kept(&self, id: Uuid) -> Result<TableReader> {
        let path = self.inner.path.as_str();
        // All of it was in tables when it was kept: there is no log to replay.
        let options = DbReaderOptions { skip_wal_replay: true, ..DbReaderOptions::default() };
        let reader = DbReader::builder(path, Arc::clone(&self.inner.store))
            .with_options(options)
            .with_reader_mode(DbReaderMode::Checkpoint(id))
            .with_db_cache(Arc::clone(&self.inner.cache), self.inner.cache_id)
            .build()
            .await
            .map_err(|error| explain(path, &error))?;
        Ok(TableReader { path: path.to_owned(), reader })
    }

    /// Collects what nothing needs any more, soon and once.
    pub async fn collect(&self) {
        self.upkeep.collect().await;
    }

    /// How many moments are kept: collecting reads a manifest for each, and so is rarer.
    pub fn note_kept(&self, count: usize) {
        self.upkeep.note_kept(count);
    }
}

impl TableReader {
    /// Reads what is kept under number `id` in the tables under `path`.
    ///
    /// # Errors
    /// `Corrupt` where it is not kept, `Unavailable`.
    pub async fn open_kept(store: Arc<dyn ObjectStore>, path: &str, id: Uuid) -> Result<Self> {
        let options = DbReaderOptions { skip_wal_replay: true, ..DbReaderOptions::default() };
        let reader = DbReader::builder(path, SealStore::over(store))
            .with_options(options)
            .with_reader_mode(DbReaderMode::Checkpoint(id))
            .with_db_cache_disabled()
            .build()
            .await
            .map_err(|error| explain(path, &error))?;
        Ok(Self { path: path.to_owned(), reader })
    }
}
