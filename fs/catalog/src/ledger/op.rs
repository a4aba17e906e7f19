//! Operations on a ledger, as they lie on the store.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::{RepoName, UploadId};
use crate::types::Quota;

/// What an intent is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IntentKind {
    Link,
    Unlink,
}

/// What a repository's state said of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) d: Digest,
    /// Whether it was linked there,
    pub(crate) here: bool,
    /// in the state of this number.
    pub(crate) seq: u64,
}

/// One change of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum LedgerOp {
    /// The owner's quota.
    Quota { q: Quota },
    /// An upload holds `n` bytes from now on; 0 none.
    Reserve { u: UploadId, n: u64, t: u64 },
    /// Digests with their lengths are about to be linked in or unlinked from a repository.
    Intent { i: String, k: IntentKind, r: RepoName, d: Vec<(Digest, u64)>, t: u64 },
    /// An intent ends. What was seen may be less than it named.
    Settle { i: String, r: RepoName, s: Vec<Seen> },
    /// A repository holds a digest of `n` bytes, as seen in its state `s`. Part of snapshots and
    /// repairs.
    Hold { r: RepoName, d: Digest, n: u64, s: u64 },
    /// It does not. Part of snapshots and repairs.
    Lack { r: RepoName, d: Digest, s: u64 },
    /// An instance is about to change repositories.
    Open { by: String, t: u64 },
    /// It did; with `end` it has nothing more in hand.
    Bump { by: String, end: bool },
    /// Part of snapshots: the counter.
    Counter { n: u64 },
}
