//! Who reads the next request: one thread of several, the leader, which serves it too.
//!
//! A round trip between a program and the daemon costs two wake-ups where both sleep. So the
//! leader looks for the next request for some microseconds before it sleeps, as long as requests
//! came that fast lately, and nobody else is woken for what is answered from memory at once. For
//! what takes longer (much data, a listing) it first hands the lead to another thread. Where an
//! answer is still worked on (an fsync), nobody looks: that would keep a processor from the work.
//!
//! What always holds: where a request waits and a thread is free, somebody reads it
//! (`a_leader_that_is_stuck_is_relieved`). One of the waiting threads watches the leader; where
//! it serves one and the same request for [`STUCK`], the watcher takes the lead. An idle mount
//! wakes nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use zerocopy::FromBytes;

use super::abi::{InHeader, ReadIn, op};
use super::awake::Awake;
use super::call::{Call, WRITE_DATA_AT};
use super::device::{Device, Received};
use super::init::REQUEST_BYTES_MAX;

/// How long the next request is looked for before the leader sleeps. Less than two wake-ups on
/// another core cost.
const LOOK: Duration = Duration::from_micros(50);
/// A leader that serves one request for so long is relieved.
const STUCK: Duration = Duration::from_millis(5);
/// After so many times [`STUCK`] without a request the watcher sleeps until there is one.
const IDLE_ROUNDS: u32 = 40;
/// Requests with more data than this are not served by the leader.
const SHORT_BYTES_MAX: u32 = 16 << 10;
/// A write of so much keeps the buffer that it was read into; less is copied out of it, so that
/// little data does not hold much memory.
const KEEP_BYTES_MIN: usize = REQUEST_BYTES_MAX / 2;

/// Who serves requests.
pub trait Serve: Send + Sync {
    /// Serves one request: answers it, now or later.
    fn serve(&self, call: Call<'_>);
}

/// What the threads of one mount share.
#[derive(Debug)]
pub struct EventLoop<S> {
    device: Arc<Device>,
    server: S,
    lead: Mutex<Lead>,
    vacant: Condvar,
    /// Odd while the leader serves a request. Changed by the leader, and by who relieves it: that
    /// is how it sees that it was.
    steps: AtomicU64,
    /// The watcher sleeps until it is woken.
    watcher_sleeps: AtomicBool,
    /// Requests come faster than [`LOOK`].
    busy: AtomicBool,
    /// Of the leader.
    awake: Mutex<Option<Awake>>,
}

#[derive(Debug, Default)]
struct Lead {
    taken: bool,
    watched: bool,
    ended: bool,
}

impl<S: Serve> EventLoop<S> {
    /// Of a connection that was agreed on.
    pub fn new(device: Arc<Device>, server: S, awake: Option<Awake>) -> Self {
        Self {
            device,
            server,
            lead: Mutex::default(),
            vacant: Condvar::new(),
            steps: AtomicU64::new(0),
            watcher_sleeps: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            awake: Mutex::new(awake),
        }
    }

    /// Serves requests, with whatever other threads do so, until the file system is unmounted.
    ///
    /// # Errors
    /// Those of reading the connection.
    pub fn run(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut result = Ok(());
        while self.take_lead() {
            match self.lead(&mut buffer) {
                Ok(true) => {}
                Ok(false) => self.end(),
                Err(error) => {
                    result = Err(error);
                    self.end();
                }
            }
        }
        result
    }

    /// Serves as the leader; false where the file system was unmounted.
    fn lead(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            buffer.clear();
            buffer.reserve(REQUEST_BYTES_MAX);
            if !self.receive(buffer)? {
                return Ok(false);
            }
            let Ok((header, _)) = InHeader::read_from_prefix(buffer) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            if header.opcode == op::DESTROY {
                self.serve(&header, buffer);
                return Ok(false);
            }
            if takes_long(&header, buffer) {
                self.hand_over();
                self.serve(&header, buffer);
                return Ok(true);
            }
            let serving = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
            if self.watcher_sleeps.load(Ordering::SeqCst) {
                self.wake_watcher();
            }
            let done = self.device.done();
            self.serve(&header, buffer);
            if self.device.done() == done {
                self.leave_processor();
            }
            let (seq, relaxed) = (Ordering::SeqCst, Ordering::Relaxed);
            if self.steps.compare_exchange(serving, serving + 1, seq, relaxed).is_err() {
                // It was relieved.
                return Ok(true);
            }
        }
    }

