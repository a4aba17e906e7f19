//! Snapshots in the model: the tree as it was, to be found again whole whatever happens.

use std::collections::BTreeMap;

use bytes::Bytes;
use yadokari_fs::home::*;

use super::sim::{Sim, kind, same_bytes};
use super::tree::Tree;

/// A snapshot as it must be.
#[derive(Debug)]
pub struct Kept {
    tree: Tree,
    /// The store died while it was made or removed: it is there, whole, or it is not.
    unsure: bool,
}

impl Kept {
    /// What it must show.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// All of them, by name.
pub type AllKept = BTreeMap<String, Kept>;

/// The name of a snapshot, of a few that meet each other.
pub fn called(n: u16) -> String {
    format!("s{}", n % 3)
}

impl Sim {
    /// Makes one; says whether everything before it is durable now.
    pub fn make_snapshot(&mut self, name: &str, origin: Origin) -> bool {
        let home = self.life().home.clone();
        let real = self.life().run(home.make_snapshot(name, origin));
        let lost = self.lost(&real);
        if lost {
            let tree = self.tree.clone();
            self.kept.entry(name.to_owned()).or_insert(Kept { tree, unsure: true });
            return false;
        }
        if self.kept.contains_key(name) {
            assert_eq!(kind(real.map(drop)), Err("Exists".to_owned()), "{name}");
            return false;
        }
        let made = real.expect("makes a snapshot");
        assert_eq!((made.bytes, made.inodes), (self.tree.bytes, self.tree.nodes.len() as u64));
        let tree = self.tree.clone();
        self.kept.insert(name.to_owned(), Kept { tree, unsure: false });
        self.totals.snapshots += 1;
        true
    }

    /// Removes one, which may not be there.
    pub fn remove_snapshot(&mut self, name: &str) {
        let home = self.life().home.clone();
        let real = self.life().run(home.remove_snapshot(name));
        if self.lost(&real) {
            if let Some(kept) = self.kept.get_mut(name) {
                kept.unsure = true;
            }
            return;
        }
        match self.kept.remove(name) {
            Some(_) => real.expect("removes a snapshot"),
            None => assert_eq!(kind(real), Err("NotFound".to_owned()), "{name}"),
        }
    }

    /// An hour later: makes and drops what the schedule says. True where one was made.
    pub fn follow_schedule(&mut self, keep: Keep) -> bool {
        let now = self.clock.advance(3_600);
        let home = self.life().home.clone();
        let listed = home.snapshots().expect("lists");
        let plan = Plan::new(keep, &listed, home.changed(), Time::default(), now);
        let made = plan.make.is_some_and(|(name, origin)| self.make_snapshot(&name, origin));
        for name in plan.remove {
            if self.life().control.crashed() {
                break;
            }
            self.remove_snapshot(&name);
        }
        made
    }

    /// Compares all snapshots with what they showed when they were made.
    pub fn check_snapshots(&mut self) {
        let home = self.life().home.clone();
        if self.life().control.crashed() {
            return;
        }
        let listed = home.snapshots().expect("lists");
        let there: Vec<&str> = listed.iter().map(|s| &*s.name).collect();
        self.kept.retain(|name, kept| !kept.unsure || there.contains(&&**name));
        self.kept.values_mut().for_each(|kept| kept.unsure = false);
        let mut found: Vec<&str> = there.clone();
        found.sort_unstable();
        assert_eq!(found, self.kept.keys().collect::<Vec<_>>(), "the snapshots");
        for (name, kept) in &self.kept {
            let snapshot = home.snapshot(name).expect("is there");
            match self.life().run(check(&snapshot, &kept.tree)) {
                Err(Error(ErrorKind::Unavailable(_))) if self.life().control.crashed() => return,
                // Damage on the way is an error, and never other bytes.
                Err(Error(ErrorKind::Corrupt(_))) if self.rotten => {}
                done => done.expect("reads the snapshot"),
            }
        }
    }
}

/// Compares a snapshot with what it must show.
pub async fn check(snapshot: &Snapshot, tree: &Tree) -> Result<()> {
    let mut todo = vec![1];
    while let Some(dir) = todo.pop() {
        let mut cookie = 0;
        let mut names = BTreeMap::new();
        loop {
            let page = snapshot.readdir(Ino(dir), cookie, true, 5).await?;
            let Some(last) = page.last() else { break };
            cookie = last.next;
            for entry in page.iter().filter(|e| e.next > 2) {
                names.insert(entry.name.to_vec(), entry.ino.0);
                let attr = tree.nodes[&entry.ino.0].attr(entry.ino.0);
                assert_eq!(entry.attr, Some(attr), "{:?} in a snapshot", entry.name);
            }
        }
        assert_eq!(names, tree.nodes[&dir].names.entries, "names of {dir} in a snapshot");
        for ino in names.into_values() {
            if tree.nodes[&ino].names.kind == Kind::Dir {
                todo.push(ino);
            } else {
                check_file(snapshot, tree, ino).await?;
            }
        }
    }
    Ok(())
}

async fn check_file(snapshot: &Snapshot, tree: &Tree, ino: u64) -> Result<()> {
    let node = &tree.nodes[&ino];
    for (name, value) in &node.names.xattrs {
        let real = snapshot.getxattr(Ino(ino), name).await?;
        assert_eq!(real, Bytes::from(value.clone()), "{name:?} of {ino} in a snapshot");
    }
    let Some(data) = &node.data else { return Ok(()) };
    for range in data.contents.ranges() {
        let len = u32::try_from(range.end - range.start).expect("short");
        let real = snapshot.read(Ino(ino), range.start, len).await?.concat();
        let end = range.end.min(data.size);
        let model = data.contents.read(range.start.min(end)..end);
        same_bytes(ino, range.start, &real, &model);
    }
    Ok(())
}
