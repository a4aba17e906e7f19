//! The place of one home in a daemon: closed, opening or open, whoever looks at it.
//!
//! What always holds: a home is open at most once per daemon; an operation that finds it closed
//! waits for the opening without holding a thread, and a failed opening fails that home's
//! operations only. An idle home closes by itself and opens again at the next operation. The
//! inodes that a kernel still refers to outlive the closing: their numbers are durable, their
//! counts are kept here and given to the home again, and a home with open files that have no
//! name any more is not closed at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast::error::RecvError;

use super::directory::{Directory, Head};
use super::gate::Gate;
use super::locks::FileLocks;
use super::losses::Losses;
use super::stats::Counters;
use crate::home::{Change, ClientId, Error, ErrorKind, Home, Ino, References, Result};

/// How long a failed opening is answered from memory before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Numbers of attachments, for the owners of locks.
static NEXT_MOUNT: AtomicU32 = AtomicU32::new(0);

/// Receives the changes that others make to what a mount caches.
pub trait Invalidate: Send + Sync + 'static {
    /// Drops what is cached of `change`. Never waits.
    fn invalidate(&self, volume: u32, change: Change);

    /// Drops everything that is cached. Never waits.
    fn invalidate_all(&self) {}
}

/// An open home. Operations hold it while they run, which keeps it open.
pub struct OpenHome {
    /// The home.
    pub home: Home,
}

/// One home in this daemon.
pub struct Slot {
    /// Its volume number.
    pub volume: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Bounds of what waits for it.
    pub gate: Gate,
    /// What was done in it.
    pub counters: Counters,
    /// Locks that mounts of the shared form leave to the daemon.
    pub locks: FileLocks,
    directory: Arc<dyn Directory>,
    head: RwLock<Head>,
    open: RwLock<Option<Arc<OpenHome>>>,
    /// Held while the home opens or closes.
    turning: tokio::sync::Mutex<Option<(Instant, Error)>>,
    attachments: Mutex<Vec<Arc<Attachment>>>,
    used_ms: AtomicU64,
    born: Instant,
    retired: AtomicBool,
    lost: Losses,
    /// The epoch of the home when it was last open here, 0 for never.
    epoch: AtomicU64,
    /// Why the home was lost or could not be opened; nothing while it is open.
    trouble: Mutex<Option<String>>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).field("volume", &self.volume).finish()
    }
}

