//! Why a home could not be claimed, by what the caller must do.

use super::record::Owner;

/// Why a home could not be claimed. The text names the home and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody who lives has it.
    #[error(
        "home {home} is served by {owner}: use it there, end the daemon there, or take it over \
         with --take-over if that node is certainly dead"
    )]
    Owned {
        /// The home.
        home: String,
        /// Who has it.
        owner: Box<Owner>,
    },
    /// The store did not answer, or not in time.
    #[error("home {home} cannot be claimed because the store does not answer; try again later")]
    Unavailable {
        /// The home.
        home: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The owner record is damaged.
    #[error("the owner record of home {home} is damaged: {why}; `yadokari fsck {home}` says more")]
    Corrupt {
        /// The home.
        home: String,
        /// What is wrong with it.
        why: String,
    },
}
