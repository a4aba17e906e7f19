//! The figures that homes are to reach, as ratios in one run.

use std::collections::BTreeMap;

use crate::results::{Better, Cell, Table};

/// One figure.
#[derive(Clone, Debug)]
pub struct Target {
    pub workload: &'static str,
    /// What counts together.
    pub metrics: Vec<&'static str>,
    /// What the others do for it, where it is called something else there.
    pub theirs: Vec<&'static str>,
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
    let [metrics, theirs] = [vec![metric], vec![metric]];
    all.push(Target { workload, metrics, theirs, contender, against, ratio_max });
}

/// What users of Podman have today: the driver that copies.
fn against_vfs(contender: &'static str, against: &'static [&'static str], faster: f64) -> Target {
    Target {
        workload: "containers",
        metrics: vec!["import", "six-step build"],
        theirs: vec!["import, vfs", "six-step build, vfs"],
        contender,
        against,
        ratio_max: 1.0 / faster,
    }
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
    for (workload, [cold, warm]) in [
        ("tree", ["find, cold", "find"]),
        ("tree", ["tar, cold", "tar"]),
        ("git", ["git status, cold", "git status"]),
    ] {
        let (metrics, theirs) = (vec![cold], vec![warm]);
        let against = &["ours-file"];
        all.push(Target { workload, metrics, theirs, contender: file, against, ratio_max: 2.0 });
    }
    add(&mut all, ("tree", "rm -rf"), rados, PEERS, 1.0 / 8.0);
    add(&mut all, ("large", "write"), rados, PEERS, 1.0 / 1.2);
    add(&mut all, ("large", "write"), file, &["ext4"], 1.0 / 0.75);
    add(&mut all, ("large", "write"), file, FLOOR, 1.15);
    add(&mut all, ("large", "read, cold"), rados, &["ceph-fuse"], 1.0 / 1.2);
    add(&mut all, ("large", "read, cold"), file, &["ext4"], 1.6);
    add(&mut all, ("commit", "append and fsync, median"), file, &["ext4"], 3.0);
    for metric in ["import", "six-step build"] {
        add(&mut all, ("containers", metric), rados, FLOOR, 1.3);
        add(&mut all, ("containers", metric), file, FLOOR, 1.15);
    }
    for ours in BOTH {
        all.push(against_vfs(ours, &["ext4"], 2.3));
        // What a home is to come near to: below the floor of a plain set-up.
        add(&mut all, ("containers", "six-step build"), ours, &["tmpfs"], 2.5);
        add(&mut all, ("tree", "untar"), ours, &["ext4"], 2.5);
    }
    all.push(against_vfs(rados, &["ceph-fuse"], 20.0));
    all
}

/// Judges every figure by what was measured.
pub fn judge(table: &Table) -> Vec<Verdict> {
    all().into_iter().map(|target| Verdict { ratio: ratio(table, &target), target }).collect()
}

fn ratio(table: &Table, target: &Target) -> Option<(String, f64)> {
    let ours = total(table, target.workload, &target.metrics, target.contender)?;
    let all = target.against.iter().filter_map(|name| {
        let theirs = total(table, target.workload, &target.theirs, name)?;
        let ratio = match ours.1 {
            Better::Lower => ours.0 / theirs.0,
            Better::Higher => theirs.0 / ours.0,
        };
        Some(((*name).to_owned(), ratio))
    });
    all.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The sum of medians, if all were measured.
fn total(
    table: &Table,
    workload: &'static str,
    metrics: &[&'static str],
    contender: &str,
) -> Option<(f64, Better)> {
    let cell = |metric: &&'static str| -> Option<&Cell> {
        let row: &BTreeMap<String, Cell> = table.get(&(workload, (*metric).to_owned()))?;
        row.get(contender)
    };
    let cells: Vec<&Cell> = metrics.iter().map(cell).collect::<Option<_>>()?;
    Some((cells.iter().map(|cell| cell.median).sum(), cells.first()?.better))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(better: Better, median: f64) -> Cell {
        let (least, most) = (median, median);
        Cell { median, least, most, unit: "s", better, stopped: false, rss_mib: 0.0, cpu_s: 0.0 }
    }

    fn table(cells: &[(&'static str, &str, f64)]) -> Table {
        let mut table = Table::new();
        for (metric, contender, median) in cells {
            let row = table.entry(("containers", (*metric).to_owned())).or_default();
            row.insert((*contender).to_owned(), cell(Better::Lower, *median));
        }
        table
    }

    #[test]
    fn what_counts_together_is_added_up_and_judged_only_when_all_of_it_is_there() {
        let target = against_vfs("ours-file", &["ext4"], 2.3);
        let mut cells = vec![
            ("import", "ours-file", 3.0),
            ("six-step build", "ours-file", 17.0),
            ("import, vfs", "ext4", 5.0),
        ];
        assert!(ratio(&table(&cells), &target).is_none());
        cells.push(("six-step build, vfs", "ext4", 45.0));
        assert_eq!(ratio(&table(&cells), &target), Some(("ext4".to_owned(), 0.4)));
        let verdict = Verdict { ratio: ratio(&table(&cells), &target), target };
        assert_eq!(verdict.is_reached(), Some(true));
    }

    #[test]
    fn the_fastest_of_the_others_counts() {
        let mut all = Vec::new();
        add(&mut all, ("containers", "import"), "ours-rados", PEERS, 0.5);
        let of = |ours| {
            let cells = [("ours-rados", ours), ("ceph-fuse", 4.0), ("juicefs", 2.0)];
            let cells = cells.map(|(name, median)| ("import", name, median));
            ratio(&table(&cells), &all[0])
        };
        assert_eq!(of(1.0), Some(("juicefs".to_owned(), 0.5)));
    }
}
