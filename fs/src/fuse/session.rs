//! One mount that is served: its event loops, and the thread that takes stale entries out of
//! the kernel's caches.
//!
//! Notifications wait for locks of the kernel's that a waiting request may hold, so they are
//! sent by a thread of their own that no request ever waits for. Where more changes come than it
//! can send, it makes the kernel ask for everything again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::abi::{InvalEntryOut, InvalInodeOut, notify};
use super::adapter::Adapter;
use super::awake::Awake;
use super::device::Device;
use super::event_loop::EventLoop;
use super::init::shake_hands;
use super::serve::Runner;
use crate::home::{Change, Ino};
use crate::view::{Invalidate, View};

/// One thread leads, one watches it.
const THREADS_MIN: usize = 2;
/// Changes that wait to be sent to the kernel.
const CHANGES_MAX: usize = 64 * 1024;

/// How the requests of a mount are read.
#[derive(Clone, Copy, Debug)]
pub struct Loops {
    /// Threads that read and serve them.
    pub threads: usize,
    /// How long processors are kept from halting after requests that came fast; zero: never.
    pub awake: Duration,
}

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
    /// Serves `runner`'s view over `device`.
    ///
    /// # Errors
    /// Where the kernel does not speak with us, or no thread starts.
    pub fn start(
        device: OwnedFd,
        runner: Runner,
        invalidations: &Arc<Invalidations>,
        loops: Loops,
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let view = Arc::clone(&runner.view);
        let device = Arc::new(Device::new(device)?);
        shake_hands(&device, view.form())?;
        let sender = Sender { view: Arc::downgrade(&view), device: Arc::clone(&device) };
        let changes = invalidations.receiver.lock().take();
        let changes = changes.ok_or_else(|| io::Error::other("a mount is served only once"))?;
        let overrun = Arc::downgrade(invalidations);
        std::thread::Builder::new()
            .name("invalidate".into())
            .spawn(move || sender.run(&changes, &overrun))?;
        let ended = Arc::new(OnceLock::new());
        let done = Arc::clone(&ended);
        let awake = Awake::of_machine(loops.awake);
        let event_loop = Arc::new(EventLoop::new(device, Adapter::new(runner), awake));
        let thread = std::thread::Builder::new().name("fuse".into()).spawn(move || {
            let result = run(&event_loop, loops.threads.max(THREADS_MIN));
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

/// Serves with `threads` threads, this one among them, until the file system is unmounted.
fn run(event_loop: &Arc<EventLoop<Adapter>>, threads: usize) -> io::Result<()> {
    let mut others = Vec::with_capacity(threads);
    for number in 1..threads {
        let event_loop = Arc::clone(event_loop);
        let thread = std::thread::Builder::new().name(format!("fuse-{number}"));
        others.push(thread.spawn(move || event_loop.run())?);
    }
    let mut result = event_loop.run();
    for other in others {
        let ended = other.join().map_err(|_| io::Error::other("an event loop panicked"));
        result = result.and(ended?);
    }
    result
}

/// Sends notifications; blocks in the kernel where it must.
struct Sender {
    view: Weak<View>,
    device: Arc<Device>,
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
            Change::Inode { ino, data } => self.inode(view.number(volume, *ino), *data),
            Change::Entry { parent, name } => {
                let name = name.as_bytes();
                let namelen = u32::try_from(name.len()).expect("a name has at most 255 bytes");
                let parent = view.number(volume, *parent);
                let body = InvalEntryOut { parent, namelen, flags: 0 };
                let pieces = [body.as_bytes(), name, &[0]];
                self.device.send(0, notify::INVAL_ENTRY, &pieces)
            }
        }
    }

    fn inode(&self, ino: u64, data: bool) -> io::Result<()> {
        let body = InvalInodeOut { ino, off: if data { 0 } else { -1 }, len: 0 };
        self.device.send(0, notify::INVAL_INODE, &[body.as_bytes()])
    }

    /// Makes the kernel ask for every name and every inode again.
    fn send_all(&self, view: &View) {
        if let Err(error) = self.device.send(0, notify::INC_EPOCH, &[]) {
            tracing::warn!(%error, "names that others changed may be seen late");
        }
        for number in view.referred_numbers() {
            let _ = self.inode(number, true);
        }
    }
}
