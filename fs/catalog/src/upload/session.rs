//! A session's head, and clearing away what a session leaves.

use std::collections::HashSet;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::blob::{PARTS, Parts};
use crate::catalog::Catalog;
use crate::cell::Cell;
use crate::digest::{Algorithm, Digest};
use crate::error::{CatalogError, Result, What};
use crate::hash::{HashState, Hasher};
use crate::names::{RepoName, UploadId};

/// All sessions.
pub(crate) const SESSIONS: &str = "uploads";

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// It takes bytes.
    Open,
    /// Its parts may be in the record of this blob by now.
    Closing { digest: Digest },
    /// It is over; what it left is being cleared away. With the blob it was closing to.
    Ended { closing: Option<Digest> },
}

/// What a session's head says. The bytes behind the parts follow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) repo: RepoName,
    pub(crate) who: String,
    pub(crate) began_ms: u64,
    pub(crate) touched_ms: u64,
    pub(crate) stage: Stage,
    /// Bytes that are durable: those of the parts and those that follow.
    pub(crate) offset: u64,
    pub(crate) parts: Parts,
    /// The hash of these bytes.
    pub(crate) hash: HashState,
    /// Bytes that the ledger holds for it, as far as was known.
    pub(crate) reserved: u64,
}

impl Session {
    pub(crate) fn new(
        id: &UploadId,
        repo: &RepoName,
        who: String,
        now_ms: u64,
        algorithm: Algorithm,
    ) -> Self {
        Session {
            repo: repo.clone(),
            who,
            began_ms: now_ms,
            touched_ms: now_ms,
            stage: Stage::Open,
            offset: 0,
            parts: Parts::new(id.clone()),
            hash: Hasher::new(algorithm).state(),
            reserved: 0,
        }
    }
}

pub(crate) fn session_path(id: &UploadId) -> Path {
    Path::from_iter([SESSIONS, id.as_str()])
}

/// The session whose head lies at a path.
pub(crate) fn session_at(path: &Path) -> Option<UploadId> {
    let id: UploadId = path.filename()?.parse().ok()?;
    (session_path(&id) == *path).then_some(id)
}

/// What somebody hears whose session was swapped by somebody else.
pub(super) fn lost(id: &UploadId, now: Option<&Cell<Session>>) -> CatalogError {
    match now {
        Some(cell) if cell.value.stage == Stage::Open => {
            CatalogError::WrongOffset { session: id.to_string(), offset: cell.value.offset }
        }
        _ => CatalogError::not_found(What::Upload, id),
    }
}

impl Catalog {
    /// Removes what a session leaves: parts except those that a record has, the reservation, and
    /// at last the head. The session is ended, or its parts are a record's.
    pub(crate) async fn clear_session(
        &self,
        id: &UploadId,
        session: &Session,
        kept: Option<&Parts>,
    ) -> Result<()> {
        let store = &self.inner.store;
        let kept: HashSet<Path> = kept.into_iter().flat_map(Parts::paths).collect();
        if !session.parts.list.is_empty() || matches!(session.stage, Stage::Ended { .. }) {
            let below = Path::from_iter([PARTS, id.as_str()]);
            let found = self.objects(&*store.data, &below).await?;
            let paths = found.into_iter().map(|(path, _, _)| path);
            for path in paths.filter(|path| !kept.contains(path)) {
                self.delete(&*store.data, &path).await?;
            }
        }
        let owner = session.repo.owner();
        self.release(&owner, id).await?;
        self.delete(&*store.meta, &session_path(id)).await?;
        self.inner.sessions.end(&owner, id);
        Ok(())
    }

    /// Deletes an object that may be gone already.
    pub(crate) async fn delete(&self, store: &dyn ObjectStore, path: &Path) -> Result<()> {
        let delete = || async {
            match store.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(CatalogError::store("deleting", path, error)),
            }
        };
        self.inner.writer.again(delete).await
    }
}
