//! Credentials that were right a moment ago, by a keyed hash of what was sent.
//!
//! The key is random and lives only in this process, so neither memory nor a core file says a
//! password. A look costs one BLAKE3 of a header and one look into a sharded table.

use std::time::Duration;

use quick_cache::sync::Cache;

use super::caller::Caller;

/// Credentials kept; an entry takes about 200 bytes.
const KEPT_MAX: usize = 16_384;

/// What stands for credentials.
pub type Mark = [u8; 32];

/// The table.
#[derive(Debug)]
pub struct Remembered {
    key: HashKey,
    kept: Cache<Mark, (Duration, Caller)>,
}

struct HashKey([u8; 32]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(key)")
    }
}

impl Remembered {
    /// With a key that nobody knows.
    pub fn new(random: &dyn yadokari_catalog::Randomness) -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&random.bytes16());
        key[16..].copy_from_slice(&random.bytes16());
        Self { key: HashKey(key), kept: Cache::new(KEPT_MAX) }
    }

    /// What stands for these credentials.
    pub fn mark(&self, credentials: &[u8]) -> Mark {
        *blake3::keyed_hash(&self.key.0, credentials).as_bytes()
    }

    /// Whose they are, if that is known and not too old.
    pub fn get(&self, mark: &Mark, now: Duration) -> Option<Caller> {
        let (until, caller) = self.kept.get(mark)?;
        (now < until).then_some(caller)
    }

    /// They were right; that holds until then.
    pub fn put(&self, mark: Mark, until: Duration, caller: Caller) {
        self.kept.insert(mark, (until, caller));
    }
}
