//! What a home keeps in memory: inodes, directories, references, counters, and the running
//! transaction. One lock guards it, held for microseconds and never across a wait.
//!
//! Every operation is a function over [`State`] that either finishes, or asks for what is not in
//! memory ([`Need`]) before it has changed anything; the caller loads that and starts it again.
//! What differs from the database is never evicted.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::capture::Capture;
use super::error::{Error, ErrorKind};
use super::extent::ExtentMap;
use super::key;
use super::maps::HashMap;
use super::mutants::{self, Mutant};
use super::parked::Parked;
use super::readahead::ReadAhead;
use super::record::{Bucket, Counters, EntryRecord, InlineExtents, InodeRecord};
use super::references::References;
use super::tidy::UntidyFiles;
use super::transaction::Transaction;
use super::types::{Attr, Change, ClientId, Ino, Kind, Name, Quota, Time};

/// Inode numbers that a directory takes at a time for its children, so that they lie together.
const INO_BLOCK: u64 = 64;
/// A directory with at most this many names is read whole at the first look.
const DIR_WHOLE_MAX: u64 = 512;
/// This many single looks into a larger directory, and it is read whole too, if it has less than
/// `DIR_LARGE_MAX` names.
const DIR_LOOKS_MAX: u32 = 64;
const DIR_LARGE_MAX: u64 = 50_000;
/// Rows of a directory that one load reads.
pub const DIR_ROWS: usize = 4096;
/// Names that are kept for each inode that may be kept; one costs a tenth of an inode.
const NAMES_PER_INODE: usize = 4;
/// Windows of extents that one load reads.
pub const WINDOWS_MAX: u64 = 64;

/// What an operation must have in memory before it can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Inodes; sorted.
    Inodes(Vec<Ino>),
    /// Inodes of a listing, sorted; and likewise those that its next parts will show, of which
    /// the records are enough.
    Listed(Vec<Ino>, Vec<Ino>),
    /// One bucket of a directory.
    Bucket(Ino, u64),
    /// More of a directory, from a hash on.
    Dir(Ino, u64),
    /// Windows of a file's extents.
    Extents(Ino, Range<u64>),
    /// All extended attributes of an inode.
    Xattrs(Ino),
}

/// Why an operation over the state stopped.
#[derive(Debug)]
pub enum Stop {
    /// Load this and start again.
    Need(Need),
    /// Wait for the running commit and start again.
    Gate,
    /// Too much is not in the store yet: wait until less is, and start again.
    Behind,
    /// It failed.
    Fail(Error),
}

impl From<ErrorKind> for Stop {
    fn from(kind: ErrorKind) -> Self {
        Self::Fail(kind.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fail(error)
    }
}

/// The result of a step over the state.
pub type Step<T> = Result<T, Stop>;

/// One bucket in memory; empty where the directory has no such name.
#[derive(Debug)]
pub struct Slot {
    /// The entries.
    pub bucket: Bucket,
    /// The database has a record of it.
    pub saved: bool,
}

/// The names of a directory in memory.
#[derive(Debug)]
pub struct Dir {
    /// By hash of the name.
    pub buckets: BTreeMap<u64, Slot>,
    /// All buckets below this hash are known.
    pub known_to: u64,
    looks: u32,
    numbers: Range<u64>,
}

impl Dir {
    /// A directory of which nothing is known yet.
    pub fn unknown() -> Self {
        Self { buckets: BTreeMap::new(), known_to: 0, looks: 0, numbers: 0..0 }
    }

    /// A directory that was just made: all of it is known.
    pub fn empty() -> Self {
        Self { known_to: u64::MAX, ..Self::unknown() }
    }
}

/// The part of a file's attributes that commits only with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPart {
    /// Size.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Charged bytes.
    pub charged: u64,
}

