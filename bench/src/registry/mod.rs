//! `registry`: the gateway measured beside other registries, on this machine, in one go.
//!
//! A run starts the contenders ([`contender`]) and takes the workloads in turn, one contender
//! after the other and several times: transfers ([`transfer`]), many small requests ([`requests`]),
//! lists ([`lists`]), pushing while collection runs ([`collect`]), memory ([`memory`]). The client
//! ([`wire`]) runs on the same processors as the registry, as it does in every such comparison; it
//! neither hashes what it pulls nor reads from a disk what it pushes.

mod collect;
mod contender;
mod lists;
mod memory;
mod report;
mod requests;
mod source;
mod transfer;
mod wire;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use yadokari_tests::ceph::Ceph;

use crate::results::{Better, Metric, Results, Sample, Setting};
use crate::run;
use crate::size::{Chosen, Size};
use contender::Registry;

/// One workload.
struct Workload {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Measured<'_>, Size) -> Result<()>,
    /// Once is enough: what it makes stays, or it takes long.
    once: bool,
}

static ALL: [Workload; 6] = [
    Workload {
        name: "blobs",
        about: "a blob of 1 GiB and an image of 30 layers, pushed and pulled",
        run: transfer::run,
        once: false,
    },
    Workload {
        name: "manifests",
        about: "GET and HEAD of a manifest by tag and by digest over 64 connections",
        run: requests::run,
        once: false,
    },
    Workload {
        name: "tags",
        about: "10,000 tags of a repository, listed",
        run: lists::tags,
        once: true,
    },
    Workload {
        name: "catalog",
        about: "5,000 repositories, listed for who sees all and for who sees three",
        run: lists::catalog,
        once: true,
    },
    Workload {
        name: "collect",
        about: "images pushed one by one, with and without a collection that runs all the time",
        run: collect::run,
        once: true,
    },
    Workload {
        name: "memory",
        about: "32 transfers of 1 GiB at the same time: the registry's resident memory",
        run: memory::run,
        once: true,
    },
];

/// What can be asked for.
#[derive(Debug, Parser)]
pub struct RegistryArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// How often; 3, or 1 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Where results go
    #[arg(long, default_value = "target/bench-registry")]
    out: PathBuf,
    /// Where registries keep what they keep on disk
    #[arg(long, default_value = "/var/tmp")]
    scratch: PathBuf,
}

/// One contender under one workload, and what was measured.
struct Measured<'a> {
    registry: &'a mut dyn Registry,
    metrics: Vec<Metric>,
}

impl Measured<'_> {
    fn note(&mut self, name: &str, unit: &'static str, better: Better, value: f64) {
        let pids = self.registry.pids();
        self.metrics.push(Metric::noted(name, unit, better, value, &pids));
    }
}

/// Measures.
///
/// # Errors
/// Where something cannot be started. A workload that fails on a contender is noted.
pub fn measure(args: &RegistryArgs) -> Result<()> {
    let size = args.chosen.size();
    let workloads: Vec<&Workload> = match args.chosen.names.as_slice() {
        [] => ALL.iter().collect(),
        names => names.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    let contenders = match args.chosen.contenders.as_slice() {
        [] => contender::NAMES.map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    let rounds = args.rounds.unwrap_or(size.of(3, 1, 1)).max(1);
    let scratch = tempfile::Builder::new().prefix("yadokari-bench-").tempdir_in(&args.scratch)?;
    let setting = Setting {
        size: size.name().to_owned(),
        rounds,
        started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        ..run::machine(&args.scratch)
    };
    let mut results = Results { setting, absent: Vec::new(), samples: Vec::new() };
    let needs_ceph = contenders.iter().any(|name| name.contains("rados"));
    let ceph = needs_ceph.then(Ceph::start).transpose()?;
    let mut all = Vec::new();
    for name in &contenders {
        match contender::start(name, scratch.path(), ceph.as_ref())
            .with_context(|| format!("starting {name}"))?
        {
            Some(registry) => all.push(registry),
            None => results.absent.push(format!("{name} (its program is not on the PATH)")),
        }
    }
    if let Some(ceph) = &ceph {
        results.samples.extend(run::rados_bench(ceph, size));
    }
    for workload in workloads {
        eprintln!("{}: {}", workload.name, workload.about);
        let rounds = if workload.once { 1 } else { rounds };
        turns(workload, size, rounds, &mut all, &mut results);
    }
    std::fs::create_dir_all(&args.out)?;
    let json = serde_json::to_string_pretty(&results)?;
    std::fs::write(args.out.join("results.json"), json).context("writing the results")?;
    let table = report::render(&results);
    std::fs::write(args.out.join("table.md"), &table)?;
    println!("{table}");
    println!("{}: results.json, table.md", args.out.display());
    Ok(())
}

/// All rounds of one workload; in each the contenders begin with another.
fn turns(
    workload: &Workload,
    size: Size,
    rounds: usize,
    all: &mut [Box<dyn Registry>],
    results: &mut Results,
) {
    let mut failed: Vec<String> = Vec::new();
    for round in 0..rounds {
        for n in 0..all.len() {
            let len = all.len();
            let registry = all[(n + round) % len].as_mut();
            let name = registry.name().to_owned();
            if failed.contains(&name) {
                continue;
            }
            eprintln!("  {name}, round {}", round + 1);
            let mut measured = Measured { registry, metrics: Vec::new() };
            if let Err(error) = (workload.run)(&mut measured, size) {
                eprintln!("{} on {name}: {error:#}", workload.name);
                results.absent.push(format!("{} on {name} failed: {error}", workload.name));
                failed.push(name.clone());
            }
            let sample =
                |metric| Sample { workload: workload.name, contender: name.clone(), round, metric };
            results.samples.extend(measured.metrics.into_iter().map(sample));
        }
    }
}

fn named(name: &str) -> Result<&'static Workload> {
    let all = || ALL.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|workload| workload.name == name)
        .with_context(|| format!("there is no workload {name:?}; there are {}", all()))
}
