//! What commands say to a running daemon and what it answers: one JSON object per line.
//!
//! A command sends one [`Request`]; the daemon answers with any number of [`Reply::Progress`]
//! and then exactly one [`Reply::Done`] or [`Reply::Failed`]. Field names are stable: scripts
//! see them as the output of `--json`. Sizes are in bytes, times in seconds since 1970.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::view::CountersNow;

/// Where the socket lies in a data directory.
pub const SOCKET: &str = "run/yadokari.sock";
/// Longest line that is read.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How the daemon fares. Gives [`Status`].
    Status,
    /// Counters of the homes that the caller may see. Gives a list of [`HomeStats`].
    Stats,
    /// All homes that the caller may see. Gives a list of [`HomeInfo`].
    HomeList,
    /// One home. Gives [`HomeInfo`].
    HomeShow {
        /// Its name.
        name: String,
    },
    /// Makes a home. Gives [`HomeInfo`].
    HomeCreate {
        /// Its name.
        name: String,
        /// User and group id of the owner; the user called like the home where it is left out.
        owner: Option<(u32, u32)>,
        /// Limit of bytes.
        bytes: Option<u64>,
        /// Limit of inodes.
        inodes: Option<u64>,
    },
    /// Checks a home, while it is served where it is open. Gives [`Checked`].
    HomeCheck {
        /// Its name.
        name: String,
        /// Read every chunk and compare it with its hash.
        verify_data: bool,
    },
    /// Changes limits; what is left out stays. Gives [`HomeInfo`].
    HomeSetQuota {
        /// Its name.
        name: String,
        /// Limit of bytes; `u64::MAX` for none.
        bytes: Option<u64>,
        /// Limit of inodes; `u64::MAX` for none.
        inodes: Option<u64>,
    },
    /// Removes a home. Gives nothing.
    HomeRemove {
        /// Its name.
        name: String,
    },
    /// Undoes a removal. Gives [`HomeInfo`].
    HomeRestore {
        /// Its name.
        name: String,
    },
    /// Makes a snapshot. Gives [`SnapshotInfo`].
    SnapshotCreate {
        /// The home.
        home: String,
        /// Name of the snapshot; one from the time where it is left out.
        name: Option<String>,
    },
    /// The snapshots of a home, oldest first. Gives a list of [`SnapshotInfo`].
    SnapshotList {
        /// The home.
        home: String,
    },
    /// Removes a snapshot. Gives nothing.
    SnapshotRemove {
        /// The home.
        home: String,
        /// Name of the snapshot.
        name: String,
    },
    /// Switches the schedule of snapshots of a home on or off. Gives [`HomeInfo`].
    SnapshotSchedule {
        /// The home.
        home: String,
        /// Make snapshots.
        on: bool,
    },
    /// Writes a home as an archive to the descriptor that comes along. Gives
    /// [`crate::archive::Moved`].
    HomeExport {
        /// The home.
        home: String,
        /// As this snapshot shows it; as it is now where it is left out.
        snapshot: Option<String>,
    },
    /// Makes a home of the archive that the descriptor that comes along gives. Gives
    /// [`Transferred`].
    HomeImport {
        /// Its name.
        name: String,
        /// User and group id of the owner; the user called like the home where it is left out.
        owner: Option<(u32, u32)>,
        /// Limit of bytes.
        bytes: Option<u64>,
        /// Limit of inodes.
        inodes: Option<u64>,
    },
    /// Makes a home like another. Gives [`Transferred`].
    HomeClone {
        /// The home.
        home: String,
        /// As this snapshot shows it; as it is now where it is left out.
        snapshot: Option<String>,
        /// Name of the new home.
        name: String,
        /// Limit of bytes.
        bytes: Option<u64>,
        /// Limit of inodes.
        inodes: Option<u64>,
    },
    /// Makes everything durable, of one home or of all that the caller may see. Gives nothing.
    Sync {
        /// The home.
        home: Option<String>,
    },
    /// Shows one home at a directory, whose descriptor comes with the request. Gives the path.
    Mount {
        /// The home.
        home: String,
        /// What the caller calls the directory.
        path: PathBuf,
    },
    /// Ends a mount that `Mount` made. Gives nothing.
    Umount {
        /// The directory, absolute and without symbolic links.
        path: PathBuf,
        /// Detach it even if it is in use.
        lazy: bool,
    },
    /// Ends the daemon as SIGTERM does. Gives nothing, before it ends.
    Shutdown,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Work goes on.
    Progress(Progress),
    /// Work is done.
    Done(serde_json::Value),
    /// Work failed or was refused.
    Failed(Failure),
}

