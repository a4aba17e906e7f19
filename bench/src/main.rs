//! `make bench`: homes measured beside a local disk, other network file systems and the floor of
//! FUSE, on this machine, in one go.
//!
//! A run starts the contenders ([`contender`]), takes the workloads ([`workload`]) in turn, one
//! contender after the other and several times ([`run`]), and gives raw results, a table with
//! ratios and charts. Every figure is a ratio to something that ran beside it. The registry has
//! contenders and workloads of its own ([`registry`]).

mod chart;
mod contender;
mod drain;
mod floor;
mod input;
mod place;
mod registry;
mod results;
mod run;
mod size;
mod stop;
mod table;
mod targets;
mod usage;
mod workload;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use yadokari_fs::view::Form;

use crate::size::{Chosen, Size};
use crate::workload::Workload;

/// Event loops of a mount, as the daemon has them.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;

#[derive(Debug, Parser)]
#[command(name = "yadokari-bench", about = "Measures homes beside other file systems")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures; without names, every workload
    Run(RunArgs),
    /// Measures the registry beside others; without names, every workload
    Registry(registry::RegistryArgs),
    /// Table and charts of earlier runs; a later one replaces what it measured too
    Report {
        /// Their `results.json`, in the order of time
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// Where the joined results, the table and the charts go
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
    },
    /// Lists workloads and contenders
    List,
    /// Serves the floor at a directory until it is unmounted
    Floor {
        directory: PathBuf,
        /// With what the kernel must ask of a daemon whose homes are shared
        #[arg(long)]
        node: bool,
    },
    /// One workload, by its name: `tree`, `large`, …, with the options of `run`
    #[command(external_subcommand)]
    Workload(Vec<String>),
}

#[derive(Debug, Parser)]
struct RunArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// How often; 3, or 1 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Where results and charts go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Where contenders keep what they keep on disk
    #[arg(long, default_value = "/var/tmp")]
    scratch: PathBuf,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => measure(args),
        Command::Registry(args) => registry::measure(&args),
        Command::Report { results, out } => report(&results, &out),
        Command::List => {
            for workload in workload::ALL {
                println!("{:12} {}", workload.name, workload.about);
            }
            println!("contenders: {}", contender::NAMES.join(", "));
            Ok(())
        }
        Command::Floor { directory, node } => {
            let form = if node { Form::Shared } else { Form::Local };
            let threads = std::thread::available_parallelism().map_or(THREADS_MIN, usize::from);
            floor::serve(&directory, form, threads.clamp(THREADS_MIN, THREADS_MAX))
        }
        Command::Workload(words) => {
            let args = std::iter::once("run".to_owned()).chain(words);
            measure(RunArgs::parse_from(args))
        }
    }
}

fn measure(args: RunArgs) -> Result<()> {
    let size = args.chosen.size();
    let workloads = match args.chosen.names.as_slice() {
        [] => workload::ALL.into_iter().filter(|w| size != Size::Quick || w.is_quick).collect(),
        names => names.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?,
    };
    let contenders = match args.chosen.contenders.as_slice() {
        [] if size == Size::Quick => quick_contenders(),
        [] => contender::NAMES.map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    let rounds = args.rounds.unwrap_or(size.rounds()).max(1);
    let plan = run::Plan { size, rounds, contenders, workloads, scratch: args.scratch };
    std::fs::create_dir_all(&args.out)?;
    stop::listen()?;
    let results = run::run(&plan, |results| save(results, &args.out))?;
    show(&results, &args.out)
}

fn report(files: &[PathBuf], out: &Path) -> Result<()> {
    let mut all: Option<results::Results> = None;
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let run = serde_json::from_slice::<results::Results>(&text);
        let run = run.with_context(|| format!("{} holds no results", file.display()))?;
        match &mut all {
            Some(all) => all.join(run).with_context(|| file.display().to_string())?,
            None => all = Some(run),
        }
    }
    let all = all.context("no results are named")?;
    std::fs::create_dir_all(out)?;
    save(&all, out)?;
    show(&all, out)
}

fn save(results: &results::Results, out: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(results)?;
    std::fs::write(out.join("results.json"), json).context("writing the results")?;
    Ok(std::fs::write(out.join("table.md"), table::render(results))?)
}

fn show(results: &results::Results, out: &Path) -> Result<()> {
    let charts = chart::draw(results, out)?;
    println!("{}", table::render(results));
    println!("{}: results.json, table.md, {}", out.display(), charts.join(", "));
    Ok(())
}

fn named(name: &str) -> Result<Workload> {
    match workload::by_name(name) {
        Some(workload) => Ok(workload),
        None => {
            let all = workload::ALL.map(|workload| workload.name).join(", ");
            bail!("there is no workload {name:?}; there are {all}")
        }
    }
}

fn quick_contenders() -> Vec<String> {
    ["ext4", "floor", "ours-file", "ours-rados", "ceph-fuse"].map(str::to_owned).to_vec()
}
