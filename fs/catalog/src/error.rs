//! What can go wrong, by what the caller must do about it.
//!
//! The text of an error is for operators; what a client is told is decided by whoever speaks to
//! it. Nothing in here says whether something exists that the caller may not see: that question
//! is settled before the catalogue is asked.

use yadokari_store::head::HeadError;

use crate::digest::Digest;
use crate::names::{OwnerName, RepoName};

/// Result of an operation on the catalogue.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// What was asked for and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// An owner record.
    Owner,
    /// A repository that never held anything, or holds nothing any more.
    Repository,
    /// A manifest in a repository.
    Manifest,
    /// A tag in a repository.
    Tag,
    /// A blob in a repository.
    Blob,
    /// An upload session: unknown, ended, cancelled or expired.
    Upload,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Owner => "owner",
            What::Repository => "repository",
            What::Manifest => "manifest",
            What::Tag => "tag",
            What::Blob => "blob",
            What::Upload => "upload session",
        }
    }
}

/// An error of the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It is not there.
    #[error("{} {name} does not exist", what.name())]
    NotFound {
        /// Of which sort.
        what: What,
        /// Which.
        name: String,
    },
    /// A manifest names blobs that its repository does not have: push those first.
    #[error("{repo} lacks {} of the manifest's blobs, the first is {}", missing.len(), missing[0])]
    BlobsMissing {
        /// Where it was to go.
        repo: RepoName,
        /// At least one.
        missing: Vec<Digest>,
    },
    /// An upload goes on elsewhere: ask for its offset. Also for the loser of two writers.
    #[error("upload session {session} goes on at offset {offset}")]
    WrongOffset {
        /// The session.
        session: String,
        /// Where it goes on, as far as is known.
        offset: u64,
    },
    /// Content is not what its digest says.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// As announced.
        expected: Digest,
        /// As reckoned.
        found: Box<Digest>,
    },
    /// It would exceed the owner's quota. Nothing was stored.
    #[error(
        "{owner} uses {used} bytes and reserved {reserved} of {limit}: no room for {requested}"
    )]
    OverQuota {
        /// Whose quota.
        owner: OwnerName,
        /// Bytes of what is stored.
        used: u64,
        /// Bytes held for uploads under way.
        reserved: u64,
        /// The quota.
        limit: u64,
        /// Bytes that were asked for beyond that.
        requested: u64,
    },
    /// It cannot be removed while something there uses it.
    #[error("{digest} is used by {by}")]
    InUse {
        /// What was to be removed.
        digest: Digest,
        /// A manifest that names it.
        by: Box<Digest>,
    },
    /// A name belongs to somebody else; an administrator must decide.
    #[error("the name {owner} is taken: {why}")]
    Clash {
        /// Which name.
        owner: OwnerName,
        /// By whom.
        why: String,
    },
    /// It is there already.
    #[error("{name} exists already")]
    Exists {
        /// Which.
        name: String,
    },
    /// More than this catalogue takes.
    #[error("{what}: at most {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many, or how long.
        limit: u64,
    },
    /// A range or argument that makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The medium is full.
    #[error("no space left in the store for {object}")]
    NoSpace {
        /// What was to be written.
        object: String,
    },
    /// The store gave no answer, or others kept changing the same things. What was asked for may
    /// have happened or not, whole in each case: try again.
    #[error("{operation} of {object} failed for now")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// To what.
        object: String,
        /// The store's words.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What was read is not what was written: an operator must look.
    #[error("{object} is damaged: {why}")]
    Corrupt {
        /// Which object.
        object: String,
        /// What is wrong.
        why: String,
    },
}

/// The sorts of error, for one exhaustive match at each border.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not there.
    NotFound,
    /// There already, or somebody else's.
    Exists,
    /// In the way of something else; read again or give up.
    Conflict,
    /// Over quota.
    OverQuota,
    /// The request can never work.
    Invalid,
    /// The medium is full.
    NoSpace,
    /// Try again later.
    Unavailable,
    /// Damage.
    Corrupt,
}

impl CatalogError {
    /// What the caller must do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            CatalogError::NotFound { .. } | CatalogError::BlobsMissing { .. } => Kind::NotFound,
            CatalogError::Exists { .. } | CatalogError::Clash { .. } => Kind::Exists,
            CatalogError::WrongOffset { .. } | CatalogError::InUse { .. } => Kind::Conflict,
            CatalogError::OverQuota { .. } => Kind::OverQuota,
            CatalogError::DigestMismatch { .. }
            | CatalogError::Limit { .. }
            | CatalogError::Invalid(_) => Kind::Invalid,
            CatalogError::NoSpace { .. } => Kind::NoSpace,
            CatalogError::Unavailable { .. } => Kind::Unavailable,
            CatalogError::Corrupt { .. } => Kind::Corrupt,
        }
    }

    pub(crate) fn not_found(what: What, name: impl ToString) -> Self {
        CatalogError::NotFound { what, name: name.to_string() }
    }

    pub(crate) fn corrupt(object: impl ToString, why: impl ToString) -> Self {
        CatalogError::Corrupt { object: object.to_string(), why: why.to_string() }
    }

    /// Others kept being quicker.
    pub(crate) fn busy(operation: &'static str, object: impl ToString) -> Self {
        CatalogError::Unavailable { operation, object: object.to_string(), source: None }
    }

    pub(crate) fn store(
        operation: &'static str,
        object: impl ToString,
        source: object_store::Error,
    ) -> Self {
        use yadokari_store::Kind as K;
        let object = object.to_string();
        match yadokari_store::kind(&source) {
            K::NoSpace => CatalogError::NoSpace { object },
            K::Corrupt => CatalogError::Corrupt { object, why: source.to_string() },
            _ => CatalogError::Unavailable { operation, object, source: Some(source.into()) },
        }
    }

    pub(crate) fn head(operation: &'static str, source: HeadError) -> Self {
        let unavailable = |object: String, source: HeadError| CatalogError::Unavailable {
            operation,
            object,
            source: Some(source.into()),
        };
        match source {
            HeadError::NoSpace(path) => CatalogError::NoSpace { object: path.to_string() },
            HeadError::Corrupt { path, why } => CatalogError::corrupt(path, why),
            HeadError::NotFound(ref path)
            | HeadError::Exists(ref path)
            | HeadError::Conflict(ref path)
            | HeadError::Store { ref path, .. } => unavailable(path.to_string(), source),
        }
    }
}
