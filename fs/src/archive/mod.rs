//! A home as a stream: a tar archive in the pax format, which `tar` and `bsdtar` read too.
//!
//! In it: everything that a home keeps of its files. Names of any bytes, owners by number, times
//! to the nanosecond, extended attributes (`SCHILY.xattr.`), ACLs as text (`SCHILY.acl.`), hard
//! links, device nodes, sparse files (`GNU.sparse`, 1.0). Left out: sockets, which mean nothing
//! without their process; times of birth and of the last change of an inode; space that is
//! reserved and not written, which comes back as a hole. Holes come back in whole blocks of 512
//! bytes.
//!
//! Reading and writing block: call from a thread that may.

mod acl_text;
mod export;
mod import;
mod pax;

pub use export::export;
pub use import::import;

use crate::home;

/// How far a transfer is, and what it was in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moved {
    /// Files, directories and the rest.
    pub entries: u64,
    /// Bytes of contents, without holes.
    pub bytes: u64,
    /// Sockets that were left out.
    pub skipped: u64,
}

/// Why a transfer ended.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream cannot be read or written.
    #[error("the archive: {0}")]
    Io(#[from] std::io::Error),
    /// The home.
    #[error("{0}: {1}")]
    Home(String, #[source] home::Error),
    /// The stream is no archive that a home can take.
    #[error("the archive: {0}: {1}")]
    Invalid(String, &'static str),
}

/// What a transfer gives.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;

/// A path for messages.
fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}
