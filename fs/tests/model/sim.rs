//! Runs operations on a home and on the reference, and compares all that both say.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use yadokari_fs::home::*;
use yadokari_store::fault::{Crash, FaultPlan};

use super::bytes::Contents;
use super::history::History;
use super::invariants;
use super::kept::{AllKept, called};
use super::life::{HandClock, Life, Setting};
use super::op::{LENGTHS, OFFSETS, PAUSES, Raw, What, content, pick};
use super::seeds::Totals;
use super::tree::{ACCESS, DEFAULT, Data, Fails, Names, Node, Tree, acl};
use super::watch::{Checker, Watch};

pub fn kind<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error| {
        let all = format!("{:?}", error.kind());
        match error.kind() {
            ErrorKind::Unavailable(_) | ErrorKind::Corrupt(_) => all,
            _ => all.split('(').next().unwrap_or_default().to_owned(),
        }
    })
}

pub fn expect<T: std::fmt::Debug + PartialEq>(what: &str, real: Result<T>, model: Fails<T>) {
    assert_eq!(kind(real), model.map_err(str::to_owned), "{what}");
}

/// A listing that goes on while other things happen.
struct Listing {
    dir: u64,
    cookie: u64,
    seen: BTreeSet<Vec<u8>>,
    /// Names that were there all the time.
    stayed: BTreeSet<Vec<u8>>,
}

/// What is older than this when the store works survives.
const LOSS_MS_MAX: u64 = 5_000;
/// What the schedule keeps: little, so that it drops some.
pub const SCHEDULE: Keep = Keep { hourly: 1, daily: 1, weekly: 1 };

pub struct Sim {
    pub watch: Watch,
    checker: Checker,
    pub clock: Arc<HandClock>,
    setting: Setting,
    plan: FaultPlan,
    life: Option<Life>,
    pub tree: Tree,
    pub history: History,
    listing: Option<Listing>,
    /// Snapshots as they must be.
    pub kept: AllKept,
    /// The file, offset and length that were used last: where things meet.
    hot: Cell<(u64, u64, u64)>,
    pub verbose: bool,
    /// The store works, so that little is lost.
    pub healthy: bool,
    /// What is read of segments may be damaged: then it must not be given out.
    pub rotten: bool,
    /// The next recovery meets this plan and ends before the one that is checked.
    pub dies_again: Option<FaultPlan>,
    pub totals: Totals,
}

impl Sim {
    pub fn new(setting: Setting, plan: FaultPlan) -> Sim {
        let watch = Watch::new();
        let objects: Arc<dyn ObjectStore> = Arc::new(watch.clone());
        let clock = Arc::new(HandClock::default());
        let life = Life::begin(&objects, &clock, Quota::NONE, setting, plan.clone());
        let now = clock.now();
        let root = Names {
            kind: Kind::Dir,
            perm: 0o700,
            uid: 1000,
            gid: 1000,
            rdev: 0,
            target: Vec::new(),
            nlink: 2,
            parent: 1,
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            atime: now,
            btime: now,
            mtime: now,
            ctime: now,
        };
        let root = Node { names: Arc::new(root), data: None, ctime: now, charged: 0 };
        let tree = Tree {
            nodes: [(1, root)].into(),
            refs: BTreeMap::new(),
            quota: Quota::NONE,
            bytes: 0,
            named: Vec::new(),
            wrote: Vec::new(),
        };
        let history = History::new(&tree);
        Sim {
            watch,
            checker: Checker::new(),
            clock,
            setting,
            plan,
            life: Some(life),
            tree,
            history,
            listing: None,
            kept: AllKept::new(),
            hot: Cell::new((0, 0, 1)),
            verbose: false,
            healthy: true,
            rotten: false,
            dies_again: None,
            totals: Totals { seeds: 1, ..Totals::default() },
        }
    }

    pub fn life(&self) -> &Life {
        self.life.as_ref().expect("a life goes on")
    }

    /// Runs a whole sequence and checks everything at the end.
    pub fn run_all(&mut self, ops: &[Raw]) {
        for (number, raw) in ops.iter().enumerate() {
            if self.verbose {
                eprintln!("{number}: {:?} {raw:?}", What::of(raw));
            }
            self.step(raw);
        }
        self.check();
        let age = self.life().age();
        self.reopen();
        if self.life().control.crashed() {
            self.end_of_life(age);
        }
        self.crash();
        self.end_life();
    }

