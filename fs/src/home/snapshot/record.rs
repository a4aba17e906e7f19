//! The record of a snapshot, and that of what all snapshots hold. `FORMAT.md` draws both.

use bytes::Bytes;
use uuid::Uuid;

use crate::home::error::{Error, Result};
use crate::home::record::{Reader, Writer};
use crate::home::types::Time;

/// Longest name of a snapshot in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its transaction is committed; the tables may not keep it yet. Not shown.
    Making,
    /// It is whole.
    Made,
    /// It is going: not shown, and never again.
    Going,
}

/// Who made a snapshot, and so what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// An export that reads it; it does not outlive the daemon.
    Export,
    /// A command; it stays until a command removes it.
    Command,
    /// The schedule, each hour.
    Hourly,
    /// The schedule, each day.
    Daily,
    /// The schedule, each week.
    Weekly,
}

impl Origin {
    /// As commands show it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Command => "command",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
        }
    }
}

/// What the home knows of a snapshot. Its key is the transaction that it shows the home after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// How far it is.
    pub phase: Phase,
    /// Who made it.
    pub origin: Origin,
    /// When.
    pub created: Time,
    /// In front of the inode numbers that a mount shows; 0 until somebody looks.
    pub volume: u32,
    /// Charged bytes that it shows.
    pub bytes: u64,
    /// Inodes that it shows.
    pub inodes: u64,
    /// The number under which the tables keep it.
    pub kept: Uuid,
    /// Its name.
    pub name: String,
    /// The record of its root directory: a listing opens no snapshot.
    pub root: Bytes,
}

impl SnapshotRecord {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(64 + self.name.len() + self.root.len());
        w.u8(match self.phase {
            Phase::Making => 1,
            Phase::Made => 2,
            Phase::Going => 3,
        });
        w.u8(match self.origin {
            Origin::Command => 1,
            Origin::Hourly => 2,
            Origin::Daily => 3,
            Origin::Weekly => 4,
            Origin::Export => 5,
        });
        w.time(self.created);
        w.u32(self.volume);
        w.u64(self.bytes);
        w.u64(self.inodes);
        w.0.extend_from_slice(self.kept.as_bytes());
        w.u8(u8::try_from(self.name.len()).expect("names are short"));
        w.0.extend_from_slice(self.name.as_bytes());
        w.u16(u16::try_from(self.root.len()).expect("a directory's record is short"));
        w.0.extend_from_slice(&self.root);
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes, "snapshot record")?;
        let phase = match r.u8()? {
            1 => Phase::Making,
            2 => Phase::Made,
            3 => Phase::Going,
            other => return Err(r.bad(format_args!("phase {other}"))),
        };
        let origin = match r.u8()? {
            1 => Origin::Command,
            2 => Origin::Hourly,
            3 => Origin::Daily,
            4 => Origin::Weekly,
            5 => Origin::Export,
            other => return Err(r.bad(format_args!("origin {other}"))),
        };
        let created = r.time()?;
        let (volume, bytes, inodes) = (r.u32()?, r.u64()?, r.u64()?);
        let kept = Uuid::from_bytes(r.array()?);
        let name_len = r.u8()?;
        let name = String::from_utf8(r.bytes(usize::from(name_len))?.to_vec());
        let name = name.map_err(|_| r.bad("a name that is no text"))?;
        let root_len = r.u16()?;
        let root = Bytes::copy_from_slice(r.bytes(usize::from(root_len))?);
        Ok(Self { phase, origin, created, volume, bytes, inodes, kept, name, root })
    }

    /// The name under which the tables keep the snapshot of transaction `txn`: a transaction
    /// that was committed never has another with its number.
    #[must_use]
    pub fn kept_name(txn: u64) -> String {
        format!("yadokari-{txn}")
    }
}

/// What only snapshots refer to, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldTotal {
    /// Bytes as stored.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
}

impl HeldTotal {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::new(17);
        w.u64(self.bytes);
        w.u64(self.chunks);
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes, "record of what snapshots hold")?;
        Ok(Self { bytes: r.u64()?, chunks: r.u64()? })
    }
}

/// A chunk that only snapshots refer to, as listed under its death.
#[must_use]
pub fn encode_held() -> Vec<u8> {
    Writer::new(1).0
}

/// Checks the name of a new snapshot: one path component that a shell takes without quotes.
///
/// # Errors
/// `Invalid`, `NameTooLong`.
pub fn check_name(name: &str) -> Result<()> {
    use crate::home::error::ErrorKind;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b':');
    if name.len() > NAME_BYTES_MAX {
        return Err(ErrorKind::NameTooLong.into());
    }
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    match first && name.bytes().all(inner) {
        true => Ok(()),
        false => Err(Error(ErrorKind::Invalid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_record_reads_back_and_takes_fields_of_later_releases() {
        let record = SnapshotRecord {
            phase: Phase::Made,
            origin: Origin::Daily,
            created: Time { sec: 5, nsec: 6 },
            volume: 7,
            bytes: 8,
            inodes: 9,
            kept: Uuid::from_u128(10),
            name: "daily-1".into(),
            root: Bytes::from_static(b"root"),
        };
        let mut bytes = record.encode();
        bytes.push(99);
        assert_eq!(SnapshotRecord::decode(&bytes).unwrap(), record);
        bytes[0] = 2;
        assert!(SnapshotRecord::decode(&bytes).is_err());
    }

    #[test]
    fn names_of_snapshots_need_no_quotes_and_hide_from_nobody() {
        for name in ["a", "hourly-2026-11-21_0800", "before+upgrade:2", "_x.y"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", ".", "..", ".x", "-rf", "a/b", "a b", "ä", &long] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
