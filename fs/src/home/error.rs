//! Errors of a home, by what the caller must do about them.
//!
//! Operations fail thousands of times a second in normal work (a negative lookup is `NotFound`),
//! so the common kinds carry no allocation. What an operator must see (which object, which store
//! error) is in [`ErrorKind::Unavailable`] and [`ErrorKind::Corrupt`] and is logged once, where
//! the error leaves the process.

use std::fmt;
use std::sync::Arc;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ErrorKind {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The inode is gone.
    #[error("the file is gone")]
    Stale,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory is needed.
    #[error("not a directory")]
    NotDir,
    /// A directory is in the way.
    #[error("is a directory")]
    IsDir,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The name has more than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// An argument makes no sense here.
    #[error("invalid argument")]
    Invalid,
    /// The home does not do this.
    #[error("not supported")]
    NotSupported,
    /// The operation is not allowed on this object.
    #[error("not permitted")]
    NotPermitted,
    /// The home (or this view of it) takes no changes.
    #[error("read-only")]
    ReadOnly,
    /// The inode has as many links as it may have.
    #[error("too many links")]
    TooManyLinks,
    /// The home, or its owner, has as many snapshots as it may have: so many.
    #[error("there are {0} snapshots, as many as there may be: remove one")]
    TooManySnapshots(usize),
    /// The file would be larger than files can be.
    #[error("the file would be too large")]
    FileTooLarge,
    /// No data or hole behind this offset.
    #[error("no data behind this offset")]
    NoData,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoAttribute,
    /// The value of an extended attribute is too large.
    #[error("the attribute's value is larger than 64 KiB")]
    AttributeTooBig,
    /// The quota of bytes or inodes is used up.
    #[error("the quota is used up")]
    OverQuota,
    /// The store is full.
    #[error("the store is full")]
    NoSpace,
    /// A lock is held by somebody else.
    #[error("locked by another owner")]
    WouldBlock,
    /// Waiting for a lock would never end.
    #[error("waiting for this lock would be a deadlock")]
    Deadlock,
    /// Another daemon took the home over: nothing is acknowledged any more.
    #[error("another owner took this home over")]
    Fenced,
    /// A living process has the home; the text is a sentence that names it.
    #[error("{0}")]
    OwnedElsewhere(Arc<str>),
    /// The home is being closed.
    #[error("the home is closed")]
    Closed,
    /// The store did not answer, or not in time.
    #[error("the store is not available: {0}")]
    Unavailable(Arc<str>),
    /// What the store holds was written by a newer release.
    #[error("{0}")]
    Newer(Arc<str>),
    /// What the store holds is damaged.
    #[error("damaged: {0}")]
    Corrupt(Arc<str>),
}

/// An error of a home: small, cheap to clone, and shared by everyone who waited for the same thing.
#[derive(Clone)]
pub struct Error(pub ErrorKind);

/// What operations of a home give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// The store failed while doing `what`.
    pub fn unavailable(what: impl fmt::Display) -> Self {
        Self(ErrorKind::Unavailable(what.to_string().into()))
    }

    /// `what` is damaged.
    pub fn corrupt(what: impl fmt::Display) -> Self {
        Self(ErrorKind::Corrupt(what.to_string().into()))
    }

    /// Says where damage is, where this is damage and it does not say so yet.
    #[must_use]
    pub fn in_place(self, home: &str, what: impl fmt::Display) -> Self {
        match self.0 {
            ErrorKind::Corrupt(why) if why.starts_with("home ") => Self(ErrorKind::Corrupt(why)),
            ErrorKind::Corrupt(why) => Self::corrupt(format_args!("home {home}: {what}: {why}")),
            other => Self(other),
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Error {}
