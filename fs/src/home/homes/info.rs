//! What is told of homes: plain values whose field names are an interface. Sizes are in bytes,
//! times in seconds since 1970, limits that do not exist are null.

use serde::{Deserialize, Serialize};

use crate::home::owner::Owner;
use crate::home::{Attr, Ino, Kind, Quota, Time, Usage};

/// Size that a directory shows.
const DIR_BYTES: u64 = 4096;

/// A home, as its head has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeInfo {
    /// Its name.
    pub name: String,
    /// In front of its inode numbers, below 2^24 and never 0; no other home ever has it.
    pub volume: u32,
    /// The user whom it was made for.
    pub owner_uid: u32,
    /// The group that it was made for.
    pub owner_gid: u32,
    /// Its root directory when it was last closed.
    pub root: RootAttrs,
    /// Charged bytes when it was last closed.
    pub used_bytes: u64,
    /// Inodes when it was last closed.
    pub used_inodes: u64,
    /// Limit of bytes.
    pub quota_bytes: Option<u64>,
    /// Limit of inodes.
    pub quota_inodes: Option<u64>,
    /// Snapshots when it was last closed.
    pub snapshots: u64,
    /// Bytes that only snapshots held when it was last closed.
    pub snapshot_bytes: u64,
    /// Whether the schedule makes snapshots of it.
    pub scheduled: bool,
    /// When it was made.
    pub created: i64,
    /// How it stands.
    pub state: HomeState,
    /// When it was removed.
    pub removed_at: Option<i64>,
    /// Until when it can be brought back.
    pub restorable_until: Option<i64>,
}

impl HomeInfo {
    /// Whether it can be opened.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state == HomeState::Live
    }

    /// Its limits.
    #[must_use]
    pub fn quota(&self) -> Quota {
        Quota {
            bytes: self.quota_bytes.unwrap_or(u64::MAX),
            inodes: self.quota_inodes.unwrap_or(u64::MAX),
        }
    }

    /// Use and limits as `statfs` has them.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.used_bytes,
            bytes_limit: self.quota().bytes,
            inodes: self.used_inodes,
            inodes_limit: self.quota().inodes,
        }
    }
}

/// How a home stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HomeState {
    /// It can be opened.
    Live,
    /// It is being filled by an import or a clone, and not seen before it is whole.
    Filling,
    /// It was removed and can be brought back.
    Removed,
    /// It is being deleted.
    Purging,
}

/// A home with who serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HomeDetails {
    /// The home.
    #[serde(flatten)]
    pub info: HomeInfo,
    /// Whom its owner record names: whether that process still lives is not said here.
    pub served_by: Option<Owner>,
}

/// All homes.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those whose head could be read, by name.
    pub homes: Vec<HomeInfo>,
    /// Why the others could not.
    pub damaged: Vec<super::HomesError>,
}

/// A home that is to be made.
#[derive(Clone, Debug)]
pub struct NewHome {
    /// Its name.
    pub name: String,
    /// Owner of its root directory.
    pub owner_uid: u32,
    /// Group of its root directory.
    pub owner_gid: u32,
    /// Permission bits of its root directory.
    pub perm: u16,
    /// Its limits.
    pub quota: Quota,
}

/// What the head of a home keeps of its root directory, for listings that open no home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttrs {
    /// Permission bits.
    pub perm: u16,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether it has extended attributes, ACLs among them.
    pub xattrs: bool,
    /// Last access.
    #[serde(with = "time_pair")]
    pub atime: Time,
    /// Last change of the contents.
    #[serde(with = "time_pair")]
    pub mtime: Time,
    /// Last change of the inode.
    #[serde(with = "time_pair")]
    pub ctime: Time,
    /// Birth.
    #[serde(with = "time_pair")]
    pub btime: Time,
}

impl RootAttrs {
    /// Of a directory that was just made.
    #[must_use]
    pub fn new(uid: u32, gid: u32, perm: u16, now: Time) -> Self {
        Self {
            perm,
            nlink: 2,
            uid,
            gid,
            xattrs: false,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        }
    }

    /// Of the root directory of an open home.
    #[must_use]
    pub fn from_attr(attr: &Attr, xattrs: bool) -> Self {
        Self {
            perm: attr.perm,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            xattrs,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.btime,
        }
    }

    /// As `stat` shows it.
    #[must_use]
    pub fn attr(&self) -> Attr {
        Attr {
            ino: Ino::ROOT,
            kind: Kind::Dir,
            perm: self.perm,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            size: DIR_BYTES,
            charged: 0,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }
}

/// A time as `[seconds, nanoseconds]`.
mod time_pair {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::home::Time;

    pub fn serialize<S: Serializer>(time: &Time, to: S) -> Result<S::Ok, S::Error> {
        (time.sec, time.nsec).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        let (sec, nsec) = Deserialize::deserialize(from)?;
        Ok(Time { sec, nsec })
    }
}
