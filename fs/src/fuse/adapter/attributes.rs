//! Attributes, extended ones, and the room that there is.

use bytes::Bytes;

use super::super::abi::{self, fattr};
use super::super::attr::{perm, set_times};
use super::super::call::Call;
use super::super::reply::Reply;
use super::{Adapter, done, kill};
use crate::home::{Result, SetAttr, XattrMode};
use crate::view::{Node, Room, Who, is_chown};

/// The unit of `statfs`.
const ROOM_BLOCK_BYTES: u32 = 4096;

impl Adapter {
    pub(super) fn getattr(&self, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.getattr(target).await }
        };
        let request = self.request("getattr", call.number())?;
        self.run(request, call.reply(), make, attributes);
        Ok(())
    }

    pub(super) fn setattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::SetattrIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let sets = |bit: u32| arg.valid & bit != 0;
        let [atime, mtime] = set_times(&arg);
        let set = SetAttr {
            perm: sets(fattr::MODE).then(|| perm(arg.mode)),
            uid: sets(fattr::UID).then_some(arg.uid),
            gid: sets(fattr::GID).then_some(arg.gid),
            size: sets(fattr::SIZE).then_some(arg.size),
            atime,
            mtime,
            kill: kill(takes_set_id(arg.valid, who)),
        };
        let make = move |target| {
            let view = view.clone();
            async move { view.setattr(who, target, set).await }
        };
        let request = self.request("setattr", call.number())?;
        self.run(request, call.reply(), make, attributes);
        Ok(())
    }

    pub(super) fn statfs(&self, call: &mut Call<'_>) -> Result<()> {
        let view = &self.runner.view;
        let room = view.room(&view.target(call.number())?);
        call.reply().body(&statfs_out(room));
        Ok(())
    }

    pub(super) fn setxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::SetxattrIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let name = Bytes::copy_from_slice(call.text()?);
        let value = call.bytes(arg.size)?;
        let mode = XattrMode {
            create: arg.flags & libc::XATTR_CREATE != 0,
            replace: arg.flags & libc::XATTR_REPLACE != 0,
            kill_sgid: false,
        };
        let make = move |target| {
            let (view, name, value) = (view.clone(), name.clone(), value.clone());
            async move { view.setxattr(who, target, name, value, mode).await }
        };
        let request = self.request("setxattr", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    pub(super) fn getxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::GetxattrIn>()?;
        let (view, name) = (self.runner.view.clone(), Bytes::copy_from_slice(call.text()?));
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.getxattr(target, name).await }
        };
        let request = self.request("getxattr", call.number())?;
        self.run(request, call.reply(), make, move |reply, value| {
            value_reply(reply, &value, arg.size);
        });
        Ok(())
    }

    pub(super) fn listxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::GetxattrIn>()?;
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.listxattr(target).await }
        };
        let request = self.request("listxattr", call.number())?;
        self.run(request, call.reply(), make, move |reply, names| {
            value_reply(reply, &names, arg.size);
        });
        Ok(())
    }

    pub(super) fn removexattr(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let name = Bytes::copy_from_slice(call.text()?);
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.removexattr(who, target, name).await }
        };
        let request = self.request("removexattr", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }
}

fn attributes(reply: Reply, node: Node) {
    reply.attr(&node);
}

/// A value of `size` at most, or its length where `size` is 0.
fn value_reply(reply: Reply, value: &Bytes, size: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.body(&abi::GetxattrOut { size: len, reserved: 0 }),
        Ok(len) if len <= size => reply.bytes(value),
        _ => reply.error(libc::ERANGE),
    }
}

fn statfs_out(room: Room) -> abi::StatfsOut {
    let blocks = |bytes: u64| bytes / u64::from(ROOM_BLOCK_BYTES);
    let free = blocks(room.bytes_free);
    abi::StatfsOut {
        blocks: blocks(room.bytes),
        bfree: free,
        bavail: free,
        files: room.inodes,
        ffree: room.inodes_free,
        bsize: ROOM_BLOCK_BYTES,
        namelen: crate::home::NAME_BYTES_MAX as u32,
        frsize: ROOM_BLOCK_BYTES,
        reserved: [0; 7],
    }
}

/// Whether a SETATTR of `valid` attributes takes set-uid, set-gid and capabilities away. A new
/// owner always does; a truncation unless the caller may keep them, which the kernel says. One
/// that sets nothing at all is sent for nothing else: a chown to nobody, or fallocate,
/// copy_file_range or a write by a caller who may not keep them; for root, who may, the kernel
/// sends it too when it has just removed capabilities, and only the system call tells.
fn takes_set_id(valid: u32, who: Who) -> bool {
    let owner = valid & (fattr::UID | fattr::GID) != 0;
    let cut = valid & fattr::SIZE != 0 && valid & fattr::KILL_SUIDGID != 0;
    let sets = fattr::MODE | fattr::SIZE | fattr::ATIME | fattr::MTIME;
    let nothing = !owner && valid & sets == 0;
    owner || cut || (nothing && (who.uid != 0 || is_chown(who.tid).unwrap_or(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_fall_with_a_new_owner_a_cut_by_a_user_and_a_request_that_sets_nothing() {
        // A thread that there is not: what it does cannot be told.
        let who = |uid| Who { uid, gid: 0, tid: u32::MAX };
        assert!(takes_set_id(fattr::UID, who(0)));
        assert!(takes_set_id(fattr::SIZE | fattr::MTIME | fattr::KILL_SUIDGID, who(1000)));
        assert!(takes_set_id(0, who(0)));
        assert!(!takes_set_id(fattr::SIZE | fattr::MTIME, who(0)));
        assert!(!takes_set_id(fattr::MTIME, who(1000)));
    }
}
