//! One mount that is served: its event loops, and the thread that takes stale entries out of
//! the kernel's caches.
//!
//! Notifications wait for locks of the kernel's that a waiting request may hold, so they are
//! sent by a thread of their own that no request ever waits for. Where more changes come than it
//! can send, it makes the kernel ask for everything again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use fuser::{INodeNo, Notifier, SessionACL};

use super::adapter::Adapter;
use super::ask::session_config;
use super::serve::Runner;
use crate::home::{Change, Ino};
use crate::view::{Invalidate, View};

/// Changes that wait to be sent to the kernel.
const CHANGES_MAX: usize = 64 * 1024;

/// Collects changes for the kernel.
#[derive(Debug)]
pub struct Invalidations {
    changes: SyncSender<(u32, Change)>,
    overrun: AtomicBool,
    receiver: parking_lot::Mutex<Option<Receiver<(u32, Change)>>>,
}

impl Default for Invalidations {
    fn default() -> Self {
        let (changes, receiver) = sync_channel(CHANGES_MAX);
        let receiver = parking_lot::Mutex::new(Some(receiver));
        Self { changes, overrun: AtomicBool::new(false), receiver }
    }
}

impl Invalidate for Invalidations {
    fn invalidate(&self, volume: u32, change: Change) {
        if self.changes.try_send((volume, change)).is_err() {
            self.overrun.store(true, Ordering::Release);
        }
    }

    fn invalidate_all(&self) {
        self.overrun.store(true, Ordering::Release);
        // Anything wakes the sender; a queue that is full is being sent.
        let _full = self.changes.try_send((0, Change::Inode { ino: Ino::ROOT, data: true }));
    }
}

/// A mount that is served until its file system is unmounted.
#[derive(Debug)]
pub struct Session {
    thread: JoinHandle<io::Result<()>>,
    ended: Arc<OnceLock<()>>,
}

impl Session {
    /// Serves `runner`'s view over `device` with `threads` event loops.
    ///
    /// # Errors
    /// Where the kernel does not speak with us, or no thread starts.
    pub fn start(
        device: OwnedFd,
        runner: Runner,
        invalidations: &Arc<Invalidations>,
        threads: usize,
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let raw = device.try_clone()?;
        let view = Arc::clone(&runner.view);
        let config = session_config(threads);
        // Who may use the mount is decided by the kernel, from the mount's options.
        let session =
            fuser::Session::from_fd(Adapter::new(runner), device, SessionACL::All, config)?;
        let sender = Sender { view: Arc::downgrade(&view), notifier: session.notifier(), raw };
        let changes = invalidations.receiver.lock().take();
        let changes = changes.ok_or_else(|| io::Error::other("a mount is served only once"))?;
        let overrun = Arc::downgrade(invalidations);
        std::thread::Builder::new()
            .name("invalidate".into())
            .spawn(move || sender.run(&changes, &overrun))?;
        let ended = Arc::new(OnceLock::new());
        let done = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("fuse".into()).spawn(move || {
            let result = session.run();
            view.detach();
            let _ = done.set(());
            on_end();
            result
        })?;
        Ok(Self { thread, ended })
    }

    /// Whether the file system was unmounted.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Waits until the file system is unmounted. Blocks the thread.
    ///
    /// # Errors
    /// What ended the event loops, if not the unmounting.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().map_err(|_| io::Error::other("an event loop panicked"))?
    }
}

/// Sends notifications; blocks in the kernel where it must.
struct Sender {
    view: Weak<View>,
    notifier: Notifier,
    raw: OwnedFd,
}

impl Sender {
    fn run(&self, changes: &Receiver<(u32, Change)>, invalidations: &Weak<Invalidations>) {
        // Ends when the mount, and with it the last sender of changes, is gone.
        while let Ok((volume, change)) = changes.recv() {
            let (Some(view), Some(invalidations)) = (self.view.upgrade(), invalidations.upgrade())
            else {
                return;
            };
            if let Err(error) = self.send(&view, volume, &change) {
                tracing::debug!(volume, ?change, %error, "the kernel takes no notification");
            }
            if invalidations.overrun.swap(false, Ordering::AcqRel) {
                while changes.try_recv().is_ok() {}
                self.send_all(&view);
            }
        }
    }

    fn send(&self, view: &View, volume: u32, change: &Change) -> io::Result<()> {
        match change {
            Change::Inode { ino, data } => {
                let from = if *data { 0 } else { -1 };
                self.notifier.inval_inode(INodeNo(view.number(volume, *ino)), from, 0)
            }
            Change::Entry { parent, name } => {
                let parent = INodeNo(view.number(volume, *parent));
                self.notifier.inval_entry(parent, OsStr::from_bytes(name.as_bytes()))
            }
        }
    }

    /// Makes the kernel ask for every name and every inode again.
    fn send_all(&self, view: &View) {
        // FUSE_NOTIFY_INC_EPOCH (Linux 6.16), which the transport does not know: a
        // fuse_out_header of length 16, the code in place of the error, and no unique.
        let mut header = [0u8; 16];
        header[..4].copy_from_slice(&16u32.to_ne_bytes());
        header[4..8].copy_from_slice(&8i32.to_ne_bytes());
        if let Err(error) = rustix::io::write(self.raw.as_fd(), &header) {
            tracing::warn!(%error, "names that others changed may be seen late");
        }
        for number in view.referred_numbers() {
            let _ = self.notifier.inval_inode(INodeNo(number), 0, 0);
        }
    }
}