/// The contents of a file in memory.
#[derive(Debug)]
pub struct File {
    /// As readers see it.
    pub extents: ExtentMap,
    /// What the database shows until the next capture is durable; `None`: the attributes.
    pub durable: Option<DataPart>,
    /// The extents of the inode record, as last made durable. `None`: records of their own.
    pub inline: Option<InlineExtents>,
    /// The last capture (in flight or not) made extents records of their own.
    pub keyed: bool,
    /// Captures in flight, oldest first.
    pub captures: VecDeque<Arc<Capture>>,
    /// Bytes written since the last capture.
    pub fresh_bytes: u64,
    /// When the oldest uncaptured change was made.
    pub fresh_since: Option<Instant>,
    /// The last capture's unfinished block: offset and content, kept to cut it whole later.
    pub tail: Option<(u64, Bytes)>,
    /// How far the file is read from front to back, and fetched ahead of that.
    pub readahead: ReadAhead,
}

impl File {
    /// A new, empty file.
    pub fn new() -> Self {
        Self::with(ExtentMap::complete(&[]), Some(InlineExtents::new()))
    }

    fn with(extents: ExtentMap, inline: Option<InlineExtents>) -> Self {
        Self {
            extents,
            durable: None,
            keyed: inline.is_none(),
            inline,
            captures: VecDeque::new(),
            fresh_bytes: 0,
            fresh_since: None,
            tail: None,
            readahead: ReadAhead::default(),
        }
    }
}

/// An inode in memory.
#[derive(Debug)]
pub struct Inode {
    /// As `stat` shows it.
    pub attr: Attr,
    /// The directory above (directories only).
    pub parent: Ino,
    /// Names in the directory.
    pub entries: u64,
    /// Target of a link.
    pub target: Bytes,
    /// Bytes of the values of its extended attributes.
    pub xattr_bytes: u32,
    /// How many it has.
    pub xattr_count: u32,
    /// They, once loaded.
    pub xattrs: Option<BTreeMap<Bytes, Bytes>>,
    /// The names of a directory.
    pub dir: Option<Box<Dir>>,
    /// The contents of a file.
    pub file: Option<Box<File>>,
    /// What the database charges for it; `None`: it has no record there.
    pub saved: Option<u64>,
    /// The last transaction that changes it.
    pub changed: u64,
    /// The transaction that says in the database that it has no name any more.
    pub orphaned: Option<u64>,
    /// Gone for good; here until the database knows.
    pub dead: bool,
    /// Looked at since the last round of eviction.
    pub used: bool,
}

impl Inode {
    /// A new inode that the database does not know.
    pub fn new(attr: Attr) -> Self {
        Self {
            attr,
            parent: Ino(0),
            entries: 0,
            target: Bytes::new(),
            xattr_bytes: 0,
            xattr_count: 0,
            xattrs: Some(BTreeMap::new()),
            dir: (attr.kind == Kind::Dir).then(|| Box::new(Dir::empty())),
            file: (attr.kind == Kind::File).then(|| Box::new(File::new())),
            saved: None,
            changed: 0,
            orphaned: None,
            dead: false,
            used: true,
        }
    }

    /// An inode as its record says.
    pub fn from_record(record: InodeRecord) -> Self {
        let charged = record.charged();
        let file = (record.attr.kind == Kind::File).then(|| {
            let extents = match &record.inline {
                Some(list) => ExtentMap::complete(list),
                None => ExtentMap::unknown(),
            };
            Box::new(File::with(extents, record.inline.clone()))
        });
        Self {
            parent: record.parent,
            entries: record.entries,
            target: record.target,
            xattr_bytes: record.xattr_bytes,
            xattr_count: record.xattrs,
            xattrs: (record.xattrs == 0).then(BTreeMap::new),
            dir: (record.attr.kind == Kind::Dir).then(|| Box::new(Dir::unknown())),
            file,
            saved: Some(charged),
            ..Self::new(record.attr)
        }
    }

