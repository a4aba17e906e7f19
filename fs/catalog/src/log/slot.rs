//! What an instance knows of one log, and bringing that up to date.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::{Mutex, RwLock};
use yadokari_store::head::{self, HeadError, HeadNow, HeadVersion, find_head, refresh_head};

use super::State;
use super::commit::Change;
use super::format::{self, Content};
use crate::error::{CatalogError, Result};
use crate::seam::Clock;

/// How often a snapshot may be gone because the head names another by now.
const SNAPSHOT_RACES_MAX: u32 = 20;
/// Who asks waits no longer for one answer of the store, and for so many of them: everybody who
/// wants this log waits along.
const READ_TIME: Duration = Duration::from_secs(15);
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(20);
/// A snapshot beyond this is none of ours.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// Magic and checksum before a sealed object's content.
const SEAL_BYTES: usize = 36;
/// Snapshots of all logs.
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// One log, as this instance knows it. Shared by everybody here who uses that log.
#[derive(Debug)]
pub(crate) struct Slot<S: State> {
    pub(super) path: Path,
    pub(super) meta: Arc<dyn ObjectStore>,
    pub(super) clock: Arc<dyn Clock>,
    known: RwLock<Option<Known<S>>>,
    /// One reads for all who find the knowledge too old.
    reading: tokio::sync::Mutex<()>,
    /// Changes that wait for the one that is being written.
    pub(super) queue: Mutex<VecDeque<Box<dyn Change<S>>>>,
    /// Held by whoever writes.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Monotonic milliseconds of the last use, for eviction.
    pub(super) used_ms: AtomicU64,
    pub(super) weight: AtomicU64,
}

/// A state of the log.
#[derive(Clone, Debug)]
pub(super) struct Known<S> {
    pub(super) state: Arc<S>,
    /// None: it does not exist.
    pub(super) version: Option<HeadVersion>,
    pub(super) content: Content,
    /// At this moment or later it was the newest.
    pub(super) as_of: Duration,
}

impl<S: State> Slot<S> {
    pub(super) fn new(path: Path, meta: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        Slot {
            path,
            meta,
            clock,
            known: RwLock::new(None),
            reading: tokio::sync::Mutex::new(()),
            queue: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            used_ms: AtomicU64::new(0),
            weight: AtomicU64::new(0),
        }
    }

    /// Looks at the state as it was at most `age_max` ago, without asking the store: None when
    /// what is known is older.
    pub(crate) fn peek<R>(&self, age_max: Duration, look: impl FnOnce(&S) -> R) -> Option<R> {
        let now = self.clock.monotonic();
        let known = self.known.read();
        let known = known.as_ref()?;
        if now.saturating_sub(known.as_of) > age_max || age_max.is_zero() {
            return None;
        }
        Some(look(&known.state))
    }

    /// Looks at the state as it was at most `age_max` ago; zero asks the store.
    pub(crate) async fn look<R>(&self, age_max: Duration, look: impl FnOnce(&S) -> R) -> Result<R> {
        if !self.is_younger(age_max) {
            self.refresh(age_max).await?;
        }
        let known = self.known.read();
        let known = known.as_ref().expect("it was read, and is never forgotten while in use");
        Ok(look(&known.state))
    }

    /// The state itself, for long looks.
    pub(crate) async fn state(&self, age_max: Duration) -> Result<Arc<S>> {
        if !self.is_younger(age_max) {
            self.refresh(age_max).await?;
        }
        let known = self.known.read();
        Ok(Arc::clone(&known.as_ref().expect("it was read").state))
    }

    /// The state and its number, read from the store after the call.
    pub(crate) async fn state_now(&self) -> Result<(Arc<S>, u64)> {
        let known = self.refresh(Duration::ZERO).await?;
        Ok((known.state, known.content.first.seq))
    }

    fn is_younger(&self, age_max: Duration) -> bool {
        self.peek(age_max, |_| ()).is_some()
    }

    pub(super) fn known(&self) -> Option<Known<S>> {
        self.known.read().clone()
    }

    /// Reads the head, unless somebody just did. With `age_max` zero what comes was read after
    /// the call.
    pub(super) async fn refresh(&self, age_max: Duration) -> Result<Known<S>> {
        let asked = self.clock.monotonic();
        let _one_at_a_time = self.reading.lock().await;
        let known = self.known();
        if let Some(known) = &known {
            let age = self.clock.monotonic().saturating_sub(known.as_of);
            // Strictly later than the question: within one tick of the clock the order is not
            // known.
            if known.as_of > asked || (!age_max.is_zero() && age <= age_max) {
                return Ok(known.clone());
            }
        }
        let mut tries = 0;
        loop {
            let as_of = self.clock.monotonic();
            let read = tokio::time::timeout(READ_TIME, self.read(known.clone(), as_of)).await;
            tries += 1;
            match read.unwrap_or_else(|_| Err(CatalogError::busy("reading", &self.path))) {
                Err(CatalogError::Unavailable { .. }) if tries < READ_TRIES => {
                    tokio::time::sleep(READ_PAUSE * tries).await;
                }
                other => return other.map(|fresh| self.learn(fresh)),
            }
        }
    }

