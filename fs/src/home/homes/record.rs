//! The head of a home: what is known of it without opening it. JSON in a head at
//! `homes/NAME/head`; pure.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::error::HomesError;
use super::info::{HomeInfo, HomeState, RootAttrs};
use crate::home::{Quota, Usage};

/// Version of the format.
const VERSION: u8 = 1;
/// Removed homes can be brought back for so long: a week with its weekend.
pub const RESTORABLE_SECONDS: i64 = 7 * 24 * 3600;

/// What every version of a head has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// How a home stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It can be opened.
    Live,
    /// Somebody fills it for the first time; nobody else sees it before it is whole.
    Filling,
    /// It can be brought back.
    Removed {
        /// Seconds since 1970.
        at: i64,
    },
    /// Parts of it may be gone; only more deleting follows.
    Purging,
}

/// The head of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u8,
    pub name: String,
    /// In front of its inode numbers; no other home ever has it.
    pub volume: u32,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub root: RootAttrs,
    pub used_bytes: u64,
    pub used_inodes: u64,
    pub quota_bytes: Option<u64>,
    pub quota_inodes: Option<u64>,
    pub created: i64,
    pub state: State,
    #[serde(default)]
    pub snapshots: u64,
    #[serde(default)]
    pub snapshot_bytes: u64,
    /// No schedule makes snapshots of it.
    #[serde(default)]
    pub unscheduled: bool,
}

impl Record {
    pub fn new(name: &str, volume: u32, root: RootAttrs, quota: Quota, created: i64) -> Self {
        let mut record = Self {
            version: VERSION,
            name: name.to_owned(),
            volume,
            owner_uid: root.uid,
            owner_gid: root.gid,
            root,
            used_bytes: 0,
            used_inodes: 1,
            quota_bytes: None,
            quota_inodes: None,
            created,
            state: State::Live,
            snapshots: 0,
            snapshot_bytes: 0,
            unscheduled: false,
        };
        record.set_quota(quota);
        record
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record of plain values is JSON")
    }

    /// Reads what was found under `name`.
    pub fn decode(name: &str, data: &[u8]) -> Result<Self, HomesError> {
        let corrupt = |why: String| HomesError::Corrupt { home: name.to_owned(), why };
        let unreadable = |error| corrupt(format!("its head cannot be read: {error}"));
        // First of all, as what else a newer one holds is not known.
        let Versioned { version } = serde_json::from_slice(data).map_err(unreadable)?;
        if version > u64::from(VERSION) {
            let (home, known) = (name.to_owned(), u64::from(VERSION));
            return Err(HomesError::Newer { home, found: version, known });
        }
        let record: Self = serde_json::from_slice(data).map_err(unreadable)?;
        if record.version != VERSION {
            return Err(corrupt(format!("its head has version {version}, which never was")));
        }
        if record.name != name {
            return Err(corrupt(format!("its head is that of {}", record.name)));
        }
        Ok(record)
    }

    pub fn quota(&self) -> Quota {
        Quota {
            bytes: self.quota_bytes.unwrap_or(u64::MAX),
            inodes: self.quota_inodes.unwrap_or(u64::MAX),
        }
    }

    pub fn set_quota(&mut self, quota: Quota) {
        let limited = |limit: u64| (limit != u64::MAX).then_some(limit);
        self.quota_bytes = limited(quota.bytes);
        self.quota_inodes = limited(quota.inodes);
    }

    pub fn set_used(&mut self, usage: Usage) {
        self.used_bytes = usage.bytes;
        self.used_inodes = usage.inodes;
    }

    /// Fails unless the home can be used.
    pub fn require_live(&self) -> Result<(), HomesError> {
        let home = self.name.clone();
        match self.state {
            State::Live => Ok(()),
            State::Filling => Err(HomesError::Filling { home }),
            State::Removed { at } => Err(HomesError::Removed { home, at }),
            State::Purging => Err(HomesError::Purging { home }),
        }
    }