    /// Reads the next request; false where the file system was unmounted.
    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut waits: Option<Instant> = None;
        loop {
            match self.device.receive(buffer)? {
                Received::Unmounted => return Ok(false),
                Received::Request => {
                    let waited = waits.map_or(Duration::ZERO, |since| since.elapsed());
                    self.busy.store(waited < LOOK, Ordering::Relaxed);
                    if let Some(awake) = &mut *self.awake.lock() {
                        awake.arrived(waited);
                    }
                    return Ok(true);
                }
                Received::Nothing => {}
            }
            let since = *waits.get_or_insert_with(Instant::now);
            if !self.busy.load(Ordering::Relaxed) || since.elapsed() >= LOOK {
                self.sleep()?;
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps until there is something to read.
    fn sleep(&self) -> io::Result<()> {
        let rest = self.awake.lock().as_ref().and_then(Awake::rest);
        if let Some(rest) = rest {
            if self.device.wait_for(rest)? {
                return Ok(());
            }
            if let Some(awake) = &mut *self.awake.lock() {
                awake.end();
            }
        }
        self.device.wait()
    }

    fn serve(&self, header: &InHeader, buffer: &mut Vec<u8>) {
        if header.opcode != op::WRITE || buffer.len() < KEEP_BYTES_MIN {
            return self.server.serve(Call::new(&self.device, *header, buffer));
        }
        let mut request = Bytes::from(std::mem::take(buffer));
        let data = request.split_off(WRITE_DATA_AT);
        self.server.serve(Call::with_data(&self.device, *header, &request, data));
    }

    /// Waits until there is no leader; false where the file system was unmounted.
    fn take_lead(&self) -> bool {
        let mut lead = self.lead.lock();
        let mut idle = 0;
        loop {
            if lead.ended {
                return false;
            }
            if !lead.taken {
                lead.taken = true;
                if !lead.watched {
                    // Who watched is the leader now.
                    self.vacant.notify_one();
                }
                return true;
            }
            if lead.watched {
                self.vacant.wait(&mut lead);
                continue;
            }
            lead.watched = true;
            let seen = self.steps.load(Ordering::SeqCst);
            if idle < IDLE_ROUNDS {
                let late = self.vacant.wait_for(&mut lead, STUCK).timed_out();
                let same = late && self.steps.load(Ordering::SeqCst) == seen;
                idle = if same { idle + 1 } else { 0 };
                if same && seen % 2 == 1 && self.relieve(seen) {
                    lead.taken = false;
                }
            } else {
                self.watcher_sleeps.store(true, Ordering::SeqCst);
                // Only a leader that serves nothing looks whether the watcher sleeps.
                if seen % 2 == 0 && self.steps.load(Ordering::SeqCst) == seen {
                    self.vacant.wait(&mut lead);
                }
                self.watcher_sleeps.store(false, Ordering::SeqCst);
                idle = 0;
            }
            lead.watched = false;
        }
    }

    fn wake_watcher(&self) {
        // It holds the lock from before it says that it sleeps until it does.
        drop(self.lead.lock());
        self.vacant.notify_all();
    }

    /// Ends the leadership of who serves the request of step `seen`; false where it is done.
    fn relieve(&self, seen: u64) -> bool {
        let (seq, relaxed) = (Ordering::SeqCst, Ordering::Relaxed);
        self.steps.compare_exchange(seen, seen + 1, seq, relaxed).is_ok()
    }

    /// Somebody else works on what was asked for: who waits now looks for nothing on their
    /// processor.
    fn leave_processor(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    fn hand_over(&self) {
        self.leave_processor();
        self.lead.lock().taken = false;
        self.vacant.notify_one();
    }

    fn end(&self) {
        self.lead.lock().ended = true;
        self.vacant.notify_all();
    }
}

/// Whether serving a request may keep its thread for long enough that others should not wait.
fn takes_long(header: &InHeader, request: &[u8]) -> bool {
    match header.opcode {
        op::READDIR | op::READDIRPLUS | op::COPY_FILE_RANGE => true,
        op::READ => ReadIn::read_from_prefix(&request[size_of::<InHeader>()..])
            .is_ok_and(|(arg, _)| arg.size > SHORT_BYTES_MAX),
        _ => header.len > SHORT_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::super::awake::NO_BOUND;
    use super::*;

    /// The other side of a connection: a socket that keeps messages apart, as the kernel's does.
    struct Kernel {
        socket: std::os::fd::OwnedFd,
        threads: Vec<std::thread::JoinHandle<io::Result<()>>>,
        event_loop: Arc<EventLoop<Blocking>>,
        go_on: mpsc::Sender<()>,
    }

    /// Answers everything; a request for inode 1 not before it is told to, one for [`LATER`] then
    /// too, but from another thread.
    struct Blocking(Arc<Mutex<mpsc::Receiver<()>>>);

    const LATER: u64 = 1000;

    impl Serve for Blocking {
        fn serve(&self, mut call: Call<'_>) {
            if call.number() == 1 {
                let _ = self.0.lock().recv();
            }
            let reply = call.reply();
            if call.number() == LATER {
                let told = Arc::clone(&self.0);
                std::thread::spawn(move || {
                    let _ = told.lock().recv();
                    reply.ok();
                });
            } else {
                reply.ok();
            }
        }
    }

    impl Kernel {
        fn with_threads(threads: usize) -> Self {
            Self::start(threads, None)
        }

        fn start(threads: usize, awake: Option<Awake>) -> Self {
            let (socket, device) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                    .unwrap();
            let (go_on, waits) = mpsc::channel();
            let device = Arc::new(Device::new(device).unwrap());
            let event_loop =
                Arc::new(EventLoop::new(device, Blocking(Arc::new(Mutex::new(waits))), awake));
            let threads = (0..threads).map(|_| {
                let event_loop = Arc::clone(&event_loop);
                std::thread::spawn(move || event_loop.run())
            });
            Self { socket, threads: threads.collect(), event_loop, go_on }
        }

        fn ask(&self, opcode: u32, unique: u64, nodeid: u64) {
            let mut request = Vec::new();
            request.extend(40u32.to_ne_bytes());
            request.extend(opcode.to_ne_bytes());
            request.extend(unique.to_ne_bytes());
            request.extend(nodeid.to_ne_bytes());
            request.extend([0; 16]);
            rustix::io::write(&self.socket, &request).unwrap();
        }

        /// The number of the request that is answered next.
        fn answered(&self) -> u64 {
            let mut answer = [0; 64];
            rustix::io::read(&self.socket, &mut answer).unwrap();
            u64::from_ne_bytes(answer[8..16].try_into().unwrap())
        }

        fn unmount(self) {
            self.ask(op::DESTROY, 99, 0);
            assert_eq!(self.answered(), 99);
            for thread in self.threads {
                thread.join().unwrap().unwrap();
            }
        }
    }

    #[test]
    fn processors_are_kept_awake_while_requests_come_fast_and_not_longer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let last = || {
            let asked = std::fs::read(file.path()).unwrap();
            i32::from_ne_bytes(*asked.last_chunk().unwrap())
        };
        let awake = Awake::new(file.reopen().unwrap(), 0, Duration::from_millis(4));
        let kernel = Kernel::start(3, awake);
        for unique in 2.. {
            kernel.ask(op::GETATTR, unique, unique);
            assert_eq!(kernel.answered(), unique);
            if last() == 0 {
                break;
            }
        }
        while last() != NO_BOUND {
            std::thread::sleep(STUCK);
        }
        kernel.unmount();
    }

    #[test]
    fn nobody_looks_for_the_next_request_while_an_answer_is_worked_on() {
        let kernel = Kernel::with_threads(1);
        let is_busy = || kernel.event_loop.busy.load(Ordering::Relaxed);
        for unique in 2.. {
            kernel.ask(op::GETATTR, unique, 2);
            assert_eq!(kernel.answered(), unique);
            if is_busy() {
                break;
            }
        }
        kernel.ask(op::FSYNC, 1, LATER);
        while is_busy() {
            std::thread::yield_now();
        }
        kernel.go_on.send(()).unwrap();
        assert_eq!(kernel.answered(), 1);
        kernel.unmount();
    }

    #[test]
    fn a_leader_that_is_stuck_is_relieved() {
        let kernel = Kernel::with_threads(2);
        kernel.ask(op::GETATTR, 1, 1);
        kernel.ask(op::GETATTR, 2, 2);
        assert_eq!(kernel.answered(), 2);
        kernel.go_on.send(()).unwrap();
        assert_eq!(kernel.answered(), 1);
        kernel.unmount();
    }

    #[test]
    fn who_relieves_a_leader_is_watched_too() {
        let kernel = Kernel::with_threads(3);
        for unique in [1, 2] {
            kernel.ask(op::GETATTR, unique, 1);
        }
        kernel.ask(op::GETATTR, 3, 3);
        assert_eq!(kernel.answered(), 3);
        for _ in [1, 2] {
            kernel.go_on.send(()).unwrap();
        }
        assert_eq!(kernel.answered() + kernel.answered(), 3);
        kernel.unmount();
    }

    #[test]
    fn a_leader_that_is_stuck_after_an_idle_time_is_relieved() {
        let kernel = Kernel::with_threads(3);
        while !kernel.event_loop.watcher_sleeps.load(Ordering::SeqCst) {
            std::thread::sleep(STUCK);
        }
        kernel.ask(op::GETATTR, 1, 1);
        kernel.ask(op::GETATTR, 2, 2);
        assert_eq!(kernel.answered(), 2);
        kernel.go_on.send(()).unwrap();
        assert_eq!(kernel.answered(), 1);
        kernel.unmount();
    }

    #[test]
    fn a_request_that_takes_long_lets_others_be_served() {
        let kernel = Kernel::with_threads(2);
        kernel.ask(op::READDIR, 1, 1);
        for unique in 2..100 {
            kernel.ask(op::GETATTR, unique, unique);
            assert_eq!(kernel.answered(), unique);
        }
        kernel.go_on.send(()).unwrap();
        assert_eq!(kernel.answered(), 1);
        kernel.unmount();
    }

    #[test]
    fn where_all_threads_are_stuck_the_first_that_is_not_goes_on() {
        let kernel = Kernel::with_threads(2);
        kernel.ask(op::READDIR, 1, 1);
        kernel.ask(op::READDIR, 2, 1);
        kernel.ask(op::GETATTR, 3, 3);
        kernel.go_on.send(()).unwrap();
        let first = kernel.answered();
        assert!([1, 2].contains(&first));
        assert_eq!(kernel.answered(), 3);
        kernel.go_on.send(()).unwrap();
        assert_eq!(kernel.answered(), 3 - first);
        kernel.unmount();
    }
}