    /// One operation, and what follows of it.
    pub fn step(&mut self, raw: &Raw) {
        match What::of(raw) {
            What::Crash => self.crash(),
            What::CrashLater => {
                let crash = if raw[2] % 2 == 0 { Crash::Before } else { Crash::After };
                let plan = FaultPlan::crash_at_write(u64::from(raw[1] % 12), crash);
                self.life().control.arm(plan);
            }
            what => self.act_as_one(|sim| sim.act(what, raw)),
        }
    }

    /// Does one thing, by the home and by the reference. Where the store dies meanwhile nobody
    /// knows whether it was done, and the next life begins.
    pub fn act_as_one(&mut self, act: impl FnOnce(&mut Sim)) {
        let began = self.life().age();
        self.totals.steps += 1;
        self.tree.named.clear();
        self.tree.wrote.clear();
        let crashed_before = self.life().control.crashed();
        act(self);
        self.totals.commits += self.checker.hold_moments(&self.watch);
        if self.life().control.crashed() && !crashed_before {
            self.end_of_life(began);
            return;
        }
        let age = self.life().age();
        self.history.note(&self.tree, age);
        assert_eq!(self.life().home.usage(), self.tree.usage(), "usage");
    }

    fn crash(&mut self) {
        let age = self.life().age();
        self.end_of_life(age);
    }

    /// The daemon is gone; what the store has must be what was promised.
    fn end_of_life(&mut self, age: u64) {
        self.totals.crashes += 1;
        let age_now = self.life().age();
        self.history.note(&self.tree, age_now);
        self.end_life();
        self.die_again();
        self.begin();
        let old = if self.healthy { age.saturating_sub(LOSS_MS_MAX) } else { 0 };
        let found = self.dump();
        self.tree = self.history.recover(found, old, self.tree.quota);
        self.settle();
        self.check();
        self.history = History::new(&self.tree);
        self.disturb();
    }

    /// The end without a word.
    fn end_life(&mut self) {
        let life = self.life.take().expect("a life goes on");
        self.totals.faults += life.control.counters().faulted;
        life.crash();
    }

    /// A life that ends while it recovers from the one before.
    fn die_again(&mut self) {
        let Some(plan) = &self.dies_again else { return };
        let objects: Arc<dyn ObjectStore> = Arc::new(self.watch.clone());
        let quota = self.tree.quota;
        let died = Life::die(&objects, &self.clock, quota, self.setting, plan.clone());
        if died {
            self.dies_again = None;
        }
        self.totals.commits += self.checker.hold_moments(&self.watch);
    }

    /// From now on the store is as the plan says, where it was good so far.
    fn disturb(&self) {
        if self.rotten {
            self.life().control.arm(self.plan.clone());
        }
    }

    /// Closes the home and opens it again.
    pub fn reopen(&mut self) {
        self.totals.restarts += 1;
        let closed = self.life().run(self.life().home.close());
        if closed.is_err() && self.life().control.crashed() {
            return;
        }
        closed.expect("closes");
        self.totals.faults += self.life().control.counters().faulted;
        self.life = None;
        self.totals.commits += self.checker.hold_moments(&self.watch);
        if self.healthy {
            self.checker.hold_closed("closed", &self.watch);
        }
        self.tree.restart();
        self.begin();
        self.settle();
        self.check();
        self.history = History::new(&self.tree);
        self.disturb();
    }

    fn begin(&mut self) {
        self.listing = None;
        self.tree.refs.clear();
        let plan = if self.rotten { FaultPlan::none() } else { self.plan.clone() };
        let quota = self.tree.quota;
        let objects: Arc<dyn ObjectStore> = Arc::new(self.watch.clone());
        self.life = Some(Life::begin(&objects, &self.clock, quota, self.setting, plan));
    }

    fn settle(&mut self) {
        assert_eq!(self.life().home.usage(), self.tree.usage(), "usage after opening");
        self.life().wait(5_000);
        assert_eq!(self.life().home.usage(), self.tree.usage(), "usage after collecting");
        let home = self.life().home.clone();
        // A check does not try again by itself; a sick store lets one through in the end.
        let tries = if self.healthy { 1 } else { 200 };
        let options = fsck::Options { verify_data: true, in_use: true };
        let report = (0..tries)
            .find_map(|_| self.life().run(home.check(options, &mut |_| {})).ok())
            .expect("checks");
        invariants::hold("after opening", &report, true);
        self.totals.commits += self.checker.hold_moments(&self.watch);
        self.check_snapshots();
    }

