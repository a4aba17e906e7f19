//! The catalogue's handle: what all its parts share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use quick_cache::sync::Cache;
use yadokari_store::{BlockingPool, Store};

use crate::blob::Blobs;
use crate::digest::Digest;
use crate::directory::Directory;
use crate::error::{CatalogError, Result};
use crate::ledger::Ledger;
use crate::log::{Heads, Slot, Writer};
use crate::names::{OwnerName, RepoName};
use crate::options::Options;
use crate::owners::Views;
use crate::repo::Repo;
use crate::settle::Owed;
use crate::upload::Sessions;

/// One request to the store is given up after this; whether it happened is then not known.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How often debts are settled.
const TEND_EVERY: Duration = Duration::from_millis(500);
/// What an entry of the manifest cache takes beside its bytes.
const MANIFEST_ENTRY_BYTES: u64 = 200;

/// The catalogue of a store, as one instance sees it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) writer: Writer,
    pub(crate) repos: Heads<Repo>,
    pub(crate) ledgers: Heads<Ledger>,
    pub(crate) directories: Heads<Directory>,
    pub(crate) blobs: Blobs,
    pub(crate) manifests: Cache<Digest, Bytes, ManifestWeight>,
    pub(crate) views: Views,
    pub(crate) owed: Owed,
    pub(crate) sessions: Sessions,
    computing: BlockingPool,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[derive(Clone, Debug)]
pub(crate) struct ManifestWeight;

impl quick_cache::Weighter<Digest, Bytes> for ManifestWeight {
    fn weight(&self, _: &Digest, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + MANIFEST_ENTRY_BYTES
    }
}

/// `repos/OWNER/+PATH`, the slashes of the path as `+`, which no name has.
pub(crate) fn repo_path(name: &str) -> Path {
    let (owner, rest) = name.split_once('/').unwrap_or((name, ""));
    Path::from_iter(["repos", owner, &format!("+{}", rest.replace('/', "+"))])
}

/// The repository whose head lies at a path.
pub(crate) fn repo_at(path: &Path) -> Option<RepoName> {
    let mut parts = path.parts();
    let (root, owner, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let owner: OwnerName = owner.as_ref().parse().ok()?;
    let rest = rest.as_ref().strip_prefix('+')?.replace('+', "/");
    let repo = RepoName::of(&owner, &rest).ok()?;
    (root.as_ref() == "repos" && repo_path(repo.as_str()) == *path).then_some(repo)
}

pub(crate) fn ledger_path(owner: &str) -> Path {
    Path::from_iter(["owners", owner, "ledger"])
}

fn directory_path(_only_one: &str) -> Path {
    Path::from("directory")
}

impl Catalog {
    /// The catalogue of a store. Reads and writes nothing yet; an empty store is a catalogue.
    #[must_use]
    pub fn new(store: &Store, options: Options) -> Self {
        let writer = Writer {
            seams: options.seams.clone(),
            retry_time: options.retry_time,
            request_time: REQUEST_TIME,
        };
        let (meta, clock) = (&store.meta, &options.seams.clock);
        let heads = options.head_cache_bytes;
        let manifests = options.manifest_cache_bytes;
        let entries = usize::try_from(manifests / 2048).unwrap_or(usize::MAX).max(16);
        let inner = Inner {
            repos: Heads::new(Arc::clone(meta), Arc::clone(clock), repo_path, heads / 3 * 2),
            ledgers: Heads::new(Arc::clone(meta), Arc::clone(clock), ledger_path, heads / 3),
            directories: Heads::new(Arc::clone(meta), Arc::clone(clock), directory_path, u64::MAX),
            blobs: Blobs::new(store, writer.clone()),
            manifests: Cache::with_weighter(entries, manifests, ManifestWeight),
            views: Views::default(),
            owed: Owed::default(),
            sessions: Sessions::default(),
            computing: BlockingPool::new("hash", 2 * cores()),
            store: store.clone(),
            writer,
            options,
        };
        Catalog { inner: Arc::new(inner) }
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Runs what takes the processor for long, off the async threads. As many run at once as the
    /// machine has use for.
    ///
    /// # Errors
    /// When `work` panics.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::result::Result<T, tokio::task::JoinError> {
        self.inner.computing.run(work).await
    }

    /// Whether the store answers: reads one object, at most. For readiness probes.
    ///
    /// # Errors
    /// What the store says.
    pub async fn ping(&self) -> Result<()> {
        self.directory().look(Duration::ZERO, |_| ()).await
    }

    /// Runs as long as the instance serves: every half second it settles what this instance
    /// still owes to ledgers and change counters. Without it counters lag and intents stay for
    /// others to finish; nothing else depends on it.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(TEND_EVERY).await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "what this instance owes to ledgers waits");
            }
            self.inner.repos.trim();
            self.inner.ledgers.trim();
        }
    }

    pub(crate) fn repo(&self, repo: &RepoName) -> Arc<Slot<Repo>> {
        self.inner.repos.slot(repo.as_str())
    }

    pub(crate) fn ledger(&self, owner: &str) -> Arc<Slot<Ledger>> {
        self.inner.ledgers.slot(owner)
    }

    pub(crate) fn directory(&self) -> Arc<Slot<Directory>> {
        self.inner.directories.slot("")
    }

    pub(crate) fn age_max(&self) -> Duration {
        self.inner.options.head_age_max
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.options.seams.clock.wall_ms()
    }

    /// Runs something to its end even if who asked goes away: half a push that stays behind
    /// would have to be finished by others.
    pub(crate) async fn detached<T: Send + 'static>(
        run: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(run).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_ended) => Err(CatalogError::busy("changing", "the catalogue")),
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_found_by_its_path() {
        for name in ["alpine", "alice/app", "a/b/c", "a/b-c/d__e"] {
            let repo: RepoName = name.parse().expect("a name");
            assert_eq!(repo_at(&repo_path(name)), Some(repo), "{name}");
        }
        for path in ["repos/a", "repos/a/b", "repos/A/+b", "repos/a/+B", "x/a/+b", "repos/a/+b/c"] {
            assert_eq!(repo_at(&Path::from(path)), None, "{path}");
        }
    }
}
