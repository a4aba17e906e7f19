//! A claim: this process is the owner of a home.
//!
//! What always holds: a claim is valid only while the record in the store names it and the lease
//! of this process has not lapsed since that was last made sure. Once lost it stays lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use object_store::ObjectStoreExt;
use tokio::sync::watch;
use yadokari_store::head::{HeadError, HeadVersion, create_head, swap_head};

use super::error::ClaimError;
use super::heartbeat::{Heartbeat, Pulse};
use super::record::{Owner, OwnerRecord, failed, find_record, owner_path};
use crate::home::{Error, ErrorKind, Tenure};

/// Claimers that may get in each other's way before one gives up.
const RACES_MAX: usize = 8;

/// Another process owns the home now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the home is no longer owned by this process")]
pub struct Lost;

/// This process owns a home. Dropping it does not release it: the record still names this
/// process, which may claim it again.
#[derive(Debug)]
pub struct Claim {
    held: Arc<Held>,
}

/// Claims `home` for the process of `heartbeat`, with an epoch one higher than the last.
///
/// Gives the home at once when it has no owner, when its owner is gone for certain, or with
/// `take_over`; otherwise watches the owner's heartbeat: an answer may take as long as the lease.
///
/// # Errors
/// `Owned` when a living process has it, `Unavailable`, `Corrupt`.
pub async fn claim(
    heartbeat: &Heartbeat,
    home: &str,
    take_over: bool,
) -> Result<Claim, ClaimError> {
    let pulse = &heartbeat.inner;
    let path = owner_path(home);
    for _ in 0..RACES_MAX {
        let (lapses, _) = pulse.validity();
        let found = find_record(&*pulse.meta, home).await?;
        let (epoch, owner) = match &found {
            Some((record, _)) => (record.epoch, record.owner.as_ref()),
            None => (0, None),
        };
        if let Some(owner) = owner.filter(|_| !take_over) {
            pulse.await_end(home, owner).await?;
        }
        let owner =
            Owner { identity: pulse.identity.clone(), since: pulse.options.clock.now().sec };
        let record = OwnerRecord::new(epoch + 1, Some(owner));
        let written = match &found {
            // The version from before the watch: whoever changed the record since, won.
            Some((_, version)) => swap_head(&*pulse.meta, &path, version, &record.encode()).await,
            None => create_head(&*pulse.meta, &path, &record.encode()).await,
        };
        match written {
            Ok(version) => {
                let held = Held {
                    home: home.to_owned(),
                    record,
                    pulse: Arc::clone(pulse),
                    version: tokio::sync::Mutex::new(version),
                    confirmed: AtomicU64::new(lapses),
                    end: watch::Sender::new(End::Held),
                };
                let held = Arc::new(held);
                pulse.register(&held);
                return Ok(Claim { held });
            }
            Err(HeadError::Conflict(_) | HeadError::Exists(_) | HeadError::NotFound(_)) => {}
            Err(error) => return Err(failed(home, error)),
        }
    }
    Err(ClaimError::Unavailable {
        home: home.to_owned(),
        source: "others claim and release it all the time".into(),
    })
}

impl Claim {
    /// Of which home.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.held.home
    }

    /// Grows with every claim of this home, by whomever.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.held.record.epoch
    }

    /// Whether this process may acknowledge changes of the home. Never waits.
    #[must_use]
    pub fn still_valid(&self) -> bool {
        self.held.is_valid()
    }

    /// Waits until the claim is valid: at once in normal work, until the store answers again
    /// after a lapse.
    ///
    /// # Errors
    /// [`Lost`] when it never will be.
    pub async fn admit(&self) -> Result<(), Lost> {
        if self.held.is_valid() {
            return Ok(());
        }
        let mut standing = self.held.pulse.standing.subscribe();
        let mut end = self.held.end.subscribe();
        loop {
            if *end.borrow_and_update() != End::Held {
                return Err(Lost);
            }
            if self.held.is_valid() {
                return Ok(());
            }
            tokio::select! {
                changed = standing.changed() => changed.map_err(|_| Lost)?,
                changed = end.changed() => changed.map_err(|_| Lost)?,
            }
        }
    }

    /// Ends when the claim was lost to another process, or released.
    pub async fn ended(&self) {
        let mut end = self.held.end.subscribe();
        // The sender lives in what `self` holds, so this waits for nothing else.
        let _ended = end.wait_for(|end| *end != End::Held).await;
    }

    /// Whether it was lost to another process. Never waits.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        *self.held.end.borrow() == End::Lost
    }

    /// Gives the home up, for anybody to claim at once. The claim is over even where this fails;
    /// the record then names this process until it ends. Losing it before is no error.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn release(&self) -> Result<(), ClaimError> {
        self.held.finish(End::Released);
        let free = OwnerRecord::new(self.epoch(), None);
        self.held.swap(&free).await.map(drop)
    }

    /// Deletes the record, when everything else of the home is gone. Its epochs begin anew.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(in crate::home) async fn delete(&self) -> Result<(), ClaimError> {
        self.held.finish(End::Released);
        let path = owner_path(&self.held.home);
        match self.held.pulse.meta.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ClaimError::Unavailable {
                home: self.held.home.clone(),
                source: Box::new(error),
            }),
        }
    }
}

