//! What a crash may leave, word by word from the design: names are a prefix of the order of
//! operations; a file shows one earlier state of its data; a rename over a name carries its
//! source's data; what was synced is there; of the rest at most the last five seconds go.

use std::collections::BTreeMap;
use std::sync::Arc;

use yadokari_fs::home::{Kind, Quota};

use super::invariants::{Invariant, broken};
use super::tree::{Data, Names, Node, Tree};

struct Snapshot {
    age: u64,
    nodes: BTreeMap<u64, Arc<Names>>,
    /// Files whose data was carried by the operation, with the state that it had.
    carried: Vec<(u64, usize)>,
}

/// One state of a file's data: when, and which snapshot was the last then.
struct State {
    age: u64,
    data: Arc<Data>,
}

/// The states that a home went through since it was opened.
pub struct History {
    snapshots: Vec<Snapshot>,
    states: BTreeMap<u64, Vec<State>>,
    /// The snapshot in which an inode was changed last.
    named: BTreeMap<u64, usize>,
    names_floor: usize,
    data_floor: BTreeMap<u64, usize>,
    carries: Vec<u64>,
    synced: Vec<u64>,
}

fn names_of(tree: &Tree) -> BTreeMap<u64, Arc<Names>> {
    tree.nodes.iter().map(|(ino, node)| (*ino, Arc::clone(&node.names))).collect()
}

impl History {
    pub fn new(tree: &Tree) -> History {
        let first = Snapshot { age: 0, nodes: names_of(tree), carried: Vec::new() };
        let states = tree.nodes.iter().filter_map(|(ino, node)| {
            Some((*ino, vec![State { age: 0, data: Arc::clone(node.data.as_ref()?) }]))
        });
        History {
            snapshots: vec![first],
            states: states.collect(),
            named: BTreeMap::new(),
            names_floor: 0,
            data_floor: BTreeMap::new(),
            carries: Vec::new(),
            synced: Vec::new(),
        }
    }

    /// The rename that runs takes the data of these along, as it is now.
    pub fn carries(&mut self, inos: Vec<u64>) {
        self.carries = inos;
    }

    /// Remembers what the last operation did.
    pub fn note(&mut self, tree: &Tree, age: u64) {
        let carried = std::mem::take(&mut self.carries)
            .into_iter()
            .filter_map(|ino| Some((ino, self.states.get(&ino)?.len() - 1)))
            .collect();
        for ino in &tree.wrote {
            if let Some(data) = tree.nodes.get(ino).and_then(|n| n.data.as_ref()) {
                let state = State { age, data: Arc::clone(data) };
                self.states.entry(*ino).or_default().push(state);
            }
        }
        if !tree.named.is_empty() {
            self.snapshots.push(Snapshot { age, nodes: names_of(tree), carried });
            for ino in &tree.named {
                self.named.insert(*ino, self.snapshots.len() - 1);
            }
        }
    }

    fn data_synced(&mut self, ino: u64) {
        if let Some(states) = self.states.get(&ino) {
            self.data_floor.insert(ino, states.len() - 1);
        }
    }

    pub fn fsynced(&mut self, ino: u64) {
        self.data_synced(ino);
        let named = self.named.get(&ino).copied().unwrap_or(0);
        self.names_floor = self.names_floor.max(named);
        self.synced.push(ino);
    }

    pub fn synced(&mut self) {
        let inos: Vec<u64> = self.states.keys().copied().collect();
        for ino in inos {
            self.data_synced(ino);
        }
        self.names_floor = self.snapshots.len() - 1;
    }

    /// All states of all files, to know where to look.
    pub fn contents(&self) -> BTreeMap<u64, Vec<Arc<Data>>> {
        let datas = |states: &Vec<State>| states.iter().map(|s| Arc::clone(&s.data)).collect();
        self.states.iter().map(|(ino, states)| (*ino, datas(states))).collect()
    }

