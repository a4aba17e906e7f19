//! Operations on a repository, as they lie on the store. Field names are short because every
//! link, manifest and tag has them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::Tag;
use crate::types::ManifestLinks;

/// One change of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum RepoOp {
    /// A blob of `n` bytes is linked, or linked anew: not condemned from here on.
    Link { d: Digest, n: u64, t: u64 },
    /// Links that no manifest uses; they wait for their end.
    Condemn { d: Vec<Digest>, t: u64 },
    /// A link ends.
    Unlink { d: Digest },
    /// A manifest of `n` bytes and media type `m`.
    Manifest { d: Digest, n: u64, m: String, t: u64, l: Box<ManifestLinks> },
    /// A manifest ends, and the tags that point to it.
    Drop { d: Digest, t: u64 },
    /// A tag points to a manifest.
    Tag { g: Tag, d: Digest, t: u64 },
    /// A tag ends.
    Untag { g: Tag, t: u64 },
    /// What an intent of the ledger was to link must not be linked any more.
    Void { i: String, t: u64 },
    /// The directory lists this repository, by its entry of this number.
    List { g: u64 },
    /// It does not; entries up to this number count for nothing.
    Unlist { g: u64 },
    /// Part of snapshots: since when nothing keeps a manifest, and whether its subject was
    /// removed.
    Mark { d: Digest, u: Option<u64>, s: bool },
    /// Part of snapshots: when a link was condemned.
    Condemned { d: Digest, t: u64 },
}
