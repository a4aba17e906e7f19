//! The store's directory and what one opening of it holds: its temporary files, its locks, its
//! knowledge of which directories are durable.
//!
//! ```text
//! ROOT/.yadokari/format          what this directory is, and its version
//! ROOT/.yadokari/reserve         space kept for metadata when the disk is full
//! ROOT/.yadokari/open.lock       held while a store is being opened
//! ROOT/.yadokari/journal.lock     held by the opening that may journal
//! ROOT/.yadokari/lock/NN         one per shard of paths: held by whoever replaces or removes
//! ROOT/.yadokari/tmp/ID.lock     held for as long as the opening ID lives
//! ROOT/.yadokari/tmp/ID/…        files of ID that are not yet objects
//! ROOT/.yadokari/tmp/ID.N.journal  small objects of ID that may not be durable as files
//! ```
//!
//! Several processes may have one directory open. Whose lock can be taken is dead, and its
//! journal is made good and its temporary files are removed by the next one that opens the store.

use super::direct::Direct;
use super::footer::Tag;
use super::journal::{self, Journal};
use super::names::OWN;
use super::reserve::Reserve;
use super::spares::Spares;
use crate::error::StoreError;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, CWD, IFlags, StatxFlags};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FORMAT: &str = "yadokari file store 2\n";
/// Without journals: everything else is the same. A release that does not know them would not
/// make them good, so it must refuse the store.
const FORMAT_BEFORE: &str = "yadokari file store 1\n";
/// Two writers of different paths rarely meet in a shard; 64 files are opened as they are needed.
const LOCK_SHARDS: usize = 64;
/// A lock is held for a rename. Whoever waits longer waits for a process that is stopped.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bounds the memory of the list of durable directories; it is only a saving of system calls.
const DURABLE_DIRECTORIES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    temporary: PathBuf,
    instance: u64,
    count: AtomicU64,
    locks: Vec<Mutex<Option<File>>>,
    /// Directories whose names are known to be durable up to the root.
    durable: Mutex<HashMap<PathBuf, Made>>,
    pub(super) reserve: Reserve,
    pub(super) journal: Arc<Journal>,
    pub(super) direct: Direct,
    spares: Arc<Spares>,
    /// Held locked until the store is dropped or the process dies.
    _alive: File,
}

/// Which directory of a name it is: inode numbers come again, with another time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made(u64, Option<(i64, u32)>);

impl Made {
    /// Of an open directory, or with `name` of the one that has this name.
    ///
    /// Nothing is asked about the last change. Who asks makes the kernel tell the next change of
    /// any file apart, to the nanosecond, and then each sync of the journal writes its inode too.
    fn of(directory: impl AsFd, name: &Path) -> io::Result<Made> {
        let (flags, asked) = (AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME);
        let found = rustix::fs::statx(directory, name, flags, asked)?;
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth = (found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
        Ok(Made(found.stx_ino, has_birth.then_some(birth)))
    }
}

impl Root {
    /// Opens or makes the store in `path`. Blocks.
    pub(super) fn open(path: &Path, reserve_bytes: Option<u64>) -> Result<Root, StoreError> {
        let what = format!("directory {}", path.display());
        Root::open_io(path, reserve_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                let remedy = "give this user write access to it, or name another".to_owned();
                StoreError::Denied { what, remedy }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::NotADirectory => {
                let remedy = error.to_string();
                StoreError::Invalid { what, remedy }
            }
            _ => StoreError::Failed { operation: "opening", what, source: error.into() },
        })
    }

