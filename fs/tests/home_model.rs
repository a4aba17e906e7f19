//! A home in a deterministic simulation: tables, segments, cleaner and recovery in one process
//! over a store in memory, with time, randomness and faults from a seed, against a naive model of
//! a POSIX tree. Its invariants are checked after every commit and every recovery.
//!
//! `YADOKARI_SIM_SEED=n` runs one seed again and prints its steps; `YADOKARI_TEST_LONG=1` goes on
//! for ten minutes from a base that is printed. A failure prints its seed and the shortest
//! sequence that fails; it goes on as a test `regression_…` below.

#[path = "model/bytes.rs"]
mod bytes;
#[path = "model/crash_points.rs"]
mod crash_points;
#[path = "model/damage.rs"]
mod damage;
#[path = "model/history.rs"]
mod history;
#[path = "model/invariants.rs"]
mod invariants;
#[path = "model/kept.rs"]
mod kept;
#[path = "model/life.rs"]
mod life;
#[path = "model/mutants.rs"]
mod mutants;
#[path = "model/op.rs"]
mod op;
#[path = "model/script.rs"]
mod script;
#[path = "model/seeds.rs"]
mod seeds;
#[path = "model/sim.rs"]
mod sim;
#[path = "model/tree.rs"]
mod tree;
#[path = "model/watch.rs"]
mod watch;

use std::time::Duration;

use life::{ROOMY, SMALL, Setting};
use op::Raw;
use sim::Sim;
use yadokari_store::fault::FaultPlan;

/// How long `make test-long` goes on.
const LONG: Duration = Duration::from_secs(600);
/// What `make test` runs: about a minute, beside the other tests.
const SEEDS: std::ops::Range<u64> = 0..800;

fn is_long() -> bool {
    std::env::var_os("YADOKARI_TEST_LONG").is_some()
}

#[test]
fn a_home_behaves_as_the_model_and_keeps_its_invariants_whatever_the_seed() {
    let given = std::env::var("YADOKARI_SIM_SEED").ok();
    if let Some(seed) = given.and_then(|text| text.parse().ok()) {
        return replay(seed, &seeds::operations(seed));
    }
    seeds::run_many(SEEDS, is_long().then_some(LONG));
}

#[test]
fn a_seed_gives_the_same_run_again_to_the_last_request() {
    for seed in 0..32 {
        let run = || {
            let mut sim = seeds::simulation(seed);
            sim.run_all(&seeds::operations(seed));
            sim.watch.digest()
        };
        assert_eq!(run(), run(), "seed {seed}, {:?}", seeds::world(seed));
    }
}

/// Runs the operations that a failure printed, or what is left of them.
fn replay(seed: u64, ops: &[Raw]) {
    println!("seed {seed}: {:?}", seeds::world(seed));
    run(seeds::simulation(seed), ops);
}

fn calm(setting: Setting, ops: &[Raw]) {
    run(Sim::new(setting, FaultPlan::none()), ops);
}

fn run(mut sim: Sim, ops: &[Raw]) {
    sim.verbose = true;
    sim.run_all(ops);
    println!("{}", sim.totals);
}

#[test]
fn the_shortest_sequence_works() {
    calm(SMALL, &[[0; 7]]);
}

#[test]
fn regression_a_minimal_acl_needs_no_quota() {
    calm(
        ROOMY,
        &[
            [23555, 0, 0, 16248, 0, 0, 0],
            [58439, 3365, 0, 0, 0, 0, 0],
            [0; 7],
            [58418, 0, 51946, 0, 19524, 3448, 0],
        ],
    );
}

#[test]
fn regression_a_home_works_where_the_clock_is_behind_that_of_the_last_writer() {
    calm(
        SMALL,
        &[[30895, 24534, 0, 0, 0, 0, 0], [56773, 0, 0, 0, 0, 0, 0], [28657, 0, 0, 0, 0, 0, 0]],
    );
}
