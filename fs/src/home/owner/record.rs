//! The objects of ownership: the record of a home and the heartbeat of a process, both as JSON
//! in a head. A record is never deleted while its home exists: its epoch only grows.

use std::fmt;

use chrono::DateTime;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use yadokari_store::head::{HeadError, HeadVersion, find_head};

use super::error::ClaimError;
use super::identity::NodeIdentity;

/// Version of both formats.
const VERSION: u8 = 1;

/// Who serves a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// When it claimed the home, in seconds since 1970 by its clock: for people only.
    pub since: i64,
}

/// `node n1 (process 7, since 2026-11-21 14:02:03 UTC)`
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, pid) = (&self.identity.node, self.identity.pid);
        let since = DateTime::from_timestamp(self.since, 0).unwrap_or_default();
        write!(f, "node {node} (process {pid}, since {})", since.format("%Y-%m-%d %H:%M:%SZ"))
    }
}

/// The owner record of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnerRecord {
    version: u8,
    /// Counts the claims of this home.
    pub epoch: u64,
    /// `None` after a release.
    pub owner: Option<Owner>,
}

impl OwnerRecord {
    pub fn new(epoch: u64, owner: Option<Owner>) -> Self {
        Self { version: VERSION, epoch, owner }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record of plain values is JSON")
    }

    pub fn decode(data: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        match record.version {
            VERSION => Ok(record),
            other => Err(format!("it has version {other}, which this program does not know")),
        }
    }

    /// Whether this is what `other` claimed, and nobody since.
    pub fn is_same_claim(&self, other: &Self) -> bool {
        let life = |record: &Self| record.owner.as_ref().map(|owner| owner.identity.incarnation);
        self.epoch == other.epoch && life(self) == life(other)
    }
}

/// The heartbeat of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    version: u8,
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// Counts the renewals: what makes each differ from the one before.
    pub count: u64,
}

impl Beat {
    pub fn new(identity: NodeIdentity, count: u64) -> Self {
        Self { version: VERSION, identity, count }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a beat of plain values is JSON")
    }

    pub fn decode(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }
}

/// Where the owner record of a home is.
pub(super) fn owner_path(home: &str) -> Path {
    Path::from_iter(["homes", home, "owner"])
}

/// Under which the heartbeats of a node are.
pub(super) fn node_path(node: &str) -> Path {
    Path::from_iter(["nodes", node])
}

/// Where the heartbeat of a process is.
pub(super) fn beat_path(identity: &NodeIdentity) -> Path {
    node_path(&identity.node).join(identity.incarnation.to_string())
}

/// The owner record of a home with its version.
pub(super) async fn find_record(
    meta: &dyn ObjectStore,
    home: &str,
) -> Result<Option<(OwnerRecord, HeadVersion)>, ClaimError> {
    let path = owner_path(home);
    let head = find_head(meta, &path).await.map_err(|error| failed(home, error))?;
    let Some(head) = head else { return Ok(None) };
    let record = OwnerRecord::decode(&head.data)
        .map_err(|why| ClaimError::Corrupt { home: home.to_owned(), why })?;
    Ok(Some((record, head.version)))
}

/// Who the record of a home names, alive or not.
///
/// # Errors
/// `Unavailable`, `Corrupt`.
pub(in crate::home) async fn find_owner(
    meta: &dyn ObjectStore,
    home: &str,
) -> Result<Option<Owner>, ClaimError> {
    Ok(find_record(meta, home).await?.and_then(|(record, _)| record.owner))
}

pub(super) fn failed(home: &str, error: HeadError) -> ClaimError {
    let home = home.to_owned();
    match error {
        HeadError::Corrupt { .. } => ClaimError::Corrupt { home, why: error.to_string() },
        error => ClaimError::Unavailable { home, source: Box::new(error) },
    }
}
