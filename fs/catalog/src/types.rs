//! Values that go in and out of the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::names::{OwnerName, RepoName, Tag};

/// Who asks, after authentication. Nobody in particular by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The owner name of the user; None for anonymous callers.
    pub user: Option<OwnerName>,
    /// Groups of the user, by the authority's names.
    pub groups: BTreeSet<String>,
    /// May do everything everywhere.
    pub admin: bool,
}

/// What a caller may do with a repository; each includes the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// It must look as if it were not there.
    #[default]
    None,
    /// Pull, list tags.
    Read,
    /// Push, delete.
    Write,
    /// Share it; for the owner, managers of its group and administrators.
    Manage,
}

/// What a user is known by to whoever authenticated them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The one authority that is configured for such names, say `system` or `ldap`.
    pub authority: String,
    /// The numeric id, where there is one.
    pub uid: Option<u32>,
    /// The name there, when OCI cannot say it and it was mapped.
    pub login: Option<String>,
}

/// What an owner is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    /// A person, made at the first push.
    User(Identity),
    /// Several, made by an administrator.
    Group {
        /// Users who may do everything with its repositories.
        managers: BTreeSet<OwnerName>,
    },
}

/// An owner record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// First component of its repositories' names.
    pub name: OwnerName,
    /// User or group.
    pub kind: OwnerKind,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// Who may read or write, beside the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Everybody may read, anonymous callers too.
    pub public: bool,
    /// Users who may read.
    pub read_users: BTreeSet<OwnerName>,
    /// Groups whose members may read.
    pub read_groups: BTreeSet<String>,
    /// Users who may read and write.
    pub write_users: BTreeSet<OwnerName>,
    /// Groups whose members may read and write.
    pub write_groups: BTreeSet<String>,
}

/// All rights an owner has given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// For repositories that are not named below. Private unless said otherwise.
    pub default: Access,
    /// For single repositories, by what follows the owner's name; instead of the default.
    pub repositories: BTreeMap<String, Access>,
}

/// Quota of an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// The configured one.
    #[default]
    Default,
    /// None.
    Unlimited,
    /// This many bytes.
    Bytes(u64),
}

/// What an owner uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of blobs and manifests that are linked, each once.
    pub used: u64,
    /// Bytes held for uploads under way.
    pub reserved: u64,
    /// How many blobs and manifests.
    pub blobs: u64,
    /// What was set.
    pub quota: Quota,
    /// What follows from it, in bytes; None is no limit.
    pub limit: Option<u64>,
}

/// The state of an owner's change counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Grows after every change of tags, manifests or links of this owner.
    pub counter: u64,
    /// Changes may have happened that the counter does not show yet: look again soon.
    pub open: bool,
}

/// Digest and length of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// What it is.
    pub digest: Digest,
    /// How long.
    pub size: u64,
}

/// What a manifest names. The catalogue reads no JSON: whoever pushes has parsed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestLinks {
    /// Its configuration, which must be linked in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// Its layers without `urls`, which must be linked too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// Manifests that it lists; they may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Digest>,
    /// What it refers to; may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Its artifact type, or its configuration's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations, for the referrers list; only kept with a subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When the image was made, if it says so: milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_ms: Option<u64>,
}

/// A manifest to be stored.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Must be that of the bytes.
    pub digest: Digest,
    /// As it is to be served.
    pub media_type: String,
    /// At most [`crate::MANIFEST_BYTES_MAX`].
    pub bytes: Bytes,
    /// What it names.
    pub links: ManifestLinks,
    /// Tags that point to it from now on.
    pub tags: Vec<Tag>,
    /// Accept it although blobs are missing.
    pub sparse: bool,
}

/// How a manifest was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// False if the repository had it already.
    pub created: bool,
    /// Tags that changed.
    pub tags: Vec<Tag>,
}

/// What is known of a manifest without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Which.
    pub digest: Digest,
    /// As it was pushed.
    pub media_type: std::sync::Arc<str>,
    /// Length in bytes.
    pub size: u64,
    /// When it came to this repository, milliseconds since 1970.
    pub pushed_ms: u64,
}

/// A manifest with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What is known of it.
    pub info: ManifestInfo,
    /// Exactly as pushed.
    pub bytes: Bytes,
}

/// A manifest with everything that the repository knows of it, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDetails {
    /// What is known of it.
    pub info: ManifestInfo,
    /// What it names.
    pub links: ManifestLinks,
    /// Tags that point to it.
    pub tags: Vec<Tag>,
    /// Bytes of manifest, config and layers, each once.
    pub image_bytes: u64,
    /// Since when nothing keeps it; None while something does.
    pub unkept_since_ms: Option<u64>,
}

/// An entry of a referrers list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// What is known of it.
    pub info: ManifestInfo,
    /// Its artifact type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Part of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In ascending order.
    pub items: Vec<T>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// What a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoSummary {
    /// Which.
    pub repo: RepoName,
    /// Number of tags.
    pub tags: u64,
    /// Number of manifests.
    pub manifests: u64,
    /// Manifests that nothing keeps.
    pub untagged: u64,
    /// Number of blobs that are linked.
    pub blobs: u64,
    /// Bytes of manifests and blobs, each once in this repository.
    pub bytes: u64,
    /// Latest push of a manifest or tag, milliseconds since 1970; 0 for none.
    pub pushed_ms: u64,
}

/// What an upload begins with.
#[derive(Clone, Debug, Default)]
pub struct NewUpload {
    /// Who uploads, for operators; at most 256 bytes.
    pub who: String,
    /// The announced algorithm of the digest; SHA-256 if nobody said.
    pub algorithm: Option<Algorithm>,
    /// The announced length: reserved at once, so that what cannot fit is refused before.
    pub size: Option<u64>,
}

/// How a blob is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Length of the pieces that come out, at most.
    pub piece_bytes: usize,
    /// Pieces that are read ahead; with the one in hand they are the memory of a reader.
    pub ahead: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { piece_bytes: 512 << 10, ahead: 2 }
    }
}
