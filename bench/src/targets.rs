//! The figures that homes are to reach, as ratios in one run.

use crate::results::{Cell, Table};

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub workload: &'static str,
    pub metric: &'static str,
    pub contender: &'static str,
    /// The fastest of those that were measured counts.
    pub against: &'static [&'static str],
    /// At most so many times as long; for rates, at least one part of so many.
    pub ratio_max: f64,
}

/// What became of a figure.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub target: Target,
    /// Against whom it was measured and the ratio; `None` where one of both is missing.
    pub ratio: Option<(String, f64)>,
}

impl Verdict {
    /// Whether it is reached, where it was measured.
    pub fn is_reached(&self) -> Option<bool> {
        self.ratio.as_ref().map(|(_, ratio)| *ratio <= self.target.ratio_max)
    }
}

const PEERS: &[&str] = &["ceph-fuse", "juicefs"];
const FLOOR: &[&str] = &["floor"];
const BOTH: [&str; 2] = ["ours-rados", "ours-file"];

/// The home daemon's memory at any point.
pub const RSS_MIB_MAX: f64 = 300.0;

fn add(
    all: &mut Vec<Target>,
    (workload, metric): (&'static str, &'static str),
    contender: &'static str,
    against: &'static [&'static str],
    ratio_max: f64,
) {
    all.push(Target { workload, metric, contender, against, ratio_max });
}

/// All figures.
pub fn all() -> Vec<Target> {
    let mut all = Vec::new();
    let [rados, file] = BOTH;
    for metric in ["untar", "cp -r"] {
        add(&mut all, ("tree", metric), rados, PEERS, 1.0 / 4.0);
        add(&mut all, ("tree", metric), rados, FLOOR, 1.5);
        add(&mut all, ("tree", metric), file, FLOOR, 1.3);
    }
    let warm = [("tree", "find"), ("tree", "du"), ("tree", "tar"), ("git", "git status")];
    for ours in BOTH {
        for key in warm {
            add(&mut all, key, ours, FLOOR, 1.2);
        }
        add(&mut all, ("tree", "rm -rf"), ours, FLOOR, 1.3);
        add(&mut all, ("git", "git clone"), ours, FLOOR, 1.3);
        add(&mut all, ("random", "random write, depth 1"), ours, FLOOR, 1.2);
        add(&mut all, ("random", "random write, depth 16"), ours, FLOOR, 1.2);
        add(&mut all, ("large", "read, warm"), ours, FLOOR, 1.1);
    }
    for key in [("tree", "find, cold"), ("tree", "tar, cold"), ("git", "git status, cold")] {
        add(&mut all, key, rados, &["juicefs"], 1.0 / 2.5);
        add(&mut all, key, rados, &["ceph-fuse"], 1.0 / 4.0);
    }
    add(&mut all, ("tree", "rm -rf"), rados, PEERS, 1.0 / 8.0);
    add(&mut all, ("large", "write"), rados, PEERS, 1.0 / 1.2);
    add(&mut all, ("large", "write"), file, &["ext4"], 1.0 / 0.75);
    add(&mut all, ("large", "write"), file, FLOOR, 1.15);
    add(&mut all, ("large", "read, cold"), rados, &["ceph-fuse"], 1.0 / 1.2);
    add(&mut all, ("large", "read, cold"), file, &["ext4"], 1.6);
    add(&mut all, ("commit", "append and fsync, median"), file, &["ext4"], 3.0);
    for (metric, vfs) in [("import", "import, vfs"), ("six-step build", "six-step build, vfs")] {
        add(&mut all, ("containers", metric), rados, FLOOR, 1.3);
        add(&mut all, ("containers", metric), file, FLOOR, 1.15);
        let _shown_in_the_table = vfs;
    }
    all
}

/// Judges every figure by what was measured.
pub fn judge(table: &Table) -> Vec<Verdict> {
    all().into_iter().map(|target| Verdict { ratio: ratio(table, &target), target }).collect()
}

fn ratio(table: &Table, target: &Target) -> Option<(String, f64)> {
    let row = table.get(&(target.workload, target.metric.to_owned()))?;
    let ours = row.get(target.contender)?;
    let all = target.against.iter().filter_map(|name| {
        let other: &Cell = row.get(*name)?;
        Some(((*name).to_owned(), ours.ratio_to(other)))
    });
    all.max_by(|a, b| a.1.total_cmp(&b.1))
}