    fn inos(&self, wanted: impl Fn(&Node) -> bool) -> Vec<u64> {
        self.tree.nodes.iter().filter(|(_, n)| wanted(n)).map(|(ino, _)| *ino).collect()
    }

    fn any(&self, n: u16) -> u64 {
        pick(&self.inos(|_| true), n)
    }

    /// A directory, mostly.
    fn dir(&self, n: u16) -> u64 {
        if n % 31 == 30 {
            return self.any(n / 31);
        }
        pick(&self.inos(|n| n.names.kind == Kind::Dir), n)
    }

    /// A file, mostly.
    fn file(&self, n: u16) -> u64 {
        let (hot, ..) = self.hot.get();
        if n % 8 < 4 && self.tree.file(hot).is_ok() {
            return hot;
        }
        let ino = self.cold_file(n / 8);
        self.hot.set((ino, 0, 1));
        ino
    }

    fn cold_file(&self, n: u16) -> u64 {
        let files = self.inos(|n| n.names.kind == Kind::File);
        if n % 31 == 30 || files.is_empty() {
            return self.any(n / 31);
        }
        pick(&files, n)
    }

    /// A name in a directory: mostly one that is there.
    fn name(&self, dir: u64, n: u16) -> Vec<u8> {
        let entries = &self.tree.nodes[&dir].names.entries;
        if n % 4 != 0 && !entries.is_empty() {
            let names: Vec<&Vec<u8>> = entries.keys().collect();
            return pick(&names, n / 4).clone();
        }
        match n / 4 % 9 {
            8 => vec![b'x'; 255],
            k => vec![b'a' + k as u8],
        }
    }

    fn new_name(&self, n: u16) -> Vec<u8> {
        match n % 13 {
            12 => vec![b'x'; 255],
            k => vec![b'a' + k as u8],
        }
    }

    fn offset(&self, ino: u64, n: u16) -> u64 {
        let size = self.tree.nodes[&ino].data.as_ref().map_or(0, |d| d.size);
        let (hot, last, len) = self.hot.get();
        let offset = match n % 8 {
            0 | 1 => size,
            2 => size / 2,
            3 => (pick(&OFFSETS, n / 8)).saturating_add(u64::from(n % 97)),
            4 | 5 => last,
            6 => last.saturating_add(len),
            _ => pick(&OFFSETS, n / 8),
        };
        self.hot.set((hot, offset, len));
        offset
    }

    fn length(&self, n: u16) -> u64 {
        let (hot, offset, len) = self.hot.get();
        let len = if n % 4 == 0 { len } else { pick(&LENGTHS, n / 4) };
        self.hot.set((hot, offset, len));
        len
    }

    pub fn caller(&self, n: u16) -> Caller {
        let client = self.life().clients[usize::from(n % 2)];
        Caller { uid: 1000 + u32::from(n % 3), gid: 1000 + u32::from(n % 2), client }
    }