    /// The record to commit: data that is not durable yet shows as it was.
    pub fn record(&self) -> InodeRecord {
        let mut attr = self.attr;
        // A file whose contents are being freed still has extents of its own in the database.
        let freeing = attr.kind == Kind::File && self.file.is_none();
        let mut inline = (!freeing).then(InlineExtents::new);
        if let Some(file) = &self.file {
            if let Some(durable) = file.durable
                && !mutants::is(Mutant::SizeBeforeData)
            {
                attr.size = durable.size;
                attr.mtime = durable.mtime;
                attr.charged = durable.charged;
            }
            inline.clone_from(&file.inline);
        }
        InodeRecord {
            attr,
            parent: self.parent,
            entries: self.entries,
            xattr_bytes: self.xattr_bytes,
            xattrs: self.xattr_count,
            target: self.target.clone(),
            inline,
        }
    }

    /// Names of a directory that are in memory.
    fn names(&self) -> usize {
        self.dir.as_ref().map_or(0, |dir| dir.buckets.len())
    }

    fn is_idle(&self, written: u64) -> bool {
        (self.changed <= written || mutants::is(Mutant::EvictChanged))
            && self.orphaned.is_none()
            && self.file.as_ref().is_none_or(|f| {
                f.durable.is_none() && f.captures.is_empty() && f.extents.is_saved()
            })
    }
}

/// Everything of a home that is in memory.
#[derive(Debug)]
pub struct State {
    /// Inodes, with their names, contents and attributes.
    pub inodes: HashMap<Ino, Box<Inode>>,
    /// Records of inodes and names that are not in memory.
    pub parked: Parked,
    /// References that clients hold.
    pub clients: BTreeMap<ClientId, References>,
    next_client: u32,
    /// As the next commit will say.
    pub counters: Counters,
    /// Charged bytes, at this moment.
    pub bytes: u64,
    /// Inodes, at this moment.
    pub inodes_used: u64,
    /// Limits.
    pub quota: Quota,
    /// The running transaction.
    pub txn: Transaction,
    /// The last transaction that the database shows (durable or not).
    pub written: u64,
    /// Counts evictions, so that a load that overlaps one is done again.
    pub evictions: u64,
    /// Files with changes of data that are not captured, and since when.
    pub fresh: BTreeMap<Ino, Instant>,
    /// Captures in memory.
    pub flying: Arc<AtomicUsize>,
    /// Orphans that nobody uses any more.
    pub reap: BTreeSet<Ino>,
    /// Files with blocks in many pieces or in small values.
    pub untidy: UntidyFiles,
    /// Small values that the database does not show yet.
    pub unwritten: HashMap<u64, Bytes>,
    /// Files that keep a tail, oldest first.
    pub tails: VecDeque<Ino>,
    /// A commit waits for carried data: renames that would carry more wait for it.
    pub gate_closed: bool,
    /// Bytes in small values.
    pub small_bytes: u64,
    /// Set when nothing is acknowledged any more.
    pub failed: Option<Error>,
    /// What other clients must learn of; collected only while there are several.
    pub changes: Vec<Change>,
    /// Where the round of eviction stopped.
    hand: Vec<Ino>,
    /// Names in memory, of all directories.
    pub names: usize,
    /// Inodes without a name that are still used: they stay in memory.
    orphans: usize,
    /// With fewer names than this there is no use in looking for some to evict.
    names_next: usize,
    /// Likewise for inodes.
    inodes_next: usize,
    /// Directories stay for this round of eviction: there are not too many.
    keep_dirs: bool,
}

impl State {
    /// The state of a home whose counters are `counters`, with at most about `inodes_max` inodes
    /// in memory.
    pub fn new(counters: Counters, quota: Quota, txn: u64, inodes_max: usize) -> Self {
        Self {
            inodes: HashMap::default(),
            parked: Parked::new(inodes_max),
            clients: BTreeMap::new(),
            next_client: 1,
            bytes: counters.bytes,
            inodes_used: counters.inodes,
            counters,
            quota,
            txn: Transaction::new(txn),
            written: txn - 1,
            evictions: 0,
            fresh: BTreeMap::new(),
            flying: Arc::default(),
            reap: BTreeSet::new(),
            untidy: UntidyFiles::default(),
            unwritten: HashMap::default(),
            tails: VecDeque::new(),
            gate_closed: false,
            small_bytes: 0,
            failed: None,
            changes: Vec::new(),
            hand: Vec::new(),
            names: 0,
            orphans: 0,
            names_next: 0,
            inodes_next: 0,
            keep_dirs: false,
        }
    }

