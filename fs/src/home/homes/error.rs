//! Why something could not be done with a home, by what the caller must do.
//!
//! Every text names the home and the remedy: it is what the person reads who typed the command.

use crate::home::owner::{ClaimError, Owner};
use crate::home::{Error, ErrorKind};
use yadokari_store::head::HeadError;

/// Why something could not be done with a home.
#[derive(Debug, thiserror::Error)]
pub enum HomesError {
    /// There is none of this name.
    #[error("there is no home {home}; `yadokari home list` shows those that there are")]
    NotFound {
        /// Its name.
        home: String,
    },
    /// There is one already.
    #[error("home {home} exists already; choose another name, or use it")]
    Exists {
        /// Its name.
        home: String,
    },
    /// Somebody imports or clones it.
    #[error("home {home} is being filled by an import or a clone; wait until that has ended")]
    Filling {
        /// Its name.
        home: String,
    },
    /// It was removed and not brought back.
    #[error("home {home} was removed; `yadokari home restore {home}` brings it back for some days")]
    Removed {
        /// Its name.
        home: String,
        /// When, in seconds since 1970.
        at: i64,
    },
    /// It was removed too long ago: its contents are being deleted.
    #[error("home {home} is being deleted for good; its name is free again when that is done")]
    Purging {
        /// Its name.
        home: String,
    },
    /// A process that lives serves it.
    #[error(
        "home {home} is served by {owner}: use it there, end the daemon there, or take it over \
         with --take-over if that node is certainly dead"
    )]
    OwnedElsewhere {
        /// Its name.
        home: String,
        /// Who serves it.
        owner: Box<Owner>,
    },
    /// No home can be called so.
    #[error("a home cannot be called {name:?}: {why}")]
    Invalid {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The store is full, or all volume numbers are used.
    #[error("home {home} cannot be written: {why}")]
    Full {
        /// Its name.
        home: String,
        /// What is used up, and the remedy.
        why: &'static str,
    },
    /// The store did not answer, or not in time.
    #[error("home {home} cannot be reached because the store does not answer; try again later")]
    Unavailable {
        /// Its name.
        home: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer release wrote it.
    #[error(
        "home {home} has format {found}, and this release knows formats up to {known}: \
         use the newer release that wrote it"
    )]
    Newer {
        /// Its name.
        home: String,
        /// The version of its format.
        found: u64,
        /// The newest that this release knows.
        known: u64,
    },
    /// What the store holds of it is damaged.
    #[error("home {home} is damaged: {why}; `yadokari fsck {home}` says more")]
    Corrupt {
        /// Its name.
        home: String,
        /// What is damaged.
        why: String,
    },
    /// It could not be opened or closed.
    #[error("home {home}: {source}")]
    Home {
        /// Its name.
        home: String,
        /// What it says.
        #[source]
        source: Error,
    },
}

/// What such a function gives.
pub type Result<T, E = HomesError> = std::result::Result<T, E>;

impl HomesError {
    pub(super) fn not_found(home: impl ToString) -> Self {
        Self::NotFound { home: home.to_string() }
    }

    pub(super) fn unavailable(
        home: impl ToString,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { home: home.to_string(), source: source.into() }
    }

    pub(super) fn head(home: impl ToString, error: HeadError) -> Self {
        let home = home.to_string();
        match error {
            HeadError::NotFound(_) => Self::NotFound { home },
            HeadError::Exists(_) => Self::Exists { home },
            HeadError::Corrupt { .. } => Self::Corrupt { home, why: error.to_string() },
            HeadError::NoSpace(_) => {
                Self::Full { home, why: "the store is full; free space or add some" }
            }
            HeadError::Conflict(_) | HeadError::Store { .. } => {
                Self::Unavailable { home, source: Box::new(error) }
            }
        }
    }

    pub(super) fn opening(home: impl ToString, source: Error) -> Self {
        Self::Home { home: home.to_string(), source }
    }
}

impl From<ClaimError> for HomesError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Owned { home, owner } => Self::OwnedElsewhere { home, owner },
            ClaimError::Unavailable { home, source } => Self::Unavailable { home, source },
            ClaimError::Corrupt { home, why } => Self::Corrupt { home, why },
        }
    }
}

/// For those who only know errors of a home: the kernel side.
impl From<HomesError> for Error {
    fn from(error: HomesError) -> Self {
        match error {
            HomesError::NotFound { .. } => ErrorKind::NotFound.into(),
            HomesError::Exists { .. } | HomesError::Filling { .. } => ErrorKind::Exists.into(),
            HomesError::Removed { .. } | HomesError::Purging { .. } => {
                ErrorKind::NotPermitted.into()
            }
            HomesError::OwnedElsewhere { .. } => {
                Self(ErrorKind::OwnedElsewhere(error.to_string().into()))
            }
            HomesError::Invalid { .. } => ErrorKind::Invalid.into(),
            HomesError::Full { .. } => ErrorKind::NoSpace.into(),
            HomesError::Unavailable { source, home } => {
                Self::unavailable(format_args!("home {home}: {source}"))
            }
            HomesError::Newer { .. } => Self(ErrorKind::Newer(error.to_string().into())),
            HomesError::Corrupt { .. } => Self::corrupt(error),
            HomesError::Home { source, .. } => source,
        }
    }
}
