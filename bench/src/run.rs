//! A run: contenders started, workloads taken in turn, everything written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use yadokari_tests::ceph::{Ceph, Options};
use yadokari_tests::process;
use yadokari_tests::user::User;

use crate::contender::{self, Contender};
use crate::drain;
use crate::place::Place;
use crate::results::{Better, Metric, Results, Sample, Setting};
use crate::size::Size;
use crate::stop;
use crate::workload::Workload;

/// Bytes that rados bench writes at most: a store in memory that is full waits, and rados bench
/// with it.
const RADOS_BYTES_MAX: u64 = 2 << 30;

/// What is asked for.
pub struct Plan {
    pub size: Size,
    pub rounds: usize,
    pub contenders: Vec<String>,
    pub workloads: Vec<Workload>,
    /// Where contenders keep what they keep on disk.
    pub scratch: PathBuf,
}

struct Running {
    contender: Box<dyn Contender>,
    user: User,
}

/// Does it; `save` is told what there is so far after every workload, as a run takes long.
///
/// # Errors
/// Where something cannot be prepared, started or saved. A workload that fails on a contender is
/// noted.
pub fn run(plan: &Plan, save: impl Fn(&Results) -> Result<()>) -> Result<Results> {
    ensure!(rustix::process::geteuid().is_root(), "make bench mounts and makes users: run as root");
    for workload in &plan.workloads {
        eprintln!("preparing {}", workload.name);
        (workload.prepare)(plan.size).with_context(|| format!("preparing {}", workload.name))?;
    }
    let scratch = tempfile::Builder::new().prefix("yadokari-bench-").tempdir_in(&plan.scratch)?;
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let ceph = start_ceph(plan)?;
    let mut results = Results { setting: setting(plan)?, absent: Vec::new(), samples: Vec::new() };
    let mut all = Vec::new();
    for name in &plan.contenders {
        match contender::start(name, scratch.path(), ceph.as_ref()) {
            Ok(Some(contender)) => {
                let user = contender.user()?;
                all.push(Running { contender, user });
            }
            Ok(None) => results.absent.push(format!("{name} (its program is not on the PATH)")),
            Err(error) => return Err(error.context(format!("starting {name}"))),
        }
    }
    if let Some(ceph) = &ceph {
        results.samples.extend(rados_bench(ceph, plan.size));
    }
    for workload in &plan.workloads {
        measure(plan, workload, &mut all, ceph.as_ref(), &mut results);
        save(&results)?;
        ensure!(!stop::asked(), "ended by a signal");
    }
    Ok(results)
}

fn start_ceph(plan: &Plan) -> Result<Option<Ceph>> {
    if !plan.contenders.iter().any(|name| contender::needs_ceph(name)) {
        return Ok(None);
    }
    eprintln!("starting a Ceph cluster of one node");
    let ceph = Ceph::start_with(&Options { keeps_memory: true, ..Options::default() })?;
    warm(&ceph, plan.size)?;
    if plan.contenders.iter().any(|name| name == "ceph-fuse") {
        ceph.start_fs()?;
    }
    Ok(Some(ceph))
}

/// Writes and removes what the OSD shall have memory for. It keeps data in memory, and a page that
/// the machine has to find for it first costs more than to fill it: whoever came first would pay
/// for all that come later.
fn warm(ceph: &Ceph, size: Size) -> Result<()> {
    let bytes: u64 = size.of(6 << 30, 1 << 30, 0);
    if bytes == 0 {
        return Ok(());
    }
    eprintln!("filling the memory of its OSD");
    let objects = (bytes >> 22).to_string();
    let rados = ["-p", "data", "bench", "300", "write", "-b", "4194304", "-t", "16"];
    ceph.rados(&[&rados[..], &["--max-objects", &objects]].concat()).map(drop)
}

