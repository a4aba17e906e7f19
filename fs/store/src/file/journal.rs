//! The journal: small new objects are durable after one sync of a file that is there already.
//!
//! A put that makes a file, syncs it, renames it and syncs the directory costs two commits of the
//! file system's own journal. So a small `Create` first becomes a record in a file whose blocks
//! were written before, where syncing changes no metadata; then the object's file is made as
//! always, but not synced. Later all of them are synced at once, and the records' place is free.
//!
//! What always holds:
//! 1. An object that was acknowledged is on the disk as a file, or as a record here that nobody
//!    voided, or both.
//! 2. Its file is seen by nobody before its record is durable.
//! 3. Whoever removes an object voids its record, in whosever journal, before the removal is
//!    acknowledged; so does a put that did not make its object.
//! 4. At most one opening has the right to journal, for as long as it lives, and it makes good
//!    what the dead left before it begins; the others go the long way. So there are never two
//!    records of one name of which one might be acknowledged and the other not.
//! 5. The next opening of the store after a crash puts right what a dead opening's records say
//!    before it answers anything: a file that is missing or torn is written again ([`replay`]).
//!
//! ```text
//! ROOT/.yadokari/journal.lock                        held by who has the right
//! ROOT/.yadokari/tmp/ID.0.journal, ID.1.journal     written in turn, each of SEGMENT_BYTES
//! ```
//!
//! `record` has the form of these files.

mod record;

use parking_lot::Mutex;
pub(super) use record::OBJECT_BYTES_MAX;
use record::{Key, PAGE, RECORD_HEAD, VOID_MAGIC, encode, records, segment_head};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Some five hundred commits; they are synced one by one, in the background.
const SEGMENT_BYTES: u64 = 4 << 20;
/// How often what a full segment holds is looked at again while puts are under way.
const SETTLE_TRIES_MAX: u32 = 1000;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// A lock is held for a scan. Whoever waits longer waits for a process that is stopped.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// The journal of one opening.
#[derive(Debug)]
pub(super) struct Journal {
    root: PathBuf,
    /// `tmp/ID`, to which `.N.journal` is added.
    stem: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    segments: [Option<Segment>; 2],
    /// Where the next record goes.
    current: usize,
    generation: u64,
    /// The lock that says who may journal.
    right: Option<File>,
    /// Records that are neither void nor synced as files, by name.
    pending: HashMap<PathBuf, Place>,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    key: Key,
    generation: u64,
    end: u64,
    state: SegmentState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentState {
    Open,
    /// Its objects are being synced, or could not be: it takes no more records.
    Full,
    /// All of its objects are durable as files.
    Free,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: usize,
    generation: u64,
    at: u64,
}

/// A record that was written and whose object's file is to be made now.
#[derive(Debug)]
pub(super) struct Written {
    name: PathBuf,
    place: Place,
}

impl Journal {
    /// An empty journal; its files are made with the first record.
    pub(super) fn new(root: &Path, stem: &Path) -> Arc<Journal> {
        let (root, stem) = (root.to_owned(), stem.to_owned());
        Arc::new(Journal { root, stem, inner: Mutex::default() })
    }

    /// Makes a record of an object's file durable. None: there is no room now, or it cannot be
    /// written; the put goes the long way.
    pub(super) fn write(self: &Arc<Self>, name: &Path, content: &[&[u8]]) -> Option<Written> {
        let length: usize = content.iter().map(|slice| slice.len()).sum();
        let room = (RECORD_HEAD + name.as_os_str().len() + length) as u64;
        if length > OBJECT_BYTES_MAX || room > SEGMENT_BYTES - PAGE {
            return None;
        }
        let (place, file, key) = self.reserve(name, room.next_multiple_of(PAGE))?;
        let record = encode(name, content, length, &key);
        let written = file.write_all_at(&record, place.at).and_then(|()| file.sync_data());
        let written_record = Written { name: name.to_owned(), place };
        match written {
            Ok(()) => Some(written_record),
            Err(error) => {
                tracing::warn!(%error, "the journal of the store cannot be written");
                let _as_good_as_it_goes = self.revoke(&written_record);
                // No more records here.
                if let Some(segment) = self.inner.lock().segments[place.segment].as_mut() {
                    segment.end = SEGMENT_BYTES;
                }
                None
            }
        }
    }

    /// The object's file was not made: the record must not make it later.
    pub(super) fn revoke(&self, written: &Written) -> io::Result<()> {
        let file = {
            let mut inner = self.inner.lock();
            inner.pending.remove(&written.name);
            inner.void(written.place)?
        };
        file.map_or(Ok(()), |file| file.sync_data())
    }

