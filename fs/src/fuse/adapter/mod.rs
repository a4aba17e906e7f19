//! The kernel's requests: decode, run, reply. No decision about homes is made here.
//!
//! Here is which request is which, and how one runs; the requests themselves lie in the files
//! below, by what they are about.

mod attributes;
mod contents;
mod locks;
mod names;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::abi::op;
use super::call::Call;
use super::errno::errno;
use super::event_loop::Serve;
use super::interrupts::Interrupts;
use super::reply::Reply;
use super::serve::{Request, Runner};
use crate::home::{Kill, Result};
use crate::view::{Form, Node, Target};

/// One mount, as the kernel asks for it.
#[derive(Debug)]
pub struct Adapter {
    runner: Runner,
    /// Handles tell open files of the shared form apart, for the locks taken through them.
    handles: AtomicU64,
    interrupts: Arc<Interrupts>,
}

impl Adapter {
    /// Serves the view of `runner`.
    pub fn new(runner: Runner) -> Self {
        Self { runner, handles: AtomicU64::new(1), interrupts: Arc::default() }
    }

    fn start(&self, call: &mut Call<'_>) -> Result<()> {
        match call.opcode() {
            op::LOOKUP => self.lookup(call),
            op::FORGET => self.forget(call),
            op::BATCH_FORGET => self.forget_many(call),
            op::GETATTR => self.getattr(call),
            op::SETATTR => self.setattr(call),
            op::READLINK => self.readlink(call),
            op::SYMLINK => self.symlink(call),
            op::MKNOD => self.mknod(call),
            op::MKDIR => self.mkdir(call),
            op::CREATE => self.create(call),
            op::LINK => self.link(call),
            op::UNLINK => self.remove("unlink", call, false),
            op::RMDIR => self.remove("rmdir", call, true),
            op::RENAME => self.rename(call),
            op::RENAME2 => self.rename_as_told(call),
            op::OPEN => self.open(call),
            op::OPENDIR => self.opendir(call),
            op::READ => self.read(call),
            op::WRITE => self.write(call),
            op::FLUSH => self.flush(call),
            op::RELEASE => self.release(call),
            op::FSYNC => self.sync("fsync", call),
            op::FSYNCDIR => self.sync("fsyncdir", call),
            op::READDIR => self.readdir(call),
            op::READDIRPLUS => self.readdirplus(call),
            op::STATFS => self.statfs(call),
            op::SETXATTR => self.setxattr(call),
            op::GETXATTR => self.getxattr(call),
            op::LISTXATTR => self.listxattr(call),
            op::REMOVEXATTR => self.removexattr(call),
            op::FALLOCATE => self.fallocate(call),
            op::LSEEK => self.lseek(call),
            op::COPY_FILE_RANGE => self.copy_file_range(call),
            op::GETLK => self.getlk(call),
            op::SETLK => self.setlk(call, false),
            op::SETLKW => self.setlk(call, true),
            op::INTERRUPT => self.interrupt(call),
            op::RELEASEDIR => {
                call.reply().ok();
                Ok(())
            }
            op::IOCTL => refuse(call, libc::ENOTTY),
            op::NOTIFY_REPLY => {
                call.reply().none();
                Ok(())
            }
            // ACCESS, BMAP, POLL, STATX, TMPFILE and what later kernels may ask.
            _ => refuse(call, libc::ENOSYS),
        }
    }

    fn request(&self, op: &'static str, number: u64) -> Result<Request> {
        let target = self.runner.view.living(number)?;
        Ok(Request { op, number, target, bytes: 0, data: None })
    }

    fn is_local(&self) -> bool {
        self.runner.view.form() == Form::Local
    }

    fn next_handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs an operation and answers by `done` where it succeeds.
    fn run<T, F, Fut, D>(&self, request: Request, reply: Reply, make: F, done: D)
    where
        T: Send + 'static,
        F: Fn(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        D: FnOnce(Reply, T) + Send + 'static,
    {
        self.runner.run(request, make, move |result| match result {
            Ok(value) => done(reply, value),
            Err(error) => reply.error(errno(&error)),
        });
    }
}

impl Serve for Adapter {
    /// Answers now, or hands on to where the request waits.
    fn serve(&self, mut call: Call<'_>) {
        if let Err(error) = self.start(&mut call) {
            call.fail(errno(&error));
        }
    }
}

fn refuse(call: &mut Call<'_>, errno: i32) -> Result<()> {
    call.reply().error(errno);
    Ok(())
}

fn entered(reply: Reply, node: Node) {
    reply.entry(&node);
}

fn done(reply: Reply, (): ()) {
    reply.ok();
}

/// What falls; whether the caller is in the file's group is looked at where it matters.
fn kill(asked: bool) -> Kill {
    if asked { Kill::ByMember } else { Kill::Nothing }
}
