//! The directory of homes: the root of a mount that shows all of them.
//!
//! Everything here is answered from heads. A name that is looked up gets its home made where
//! the directory says so; a listing makes and opens none. Names here are not made, renamed or
//! removed like other names: a home is made by `mkdir` on behalf of root, and removed by
//! command.

use std::sync::Arc;
use std::time::Duration;

use super::{HEAD_TTL, HOMES_VOLUME, Head, Line, MOUNT_ROOT, Node, OWNED_TTL, Room, View, Who};
use crate::home::{Attr, Change, Ino, Kind, Name, Result, Time, Usage};

/// A size that `statfs` shows where neither quota nor store names one: an exbibyte.
const UNLIMITED_BYTES: u64 = 1 << 60;
/// The same for inodes: all that 40 bits can number.
const UNLIMITED_INODES: u64 = 1 << Ino::BITS;

/// Everybody may enter and list the directory of homes, but for its group, which has nobody in it
/// ([`super::directory::Directory::owner`]). Linux keeps no ACL of a FUSE mount's root: where the
/// group may do anything it asks for the ACL at every path that leads through the root, for all but
/// its owner (`acl_permission_check` in `fs/namei.c`).
const HOMES_MODE: u16 = 0o705;

impl View {
    /// Attributes of the directory of homes.
    #[must_use]
    pub(super) fn homes_node(&self) -> Node {
        let (uid, gid) = self.table.directory().owner();
        let attr = Attr {
            ino: Ino::ROOT,
            kind: Kind::Dir,
            perm: HOMES_MODE,
            nlink: 2,
            uid,
            gid,
            rdev: 0,
            size: 4096,
            charged: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            btime: Time::default(),
        };
        Node { number: MOUNT_ROOT, attr, attr_ttl: OWNED_TTL, name_ttl: OWNED_TTL }
    }

    /// Finds a home by name, on behalf of `who`; counts a reference on its root.
    pub(super) async fn homes_lookup(&self, who: Who, name: &Name) -> Result<Node> {
        let head = self.table.directory().find(name, who.uid).await?;
        self.enter_home(&head).await
    }

    /// Makes a home, as `mkdir` by root does.
    pub(super) async fn homes_make(&self, who: Who, name: &Name) -> Result<Node> {
        let head = self.table.directory().make(name, who.uid).await?;
        self.enter_home(&head).await
    }

    async fn enter_home(&self, head: &Head) -> Result<Node> {
        let is_new = self.table.by_volume(head.volume).is_none();
        let attachment = self.attach(&self.table.slot(head));
        if is_new {
            let change = Change::Inode { ino: Ino::ROOT, data: true };
            self.invalidate.invalidate(HOMES_VOLUME, change);
        }
        let node = match attachment.slot.opened() {
            Some(open) => {
                let attr = open.home.getattr(Ino::ROOT).await?;
                Node { name_ttl: HEAD_TTL, ..self.node(&attachment, attr) }
            }
            None => self.head_node(head),
        };
        attachment.taken(Ino::ROOT);
        Ok(node)
    }

    /// The root of a closed home.
    pub(super) fn head_node(&self, head: &Head) -> Node {
        Node {
            number: self.number(head.volume, Ino::ROOT),
            attr: head.root,
            attr_ttl: HEAD_TTL,
            name_ttl: HEAD_TTL,
        }
    }

    /// A part of the listing. Cookies are volume numbers behind those of `.` and `..`.
    pub(super) async fn homes_list(
        &self,
        cookie: u64,
        attrs: bool,
        lines_max: usize,
    ) -> Result<Vec<Line>> {
        let mut heads = self.table.directory().list().await?;
        if cookie == 0 {
            self.forget_listing_soon();
        }
        heads.sort_by_key(|head| head.volume);
        let dots = [(1, b".".as_slice()), (2, b"..".as_slice())].map(|(next, name)| Line {
            number: MOUNT_ROOT,
            kind: Kind::Dir,
            name: name.into(),
            next,
            node: None,
        });
        let homes = heads.iter().map(|head| Line {
            number: self.number(head.volume, Ino::ROOT),
            kind: Kind::Dir,
            name: head.name.as_bytes().into(),
            next: u64::from(head.volume) + 2,
            node: attrs.then(|| self.listed_node(head)),
        });
        let lines = dots.into_iter().chain(homes);
        Ok(lines.filter(|line| line.next > cookie).take(lines_max).collect())
    }

    /// The kernel keeps a listing until it is told otherwise, and other nodes make homes too.
    fn forget_listing_soon(&self) {
        let invalidate = Arc::clone(&self.invalidate);
        tokio::spawn(async move {
            tokio::time::sleep(HEAD_TTL).await;
            let change = Change::Inode { ino: Ino::ROOT, data: true };
            invalidate.invalidate(HOMES_VOLUME, change);
        });
    }

    fn listed_node(&self, head: &Head) -> Node {
        let node = self.head_node(head);
        // An open home knows better than its head, but a listing waits for none: the kernel
        // asks again at once.
        match self.table.slot(head).opened() {
            Some(_) => Node { attr_ttl: Duration::ZERO, ..node },
            None => node,
        }
    }

    /// Room in the whole store.
    pub(super) fn homes_room(&self) -> Room {
        let (bytes, bytes_free) = match self.table.directory().space() {
            Some(space) => (space.bytes, space.bytes_free),
            None => (UNLIMITED_BYTES, UNLIMITED_BYTES),
        };
        Room { bytes, bytes_free, inodes: UNLIMITED_INODES, inodes_free: UNLIMITED_INODES }
    }

    /// Room in one home: its quota, or the store where it has none.
    pub(super) fn home_room(&self, usage: Usage) -> Room {
        let store = self.homes_room();
        let left = |limit: u64, used: u64| limit.saturating_sub(used);
        let (bytes, bytes_free) = match usage.bytes_limit {
            u64::MAX => (usage.bytes.saturating_add(store.bytes_free), store.bytes_free),
            limit => (limit, left(limit, usage.bytes).min(store.bytes_free)),
        };
        let inodes = usage.inodes_limit.min(UNLIMITED_INODES);
        Room { bytes, bytes_free, inodes, inodes_free: left(inodes, usage.inodes) }
    }

    /// The home's name for log lines, where `number` belongs to one.
    #[must_use]
    pub fn home_name(&self, number: u64) -> Option<Arc<str>> {
        let target = self.target(number).ok()?;
        target.attachment().map(|attachment| Arc::clone(&attachment.slot.name))
    }
}
