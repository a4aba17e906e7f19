//! Opening homes as their owner, and closing them again, in order: claim, then open; close, then
//! note what was last seen, then release.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::record::{Record, home_prefix};
use super::{Homes, HomesError, Result, RootAttrs, Slot};
use crate::home::owner::{self, Claim};
use crate::home::{Error, ErrorKind, Home, Ino, OpenHome, Tenure, Usage};

/// A home's head is looked at every so many times the ttl of a lease, for limits that were
/// changed through another node.
const HEAD_LOOK_TTLS: u32 = 2;

/// An open home that this process owns. It stays open until [`Homes::close`].
pub struct OwnedHome {
    home: Home,
    claim: Arc<Claim>,
    guard: JoinHandle<()>,
}

impl OwnedHome {
    /// The home.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The claim that it is open under.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Drop for OwnedHome {
    fn drop(&mut self) {
        self.guard.abort();
    }
}

impl Homes {
    /// Opens a home as its owner. One that is open here already is given again.
    ///
    /// With `take_over` an owner that may live is not waited for; without, an answer may take as
    /// long as a lease when an owner died on another node.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `OwnedElsewhere`, `Invalid`, `Home`, `Unavailable`, `Corrupt`.
    pub async fn open(self: &Arc<Self>, name: &str, take_over: bool) -> Result<Arc<OwnedHome>> {
        self.open_if(name, take_over, Record::require_live).await
    }

    /// Opens a home that was just made with `volume`, to be filled.
    ///
    /// # Errors
    /// As for [`Homes::open`]; `Exists` where it is another one by now.
    pub async fn open_to_fill(self: &Arc<Self>, name: &str, volume: u32) -> Result<Arc<OwnedHome>> {
        self.open_if(name, false, |record| record.require_filling(volume)).await
    }

    async fn open_if(
        self: &Arc<Self>,
        name: &str,
        take_over: bool,
        can: impl Fn(&Record) -> Result<()>,
    ) -> Result<Arc<OwnedHome>> {
        // Nothing is claimed, and nothing remembered, for a home that does not exist.
        can(&self.read(name).await?.0)?;
        let slot = self.slot(name);
        let mut slot = slot.lock().await;
        if let Some(open) = &*slot
            && is_usable(&open.home).await
        {
            return Ok(Arc::clone(open));
        }
        *slot = None;
        let claim = Arc::new(owner::claim(self.heartbeat(name).await?, name, take_over).await?);
        match self.open_claimed(name, &claim, can).await {
            Ok(home) => {
                let pause = self.options.heartbeat.timing.ttl * HEAD_LOOK_TTLS;
                let guard = guard(Arc::downgrade(self), home.clone(), Arc::clone(&claim), pause);
                let guard = tokio::spawn(guard);
                let open = Arc::new(OwnedHome { home, claim, guard });
                *slot = Some(Arc::clone(&open));
                Ok(open)
            }
            Err(error) => {
                release(&claim).await;
                Err(error)
            }
        }
    }

    async fn open_claimed(
        &self,
        name: &str,
        claim: &Arc<Claim>,
        can: impl Fn(&Record) -> Result<()>,
    ) -> Result<Home> {
        // Only now that nobody else can remove it.
        let (record, _) = self.read(name).await?;
        can(&record)?;
        let opened = Home::open(self.open_home(&record, Arc::clone(claim) as Arc<dyn Tenure>));
        opened.await.map_err(|source| HomesError::opening(name, source))
    }

    fn open_home(&self, record: &Record, tenure: Arc<dyn Tenure>) -> OpenHome {
        OpenHome {
            name: record.name.clone(),
            data: Arc::clone(&self.data),
            meta: Arc::clone(&self.meta),
            prefix: home_prefix(&record.name),
            quota: record.quota(),
            root_uid: record.root.uid,
            root_gid: record.root.gid,
            root_perm: record.root.perm,
            shared: Arc::clone(&self.shared),
            tenure,
            seed: self.options.seed,
        }
    }

    /// A home that is open here, or was until just now. Never waits.
    #[must_use]
    pub fn opened(&self, name: &str) -> Option<Arc<OwnedHome>> {
        let slot = self.slots.lock().get(name).map(Arc::clone)?;
        let open = slot.try_lock().ok()?;
        open.clone()
    }