/// All rounds of one workload; in each the contenders begin with another.
fn measure(
    plan: &Plan,
    workload: &Workload,
    all: &mut [Running],
    ceph: Option<&Ceph>,
    results: &mut Results,
) {
    let rounds = plan.rounds.min(workload.rounds_max);
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..rounds {
        for n in 0..all.len() {
            let len = all.len();
            let running = &mut all[(n + round) % len];
            let name = running.contender.name().to_owned();
            if failed.contains_key(&name) {
                continue;
            }
            eprintln!("{} on {name}, round {}", workload.name, round + 1);
            let ceph = ceph.filter(|_| plan.size.drains() && contender::needs_ceph(&name));
            let stored = ceph.and_then(|ceph| drain::stored_bytes(ceph).ok());
            let limit = plan.size.limit();
            let mut place = Place::new(running.contender.as_mut(), &running.user, limit);
            // A home that rested for long is closed; to open it is measured where it belongs.
            let opened = place.sh("ls -a > /dev/null").map(drop);
            let done = opened.and_then(|()| (workload.run)(&mut place, plan.size));
            if stop::asked() {
                return;
            }
            let metrics = std::mem::take(&mut place.metrics);
            if let Err(error) = done {
                eprintln!("{} on {name}: {error:#}", workload.name);
                let why = error.to_string();
                failed.insert(name.clone(), why.lines().next().unwrap_or("").to_owned());
            }
            // What a round stopped at must not stand in the way of the next.
            let _ = place.sh("rm -rf src copy clone env app large* file* log many meta-*");
            if let (Some(ceph), Some(stored)) = (ceph, stored)
                && let Err(error) = drain::wait(ceph, stored)
            {
                eprintln!("{} on {name}: {error:#}", workload.name);
            }
            let sample =
                |metric| Sample { workload: workload.name, contender: name.clone(), round, metric };
            results.samples.extend(metrics.into_iter().map(sample));
        }
    }
    for (name, why) in failed {
        results.absent.push(format!("{} on {name} failed: {why}", workload.name));
    }
}

/// What the cluster gives without any file system.
pub fn rados_bench(ceph: &Ceph, size: Size) -> Vec<Sample> {
    let seconds = size.of("10", "3", "1");
    let figures = [
        ("write", "4194304", "16", "Bandwidth (MB/sec):", "MB/s", Better::Higher),
        ("append and fsync, median", "4096", "1", "Average Latency(s):", "ms", Better::Lower),
    ];
    let mut samples = Vec::new();
    for (metric, bytes, depth, line, unit, better) in figures {
        let rados = ["-p", "data", "bench", seconds, "write", "-b", bytes, "-t", depth];
        let objects = RADOS_BYTES_MAX / bytes.parse::<u64>().expect("a number above");
        let objects = objects.to_string();
        let most = ["--max-objects", &objects];
        let said = ceph.rados(&[&rados[..], &most[..]].concat());
        let found = said.ok().and_then(|said| {
            let value = said.lines().find_map(|text| text.trim().strip_prefix(line))?;
            value.trim().parse::<f64>().ok()
        });
        let Some(value) = found else { continue };
        let value = if unit == "ms" { value * 1e3 } else { value };
        let name = format!("rados bench, {metric} ({bytes} bytes, {depth} at once)");
        let metric = Metric {
            name,
            unit,
            better,
            value,
            stopped: false,
            daemon_cpu_s: 0.0,
            daemon_rss_mib: 0.0,
        };
        let contender = "rados bench".to_owned();
        samples.push(Sample { workload: "store", contender, round: 0, metric });
    }
    samples
}

fn setting(plan: &Plan) -> Result<Setting> {
    Ok(Setting {
        size: plan.size.name().to_owned(),
        rounds: plan.rounds,
        started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        ..machine(&plan.scratch)
    })
}

/// What is known of this machine; the run's own part is left empty.
pub fn machine(scratch: &Path) -> Setting {
    let here = env!("CARGO_MANIFEST_DIR");
    let first = |script: &str| {
        let said = process::sh(script).unwrap_or_default();
        said.lines().next().unwrap_or("").trim().to_owned()
    };
    let memory = first("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo");
    Setting {
        commit: first(&format!("git -C {here} describe --always --dirty 2>/dev/null || echo '?'")),
        kernel: first("uname -sr"),
        cpu: first("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: memory.parse().unwrap_or(0),
        disk: disk(scratch),
        size: String::new(),
        rounds: 0,
        started: 0,
    }
}

fn disk(dir: &Path) -> String {
    process::sh(&format!("df --output=source,fstype {} | tail -n 1", dir.display()))
        .map(|said| said.split_whitespace().collect::<Vec<_>>().join(" "))
        .unwrap_or_default()
}
