//! Objects of a home with a bit flipped, deleted, cut short: wrong bytes, names or attributes are
//! never given out. What is damaged is an error that names the home and the object, the rest stays
//! as it was, and a check finds what hurts and names the files.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use yadokari_fs::home::fsck::Report;
use yadokari_fs::home::*;
use yadokari_store::fault::FaultPlan;

use super::kept;
use super::life::{HandClock, Life, ROOMY, quiet_runtime};
use super::script::{Do, Player, SCRIPT};
use super::sim::{Sim, n};
use super::tree::Tree;
use super::watch::Checker;

/// Flips that are tried.
const FLIPS: u64 = 1_000;
/// Bytes that one read asks for: less than a chunk, so that the rest of a file shows.
const READ_BYTES: u32 = 64 << 10;

/// The objects of a closed home, and what they hold.
struct Sample {
    objects: Vec<(Path, Bytes)>,
    bytes: u64,
    tree: Tree,
    /// What the snapshots show.
    kept: Vec<(String, Tree)>,
}

/// What became of a damaged home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All is as it was, and a check finds nothing.
    Harmless,
    /// All is as it was; a check finds it.
    Found,
    /// Some reads fail, and a check names the files.
    Hurt,
    /// The home cannot be opened, and says why.
    Refused,
}

/// A home that was closed, or one whose machine died: then its log is needed.
fn sample(closed: bool) -> Sample {
    let mut sim = Sim::new(ROOMY, FaultPlan::none());
    let mut player = Player::default();
    SCRIPT.iter().for_each(|what| player.play(&mut sim, *what));
    sim.reopen();
    if closed {
        sim.reopen();
    } else {
        player.play(&mut sim, Do::Write("late", 20_000, 9_000, 4));
        player.play(&mut sim, Do::Fsync("late"));
        player.play(&mut sim, Do::Make("last", Kind::File));
        player.play(&mut sim, Do::Sync);
    }
    let store = sim.watch.fork();
    let objects = quiet_runtime().block_on(async {
        let listed: Vec<_> = store.list(None).try_collect().await.expect("lists");
        let mut objects = Vec::new();
        for meta in listed {
            let bytes = store.get(&meta.location).await.expect("gets").bytes().await;
            objects.push((meta.location, bytes.expect("reads")));
        }
        objects
    });
    let bytes = objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let kept = sim.kept.iter().map(|(name, kept)| (name.clone(), kept.tree().clone())).collect();
    Sample { objects, bytes, tree: sim.tree.clone(), kept }
}

impl Sample {
    /// A store with these objects, but one of them changed; `None`: deleted.
    fn damaged(&self, which: usize, now: Option<Bytes>) -> Arc<dyn ObjectStore> {
        let store = InMemory::new();
        quiet_runtime().block_on(async {
            for (at, (path, bytes)) in self.objects.iter().enumerate() {
                let bytes = if at == which { now.clone() } else { Some(bytes.clone()) };
                if let Some(bytes) = bytes {
                    store.put(path, bytes.into()).await.expect("puts");
                }
            }
        });
        Arc::new(store)
    }

    /// A bit, by a number: of any object, or of any byte.
    fn bit(&self, seed: u64) -> (usize, usize, u8) {
        let hash = blake3::hash(&seed.to_le_bytes());
        let number = |at: usize| {
            let bytes: [u8; 8] = hash.as_bytes()[at..at + 8].try_into().expect("eight");
            u64::from_le_bytes(bytes)
        };
        let bit = (number(16) % 8) as u8;
        if seed % 2 == 0 {
            let which = (number(0) % self.objects.len() as u64) as usize;
            let len = self.objects[which].1.len().max(1) as u64;
            return (which, (number(8) % len) as usize, bit);
        }
        let mut at = number(0) % self.bytes;
        for (which, (_, bytes)) in self.objects.iter().enumerate() {
            if at < bytes.len() as u64 {
                return (which, at as usize, bit);
            }
            at -= bytes.len() as u64;
        }
        unreachable!("all bytes are in objects")
    }
}

/// Looks at everything that a home shows, beside what it should.
struct Walk<'a> {
    life: &'a Life,
    tree: &'a Tree,
    wrong: Vec<String>,
    errors: Vec<String>,
    hurt: BTreeSet<String>,
}

