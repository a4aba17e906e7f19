//! Deliberate bugs are put into the home one by one: the simulation must find each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use yadokari_fs::home::mutants::{Mutant, activate};
use yadokari_store::fault::{Crash, FaultPlan, OpKind};

use super::crash_points;
use super::invariants::Invariant;
use super::life::ROOMY;
use super::script::{Player, SCRIPT};
use super::seeds;
use super::sim::Sim;

/// A bug that is not found in so many seeds is not found.
const SEEDS_MAX: u64 = 1500;

/// The script first, whole and stopped at every write: it has work for the cleaner, which random
/// operations seldom have.
fn script_fails() -> Option<String> {
    let whole = || {
        let mut sim = Sim::new(ROOMY, FaultPlan::none());
        let mut player = Player::default();
        SCRIPT.iter().for_each(|what| player.play(&mut sim, *what));
        sim.reopen();
    };
    let stopped = || {
        let all = 0..crash_points::count(ROOMY, &OpKind::WRITES);
        for nth in all {
            let plan = crash_points::crash_at(nth, Crash::Before, &OpKind::WRITES);
            crash_points::die_at(ROOMY, plan, None);
        }
    };
    let panic = std::panic::catch_unwind(whole).err().or(std::panic::catch_unwind(stopped).err())?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// Runs the script and then seeds until something fails; says what was broken, and after how many steps.
fn hunt(mutant: Mutant) -> Option<(u64, u64, String)> {
    let mut steps = 0;
    activate(Some(mutant));
    if let Some(why) = script_fails() {
        activate(None);
        return Some((0, SCRIPT.len() as u64, why));
    }
    let found = (1..SEEDS_MAX).find_map(|seed| match seeds::run(seed, 0) {
        Ok(totals) => {
            steps += totals.steps;
            None
        }
        Err(failure) => Some((seed, steps + failure.totals.steps, failure.why)),
    });
    activate(None);
    found
}

#[test]
fn every_deliberate_bug_is_found_by_the_simulation() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match hunt(*mutant) {
                        Some((seeds, steps, why)) => println!(
                            "{mutant:?}: found in {seeds} seeds, {steps} steps: {}",
                            Invariant::named(&why)
                        ),
                        None => missed.lock().expect("whole").push(*mutant),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("whole");
    assert!(missed.is_empty(), "not found: {missed:?}");
}
