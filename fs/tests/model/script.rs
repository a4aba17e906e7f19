//! A workload that meets every part of a home once: what crash points and damage are tried on.

use bytes::Bytes;
use yadokari_fs::home::*;

use super::op::content;
use super::sim::{SCHEDULE, Sim, expect, n};

/// One thing to do. Files are named by paths from the home's root.
#[derive(Clone, Copy, Debug)]
pub enum Do {
    Make(&'static str, Kind),
    /// Path, offset, length, and which content.
    Write(&'static str, u64, u64, u16),
    Truncate(&'static str, u64),
    Punch(&'static str, u64, u64),
    Reserve(&'static str, u64, u64),
    /// From, where from, to, where to, bytes.
    Clone(&'static str, u64, &'static str, u64, u64),
    Rename(&'static str, &'static str),
    Swap(&'static str, &'static str),
    Whiteout(&'static str, &'static str),
    Link(&'static str, &'static str),
    /// The last name of a file that stays open; [`Do::Close`] ends it.
    UnlinkOpen(&'static str),
    WriteOpen(u64, u64, u16),
    Close,
    Unlink(&'static str),
    Rmdir(&'static str),
    Chmod(&'static str, u16),
    Xattr(&'static str, &'static str, usize),
    NoXattr(&'static str, &'static str),
    Quota(u64),
    Fsync(&'static str),
    Sync,
    Wait(u64),
    Snapshot(&'static str),
    NoSnapshot(&'static str),
    /// An hour passes, and the schedule is looked at.
    Schedule,
}

use Do::*;

/// Create, write, overwrite, rename over, link, unlink what is open, punch, clone, attributes,
/// quota, small synced values, snapshots by command and by schedule that come and go, and the
/// cleaner with enough to clean.
pub const SCRIPT: &[Do] = &[
    Make("docs", Kind::Dir),
    Make("docs/a", Kind::File),
    Write("docs/a", 0, 10, 5),
    Make("big", Kind::File),
    Write("big", 0, 400_000, 6),
    Fsync("docs/a"),
    Write("big", 100_000, 50_000, 7),
    Write("big", 131_072, 100, 8),
    Sync,
    Snapshot("first"),
    Make("tmp", Kind::File),
    Write("tmp", 0, 60_000, 9),
    Rename("tmp", "docs/a"),
    Wait(1_500),
    Make("tmp", Kind::File),
    Write("tmp", 0, 300, 10),
    Rename("tmp", "docs/a"),
    Link("docs/a", "docs/hard"),
    Make("log", Kind::File),
    Write("log", 0, 200, 3),
    Fsync("log"),
    Write("log", 200, 200, 4),
    Fsync("log"),
    Make("copy", Kind::File),
    Clone("big", 0, "copy", 0, 300_000),
    Clone("log", 0, "copy", 300_000, 400),
    Fsync("copy"),
    Punch("big", 50_000, 200_000),
    Reserve("big", 1 << 20, 100_000),
    Sync,
    Snapshot("second"),
    Xattr("docs", "user.k", 100),
    Xattr("docs/a", "user.big", 9_000),
    NoXattr("docs", "user.k"),
    Chmod("docs/a", 0o640),
    Quota(2_000_000),
    Make("open", Kind::File),
    Write("open", 0, 150_000, 11),
    Fsync("open"),
    UnlinkOpen("open"),
    WriteOpen(150_000, 5_000, 5),
    Wait(2_500),
    Close,
    Schedule,
    // What only this one held is free then, and small enough segments are cleaned.
    NoSnapshot("first"),
    Truncate("copy", 200_000),
    Make("link", Kind::Symlink),
    Make("sub", Kind::Dir),
    Make("sub/deep", Kind::Dir),
    Rename("sub/deep", "docs/deep"),
    Rmdir("sub"),
    Make("x", Kind::File),
    Write("x", 0, 3_000, 6),
    Swap("x", "log"),
    Whiteout("x", "y"),
    Sync,
    Schedule,
    NoSnapshot("second"),
    Make("t1", Kind::File),
    Write("t1", 0, 40_000, 3),
    Sync,
    Make("t2", Kind::File),
    Write("t2", 0, 41_000, 4),
    Sync,
    Make("t3", Kind::File),
    Write("t3", 0, 42_000, 5),
    Sync,
    Make("t4", Kind::File),
    Write("t4", 0, 43_000, 6),
    Sync,
    Unlink("big"),
    Unlink("t2"),
    Sync,
    Wait(20_000),
    Wait(40_000),
    // The schedule drops one.
    Schedule,
    // A chunk that only data on its way refers to, when the names are committed.
    Make("from", Kind::File),
    Write("from", 0, 60_000, 10),
    Sync,
    Make("to", Kind::File),
    Clone("from", 0, "to", 0, 60_000),
    Write("to", 60_000, 30_000, 11),
    Unlink("from"),
    Fsync("docs"),
    Wait(3_000),
    // A block that is kept to be finished, and is another one by then.
    Make("tail", Kind::File),
    Write("tail", 0, 60_000, 7),
    Fsync("tail"),
    Clone("to", 0, "tail", 0, 60_000),
    Write("tail", 60_000, 100_000, 8),
    Fsync("tail"),
    Make("t5", Kind::File),
    Write("t5", 0, 44_000, 9),
    Sync,
    Make("t6", Kind::File),
    Write("t6", 0, 45_000, 10),
    Sync,
    Make("t7", Kind::File),
    Write("t7", 0, 46_000, 11),
    Sync,
    Unlink("t6"),
    Sync,
    // Enough small segments for the cleaner.
    Wait(70_000),
    Make("late", Kind::File),
    Write("late", 0, 70_000, 8),
    Wait(20_000),
    Write("late", 1_000, 5_000, 9),
    Fsync("late"),
    Unlink("docs/hard"),
    Schedule,
    Wait(60_000),
];

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The script's own memory.
#[derive(Debug, Default)]
pub struct Player {
    open: Option<u64>,
}

impl Player {
    /// Does one thing of the script.
    pub fn play(&mut self, sim: &mut Sim, what: Do) {
        sim.act_as_one(|sim| self.act(sim, what));
    }

    #[allow(clippy::too_many_lines)] // One arm per operation.
    fn act(&mut self, sim: &mut Sim, what: Do) {
        let now = sim.clock.tick();
        let home = sim.life().home.clone();
        let me = sim.caller(0);
        let ino = |sim: &Sim, path: &str| sim.tree.at(path).expect("the script made it");
        let place = |sim: &Sim, path: &str| {
            let (dir, name) = split(path);
            (sim.tree.at(dir).expect("the script made it"), name.as_bytes().to_vec())
        };
        match what {
            Make(path, kind) => {
                let (dir, name) = place(sim, path);
                let target = if kind == Kind::Symlink {
                    Bytes::from_static(b"docs/a")
                } else {
                    Bytes::new()
                };
                let node = NewNode { kind, perm: 0o755, umask: 0o022, rdev: 0, target };
                let real = home.make(me.clone(), Ino(dir), n(&name), node.clone());
                let real = sim.life().run(real);
                if !sim.lost(&real) {
                    let real = real.expect("makes");
                    let model = sim.tree.make(&me, (dir, &name), &node, real.ino.0, now);
                    assert_eq!(real, model, "make {path}");
                    // Nobody keeps it open.
                    home.forget(me.client, real.ino, 1);
                    sim.tree.forget(me.client.0, real.ino.0, 1);
                }
            }
            Write(path, offset, len, seed) => {
                let ino = ino(sim, path);
                Self::write(sim, ino, offset, &content(seed, len));
            }
            WriteOpen(offset, len, seed) => {
                let ino = self.open.expect("the script opened it");
                Self::write(sim, ino, offset, &content(seed, len));
            }
            Truncate(path, size) => {
                let (ino, set) =
                    (ino(sim, path), SetAttr { size: Some(size), ..SetAttr::default() });
                let real = sim.life().run(home.setattr(me, Ino(ino), set));
                if !sim.lost(&real) {
                    expect("truncate", real, sim.tree.setattr(ino, &set, now));
                }
            }
            Chmod(path, perm) => {
                let (ino, set) =
                    (ino(sim, path), SetAttr { perm: Some(perm), ..SetAttr::default() });
                let real = sim.life().run(home.setattr(me, Ino(ino), set));
                if !sim.lost(&real) {
                    expect("chmod", real, sim.tree.setattr(ino, &set, now));
                }
            }
            Punch(path, offset, len) | Reserve(path, offset, len) => {
                let ino = ino(sim, path);
                let what = match what {
                    Punch(..) => Falloc::PunchHole,
                    _ => Falloc::Allocate { keep_size: true },
                };
                let real = sim.life().run(home.fallocate(me, Ino(ino), what, offset, len));
                if !sim.lost(&real) {
                    let model = sim.tree.fallocate(ino, what, offset..offset + len, now);
                    expect("fallocate", real, model);
                }
            }
            Clone(from, at, to, there, len) => {
                let (from, to) = ((ino(sim, from), at), (ino(sim, to), there));
                let (x, y) = ((Ino(from.0), from.1), (Ino(to.0), to.1));
                let real = sim.life().run(home.copy_range(me, x, y, len));
                if !sim.lost(&real) {
                    expect("clone", real, sim.tree.copy_range(from, to, len, now));
                }
            }
            Rename(from, to) | Swap(from, to) | Whiteout(from, to) => {
                let mode = RenameMode {
                    exchange: matches!(what, Swap(..)),
                    whiteout: matches!(what, Whiteout(..)),
                    no_replace: false,
                };
                let (from, to) = (place(sim, from), place(sim, to));
                sim.rename(from, to, mode, me, now);
            }
            Link(path, name) => {
                let ino = ino(sim, path);
                let (dir, name) = place(sim, name);
                let real = sim.life().run(home.link(me.clone(), Ino(ino), Ino(dir), n(&name)));
                if !sim.lost(&real) {
                    expect("link", real, sim.tree.link(me.client.0, ino, (dir, &name), now));
                    home.forget(me.client, Ino(ino), 1);
                    sim.tree.forget(me.client.0, ino, 1);
                }
            }
            UnlinkOpen(path) | Unlink(path) => {
                let (dir, name) = place(sim, path);
                if matches!(what, UnlinkOpen(_)) {
                    let real = sim.life().run(home.lookup(me.client, Ino(dir), n(&name)));
                    if sim.lost(&real) {
                        return;
                    }
                    expect("lookup", real, sim.tree.lookup(me.client.0, dir, &name));
                    self.open = Some(ino(sim, path));
                }
                let real = sim.life().run(home.unlink(me, Ino(dir), n(&name)));
                if !sim.lost(&real) {
                    expect("unlink", real, sim.tree.unlink(dir, &name, now));
                }
            }
            Close => {
                let ino = self.open.take().expect("the script opened it");
                home.forget(me.client, Ino(ino), 1);
                sim.tree.forget(me.client.0, ino, 1);
            }
            Rmdir(path) => {
                let (dir, name) = place(sim, path);
                let real = sim.life().run(home.rmdir(me, Ino(dir), n(&name)));
                if !sim.lost(&real) {
                    expect("rmdir", real, sim.tree.rmdir(dir, &name, now));
                }
            }
            Xattr(path, name, len) => {
                let ino = ino(sim, path);
                let (name, value) = (name.as_bytes(), vec![7; len]);
                let (k, v) = (Bytes::copy_from_slice(name), Bytes::from(value.clone()));
                let mode = XattrMode::default();
                let real = sim.life().run(home.setxattr(me, Ino(ino), k, v, mode));
                if !sim.lost(&real) {
                    expect("setxattr", real, sim.tree.setxattr(ino, name, &value, mode, now));
                }
            }
            NoXattr(path, name) => {
                let ino = ino(sim, path);
                let k = Bytes::copy_from_slice(name.as_bytes());
                let real = sim.life().run(home.removexattr(me, Ino(ino), k));
                if !sim.lost(&real) {
                    expect("removexattr", real, sim.tree.removexattr(ino, name.as_bytes(), now));
                }
            }
            Quota(bytes) => {
                let quota = yadokari_fs::home::Quota { bytes, inodes: 1_000 };
                sim.tree.quota = quota;
                home.set_quota(quota);
            }
            Fsync(path) => {
                let ino = ino(sim, path);
                let real = sim.life().run(home.fsync(Ino(ino)));
                if !sim.lost(&real) {
                    expect("fsync", real, Ok(()));
                    sim.history.fsynced(ino);
                }
            }
            Sync => {
                let real = sim.life().run(home.sync());
                if !sim.lost(&real) {
                    expect("sync", real, Ok(()));
                    sim.history.synced();
                }
            }
            Wait(ms) => sim.wait(ms),
            Snapshot(name) => {
                if sim.make_snapshot(name, Origin::Command) {
                    sim.history.synced();
                }
            }
            NoSnapshot(name) => sim.remove_snapshot(name),
            Schedule => {
                if sim.follow_schedule(SCHEDULE) {
                    sim.history.synced();
                }
            }
        }
    }

    fn write(sim: &mut Sim, ino: u64, offset: u64, bytes: &[u8]) {
        let now = sim.clock.tick();
        let (home, me, mode) = (sim.life().home.clone(), sim.caller(0), WriteMode::default());
        let data = Bytes::copy_from_slice(bytes);
        let real = sim.life().run(home.write(me, Ino(ino), offset, data, mode));
        if !sim.lost(&real) {
            expect("write", real, sim.tree.write(ino, offset, bytes, mode, now));
        }
    }
}