impl Walk<'_> {
    /// What was given, unless it is an error that damage explains.
    fn got<T>(&mut self, path: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                match error.kind() {
                    ErrorKind::Corrupt(_) | ErrorKind::Unavailable(_) => {}
                    other => self.wrong.push(format!("{path}: {other}")),
                }
                self.hurt.insert(path.to_owned());
                self.errors.push(error.to_string());
                None
            }
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, path: &str, is: T, should: T) {
        if is != should {
            self.wrong.push(format!("{path}: {is:?}, should be {should:?}"));
        }
    }

    fn visit(&mut self, path: &str, ino: u64) {
        let home = self.life.home.clone();
        let node = self.tree.nodes[&ino].clone();
        let shown = if path.is_empty() { "/" } else { path };
        if let Some(attr) = self.got(shown, self.life.run(home.getattr(Ino(ino)))) {
            self.same(shown, attr, node.attr(ino));
        }
        for (name, value) in &node.names.xattrs {
            let name = Bytes::copy_from_slice(name);
            if let Some(got) = self.got(shown, self.life.run(home.getxattr(Ino(ino), name))) {
                self.same(shown, &got[..], &value[..]);
            }
        }
        match node.names.kind {
            Kind::Dir => self.visit_dir(path, shown, ino),
            Kind::Symlink => {
                if let Some(target) = self.got(shown, self.life.run(home.readlink(Ino(ino)))) {
                    self.same(shown, &target[..], &node.names.target[..]);
                }
            }
            _ => {}
        }
        let Some(data) = node.data else { return };
        let mut at = 0;
        while at < data.size {
            let read = self.life.run(home.read(Ino(ino), at, READ_BYTES));
            let end = data.size.min(at + u64::from(READ_BYTES));
            if let Some(pieces) = self.got(shown, read)
                && pieces.concat() != data.contents.read(at..end)
            {
                self.wrong.push(format!("{shown}: other bytes from {at}"));
            }
            at = end;
        }
    }

    fn visit_dir(&mut self, path: &str, shown: &str, ino: u64) {
        let home = self.life.home.clone();
        let names = self.tree.nodes[&ino].names.entries.clone();
        if let Some(page) = self.got(shown, self.life.run(home.readdir(Ino(ino), 0, false, 1000))) {
            let listed = page.iter().skip(2).map(|e| (e.name.to_vec(), e.ino.0)).collect();
            self.same(shown, listed, names.clone());
        }
        for (name, below) in names {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let client = self.life.clients[0];
            let found = self.life.run(home.lookup(client, Ino(ino), n(&name)));
            if self.got(&path, found).is_some() {
                self.visit(&path, below);
            }
        }
    }
}

/// The paths that name the same inode as `path`.
fn other_names(tree: &Tree, path: &str) -> BTreeSet<String> {
    let Some(wanted) = tree.at(path) else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    let mut todo = vec![(String::new(), 1)];
    while let Some((above, dir)) = todo.pop() {
        for (name, ino) in &tree.nodes[&dir].names.entries {
            let path = format!("{above}/{}", String::from_utf8_lossy(name));
            if *ino == wanted {
                found.insert(path.clone());
            }
            if tree.nodes[ino].names.kind == Kind::Dir {
                todo.push((path, *ino));
            }
        }
    }
    found
}

/// Fails where a check does not name what hurts.
fn names_all(tree: &Tree, hurt: &BTreeSet<String>, report: &Result<Report, String>, how: &str) {
    let report = match report {
        // Not even a check can read the tables; it says so.
        Err(why) => return assert!(why.contains("alice"), "{how} names nothing: {why}"),
        Ok(report) => report,
    };
    let named: BTreeSet<&String> = report.findings.iter().flat_map(|f| &f.paths).collect();
    for path in hurt {
        let names = other_names(tree, path);
        let is_named = names.iter().any(|name| named.contains(name)) || named.contains(path);
        assert!(is_named, "{how} does not name {path}:\n{report}");
    }
}

/// Looks at all snapshots: they show what they must, or an error. True where none is an error.
fn snapshots_are_whole(life: &Life, kept: &[(String, Tree)]) -> bool {
    let mut whole = true;
    for (name, tree) in kept {
        let looked = life.home.snapshot(name);
        let looked = looked.and_then(|snapshot| life.run(kept::check(&snapshot, tree)));
        if let Err(error) = looked {
            let text = error.to_string();
            let damage = matches!(error.kind(), ErrorKind::Corrupt(_) | ErrorKind::Unavailable(_));
            assert!(damage && text.contains("alice"), "snapshot {name}: {text}");
            whole = false;
        }
    }
    whole
}

