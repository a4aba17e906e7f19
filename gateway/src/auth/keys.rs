//! Keys that sign tokens, kept in one head so that every instance knows them.
//!
//! ```text
//! auth/keys    {"keys":[{"id":"9f03…","secret":"base64url","made":seconds}, …]}   oldest first
//! ```
//!
//! The youngest signs. When it is older than the configured time, whoever notices first adds
//! another; keys that no token can be signed with any more are dropped then. An id that is not
//! known makes an instance read the head again, at most once a second.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use yadokari_catalog::Seams;
use yadokari_store::head::{self, HeadError};
use yadokari_store::object_store::ObjectStore;
use yadokari_store::object_store::path::Path;
use zeroize::Zeroizing;

/// Foreign tokens must not make an instance read the store all the time.
const REREAD_MIN: Duration = Duration::from_secs(1);
/// Swaps that are tried while other instances keep winning.
const TRIES_MAX: usize = 16;

/// One key.
pub struct Key {
    /// Names it in tokens.
    pub id: String,
    /// Signs.
    pub secret: Zeroizing<[u8; 32]>,
    made: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    id: String,
    secret: Zeroizing<String>,
    made: u64,
}

/// The keys, as this instance knows them.
#[derive(Debug)]
pub struct Keys {
    store: Arc<dyn ObjectStore>,
    path: Path,
    seams: Seams,
    lifetimes: Lifetimes,
    ring: RwLock<Vec<Arc<Key>>>,
    reread: Mutex<Option<Duration>>,
}

/// When a key stops signing, and when the last token signed with it is over.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// After this another one signs.
    pub signs: Duration,
    /// The longest life of a token.
    pub token: Duration,
}

