//! Runs of the simulation by number: a seed decides the caches, the faults of the store, and the
//! operations, and gives the same run again, to the last request. What fails is made short.
//!
//! `YADOKARI_SIM_SEED=n` runs just that seed and prints what it does.

use std::cell::RefCell;
use std::ops::AddAssign;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use yadokari_store::Kind;
use yadokari_store::fault::{Action, Fault, FaultPlan, OpKind};

use super::life::{ROOMY, SMALL, Setting};
use super::op::Raw;
use super::sim::Sim;

/// Operations of one run, at most.
const STEPS_MAX: usize = 150;

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// Writes take a while, some longer than others: much is on its way at any time.
    Slow,
    /// Requests fail, and writes happen whose answers are lost.
    Flaky,
    /// What is read of segments has a bit changed, now and then.
    Rotten,
}

impl Weather {
    pub fn plan(self, seed: u64) -> FaultPlan {
        let delay = |ms| Fault::new(Action::Delay(Duration::from_millis(ms))).always();
        match self {
            Self::Calm => FaultPlan::none(),
            Self::Slow => {
                let segments =
                    delay(900).under("homes/alice/segments").on([OpKind::Put, OpKind::Create]);
                let puts = delay(40).on([OpKind::Put, OpKind::Create]);
                FaultPlan::new(seed, [segments.probability(0.6), puts.probability(0.5)])
            }
            Self::Flaky => {
                let fails = Fault::new(Action::Fail(Kind::Unavailable)).always();
                let lost = Fault::new(Action::LoseAnswer(Kind::Unavailable)).on(OpKind::WRITES);
                FaultPlan::new(seed, [lost.always().probability(0.1), fails.probability(0.15)])
            }
            Self::Rotten => {
                let flip = Fault::new(Action::FlipBit { bit: seed.wrapping_mul(7919) });
                let flip = flip.on([OpKind::Get]).under("homes/alice/segments").always();
                FaultPlan::new(seed, [flip.probability(0.4)])
            }
        }
    }

    /// The store works, so that little may be lost.
    pub fn is_healthy(self) -> bool {
        self != Self::Flaky
    }
}

/// What a seed decides besides the operations.
pub fn world(seed: u64) -> (Setting, Weather) {
    let weather = match seed / 2 % 8 {
        0..=2 => Weather::Calm,
        3..=4 => Weather::Slow,
        5..=6 => Weather::Flaky,
        _ => Weather::Rotten,
    };
    // Damage shows where memory does not have it all.
    let tiny = seed % 2 == 0 || weather == Weather::Rotten;
    let setting = if tiny { SMALL } else { ROOMY };
    (setting, weather)
}

/// What runs consisted of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub steps: u64,
    pub commits: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub faults: u64,
    pub snapshots: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.faults += other.faults;
        self.snapshots += other.snapshots;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { seeds, steps, commits, crashes, restarts, faults, snapshots } = self;
        write!(
            f,
            "{seeds} seeds, {steps} steps, {commits} commits checked, {crashes} crashes, \
             {restarts} restarts, {faults} faults, {snapshots} snapshots"
        )
    }
}

/// A run that failed: why, and the shortest operations that fail so.
#[derive(Debug)]
pub struct Failure {
    pub why: String,
    pub ops: Vec<Raw>,
    pub totals: Totals,
}

/// A simulation as a seed asks for it.
pub fn simulation(seed: u64) -> Sim {
    let (setting, weather) = world(seed);
    let mut sim = Sim::new(setting, weather.plan(seed));
    sim.healthy = weather.is_healthy();
    sim.rotten = weather == Weather::Rotten;
    sim
}

/// The operations of a seed.
fn tree(seed: u64, shorten: u32) -> (TestRunner, impl ValueTree<Value = Vec<Raw>>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { failure_persistence: None, max_shrink_iters: shorten, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let ops = proptest::collection::vec(any::<Raw>(), 1..STEPS_MAX);
    let tree = ops.new_tree(&mut runner).expect("any numbers are operations");
    (runner, tree)
}

/// The operations of a seed, as they are before any shortening.
pub fn operations(seed: u64) -> Vec<Raw> {
    tree(seed, 0).1.current()
}

/// Runs a seed; one that fails is made shorter in up to `shorten` runs.
pub fn run(seed: u64, shorten: u32) -> Result<Totals, Failure> {
    let totals = RefCell::new(Totals::default());
    let (mut runner, tree) = tree(seed, shorten);
    let result = runner.run_one(tree, |ops| {
        let mut sim = simulation(seed);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run_all(&ops)));
        *totals.borrow_mut() += sim.totals;
        ended.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            TestCaseError::fail(text.unwrap_or_default())
        })
    });
    let totals = totals.into_inner();
    match result {
        Ok(_) => Ok(totals),
        Err(TestError::Fail(why, ops)) => {
            Err(Failure { why: why.message().to_owned(), ops, totals })
        }
        Err(other) => panic!("{other}"),
    }
}

/// Runs seeds on all processors: these, or for so long whatever comes, from a base that is
/// printed.
pub fn run_many(fixed: std::ops::Range<u64>, long: Option<Duration>) -> Totals {
    let started = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let base = if long.is_some() { since.as_nanos() as u64 >> 8 } else { fixed.start };
    let next = std::sync::atomic::AtomicU64::new(base);
    let go_on = |seed: u64| match long {
        Some(time) => started.elapsed() < time,
        None => seed < fixed.end,
    };
    let work = || {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if !go_on(seed) {
                return totals;
            }
            match run(seed, 2000) {
                Ok(more) => totals += more,
                Err(failure) => panic!(
                    "{}\nYADOKARI_SIM_SEED={seed} runs it again; {:?}\nreplay({seed}, &{:?})",
                    failure.why,
                    world(seed),
                    failure.ops
                ),
            }
        }
    };
    println!("seeds from {base}");
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    let mut all = Totals::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            match thread.join() {
                Ok(totals) => all += totals,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!("{all} in {} s", started.elapsed().as_secs());
    all
}