    #[allow(clippy::too_many_lines)] // One arm per operation.
    fn act(&mut self, what: What, raw: &Raw) {
        let now = self.clock.tick();
        let [_, a, b, c, d, e, f] = *raw;
        let home = self.life().home.clone();
        let caller = self.caller(f);
        let client = caller.client;
        match what {
            What::Wait => self.wait(pick(&PAUSES, a)),
            What::Make => self.make(a, b, c, d, caller, now),
            What::Write => {
                let ino = self.file(a);
                let offset = self.offset(ino, b);
                let bytes = content(d, if e % 50 == 49 { 0 } else { self.length(c) });
                let kill = kill(e % 8);
                let mode = WriteMode { append: e % 4 == 1, kill, whole: false };
                let data = Bytes::copy_from_slice(&bytes);
                let real = self.life().run(home.write(caller, Ino(ino), offset, data, mode));
                if self.lost(&real) {
                    return;
                }
                let model = self.tree.write(ino, offset, &bytes, mode, now);
                expect("write", real, model);
            }
            What::Read => {
                let ino = self.file(a);
                let offset = self.offset(ino, b);
                self.read(ino, offset, self.length(c));
            }
            What::Lookup => {
                let dir = self.dir(a);
                let name = self.name(dir, b);
                let real = self.life().run(home.lookup(client, Ino(dir), n(&name)));
                if !self.lost(&real) {
                    expect("lookup", real, self.tree.lookup(client.0, dir, &name));
                }
            }
            What::Forget => {
                let held: Vec<_> = self.tree.refs.iter().map(|(k, v)| (*k, *v)).collect();
                if held.is_empty() {
                    return;
                }
                let ((client, ino), count) = pick(&held, a);
                let count = if b % 3 == 0 { 1 } else { count };
                self.life().home.forget(ClientId(client), Ino(ino), count);
                self.tree.forget(client, ino, count);
            }
            What::ForgetAll => {
                let held: Vec<_> = self.tree.refs.iter().map(|(k, v)| (*k, *v)).collect();
                for ((client, ino), count) in held {
                    self.life().home.forget(ClientId(client), Ino(ino), count);
                    self.tree.forget(client, ino, count);
                }
            }
            What::Unlink => {
                let dir = self.dir(a);
                let name = self.name(dir, b);
                let real = self.life().run(home.unlink(caller, Ino(dir), n(&name)));
                if !self.lost(&real) {
                    expect("unlink", real, self.tree.unlink(dir, &name, now));
                    self.not_stayed(dir, &name);
                }
            }
            What::Rmdir => {
                let dir = self.dir(a);
                let name = self.name(dir, b);
                let real = self.life().run(home.rmdir(caller, Ino(dir), n(&name)));
                if !self.lost(&real) {
                    expect("rmdir", real, self.tree.rmdir(dir, &name, now));
                    self.not_stayed(dir, &name);
                }
            }
            What::Rename => {
                let (from, to) = (self.dir(a), self.dir(c));
                let from = (from, self.name(from, b));
                let to = (to, if d % 2 == 0 { self.name(to, d / 2) } else { self.new_name(d / 2) });
                let mode = RenameMode {
                    no_replace: e % 5 == 1,
                    exchange: e % 5 == 2 || e % 35 == 6,
                    whiteout: e % 7 == 4,
                };
                self.rename(from, to, mode, caller, now);
            }
            What::Link => {
                let ino = self.any(a);
                let dir = self.dir(b);
                let name = self.new_name(c);
                let real = self.life().run(home.link(caller, Ino(ino), Ino(dir), n(&name)));
                if !self.lost(&real) {
                    expect("link", real, self.tree.link(client.0, ino, (dir, &name), now));
                }
            }
            What::List => self.list(a, b),
            What::Setattr | What::Truncate => {
                let mut set = SetAttr::default();
                let ino = if what == What::Truncate { self.file(a) } else { self.any(a) };
                if what == What::Truncate {
                    set.size = Some(match b % 3 {
                        0 => self.offset(ino, c),
                        1 => self.length(c),
                        _ => 0,
                    });
                }
                if what == What::Setattr || d % 8 == 0 {
                    set.perm = (b % 2 == 0).then_some(d % 0o10000);
                    set.uid = (b % 3 == 0).then_some(2000 + u32::from(c % 5));
                    set.gid = (b % 5 == 0).then_some(2000 + u32::from(c % 3));
                    set.atime = (b % 7 == 0).then_some(SetTime::Now);
                    let time = Time { sec: i64::from(e), nsec: 5 };
                    set.mtime = (b % 4 == 1).then_some(SetTime::At(time));
                    set.kill = kill(b % 6);
                }
                let real = self.life().run(home.setattr(caller, Ino(ino), set));
                if !self.lost(&real) {
                    expect("setattr", real, self.tree.setattr(ino, &set, now));
                }
            }
            What::Fallocate => {
                let ino = self.file(a);
                let offset = self.offset(ino, b);
                let keep_size = d % 2 == 0;
                let (falloc, len) = match d / 2 % 4 {
                    0 => (Falloc::Allocate { keep_size }, self.length(c)),
                    1 => (Falloc::ZeroRange { keep_size }, self.length(c)),
                    2 => (Falloc::PunchHole, self.length(c)),
                    _ if e % 2 == 0 => {
                        (Falloc::PunchHole, FILE_BYTES_MAX - offset.min(FILE_BYTES_MAX))
                    }
                    _ => (Falloc::PunchHole, 0),
                };
                let real = self.life().run(home.fallocate(caller, Ino(ino), falloc, offset, len));
                if !self.lost(&real) {
                    let model = self.tree.fallocate(ino, falloc, offset..offset + len, now);
                    expect("fallocate", real, model);
                }
            }
            What::Seek => {
                let ino = self.file(a);
                let offset = self.offset(ino, b);
                let whence = if c % 2 == 0 { Seek::Data } else { Seek::Hole };
                let real = self.life().run(home.seek(Ino(ino), offset, whence));
                if !self.lost(&real) {
                    expect("seek", real, self.tree.seek(ino, offset, whence));
                }
            }
            What::Copy => {
                let (from, to) = (self.file(a), self.file(b));
                let from = (from, self.offset(from, c));
                let to = (to, if f % 3 == 0 { from.1 } else { self.offset(to, d) });
                let len = self.length(e);
                let (x, y) = ((Ino(from.0), from.1), (Ino(to.0), to.1));
                let real = self.life().run(home.copy_range(caller, x, y, len));
                if !self.lost(&real) {
                    expect("copy_range", real, self.tree.copy_range(from, to, len, now));
                }
            }
            What::Setxattr => {
                let ino = self.any(a);
                let (name, value) = xattr(b, c, d);
                let mode =
                    XattrMode { create: e % 5 == 1, replace: e % 5 == 2, kill_sgid: e % 3 == 0 };
                let (k, v) = (Bytes::from(name.clone()), Bytes::from(value.clone()));
                let real = self.life().run(home.setxattr(caller, Ino(ino), k, v, mode));
                if !self.lost(&real) {
                    expect("setxattr", real, self.tree.setxattr(ino, &name, &value, mode, now));
                }
            }
            What::Getxattr => self.check_xattrs(self.any(a)),
            What::Removexattr => {
                let with: Vec<u64> = self.inos(|n| !n.names.xattrs.is_empty());
                let ino = if with.is_empty() { self.any(a) } else { pick(&with, a) };
                let (name, _) = xattr(b, 0, 0);
                let k = Bytes::from(name.clone());
                let real = self.life().run(home.removexattr(caller, Ino(ino), k));
                if !self.lost(&real) {
                    expect("removexattr", real, self.tree.removexattr(ino, &name, now));
                }
            }
            What::Snapshot => {
                if self.make_snapshot(&called(a), Origin::Command) {
                    self.history.synced();
                }
            }
            What::RemoveSnapshot => self.remove_snapshot(&called(a)),
            What::Schedule => {
                if self.follow_schedule(SCHEDULE) {
                    self.history.synced();
                }
            }
            What::Fsync => {
                let ino = if b % 4 == 0 { self.any(a) } else { self.file(a) };
                let real = self.life().run(home.fsync(Ino(ino)));
                if !self.lost(&real) {
                    expect("fsync", real, Ok(()));
                    self.history.fsynced(ino);
                }
            }
            What::Sync => {
                let real = self.life().run(home.sync());
                if !self.lost(&real) {
                    expect("sync", real, Ok(()));
                    self.history.synced();
                }
            }
            What::SetQuota => {
                let (bytes, inodes) = (self.tree.bytes, self.tree.nodes.len() as u64);
                self.tree.quota = match a % 4 {
                    0 => Quota::NONE,
                    1 => Quota { bytes: bytes + u64::from(b % 9000), inodes: u64::MAX },
                    2 => Quota { bytes: bytes + u64::from(b) * 8, inodes: inodes + 2 },
                    _ => Quota { bytes: bytes.saturating_sub(100), inodes: inodes + 5 },
                };
                home.set_quota(self.tree.quota);
            }
            What::Check => {
                self.check();
                self.check_snapshots();
            }
            What::Reopen => self.reopen(),
            What::Crash | What::CrashLater => {}
        }
    }

