//! Locks that the kernel leaves to the daemon, and signals for those who wait for one.

use super::super::abi;
use super::super::call::Call;
use super::super::errno::errno;
use super::Adapter;
use crate::home::{LockKind, Result};
use crate::view::{LockAnswer, LockRequest};

impl Adapter {
    pub(super) fn getlk(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, lock) = (&self.runner.view, lock_request(&call.arg::<abi::LkIn>()?));
        let held = view.get_lock(&view.target(call.number())?, &lock)?;
        let free = abi::FileLock { start: 0, end: 0, kind: libc::F_UNLCK, pid: 0 };
        let lock = held.map_or(free, |held| {
            let kind = match held.kind {
                LockKind::Shared => libc::F_RDLCK,
                LockKind::Exclusive => libc::F_WRLCK,
            };
            abi::FileLock { start: held.start, end: held.end, kind, pid: held.pid }
        });
        call.reply().body(&lock);
        Ok(())
    }

    pub(super) fn setlk(&self, call: &mut Call<'_>, waits: bool) -> Result<()> {
        let view = self.runner.view.clone();
        let lock = lock_request(&call.arg::<abi::LkIn>()?);
        let request = self.request("setlk", call.number())?;
        let (target, reply) = (request.target.clone(), call.reply());
        let (waiting, interrupted) = waits.then(|| self.interrupts.enter(call.unique())).unzip();
        let future = async move {
            let _waiting = waiting;
            view.set_lock(target, lock, interrupted).await
        };
        self.runner.run_unbounded(request, future, |result| match result {
            Ok(LockAnswer::Done) => reply.ok(),
            Ok(LockAnswer::Interrupted) => reply.error(libc::EINTR),
            Err(error) => reply.error(errno(&error)),
        });
        Ok(())
    }

    pub(super) fn interrupt(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        self.interrupts.interrupt(call.arg::<abi::InterruptIn>()?.unique);
        Ok(())
    }
}

fn lock_request(arg: &abi::LkIn) -> LockRequest {
    let kind = match arg.lk.kind {
        libc::F_RDLCK => Some(LockKind::Shared),
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => None,
    };
    let abi::FileLock { start, end, pid, .. } = arg.lk;
    let flock = arg.lk_flags & abi::LK_FLOCK != 0;
    LockRequest { flock, handle: arg.fh, owner: arg.owner, kind, start, end, pid }
}