    /// Fails unless it is the home that was made with `volume`, to be filled.
    pub fn require_filling(&self, volume: u32) -> Result<(), HomesError> {
        if self.state == State::Filling && self.volume == volume {
            return Ok(());
        }
        self.require_live()?;
        Err(HomesError::Exists { home: self.name.clone() })
    }

    /// Whether its contents are to be deleted, where nobody owns it. A clock that went back makes
    /// nothing expire.
    pub fn is_expired(&self, now: i64) -> bool {
        match self.state {
            State::Live => false,
            State::Removed { at } => now.saturating_sub(at) >= RESTORABLE_SECONDS,
            // Whoever filled it is gone.
            State::Filling | State::Purging => true,
        }
    }

    pub fn info(&self) -> HomeInfo {
        let (state, removed_at) = match self.state {
            State::Live => (HomeState::Live, None),
            State::Filling => (HomeState::Filling, None),
            State::Removed { at } => (HomeState::Removed, Some(at)),
            State::Purging => (HomeState::Purging, None),
        };
        HomeInfo {
            name: self.name.clone(),
            volume: self.volume,
            owner_uid: self.owner_uid,
            owner_gid: self.owner_gid,
            root: self.root,
            used_bytes: self.used_bytes,
            used_inodes: self.used_inodes,
            quota_bytes: self.quota_bytes,
            quota_inodes: self.quota_inodes,
            created: self.created,
            state,
            snapshots: self.snapshots,
            snapshot_bytes: self.snapshot_bytes,
            scheduled: !self.unscheduled,
            removed_at,
            restorable_until: removed_at.map(|at| at.saturating_add(RESTORABLE_SECONDS)),
        }
    }
}

/// Under which all homes are.
pub(super) fn homes_prefix() -> Path {
    Path::from("homes")
}

/// Under which everything of a home is, in both stores.
pub(super) fn home_prefix(name: &str) -> Path {
    homes_prefix().join(name)
}

/// Where the head of a home is.
pub(super) fn head_path(name: &str) -> Path {
    home_prefix(name).join("head")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Time;

    fn record() -> Record {
        let root = RootAttrs::new(1000, 100, 0o700, Time { sec: 5, nsec: 6 });
        Record::new("ada", 7, root, Quota { bytes: 1 << 30, inodes: u64::MAX }, 5)
    }

    #[test]
    fn a_head_reads_back_in_every_state() {
        for state in [State::Live, State::Filling, State::Removed { at: -3 }, State::Purging] {
            let record = Record { state, ..record() };
            assert_eq!(Record::decode("ada", &record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn a_head_of_a_newer_release_is_refused_with_both_versions() {
        let newer = br#"{"version":300,"name":{"of":"another shape"}}"#;
        let error = Record::decode("ada", newer).unwrap_err();
        assert!(matches!(error, HomesError::Newer { found: 300, known: 1, .. }));
        let text = error.to_string();
        assert!(text.contains("300") && text.contains("up to 1") && text.contains("ada"), "{text}");
    }

    #[test]
    fn heads_of_other_versions_and_names_are_refused() {
        let other = Record { version: 0, ..record() };
        assert!(Record::decode("ada", &other.encode()).is_err());
        assert!(Record::decode("bob", &record().encode()).is_err());
        assert!(Record::decode("ada", b"{}").is_err());
    }

    #[test]
    fn a_removed_home_expires_after_a_week_and_never_by_a_clock_that_went_back() {
        let removed = Record { state: State::Removed { at: 1000 }, ..record() };
        let table = [(0, false), (1000, false), (1000 + RESTORABLE_SECONDS - 1, false)];
        for (now, expired) in table.into_iter().chain([(1000 + RESTORABLE_SECONDS, true)]) {
            assert_eq!(removed.is_expired(now), expired, "at {now}");
        }
        assert!(!record().is_expired(i64::MAX));
    }

    #[test]
    fn limits_that_are_none_are_null() {
        let text = serde_json::to_value(record().info()).unwrap();
        assert_eq!(text["quota_bytes"], 1_u64 << 30);
        assert!(text["quota_inodes"].is_null());
        assert_eq!(text["state"], "live");
        assert_eq!(record().quota().inodes, u64::MAX);
    }
}
