//! Errors of the store, by what the caller must do about them.
//!
//! Two kinds exist: [`StoreError`] is what opening a store can say (for the person who wrote the
//! URL), and [`Kind`] sorts the `object_store::Error` of a single operation into what its caller
//! does next. A backend that has more to say than `object_store::Error` can carry puts a
//! [`Detail`] into its source, and [`kind`] finds it there, below any number of wrappers.

use std::error::Error as StdError;
use std::time::Duration;

/// Why a store could not be opened. The text names the part that is wrong and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL or a parameter of it is wrong: correct the configuration.
    #[error(transparent)]
    Url(#[from] crate::url::UrlError),
    /// The URL is right, but something it names does not exist.
    #[error("{what} does not exist: {remedy}")]
    NotFound { what: String, remedy: String },
    /// The medium refused this user.
    #[error("{what} refused access: {remedy}")]
    Denied { what: String, remedy: String },
    /// Nothing answered in time. Trying again later may help.
    #[error("no answer from {what} within {waited:?}: {remedy}")]
    Unreachable { what: String, waited: Duration, remedy: String },
    /// What is there is not a store of ours, or one of another version.
    #[error("{what} cannot be used as a store: {remedy}")]
    Invalid { what: String, remedy: String },
    /// This binary was built without that backend.
    #[error("this build has no {scheme}:// backend: build it with the feature `{feature}`")]
    NotBuilt { scheme: &'static str, feature: &'static str },
    /// The medium failed in a way that names no remedy.
    #[error("{operation} of {what} failed")]
    Failed {
        operation: &'static str,
        what: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// What the caller of one operation must do about its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// `Create` found an object of that name.
    Exists,
    /// The object is not (or no longer) at the version that was expected: read it again.
    Conflict,
    /// A conditional read found nothing newer.
    NotModified,
    /// The medium or its quota is full: ENOSPC. Deleting still works.
    NoSpace,
    /// The medium did not answer, or not in time. The operation may or may not have happened.
    Unavailable,
    /// What was read is not what was written.
    Corrupt,
    /// The medium refused this user.
    Denied,
    /// The request itself cannot work: a name too long, a range outside the object, a mode the
    /// backend does not have.
    Invalid,
}

/// The extra facts that a backend puts into the source of an `object_store::Error::Generic`.
#[derive(Debug, thiserror::Error)]
pub enum Detail {
    #[error("no space left in {medium} while writing {object}")]
    NoSpace { medium: String, object: String },
    #[error("{object} is damaged: {why}")]
    Corrupt { object: String, why: String },
    #[error("{operation} of {object} got no answer: {why}")]
    Unavailable { operation: &'static str, object: String, why: String },
    #[error("{operation} of {object} is impossible: {why}")]
    Invalid { operation: &'static str, object: String, why: String },
}

impl Detail {
    /// This detail as an `object_store` error of the store named `store`.
    pub fn at(self, store: &'static str) -> object_store::Error {
        object_store::Error::Generic { store, source: Box::new(self) }
    }

    fn kind(&self) -> Kind {
        match self {
            Detail::NoSpace { .. } => Kind::NoSpace,
            Detail::Corrupt { .. } => Kind::Corrupt,
            Detail::Unavailable { .. } => Kind::Unavailable,
            Detail::Invalid { .. } => Kind::Invalid,
        }
    }
}

/// Sorts an operation's error. What no backend explained counts as `Unavailable`, since for a
/// remote medium that is what an unexplained failure is.
pub fn kind(error: &object_store::Error) -> Kind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => Kind::NotFound,
        E::AlreadyExists { .. } => Kind::Exists,
        E::Precondition { .. } => Kind::Conflict,
        E::NotModified { .. } => Kind::NotModified,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Kind::Denied,
        E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => Kind::Invalid,
        E::Generic { source, .. } => find_detail(source.as_ref()).unwrap_or(Kind::Unavailable),
        _ => Kind::Unavailable,
    }
}

/// True when the same operation may succeed a moment later without anybody's doing.
pub fn is_transient(error: &object_store::Error) -> bool {
    kind(error) == Kind::Unavailable
}

fn find_detail(source: &(dyn StdError + 'static)) -> Option<Kind> {
    let mut next = Some(source);
    while let Some(error) = next {
        if let Some(detail) = error.downcast_ref::<Detail>() {
            return Some(detail.kind());
        }
        if let Some(inner) = error.downcast_ref::<object_store::Error>() {
            return Some(kind(inner));
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        {
            return Some(Kind::NoSpace);
        }
        // io::Error::source() leaves out the error it wraps.
        next = match error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_found_below_wrappers() {
        let inner = Detail::NoSpace { medium: "pool".into(), object: "a".into() }.at("x");
        let outer = object_store::Error::Generic {
            store: "y",
            source: Box::new(std::io::Error::other(inner)),
        };
        assert_eq!(kind(&outer), Kind::NoSpace);
        assert!(!is_transient(&outer));
    }

    #[test]
    fn an_unexplained_error_is_transient() {
        let error = object_store::Error::Generic { store: "x", source: "reset by peer".into() };
        assert_eq!(kind(&error), Kind::Unavailable);
    }
}