    /// Voids the records of objects whose files were just removed, in all journals.
    pub(super) fn removed(&self, names: &[PathBuf]) -> io::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let mut files: [Option<Arc<File>>; 2] = Default::default();
        {
            let mut inner = self.inner.lock();
            for name in names {
                let Some(place) = inner.pending.remove(name) else { continue };
                files[place.segment] = inner.void(place)?;
            }
        }
        for file in files.iter().flatten() {
            file.sync_data()?;
        }
        let own = [path_of(&self.stem, 0), path_of(&self.stem, 1)];
        for other in journals_in(self.stem.parent().unwrap_or(&self.root))? {
            if !own.contains(&other) {
                void_in_other(&other, names)?;
            }
        }
        Ok(())
    }

    /// Makes all objects durable as files and removes the journal's own: a clean end. Puts may
    /// follow, which begin it anew.
    pub(super) fn close(&self) -> io::Result<()> {
        for segment in 0..2 {
            self.settle(segment)?;
        }
        // Under the lock, so that no record comes into a file that is removed.
        let mut inner = self.inner.lock();
        for segment in 0..2 {
            let used = inner.segments[segment].as_ref().map(|segment| segment.state);
            if used.is_some_and(|state| state != SegmentState::Free) {
                return Err(io::Error::other("a put is under way"));
            }
            match fs::remove_file(path_of(&self.stem, segment)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            inner.segments[segment] = None;
        }
        inner.right = None;
        Ok(())
    }

    /// The right to journal, if no other living opening has it. What dead ones left is made good.
    fn claim_right(&self) -> io::Result<Option<File>> {
        let Some(temporary) = self.stem.parent() else { return Ok(None) };
        let Some(own) = temporary.parent() else { return Ok(None) };
        let right = super::root::lock_file(&own.join("journal.lock"))?;
        let opening = super::root::lock_file(&own.join("open.lock"))?;
        if right.try_lock().is_err() || opening.try_lock().is_err() {
            return Ok(None);
        }
        super::root::sweep(&self.root, temporary)?;
        Ok(Some(right))
    }

    /// A place for a record in the current segment, or in the other one when that is full.
    fn reserve(self: &Arc<Self>, name: &Path, room: u64) -> Option<(Place, Arc<File>, Key)> {
        let mut inner = self.inner.lock();
        // A record of this name that is still of use is not lost out of sight.
        if inner.pending.contains_key(name) {
            return None;
        }
        let fits = |segment: &Segment| {
            segment.state == SegmentState::Open && segment.end + room <= SEGMENT_BYTES
        };
        let current = inner.current;
        if !inner.segments[current].as_ref().is_some_and(fits) {
            let next = if inner.segments[current].is_none() { current } else { 1 - current };
            let full = inner.segments[current].as_mut().filter(|s| s.state == SegmentState::Open);
            if let Some(full) = full {
                full.state = SegmentState::Full;
                self.settle_later(current);
            }
            if inner.segments[next].as_ref().is_some_and(|s| s.state == SegmentState::Full) {
                return None;
            }
            if inner.right.is_none() {
                inner.right = self.claim_right().unwrap_or_else(|error| {
                    tracing::warn!(%error, "no right to journal");
                    None
                });
                inner.right.as_ref()?;
            }
            let generation = inner.generation + 1;
            match self.begin(inner.segments[next].as_ref(), next, generation) {
                Ok(segment) => inner.segments[next] = Some(segment),
                Err(error) => {
                    tracing::debug!(%error, "no journal");
                    return None;
                }
            }
            inner.generation = generation;
            inner.current = next;
        }
        let current = inner.current;
        let segment = inner.segments[current].as_mut()?;
        let place = Place { segment: current, generation: segment.generation, at: segment.end };
        segment.end += room;
        let (file, key) = (Arc::clone(&segment.file), segment.key);
        inner.pending.insert(name.to_owned(), place);
        Some((place, file, key))
    }

    /// Makes a segment's file, or takes the one that is free, for a new generation.
    fn begin(&self, old: Option<&Segment>, index: usize, generation: u64) -> io::Result<Segment> {
        let path = path_of(&self.stem, index);
        let file = match old {
            Some(old) => Arc::clone(&old.file),
            // What a disk that is full took of it is of no use.
            None => Arc::new(make_segment(&path).inspect_err(|_| {
                let _not_made = fs::remove_file(&path);
            })?),
        };
        // Others look for records to void under this lock; they see either generation whole.
        file.try_lock().map_err(io::Error::from)?;
        let key: Key = rand::random();
        let begun = file.write_all_at(&segment_head(&key), 0).and_then(|()| file.sync_data());
        file.unlock()?;
        begun?;
        Ok(Segment { file, key, generation, end: PAGE, state: SegmentState::Open })
    }

    fn settle_later(self: &Arc<Self>, segment: usize) {
        let journal = Arc::clone(self);
        let settle = move || {
            for _ in 0..SETTLE_TRIES_MAX {
                match journal.settle(segment) {
                    Ok(true) => return,
                    Ok(false) => std::thread::sleep(SETTLE_PAUSE),
                    Err(error) => {
                        tracing::warn!(%error, "small objects stay in the journal of the store");
                        return;
                    }
                }
            }
        };
        let started = std::thread::Builder::new().name("journal".into()).spawn(settle);
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to sync what the journal of the store holds");
        }
    }