    /// Fails where nothing is acknowledged any more.
    pub fn check(&self) -> Step<()> {
        self.failed.as_ref().map_or(Ok(()), |e| Err(Stop::Fail(e.clone())))
    }

    /// A living inode.
    pub fn inode(&mut self, ino: Ino) -> Step<&mut Inode> {
        let inode = match self.inodes.entry(ino) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => match self.parked.take(ino) {
                Some(record) => place.insert(Box::new(Inode::from_record(record))),
                None => return Err(Stop::Need(Need::Inodes(vec![ino]))),
            },
        };
        if inode.dead {
            return Err(ErrorKind::Stale.into());
        }
        inode.used = true;
        Ok(inode)
    }

    /// The attributes of a living inode, for a listing: the inode itself may stay out of memory.
    pub fn attr(&mut self, ino: Ino) -> Option<Attr> {
        match self.inodes.get_mut(&ino) {
            Some(inode) => {
                inode.used = true;
                Some(inode.attr)
            }
            None => self.parked.attr(ino),
        }
    }

    /// Whether [`State::attr`] would find it.
    pub fn has_attr(&self, ino: Ino) -> bool {
        self.inodes.contains_key(&ino) || self.parked.has(ino)
    }

    /// Puts names of a directory into memory: all from the hash `from` to the hash `to` on.
    pub fn put_names(
        &mut self,
        dir: Ino,
        from: u64,
        to: u64,
        buckets: impl IntoIterator<Item = (u64, Bucket)>,
    ) {
        let Some(names) = self.inodes.get_mut(&dir).and_then(|i| i.dir.as_mut()) else { return };
        if names.known_to < from {
            return;
        }
        let before = names.buckets.len();
        for (hash, bucket) in buckets {
            if hash >= names.known_to {
                names.buckets.entry(hash).or_insert(Slot { bucket, saved: true });
            }
        }
        names.known_to = names.known_to.max(to);
        self.names += names.buckets.len() - before;
    }

    /// True while none of a directory's names is in memory.
    pub fn has_no_names(&self, dir: Ino) -> bool {
        self.inodes.get(&dir).is_none_or(|inode| {
            inode.dir.as_ref().is_some_and(|dir| dir.known_to == 0 && dir.buckets.is_empty())
        })
    }

    /// A living directory that has a name or is being used.
    pub fn dir(&mut self, ino: Ino) -> Step<&mut Inode> {
        let inode = self.inode(ino)?;
        if inode.dir.is_none() { Err(ErrorKind::NotDir.into()) } else { Ok(inode) }
    }

    /// A directory that takes new names: one that was removed does not.
    pub fn dir_for_new(&mut self, ino: Ino) -> Step<&mut Inode> {
        let inode = self.dir(ino)?;
        if inode.attr.nlink == 0 { Err(ErrorKind::NotFound.into()) } else { Ok(inode) }
    }

    /// A regular file.
    pub fn file(&mut self, ino: Ino) -> Step<&mut Inode> {
        let inode = self.inode(ino)?;
        match inode.attr.kind {
            Kind::File => Ok(inode),
            Kind::Dir => Err(ErrorKind::IsDir.into()),
            _ => Err(ErrorKind::Invalid.into()),
        }
    }

    /// A regular file whose extents in `range` are in memory.
    pub fn file_range(&mut self, ino: Ino, range: &Range<u64>) -> Step<&mut Inode> {
        let inode = self.file(ino)?;
        let file = inode.file.as_ref().expect("files have contents");
        match file.extents.missing(range, WINDOWS_MAX) {
            Some(windows) => Err(Stop::Need(Need::Extents(ino, windows))),
            None => Ok(inode),
        }
    }

    /// The extended attributes of an inode, in memory.
    pub fn xattrs(&mut self, ino: Ino) -> Step<&mut Inode> {
        let inode = self.inode(ino)?;
        if inode.xattrs.is_none() {
            return Err(Stop::Need(Need::Xattrs(ino)));
        }
        Ok(inode)
    }

    /// The entry of `name` in `parent`, `None` where there is none.
    pub fn entry(&mut self, parent: Ino, name: &Name) -> Step<Option<EntryRecord>> {
        let hash = key::name_hash(name.as_bytes());
        let inode = self.dir(parent)?;
        let entries = inode.entries;
        let dir = inode.dir.as_mut().expect("checked by dir");
        if let Some(slot) = dir.buckets.get(&hash) {
            return Ok(slot.bucket.iter().find(|e| e.name == *name).cloned());
        }
        if hash < dir.known_to {
            return Ok(None);
        }
        dir.looks += 1;
        let whole =
            entries <= DIR_WHOLE_MAX || (dir.looks > DIR_LOOKS_MAX && entries <= DIR_LARGE_MAX);
        Err(Stop::Need(if whole {
            Need::Dir(parent, dir.known_to)
        } else {
            Need::Bucket(parent, hash)
        }))
    }

    /// An inode number for a child of `parent`, near its siblings.
    pub fn new_ino(&mut self, parent: Ino) -> Step<Ino> {
        let next = self.counters.next_ino;
        let dir = self.dir(parent)?.dir.as_mut().expect("checked by dir");
        if dir.numbers.is_empty() {
            if next + INO_BLOCK > Ino::MAX.0 {
                return Err(ErrorKind::NoSpace.into());
            }
            dir.numbers = next..next + INO_BLOCK;
            let ino = dir.numbers.start;
            dir.numbers.start += 1;
            self.counters.next_ino += INO_BLOCK;
            return Ok(Ino(ino));
        }
        let ino = dir.numbers.start;
        dir.numbers.start += 1;
        Ok(Ino(ino))
    }

    /// Marks an inode as changed by the running transaction.
    pub fn touch(&mut self, ino: Ino) {
        let number = self.txn.number;
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.changed != number
        {
            inode.changed = number;
            self.txn.inodes.push(ino);
        }
        self.txn.start();
    }

    /// True when a client refers to the inode.
    pub fn is_referenced(&self, ino: Ino) -> bool {
        self.clients.values().any(|refs| refs.contains(ino))
    }

    /// A new client.
    pub fn attach(&mut self) -> ClientId {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, References::default());
        id
    }

    /// Counts a reference.
    pub fn refer(&mut self, client: ClientId, ino: Ino) {
        self.refer_often(client, ino, 1);
    }

    /// Counts several references.
    pub fn refer_often(&mut self, client: ClientId, ino: Ino, count: u64) {
        if let Some(refs) = self.clients.get_mut(&client) {
            refs.add(ino, count);
        }
    }

    /// True when a client refers to an inode that has no name any more: it would be gone if its
    /// home were closed now.
    pub fn has_used_orphans(&self) -> bool {
        if self.orphans == 0 {
            return false;
        }
        let orphans = self.inodes.iter().filter(|(_, inode)| inode.orphaned.is_some());
        orphans.into_iter().any(|(ino, inode)| !inode.dead && self.is_referenced(*ino))
    }

    /// Notes a change for the caches of other clients.
    pub fn announce(&mut self, change: Change) {
        if self.clients.len() > 1 {
            self.changes.push(change);
        }
    }

    /// Room for `bytes` more and `inodes` more?
    pub fn check_quota(&self, bytes: u64, inodes: u64) -> Step<()> {
        let bytes_ok = bytes == 0 || self.bytes.saturating_add(bytes) <= self.quota.bytes;
        let inodes_ok = inodes == 0 || self.inodes_used + inodes <= self.quota.inodes;
        if bytes_ok && inodes_ok { Ok(()) } else { Err(ErrorKind::OverQuota.into()) }
    }

    /// Changes the charge of the home.
    pub fn charge(&mut self, freed: u64, taken: u64) {
        self.bytes = (self.bytes + taken).saturating_sub(freed);
    }

    /// Evicts until at most `keep` inodes are in memory, if that many can go. Gives how many went.
    pub fn evict(&mut self, keep: usize) -> usize {
        let over = self.movable().saturating_sub(keep);
        let names_max = keep.saturating_mul(NAMES_PER_INODE);
        if over == 0 && !self.has_too_many_names(keep) {
            return 0;
        }
        if self.hand.is_empty() {
            self.hand = self.inodes.keys().copied().collect();
            let dirs = self.inodes.values().filter(|inode| inode.names() > 0).count();
            // Their names would have to be read again, each with a scan.
            self.keep_dirs = dirs <= keep / 2;
        }
        let mut gone = 0;
        while (gone < over || self.names > names_max)
            && let Some(ino) = self.hand.pop()
        {
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            let names = inode.names();
            // A directory that alone has a good part of all names would have to be read again
            // and again while it is listed.
            let for_names = gone >= over;
            if for_names && (names == 0 || names > names_max / 4) {
                continue;
            }
            if names > 0 && self.keep_dirs && self.names <= names_max {
                continue;
            }
            if !inode.is_idle(self.written) || (inode.used && !inode.dead) {
                inode.used = false;
                continue;
            }
            if !inode.dead && inode.saved.is_some() && inode.changed <= self.written {
                self.parked.put(ino, &inode.record().encode());
            }
            self.drop_inode(ino);
            gone += 1;
        }
        let still = self.movable();
        self.inodes_next = if still > keep { still + keep / 8 } else { 0 };
        self.names_next = if self.names > names_max { self.names + names_max / 8 } else { 0 };
        self.evictions += u64::from(gone > 0);
        gone
    }

    /// Inodes in memory that may leave it, now or when they are stored.
    pub fn movable(&self) -> usize {
        self.inodes.len().saturating_sub(self.orphans)
    }

    /// Whether more inodes are in memory than `keep`, so that it pays to evict.
    pub fn has_too_many_inodes(&self, keep: usize) -> bool {
        self.movable() > (keep + keep / 8).max(self.inodes_next)
    }

    /// Whether anything waits to be stored, after which more may leave memory.
    pub fn is_pending(&self) -> bool {
        self.txn.is_started() || !self.fresh.is_empty() || self.written + 1 < self.txn.number
    }

    /// Notes that an inode has no name any more since the transaction `number`.
    pub fn set_orphaned(&mut self, ino: Ino, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.orphaned.replace(number).is_none()
        {
            self.orphans += 1;
        }
    }

    /// Notes that an inode without a name is not used any more; gives the transaction since
    /// which it had none.
    pub fn take_orphaned(&mut self, ino: Ino) -> Option<u64> {
        let number = self.inodes.get_mut(&ino)?.orphaned.take()?;
        self.orphans -= 1;
        Some(number)
    }

    /// Whether more names are in memory than belong to `keep` inodes, so that it pays to evict.
    pub fn has_too_many_names(&self, keep: usize) -> bool {
        let names_max = keep.saturating_mul(NAMES_PER_INODE);
        self.names > (names_max + names_max / 8).max(self.names_next)
    }

    /// Takes an inode out of memory, with its names.
    pub fn drop_inode(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.remove(&ino) {
            self.names = self.names.saturating_sub(inode.names());
        }
    }

    /// Notes that a file's data differs from the database from now on.
    pub fn note_fresh(&mut self, ino: Ino, now: Instant, bytes: u64) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let Some(file) = inode.file.as_mut() else { return };
        file.fresh_bytes += bytes;
        if file.fresh_since.is_none() {
            file.fresh_since = Some(now);
            self.fresh.insert(ino, now);
        }
    }

    /// The age of the oldest change that is not captured.
    pub fn fresh_age(&self, now: Instant) -> Option<Duration> {
        self.fresh.values().min().map(|since| now.saturating_duration_since(*since))
    }
}