    /// Finds the states that a home shows after a crash, where nothing from before the age `old`
    /// may be lost, or says which promise is broken.
    pub fn recover(&self, found: BTreeMap<u64, Node>, old: u64, quota: Quota) -> Tree {
        let kept = self.snapshots.iter().rposition(|s| s.age < old).unwrap_or(0);
        let floor = self.names_floor.max(kept);
        let matching =
            (floor..self.snapshots.len()).find(|at| same_names(&self.snapshots[*at], &found));
        let Some(at) = matching else {
            let any =
                (0..self.snapshots.len()).rfind(|at| same_names(&self.snapshots[*at], &found));
            if any.is_none() {
                explain(&self.snapshots, &found);
            }
            let invariant = match any {
                Some(_) => Invariant::AcknowledgedIsKept,
                None => Invariant::CrashLeavesOneMoment,
            };
            let why = format!(
                "the names after a crash are those after change {any:?}; synced up to {}, \
                 older than five seconds {kept}, changes {}",
                self.names_floor,
                self.snapshots.len() - 1
            );
            broken(invariant, why);
        };
        let mut carried: BTreeMap<u64, usize> = BTreeMap::new();
        for snapshot in &self.snapshots[..=at] {
            for (ino, state) in &snapshot.carried {
                let least = carried.entry(*ino).or_insert(0);
                *least = (*least).max(*state);
            }
        }
        let mut nodes = BTreeMap::new();
        for (ino, mut node) in found {
            if node.names.kind == Kind::File {
                let least = carried.get(&ino).copied().unwrap_or(0);
                node.data = Some(self.recover_data(ino, &node, least, old));
            }
            let names = &self.snapshots[at].nodes[&ino];
            node.names = Arc::clone(names);
            nodes.insert(ino, node);
        }
        let bytes = nodes.values().map(|n| n.charged + n.xattr_bytes()).sum();
        let refs = BTreeMap::new();
        Tree { nodes, refs, quota, bytes, named: Vec::new(), wrote: Vec::new() }
    }

    fn recover_data(&self, ino: u64, node: &Node, carried: usize, old: u64) -> Arc<Data> {
        let states = &self.states[&ino];
        let synced = self.data_floor.get(&ino).copied().unwrap_or(0);
        let kept = states.iter().rposition(|s| s.age < old).unwrap_or(0);
        let floor = synced.max(carried).max(kept);
        let shown = node.data.as_ref().expect("a file");
        let same = |state: &State| same_data(&state.data, shown, node.charged);
        if let Some(at) = (floor..states.len()).rfind(|at| same(&states[*at])) {
            return Arc::clone(&states[at].data);
        }
        let any = (0..floor).rfind(|at| same(&states[*at]));
        let all: Vec<_> = states
            .iter()
            .map(|s| (s.age, s.data.size, s.data.contents.charged(), s.data.mtime.sec))
            .collect();
        let invariant = match any {
            Some(_) => Invariant::AcknowledgedIsKept,
            None => Invariant::CrashLeavesOneMoment,
        };
        let why = format!(
            "file {ino} shows its state {any:?} of {} after a crash (size {}, charged {}, mtime \
             {}); synced {synced}, carried {carried}, older than five seconds {kept}; states: {all:?}",
            states.len(),
            shown.size,
            node.charged,
            shown.mtime.sec,
        );
        broken(invariant, why);
    }
}

fn same_data(state: &Data, shown: &Data, charged: u64) -> bool {
    let clipped = |data: &Data, at: u64| {
        let end = (at + 4096).min(data.size);
        data.contents.read(at.min(end)..end)
    };
    state.size == shown.size
        && state.mtime == shown.mtime
        && state.contents.charged() == charged
        && [&state.contents, &shown.contents]
            .iter()
            .flat_map(|c| c.ranges())
            .flat_map(|range| range.step_by(4096))
            .all(|at| clipped(state, at) == clipped(shown, at))
}

fn reachable(snapshot: &Snapshot) -> impl Iterator<Item = (&u64, &Arc<Names>)> {
    snapshot.nodes.iter().filter(|(_, names)| names.nlink > 0)
}

fn same(a: &Names, b: &Names) -> bool {
    if a.kind != Kind::File {
        return a == b;
    }
    let blank = |names: &Names| Names { mtime: names.btime, ctime: names.btime, ..names.clone() };
    blank(a) == blank(b)
}

fn same_names(snapshot: &Snapshot, found: &BTreeMap<u64, Node>) -> bool {
    reachable(snapshot).count() == found.len()
        && reachable(snapshot)
            .all(|(ino, names)| found.get(ino).is_some_and(|node| same(names, &node.names)))
}

fn explain(snapshots: &[Snapshot], found: &BTreeMap<u64, Node>) {
    let differ = |s: &Snapshot| {
        let mut inos: Vec<u64> = reachable(s)
            .filter(|(ino, names)| !found.get(ino).is_some_and(|node| same(names, &node.names)))
            .map(|(ino, _)| *ino)
            .collect();
        inos.extend(found.keys().filter(|ino| s.nodes.get(ino).is_none_or(|n| n.nlink == 0)));
        inos
    };
    let Some((at, best)) = snapshots.iter().enumerate().min_by_key(|(_, s)| differ(s).len()) else {
        return;
    };
    eprintln!("no prefix matches; change {at} comes closest");
    for ino in differ(best) {
        eprintln!("  {ino} then: {:?}", best.nodes.get(&ino));
        eprintln!("  {ino} now:  {:?}", found.get(&ino).map(|n| &n.names));
    }
}