impl Keys {
    /// Reads the keys, and makes the first one where there is none.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        seams: Seams,
        lifetimes: Lifetimes,
    ) -> Result<Self, HeadError> {
        let path = Path::from_iter(["auth", "keys"]);
        let (ring, reread) = (RwLock::default(), Mutex::default());
        let keys = Self { store, path, seams, lifetimes, ring, reread };
        keys.rotate().await?;
        Ok(keys)
    }

    /// The key that signs now.
    pub fn current(&self) -> Arc<Key> {
        let ring = self.ring.read();
        Arc::clone(ring.last().expect("there is one from `open` on"))
    }

    /// The key of a token; the store is asked when it is not known.
    pub async fn find(&self, id: &str) -> Option<Arc<Key>> {
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        if !self.may_reread() {
            return None;
        }
        match self.read().await {
            Ok((stored, _)) => self.learn(&stored),
            Err(error) => tracing::warn!(%error, "keys of tokens could not be read again"),
        }
        self.known(id)
    }

    /// Adds a key when the youngest is too old; to be called now and then.
    pub async fn rotate(&self) -> Result<(), HeadError> {
        for _ in 0..TRIES_MAX {
            let (mut stored, version) = self.read().await?;
            let now = self.seams.clock.wall_ms() / 1000;
            let signs = self.lifetimes.signs.as_secs();
            if stored.keys.last().is_some_and(|key| now < key.made.saturating_add(signs)) {
                self.learn(&stored);
                return Ok(());
            }
            let over = signs.saturating_add(self.lifetimes.token.as_secs());
            stored.keys.retain(|key| now < key.made.saturating_add(over));
            stored.keys.push(self.fresh(now));
            let bytes = serde_json::to_vec(&stored).expect("keys are plain data");
            let written = match &version {
                Some(version) => head::swap_head(&*self.store, &self.path, version, &bytes).await,
                None => head::create_head(&*self.store, &self.path, &bytes).await,
            };
            match written {
                Ok(_) => {
                    self.learn(&stored);
                    return Ok(());
                }
                Err(HeadError::Conflict(_) | HeadError::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(HeadError::Conflict(self.path.clone()))
    }

    fn fresh(&self, now: u64) -> StoredKey {
        let random = &self.seams.random;
        let mut secret = Zeroizing::new([0; 32]);
        secret[..16].copy_from_slice(&random.bytes16());
        secret[16..].copy_from_slice(&random.bytes16());
        let id = u64::from_be_bytes(random.bytes16()[..8].try_into().expect("are eight"));
        StoredKey {
            id: format!("{id:016x}"),
            secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret)),
            made: now,
        }
    }

    fn known(&self, id: &str) -> Option<Arc<Key>> {
        self.ring.read().iter().rev().find(|key| key.id == id).cloned()
    }

    fn may_reread(&self) -> bool {
        let now = self.seams.clock.monotonic();
        let mut last = self.reread.lock();
        let may = last.is_none_or(|last| now.saturating_sub(last) >= REREAD_MIN);
        if may {
            *last = Some(now);
        }
        may
    }

    fn learn(&self, stored: &Stored) {
        let ring = stored.keys.iter().filter_map(|key| {
            let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(key.secret.as_bytes()).ok()?);
            let secret = Zeroizing::new(bytes.as_slice().try_into().ok()?);
            Some(Arc::new(Key { id: key.id.clone(), secret, made: key.made }))
        });
        let ring: Vec<_> = ring.collect();
        let mut known = self.ring.write();
        // An answer that was overtaken must not take a younger key away.
        if ring.last().map(|key| key.made) >= known.last().map(|key| key.made) {
            *known = ring;
        }
    }

    async fn read(&self) -> Result<(Stored, Option<head::HeadVersion>), HeadError> {
        let Some(found) = head::find_head(&*self.store, &self.path).await? else {
            return Ok((Stored::default(), None));
        };
        let stored: Stored = serde_json::from_slice(&found.data).map_err(|_| {
            HeadError::Corrupt { path: self.path.clone(), why: "not the JSON of keys" }
        })?;
        Ok((stored, Some(found.version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::TestClock;
    use yadokari_store::Store;

    fn lifetimes() -> Lifetimes {
        Lifetimes { signs: Duration::from_secs(100), token: Duration::from_secs(50) }
    }

    async fn open(store: &Store, clock: &Arc<TestClock>) -> Keys {
        Keys::open(Arc::clone(&store.meta), clock.seams(), lifetimes()).await.unwrap()
    }

    #[tokio::test]
    async fn every_instance_knows_the_same_keys() {
        let (store, clock) = (Store::memory(), TestClock::new());
        let (one, two) = (open(&store, &clock).await, open(&store, &clock).await);
        assert_eq!(one.current().id, two.current().id);
        assert_eq!(one.current().secret, two.current().secret);
    }

    #[tokio::test]
    async fn a_rotated_key_signs_and_the_old_one_still_verifies_until_its_tokens_are_over() {
        let (store, clock) = (Store::memory(), TestClock::new());
        let (one, two) = (open(&store, &clock).await, open(&store, &clock).await);
        let first = one.current().id.clone();
        clock.advance(Duration::from_secs(101));
        one.rotate().await.unwrap();
        let second = one.current().id.clone();
        assert_ne!(first, second);
        assert!(one.find(&first).await.is_some());
        assert!(two.find(&second).await.is_some(), "the other instance reads again");
        clock.advance(Duration::from_secs(101));
        one.rotate().await.unwrap();
        assert!(one.find(&first).await.is_none());
        assert!(one.find(&second).await.is_some());
    }

    #[tokio::test]
    async fn two_instances_that_rotate_at_once_agree() {
        let (store, clock) = (Store::memory(), TestClock::new());
        let (one, two) = (open(&store, &clock).await, open(&store, &clock).await);
        clock.advance(Duration::from_secs(101));
        let (a, b) = tokio::join!(one.rotate(), two.rotate());
        a.unwrap();
        b.unwrap();
        assert_eq!(one.current().id, two.current().id);
    }
}
