//! Names: looked up, made, moved, removed and listed.

use std::time::Duration;

use bytes::Bytes;

use super::super::abi::{self, fopen};
use super::super::attr::{kind, perm};
use super::super::call::Call;
use super::super::errno::errno;
use super::super::listing::Listing;
use super::{Adapter, done, entered, refuse};
use crate::home::{ErrorKind, Kind, Name, NewNode, RenameMode, Result};
use crate::view::{Line, Pair};

/// Lines of a listing with attributes: what fits the 32 KiB that readers of directories use.
const LINES_PLUS_MAX: usize = 192;
/// Lines of a plain listing, likewise.
const LINES_MAX: usize = 1024;
/// How long the kernel remembers that a name is not there; it is told when one is made.
const ABSENCE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The kinds of renaming that there are.
const RENAME_FLAGS: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;

impl Adapter {
    pub(super) fn lookup(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let request = self.request("lookup", call.number())?;
        let name = match call.text()? {
            // Only handles that outlive the kernel's memory of an inode look these up.
            dots @ (b"." | b"..") => {
                let up = dots.len() == 2;
                let make = move |target| {
                    let view = view.clone();
                    async move {
                        match up {
                            true => view.lookup_parent(target).await,
                            false => view.lookup_self(target).await,
                        }
                    }
                };
                self.run(request, call.reply(), make, entered);
                return Ok(());
            }
            name => Name::new(name)?,
        };
        let remembers = view.remembers_absence(&request.target);
        let make = move |parent| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.lookup(who, parent, name).await }
        };
        let reply = call.reply();
        self.runner.run(request, make, move |result| match result {
            Ok(node) => reply.entry(&node),
            Err(error) if remembers && matches!(error.kind(), ErrorKind::NotFound) => {
                reply.absent(ABSENCE_TTL);
            }
            Err(error) => reply.error(errno(&error)),
        });
        Ok(())
    }

    pub(super) fn forget(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        let arg = call.arg::<abi::ForgetIn>()?;
        self.runner.view.forget(call.number(), arg.nlookup);
        Ok(())
    }

    pub(super) fn forget_many(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        for _ in 0..call.arg::<abi::BatchForgetIn>()?.count {
            let one = call.arg::<abi::ForgetOne>()?;
            self.runner.view.forget(one.nodeid, one.nlookup);
        }
        Ok(())
    }

    pub(super) fn mknod(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::MknodIn>()?;
        let node = new_node(arg.mode, arg.umask, arg.rdev)?;
        self.make("mknod", call, node)
    }

    pub(super) fn mkdir(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::MkdirIn>()?;
        let (perm, umask) = (perm(arg.mode), perm(arg.umask));
        let node = NewNode { kind: Kind::Dir, perm, umask, rdev: 0, target: Bytes::new() };
        self.make("mkdir", call, node)
    }

    pub(super) fn symlink(&self, call: &mut Call<'_>) -> Result<()> {
        let name = call.name()?;
        let target = Bytes::copy_from_slice(call.text()?);
        let node = NewNode { kind: Kind::Symlink, perm: 0o777, umask: 0, rdev: 0, target };
        self.make_named("symlink", call, name, node)
    }

    pub(super) fn make(&self, op: &'static str, call: &mut Call<'_>, node: NewNode) -> Result<()> {
        let name = call.name()?;
        self.make_named(op, call, name, node)
    }

    pub(super) fn make_named(
        &self,
        op: &'static str,
        call: &mut Call<'_>,
        name: Name,
        node: NewNode,
    ) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let make = move |parent| {
            let (view, name, node) = (view.clone(), name.clone(), node.clone());
            async move { view.make(who, parent, name, node).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, entered);
        Ok(())
    }

    pub(super) fn create(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            // The kernel then makes by MKNOD and opens without asking: no RELEASE later.
            return refuse(call, libc::ENOSYS);
        }
        let arg = call.arg::<abi::CreateIn>()?;
        let (name, node) = (call.name()?, new_node(arg.mode, arg.umask, 0)?);
        let (view, who) = (self.runner.view.clone(), call.who());
        let make = move |target| {
            let (view, name, node) = (view.clone(), name.clone(), node.clone());
            async move { view.make(who, target, name, node).await }
        };
        let request = self.request("create", call.number())?;
        let handle = self.next_handle();
        self.run(request, call.reply(), make, move |reply, node| {
            reply.created(&node, handle, fopen::KEEP_CACHE);
        });
        Ok(())
    }

    pub(super) fn remove(&self, op: &'static str, call: &mut Call<'_>, dir: bool) -> Result<()> {
        let (view, who, name) = (self.runner.view.clone(), call.who(), call.name()?);
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.remove(who, target, name, dir).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    pub(super) fn rename(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::RenameIn>()?;
        self.rename_to(call, arg.newdir, 0)
    }

    pub(super) fn rename_as_told(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::Rename2In>()?;
        self.rename_to(call, arg.newdir, arg.flags)
    }

    pub(super) fn rename_to(&self, call: &mut Call<'_>, newdir: u64, flags: u32) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let (names, mode) = ([call.name()?, call.name()?], rename_mode(flags)?);
        let pair = view.pair(call.number(), newdir)?;
        if matches!(pair, Pair::Apart) {
            return refuse(call, libc::EXDEV);
        }
        let make = move |_| {
            let (view, pair, names) = (view.clone(), pair.clone(), names.clone());
            async move { view.rename(who, pair, names, mode).await }
        };
        let request = self.request("rename", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    pub(super) fn link(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::LinkIn>()?;
        let (view, who, name) = (self.runner.view.clone(), call.who(), call.name()?);
        let pair = view.pair(arg.oldnodeid, call.number())?;
        if matches!(pair, Pair::Apart) {
            return refuse(call, libc::EXDEV);
        }
        let make = move |_| {
            let (view, pair, name) = (view.clone(), pair.clone(), name.clone());
            async move { view.link(who, pair, name).await }
        };
        let request = self.request("link", call.number())?;
        self.run(request, call.reply(), make, entered);
        Ok(())
    }

    pub(super) fn readdir(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReadIn>()?;
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, arg.offset, false, LINES_MAX).await }
        };
        let request = self.request("readdir", call.number())?;
        self.run(request, call.reply(), make, move |reply, lines: Vec<Line>| {
            let mut listing = Listing::new(arg.size, false);
            let _fitted = lines.iter().take_while(|line| listing.add(line)).count();
            reply.bytes(listing.as_bytes());
        });
        Ok(())
    }

    pub(super) fn readdirplus(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReadIn>()?;
        let view = self.runner.view.clone();
        let counting = view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, arg.offset, true, LINES_PLUS_MAX).await }
        };
        let request = self.request("readdirplus", call.number())?;
        self.run(request, call.reply(), make, move |reply, lines: Vec<Line>| {
            let mut listing = Listing::new(arg.size, true);
            let fitted = lines.iter().take_while(|line| listing.add(line));
            let with_attributes = fitted.filter(|line| line.node.is_some());
            let taken: Vec<u64> = with_attributes.map(|line| line.number).collect();
            // Before the kernel can give them back.
            counting.taken(&taken);
            reply.bytes(listing.as_bytes());
        });
        Ok(())
    }

    pub(super) fn opendir(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            return refuse(call, libc::ENOSYS);
        }
        call.reply().opened(0, fopen::KEEP_CACHE | fopen::CACHE_DIR);
        Ok(())
    }

    pub(super) fn readlink(&self, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readlink(target).await }
        };
        let request = self.request("readlink", call.number())?;
        self.run(request, call.reply(), make, |reply, target| reply.bytes(&target));
        Ok(())
    }
}

/// A new inode that a request asks for.
fn new_node(mode: u32, umask: u32, rdev: u32) -> Result<NewNode> {
    let kind = kind(mode).ok_or(ErrorKind::Invalid)?;
    let (perm, umask) = (perm(mode), perm(umask));
    Ok(NewNode { kind, perm, umask, rdev, target: Bytes::new() })
}

fn rename_mode(flags: u32) -> Result<RenameMode> {
    let mode = RenameMode {
        no_replace: flags & libc::RENAME_NOREPLACE != 0,
        exchange: flags & libc::RENAME_EXCHANGE != 0,
        whiteout: flags & libc::RENAME_WHITEOUT != 0,
    };
    let unknown = flags & !RENAME_FLAGS != 0;
    match unknown || (mode.exchange && (mode.no_replace || mode.whiteout)) {
        true => Err(ErrorKind::Invalid.into()),
        false => Ok(mode),
    }
}