    fn open_io(path: &Path, reserve_bytes: Option<u64>) -> io::Result<Root> {
        make_durable_directory(path)?;
        let own = path.join(OWN);
        if !own.is_dir() {
            refuse_foreign(path)?;
        }
        for directory in [own.clone(), own.join("lock"), own.join("tmp")] {
            fs::create_dir_all(directory)?;
        }
        let opening = lock_file(&own.join("open.lock"))?;
        opening.lock()?;
        check_format(&own)?;
        sweep(path, &own.join("tmp"))?;
        scatter(&own.join("tmp"));
        let instance: u64 = rand::random();
        let temporary = own.join("tmp").join(format!("{instance:016x}"));
        let alive = lock_file(&temporary.with_extension("lock"))?;
        alive.lock()?;
        fs::create_dir(&temporary)?;
        scatter(&temporary);
        sync_directory(&own)?;
        Ok(Root {
            path: path.to_owned(),
            journal: Journal::new(path, &temporary),
            spares: Spares::new(&temporary),
            direct: Direct::default(),
            temporary,
            instance,
            count: AtomicU64::new(0),
            locks: (0..LOCK_SHARDS).map(|_| Mutex::new(None)).collect(),
            durable: Mutex::new(HashMap::new()),
            reserve: Reserve::open(&own, reserve_bytes)?,
            _alive: alive,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the next version that this opening writes.
    pub(super) fn next_tag(&self) -> Tag {
        Tag { instance: self.instance, count: self.count.fetch_add(1, Ordering::Relaxed) }
    }

    pub(super) fn temporary(&self) -> io::Result<Temporary> {
        let name = format!("{:x}", self.count.fetch_add(1, Ordering::Relaxed));
        let path = self.temporary.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Temporary { path, file, published: false })
    }

    /// Likewise, for somebody who waits: one that was made ahead where there is one.
    pub(super) fn temporary_at_once(&self) -> io::Result<Temporary> {
        self.spares.take().map_or_else(|| self.temporary(), Ok)
    }

    /// Excludes every other replacement and removal of the object, in all processes.
    pub(super) fn lock(&self, object: &Path) -> io::Result<Locked<'_>> {
        let hash = blake3::hash(object.as_os_str().as_encoded_bytes());
        let shard = usize::from(hash.as_bytes()[0]) % LOCK_SHARDS;
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        let busy = || io::Error::new(io::ErrorKind::TimedOut, "its lock is held by a process");
        let mut slot = self.locks[shard].try_lock_until(deadline).ok_or_else(busy)?;
        if slot.is_none() {
            *slot = Some(lock_file(&self.path.join(OWN).join(format!("lock/{shard:02}")))?);
        }
        let mut pause = Duration::from_micros(50);
        loop {
            let file = slot.as_ref().expect("the file was opened above");
            match file.try_lock() {
                Ok(()) => return Ok(Locked(slot)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Makes a directory below the root, and those above it. They are durable with the first
    /// name in them.
    pub(super) fn make_directory(&self, directory: &Path) -> io::Result<()> {
        let Some(parent) = directory.strip_prefix(&self.path).ok().and(directory.parent()) else {
            return Ok(());
        };
        let make = || match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && parent != self.path => {
                self.make_directory(parent)?;
                make()
            }
            made => made,
        }
    }

    /// Makes the names in a directory durable, and its own up to the root. A directory that is
    /// gone had its last name removed meanwhile, which leaves nothing to do.
    pub(super) fn sync_names(&self, directory: &Path) -> io::Result<()> {
        let mut synced = Vec::new();
        let mut at = directory;
        loop {
            let file = match File::open(at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                file => file?,
            };
            file.sync_all()?;
            let made = Made::of(&file, Path::new(""))?;
            if self.durable.lock().get(at) == Some(&made) {
                break;
            }
            synced.push((at.to_owned(), made));
            match at.parent() {
                Some(parent) if at != self.path => at = parent,
                _ => break,
            }
        }
        let mut durable = self.durable.lock();
        if durable.len() + synced.len() > DURABLE_DIRECTORIES_MAX {
            durable.clear();
        }
        durable.extend(synced);
        Ok(())
    }

    /// True when the names in a directory are durable once they are synced.
    pub(super) fn is_durable(&self, directory: &Path) -> bool {
        let known = self.durable.lock().get(directory).copied();
        known.is_some() && Made::of(CWD, directory).ok() == known
    }

    /// Removes directories that hold nothing, from this one up to the root.
    pub(super) fn prune(&self, directory: &Path) {
        let mut directory = directory;
        while directory != self.path && fs::remove_dir(directory).is_ok() {
            let Some(parent) = directory.parent() else {
                return;
            };
            directory = parent;
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.spares.close();
        if let Err(error) = self.journal.close() {
            // The next opening makes it good.
            tracing::warn!(%error, "the journal of the store stays");
            return;
        }
        // What cannot be removed now is removed by the next opening.
        let _swept = fs::remove_dir_all(&self.temporary)
            .and_then(|()| fs::remove_file(self.temporary.with_extension("lock")));
    }
}

/// A shard of paths that no other writer replaces or removes anything in.
pub(super) struct Locked<'a>(MutexGuard<'a, Option<File>>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0.as_ref()
            && file.unlock().is_err()
        {
            // Closing gives the lock back whatever happened.
            *self.0 = None;
        }
    }
}

/// A file that is not yet an object; removed unless it becomes one.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) published: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _swept_later = fs::remove_file(&self.path);
        }
    }
}

/// Asks the file system to put the directories in this one far from each other. Files are made
/// near their directory, and ext4 without a journal looks at every inode there that was deleted in
/// the last minute and a half before it takes one: a millisecond for each file where somebody
/// removed a large tree, twenty microseconds elsewhere. File systems that do not know the wish do
/// as they always do.
fn scatter(directory: &Path) {
    let wish = || -> io::Result<()> {
        let directory = File::open(directory)?;
        let flags = rustix::fs::ioctl_getflags(&directory)?;
        Ok(rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
    };
    if let Err(error) = wish() {
        tracing::debug!(directory = %directory.display(), %error, "not scattered");
    }
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub(super) fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn make_durable_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_durable_directory(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_directory(parent)?,
        }
    }
    Ok(())
}

/// A directory with other things in it is most likely a mistyped one.
fn refuse_foreign(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != "lost+found" && name != OWN {
            let why = format!(
                "it is not empty (`{}` lies in it) and no store: name an empty or new directory",
                name.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    }
    Ok(())
}

fn check_format(own: &Path) -> io::Result<()> {
    let path = own.join("format");
    match fs::read_to_string(&path) {
        Ok(text) if text == FORMAT => Ok(()),
        Ok(text) if text == FORMAT_BEFORE => write_format(&path),
        Ok(text) if !text.is_empty() => {
            let why = format!("it is `{}`, this program reads `{}`", text.trim(), FORMAT.trim());
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
        // Empty: whoever made it was cut off before there could be any object.
        Ok(_) => write_format(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(&path),
        Err(error) => Err(error),
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()
}

/// Makes good and removes what dead processes left. What cannot be removed is left to the next
/// opening; what cannot be made good is an error.
pub(super) fn sweep(root: &Path, temporary: &Path) -> io::Result<()> {
    for entry in fs::read_dir(temporary)? {
        let lock = entry?.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Some(_dead) = lock_file(&lock).ok().filter(|file| file.try_lock().is_ok()) else {
            continue;
        };
        let stem = lock.with_extension("");
        journal::replay(root, &stem, |target, content| restore(&stem, target, content))?;
        let _gone = fs::remove_dir_all(&stem);
        let _gone = fs::remove_file(&lock);
    }
    Ok(())
}

/// Makes a dead process's object again as a file; its directory is synced by the caller.
fn restore(own: &Path, target: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(directory) = target.parent() {
        make_durable_directory(directory)?;
    }
    fs::create_dir_all(own)?;
    let temporary = own.join("restored");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&temporary, target)
}
