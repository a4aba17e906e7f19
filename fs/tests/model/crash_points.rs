//! The script is stopped at every single request to the store, in every way that a request can
//! end with the process; the home is opened again, and everything is checked. The same for every
//! request of the recovery itself.
//!
//! A crash takes the machine along: nothing of it is left but what the store has.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use yadokari_store::fault::{Action, Crash, Fault, FaultPlan, OpKind};

use super::life::{ROOMY, SMALL, Setting};
use super::script::{Player, SCRIPT};
use super::sim::Sim;

/// Stops at the request with this number among those of the kinds.
pub fn crash_at(nth: u64, crash: Crash, kinds: &[OpKind]) -> FaultPlan {
    Fault::new(Action::Crash(crash)).on(kinds.iter().copied()).after(nth).into()
}

/// Plays the script until its end or until the store died; true where it died.
fn play(sim: &mut Sim) -> bool {
    let mut player = Player::default();
    for what in SCRIPT {
        if sim.verbose {
            eprintln!("{what:?}");
        }
        player.play(sim, *what);
        if sim.totals.crashes > 0 {
            return true;
        }
    }
    false
}

/// How many requests of these kinds the script makes.
pub fn count(setting: Setting, kinds: &[OpKind]) -> u64 {
    let mut sim = Sim::new(setting, FaultPlan::none());
    let counted = |sim: &Sim| {
        let counters = sim.life().control.counters();
        kinds.iter().map(|kind| counters.of(*kind)).sum::<u64>()
    };
    let before = counted(&sim);
    assert!(!play(&mut sim), "nothing died");
    counted(&sim) - before
}

/// One run that dies at a request; all checks are within.
pub fn die_at(setting: Setting, plan: FaultPlan, recovery: Option<FaultPlan>) -> bool {
    let mut sim = Sim::new(setting, FaultPlan::none());
    sim.life().control.arm(plan);
    sim.dies_again = recovery;
    let died = play(&mut sim);
    if died {
        sim.reopen();
    }
    died && sim.dies_again.is_none()
}

/// Runs all points on all processors; gives how many there were and which failed.
fn all_points(points: u64, run: impl Fn(u64) -> bool + Sync) -> (u64, Vec<u64>) {
    let (next, died) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::Relaxed);
                    if point >= points {
                        return;
                    }
                    let run = std::panic::AssertUnwindSafe(|| run(point));
                    match std::panic::catch_unwind(run) {
                        Ok(stopped) => drop(died.fetch_add(u64::from(stopped), Ordering::Relaxed)),
                        Err(_shown) => failed.lock().expect("whole").push(point),
                    }
                }
            });
        }
    });
    (died.into_inner(), failed.into_inner().expect("whole"))
}

fn every_point(crash: Crash, kinds: &[OpKind]) {
    for (setting, caches) in [(SMALL, "tiny caches"), (ROOMY, "room")] {
        let points = count(setting, kinds);
        let run = |nth| die_at(setting, crash_at(nth, crash, kinds), None);
        let (died, failed) = all_points(points, run);
        println!("{crash:?}, {caches}: {points} crash points, {died} met, {} failed", failed.len());
        assert!(failed.is_empty(), "{crash:?}, {caches}: points {failed:?} of {points}");
        // The order of requests is the same in every run.
        assert_eq!(died, points, "{crash:?}, {caches}: points met");
    }
}

#[test]
fn a_crash_before_any_request_leaves_what_was_promised() {
    every_point(Crash::Before, &OpKind::ALL);
}

#[test]
fn a_crash_after_any_write_leaves_what_was_promised() {
    every_point(Crash::After, &OpKind::WRITES);
}

#[test]
fn half_of_any_segment_leaves_what_was_promised() {
    for (setting, caches) in [(SMALL, "tiny caches"), (ROOMY, "room")] {
        let half = |nth| {
            let fault = Fault::new(Action::Crash(Crash::Half)).on([OpKind::Put, OpKind::Create]);
            FaultPlan::from(fault.under("homes/alice/segments").after(nth))
        };
        // More than there are: the last ones are not met.
        let (died, failed) = all_points(100, |nth| die_at(setting, half(nth), None));
        println!("half a segment, {caches}: {died} crash points, {} failed", failed.len());
        assert!(died > 8, "{died} segments");
        assert!(failed.is_empty(), "half a segment, {caches}: points {failed:?}");
    }
}

#[test]
fn a_crash_at_any_request_of_the_recovery_leaves_what_was_promised() {
    // In the midst of it: orphans, values on their way, captures in flight.
    let first = count(ROOMY, &OpKind::WRITES) / 2;
    for crash in [Crash::Before, Crash::After] {
        let died_at = |nth| {
            let again = Some(crash_at(nth, crash, &OpKind::ALL));
            die_at(ROOMY, crash_at(first, Crash::Before, &OpKind::WRITES), again)
        };
        let (died, failed) = all_points(120, died_at);
        println!("{crash:?} in the recovery: {died} crash points, {} failed", failed.len());
        assert!(died > 10, "{died} requests");
        assert!(failed.is_empty(), "{crash:?} in the recovery: points {failed:?}");
    }
}