    /// Closes a home for all its users, notes in its head what it looked like, and releases it.
    /// One that is not open is left alone; one that was lost is forgotten.
    ///
    /// # Errors
    /// What could not be made durable (`Home`); the home then stays open and owned.
    pub async fn close(&self, name: &str) -> Result<()> {
        let slot: Option<Slot> = self.slots.lock().get(name).map(Arc::clone);
        match slot {
            Some(slot) => self.close_slot(&mut *slot.lock().await).await,
            None => Ok(()),
        }
    }

    pub(super) async fn close_slot(&self, slot: &mut Option<Arc<OwnedHome>>) -> Result<()> {
        let Some(open) = slot.clone() else { return Ok(()) };
        let home = &open.home;
        let seen = look(home).await;
        match home.close().await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Fenced) => {
                *slot = None;
                return Err(HomesError::opening(home.name(), error));
            }
            Err(error) => return Err(HomesError::opening(home.name(), error)),
        }
        if let Ok((root, used)) = seen
            && let Err(error) = self.note(home.name(), Some(root), Some(used)).await
        {
            tracing::warn!(home = home.name(), %error, "its head is outdated");
        }
        if let Err(error) = self.note_snapshots(home.name(), home.snapshot_use()).await {
            tracing::warn!(home = home.name(), %error, "its head is outdated");
        }
        release(&open.claim).await;
        *slot = None;
        Ok(())
    }

    /// Closes all homes and stops the heartbeat: the end of this process for others. Nothing can
    /// be opened afterwards.
    ///
    /// # Errors
    /// The first of those that could not be closed.
    pub async fn shutdown(&self) -> Result<()> {
        let names: Vec<String> = self.slots.lock().keys().cloned().collect();
        let closed = futures::future::join_all(names.iter().map(|name| self.close(name))).await;
        if let Some(heartbeat) = self.heartbeat.get() {
            heartbeat.stop().await;
        }
        closed.into_iter().collect()
    }
}

/// Whether a home that is open can be given to one more user: not when somebody closed it
/// without telling, and not when it was lost.
async fn is_usable(home: &Home) -> bool {
    match home.getattr(Ino::ROOT).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::Closed | ErrorKind::Fenced),
    }
}

/// What a listing shows of an open home.
async fn look(home: &Home) -> Result<(RootAttrs, Usage), Error> {
    let root = home.getattr(Ino::ROOT).await?;
    let xattrs = !home.listxattr(Ino::ROOT).await?.is_empty();
    Ok((RootAttrs::from_attr(&root, xattrs), home.usage()))
}

/// Releases a claim whose work is done. What fails here harms nobody: this process may claim the
/// home again, and others may when it ends.
pub(super) async fn release(claim: &Claim) {
    if let Err(error) = claim.release().await {
        tracing::warn!(home = claim.home(), %error, "the owner record was not released");
    }
}

/// Brings the head what was set of the root directory: whoever may look into a home must not
/// depend on whether its daemon could close it.
async fn note_root(homes: &Homes, home: &Home) {
    // What the head shows is never ahead of what the home keeps.
    let noted = async {
        home.fsync(Ino::ROOT).await?;
        let (root, used) = look(home).await?;
        homes.note(home.name(), Some(root), Some(used)).await.map_err(Error::from)
    };
    if let Err(error) = noted.await {
        tracing::warn!(home = home.name(), %error, "its head is outdated until it is closed");
    }
}

/// Stands by an open home: fences it when it is lost, brings it new limits, and its head what
/// was set of its root directory.
async fn guard(homes: Weak<Homes>, home: Home, claim: Arc<Claim>, pause: Duration) {
    // A store that does not answer must not hold up the fencing.
    tokio::select! {
        () = claim.ended() => {}
        () = keep_head(&homes, &home, pause) => {}
    }
    if claim.is_lost() {
        home.fence();
    }
}

/// Keeps an open home and its head in step, until the homes are gone.
async fn keep_head(homes: &Weak<Homes>, home: &Home, pause: Duration) {
    let mut looks = tokio::time::interval(pause);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks.reset();
    loop {
        let set = tokio::select! {
            () = home.root_set() => true,
            _ = looks.tick() => false,
        };
        let Some(homes) = homes.upgrade() else { return };
        if set {
            note_root(&homes, home).await;
            continue;
        }
        let limits = home.usage();
        if let Ok((record, _)) = homes.read(home.name()).await {
            let quota = record.quota();
            if (quota.bytes, quota.inodes) != (limits.bytes_limit, limits.inodes_limit) {
                home.set_quota(quota);
            }
        }
    }
}
