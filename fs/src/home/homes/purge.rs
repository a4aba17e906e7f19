//! Deleting homes for good whose time to be brought back is over.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::record::{State, head_path, home_prefix};
use super::{HomeState, Homes, HomesError, Result, serve};
use crate::home::owner::{self, Claim};

/// Objects that are deleted together. Between two such batches the claim is looked at.
const DELETES_AT_ONCE: usize = 32;

/// What a purge did.
#[derive(Debug, Default)]
pub struct Purged {
    /// Homes that are gone, by name.
    pub homes: Vec<String>,
    /// Why others are not yet.
    pub failed: Vec<HomesError>,
}

impl Homes {
    /// Deletes all homes whose tombstone expired, and goes on where an earlier purge was
    /// interrupted. For a caller to run now and then, on any number of nodes.
    ///
    /// # Errors
    /// `Unavailable` when the homes cannot be listed.
    pub async fn purge_expired(&self) -> Result<Purged> {
        let now = self.shared.clock.now().sec;
        let mut purged = Purged::default();
        for home in self.list().await?.homes {
            let expired = match home.state {
                HomeState::Live => false,
                HomeState::Removed => home.restorable_until.is_some_and(|until| now >= until),
                HomeState::Filling | HomeState::Purging => true,
            };
            if !expired {
                continue;
            }
            match self.purge(&home.name, now).await {
                Ok(()) => purged.homes.push(home.name),
                // It is still being filled.
                Err(HomesError::OwnedElsewhere { .. } | HomesError::Filling { .. })
                    if home.state == HomeState::Filling => {}
                Err(error) => purged.failed.push(error),
            }
        }
        Ok(purged)
    }

    /// Removes a home and deletes it at once, for good: one that was not filled whole.
    ///
    /// # Errors
    /// `NotFound`, `OwnedElsewhere`, `Unavailable`.
    pub async fn discard(&self, name: &str) -> Result<()> {
        self.close(name).await?;
        match self.remove(name).await {
            Ok(_) | Err(HomesError::Filling { .. }) => {}
            Err(error) => return Err(error),
        }
        self.purge(name, i64::MAX).await
    }

    pub(super) async fn purge(&self, name: &str, now: i64) -> Result<()> {
        let slot = self.slot(name);
        let nobody_opens_it = slot.lock().await;
        if nobody_opens_it.is_some() && self.read(name).await?.0.state == State::Filling {
            return Err(HomesError::Filling { home: name.to_owned() });
        }
        let claim = owner::claim(self.heartbeat(name).await?, name, false).await?;
        let purged = self.purge_claimed(name, now, &claim).await;
        match &purged {
            Ok(()) => claim.delete().await?,
            Err(_) => serve::release(&claim).await,
        }
        purged
    }

    async fn purge_claimed(&self, name: &str, now: i64, claim: &Claim) -> Result<()> {
        self.update(name, |record| {
            if !record.is_expired(now) {
                return Err(HomesError::Exists { home: record.name.clone() });
            }
            record.state = State::Purging;
            Ok(())
        })
        .await?;
        for store in [&self.data, &self.meta] {
            self.delete_contents(store, name, claim).await?;
        }
        let head = head_path(name);
        let deleted = self.meta.delete(&head).await;
        deleted.or_else(gone).map_err(|error| HomesError::unavailable(name, error))
    }

    /// Deletes everything of a home but its head and its owner record.
    async fn delete_contents(
        &self,
        store: &Arc<dyn ObjectStore>,
        name: &str,
        claim: &Claim,
    ) -> Result<()> {
        let prefix = home_prefix(name);
        let kept: [Path; 2] = [head_path(name), prefix.clone().join("owner")];
        let failed = |error| HomesError::unavailable(name, error);
        let mut batches = store.list(Some(&prefix)).try_chunks(DELETES_AT_ONCE);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| failed(error.1))?;
            if !claim.still_valid() {
                return Err(HomesError::unavailable(name, "the lease lapsed during the purge"));
            }
            let paths = batch.into_iter().map(|object| object.location);
            stream::iter(paths.filter(|path| !kept.contains(path)))
                .map(|path| async move { store.delete(&path).await.or_else(gone) })
                .buffer_unordered(DELETES_AT_ONCE)
                .try_collect::<()>()
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}

fn gone(error: object_store::Error) -> Result<(), object_store::Error> {
    match error {
        object_store::Error::NotFound { .. } => Ok(()),
        error => Err(error),
    }
}