    /// Time passes, by the wall too.
    pub fn wait(&self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let now = left.min(5_000);
            self.life().wait(now);
            self.clock.advance(now as i64 / 1_000);
            left -= now;
        }
    }

    /// True when the store died under the operation; then nothing is known but that it did.
    pub fn lost<T>(&self, real: &Result<T>) -> bool {
        let failed = matches!(real, Err(Error(ErrorKind::Unavailable(_) | ErrorKind::Fenced)));
        failed && self.life().control.crashed()
    }

    fn make(&mut self, a: u16, b: u16, c: u16, d: u16, caller: Caller, now: Time) {
        let dir = self.dir(a);
        let name = self.new_name(b);
        let kind = match c % 12 {
            0..=6 => Kind::File,
            7..=9 => Kind::Dir,
            10 => Kind::Symlink,
            _ => Kind::CharDevice,
        };
        let node = NewNode {
            kind,
            perm: d % 0o10000,
            umask: if c % 2 == 0 { 0o022 } else { 0 },
            rdev: if kind == Kind::CharDevice { u32::from(d) } else { 0 },
            target: match kind {
                Kind::Symlink => Bytes::from(vec![b't'; usize::from(d % 4096).max(1)]),
                _ => Bytes::new(),
            },
        };
        let home = self.life().home.clone();
        let op = home.make(caller.clone(), Ino(dir), n(&name), node.clone());
        let real = self.life().run(op);
        if self.lost(&real) {
            return;
        }
        match self.tree.can_make(dir, &name, &node) {
            Err(error) => expect("make", real, Err(error)),
            Ok(()) => {
                let real = real.expect("make works");
                let model = self.tree.make(&caller, (dir, &name), &node, real.ino.0, now);
                assert_eq!(real, model, "make");
            }
        }
    }

    /// Renames by the home and by the reference.
    pub fn rename(
        &mut self,
        from: (u64, Vec<u8>),
        to: (u64, Vec<u8>),
        mode: RenameMode,
        caller: Caller,
        now: Time,
    ) {
        let home = self.life().home.clone();
        let (x, y) = ((Ino(from.0), n(&from.1)), (Ino(to.0), n(&to.1)));
        let real = self.life().run(home.rename(caller.clone(), x, y, mode));
        if self.lost(&real) {
            return;
        }
        let (from, to) = ((from.0, &from.1[..]), (to.0, &to.1[..]));
        let can = self.tree.can_rename(from, to, mode);
        expect("rename", real, can.map(drop));
        let Ok(Some((source, target))) = can else { return };
        let mut whiteout = None;
        if mode.whiteout {
            let client = caller.client;
            let there = self.life().run(home.lookup(client, Ino(from.0), n(from.1)));
            if self.lost(&there) {
                return;
            }
            let ino = there.expect("a whiteout is there").ino;
            home.forget(client, ino, 1);
            whiteout = Some(ino.0);
        }
        let carried = if target.is_some() { vec![source] } else { Vec::new() };
        let both = carried.into_iter().chain(target.filter(|_| mode.exchange));
        self.history.carries(both.collect());
        self.tree.rename(&caller, from, to, whiteout, mode, now);
        self.not_stayed(from.0, from.1);
        self.not_stayed(to.0, to.1);
    }

    fn not_stayed(&mut self, dir: u64, name: &[u8]) {
        if let Some(listing) = self.listing.as_mut().filter(|l| l.dir == dir) {
            listing.stayed.remove(name);
        }
    }

    /// Begins a listing, or goes on with the one that runs.
    fn list(&mut self, a: u16, b: u16) {
        if self.listing.as_ref().is_none_or(|l| !self.tree.nodes.contains_key(&l.dir)) {
            let dir = pick(&self.inos(|n| n.names.kind == Kind::Dir), a);
            let stayed = self.tree.nodes[&dir].names.entries.keys().cloned().collect();
            self.listing = Some(Listing { dir, cookie: 0, seen: BTreeSet::new(), stayed });
        }
        let mut listing = self.listing.take().expect("just begun");
        let home = self.life().home.clone();
        let max = usize::from(b % 4) + 1;
        let dir = listing.dir;
        let page = self.life().run(home.readdir(Ino(dir), listing.cookie, b % 3 == 0, max));
        if self.lost(&page) {
            return;
        }
        let page = page.expect("lists");
        assert!(page.len() <= max, "a page of {} entries, {max} were asked for", page.len());
        if page.is_empty() {
            let missed: Vec<_> = listing.stayed.difference(&listing.seen).collect();
            assert!(missed.is_empty(), "a listing of {dir} missed {missed:?}");
            return;
        }
        for entry in &page {
            assert!(entry.next > listing.cookie, "cookies grow");
            listing.cookie = entry.next;
            self.check_entry(dir, entry, b % 3 == 0);
            let stayed = listing.stayed.contains(&entry.name[..]);
            let twice = !listing.seen.insert(entry.name.to_vec());
            assert!(!(twice && stayed), "{:?} was listed twice", entry.name);
        }
        self.listing = Some(listing);
    }

    fn check_entry(&self, dir: u64, entry: &DirEntry, attrs: bool) {
        let names = &self.tree.nodes[&dir].names;
        let ino = match &entry.name[..] {
            b"." => dir,
            b".." => names.parent,
            name => *names.entries.get(name).unwrap_or_else(|| panic!("{name:?} is not in {dir}")),
        };
        assert_eq!(entry.ino.0, ino, "{:?} in {dir}", entry.name);
        if entry.name[0] != b'.' {
            let attr = self.tree.nodes[&ino].attr(ino);
            assert_eq!(entry.kind, attr.kind);
            assert_eq!(entry.attr, attrs.then_some(attr), "{:?} in {dir}", entry.name);
        }
    }

    fn read(&mut self, ino: u64, offset: u64, len: u64) {
        let home = self.life().home.clone();
        let real = self.life().run(home.read(Ino(ino), offset, len as u32));
        if self.lost(&real) {
            return;
        }
        let model = self.tree.file(ino).map(|data| {
            let end = (offset.saturating_add(len)).min(data.size);
            data.contents.read(offset.min(end)..end)
        });
        if self.rotten && matches!(&real, Err(Error(ErrorKind::Corrupt(_)))) {
            return;
        }
        match (kind(real.map(|pieces| pieces.concat())), model) {
            (Ok(real), Ok(model)) => same_bytes(ino, offset, &real, &model),
            (real, model) => assert_eq!(real, model.map_err(str::to_owned), "read"),
        }
    }

    fn check_xattrs(&self, ino: u64) {
        let home = self.life().home.clone();
        let listed = self.life().run(home.listxattr(Ino(ino)));
        if self.lost(&listed) {
            return;
        }
        let listed = listed.expect("lists attributes");
        let xattrs = &self.tree.nodes[&ino].names.xattrs;
        let names: Vec<&[u8]> = listed.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        let expected: Vec<&[u8]> = xattrs.keys().map(|k| &k[..]).collect();
        assert_eq!(names, expected, "attributes of {ino}");
        for (name, value) in xattrs {
            let name = Bytes::copy_from_slice(name);
            let real = self.life().run(home.getxattr(Ino(ino), name.clone()));
            if self.lost(&real) {
                return;
            }
            assert_eq!(real.expect("is there"), value[..], "{name:?} of {ino}");
        }
        let none = self.life().run(home.getxattr(Ino(ino), Bytes::from_static(b"user.none")));
        if !self.lost(&none) {
            assert_eq!(kind(none), Err("NoAttribute".to_owned()));
        }
    }

    /// Compares everything.
    pub fn check(&mut self) {
        if self.rotten {
            // Once with damage on the way, which may be an error but never other bytes.
            self.disturb();
            self.check_all();
            self.life().control.disarm();
        }
        self.check_all();
        self.disturb();
    }

    fn check_all(&mut self) {
        let inos = self.inos(|_| true);
        for ino in inos {
            if self.life().control.crashed() {
                return;
            }
            let home = self.life().home.clone();
            let attr = self.life().run(home.getattr(Ino(ino)));
            if self.lost(&attr) {
                return;
            }
            let node = self.tree.nodes[&ino].clone();
            assert_eq!(kind(attr), Ok(node.attr(ino)), "attributes of {ino}");
            self.check_xattrs(ino);
            match node.names.kind {
                Kind::Dir => self.check_dir(ino),
                Kind::Symlink => {
                    let target = self.life().run(home.readlink(Ino(ino)));
                    if !self.lost(&target) {
                        assert_eq!(target.expect("a link"), node.names.target[..]);
                    }
                }
                _ => {}
            }
            if let Some(data) = &node.data {
                for range in data.contents.ranges() {
                    self.read(ino, range.start, range.end - range.start);
                }
                self.read(ino, data.size.saturating_sub(100), 200);
            }
        }
    }

    fn check_dir(&self, dir: u64) {
        let home = self.life().home.clone();
        let mut seen = BTreeSet::new();
        let mut cookie = 0;
        loop {
            let page = self.life().run(home.readdir(Ino(dir), cookie, true, 7));
            if self.lost(&page) {
                return;
            }
            let page = page.expect("lists");
            let Some(last) = page.last() else { break };
            cookie = last.next;
            for entry in &page {
                self.check_entry(dir, entry, true);
                assert!(seen.insert(entry.name.to_vec()), "{:?} twice", entry.name);
            }
        }
        assert_eq!(seen.len(), self.tree.nodes[&dir].names.entries.len() + 2, "entries of {dir}");
    }

    /// Everything that can be reached, as the home shows it.
    fn dump(&mut self) -> BTreeMap<u64, Node> {
        let home = self.life().home.clone();
        let known = self.history.contents();
        self.life().run(async {
            let mut found = BTreeMap::new();
            let mut todo = vec![(1, 1)];
            while let Some((ino, parent)) = todo.pop() {
                if found.contains_key(&ino) {
                    continue;
                }
                let attr = home.getattr(Ino(ino)).await.expect("what has a name is there");
                let node = dump_node(&home, attr, parent, &known).await;
                todo.extend(node.names.entries.values().map(|below| (*below, ino)));
                found.insert(ino, node);
            }
            found
        })
    }
}

