//! What a mount shows: all homes side by side, or one home alone.
//!
//! Everything between a kernel's request and a home that does not depend on how requests
//! travel: inode numbers of the mount, which home is meant, whether it must be opened, how long
//! an answer may be cached, what the kernel refers to. It names no FUSE structure, so that
//! another transport can take the place of the present one.
//!
//! What always holds: an operation on one home never waits for another home, and what a head
//! can answer opens no home.

mod caller;
mod directory;
mod gate;
mod homes;
mod inside;
mod locks;
mod losses;
mod number;
mod slot;
mod snapshots;
mod stats;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

pub use caller::is_chown;
pub use directory::{Directory, Head, Space};
pub use gate::{CROWDED_WRITE_BYTES, Gate, WaitingBytes, is_crowded};
pub use inside::Pair;
pub use locks::{FileLocks, Interrupted, LockAnswer, LockRequest};
pub use losses::Losses;
pub use number::{HOMES_VOLUME, MOUNT_ROOT, VOLUMES_MAX, join, split};
pub use slot::{Attachment, Invalidate, OpenHome, Slot};
pub use snapshots::Kept;
pub use stats::{Counters, CountersNow, add};
pub use table::Table;

use crate::home::{Attr, Caller, Change, ErrorKind, Ino, Kind, Name, Result, SNAPSHOTS_INO};

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Thread that waits for the answer; 0 where the kernel itself asks.
    pub tid: u32,
}

/// What the kernel may keep to itself; binds a connection for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The homes are used through this mount only: the kernel's own locks, no OPEN, no FLUSH.
    Local,
    /// The homes may be shared with other nodes: locks, OPEN and FLUSH come to the daemon.
    Shared,
}

/// Attributes of an inode of the mount, and how long they may be cached.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Number on the mount.
    pub number: u64,
    /// Attributes; their own number is the home's.
    pub attr: Attr,
    /// How long the attributes may be cached.
    pub attr_ttl: Duration,
    /// How long the name may be cached.
    pub name_ttl: Duration,
}

/// One line of a listing of the mount.
#[derive(Clone, Debug)]
pub struct Line {
    /// Number on the mount.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// The name.
    pub name: Arc<[u8]>,
    /// Cookie that continues behind this line.
    pub next: u64,
    /// Attributes, where they were asked for (never for `.` and `..`).
    pub node: Option<Node>,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that are left.
    pub bytes_free: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes that are left.
    pub inodes_free: u64,
}

/// How long a kernel caches what only this daemon changes: it is told of every change.
const OWNED_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a kernel caches what another node may change without telling: heads.
const HEAD_TTL: Duration = Duration::from_secs(1);

/// What a mount shows.
#[derive(Debug)]
enum Shown {
    /// The directory of homes.
    Homes,
    /// One home; its root is the root of the mount.
    One(Arc<Attachment>),
}

/// A mount's view of the homes. Every mount has its own.
pub struct View {
    table: Arc<Table>,
    form: Form,
    shown: Shown,
    attachments: RwLock<HashMap<u32, Arc<Attachment>>>,
    /// Snapshots that were looked at, by the number in front of their inodes.
    kept: RwLock<HashMap<u32, (Arc<Attachment>, u64)>>,
    invalidate: Arc<dyn Invalidate>,
    /// Bounds of what waits for the directory of homes itself.
    gate: Gate,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("form", &self.form).field("shown", &self.shown).finish()
    }
}

/// Whom a request is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// The directory of homes.
    Homes,
    /// An inode of a home.
    Inside(Arc<Attachment>, Ino),
    /// The list of a home's snapshots.
    Snapshots(Arc<Attachment>),
    /// An inode of a snapshot.
    Kept(Kept),
}

impl Target {
    /// The home that it lies in.
    #[must_use]
    pub fn attachment(&self) -> Option<&Arc<Attachment>> {
        match self {
            Self::Homes => None,
            Self::Inside(at, _) | Self::Snapshots(at) => Some(at),
            Self::Kept(kept) => Some(&kept.at),
        }
    }

    /// The inode of a home, for what changes it.
    ///
    /// # Errors
    /// `NotPermitted` for the directory of homes, `ReadOnly` for snapshots.
    pub fn writable(self) -> Result<(Arc<Attachment>, Ino)> {
        match self {
            Self::Homes => Err(ErrorKind::NotPermitted.into()),
            Self::Inside(at, ino) => Ok((at, ino)),
            Self::Snapshots(_) | Self::Kept(_) => Err(ErrorKind::ReadOnly.into()),
        }
    }
}

impl View {
    /// All homes of `table`.
    #[must_use]
    pub fn of_homes(table: Arc<Table>, form: Form, invalidate: Arc<dyn Invalidate>) -> Self {
        Self {
            table,
            form,
            shown: Shown::Homes,
            attachments: RwLock::default(),
            kept: RwLock::default(),
            invalidate,
            gate: Gate::default(),
        }
    }