    /// Makes the objects of one segment durable as files; then its records are of no use. False
    /// while a put of one of them is under way.
    fn settle(&self, segment: usize) -> io::Result<bool> {
        let names: Vec<PathBuf> = {
            let inner = self.inner.lock();
            let here = inner.pending.iter().filter(|(_, place)| place.segment == segment);
            here.map(|(name, _)| name.clone()).collect()
        };
        let (mut directories, mut synced) = (BTreeSet::new(), Vec::new());
        for name in names {
            let path = self.root.join(&name);
            match File::open(&path) {
                Ok(file) => file.sync_data()?,
                // Removed since; or its put is about to make it, whose record then stays.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            directories.extend(path.parent().map(Path::to_owned));
            synced.push(name);
        }
        for directory in &directories {
            match File::open(directory) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut inner = self.inner.lock();
        for name in &synced {
            if inner.pending.get(name).is_some_and(|place| place.segment == segment) {
                inner.pending.remove(name);
            }
        }
        let left = inner.pending.values().any(|place| place.segment == segment);
        if let Some(segment) = inner.segments[segment].as_mut()
            && !left
        {
            segment.state = SegmentState::Free;
        }
        Ok(!left)
    }
}

/// A segment's file, full of zeros: they are written, not only allocated, so that syncing a
/// record changes no metadata.
fn make_segment(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let zeros = vec![0; 256 << 10];
    for at in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    path.parent().map_or(Ok(()), super::root::sync_directory)?;
    Ok(file)
}

impl Inner {
    /// Voids a record, with the journal locked: else its place might be another one's by now.
    /// Gives the file that is to be synced.
    fn void(&self, place: Place) -> io::Result<Option<Arc<File>>> {
        let segment = self.segments[place.segment].as_ref();
        match segment.filter(|segment| segment.generation == place.generation) {
            None => Ok(None),
            Some(segment) => {
                segment.file.write_all_at(VOID_MAGIC, place.at)?;
                Ok(Some(Arc::clone(&segment.file)))
            }
        }
    }
}

fn path_of(stem: &Path, segment: usize) -> PathBuf {
    stem.with_extension(format!("{segment}.journal"))
}

/// The files of all journals.
fn journals_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Voids records in the journal of another opening, alive or dead.
fn void_in_other(path: &Path, names: &[PathBuf]) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        // It closed meanwhile: all of its objects are durable as files, or removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            error => return Err(error.into()),
        }
    }
    let mut voided = false;
    for record in records(&file)? {
        if !record.void && names.contains(&record.name) {
            file.write_all_at(VOID_MAGIC, record.at)?;
            voided = true;
        }
    }
    if voided { file.sync_data() } else { Ok(()) }
}

/// Puts right what the records of a dead opening say, and removes its journal.
///
/// # Errors
/// What the disk says: then nothing in the store can be trusted to be there yet.
pub(super) fn replay(
    root: &Path,
    stem: &Path,
    restore: impl Fn(&Path, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    for segment in 0..2 {
        let path = path_of(stem, segment);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut directories = BTreeSet::new();
        for record in records(&file)?.into_iter().filter(|record| !record.void) {
            let target = root.join(&record.name);
            match fs::read(&target) {
                Ok(now) if now == record.content => File::open(&target)?.sync_data()?,
                // Replaced since, by a put that was durable before it was seen.
                Ok(now) if is_another(&now, &record.content) => continue,
                Ok(_torn) => restore(&target, &record.content)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    restore(&target, &record.content)?;
                }
                Err(error) => return Err(error),
            }
            directories.extend(target.parent().map(Path::to_owned));
        }
        for directory in &directories {
            super::root::sync_directory(directory)?;
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// Whether a file is a whole object, and of another version than this content.
fn is_another(now: &[u8], content: &[u8]) -> bool {
    let whole = |bytes: &[u8]| {
        let footer = super::footer::parse(bytes, bytes.len() as u64).ok()?;
        super::footer::verify(bytes, &footer).ok()?;
        Some(footer.tag)
    };
    whole(now).is_some_and(|tag| Some(tag) != whole(content))
}

#[cfg(test)]
mod tests;
