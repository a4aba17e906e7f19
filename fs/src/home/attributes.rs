//! Attributes and extended attributes, and the end of an inode. Steps over [`State`].

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::acl;
use super::error::ErrorKind;
use super::key;
use super::mutants::{self, Mutant};
use super::record::RECORD_VERSION;
use super::state::{State, Step};
use super::types::{
    Attr, Change, Ino, Kill, Kind, SetAttr, SetTime, Time, XATTR_LIST_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrMode,
};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXEC: u16 = 0o010;
/// File capabilities fall where set-uid falls.
const CAPABILITY: &[u8] = b"security.capability";
/// An inode with more extents than this is freed in the background.
const FREE_AT_ONCE_MAX: usize = 64;

/// The bits that fall from a file with these.
fn falling(perm: u16, kill: Kill) -> u16 {
    match kill {
        Kill::Nothing => 0,
        Kill::ByMember if perm & GROUP_EXEC == 0 => SET_UID,
        Kill::ByMember | Kill::ByOutsider => SET_UID | SET_GID,
    }
}

impl State {
    /// Changes attributes other than what `size` asks for, which the caller did.
    pub fn setattr(&mut self, ino: Ino, set: &SetAttr, now: Time) -> Step<Attr> {
        self.check()?;
        let inode = self.inode(ino)?;
        let needs_xattrs =
            inode.xattr_count > 0 && (set.perm.is_some() || set.kill != Kill::Nothing);
        if needs_xattrs {
            self.xattrs(ino)?;
        }
        if let Some(perm) = set.perm {
            self.set_perm(ino, perm & 0o7777);
        }
        self.kill_priv(ino, set.kill);
        let inode = self.inode(ino)?;
        if let Some(uid) = set.uid {
            inode.attr.uid = uid;
        }
        if let Some(gid) = set.gid {
            inode.attr.gid = gid;
        }
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        if let Some(atime) = set.atime {
            inode.attr.atime = time(atime);
        }
        if let Some(mtime) = set.mtime {
            inode.attr.mtime = time(mtime);
        }
        inode.attr.ctime = now;
        let attr = inode.attr;
        let waits = inode.file.as_ref().is_some_and(|f| f.durable.is_some());
        if set.mtime.is_some() && waits {
            self.note_fresh(ino, Instant::now(), 0);
        }
        self.touch(ino);
        self.announce(Change::Inode { ino, data: set.size.is_some() });
        Ok(attr)
    }