    /// One home alone.
    #[must_use]
    pub fn of_one(
        table: Arc<Table>,
        slot: &Arc<Slot>,
        form: Form,
        invalidate: Arc<dyn Invalidate>,
    ) -> Self {
        let attachment = Attachment::new(slot, Arc::clone(&invalidate));
        Self {
            attachments: RwLock::new(HashMap::from([(slot.volume, Arc::clone(&attachment))])),
            shown: Shown::One(attachment),
            ..Self::of_homes(table, form, invalidate)
        }
    }

    /// The form of the mount.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Whom inode `number` of the mount belongs to.
    ///
    /// # Errors
    /// `Stale` for a number that this mount never gave.
    pub fn target(&self, number: u64) -> Result<Target> {
        if number == MOUNT_ROOT {
            return Ok(match &self.shown {
                Shown::Homes => Target::Homes,
                Shown::One(attachment) => Target::Inside(Arc::clone(attachment), Ino::ROOT),
            });
        }
        let (volume, ino) = split(number);
        if let Some(attachment) = self.attachments.read().get(&volume) {
            return Ok(match ino {
                SNAPSHOTS_INO => Target::Snapshots(Arc::clone(attachment)),
                _ => Target::Inside(Arc::clone(attachment), ino),
            });
        }
        if let Some((at, txn)) = self.kept.read().get(&volume) {
            return Ok(Target::Kept(Kept { at: Arc::clone(at), txn: *txn, volume, ino }));
        }
        // A handle from before this daemon started: the number is durable, and the home may
        // have been seen by name already.
        match (&self.shown, self.table.by_volume(volume)) {
            (Shown::Homes, Some(slot)) => Ok(Target::Inside(self.attach(&slot), ino)),
            _ => Err(ErrorKind::Stale.into()),
        }
    }

    /// The same for a request: `Stale` too for an inode that was lost.
    ///
    /// # Errors
    /// `Stale`.
    pub fn living(&self, number: u64) -> Result<Target> {
        let target = self.target(number)?;
        if let Target::Inside(at, ino) = &target {
            at.slot.lost().check_gone(*ino)?;
        }
        Ok(target)
    }

    /// Whether an inode takes no changes: it is in a snapshot.
    #[must_use]
    pub fn is_read_only(&self, number: u64) -> bool {
        matches!(self.target(number), Ok(Target::Snapshots(_) | Target::Kept(_)))
    }

    /// The gate of a target.
    #[must_use]
    pub fn gate<'a>(&'a self, target: &'a Target) -> &'a Gate {
        target.attachment().map_or(&self.gate, |attachment| &attachment.slot.gate)
    }

    /// The number that this mount shows for an inode.
    #[must_use]
    pub fn number(&self, volume: u32, ino: Ino) -> u64 {
        match &self.shown {
            Shown::One(_) if ino == Ino::ROOT => MOUNT_ROOT,
            _ => join(volume, ino),
        }
    }

    /// The mount is gone: gives back what it referred to.
    pub fn detach(&self) {
        self.kept.write().clear();
        for (_, attachment) in self.attachments.write().drain() {
            attachment.detach();
        }
    }

    /// A home is gone: its name and its inodes are not known any more.
    pub fn drop_home(&self, home: &Slot) {
        self.kept.write().retain(|_, (at, _)| at.slot.volume != home.volume);
        if let Some(attachment) = self.attachments.write().remove(&home.volume) {
            attachment.detach();
        }
        if let Ok(name) = Name::new(home.name.as_bytes()) {
            let change = Change::Entry { parent: Ino::ROOT, name };
            self.invalidate.invalidate(HOMES_VOLUME, change);
        }
    }

    /// Numbers of all inodes that the kernel refers to.
    #[must_use]
    pub fn referred_numbers(&self) -> Vec<u64> {
        let all = self.attachments.read();
        let numbers = all.values().flat_map(|at| {
            let volume = at.slot.volume;
            at.referred_inos().into_iter().map(move |ino| self.number(volume, ino))
        });
        numbers.collect()
    }

    /// The homes that this view has looked at.
    #[must_use]
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.attachments.read().values().map(|a| Arc::clone(&a.slot)).collect()
    }

    fn attach(&self, slot: &Arc<Slot>) -> Arc<Attachment> {
        if let Some(attachment) = self.attachments.read().get(&slot.volume) {
            return Arc::clone(attachment);
        }
        let mut all = self.attachments.write();
        let attachment = all
            .entry(slot.volume)
            .or_insert_with(|| Attachment::new(slot, Arc::clone(&self.invalidate)));
        Arc::clone(attachment)
    }

    fn node(&self, attachment: &Attachment, attr: Attr) -> Node {
        Node {
            number: self.number(attachment.slot.volume, attr.ino),
            attr,
            attr_ttl: OWNED_TTL,
            name_ttl: OWNED_TTL,
        }
    }

    fn caller(who: Who, attachment: &Attachment) -> Caller {
        Caller { uid: who.uid, gid: who.gid, client: attachment.client() }
    }
}