/// How far work is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for people.
    pub what: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all, where it is known.
    pub of: Option<u64>,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller can do about it; the command's exit code.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request makes no sense: exit code 2.
    Usage,
    /// There is no such thing: exit code 3.
    NotFound,
    /// Not allowed, or not now: exit code 4.
    Refused,
    /// It did not work: exit code 1.
    Failed,
}

/// What a check found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// The home.
    pub home: String,
    /// True when nothing was found.
    pub clean: bool,
    /// The report, with stable field names and sizes in bytes.
    pub report: serde_json::Value,
    /// The same for people.
    pub text: String,
}

/// How a daemon fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub since: u64,
    /// Its version.
    pub version: String,
    /// Where all homes are shown.
    pub homes_mount: Option<PathBuf>,
    /// Mounts of single homes that the caller may see.
    pub mounts: Vec<MountInfo>,
    /// Homes that are open.
    pub homes_open: u64,
    /// Bytes that the store can hold.
    pub store_bytes: Option<u64>,
    /// Bytes that are free in the store.
    pub store_bytes_free: Option<u64>,
    /// What is wrong with the store at the moment, in one line.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What is wrong with homes that the caller may see.
    #[serde(default)]
    pub homes_in_trouble: Vec<HomeTrouble>,
}

/// What is wrong with a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeTrouble {
    /// The home.
    pub home: String,
    /// What, in one line.
    pub trouble: String,
}

/// A mount of one home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountInfo {
    /// The home.
    pub home: String,
    /// Where it is shown.
    pub path: PathBuf,
    /// For whom.
    pub uid: u32,
}

/// A home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeInfo {
    /// Its name.
    pub name: String,
    /// Its volume number: the upper 24 bits of its inode numbers.
    pub volume: u32,
    /// Owner of its root directory.
    pub uid: u32,
    /// Group of its root directory.
    pub gid: u32,
    /// Charged bytes.
    pub bytes: u64,
    /// Limit of bytes; none where it is left out.
    pub bytes_limit: Option<u64>,
    /// Inodes.
    pub inodes: u64,
    /// Limit of inodes; none where it is left out.
    pub inodes_limit: Option<u64>,
    /// How many snapshots there are.
    #[serde(default)]
    pub snapshots: u64,
    /// Bytes in the store that only snapshots hold; they are not charged.
    #[serde(default)]
    pub snapshot_bytes: u64,
    /// Whether the schedule makes snapshots of it.
    #[serde(default)]
    pub scheduled: bool,
    /// Whether this daemon has it open.
    pub open: bool,
}

/// A home that was made of an archive or of another home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// The new home.
    pub home: HomeInfo,
    /// What was put into it.
    #[serde(flatten)]
    pub moved: crate::archive::Moved,
}

/// A snapshot of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The home.
    pub home: String,
    /// Its name: `.snapshots/NAME` in the home.
    pub name: String,
    /// When it was made.
    pub created: i64,
    /// Who made it: `command`, `hourly`, `daily` or `weekly`.
    pub origin: String,
    /// Charged bytes of the home then.
    pub bytes: u64,
    /// Inodes of the home then.
    pub inodes: u64,
}

impl SnapshotInfo {
    /// What commands show of a snapshot.
    #[must_use]
    pub fn new(home: &str, snapshot: &crate::home::SnapshotInfo) -> Self {
        Self {
            home: home.to_owned(),
            name: snapshot.name.clone(),
            created: snapshot.created.sec,
            origin: snapshot.origin.text().to_owned(),
            bytes: snapshot.bytes,
            inodes: snapshot.inodes,
        }
    }
}

/// Live counters of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeStats {
    /// Its name.
    pub name: String,
    /// Whether this daemon has it open.
    pub open: bool,
    /// Requests that wait for the store now.
    pub waiting: u64,
    /// Inodes in memory.
    pub cached_inodes: u64,
    /// Acknowledged bytes that are not in the store yet.
    pub dirty_bytes: u64,
    /// The store's failure that is not over.
    pub trouble: Option<String>,
    /// Counters since the daemon started.
    #[serde(flatten)]
    pub counters: CountersNow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_that_reads_back() {
        let request = Request::HomeShow { name: "alice\n".into() };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"command":"home-show","name":"alice\n"}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
}