#[async_trait]
impl Tenure for Claim {
    fn is_valid(&self) -> bool {
        self.still_valid()
    }

    async fn admit(&self) -> Result<(), Error> {
        Claim::admit(self).await.map_err(|Lost| ErrorKind::Fenced.into())
    }

    fn is_lost(&self) -> bool {
        Claim::is_lost(self)
    }
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Held,
    Lost,
    Released,
}

/// What a claim and the heartbeat's task share.
#[derive(Debug)]
pub(super) struct Held {
    home: String,
    record: OwnerRecord,
    pulse: Arc<Pulse>,
    /// Of the record in the store.
    version: tokio::sync::Mutex<HeadVersion>,
    /// The number of lapses at which the record was last known to be ours.
    confirmed: AtomicU64,
    end: watch::Sender<End>,
}

impl Held {
    fn is_valid(&self) -> bool {
        let (lapses, valid) = self.pulse.validity();
        valid && self.confirmed.load(Ordering::Acquire) == lapses && *self.end.borrow() == End::Held
    }

    /// Whether nothing is to be made sure. A claim that ended needs nothing any more.
    pub fn is_confirmed(&self) -> bool {
        *self.end.borrow() != End::Held
            || self.confirmed.load(Ordering::Acquire) == self.pulse.validity().0
    }

    fn finish(&self, how: End) {
        self.end.send_if_modified(|end| {
            let held = *end == End::Held;
            if held {
                *end = how;
            }
            held
        });
    }

    /// Makes sure that the record still names this claim. After a lapse it is swapped rather
    /// than read, so that a takeover that was decided during the lapse does not succeed later.
    pub async fn tend(&self) {
        let (lapses, _) = self.pulse.validity();
        let ours =
            if self.is_confirmed() { self.look().await } else { self.swap(&self.record).await };
        match ours {
            Ok(true) => {
                self.confirmed.fetch_max(lapses, Ordering::AcqRel);
                self.pulse.standing.send_replace(());
            }
            Ok(false) => {
                tracing::error!(home = %self.home, "another process took this home over");
                self.finish(End::Lost);
            }
            Err(error) => {
                tracing::warn!(home = %self.home, %error, "the owner record was not confirmed");
            }
        }
    }

    async fn look(&self) -> Result<bool, ClaimError> {
        let found = find_record(&*self.pulse.meta, &self.home).await?;
        let ended = *self.end.borrow() != End::Held;
        Ok(ended || found.is_some_and(|(record, _)| record.is_same_claim(&self.record)))
    }

    /// Writes `next` over our record; false where it is no longer ours.
    async fn swap(&self, next: &OwnerRecord) -> Result<bool, ClaimError> {
        let mut version = self.version.lock().await;
        if next.owner.is_some() && *self.end.borrow() != End::Held {
            return Ok(true);
        }
        let path = owner_path(&self.home);
        for _ in 0..RACES_MAX {
            let meta = &*self.pulse.meta;
            match swap_head(meta, &path, &version, &next.encode()).await {
                Ok(new) => {
                    *version = new;
                    return Ok(true);
                }
                Err(HeadError::Conflict(_) | HeadError::NotFound(_)) => {}
                Err(error) => return Err(failed(&self.home, error)),
            }
            // Somebody else's change, or an earlier one of ours whose answer was lost.
            match find_record(meta, &self.home).await? {
                Some((record, _)) if record.is_same_claim(next) && next.owner.is_none() => {
                    return Ok(true);
                }
                Some((record, found)) if record.is_same_claim(&self.record) => *version = found,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }
}