async fn dump_node(
    home: &Home,
    attr: Attr,
    parent: u64,
    known: &BTreeMap<u64, Vec<Arc<Data>>>,
) -> Node {
    let ino = attr.ino;
    let is_dir = attr.kind == Kind::Dir;
    let mut names = Names {
        kind: attr.kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        target: Vec::new(),
        nlink: attr.nlink,
        parent: if is_dir { parent } else { 0 },
        entries: BTreeMap::new(),
        xattrs: BTreeMap::new(),
        atime: attr.atime,
        btime: attr.btime,
        mtime: attr.mtime,
        ctime: attr.ctime,
    };
    if is_dir {
        let mut cookie = 0;
        loop {
            let page = home.readdir(ino, cookie, false, 50).await.expect("lists");
            let Some(last) = page.last() else { break };
            cookie = last.next;
            for entry in page.iter().filter(|e| !matches!(&e.name[..], b"." | b"..")) {
                names.entries.insert(entry.name.to_vec(), entry.ino.0);
            }
        }
    }
    if attr.kind == Kind::Symlink {
        names.target = home.readlink(ino).await.expect("a link").to_vec();
    }
    let listed = home.listxattr(ino).await.expect("lists attributes");
    for name in listed.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let value = home.getxattr(ino, Bytes::copy_from_slice(name)).await.expect("is there");
        names.xattrs.insert(name.to_vec(), value.to_vec());
    }
    let data = match attr.kind {
        Kind::File => Some(dump_data(home, &attr, known.get(&ino.0)).await),
        _ => None,
    };
    let charged = attr.charged;
    Node { names: Arc::new(names), data, ctime: attr.ctime, charged }
}