    async fn read(&self, known: Option<Known<S>>, as_of: Duration) -> Result<Known<S>> {
        let failed = |e| CatalogError::head("reading", e);
        for _ in 0..SNAPSHOT_RACES_MAX {
            let version = known.as_ref().and_then(|known| known.version.as_ref());
            let found = match version {
                None => find_head(&self.meta, &self.path).await.map_err(failed)?,
                Some(version) => {
                    match refresh_head(&self.meta, &self.path, version).await.map_err(failed)? {
                        HeadNow::Same => {
                            let known = known.expect("there is a version");
                            return Ok(Known { as_of, ..known });
                        }
                        HeadNow::Changed(head) => Some(head),
                        HeadNow::Gone => None,
                    }
                }
            };
            let Some(head) = found else {
                let content = Content::default();
                return Ok(Known { state: Arc::default(), version: None, content, as_of });
            };
            let parsed = format::decode::<S>(&head.data)
                .map_err(|why| CatalogError::corrupt(&self.path, why))?;
            let Some((mut state, from)) =
                self.state_before(&parsed.content, known.as_ref()).await?
            else {
                continue;
            };
            if parsed.commits.iter().any(|(seq, _)| *seq > from) {
                let state = Arc::make_mut(&mut state);
                for (_, ops) in parsed.commits.iter().filter(|(seq, _)| *seq > from) {
                    ops.iter().for_each(|op| state.apply(op));
                }
            }
            let version = Some(head.version);
            return Ok(Known { state, version, content: parsed.content, as_of });
        }
        Err(CatalogError::busy("reading", &self.path))
    }

    /// A state that the head's commits can be applied to, and its number: what is known
    /// already, or the snapshot. None when the snapshot is gone.
    async fn state_before(
        &self,
        content: &Content,
        known: Option<&Known<S>>,
    ) -> Result<Option<(Arc<S>, u64)>> {
        let base = content.first.base.as_ref();
        let needed = base.map_or(0, |base| base.seq);
        if let Some(known) = known
            && (needed..=content.first.seq).contains(&known.content.first.seq)
            && known.version.is_some()
        {
            return Ok(Some((Arc::clone(&known.state), known.content.first.seq)));
        }
        let Some(base) = base else {
            return Ok(Some((Arc::default(), 0)));
        };
        let path = snapshot_path(&base.name);
        let Some(bytes) = read_sealed(&*self.meta, &path).await? else {
            return Ok(None);
        };
        let (first, state) = format::decode_snapshot::<S>(&bytes)
            .map_err(|why| CatalogError::corrupt(&path, why))?;
        if first.seq != base.seq {
            return Err(CatalogError::corrupt(&path, "it is not of the commit that was expected"));
        }
        Ok(Some((Arc::new(state), base.seq)))
    }

    /// Keeps what was read or written, unless something newer is known.
    pub(super) fn learn(&self, fresh: Known<S>) -> Known<S> {
        let mut known = self.known.write();
        match &mut *known {
            Some(known) if known.content.first.seq > fresh.content.first.seq => known.clone(),
            _ => {
                let weight = fresh.state.weight() + fresh.content.tail_bytes();
                self.weight.store(weight as u64, Ordering::Relaxed);
                *known = Some(fresh.clone());
                fresh
            }
        }
    }

    /// Takes over operations that were written on what is known. The caller holds `writing`.
    pub(super) fn advance(
        &self,
        ops: &[S::Op],
        version: HeadVersion,
        content: Content,
        as_of: Duration,
    ) {
        let mut known = self.known.write();
        let Some(known) = &mut *known else {
            return;
        };
        if known.content.first.seq + 1 != content.first.seq {
            // Somebody read what was just written.
            return;
        }
        let state = Arc::make_mut(&mut known.state);
        ops.iter().for_each(|op| state.apply(op));
        let weight = state.weight() + content.tail_bytes();
        self.weight.store(weight as u64, Ordering::Relaxed);
        known.version = Some(version);
        known.content = content;
        known.as_of = as_of;
    }
}

pub(crate) fn snapshot_path(name: &str) -> Path {
    Path::from_iter([SNAPSHOTS, name])
}

/// A sealed object that is not a head; None if it does not exist.
pub(super) async fn read_sealed(
    meta: &dyn ObjectStore,
    path: &Path,
) -> Result<Option<bytes::Bytes>> {
    let failed = |e| CatalogError::store("reading", path, e);
    let result = match meta.get(path).await {
        Ok(result) => result,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if result.meta.size > SNAPSHOT_BYTES_MAX {
        return Err(CatalogError::corrupt(path, "too long for a snapshot"));
    }
    let bytes = result.bytes().await.map_err(failed)?;
    head::open(&bytes).map(Some).map_err(|why| CatalogError::corrupt(path, why))
}

/// Whether a write may have happened although it failed.
pub(super) fn is_unknown(error: &HeadError) -> bool {
    matches!(error, HeadError::Store { .. })
}

/// The path of the head that a snapshot belongs to, from its first bytes.
pub(crate) fn snapshot_owner(first: &[u8]) -> Option<Path> {
    let text = first.get(SEAL_BYTES..)?;
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let first = format::snapshot_first(std::str::from_utf8(&text[..end]).ok()?).ok()?;
    Path::parse(first.of).ok()
}

/// The snapshot that a head names now.
pub(crate) async fn snapshot_base(meta: &dyn ObjectStore, path: &Path) -> Result<Option<String>> {
    let head = find_head(meta, path).await.map_err(|e| CatalogError::head("reading", e))?;
    let Some(head) = head else {
        return Ok(None);
    };
    let name = format::base_name(&head.data).map_err(|why| CatalogError::corrupt(path, why))?;
    Ok(name)
}