/// Opens what is damaged, looks at everything, and checks it in both ways.
fn inspect(sample: &Sample, store: &Arc<dyn ObjectStore>) -> Outcome {
    let clock = Arc::new(HandClock::default());
    clock.advance(10_000_000);
    let offline = Checker::new().report(store, false);
    let found = offline.as_ref().is_ok_and(|report| !report.clean);
    let opened = Life::try_begin(store, &clock, Quota::NONE, ROOMY, FaultPlan::none());
    let life = match opened {
        Ok(life) => life,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("alice"), "the error does not name the home: {text}");
            assert!(offline.is_err() || found, "only opening finds it: {text}");
            return Outcome::Refused;
        }
    };
    let (wrong, errors, hurt) = {
        let mut walk = Walk {
            life: &life,
            tree: &sample.tree,
            wrong: Vec::new(),
            errors: Vec::new(),
            hurt: BTreeSet::new(),
        };
        walk.visit("", 1);
        (walk.wrong, walk.errors, walk.hurt)
    };
    let detected = if offline.is_err() || found { "found" } else { "not found" };
    assert!(wrong.is_empty(), "given out as good ({detected} by a check): {wrong:?}");
    for text in &errors {
        assert!(text.contains("alice"), "an error that does not name the home: {text}");
    }
    let whole = snapshots_are_whole(&life, &sample.kept);
    assert!(whole || detected == "found", "no check finds what hurts a snapshot");
    if hurt.is_empty() {
        return if found || offline.is_err() { Outcome::Found } else { Outcome::Harmless };
    }
    names_all(&sample.tree, &hurt, &offline, "the check of a closed home");
    let options = fsck::Options { verify_data: true, in_use: true };
    let online = life.run(life.home.check(options, &mut |_| {}));
    let online = online.map_err(|error| error.to_string());
    names_all(&sample.tree, &hurt, &online, "the check of an open home");
    Outcome::Hurt
}

/// Tries all cases on all processors; fails with what the first failures say.
fn try_all(what: &str, cases: u64, case: impl Fn(u64) -> (String, Outcome) + Sync) {
    let next = AtomicU64::new(0);
    let (seen, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cases {
                        return;
                    }
                    let run = std::panic::AssertUnwindSafe(|| case(number));
                    match std::panic::catch_unwind(run) {
                        Ok(outcome) => seen.lock().expect("whole").push(outcome),
                        Err(_shown) => failed.lock().expect("whole").push(number),
                    }
                }
            });
        }
    });
    let (seen, failed) = (seen.into_inner().expect("whole"), failed.into_inner().expect("whole"));
    for outcome in [Outcome::Harmless, Outcome::Found, Outcome::Hurt, Outcome::Refused] {
        let of = |part: &str| {
            let hit = |(path, is): &&(String, Outcome)| *is == outcome && path.contains(part);
            seen.iter().filter(hit).count()
        };
        let (segments, tables) = (of("/segments/"), of("/tables/"));
        println!("{what}: {outcome:?}: {segments} of segments, {tables} of tables");
    }
    assert!(failed.is_empty(), "{what}: {} of {cases} failed: {failed:?}", failed.len());
}

fn flip(sample: &Sample, seed: u64) -> (String, Outcome) {
    let (which, at, bit) = sample.bit(seed);
    let (path, bytes) = &sample.objects[which];
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
    println!("{seed}: {path}, byte {at}, bit {bit}");
    let store = sample.damaged(which, Some(bytes.into()));
    (path.to_string(), inspect(sample, &store))
}

#[test]
fn a_thousand_flipped_bits_are_detected_or_harmless() {
    let sample = sample(true);
    try_all("a flipped bit", FLIPS, |seed| flip(&sample, seed));
}

#[test]
fn a_thousand_bits_flipped_after_a_crash_are_detected_or_harmless() {
    let sample = sample(false);
    try_all("a flipped bit after a crash", FLIPS, |seed| flip(&sample, FLIPS + seed));
}

#[test]
fn every_object_that_is_deleted_or_cut_short_is_detected_or_harmless() {
    let sample = sample(true);
    let ways = 4;
    try_all("a lost object", sample.objects.len() as u64 * ways, |case| {
        let which = (case / ways) as usize;
        let (path, bytes) = &sample.objects[which];
        let now = match case % ways {
            0 => None,
            1 => Some(bytes.slice(..0)),
            2 => Some(bytes.slice(..bytes.len() / 2)),
            _ => Some(bytes.slice(..bytes.len().saturating_sub(1))),
        };
        println!(
            "{case}: {path}, {:?} of {} bytes left",
            now.as_ref().map(Bytes::len),
            bytes.len()
        );
        let store = sample.damaged(which, now);
        (path.to_string(), inspect(&sample, &store))
    });
}