/// One mount's use of one home: what its kernel refers to.
pub struct Attachment {
    /// The home.
    pub slot: Arc<Slot>,
    /// Tells owners of locks of different mounts apart, also while the home is closed.
    pub mount: ClientId,
    client: AtomicU32,
    references: Mutex<References>,
    invalidate: Arc<dyn Invalidate>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Slot {
    /// A closed home.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>, head: Head) -> Arc<Self> {
        Arc::new(Self {
            volume: head.volume,
            name: Arc::clone(&head.name),
            gate: Gate::default(),
            counters: Counters::default(),
            locks: FileLocks::default(),
            directory,
            head: RwLock::new(head),
            open: RwLock::new(None),
            turning: tokio::sync::Mutex::new(None),
            attachments: Mutex::new(Vec::new()),
            used_ms: AtomicU64::new(0),
            born: Instant::now(),
            retired: AtomicBool::new(false),
            lost: Losses::default(),
            epoch: AtomicU64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// Inodes that this daemon acknowledged and could not keep.
    #[must_use]
    pub fn lost(&self) -> &Losses {
        &self.lost
    }

    /// What is wrong with the home, in one line. Never waits.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let own = self.trouble.lock().clone();
        own.or_else(|| {
            let open = self.opened()?;
            open.home.failed().map(|error| error.to_string()).or_else(|| open.home.trouble())
        })
    }

    /// What is known without opening; older than the home while it is open.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.read().clone()
    }

    /// A newer head.
    pub fn set_head(&self, head: Head) {
        debug_assert_eq!(head.volume, self.volume);
        *self.head.write() = head;
    }

    /// The home if it is open now.
    #[must_use]
    pub fn opened(&self) -> Option<Arc<OpenHome>> {
        self.open.read().clone()
    }

    /// The home, opened where it is not.
    ///
    /// # Errors
    /// What the opening failed with, for a second without trying again.
    pub async fn home(self: &Arc<Self>) -> Result<Arc<OpenHome>> {
        self.used_ms.store(self.now_ms(), Ordering::Relaxed);
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        let slot = Arc::clone(self);
        // In a task of its own: a request that is given up must not cancel an opening that
        // others wait for.
        match tokio::spawn(slot.open_now()).await {
            Ok(opened) => opened,
            Err(panic) => Err(Error::unavailable(panic)),
        }
    }

    async fn open_now(self: Arc<Self>) -> Result<Arc<OpenHome>> {
        let mut failed = self.turning.lock().await;
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        if self.retired.load(Ordering::Acquire) {
            return Err(ErrorKind::Closed.into());
        }
        if let Some((since, error)) = &*failed
            && since.elapsed() < RETRY_AFTER
        {
            return Err(error.clone());
        }
        match self.directory.open(&self.head()).await {
            Ok(home) => {
                *failed = None;
                self.trouble.lock().take();
                let (before, epoch) =
                    (self.epoch.swap(home.epoch(), Ordering::AcqRel), home.epoch());
                let open = Arc::new(OpenHome { home });
                let attachments = self.attachments.lock();
                for attachment in &*attachments {
                    attachment.attach(&open);
                }
                *self.open.write() = Some(Arc::clone(&open));
                if before != 0 && epoch != before + 1 {
                    // Somebody else had it meanwhile.
                    attachments
                        .iter()
                        .for_each(|attachment| attachment.invalidate.invalidate_all());
                }
                let (slot, ended) = (Arc::downgrade(&self), open.home.ended());
                tokio::spawn(async move {
                    ended.await;
                    if let Some(slot) = slot.upgrade() {
                        slot.give_up();
                    }
                });
                tracing::info!(home = %self.name, "home opened");
                Ok(open)
            }
            Err(error) => {
                tracing::error!(home = %self.name, %error, "the home does not open");
                *self.trouble.lock() = Some(error.to_string());
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The open home answers nothing any more (another owner had it, or it gave up): the next
    /// operation opens it again, or is told why not.
    pub fn give_up(self: &Arc<Self>) {
        // An operation may end behind the opening that followed: that home is well.
        let ended = |open: &Arc<OpenHome>| {
            matches!(open.home.failed(), Some(Error(ErrorKind::Fenced | ErrorKind::Closed)))
        };
        let Some(open) = self.opened().filter(ended) else { return };
        let slot = Arc::clone(self);
        tokio::spawn(async move {
            let _turning = slot.turning.lock().await;
            let same = slot.opened().is_some_and(|now| Arc::ptr_eq(&now, &open));
            if same {
                let why = open.home.failed().map(|error| error.to_string()).unwrap_or_default();
                let attachments = slot.attachments.lock().clone();
                let unkept = open.home.unkept();
                let referred = attachments.iter().flat_map(|at| at.referred_inos()).collect();
                slot.lost.note(&unkept, &referred);
                let inodes = unkept.inodes.len();
                slot.epoch.store(open.home.epoch(), Ordering::Release);
                *slot.trouble.lock() = Some(why.clone());
                *slot.open.write() = None;
                attachments.iter().for_each(|attachment| attachment.invalidate.invalidate_all());
                tracing::error!(
                    home = %slot.name, why, inodes,
                    "the home ended; changes of so many inodes are lost; it opens again when it can"
                );
                // It has nothing left to lose; an error was its reason to end.
                drop(open.home.close().await);
            }
        });
    }

    /// From now on the home is not opened any more: the daemon ends, or the home is removed.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Undoes [`Self::retire`].
    pub fn unretire(&self) {
        self.retired.store(false, Ordering::Release);
    }

    /// How long nothing used the home. `None`: it is not open.
    #[must_use]
    pub fn unused_for(&self) -> Option<Duration> {
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        self.opened().map(|_| Duration::from_millis(self.now_ms().saturating_sub(used_ms)))
    }

    /// Closes the home where nothing used it for `idle` and nothing would be lost by it.
    /// Gives whether it is closed.
    ///
    /// # Errors
    /// The store's; the home then stays open, with all it has in memory.
    pub async fn close_idle(&self, idle: Duration) -> Result<bool> {
        let Some(open) = self.opened() else {
            return Ok(true);
        };
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        if Duration::from_millis(self.now_ms().saturating_sub(used_ms)) < idle
            || open.home.has_used_orphans()
        {
            return Ok(false);
        }
        drop(open);
        let _turning = self.turning.lock().await;
        match self.take_unused(used_ms) {
            Some(open) => self.close_taken(open).await.map(|()| true),
            None => Ok(self.opened().is_none()),
        }
    }

    /// Takes the home out of its place where nothing used it since `used_ms`.
    fn take_unused(&self, used_ms: u64) -> Option<Arc<OpenHome>> {
        let mut place = self.open.write();
        let unused = self.used_ms.load(Ordering::Relaxed) == used_ms
            && place.as_ref().is_some_and(|open| Arc::strong_count(open) == 1);
        if unused { place.take() } else { None }
    }

    /// Closes the home, whoever uses it. Operations that come later open it again.
    ///
    /// # Errors
    /// The store's; the home then stays open, with all it has in memory.
    pub async fn close(&self) -> Result<()> {
        let _turning = self.turning.lock().await;
        let open = self.open.write().take();
        match open {
            Some(open) => self.close_taken(open).await,
            None => Ok(()),
        }
    }

    async fn close_taken(&self, open: Arc<OpenHome>) -> Result<()> {
        let root = open.home.getattr(Ino::ROOT).await;
        // What cannot be read is taken to be there: it costs an opening, not a wrong ACL.
        let root_xattrs = open.home.listxattr(Ino::ROOT).await.map_or(true, |l| !l.is_empty());
        let usage = open.home.usage();
        if let Err(error) = open.home.close().await {
            tracing::error!(home = %self.name, %error, "the home does not close; it stays open");
            *self.open.write() = Some(open);
            return Err(error);
        }
        self.epoch.store(open.home.epoch(), Ordering::Release);
        tracing::info!(home = %self.name, "home closed");
        if let Ok(root) = root {
            let before = Head { root_xattrs, ..self.head() };
            match self.directory.closed(&before, root, usage).await {
                Ok(head) => self.set_head(head),
                Err(error) => tracing::warn!(home = %self.name, %error, "its head is outdated"),
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Attachment {
    /// Starts a mount's use of a home.
    #[must_use]
    pub fn new(slot: &Arc<Slot>, invalidate: Arc<dyn Invalidate>) -> Arc<Self> {
        let attachment = Arc::new(Self {
            slot: Arc::clone(slot),
            mount: ClientId(NEXT_MOUNT.fetch_add(1, Ordering::Relaxed)),
            client: AtomicU32::new(0),
            references: Mutex::default(),
            invalidate,
        });
        let mut all = slot.attachments.lock();
        // Under the same lock as the opening's own round, so that it is attached exactly once.
        if let Some(open) = slot.opened() {
            attachment.attach(&open);
        }
        all.push(Arc::clone(&attachment));
        attachment
    }

    /// The home, opened where it is not.
    ///
    /// # Errors
    /// What the opening failed with.
    pub async fn home(&self) -> Result<Arc<OpenHome>> {
        self.slot.home().await
    }

    /// The number of this user of the open home.
    #[must_use]
    pub fn client(&self) -> ClientId {
        ClientId(self.client.load(Ordering::Acquire))
    }

    /// Notes references that the home counted for an answer to the kernel.
    pub fn referred(&self, ino: Ino) {
        self.references.lock().add(ino, 1);
    }

    /// Counts a reference that the kernel takes without asking the home, and never opens it.
    pub fn taken(&self, ino: Ino) {
        self.referred(ino);
        if let Some(open) = self.slot.opened() {
            open.home.remember(self.client(), &[ino]);
        }
    }

    /// Gives references back. Never waits and never opens a home.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut references = self.references.lock();
        if references.give_back(ino, count) {
            self.slot.lost.forget(ino);
        }
        // Still under the lock: an opening that hands the counts over sees either both or none.
        if let Some(open) = self.slot.opened() {
            open.home.forget(self.client(), ino, count);
        }
    }

    /// Inodes that the kernel refers to.
    #[must_use]
    pub fn referred_inos(&self) -> Vec<Ino> {
        self.references.lock().iter().map(|(ino, _)| ino).collect()
    }

    /// Ends the use: the mount is gone, and with it all that it referred to.
    pub fn detach(self: &Arc<Self>) {
        let mut all = self.slot.attachments.lock();
        all.retain(|other| !Arc::ptr_eq(other, self));
        *self.references.lock() = References::default();
        self.slot.locks.release_mount(self.mount);
        if let Some(open) = self.slot.opened() {
            open.home.detach(self.client());
        }
    }

    /// Becomes a user of a home that has just been opened.
    fn attach(self: &Arc<Self>, open: &Arc<OpenHome>) {
        let client = open.home.attach();
        let references = self.references.lock();
        let living = references.iter().filter(|(ino, _)| !self.slot.lost.is_gone(*ino));
        open.home.remember_all(client, living);
        self.client.store(client.0, Ordering::Release);
        drop(references);
        let mut changes = open.home.changes();
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let change = changes.recv().await;
                let Some(this) = this.upgrade() else { return };
                match change {
                    Ok((by, change)) if by != client => this.invalidate(change),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => {
                        for ino in this.referred_inos() {
                            this.invalidate(Change::Inode { ino, data: true });
                        }
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    fn invalidate(&self, change: Change) {
        self.invalidate.invalidate(self.slot.volume, change);
    }
}
