//! Homes against a naive model of a POSIX tree: random sequences of all operations, with time
//! passing, tiny caches, restarts and crashes. `YADOKARI_TEST_ROUNDS` multiplies the rounds.
//!
//! A failure prints its sequence; it goes on as a test `regression_…` below.

#[path = "model/bytes.rs"]
mod bytes;
#[path = "model/history.rs"]
mod history;
#[path = "model/life.rs"]
mod life;
#[path = "model/op.rs"]
mod op;
#[path = "model/sim.rs"]
mod sim;
#[path = "model/tree.rs"]
mod tree;

use std::time::Duration;

use life::{ROOMY, SMALL, Setting};
use op::Raw;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use sim::Sim;
use yadokari_store::Kind;
use yadokari_store::fault::{Action, Fault, FaultPlan, OpKind};

fn rounds() -> u32 {
    std::env::var("YADOKARI_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn model_check(cases: u32, setting: Setting, plan: FaultPlan, healthy: bool) {
    let cases = cases * rounds();
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    let (mut steps, mut crashes, mut reopens) = (0, 0, 0);
    let counts = std::cell::RefCell::new((&mut steps, &mut crashes, &mut reopens));
    let ops = proptest::collection::vec(any::<Raw>(), 1..150);
    TestRunner::new(config)
        .run(&ops, |ops| {
            let mut sim = Sim::new(setting, plan.clone());
            sim.healthy = healthy;
            sim.run_all(&ops);
            let mut counts = counts.borrow_mut();
            *counts.0 += ops.len() as u64;
            *counts.1 += sim.crashes;
            *counts.2 += sim.reopens;
            Ok(())
        })
        .unwrap_or_else(|error| match error {
            TestError::Fail(why, ops) => panic!("{why}\nreplay(…, &{ops:?})"),
            other => panic!("{other}"),
        });
    println!("{steps} operations, {crashes} crashes, {reopens} restarts");
}

#[test]
fn a_home_with_tiny_caches_behaves_as_the_model_through_restarts_and_crashes() {
    model_check(400, SMALL, FaultPlan::none(), true);
}

#[test]
fn a_home_with_room_behaves_as_the_model_through_restarts_and_crashes() {
    model_check(400, ROOMY, FaultPlan::none(), true);
}

/// Writes take a while, some longer than others: much is on its way when the next thing happens.
fn slow() -> FaultPlan {
    let delay = |ms| Fault::new(Action::Delay(Duration::from_millis(ms))).always();
    let segments = delay(900).under("homes/alice/segments").on([OpKind::Put]).probability(0.6);
    FaultPlan::new(1, [segments, delay(40).on([OpKind::Put, OpKind::Create]).probability(0.5)])
}

/// Requests fail, and writes happen whose answers are lost.
fn flaky() -> FaultPlan {
    let fails = Fault::new(Action::Fail(Kind::Unavailable)).always().probability(0.15);
    let lost = Fault::new(Action::LoseAnswer(Kind::Unavailable)).on(OpKind::WRITES);
    FaultPlan::new(2, [lost.always().probability(0.1), fails])
}

#[test]
fn a_home_on_a_slow_store_behaves_as_the_model_through_restarts_and_crashes() {
    model_check(300, SMALL, slow(), true);
}

#[test]
fn a_home_with_room_on_a_slow_store_behaves_as_the_model() {
    model_check(300, ROOMY, slow(), true);
}

#[test]
fn a_home_on_a_store_that_fails_again_and_again_behaves_as_the_model() {
    model_check(200, SMALL, flaky(), false);
}

fn replay(setting: Setting, ops: &[Raw]) {
    let mut sim = Sim::new(setting, FaultPlan::none());
    sim.verbose = true;
    sim.run_all(ops);
}

#[test]
fn the_shortest_sequence_works() {
    replay(SMALL, &[[0; 7]]);
}

#[test]
fn regression_a_minimal_acl_needs_no_quota() {
    replay(
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
    replay(
        SMALL,
        &[[30895, 24534, 0, 0, 0, 0, 0], [56773, 0, 0, 0, 0, 0, 0], [28657, 0, 0, 0, 0, 0, 0]],
    );
}