/// What a file shows: reads wherever any of its states had something.
async fn dump_data(home: &Home, attr: &Attr, known: Option<&Vec<Arc<Data>>>) -> Arc<Data> {
    let mut contents = Contents::default();
    let mut pages = BTreeSet::new();
    for state in known.into_iter().flatten() {
        pages.extend(state.contents.ranges().into_iter().flat_map(|r| r.step_by(4096)));
    }
    for at in pages {
        let bytes = home.read(attr.ino, at, 4096).await.expect("reads").concat();
        if bytes.iter().any(|b| *b != 0) {
            contents.write(at, &bytes);
        }
    }
    Arc::new(Data { size: attr.size, mtime: attr.mtime, contents })
}

pub fn same_bytes(ino: u64, offset: u64, real: &[u8], model: &[u8]) {
    if real != model {
        let at = real.iter().zip(model).position(|(a, b)| a != b);
        let (r, m) = (real.len(), model.len());
        let differ = real.iter().zip(model).filter(|(a, b)| a != b).count();
        panic!(
            "contents of {ino} from {offset}: {r} bytes, {m} expected; \
             first difference at {at:?}, {differ} in all"
        );
    }
}

pub fn n(name: &[u8]) -> Name {
    Name::new(name).expect("a name")
}

fn xattr(b: u16, c: u16, d: u16) -> (Vec<u8>, Vec<u8>) {
    let value = |len: usize| vec![(d % 251) as u8; len];
    match b % 10 {
        0..=2 => {
            (vec![b'u', b's', b'e', b'r', b'.', b'a' + (b % 3) as u8], value(c as usize % 300))
        }
        3 => (b"user.big".to_vec(), value(c as usize % 20_000)),
        4 => (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        5 => (b"security.capability".to_vec(), value(20)),
        6 if c % 7 == 6 => (ACCESS.to_vec(), value(9)),
        6 => (ACCESS.to_vec(), acl(c, (d % 3 != 0).then_some((7, d)))),
        7 => (DEFAULT.to_vec(), acl(c, (d % 3 != 0).then_some((7, d)))),
        8 if c % 5 == 0 => (b"user.huge".to_vec(), value(65_537)),
        8 => (b"bad.name".to_vec(), value(3)),
        _ => (b"user.empty".to_vec(), Vec::new()),
    }
}

fn kill(number: u16) -> Kill {
    match number {
        2 => Kill::ByMember,
        3 => Kill::ByOutsider,
        _ => Kill::Nothing,
    }
}
