//! What the registry knows, kept on the store: owners, repositories, tags, manifests, blob
//! records, rights, ledgers, uploads and their collection.
//!
//! Everything is an object that is written once, or a small head that is swapped by
//! compare-and-swap; any number of processes work on one catalogue at the same time, and none of
//! them is needed to finish what another began. `FORMAT.md` draws the objects.
//!
//! What always holds: a tag names a manifest of its repository, a manifest that is not sparse
//! has its blobs linked there, what is linked is charged to its owner, and what is charged is on
//! the store. So links are made in the order ledger, blob record, repository, and taken back the
//! other way round.
//!
//! Left to others: HTTP, JSON of manifests, who a caller is, and answers that hide what a caller
//! may not see. The methods of [`Catalog`] check no rights, except where they take a [`Caller`].

mod blob;
mod catalog;
mod cell;
mod collect;
mod digest;
mod directory;
mod error;
mod fsck;
mod hash;
#[cfg(any(test, feature = "integration"))]
pub mod integration;
mod ledger;
mod listing;
mod log;
mod names;
mod options;
mod owners;
mod pull;
mod push;
mod remove;
mod repo;
mod rights;
mod seam;
mod settle;
mod space;
mod types;
mod upload;

pub use catalog::Catalog;
pub use collect::{CollectOptions, CollectReport};
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{CatalogError, Kind, Result, What};
pub use fsck::{Finding, FsckReport};
pub use hash::{HashState, Hasher};
pub use names::{
    NameError, OwnerName, REPOSITORY_BYTES_MAX, Reference, RepoName, TAG_BYTES_MAX, Tag, UploadId,
};
pub use options::{INLINE_BYTES_MAX, MANIFEST_BYTES_MAX, Options};
pub use pull::BlobReader;
pub use seam::{Clock, Randomness, Seams, SystemClock, SystemRandomness};
pub use types::{
    Access, BlobInfo, Caller, Changes, Identity, Manifest, ManifestDetails, ManifestInfo,
    ManifestLinks, NewManifest, NewUpload, Owner, OwnerKind, Page, Permission, Quota, ReadOptions,
    Referrer, RepoSummary, Rights, StoredManifest, Usage,
};
pub use upload::{Upload, UploadWriter};
