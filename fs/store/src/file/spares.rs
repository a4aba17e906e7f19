//! Empty files that were made ahead, for small objects that somebody waits for.
//!
//! Making a file takes long on some file systems (ext4 without a journal looks at every inode
//! that was deleted a short while ago), and a small object takes little else. What always holds:
//! who asks gets a file at once, made ahead or made now; at most a bounded number is kept.

use super::root::Temporary;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Files that are made in one go.
const BATCH: usize = 16;
/// Batches after which other directories are taken: where many files were made and removed, making
/// the next one gets slow (see `scatter` in `root`).
const BATCHES_PER_DIRECTORY: u64 = 64;
/// The next ones are made when so few are left: one batch.
const REFILL_FROM: usize = BATCH;

/// How far the thread that makes them stands back behind others.
const NICE: i32 = 10;

#[derive(Debug)]
pub(super) struct Spares {
    /// Batches lie in two directories of it in turn, so that making one does not hold up those who
    /// take a file out of the other.
    temporary: PathBuf,
    files: Mutex<VecDeque<Temporary>>,
    count: AtomicU64,
    refilling: AtomicBool,
    /// The thread that makes them now, or did last.
    thread: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

impl Spares {
    /// None yet; they will lie in `temporary`.
    pub(super) fn new(temporary: &Path) -> Arc<Spares> {
        Arc::new(Spares {
            temporary: temporary.to_owned(),
            files: Mutex::default(),
            count: AtomicU64::new(0),
            refilling: AtomicBool::new(false),
            thread: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// One that was made ahead, if there is one. Others are being made then.
    pub(super) fn take(self: &Arc<Self>) -> Option<Temporary> {
        let (file, left) = {
            let mut files = self.files.lock();
            (files.pop_front(), files.len())
        };
        if left <= REFILL_FROM && !self.refilling.swap(true, Ordering::AcqRel) {
            let this = Arc::clone(self);
            let refill = move || {
                // Whoever waits for something shall not wait for this.
                let _same = rustix::process::nice(NICE);
                // Who finds none makes one, and says what is wrong where that fails.
                let _failed = this.refill();
                this.refilling.store(false, Ordering::Release);
            };
            let mut thread = self.thread.lock();
            match std::thread::Builder::new().name("spares".into()).spawn(refill) {
                Ok(started) => *thread = Some(started),
                Err(_) => self.refilling.store(false, Ordering::Release),
            }
        }
        file
    }

    fn refill(&self) -> io::Result<()> {
        let batch = self.count.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory(batch);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(before) = batch.checked_sub(BATCHES_PER_DIRECTORY) {
            // Not while it has files that nobody took; the end of the store removes it as well.
            let _in_use = fs::remove_dir(self.directory(before));
        }
        let mut made = Vec::with_capacity(BATCH);
        for n in 0..BATCH {
            if self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            // Each may take long, and none of it is urgent.
            std::thread::yield_now();
            let path = directory.join(format!("{batch:x}.{n}"));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            made.push(Temporary { path, file, published: false });
        }
        // All at once: nobody takes one while its directory is locked for the next.
        self.files.lock().extend(made);
        Ok(())
    }

    fn directory(&self, batch: u64) -> PathBuf {
        let number = batch / BATCHES_PER_DIRECTORY * 2 + batch % 2;
        self.temporary.join(format!("spare{number:x}"))
    }

    /// Removes what is left; nobody makes or takes one any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            let _panicked = thread.join();
        }
        self.files.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn files_are_made_ahead_within_bounds_and_gone_when_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let spares = Spares::new(dir.path());
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut taken = Vec::new();
        while taken.len() < 100 {
            assert!(Instant::now() < deadline, "none is made");
            match spares.take() {
                Some(file) => taken.push(file),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(spares.files.lock().len() <= 2 * BATCH);
        }
        let mut paths: Vec<_> = taken.iter().map(|file| file.path.clone()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 100, "each is another one");
        drop(taken);
        spares.close();
        for entry in fs::read_dir(dir.path()).expect("lists") {
            let directory = entry.expect("lists").path();
            assert_eq!(fs::read_dir(directory).expect("lists").count(), 0);
        }
    }
}