    /// New permission bits; an access ACL follows them.
    fn set_perm(&mut self, ino: Ino, perm: u16) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.attr.perm = perm;
        let value = inode.xattrs.as_ref().and_then(|x| x.get(acl::ACCESS_NAME.as_bytes()));
        if let Some(value) = value
            && let Ok(mut access) = acl::Acl::parse(value)
        {
            access.set_mode(perm);
            self.put_xattr(ino, acl::ACCESS_NAME, access.to_bytes());
        }
    }

    /// Privileges fall. The attributes must be loaded.
    pub fn kill_priv(&mut self, ino: Ino, kill: Kill) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        // On a directory the bits say how new entries are made; a change of owner leaves them.
        let exempt = inode.attr.kind == Kind::Dir || mutants::is(Mutant::KeepSetUid);
        if kill == Kill::Nothing || exempt {
            return;
        }
        let before = inode.attr.perm;
        inode.attr.perm &= !falling(before, kill);
        let changed = inode.attr.perm != before;
        let capable = inode.xattrs.as_ref().is_some_and(|x| x.contains_key(CAPABILITY));
        if changed {
            self.touch(ino);
        }
        if capable {
            self.drop_xattr(ino, CAPABILITY);
        }
    }

    /// True when a write has privileges to take away, so that the attributes must be loaded.
    pub fn has_priv(&mut self, ino: Ino, kill: Kill) -> Step<bool> {
        if kill == Kill::Nothing {
            return Ok(false);
        }
        let inode = self.inode(ino)?;
        let bits = inode.attr.perm & falling(inode.attr.perm, kill) != 0;
        if inode.xattr_count == 0 {
            return Ok(bits);
        }
        self.xattrs(ino)?;
        Ok(true)
    }

    /// Stores a value, without questions.
    pub fn put_xattr(&mut self, ino: Ino, name: impl AsRef<[u8]>, value: Vec<u8>) {
        let name = Bytes::copy_from_slice(name.as_ref());
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let Some(xattrs) = inode.xattrs.as_mut() else { return };
        let value = Bytes::from(value);
        let taken = value.len() as u64;
        let mut record = Vec::with_capacity(value.len() + 1);
        record.push(RECORD_VERSION);
        record.extend_from_slice(&value);
        let freed = xattrs.insert(name.clone(), value).map_or(0, |old| old.len() as u64);
        sum_xattrs(inode);
        self.charge(freed, taken);
        self.txn.put(key::xattr(ino, &name), record);
        self.touch(ino);
    }

    fn drop_xattr(&mut self, ino: Ino, name: &[u8]) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let Some(old) = inode.xattrs.as_mut().and_then(|x| x.remove(name)) else { return };
        sum_xattrs(inode);
        self.charge(old.len() as u64, 0);
        self.txn.delete(key::xattr(ino, name));
        self.touch(ino);
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &mut self,
        ino: Ino,
        name: &Bytes,
        value: &Bytes,
        mode: XattrMode,
        now: Time,
    ) -> Step<()> {
        self.check()?;
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(ErrorKind::AttributeTooBig.into());
        }
        let inode = self.xattrs(ino)?;
        let xattrs = inode.xattrs.as_ref().expect("loaded by xattrs");
        let old = xattrs.get(name);
        if mode.create && old.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if mode.replace && old.is_none() {
            return Err(ErrorKind::NoAttribute.into());
        }
        let names: usize = xattrs.keys().map(|n| n.len() + 1).sum();
        if old.is_none() && names + name.len() + 1 > XATTR_LIST_BYTES_MAX {
            return Err(ErrorKind::NoSpace.into());
        }
        let kind = inode.attr.kind;
        let grows = (value.len() as u64).saturating_sub(old.map_or(0, |v| v.len() as u64));
        if *name == acl::ACCESS_NAME.as_bytes() {
            let access = acl::Acl::parse(value)?;
            // One that permission bits can say is not stored.
            self.check_quota(if access.is_minimal() { 0 } else { grows }, 0)?;
            self.set_access_acl(ino, &access, mode.kill_sgid);
        } else {
            if *name == acl::DEFAULT_NAME.as_bytes() {
                acl::Acl::parse(value)?;
                if kind != Kind::Dir {
                    return Err(ErrorKind::NotPermitted.into());
                }
            }
            self.check_quota(grows, 0)?;
            self.put_xattr(ino, name, value.to_vec());
        }
        self.inode(ino)?.attr.ctime = now;
        self.touch(ino);
        self.announce(Change::Inode { ino, data: false });
        Ok(())
    }

    /// The permission bits follow the ACL; one that says no more than they do is not kept.
    fn set_access_acl(&mut self, ino: Ino, access: &acl::Acl, kill_sgid: bool) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let special = inode.attr.perm & 0o7000;
        inode.attr.perm = special | access.mode();
        if kill_sgid {
            inode.attr.perm &= !SET_GID;
        }
        if access.is_minimal() {
            self.drop_xattr(ino, acl::ACCESS_NAME.as_bytes());
        } else {
            self.put_xattr(ino, acl::ACCESS_NAME, access.to_bytes());
        }
    }

    /// The value of an extended attribute.
    pub fn getxattr(&mut self, ino: Ino, name: &[u8]) -> Step<Bytes> {
        check_name(name)?;
        if self.inode(ino)?.xattr_count == 0 {
            return Err(ErrorKind::NoAttribute.into());
        }
        let xattrs = self.xattrs(ino)?.xattrs.as_ref().expect("loaded by xattrs");
        xattrs.get(name).cloned().ok_or_else(|| ErrorKind::NoAttribute.into())
    }

    /// All names, each with a terminating NUL.
    pub fn listxattr(&mut self, ino: Ino) -> Step<Bytes> {
        if self.inode(ino)?.xattr_count == 0 {
            return Ok(Bytes::new());
        }
        let xattrs = self.xattrs(ino)?.xattrs.as_ref().expect("loaded by xattrs");
        let mut list = Vec::new();
        for name in xattrs.keys() {
            list.extend_from_slice(name);
            list.push(0);
        }
        Ok(list.into())
    }

    /// Removes an extended attribute.
    pub fn removexattr(&mut self, ino: Ino, name: &[u8], now: Time) -> Step<()> {
        self.check()?;
        check_name(name)?;
        let inode = self.xattrs(ino)?;
        let xattrs = inode.xattrs.as_ref().expect("loaded by xattrs");
        if !xattrs.contains_key(name) {
            // Local file systems take an ACL away that is not there; the kernel relies on it.
            let acls = [acl::ACCESS_NAME.as_bytes(), acl::DEFAULT_NAME.as_bytes()];
            return if acls.contains(&name) { Ok(()) } else { Err(ErrorKind::NoAttribute.into()) };
        }
        if name == acl::ACCESS_NAME.as_bytes()
            && let Some(Ok(access)) = xattrs.get(name).map(|v| acl::Acl::parse(v))
        {
            inode.attr.perm = (inode.attr.perm & 0o7000) | access.mode();
        }
        self.drop_xattr(ino, name);
        self.inode(ino)?.attr.ctime = now;
        self.touch(ino);
        self.announce(Change::Inode { ino, data: false });
        Ok(())
    }

    /// The end of an inode without names and users: its charge goes now, its records with the
    /// running transaction, or in the background where there are many.
    pub fn free(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let charge = inode.attr.charged + u64::from(inode.xattr_bytes);
        inode.attr.charged = 0;
        self.bytes = self.bytes.saturating_sub(charge);
        self.inodes_used = self.inodes_used.saturating_sub(1);
        self.fresh.remove(&ino);
        self.txn.carried.remove(&ino);
        self.untidy.remove(ino);
        let inode = self.inodes.get_mut(&ino).expect("looked up above");
        let at_once = inode.file.as_ref().is_none_or(|f| {
            f.captures.is_empty() && f.extents.is_complete() && f.extents.len() <= FREE_AT_ONCE_MAX
        });
        if at_once && inode.xattrs.is_some() {
            self.bury(ino);
        } else {
            self.reap.insert(ino);
            self.txn.start();
        }
    }

    /// Deletes the records of an inode whose extents and attributes are all in memory.
    pub fn bury(&mut self, ino: Ino) {
        let number = self.txn.number;
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.dead = true;
        let (file, xattrs) = (inode.file.take(), inode.xattrs.take());
        let orphaned = self.take_orphaned(ino);
        if let Some(file) = file {
            let keyed = file.inline.is_none();
            for (offset, _, source) in file.extents.saved() {
                if let Some(place) = source.place() {
                    self.txn.count(place, -1);
                }
                if keyed {
                    self.txn.delete(key::extent(ino, offset));
                }
            }
        }
        for name in xattrs.unwrap_or_default().into_keys() {
            self.txn.delete(key::xattr(ino, &name));
        }
        if orphaned == Some(number) {
            self.txn.records.remove(&key::orphan(ino));
        } else {
            self.txn.delete(key::orphan(ino));
        }
        self.touch(ino);
    }

    /// Takes attributes that were loaded.
    pub fn set_xattrs(&mut self, ino: Ino, loaded: BTreeMap<Bytes, Bytes>) {
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.xattrs.is_none()
        {
            inode.xattrs = Some(loaded);
        }
    }
}

fn sum_xattrs(inode: &mut super::state::Inode) {
    let xattrs = inode.xattrs.as_ref().expect("loaded by the caller");
    inode.xattr_count = u32::try_from(xattrs.len()).expect("the list of names is bounded");
    let bytes: usize = xattrs.values().map(Bytes::len).sum();
    inode.xattr_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
}

fn check_name(name: &[u8]) -> Step<()> {
    let known = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
    if name.len() > XATTR_NAME_BYTES_MAX {
        return Err(ErrorKind::NameTooLong.into());
    }
    if !known.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len()) {
        return Err(ErrorKind::NotSupported.into());
    }
    Ok(())
}
